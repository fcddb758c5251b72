"""Plateaus: the rate falls, training stops, and the best epoch's state is the one to go on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import clsim
from clsim.data.datasets import load
from clsim.errors import InputError
from clsim.models import optimizers
from clsim.models.optimizers import Plateau
from clsim.pool import pool
from clsim.records.store import RunRecord
from clsim.spec.resolve import resolve
from clsim.spec.tables import OptimizerSpec
from clsim.streams import build
from clsim.training import assemble, evaluation, evaluations, experience
from tests.helpers import assert_same

SURVEY = ["optimizer.schedule=plateau", "training.patience=10", "training.epochs=70"]
BASE = ["stream.setting=task", "stream.validation=0.2", "data.per_class=30", "stream.experiences=2"]


def run(folder: Path, *settings: str, strategy: str = "ewc") -> RunRecord:
    return clsim.run("split-digits", strategy, settings=[*BASE, *settings], runs=folder)


def test_the_rate_falls_after_five_epochs_without_gain_and_training_stops_after_more_than_ten() -> None:
    plateau = Plateau(fall=5, stop=10)
    falls = []
    for accuracy in [0.5, 0.6, *[0.6] * 11]:  # equal is no gain
        assert not plateau.over
        plateau.epoch(accuracy)
        falls.append(plateau.falls)
    assert falls == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert plateau.over


def test_a_gain_counts_anew_and_what_fell_stays_fallen() -> None:
    plateau = Plateau(fall=2, stop=3)
    assert [plateau.epoch(a) for a in (0.5, 0.4, 0.4, 0.6, 0.6)] == [True, False, False, True, False]
    assert plateau.falls == 1
    assert not plateau.over
    plateau.begin()
    assert (plateau.falls, plateau.epoch(0.0)) == (0, True)


@pytest.mark.parametrize(("fall", "stop"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_falls_or_stops_unless_asked(fall: int, stop: int) -> None:
    plateau = Plateau(fall, stop)
    for _ in range(20):
        plateau.epoch(0.5)
    assert plateau.watches == bool(fall or stop)
    assert (plateau.falls > 0, plateau.over) == (bool(fall), bool(stop))


def test_the_rate_is_a_tenth_for_each_fall_of_a_plateau_alone() -> None:
    spec = OptimizerSpec(lr=1.0, schedule="plateau")
    assert [optimizers.rate(spec, 0, 10, falls) for falls in range(3)] == pytest.approx([1, 0.1, 0.01])
    assert optimizers.rate(OptimizerSpec(lr=1.0), 0, 10, 2) == 1.0


def test_the_best_epochs_state_is_the_one_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told that the third epoch is the best of seven, the run is that of three epochs."""
    told = iter([0.1, 0.2, 0.9, *[0.5] * 4, 0.7, 0.1, 0.2, 0.9, *[0.5] * 4, 0.7])
    share = evaluation.share_correct

    def says(*arguments: Any) -> float:
        share(*arguments)  # which must change nothing
        return next(told)

    with monkeypatch.context() as patch:
        for place in (experience, evaluations):  # in training, and at the end of an experience
            patch.setattr(place, "share_correct", says)
        stopped = run(tmp_path, "training.patience=3", "training.epochs=70", "optimizer.momentum=0.9")
    assert next(told, None) is None  # 7 epochs, then the record's own, twice
    three = run(tmp_path, "training.epochs=3", "optimizer.momentum=0.9")
    first = [r.accuracy.iloc[0].tolist() for r in (stopped, three)]
    assert first[0] == first[1]
    per_epoch = len(three.losses) // 6
    assert len(stopped.losses) == 14 * per_epoch


def test_the_surveys_schedule_stops_early_and_learns(tmp_path: Path) -> None:
    record = run(tmp_path, *SURVEY)
    every = 70 * (48 * 5 // 2) // 10
    assert all(cost["steps"] < every for cost in record.data["cost"])
    assert (record.metrics["learning_accuracy"] or 0) > 0.8
    again = run(tmp_path / "again", *SURVEY)
    assert again.accuracy.equals(record.accuracy)
    states = [torch.load(r.folder / "checkpoint.pt", weights_only=True)["learner"] for r in (record, again)]
    assert_same(*states)


def test_the_fall_is_what_the_optimizer_sees(tmp_path: Path) -> None:
    spec = resolve("split-digits", "finetune", settings=[*BASE, "optimizer.schedule=plateau", "optimizer.lr=0.5"])
    stream = build.build(load(spec.data, tmp_path), spec.stream, spec.seed, torch.device("cpu"))
    setup, learner = assemble.assemble(spec, stream, pool.Cost())
    experience = stream.experience(0)
    learner.begin(experience)
    rates = []
    for _ in range(6):
        learner.observe(experience.train[:10])
        rates.append(learner.optimizer.param_groups[0]["lr"])
        setup.plateau.epoch(0.0)
    assert rates == pytest.approx([0.5] * 6)  # the first epoch is a gain over nothing
    learner.observe(experience.train[:10])
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize("strategy", ["si", "rwalk", "ewc"])
def test_what_a_learner_accumulates_goes_back_with_the_weights(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told that the second epoch is the best, the importances are those of a run of two epochs."""
    told = iter([0.1, 0.9, *[0.5] * 4, 0.7])
    one = ["optimizer.momentum=0.9", "stream.experiences=1"]
    with monkeypatch.context() as patch:
        for place in (experience, evaluations):  # in training, and at the end of an experience
            patch.setattr(place, "share_correct", lambda *arguments: next(told))
        stopped = run(tmp_path, "training.patience=3", "training.epochs=70", *one, strategy=strategy)
    assert next(told, None) is None
    two = run(tmp_path, "training.epochs=2", *one, strategy=strategy)
    assert_same(*(torch.load(r.folder / "checkpoint.pt", weights_only=True)["learner"] for r in (stopped, two)))


@pytest.mark.parametrize("setting", ["optimizer.schedule=plateau", "training.patience=3"])
def test_without_a_validation_part_there_is_no_plateau(setting: str) -> None:
    with pytest.raises(InputError, match=r"stream\.validation: found 0 with (optimizer\.schedule|training\.patience)"):
        resolve("split-digits", "er", settings=[setting])


def test_a_learner_that_cannot_be_saved_has_no_best_epoch(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("import clsim\nclass Own(clsim.Sgd):\n    def state_dict(self):\n        return None\n")
    settings = ["training.patience=3", "training.epochs=2", f"learner.name={file}:Own"]
    with pytest.raises(InputError, match=r"training\.patience: learner '.*own\.py:Own' cannot be saved"):
        run(tmp_path, *settings, strategy="finetune")
