"""The reference: an entry for each name that clsim knows, each of its options, each command, each name of the API."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

import clsim
from clsim.cli.main import COMMANDS
from clsim.spec.described import KINDS, describe, names
from docs import links
from docs.generate import reference, text


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    reference.write(folder, Path(reference.ROOT / "reports" / "results"))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_each_name_has_an_entry_with_its_options(pages: Path, kind: str) -> None:
    page = (pages / f"{kind}.md").read_text(encoding="utf-8")
    entries = {part.partition(")=")[0]: part for part in re.split(r"^\(", page, flags=re.MULTILINE)[1:]}
    assert set(entries) == {text.anchor(kind, name) for name in names(kind)}
    assert len(entries) == len(names(kind))  # no two names share an anchor
    for name in names(kind):
        said, entry = describe(kind, name), entries[text.anchor(kind, name)]
        assert text.inline(text.sentence(said.title)) in entry
        for option in said.options:
            assert f"`{option.name}`: " in entry
            assert not option.default or f"default `{option.default}`" in entry
        for fact in (said.needs, said.cost, said.source):
            assert text.inline(fact) in entry
        assert kind == "tables" or said.example in entry


def test_each_command_has_its_flags(pages: Path) -> None:
    page = (pages / "commands.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"({text.anchor('commands', f'clsim {name}')})=" in page
    run = page.partition("`clsim run`\n")[2].partition(")=\n")[0]
    for flag in ("`--scenario SCENARIO`", "`--set SET`", "`--quiet`", "Default: `split-digits`."):
        assert flag in run


def test_all_of_the_api_is_there(pages: Path) -> None:
    page = (pages / "api.rst").read_text(encoding="utf-8")
    found = re.findall(r"^\.\. auto\w+:: clsim\.([\w.]+)$", page, re.MULTILINE)
    for name in clsim.__all__:
        if inspect.ismodule(getattr(clsim, name)):
            assert any(one.startswith(f"{name}.") for one in found)
        else:
            assert [one for one in found if one.rpartition(".")[2] == name and not one.startswith("metrics.")]


def test_the_keys_of_files_are_explained(pages: Path) -> None:
    reports, studies = ((pages / f"{kind}.md").read_text(encoding="utf-8") for kind in ("reports", "studies"))
    assert "`metrics`\n: metrics, with a table for each" in reports
    assert "`command`\n: The `clsim run` command of a run in the paper's setting" in reports
    assert re.search(r"^`seeds`\n: \w", studies, re.MULTILINE)
    assert "\n: –" not in reports.partition("(reports-")[0] + studies.partition("(studies-")[0]


def test_the_index_leads_to_each_page(pages: Path) -> None:
    index = (pages / "index.md").read_text(encoding="utf-8")
    assert all(f"]({path.name})" in index for path in pages.iterdir() if path.name != "index.md")


def test_a_page_that_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    text.save(tmp_path, {"a.md": "a", "b.md": "b"})
    (tmp_path / "notes").mkdir()
    before = (tmp_path / "a.md").stat().st_mtime_ns
    text.save(tmp_path, {"a.md": "a", "c.md": "c"})
    assert (tmp_path / "a.md").stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.md", "c.md", "notes"]


def test_names_in_an_entry_lead_to_others(pages: Path) -> None:
    page = (pages / "selectors.md").read_text(encoding="utf-8")
    entry = page.partition("(selectors-kcenter)=")[2].partition("\n(")[0]
    assert "[`herding`](#selectors-herding)" in entry
    assert "[`kcenter`](#selectors-kcenter)" not in entry  # not to itself


@pytest.mark.parametrize("module", ["text", "references"])
def test_examples(module: str) -> None:
    pytest.importorskip("sphinx", reason="sphinx is not installed (pip install 'clsim[docs]')")
    from docs.generate import references

    found = doctest.testmod({"text": text, "references": references}[module], optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<p id="here">', encoding="utf-8")
    (tmp_path / "a.html").write_text(
        '<a href="b/#here"></a><a href="b/index.html#there"></a><a href="c.html"></a><a href="#top" name="top"></a>'
        '<a href="https://example.org/x"></a><img src="https://example.org/i.png">'
        '<script src="//cdn.org/x.js"></script>',
        encoding="utf-8",
    )
    assert links.problems(tmp_path) == [
        "a.html: loads https://example.org/i.png from elsewhere",
        "a.html: loads //cdn.org/x.js from elsewhere",
        "a.html: no anchor b/index.html#there",
        "a.html: no file c.html",
    ]
