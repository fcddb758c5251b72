"""``training.until``: training stops after the epoch in which what is learnt from is told apart well enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clsim
from clsim.errors import InputError
from clsim.spec.resolve import resolve
from clsim.training import evaluation, evaluations, experience

SMALL = ["data.per_class=20", "stream.experiences=2", "evaluation.rows=seen", "training.epochs=12"]


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """The number of samples, and the share, of each measurement of training."""
    found: list[tuple[int, float]] = []

    def noted(learner: Any, samples: Any, spec: Any, cost: Any) -> float:
        share = evaluation.share_correct(learner, samples, spec, cost)
        found.append((len(samples), share))
        return share

    for place in (experience, evaluations):  # in training, and at the end of an experience
        monkeypatch.setattr(place, "share_correct", noted)
    return found


def run(folder: Path, *settings: str, strategy: str = "finetune", **given: Any) -> clsim.RunRecord:
    return clsim.run("split-digits", strategy, settings=[*SMALL, *settings], runs=folder, **given)


def steps(record: clsim.RunRecord) -> list[int]:
    return [cost["steps"] for cost in record.data["cost"]]


def test_training_stops_after_the_first_epoch_that_is_good_enough(
    tmp_path: Path, shares: list[tuple[int, float]]
) -> None:
    record = run(tmp_path, "training.until=0.9", "optimizer.lr=0.01")
    assert {n for n, _ in shares} == {100}
    ends = [i + 1 for i, (_, share) in enumerate(shares) if share >= 0.9]
    assert len(ends) == 2  # an experience each
    assert ends[1] == len(shares)
    assert steps(record) == [10 * ends[0], 10 * (ends[1] - ends[0])]
    assert ends[0] > 1
    for n, end in zip(steps(record), (ends[0], ends[1] - ends[0]), strict=True):
        assert n == 10 * end < 120


def test_the_steps_taken_are_those_of_a_run_that_goes_on(tmp_path: Path) -> None:
    """The schedule spans all epochs, and what is measured draws nothing."""
    settings = ["stream.experiences=1", "optimizer.schedule=cosine"]
    stopped, whole = run(tmp_path, "training.until=0.8", *settings), run(tmp_path, *settings)
    n = steps(stopped)[0]
    assert 0 < n < steps(whole)[0] == 240
    assert np.array_equal(stopped.losses["new"], whole.losses["new"][:n])


def test_what_is_never_reached_changes_nothing(tmp_path: Path) -> None:
    slow = "optimizer.lr=1e-6"
    never, plain = (run(tmp_path, slow, *until) for until in (["training.until=1.0"], []))
    assert never.data["accuracy"] == plain.data["accuracy"]
    assert steps(never) == steps(plain) == [120, 120]


def test_a_run_without_it_measures_nothing(tmp_path: Path, shares: list[tuple[int, float]]) -> None:
    run(tmp_path)
    assert not shares
    assert "until" not in resolve("split-digits", "er").as_dict()["training"]


@pytest.mark.parametrize("strategy", ["er", "fixmatch"])
@pytest.mark.parametrize("epoch", ["labelled", "larger"])
def test_label_rounds_stop_by_what_is_labelled(
    tmp_path: Path, shares: list[tuple[int, float]], strategy: str, epoch: str
) -> None:
    """A learner that also learns from unlabelled samples is measured on the labelled ones, as its rivals are."""
    settings = ["training.until=0.9", f"labelling.epoch={epoch}", "stream.experiences=1", "memory.capacity=20"]
    given: dict[str, Any] = {"label": "margin", "label_budget": 20, "label_rounds": 2, "labels": 1}
    record = run(tmp_path, *settings, strategy=strategy, **given)
    measured = shares[:-1]  # the last one is of the unlabelled part, for the record
    assert [n for n, _ in measured] == sorted(n for n, _ in measured)
    assert {n for n, _ in measured} == {10, 20, 30}
    total = 0
    for n in (10, 20, 30):
        own = [share for size, share in measured if size == n]
        passed = n if epoch == "labelled" else 200  # the labelled ones are among the unlabelled
        assert all(share < 0.9 for share in own[:-1])
        assert len(own) <= 12
        total += len(own) * passed // 10
    assert steps(record) == [total]


@pytest.mark.parametrize("more", [["training.patience=2"], ["optimizer.schedule=plateau", "optimizer.patience=2"]])
def test_it_stops_beside_patience_and_plateau(tmp_path: Path, shares: list[tuple[int, float]], more: list[str]) -> None:
    """Whichever is reached first; the validation part is measured first in each epoch."""
    record = run(tmp_path, "training.until=0.85", "stream.validation=0.2", "stream.experiences=1", *more)
    held_out, learnt = shares[:-1:2], shares[1::2]
    assert {n for n, _ in held_out} == {40}
    assert {n for n, _ in learnt} <= {160}
    assert all(share < 0.85 for _, share in learnt[:-1])
    assert learnt[-1][1] >= 0.85
    assert steps(record) == [16 * len(learnt)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.until=1.5"], r"training\.until: found 1\.5, allowed: a share from 0 to 1"),
        (["training.until=0.9", "training.steps=5"], r"training\.until: found 0\.9 with steps = 5"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, *settings)


def test_avalanche_does_not_have_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.until: found 0\.9 with an Avalanche strategy"):
        run(tmp_path, "training.until=0.9", strategy="avalanche:Naive")
