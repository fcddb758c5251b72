"""Old places of modules and names lead to their new ones, in a line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import clsim
from clsim.cli import main
from clsim.errors import InputError
from clsim.spec import registry
from clsim.spec.moved import MODULES, NAMES, advice

PACKAGE = Path(clsim.__file__).parent


def test_every_new_place_is_there() -> None:
    places = {*MODULES.values(), *NAMES.values()}
    assert not [place for place in places if not PACKAGE.joinpath(*place.split(".")).with_suffix(".py").is_file()]


def test_every_old_module_names_its_new_place(tmp_path: Path) -> None:
    """As a component of a spec, and imported by a user's file, in each of the ways that Python has."""
    silent = []
    for old, new in MODULES.items():
        package, _, leaf = f"clsim.{old}".rpartition(".")
        ways = [f"import clsim.{old}\nclsim.{old}.Nothing", f"from clsim.{old} import Nothing"]
        there = importlib.util.find_spec(f"clsim.{old.partition('.')[0]}") is not None and "." not in old
        if not there and leaf not in clsim.__all__:
            ways.append(f"from {package} import {leaf}\n{leaf}.Nothing")
        for i, text in enumerate(ways):
            name = f"{old.replace('.', '_')}_{i}.py"
            (tmp_path / name).write_text(f"{text}\n")
            silent += [text] * (f"has moved to clsim.{new}" not in refused(f"{tmp_path / name}:pick"))
        silent += [old] * (f"clsim.{old} has moved to clsim.{new}" not in refused(f"clsim.{old}:Nothing"))
    assert not silent


def test_every_name_that_went_elsewhere_names_its_new_place() -> None:
    silent = []
    for old, place in NAMES.items():
        module, _, name = old.rpartition(".")
        said = advice(f"clsim.{module}", [name])
        silent += [old] * (f"import {name} from clsim" not in said or f"clsim.{place}" not in said)
    # these two have other names now
    assert silent == ["drafts.Watch", "data.datasets.OWN", "data.datasets.digest"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "from clsim.exemplars import Exemplars",
            "clsim.exemplars has moved: import Exemplars from clsim (its place is clsim.pool.exemplars)",
        ),
        (
            "from clsim.pool import (\n    Pool,\n)",
            "clsim.pool has moved: import Pool from clsim (its place is clsim.pool.pool)",
        ),
        (
            "from clsim.objectives import Batch",
            "clsim.objectives has moved: import Batch from clsim (its place is clsim.training.contract)",
        ),
        ("from clsim import store", "clsim.store has moved to clsim.records.store"),
    ],
)
def test_a_file_with_an_old_import_gets_one_line(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(f"import torch\n{line}\n\n\ndef pick(pool, budget, *, rng): ...\n")
    assert refusal(monkeypatch, capsys, "run", "--buffer", "./mine.py:pick") == (
        f"clsim: imports mine from mine.py\nclsim: selectors: './mine.py:pick': {said}\n"
    )


def test_a_spec_with_an_old_name_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(monkeypatch, capsys, "run", "--set", "memory.buffer=clsim.memory:Buffer") == (
        "clsim: selectors: 'clsim.memory:Buffer': clsim.memory has moved: import Buffer from clsim "
        "(its place is clsim.memory.buffer)\n"
    )


def test_what_has_not_moved_keeps_its_message(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from clsim.selectors.kcenter import nothing\n")
    assert "cannot import name 'nothing'" in refused(f"{tmp_path / 'mine.py'}:pick")
    (tmp_path / "mine.py").write_text("import nowhere\n")
    assert "No module named 'nowhere'" in refused(f"{tmp_path / 'mine.py'}:pick")
    assert "No module named 'clsim.nowhere'" in refused("clsim.nowhere:pick")


def refused(name: str) -> str:
    with pytest.raises(InputError) as caught:
        registry.component("selectors", name)
    return str(caught.value)


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said on the error stream, with exit code 2."""
    monkeypatch.setattr("sys.argv", ["clsim", *words])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 2
    return capsys.readouterr().err
