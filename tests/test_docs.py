"""The pages of docs/: each block is run by the project's checks, or says why not; own parts are as short as is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path for folder in ("howto", "explanation", "results/notes") for path in (ROOT / "docs" / folder).glob("*.md")
)


def _runner() -> ModuleType:
    """Load the script that runs the blocks, which is in no package."""
    spec = importlib.util.spec_from_file_location("readme", ROOT / ".ci" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme = _runner()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_of_a_page_is_run_or_says_why_not(page: Path) -> None:
    silent = [block for block in readme.blocks(page) if not block.runs and not block.left_out]
    assert not silent, f"{page}: neither <!-- run --> nor <!-- not run: why --> above:\n{silent[0].code}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "howto").glob("*.md")), ids=lambda page: page.stem)
def test_each_guide_has_a_block_that_runs_and_is_in_the_index(page: Path) -> None:
    if page.stem == "index":
        return
    assert any(block.runs for block in readme.blocks(page))
    assert f"\n{page.stem}\n" in (page.parent / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("guide", "lines"),
    [
        ("own-selector", 9),
        ("own-model", 9),
        ("own-data", 9),
        ("own-metric", 9),
        ("own-report", 9),
        ("own-objective", 15),
        ("own-learner", 25),
    ],
)
def test_a_part_of_ones_own_is_as_short_as_is_said(guide: str, lines: int) -> None:
    """The first file that the page writes, without empty lines."""
    code = next(block.code for block in readme.blocks(ROOT / "docs" / "howto" / f"{guide}.md") if block.runs)
    file = code.partition("<<'END'\n")[2].partition("\nEND\n")[0]
    written = [line for line in file.splitlines() if line.strip()]
    assert 0 < len(written) <= lines


def _page(folder: Path, name: str, text: str) -> Path:
    page = folder / f"{name}.md"
    page.write_text(text, encoding="utf-8")
    return page


def test_pages_run_in_order_each_in_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = "<!-- run -->\n```sh\necho one > file\n```\n\n<!-- run -->\n```python\nprint(open('file').read())\n```\n"
    second = "<!-- run -->\n```sh\ntest ! -e file\n```\n\n<!-- not run: why not -->\n```sh\nexit 1\n```\n"
    pages = [_page(tmp_path, "first", first), _page(tmp_path, "second", second)]
    assert readme.main(pages, tmp_path / "out") == 0
    assert "one" in capsys.readouterr().out
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["first", "second"]


def test_a_block_that_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = _page(tmp_path, "page", "<!-- run -->\n```sh\nfalse\necho never\n```\n")
    assert readme.main([page], tmp_path / "out") == 1
    assert "this block failed" in capsys.readouterr().out


def test_a_block_in_another_language_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = _page(tmp_path, "page", "<!-- run -->\n```toml\nkey = 1\n```\n")
    assert readme.main([page], tmp_path / "out") == 1
    assert "allowed: sh, python" in capsys.readouterr().out


def test_a_page_without_a_block_to_run_is_refused(tmp_path: Path) -> None:
    page = _page(tmp_path, "page", "```sh\nls\n```\n")
    assert [(block.runs, block.left_out) for block in readme.blocks(page)] == [(False, False)]
    with pytest.raises(SystemExit):
        readme.main([page], tmp_path / "out")


def test_blocks_are_told_apart_by_what_stands_above(tmp_path: Path) -> None:
    other = "```text\n```\n\n````md\n```sh\nb\n```\n````\n"  # a fence in a fence is no block
    text = f"<!-- not run: -->\n```sh\na\n```\n\n{other}\n<!-- run -->\n```python\nc\n```\n"
    found = readme.blocks(_page(tmp_path, "page", text))
    assert [(block.language, block.runs, block.left_out) for block in found] == [
        ("sh", False, False),
        ("python", True, False),
    ]
