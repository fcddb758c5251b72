"""Rivals on a partly labelled stream: as many steps for each, and the same views of what is labelled."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clsim
from clsim.data import datasets
from clsim.data.augmentation import Transform, View
from clsim.errors import InputError
from clsim.learners.semi.paws import Views
from clsim.learners.semi.unlabelled import SemiOptions
from clsim.pool.exemplars import Exemplars, batch_count
from clsim.pool.pool import Cost
from clsim.spec import registry
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.streams import build
from clsim.streams.stream import Stream
from clsim.training.assemble import assemble
from clsim.training.contract import Around, Learner, Setup, Terms
from clsim.training.epochs import epochs_of, images_of
from clsim.training.experience import learn
from clsim.training.progress import Quiet

SMALL = ["data.dataset=digits", "data.size=0", "data.per_class=20", "data.augment=[]", "labels.per_class=4"]
SMALL += ["training.batch_size=8", "training.epochs=2", "stream.experiences=2", "model.name=linear"]
"""A scenario's own settings, on 200 images in two experiences; 40 of them are labelled."""

NO_SMALL = "learner.options.small_views=0"

PARTLY = {name: resolve(name, "er") for name in registry.file_names("scenarios")}
SCENARIOS = [name for name, spec in PARTLY.items() if spec.labels.partial and not spec.labelling.asks]

SOFT = ("paws", "csl", "nncsl")
SEMI = ("pseudo-label", "fixmatch", "mixmatch", "remixmatch", "comatch", "ccic", *SOFT)


class Counting(Around[Learner]):
    """Counts the steps that a learner is asked for, in place of taking them."""

    def __init__(self, setup: Setup, inner: Learner) -> None:
        super().__init__(setup, inner)
        self.steps = 0

    def observe(self, batch: Exemplars) -> Terms:
        self.steps += 1
        return {"loss": torch.zeros(())}

    def finish(self, experience: Any) -> list[Terms]:
        return []

    def remember(self, samples: Exemplars) -> Exemplars:
        return samples


def streams(spec: RunSpec, made: dict[Any, Stream]) -> Stream:
    if (spec.stream, spec.labels) not in made:
        dataset = datasets.load(spec.data, datasets.data_root(None), progress=False)
        made[spec.stream, spec.labels] = build.build(
            dataset, spec.stream, 0, torch.device("cpu"), None, spec.labels, None
        )
    return made[spec.stream, spec.labels]


def counted(spec: RunSpec, stream: Stream) -> list[int]:
    found = []
    setup, learner = assemble(spec, stream, Cost())
    for position in stream.schedule:
        counting = Counting(setup, learner)
        shares = stream.shares(position, spec.memory.per, setup.memory.known)
        learn(stream.experience(position), setup, counting, shares, Quiet())
        found.append(counting.steps)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_strategies_are_asked_for_as_many_steps(scenario: str) -> None:
    """Two epochs over 100 images in batches of 8; a single left-over image would join the batch before it."""
    made: dict[Any, Stream] = {}
    found = {}
    for strategy in registry.file_names("strategies"):
        own = {"er-all-labels": ["labels.per_class=0", "training.steps=0"], **{name: [NO_SMALL] for name in SOFT}}
        try:
            spec = resolve(scenario, strategy, settings=[*SMALL, *own.get(strategy, [])])
            found[strategy] = counted(spec, streams(spec, made))
        except InputError:  # it needs tasks, or a validation part
            continue
    joint, cumulative = (found.pop(name) for name in ("joint", "cumulative"))
    assert len(found) > 25
    assert {"er", "finetune", "er-all-labels", "nncsl", "fixmatch", "ccic", "der++"} <= set(found)
    assert {tuple(steps) for steps in found.values()} == {(26, 26)}
    assert (joint, cumulative) == ([50], [26, 50])


@pytest.mark.parametrize("strategy", ["er", "gdumb", "icarl", "mir", "fixmatch", "avalanche:Naive"])
def test_the_steps_that_are_taken_are_those(strategy: str, runs: Path) -> None:
    settings = [*SMALL[2:-1], "training.batch_size=4"]
    record = clsim.run("split-digits", strategy, labels=4, settings=settings, runs=runs)
    assert [cost["steps"] for cost in record.data["cost"]] == [50, 50]


def test_labelled_samples_alone_make_the_epoch_where_they_are_more(runs: Path) -> None:
    settings = ["data.per_class=20", "labels.fraction=0.75", "labels.include_labelled=false", "training.epochs=1"]
    for strategy in ("er", "fixmatch"):
        record = clsim.run("split-digits", strategy, settings=settings, runs=runs)
        assert [cost["steps"] for cost in record.data["cost"]] == [3] * 5  # 30 labelled, 10 not, batches of 10


def test_a_memory_is_offered_each_labelled_sample_once_in_however_many_passes() -> None:
    offered: list[int] = []
    spec = resolve("split-digits", "er", flags={"labels": {"per_class": 4}}, settings=["data.per_class=20"])
    setup, learner = assemble(spec, stream := streams(spec, {}), Cost())

    class Recorded(Around[Learner]):
        def remember(self, samples: Exemplars) -> Exemplars:
            offered.extend(samples.index.tolist())
            return samples

    experience = stream.experience(0)
    assert setup.steps(experience) == 5 * 4  # and one of 8 samples in a pass
    learn(experience, setup, Recorded(setup, learner), 2, Quiet())
    once = sorted(experience.train.index.tolist())
    assert sorted(offered) == sorted(once * 2)  # batch by batch, and the experience as a whole


def test_epochs_of_several_passes_go_on_where_the_last_one_ended() -> None:
    """An epoch of 4 batches of a part that has 3: the order is that of as many passes as it takes."""
    part = streams(resolve("split-digits", "er", settings=["data.per_class=15"]), {}).experience(0).train
    assert len(part) == 30
    rng = torch.Generator().manual_seed(0)
    training = resolve("split-digits", "er", settings=["training.epochs=3"]).training
    parts = [[b.index for b in epoch] for epoch in epochs_of(part, training, rng, 4)]
    assert [len(epoch) for epoch in parts] == [4, 4, 4]
    rows = torch.cat([b for epoch in parts for b in epoch])
    assert all(sorted(rows[i : i + 30].tolist()) == sorted(part.index.tolist()) for i in (0, 30, 60, 90))
    assert images_of(30, training, 4) == len(rows) == 120


class Recording:
    """A run's transform that also keeps the raw samples which each kind of view was made of."""

    def __init__(self, inner: Transform) -> None:
        self._inner, self.plain = inner, inner.plain
        self.trained: set[bytes] = set()
        self.viewed: set[bytes] = set()

    def train(self, x: Tensor, rng: torch.Generator) -> Tensor:
        self.trained |= rows(x)
        return self._inner.train(x, rng)

    def view(self, names: Sequence[str], where: str) -> View:
        made = self._inner.view([], where)  # the data here are tiny

        def view(x: Tensor, rng: torch.Generator) -> Tensor:
            self.viewed |= rows(x)
            return made(x, rng)

        return view


def rows(x: Tensor) -> set[bytes]:
    return {bytes(row.numpy().tobytes()) for row in x}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_arms_see_labelled_samples_by_the_scenarios_view(scenario: str) -> None:
    """Those of the experience and of memory; and no arm sees unlabelled ones by it."""
    made: dict[Any, Stream] = {}
    for strategy in ("er", *SEMI):
        small = [*SMALL, "labels.include_labelled=false", "training.epochs=1"]
        small += [NO_SMALL] if strategy in SOFT else []
        spec = resolve(scenario, strategy, settings=small)
        setup, _ = assemble(spec, stream := streams(spec, made), Cost())
        setup = dataclasses.replace(setup, transform=(seen := Recording(setup.transform)))  # type: ignore[arg-type]
        make = registry.component("learners", spec.learner.name, spec.learner.options, "[learner.options]")
        learner = make(setup)
        for position in stream.schedule:
            learn(stream.experience(position), setup, learner, 5 * (position + 1), Quiet())
        labelled = set.union(*(rows(stream.experience(i).train.x) for i in (0, 1)))
        hidden = set.union(*(rows(stream.experience(i).unlabelled.x) for i in (0, 1)))  # type: ignore[union-attr]
        assert seen.trained == labelled, strategy
        assert seen.viewed == (set() if strategy == "er" else hidden), strategy


def test_no_shipped_setting_freezes_batch_norm() -> None:
    assert not Views().freeze_norm
    assert not SemiOptions().freeze_norm
    for scenario, strategy in itertools.product(SCENARIOS, SEMI):
        assert "freeze_norm" not in resolve(scenario, strategy).learner.options


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in ("nncsl-cifar10", "nncsl-cifar100")])
def test_the_weight_of_mixmatch_fits_the_steps(scenario: str) -> None:
    """The paper's grows to 75 over 16,000 steps."""
    spec = resolve(scenario, "mixmatch")
    images = 2 * (spec.data.per_class or 5000)
    steps = spec.training.epochs * batch_count(images, spec.training.batch_size)
    assert spec.learner.options["weight"] == pytest.approx(75 * steps / 16000, rel=0.05)
    assert spec.learner.options["growth"] == 1


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_with_all_labels_er_meets_as_many_new_samples_a_step_and_takes_as_many_steps(scenario: str) -> None:
    """With three times as many beside the same 50 exemplars it ended below er: the newest classes took over."""
    few, whole = resolve(scenario, "er"), resolve(scenario, "er-all-labels")
    classes = (100 if few.data.dataset == "cifar100" else 10) // few.stream.experiences
    new = min(few.training.batch_size, classes * few.labels.per_class)
    assert whole.training.batch_size == pytest.approx(new, rel=0.05)
    images = classes * (few.data.per_class or {"cifar10": 5000, "cifar100": 500}[few.data.dataset])
    steps = few.training.epochs * batch_count(images, few.training.batch_size)
    assert (whole.training.steps or few.training.epochs * batch_count(images, whole.training.batch_size)) == steps
    assert whole.memory == few.memory
