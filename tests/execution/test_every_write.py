"""Runs that die at each of their writes, one after the other: the same command ends as if they had not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import clsim
from clsim.records.store import RunRecord, Store
from tests.disk import CHANGING, Disk
from tests.killing import Killed, assert_same_end, killed

pytestmark = [
    pytest.mark.filterwarnings("ignore:without an initial set"),
    pytest.mark.filterwarnings("ignore:.*lr.*:UserWarning"),
]

TINY = ["data.per_class=6", "training.epochs=1", "stream.experiences=2", "evaluation.rows=seen"]
TASK = "stream.setting=task"
CONDENSED = ["memory.options.model=mlp", "memory.options.iterations=1"]
BRIEF = [*CONDENSED, "memory.options.steps=1", "memory.options.epochs=1"]
NARROW = ["model.name=convnet3", "model.options.width=4"]
FORMED = [*NARROW, "memory.options.model=''", *(f"memory.options.{k}" for k in ("iterations=1", "steps=1", "factor=2"))]
POOL = ("rare:0.3", "redundant:3", "noise:0.2")
CASES: dict[str, dict[str, Any]] = {
    "gem": {"strategy": "gem", "memory": 12},
    "labels in rounds": {"label": "badge", "label_budget": 8, "label_rounds": 2, "memory": 12},
    "dm": {"buffer": "dm", "memory": 20, "settings": CONDENSED},
    # learners, family by family
    **{name: {"strategy": name, "memory": 12} for name in ("er", "a-gem", "der", "der++", "er-ace", "gdumb", "ss-il")},
    **{name: {"strategy": name, "memory": 12} for name in ("icarl", "mir", "gss", "er-lwf")},
    "bic": {"strategy": "bic", "memory": 40},
    **{name: {"strategy": name} for name in ("finetune", "ewc", "online-ewc", "mas", "si", "rwalk", "lwf")},
    **{name: {"strategy": name} for name in ("mean-imm", "mode-imm", "cumulative", "joint")},
    **{name: {"strategy": name, "settings": [TASK]} for name in ("ebll", "lfl", "packnet", "hat")},
    "lwm": {"strategy": "lwm", "settings": NARROW},
    **{
        name: {"strategy": name, "labels": 2, "memory": 12}
        for name in (
            *("csl", "nncsl", "paws", "pseudo-label", "fixmatch", "mixmatch", "remixmatch", "comatch", "ccic"),
            *("r-fm", "r-pm", "er-all-labels"),
        )
    },
    # condensers
    **{name: {"buffer": name, "memory": 20, "settings": BRIEF} for name in ("dc", "dsa", "dcc", "dsac")},
    **{
        name: {
            "buffer": name,
            "memory": 20,
            "settings": FORMED,
        }
        for name in ("idc", "acc-dd")
    },
    # what else writes or is resumed
    "labels in a stream": {
        "label": "margin",
        "label_budget": 8,
        "memory": 12,
        "settings": ["labelling.update=batch", "labelling.rounds=1"],
    },
    "a learned acquisition": {"label": "learning-loss", "label_budget": 8, "label_rounds": 2, "memory": 12},
    "batches by an irreducible loss": {"batch": "rho-loss", "settings": ["stream.validation=0.2"], "memory": 12},
    "pruned batches": {"batch": "info-batch", "memory": 12},
    "a realistic pool": {
        "label": "margin",
        "label_budget": 8,
        "label_rounds": 2,
        "memory": 12,
        "pool": POOL,
        "settings": ["labelling.initial_count=4"],
    },
    "an embedding": {
        "label": "typiclust",
        "label_budget": 8,
        "label_rounds": 2,
        "memory": 12,
        "embedding": "rotation",
        "settings": ["embedding.epochs=1"],
    },
    "a controller": {
        "strategy": "ewc",
        "controller": "stability-decay",
        "settings": ["stream.validation=0.3", "controller.rates=[0.1, 0.01]"],
    },
    "an average, adamw": {"memory": 12, "settings": ["optimizer.average=0.5", "optimizer.name=adamw"]},
}
STEP = 9
"""Of so many writes a case dies at one, if not all are asked for; each case begins with another one."""


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch, tmp_path / "runs")


def folder(path: Path) -> Path:
    """Make a folder of data sets, if it is not there: a run makes none that is named."""
    path.mkdir(exist_ok=True)
    return path


def carried_out(arguments: Mapping[str, Any], runs: Path, data: Path) -> RunRecord:
    settings = [*TINY, *arguments.get("settings", [])]
    given: dict[str, Any] = {"scenario": "split-digits", "runs": runs, "data_root": data, **arguments}
    return clsim.run(**given | {"settings": settings})


def lasting(value: Any) -> Any:
    """A record without what differs from one run to the next: times, and the peak of the memory."""
    if isinstance(value, dict):
        left_out = ("seconds", "started", "ended", "peak_bytes", "checksum")
        return {key: lasting(of) for key, of in value.items() if not key.endswith(left_out)}
    return [lasting(of) for of in value] if isinstance(value, (list, tuple)) else value


def files(folder: Path | None) -> set[str]:
    assert folder is not None
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def deaths(
    disk: Disk, only: tuple[str, ...] | None, whole: RunRecord, again: Any, first: int = 1, step: int = 1
) -> Iterator[str]:
    """Let one run after the other die, each ``step`` operations later, and go on; yield the operations."""
    for number in itertools.count(first, step):
        disk.die_at(number, only)
        try:
            again(number)
        except Killed:
            hit = disk.hit
        else:
            assert number > 5
            return
        disk.heal()
        resumed = again(number)
        assert_same_end(resumed, whole)
        assert lasting(resumed.data) == lasting(whole.data), hit
        assert files(resumed.folder) == files(whole.folder), hit
        yield hit


def deaths_at_writes(case: str, tmp_path: Path, disk: Disk, first: int = 1, step: int = 1) -> list[str]:
    data = folder(tmp_path / "data")
    whole = carried_out(CASES[case], tmp_path / "whole", data)

    def again(number: int) -> RunRecord:
        return carried_out(CASES[case], tmp_path / "runs" / f"{number}", data)

    return list(deaths(disk, ("write", "sync folder"), whole, again, first, step))


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[] if name == "gem" else [pytest.mark.slow, pytest.mark.exhaustive]) for name in CASES],
)
def test_a_run_that_dies_at_any_write_ends_as_if_it_had_not(case: str, tmp_path: Path, disk: Disk) -> None:
    """With half of a file written, and with the file in its place."""
    found = deaths_at_writes(case, tmp_path, disk)
    assert len({hit.rpartition("/")[2].split(".")[1] for hit in found if hit.startswith("write")}) >= 4
    assert len(found) >= (10 if case == "joint" else 16)  # all in one experience


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_dies_at_some_writes_ends_as_if_it_had_not(case: str, tmp_path: Path, disk: Disk) -> None:
    assert deaths_at_writes(case, tmp_path, disk, 1 + [*CASES].index(case) % STEP, STEP)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("case", ["gem", "labels in rounds", "a controller"])
def test_a_run_that_dies_at_any_operation_ends_as_if_it_had_not(case: str, tmp_path: Path, disk: Disk) -> None:
    """Whatever it opens, locks, writes, syncs, renames, deletes or makes."""
    data = folder(tmp_path / "data")
    whole = carried_out(CASES[case], tmp_path / "whole", data)
    found = list(deaths(disk, None, whole, lambda n: carried_out(CASES[case], tmp_path / "runs" / f"{n}", data)))
    assert {hit.split()[0] for hit in found} >= {"open", "write", "sync", "replace", "unlink", "mkdir"}


@pytest.mark.slow
@pytest.mark.parametrize(("case", "move"), [("gem", 7), ("gem", 6), ("labels in rounds", 5), ("nncsl", 4)])
def test_a_run_whose_process_is_killed_ends_as_if_it_had_not(case: str, move: int, tmp_path: Path) -> None:
    """The same, by a signal: before the file ``move`` takes its place."""
    given: dict[str, Any] = {"scenario": "split-digits", "data_root": folder(tmp_path / "data"), **CASES[case]}
    given["settings"] = [*TINY, *given.get("settings", [])]
    whole = clsim.run(**given, runs=tmp_path / "whole")
    killed(move, given | {"runs": tmp_path / "runs"}, whole)
    resumed = clsim.run(**given, runs=tmp_path / "runs")
    assert_same_end(resumed, whole)
    assert files(resumed.folder) == files(whole.folder)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_study_that_dies_at_any_write_ends_as_if_it_had_not(tmp_path: Path, disk: Disk) -> None:
    """What it has finished is not run again."""

    def study(runs: Path) -> dict[str, RunRecord]:
        named: dict[str, Any] = {"strategy": ["er", "finetune"], "memory": 12, "engine": "here", "settings": TINY}
        found = clsim.study(**named, runs=runs, data_root=folder(tmp_path / "data"))
        assert not found.failures
        return {record.data["fingerprint"]: record for record in found.records}

    whole = study(tmp_path / "whole")
    assert len(whole) == 2
    for number in itertools.count(1):
        runs = tmp_path / "runs" / f"{number}"
        disk.die_at(number, CHANGING)
        try:
            study(runs)
        except Killed:
            pass
        else:
            break
        disk.heal()
        finished = {r.folder: (r.folder / "record.json").stat().st_mtime_ns for r in finished_in(runs) if r.folder}
        found = study(runs)
        assert found.keys() == whole.keys()
        for name, record in found.items():
            assert_same_end(record, whole[name])
            assert files(record.folder) == files(whole[name].folder)
        assert {folder: (folder / "record.json").stat().st_mtime_ns for folder in finished} == finished
    assert number > 50


def finished_in(runs: Path) -> list[RunRecord]:
    return Store(runs).records()[0]
