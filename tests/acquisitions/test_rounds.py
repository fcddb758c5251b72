"""Acquisitions in the label rounds of a run: learning loss end to end, what goes back and what goes on, kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import clsim
from clsim.acquisitions.acquisition import Acquisition, Step
from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.pool.pool import Pool, Selection
from clsim.selectors.random import random
from clsim.spec.labelling import LabellingSpec
from clsim.spec.resolve import resolve
from clsim.training.progress import Quiet
from tests.helpers import assert_same
from tests.killing import assert_same_end, killed

SMALL = [
    *("data.per_class=20", "training.epochs=2", "stream.experiences=2", "evaluation.rows=seen", "memory.capacity=20"),
    "model.options.hidden=[16]",
]


class RandomAcquisition(Acquisition):
    """The selector random, as an acquisition."""

    def __init__(self, net: Net, rng: torch.Generator) -> None:
        pass

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return random(pool, budget, rng=rng)


def given(folder: Path, *settings: str, **changed: Any) -> dict[str, Any]:
    usual = {"scenario": "split-digits", "strategy": "er", "label": "learning-loss", "label_budget": 20}
    return {**usual, "label_rounds": 2, "labels": 2, "runs": folder, "settings": [*SMALL, *settings], **changed}


def checkpoint(record: clsim.RunRecord) -> dict[str, Any]:
    assert record.folder is not None
    return torch.load(record.folder / "checkpoint.pt", weights_only=True)


def losses(record: clsim.RunRecord) -> dict[str, np.ndarray]:
    assert record.folder is not None
    with np.load(record.folder / "losses.npz") as found:
        return dict(found)


def labelling(*settings: str, selector: str = "learning-loss") -> LabellingSpec:
    asked = [f"labelling.selector={selector}", "labelling.budget=40", *settings]
    return resolve("split-digits", "er", settings=asked).labelling


def test_the_name_alone_sets_what_its_paper_has() -> None:
    assert (labelling().start, labelling().candidates) == ("warm", 0)
    said = labelling("labelling.start=scratch", "labelling.candidates=50")
    assert (said.start, said.candidates) == ("scratch", 50)
    assert labelling(selector="random").start == "scratch"


def test_a_run_from_one_end_to_the_other(tmp_path: Path) -> None:
    record = clsim.run(**given(tmp_path))
    entries = record.data["labelling"]["rounds"]
    assert [entry["by"] for entry in entries] == ["initial", "learning-loss", "learning-loss"] * 2
    assert [len(entry["rows"]) for entry in entries] == [10, 10, 10] * 2
    found = losses(record)["learning-loss"]
    assert np.isfinite(found).all()
    assert (found > 0).any()
    state = checkpoint(record)
    assert_same(state["acquisition"]["module"], state["learner"]["joined"])


@pytest.mark.parametrize("start", ["warm", "scratch"])
def test_with_a_strength_of_0_a_run_ends_as_any_other_with_the_same_labels(tmp_path: Path, start: str) -> None:
    """All samples are asked for, in an order that does not matter where a round passes over what is labelled."""
    settings = (f"labelling.start={start}", "labelling.epoch=labelled", "labelling.noise=0")
    changed = {"label_budget": 100, "label_rounds": 1, "labels": 0}
    records = [
        clsim.run(**given(tmp_path, *settings, "labelling.options.strength=0", **changed)),
        clsim.run(**given(tmp_path, *settings, **changed, label="random")),
        clsim.run(**given(tmp_path, *settings, **changed)),
    ]
    assert records[0].data["accuracy"] == records[1].data["accuracy"]
    assert_same(checkpoint(records[0])["learner"]["net"], checkpoint(records[1])["learner"]["net"])
    weights = [checkpoint(record)["learner"]["net"]["head.weight"] for record in records]
    assert not torch.equal(weights[0], weights[2])


class Stopping(Quiet):
    """Stops a run at its ``at``-th batch, and counts the batches."""

    def __init__(self, at: int = 10**9) -> None:
        self.at, self.batches = at, 0

    def step(self, images: int) -> None:
        if self.batches == self.at:
            raise KeyboardInterrupt
        self.batches += 1


@pytest.mark.parametrize("start", ["warm", "scratch"])
def test_a_run_that_is_stopped_within_a_round_ends_bit_for_bit_the_same(tmp_path: Path, start: str) -> None:
    setting, each = f"labelling.start={start}", 2 * 10  # two epochs of ten batches: 100 images an experience
    whole = clsim.run(**given(tmp_path / "whole", setting))
    for at in (3, each + 7, 2 * each + 1, 4 * each + 11, 6 * each - 1):
        folder = tmp_path / str(at)
        with pytest.raises(KeyboardInterrupt):
            clsim.run(**given(folder, setting), progress=Stopping(at))
        watch = Stopping()
        resumed = clsim.run(**given(folder, setting), progress=watch)
        assert_same_end(resumed, whole)
        assert_same(checkpoint(resumed)["acquisition"], checkpoint(whole)["acquisition"])
        picks = [[entry["rows"] for entry in r.data["labelling"]["rounds"]] for r in (resumed, whole)]
        assert picks[0] == picks[1]
        assert watch.batches == 6 * each - at // each * each  # the round that was interrupted, and those after it


def test_a_run_that_is_killed_while_it_writes_a_round_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    whole = clsim.run(**given(tmp_path / "whole"))
    killed_here = given(tmp_path / "killed")
    killed(5, killed_here, whole)
    resumed = clsim.run(**killed_here)
    assert_same_end(resumed, whole)
    assert_same(checkpoint(resumed)["acquisition"], checkpoint(whole)["acquisition"])


MINE = """
import torch
import clsim

class Mine(clsim.Acquisition):
    '''Counts its choices, and turns with each; trains nothing.'''

    def __init__(self, net, rng):
        self.calls = 0

    def __call__(self, pool, budget, *, rng):
        self.calls += 1
        return clsim.Selection((pool.features.sum(1) * (-1.0) ** self.calls).argsort()[:budget])

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]
"""


@pytest.mark.parametrize("start", ["warm", "scratch"])
@pytest.mark.parametrize("labels", [0, 2])
def test_what_an_acquisition_keeps_goes_on_from_round_to_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, labels: int
) -> None:
    """Also where a round starts from scratch, and where the run was stopped."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    changed: dict[str, Any] = {"label": "./mine.py:Mine", "labels": labels, "label_rounds": 3, "label_budget": 30}
    setting = f"labelling.start={start}"
    whole = clsim.run(**given(tmp_path / "whole", setting, **changed))
    assert checkpoint(whole)["acquisition"] == {"calls": 6}
    for at in (5, 25, 70):
        folder = tmp_path / str(at)
        with pytest.raises(KeyboardInterrupt):
            clsim.run(**given(folder, setting, **changed), progress=Stopping(at))
        resumed = clsim.run(**given(folder, setting, **changed))
        assert_same_end(resumed, whole)
        assert checkpoint(resumed)["acquisition"] == {"calls": 6}
        assert resumed.data["labelling"]["asked"] == whole.data["labelling"]["asked"]


@pytest.mark.parametrize("strategy", ["a-gem", "si", "gdumb", "lwm"])
def test_a_learner_that_takes_no_terms_is_refused_before_training(tmp_path: Path, strategy: str) -> None:
    settings = [s for s in SMALL if not s.startswith("memory") or strategy in ("a-gem", "gdumb")]
    watch = Stopping()
    with pytest.raises(InputError, match=r"acquisition LearningLoss, whose terms .*; allowed: "):
        clsim.run(**given(tmp_path, strategy=strategy) | {"settings": settings}, progress=watch)
    assert watch.batches == 0


def test_a_net_without_taps_is_refused_before_training(tmp_path: Path) -> None:
    settings = [s for s in SMALL if not s.startswith("model")] + ["model.name=linear"]
    watch = Stopping()
    with pytest.raises(InputError, match=r"learning-loss: model.name: found a net without hidden layers"):
        clsim.run(**given(tmp_path) | {"settings": settings}, progress=watch)
    assert watch.batches == 0


class TwoViews(RandomAcquisition):
    """Notes what a step shows it."""

    views = 2
    seen: ClassVar[list[Step]] = []

    def terms(self, step: Step) -> dict[str, torch.Tensor]:
        self.seen.append(step)
        own = [step.net.features(view).square().mean() for view in step.views]
        return {"two-views": 0.0 * torch.stack(own).sum()} if own else {}


def test_an_acquisition_is_shown_views_of_samples_without_a_label(tmp_path: Path) -> None:
    TwoViews.seen.clear()
    clsim.run(**given(tmp_path, "data.augment=['crop']", label=TwoViews))
    for step in TwoViews.seen:
        first, second = step.views
        assert first.shape == second.shape
        assert first.shape[1:] == step.x.shape[1:]
        assert len(first) == len(step.view_task) > 0
        assert not torch.equal(first, second)
        assert step.task.shape == step.y.shape
    assert {int(step.view_task[0]) for step in TwoViews.seen} == {0, 1}
    parts = [(step.labelled, step.unlabelled) for step in TwoViews.seen]
    assert sorted({known for known, _ in parts}) == [10, 20, 30]  # the initial set, then ten labels a round
    assert {known + hidden for known, hidden in parts} == {parts[0][0] + parts[0][1]}
    draws = [step.views[0] for step in TwoViews.seen[:2]]
    assert not torch.equal(*draws)


class TwoLargeViews(TwoViews):
    """Asks for more samples than a batch has, and for augmentations of its own."""

    view_batch = 33
    augment = ("large-crop",)
    seen: ClassVar[list[Step]] = []


def test_an_acquisition_says_of_how_many_samples_and_how_augmented_the_views_are(tmp_path: Path) -> None:
    TwoLargeViews.seen.clear()
    clsim.run(**given(tmp_path, label=TwoLargeViews))  # without data.augment, by which both views would be equal
    for step in TwoLargeViews.seen:
        first, second = step.views
        assert len(first) == len(second) == 33 > len(step.y[: step.new])
        assert not torch.equal(first, second)


class Told(RandomAcquisition):
    """Notes which choices were announced."""

    seen: ClassVar[list[tuple[int, int]]] = []

    def next_choice(self, number: int, choices: int) -> None:
        self.seen.append((number, choices))


@pytest.mark.parametrize("labels", [0, 2])
def test_every_choice_is_announced_also_that_before_the_first_training(tmp_path: Path, labels: int) -> None:
    Told.seen.clear()
    clsim.run(**given(tmp_path, label=Told, labels=labels, label_rounds=3))
    assert Told.seen == [(0, 3), (1, 3), (2, 3)] * 2


def test_views_that_nobody_asks_for_draw_nothing(tmp_path: Path) -> None:
    records = [
        clsim.run(**given(tmp_path / str(i), label=which)) for i, which in enumerate((RandomAcquisition, "random"))
    ]
    assert records[0].data["accuracy"] == records[1].data["accuracy"]
