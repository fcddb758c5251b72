"""Label rounds that are interrupted at any write, and files of rounds that are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.errors import InputError
from tests.commands import refused
from tests.killing import Killed, Writes, assert_same_end, killed
from tests.training.test_label_rounds import Stopping, numbers

pytestmark = pytest.mark.filterwarnings("ignore:without an initial set")

TINY = ["data.per_class=6", "training.epochs=1", "stream.experiences=2", "evaluation.rows=seen"]
WARM, TASK = "labelling.start=warm", "stream.setting=task"
CASES: dict[str, tuple[str, str, list[str]]] = {
    "er, reservoir": ("er", "margin", []),
    "er, reservoir, warm": ("er", "margin", [WARM]),
    "er, kcenter": ("er", "badge", ["memory.buffer=kcenter"]),
    "der++, warm": ("der++", "badge", [WARM]),
    "icarl, warm": ("icarl", "margin", [WARM]),
    "bic": ("bic", "margin", []),
    "packnet, warm": ("packnet", "margin", [WARM, TASK]),
    "hat, warm": ("hat", "margin", [WARM, TASK]),
    "lwf, warm": ("lwf", "margin", [WARM]),
    "gdumb": ("gdumb", "margin", []),
    "nncsl, warm": ("nncsl", "margin", [WARM]),
    "ccic, warm": ("ccic", "margin", [WARM]),
    "er, learning loss": ("er", "learning-loss", []),
    "er, discrepancy": ("er", "tod", []),
    "er, pseudo-labels": ("er", "ceal", ["labelling.options.delta=5"]),
    "er, average, batch norm": ("er", "margin", ["optimizer.average=0.5", "model.options.norm=batch"]),
    "er, average, warm": ("er", "badge", [WARM, "optimizer.average=0.5", "model.options.norm=batch"]),
    "er, vaal": ("er", "vaal", ["labelling.options.steps=2"]),
    "er, waal": ("er", "waal", []),
    "er, waal, warm": ("er", "waal", [WARM]),
    "er, until": ("er", "margin", [WARM, "training.until=0.5", "training.epochs=3"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_killed_at_any_write_ends_as_if_it_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Bit for bit; of the writes, the first is of the spec, and the last one is of the finished record."""
    strategy, label, settings = CASES[case]
    given: dict[str, Any] = {"label": label, "label_budget": 20, "label_rounds": 2, "settings": [*TINY, *settings]}
    writes = Writes(monkeypatch)
    whole = clsim.run("split-digits", strategy, runs=tmp_path / "whole", **given)
    assert writes.moves == 11  # the spec; two choices and checkpoint, losses, record of each experience
    for limit in range(2, 12):
        folder = tmp_path / f"{limit}"
        writes.stop_at(limit)
        with pytest.raises(Killed):
            clsim.run("split-digits", strategy, runs=folder, **given)
        resumed = clsim.run("split-digits", strategy, runs=folder, **given)
        assert numbers(resumed) == numbers(whole)
        assert_same_end(resumed, whole)


@pytest.mark.parametrize("move", [3, 8])
def test_a_run_whose_process_dies_ends_as_if_it_had_not(tmp_path: Path, move: int) -> None:
    given: dict[str, Any] = {"scenario": "split-digits", "strategy": "er", "label": "badge", "label_budget": 12}
    given |= {"label_rounds": 2, "settings": TINY}
    whole = clsim.run(**given, runs=tmp_path / "whole")
    killed(move, given | {"runs": tmp_path / "runs"}, whole)
    resumed = clsim.run(**given, runs=tmp_path / "runs")
    assert numbers(resumed) == numbers(whole)
    assert_same_end(resumed, whole)


def entry(state: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The state, with keys of its last round set."""
    return {**state, "entries": [*state["entries"][:-1], {**state["entries"][-1], **changed}]}


def first(state: dict[str, Any]) -> list[int]:
    return state["entries"][0]["places"]


DAMAGE: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no position": lambda s: {k: v for k, v in s.items() if k != "position"},
    "a negative position": lambda s: {**s, "position": -1},
    "a position that is to come": lambda s: {**s, "position": 1},
    "no entries": lambda s: {**s, "entries": []},
    "entries that are text": lambda s: {**s, "entries": ["badge"]},
    "places out of range": lambda s: entry(s, places=[10**6] * 6),
    "too many places": lambda s: entry(s, places=list(range(25))),
    "places that are known": lambda s: entry(s, places=first(s)),
    "a place twice": lambda s: entry(s, places=[first(s)[0] + 1] * 6),
    "negative places": lambda s: entry(s, places=[-1]),
    "places that are text": lambda s: entry(s, places=["a"]),
    "places that are no whole numbers": lambda s: entry(s, places=[0.5]),
    "huge places": lambda s: entry(s, places=[2**70]),
    "no places": lambda s: {**s, "entries": [{k: v for k, v in s["entries"][0].items() if k != "places"}]},
    "a round that is not planned": lambda s: entry(s, round=7),
    "a round that is text": lambda s: entry(s, round="2"),
    "rounds from the second on": lambda s: {**s, "entries": s["entries"][1:]},
    "another experience": lambda s: entry(s, experience=1),
    "an accuracy that is text": lambda s: {**s, "entries": [{**e, "accuracy": ["good"]} for e in s["entries"]]},
    "who asks is a number": lambda s: entry(s, by=3),
    "cost that is text": lambda s: {**s, "cost": dict.fromkeys(s["cost"], "much")},
    "a cost is missing": lambda s: {**s, "cost": {"steps": 3}},
    "no cost": lambda s: {**s, "cost": 3},
    "no state": lambda s: {**s, "state": None},
    "another state": lambda s: {**s, "state": {"learner": 3}},
    "another run's": lambda s: {**s, "fingerprint": "0" * 16},
    "another format": lambda s: {**s, "format": 99},
}


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run that was killed before the second round of its first experience."""
    folder = tmp_path_factory.mktemp("half")
    with pytest.raises(KeyboardInterrupt):
        clsim.run("split-digits", "er", runs=folder, progress=Stopping(2), **ASKED)
    return folder


ASKED: dict[str, Any] = {
    "label": "badge",
    "label_budget": 12,
    "label_rounds": 2,
    "labels": 1,
    "settings": [*TINY, WARM],
}
WORDS = [
    *("run", "--strategy", "er", "--label", "badge", "--label-budget", "12", "--label-rounds", "2"),
    *("--labels", "1", "--quiet"),
    *(word for setting in ASKED["settings"] for word in ("--set", setting)),
]


@pytest.mark.parametrize("damage", [*DAMAGE, "truncated", "text", "empty"])
def test_damaged_rounds_are_refused_in_one_line(
    tmp_path: Path, half_done: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    (saved,) = half_done.glob("*/rounds.pt")
    path = tmp_path / saved.parent.name / "rounds.pt"
    path.parent.mkdir()
    if change := DAMAGE.get(damage):
        torch.save(change(torch.load(saved, weights_only=True)), path)
    else:
        path.write_bytes({"truncated": saved.read_bytes()[:-200], "text": b"rounds", "empty": b""}[damage])
    before = path.read_bytes()
    said = refused(capsys, *WORDS, "--runs", str(tmp_path))
    assert "rounds.pt" in said
    assert "--fresh" in said
    assert path.read_bytes() == before


def test_damaged_rounds_are_forgotten_by_fresh(tmp_path: Path, half_done: Path) -> None:
    (saved,) = half_done.glob("*/rounds.pt")
    path = tmp_path / saved.parent.name / "rounds.pt"
    path.parent.mkdir()
    path.write_bytes(b"rounds")
    fresh = clsim.run("split-digits", "er", runs=tmp_path, fresh=True, **ASKED)
    assert numbers(fresh) == numbers(clsim.run("split-digits", "er", runs=tmp_path / "other", **ASKED))


def test_rounds_of_an_experience_that_is_done_are_left_over(tmp_path: Path) -> None:
    """A run that dies between its checkpoint and the end of its rounds leaves them."""
    given = ASKED
    whole = clsim.run("split-digits", "er", runs=tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        clsim.run("split-digits", "er", runs=tmp_path / "runs", progress=Stopping(1), **given)
    (saved,) = (tmp_path / "runs").glob("*/rounds.pt")
    kept = saved.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        clsim.run("split-digits", "er", runs=tmp_path / "runs", progress=Stopping(1), **given)
    saved.write_bytes(kept)
    assert numbers(clsim.run("split-digits", "er", runs=tmp_path / "runs", **given)) == numbers(whole)


def test_a_checkpoint_with_damaged_rounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        clsim.run("split-digits", "er", runs=tmp_path, progress=Stopping(3), **ASKED)
    (path,) = tmp_path.glob("*/checkpoint.pt")
    state = torch.load(path, weights_only=True)
    for places in ([10**6], ["a"], [0, 0]):
        state["results"]["rounds"][0]["places"] = places
        torch.save(state, path)
        with pytest.raises(InputError, match=r"checkpoint\.pt does not fit this run .* --fresh") as error:
            clsim.run("split-digits", "er", runs=tmp_path, **ASKED)
        assert "\n" not in str(error.value)
    assert np.isfinite(state["results"]["accuracy"][0][0])
