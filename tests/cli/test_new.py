"""`clsim new`: every file that it writes works as it is."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from clsim.cli.new import KINDS, TEMPLATES
from tests.commands import clsim, refused

FEW = {
    "run": ("--set", "data.per_class=20", "--set", "stream.experiences=2", "--set", "training.epochs=1"),
    "study": ("--seeds", "1", "--workers", "1", "--set", "data.per_class=20", "--set", "training.epochs=1"),
}
"""What makes the printed commands short."""


@pytest.fixture(autouse=True)
def _here(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a folder of its own, and no module of a test before."""
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_works_by_the_commands_that_are_printed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "report":
        assert clsim("run", *FEW["run"], "--quiet") == 0
    assert clsim("new", kind, "mine") == 0
    written, _, *commands = capsys.readouterr().out.splitlines()
    path = Path(written.removeprefix("written: "))
    text = path.read_text(encoding="utf-8")
    assert 8 <= len(text.splitlines()) <= 40
    assert "NAME" not in text
    assert "mine" in text
    for command in commands:
        program, name, *words = shlex.split(command)
        assert program == "clsim"
        active = ("--set", "labelling.rounds=2", "--set", "training.steps=20", "--set", "data.per_class=50")
        few = active if "active-digits" in words else FEW.get(name, ())
        assert clsim(name, *words, *few) == 0, command
        said = capsys.readouterr().out
        assert "keeps the contract" in said if name == "check" else "mine" in said + command
    if kind == "metric":
        assert "Accuracy on the worst experience at the end, %" in " ".join(said.split())


def test_every_template_belongs_to_a_kind() -> None:
    assert {path.stem.removeprefix("own_") for path in TEMPLATES.iterdir() if path.suffix in (".py", ".toml")} == {
        *KINDS
    }


def test_a_file_that_is_there_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("x = 1")
    assert "./mine.py is there already" in refused(capsys, "new", "learner", "mine")
    assert Path("mine.py").read_text() == "x = 1"
    assert clsim("new", "scenario", "mine") == 0
    capsys.readouterr()
    assert "./scenarios/mine.toml is there already" in refused(capsys, "new", "scenario", "mine")


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("selector", "my-sel", "as in my_sel"),
        ("selector", "class", "as in selector_class"),
        ("metric", "1st", "as in metric_1st"),
        ("selector", "a.b", "as in a_b"),
        ("learner", "torch", "a module that is installed"),
        ("learner", "random", "as in my_random"),
        ("scenario", "../up", "as in up"),
        ("scenario", "split-digits", "`clsim list scenarios`"),
        ("selectors", "x", "did you mean 'selector'?"),
        ("model", "\x1b[31m", "as in model_31m"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    kind: str, name: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "new", kind, name)
    assert expected in line
    assert "\x1b" not in line
    assert not [path for path in Path.cwd().rglob("*") if path.is_file()]
