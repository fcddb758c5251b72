"""Label rounds: budgets, rounds that begin again, hidden labels, and runs that are killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clsim
from clsim.errors import InputError
from clsim.spec.labelling import LabellingSpec
from clsim.spec.resolve import resolve
from clsim.training.progress import Quiet

SMALL = ["data.per_class=20", "training.epochs=2", "stream.experiences=2", "evaluation.rows=seen", "memory.capacity=20"]


def run(folder: Path, *settings: str, progress: Any = None, **given: Any) -> clsim.RunRecord:
    given = {"strategy": "er", "label": "entropy", "label_budget": 30, "runs": folder} | given
    return clsim.run("split-digits", settings=[*SMALL, *settings], progress=progress, **given)


def numbers(record: clsim.RunRecord) -> dict[str, Any]:
    """Everything in a record but times, bytes and names."""
    timed = ("seconds", "bytes")
    plain = json.loads(json.dumps(dict(record.data)))
    for entry in [*plain["cost"], *plain["labelling"]["rounds"]]:
        for key in [key for key in entry if key.endswith(timed)]:
            del entry[key]
    return {key: plain[key] for key in ("accuracy", "initial", "labelling", "metrics", "cost")}


@pytest.mark.parametrize(("budget", "rounds"), [(30, 4), (7, 3), (2, 5), (1000, 3)])
def test_budgets_are_exact(tmp_path: Path, budget: int, rounds: int) -> None:
    labelling = run(tmp_path, label_budget=budget, label_rounds=rounds).data["labelling"]
    for position in (0, 1):
        entries = [entry for entry in labelling["rounds"] if entry["experience"] == position]
        sizes, rows = [len(entry["rows"]) for entry in entries], [row for entry in entries for row in entry["rows"]]
        assert sum(sizes) == labelling["asked"][position] == min(budget, 100) == len(set(rows))
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] - sizes[-1] <= 1
        assert len(sizes) == min(rounds, budget)
        assert [entry["labelled"] for entry in entries] == np.cumsum(sizes).tolist()


def test_a_budget_can_be_a_share_and_rounds_a_size(tmp_path: Path) -> None:
    labelling = run(tmp_path, "labelling.per_round=12", label_budget="30%").data["labelling"]
    assert [len(entry["rows"]) for entry in labelling["rounds"]] == [12, 12, 6] * 2


@pytest.mark.parametrize(
    ("initial", "count", "found"), [("random", 7, [7, 7]), ("class", 2, [10, 10]), ("typiclust", 6, [6, 6])]
)
def test_the_initial_set_is_counted_apart(tmp_path: Path, initial: str, count: int, found: list[int]) -> None:
    record = run(tmp_path, f"labelling.initial={initial}", f"labelling.initial_count={count}", label_rounds=2)
    labelling = record.data["labelling"]
    assert labelling["initial"] == found
    assert labelling["asked"] == [30, 30]
    assert [entry["round"] for entry in labelling["rounds"]] == [0, 1, 2] * 2
    if initial == "class":
        assert np.bincount(labelling["rounds"][0]["labels"]).tolist() == [2] * 5


def test_labels_of_the_stream_are_an_initial_set(tmp_path: Path) -> None:
    labelling = run(tmp_path, labels=3, label_rounds=1).data["labelling"]
    assert labelling["initial"] == [15, 15]
    assert [entry["by"] for entry in labelling["rounds"]] == ["initial", "entropy"] * 2


@pytest.mark.parametrize("strategy", ["er", "finetune", "si", "lwf", "icarl"])
@pytest.mark.parametrize("setting", ["class", "task"])
def test_rounds_that_end_with_all_labels_do_not_matter(tmp_path: Path, strategy: str, setting: str) -> None:
    """Each round begins where the experience began: weights, optimizer, memory, generators."""
    small = [s for s in SMALL if strategy in ("er", "icarl") or not s.startswith("memory")]
    settings = [*small, "labelling.epoch=labelled", f"stream.setting={setting}"]
    once, thrice = (
        clsim.run(
            "split-digits", strategy, label=label, label_budget=100, label_rounds=n, settings=settings, runs=tmp_path
        )
        for label, n in (("random", 1), ("entropy", 3))
    )
    assert once.data["accuracy"] == thrice.data["accuracy"]


def test_a_warm_round_goes_on(tmp_path: Path) -> None:
    settings = ["labelling.epoch=labelled", "labelling.start=warm"]
    warm, scratch = (run(tmp_path, *settings[: 1 + i], label_budget=100, label_rounds=3) for i in (1, 0))
    assert warm.data["accuracy"] != scratch.data["accuracy"]


class Stopping(Quiet):
    """Stops a run when its ``at``-th round begins, and counts the rounds."""

    def __init__(self, at: int = 10**9) -> None:
        self.at, self.begun = at, 0

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        if self.begun == self.at:
            raise KeyboardInterrupt
        self.begun += 1


@pytest.mark.parametrize(
    ("strategy", "start"),
    [("er", "scratch"), ("er", "warm"), ("si", "warm"), ("ewc", "warm"), ("fixmatch", "warm"), ("rwalk", "scratch")],
)
def test_a_killed_run_does_one_round_again_at_most(tmp_path: Path, strategy: str, start: str) -> None:
    given: dict[str, Any] = {"strategy": strategy, "label_rounds": 2, "labels": 2}
    small = [s for s in SMALL if strategy in ("er", "fixmatch") or not s.startswith("memory")]
    settings = [*small, f"labelling.start={start}"]
    given |= {"label": "badge", "label_budget": 20, "settings": settings}
    whole = clsim.run("split-digits", runs=tmp_path / "whole", **given)
    for at in range(1, 6):
        folder = tmp_path / f"{at}"
        with pytest.raises(KeyboardInterrupt):
            clsim.run("split-digits", runs=folder, progress=Stopping(at), **given)
        watch = Stopping()
        resumed = clsim.run("split-digits", runs=folder, progress=watch, **given)
        assert numbers(resumed) == numbers(whole)
        assert watch.begun == 6 - at  # none of the rounds that were trained before
        assert not (resumed.folder / "rounds.pt").exists()  # type: ignore[operator]


class Counting(Quiet):
    """Counts the batches of each round, and stops a run before its ``at``-th batch."""

    def __init__(self, at: int = 10**9) -> None:
        self.at, self.rounds = at, list[int]()

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        self.rounds.append(0)

    def step(self, images: int) -> None:
        if sum(self.rounds) == self.at:
            raise KeyboardInterrupt
        self.rounds[-1] += 1


@pytest.mark.parametrize("start", ["scratch", "warm"])
def test_a_run_killed_within_a_round_takes_the_steps_of_that_round_again_alone(tmp_path: Path, start: str) -> None:
    def carried_out(name: str, progress: Counting) -> clsim.RunRecord:
        warm = f"labelling.start={start}"
        return run(tmp_path / name, warm, label="badge", label_rounds=3, labels=2, progress=progress)

    whole = Counting()
    record = carried_out("whole", whole)
    total, ends = sum(whole.rounds), np.cumsum(whole.rounds)
    for at in (3, total // 3, total // 2, total - 2):
        with pytest.raises(KeyboardInterrupt):
            carried_out(f"{at}", Counting(at))
        rest = Counting()
        assert numbers(carried_out(f"{at}", rest)) == numbers(record)
        twice = at + sum(rest.rounds) - total
        assert twice == at - max([0, *ends[ends <= at].tolist()])  # those of the round that had not ended


@pytest.mark.parametrize(
    "settings", [["labelling.start=warm"], ["labelling.initial=vote-entropy", "labelling.initial_count=5"]]
)
def test_a_committee_that_chose_first_leaves_nothing_to_a_resumed_run(tmp_path: Path, settings: list[str]) -> None:
    """Its nets draw from generators of the run."""
    more = [*settings, "proxy.epochs=1", "labelling.options.nets=2"]
    whole = run(tmp_path / "whole", *more, label="vote-entropy", label_rounds=2)
    for at in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"{at}", *more, label="vote-entropy", label_rounds=2, progress=Stopping(at))
        assert numbers(run(tmp_path / f"{at}", *more, label="vote-entropy", label_rounds=2)) == numbers(whole)


def made(tmp_path: Path, name: str, y: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 8)) * 3
    truth = np.arange(240) % 6
    x = (centres[truth] + rng.normal(size=(240, 8))).astype(np.float32)
    np.savez(tmp_path / name, x_train=x, y_train=y, x_test=x[:60], y_test=truth[:60])
    return str(tmp_path / name)


@pytest.mark.parametrize("label", ["badge", "kcenter", "typiclust", "random", "bald", "margin", "learning-loss"])
def test_hidden_labels_change_nothing(tmp_path: Path, label: str) -> None:
    """Labels that nobody asked for are permuted, and one class among them becomes another one."""
    settings = [
        *("data.dataset=npz", "stream.experiences=1", "stream.setting=class", "training.epochs=3"),
        *("labelling.initial_count=6", "labelling.split=0", "memory.capacity=20", "model.options.hidden=[16]"),
    ]

    def picks(path: str) -> tuple[list[int], clsim.RunRecord]:
        record = clsim.run(
            "split-digits",
            label=label,
            label_budget=24,
            label_rounds=3,
            settings=[*settings, f"data.path={path}"],
            runs=tmp_path / "runs",
        )
        return [row for entry in record.data["labelling"]["rounds"] for row in entry["rows"]], record

    y = np.arange(240) % 6
    rows, record = picks(made(tmp_path, "a.npz", y))
    hidden = np.setdiff1d(np.arange(240), rows)
    other = y.copy()
    other[hidden] = np.random.default_rng(1).permutation(y[hidden])
    other[hidden[other[hidden] == 5]] = 4
    assert (other != y).sum() > 50
    again, changed = picks(made(tmp_path, "b.npz", other))
    assert again == rows
    assert changed.data["accuracy"] == record.data["accuracy"]


def test_the_oracle_errs_the_same_way_each_time(tmp_path: Path) -> None:
    noisy, plain = (
        run(tmp_path, f"labelling.noise={noise}", label="random", label_budget=100, label_rounds=2).data["labelling"]
        for noise in (0.3, 0.0)
    )
    told = [dict(zip(e["rows"], e["labels"], strict=True)) for e in noisy["rounds"]]
    truth = [dict(zip(e["rows"], e["labels"], strict=True)) for e in plain["rounds"]]
    wrong = [sum(label != known[row] for row, label in found.items()) for found, known in zip(told, truth, strict=True)]
    assert 30 <= sum(wrong) <= 90  # 60 of 200 expected, standard deviation 6.5
    for entry in noisy["rounds"]:
        assert set(entry["labels"]) <= (set(range(5)) if entry["experience"] == 0 else set(range(5, 10)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": "25"}, "--labels 25"),
        ({"labels": "badge", "label": None}, "--label badge"),
        ({"label_budget": None}, "labelling.budget: found 0"),
        ({"label": None, "label_rounds": 2}, "nobody asks for labels"),
        ({"label": "none", "labels": 0, "label_budget": None}, "labels: found 0"),
        ({"label": "bagde"}, "did you mean 'badge'"),
        ({"strategy": "joint"}, "stream.presentation"),
        ({"controller": "stability-decay"}, "controller.name"),
        ({"label_budget": "many"}, "label-budget: found 'many'"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    settings = [s for s in SMALL if given.get("strategy") != "joint" or not s.startswith("memory")]
    usual = {"strategy": "er", "label": "entropy", "label_budget": 30, "runs": tmp_path, "settings": settings}
    with pytest.raises(InputError) as error:
        clsim.run("split-digits", **(usual | given))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_rounds_are_divided_as_they_should() -> None:
    for budget, rounds, free in ((900, 18, 60000), (10, 3, 7), (5, 9, 100), (0, 3, 10)):
        sizes = LabellingSpec("random", budget=budget, rounds=rounds).asked(free, free)
        assert sum(sizes) == min(budget, free)
        assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_without_a_selector_a_spec_is_as_before() -> None:
    plain = resolve("split-digits", "er")
    assert plain == resolve("split-digits", "er", settings=["labelling.selector=none"])
    assert "labelling" not in plain.as_dict()
