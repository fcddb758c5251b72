"""``training.steps``: so many batches in each experience, whatever its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import clsim
from clsim.errors import InputError
from clsim.pool.exemplars import batch_count
from clsim.records.store import RunRecord
from clsim.spec.resolve import resolve
from clsim.spec.tables import TrainingSpec
from clsim.training import loop
from clsim.training.epochs import epochs_of, images_of
from tests.helpers import assert_same, generator, vectors

UNEQUAL = ["data.per_class=17", "stream.first=4", "stream.experiences=3", "training.epochs=3"]
"""68, 51 and 51 samples: 7, 5 and 5 batches (one sample left over joins the batch before it)."""


def run(folder: Path, *settings: str, strategy: str = "er", **arguments: Any) -> RunRecord:
    return clsim.run("split-digits", strategy, settings=[*UNEQUAL, *settings], runs=folder, **arguments)


@pytest.mark.parametrize("steps", [1, 5, 7, 12])
def test_each_experience_has_exactly_so_many_steps(steps: int, tmp_path: Path) -> None:
    record = run(tmp_path, f"training.steps={steps}", "optimizer.schedule=cosine", memory=20)
    assert [cost["steps"] for cost in record.data["cost"]] == [steps] * 3


def test_batches_are_those_of_as_many_epochs_as_it_takes() -> None:
    samples = vectors(torch.arange(51.0)[:, None])
    by_epochs = [b.index for part in epochs_of(samples, TrainingSpec(epochs=3), generator()) for b in part]
    for steps in (1, 5, 8, 10, 15):
        training = TrainingSpec(steps=steps)
        found = [b.index for part in epochs_of(samples, training, generator()) for b in part]
        assert_same(found, by_epochs[:steps])
        assert images_of(51, training) == sum(map(len, found))
    assert images_of(51, TrainingSpec(epochs=3)) == 153


def test_as_many_steps_as_epochs_make_are_the_same_numbers(tmp_path: Path) -> None:
    equal = ["data.per_class=20", "stream.first=0", "stream.experiences=2", "optimizer.schedule=step"]
    equal += ["optimizer.milestones=[0.5]", "optimizer.warmup=0.2"]
    counted = run(tmp_path, *equal, "training.epochs=2", memory=20)
    fixed = run(tmp_path, *equal, f"training.steps={2 * batch_count(100, 10)}", memory=20)
    assert counted.accuracy.equals(fixed.accuracy)
    assert counted.data["fingerprint"] != fixed.data["fingerprint"]


@pytest.mark.parametrize("strategy", ["er", "fixmatch", "hat"])
def test_an_interrupted_run_goes_on_with_the_same_numbers(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, labels = ["training.steps=6"], 5 if strategy == "fixmatch" else None
    settings += ["stream.setting=task"] if strategy == "hat" else []
    whole = run(tmp_path / "whole", *settings, strategy=strategy, labels=labels)
    rows = loop.record_of

    def interrupted(*arguments: Any) -> Any:
        if arguments[2].done == 2:
            raise KeyboardInterrupt
        return rows(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "record_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", *settings, strategy=strategy, labels=labels)
    again = run(tmp_path / "parts", *settings, strategy=strategy, labels=labels)
    assert whole.accuracy.equals(again.accuracy)
    states = [torch.load(r.folder / "checkpoint.pt", weights_only=True)["learner"] for r in (whole, again)]
    assert_same(*states)


def test_a_plateau_looks_after_each_pass(tmp_path: Path) -> None:
    settings = ["stream.validation=0.2", "optimizer.schedule=plateau", "optimizer.patience=1", "training.steps=12"]
    record = run(tmp_path, *settings, memory=20)
    assert [cost["steps"] for cost in record.data["cost"]] == [12] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.steps=-1"], r"training\.steps: found -1, allowed: 0 or more"),
        (["training.steps=5", "training.passes=2"], r"training\.passes: found 2 with steps = 5, allowed: 1"),
        (
            ["training.steps=5", "training.patience=2", "stream.validation=0.2"],
            r"training\.patience: found 2 with steps = 5, which says when training ends; allowed: 0",
        ),
    ],
)
def test_what_makes_no_sense_together_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve("split-digits", "er", settings=settings)


def test_an_avalanche_strategy_counts_epochs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.steps: found 5 with an Avalanche strategy, allowed: 0"):
        run(tmp_path, "training.steps=5", strategy="avalanche:Naive")


def test_without_it_a_run_is_the_run_it_was() -> None:
    plain = resolve("split-digits", "er")
    assert "steps" not in plain.as_dict()["training"]
    assert resolve("split-digits", "er", settings=["training.steps=5"]).fingerprint != plain.fingerprint
