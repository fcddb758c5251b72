"""Records are not given for code that has changed, and a record that is read says when it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import clsim
from clsim.cli.main import app
from clsim.execution import given
from clsim.pool.pool import Pool, Selection

SMALL = ["stream.experiences=2", "data.per_class=10", "training.epochs=1", "model.name=linear"]
WORDS = [word for setting in SMALL for word in ("--set", setting)]
MINE = (
    "import helper\nimport torch\nfrom clsim import Selection\n\n"
    "def pick(pool, budget, *, rng):\n    return Selection(torch.arange(min(len(pool), budget)) + helper.SHIFT)\n"
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("helper.py").write_text("SHIFT = 0\n")


def command(*words: str) -> Any:
    made = CliRunner().invoke(app, [*words, "--buffer", "./mine.py:pick", "--memory", "10", *WORDS])
    assert made.exit_code == 0, made.output
    return " ".join(made.output.split())


def test_a_run_that_was_read_says_so_each_time_and_when_it_was_made() -> None:
    assert "read, not run" not in command("run", "--seeds", "1")
    (record,) = Path("runs").glob("*/record.json")
    made = clsim.run("split-digits", buffer="./mine.py:pick", memory=10, settings=SMALL)
    assert made.read
    ended = made.data["ended"].replace("T", " ").replace("+00:00", " UTC")
    for _ in range(2):
        title = "split-digits · er · ./mine.py:pick 10 · seed 0"
        assert f"read, not run: {title}, made {ended}; --fresh runs it again" in command("run")
    Path("helper.py").write_text("SHIFT = 1\n")
    assert "read, not run" not in command("run")
    assert len(list(Path("runs").glob("*/record.json"))) == 2
    assert record.exists()
    assert "read, not run" not in command("run", "--fresh")
    assert "read, not run" not in command("run", "--quiet")


def test_a_study_says_how_many_records_it_read_and_its_workers_find_the_neighbours() -> None:
    first = command("study", "--seeds", "1", "--workers", "1")
    assert "read, not run" not in first
    again = command("study", "--seeds", "2", "--workers", "1")
    assert "read, not run: 1 run, made " in again
    assert len(list(Path("runs").glob("*/record.json"))) == 2


def test_what_cannot_be_followed_is_said_once_a_command() -> None:
    Path("helper.py").write_text("import importlib\nSHIFT = importlib.import_module('math').floor(0.5)\n")
    for words in (["run", "--seeds", "2"], ["run", "--seeds", "2"], ["study", "--seeds", "2"]):
        assert command(*words).count("helper.py, line 2 (import_module)") == 1
    with pytest.warns(UserWarning, match=r"a change of what is loaded here .* helper\.py, line 2"):
        clsim.run("split-digits", buffer="./mine.py:pick", memory=10, settings=SMALL)


SHIFT = 0


def first_ones(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.arange(min(budget, len(pool))) + SHIFT)


def test_a_global_that_a_given_selector_reads_tells_it_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = given.source_of(first_ones)
    assert given.source_of(first_ones) == before
    monkeypatch.setattr("tests.execution.test_stale.SHIFT", 1)
    assert given.source_of(first_ones) != before


def test_a_helper_of_a_given_selector_tells_it_from_another() -> None:
    from clsim.spec import registry

    texts = []
    for shift in (0, 1):
        Path("helper.py").write_text(f"SHIFT = {shift}\n")
        texts.append(given.source_of(registry.component("selectors", "./mine.py:pick")))
    assert texts[0] != texts[1]
