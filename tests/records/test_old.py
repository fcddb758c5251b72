"""What clsim 0.1.0 left is read, reported and gone on with: a finished run, and two that were stopped half way.

Its folders are those of today, but for the format of a checkpoint and of a search, which the version stood for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import clsim
from clsim.cli.main import app
from clsim.errors import InputError
from clsim.records import states
from clsim.records.search import Trial
from clsim.records.store import RunFolder, Store
from clsim.training.progress import Quiet
from tests.files import rewrite

FINISHED, HALF, SEARCHING = "e245b5e5187d6597", "68ce02744ca0cf8d", "bc87d64abec03571"  # as that version named them
LIKE: dict[str, Any] = {
    "scenario": "split-digits",
    "strategy": "er",
    "memory": 10,
    "settings": ["model.name=linear", "stream.experiences=2"],
}


class Counting(Quiet):
    """Counts what is trained."""

    def __init__(self) -> None:
        self.experiences: list[int] = []
        self.trials: list[float] = []

    def experience(self, position: int, total: int, images: int) -> None:
        self.experiences.append(position)

    def trial(self, trial: Trial) -> None:
        self.trials.append(trial.lr)


class Stops(Counting):
    """Stops a run in its second experience: as it begins, or at the second trial of its search."""

    def __init__(self, *, searches: bool) -> None:
        super().__init__()
        self.searches = searches
        self.tried = 0

    def experience(self, position: int, total: int, images: int) -> None:
        super().experience(position, total, images)
        if position == 1 and not self.searches:
            raise KeyboardInterrupt

    def trial(self, trial: Trial) -> None:
        self.tried += self.experiences[-1] == 1
        if self.tried == 2:
            raise KeyboardInterrupt


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    clsim.run(**LIKE, seed=0, runs=folder)
    for seed, controller in ((1, None), (2, "stability-decay")):
        with pytest.raises(KeyboardInterrupt):
            clsim.run(**LIKE, seed=seed, controller=controller, runs=folder, progress=Stops(searches=bool(controller)))
    for name in (HALF, SEARCHING):
        path = folder / name / "checkpoint.pt"
        state = torch.load(path, weights_only=True)
        assert state.pop("format") == states.FORMAT
        torch.save({**state, "clsim": "0.1.0"}, path)
    path = folder / SEARCHING / "search.json"
    new = {"format", "checksum"}
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in new}))
    return folder


def test_a_finished_run_is_read_and_reported(runs: Path) -> None:
    found, problems = Store(runs).records()
    assert ([record.data["fingerprint"] for record in found], problems) == ([FINISHED], [])
    watch = Counting()
    assert clsim.run(**LIKE, seed=0, runs=runs, progress=watch).data == found[0].data
    assert watch.experiences == []
    shown = CliRunner().invoke(app, ["report", "--runs", str(runs), "--format", "csv"])
    assert shown.exit_code == 0, shown.output
    assert "split-digits" in shown.output


def test_a_half_done_run_goes_on(runs: Path, tmp_path: Path) -> None:
    before = json.loads((runs / HALF / "record.json").read_text())
    watch = Counting()
    after = clsim.run(**LIKE, seed=1, runs=runs, progress=watch).data
    assert (after["fingerprint"], after["finished"], watch.experiences) == (HALF, True, [1])
    assert after["accuracy"][0] == before["accuracy"][0]
    assert clsim.run(**LIKE, seed=1, runs=tmp_path / "anew").data["accuracy"][1] == after["accuracy"][1]


def test_a_search_goes_on(runs: Path) -> None:
    (attempt,) = json.loads((runs / SEARCHING / "search.json").read_text())["attempts"]
    watch = Counting()
    after = clsim.run(**LIKE, seed=2, controller="stability-decay", runs=runs, progress=watch).data
    assert (after["fingerprint"], after["finished"], watch.experiences) == (SEARCHING, True, [1])
    assert after["searches"][1]["attempts"][0] == attempt  # not tried again
    assert len(watch.trials) == len(after["searches"][1]["attempts"]) - 1


@pytest.mark.parametrize("content", [{"format": states.FORMAT + 1}, {"fingerprint": FINISHED}, {"format": "new"}])
def test_a_checkpoint_of_a_later_format_or_another_run_is_refused(runs: Path, content: dict[str, Any]) -> None:
    path = runs / HALF / "checkpoint.pt"
    torch.save(torch.load(path, weights_only=True) | content, path)
    with pytest.raises(InputError, match=r"checkpoint\.pt: found .*, allowed: .*; run it again with --fresh$"):
        RunFolder(path.parent).checkpoint()


def test_a_search_of_a_later_format_is_refused(runs: Path) -> None:
    path = runs / SEARCHING / "search.json"
    rewrite(path, json.loads(path.read_text()) | {"format": 2})
    with pytest.raises(InputError, match=r"search\.json: found format 2, allowed: 1; run it again with --fresh$"):
        clsim.run(**LIKE, seed=2, controller="stability-decay", runs=runs)
