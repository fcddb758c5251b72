"""Partly labelled streams: which labels are known, and that the others are nowhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool
from clsim.selectors.combinators import per_class
from clsim.selectors.random import random
from clsim.spec.flags import label_share, tables_of
from clsim.spec.labelling import LabelsSpec
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.spec.tables import MemorySpec, StreamSpec
from clsim.streams import build as build_module
from clsim.streams.labels import revealed
from clsim.streams.stream import Stream
from tests.helpers import generator
from tests.streams.test_streams import CPU, dataset


def build(labels: LabelsSpec, seed: int = 0, **spec: Any) -> Stream:
    return build_module.build(dataset(per_class=20), StreamSpec(experiences=3, **spec), seed, CPU, None, labels)


def counts(samples: Exemplars) -> Counter[int]:
    return Counter(samples.y.tolist())


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (LabelsSpec(fraction=0.25), [5] * 6),
        (LabelsSpec(per_class=3), [3] * 6),
        (LabelsSpec(count=12), [2] * 6),
        (LabelsSpec(count=14), [3, 3, 2, 2, 2, 2]),
        (LabelsSpec(fraction=1.0), [20] * 6),
    ],
)
def test_every_class_has_as_many_labels_as_asked_for(labels: LabelsSpec, wanted: list[int]) -> None:
    stream = build(labels)
    found: Counter[int] = Counter()
    for i in stream.schedule:
        found += counts(stream.experience(i).train)
    assert [found[label] for label in range(6)] == wanted


@pytest.mark.parametrize("include", [True, False])
def test_unlabelled_samples_carry_minus_one_and_hold_the_labelled_ones_if_asked(include: bool) -> None:
    data = dataset(per_class=20)
    stream = build(LabelsSpec(per_class=4, include_labelled=include))
    for i in stream.schedule:
        experience = stream.experience(i)
        assert experience.unlabelled is not None
        assert set(experience.unlabelled.y.tolist()) == {-1}
        mine, other = set(experience.train.index.tolist()), set(experience.unlabelled.index.tolist())
        assert len(mine) == 8
        assert mine <= other if include else not mine & other
        assert mine | other == set(np.flatnonzero(np.isin(data.train_y, experience.classes)).tolist())
        assert stream.truth(i).tolist() == data.train_y[experience.unlabelled.index.numpy()].tolist()
        assert torch.equal(experience.unlabelled.x, torch.from_numpy(data.train_x[experience.unlabelled.index.numpy()]))


def test_without_the_table_everything_is_labelled_and_old_fingerprints_hold() -> None:
    stream = build(LabelsSpec())
    assert stream.experience(0).unlabelled is None
    assert len(stream.experience(0).train) == 40
    assert not len(stream.truth(0))
    assert "labels" not in RunSpec().as_dict()
    assert RunSpec(labels=LabelsSpec(fraction=0.1)).fingerprint != RunSpec().fingerprint


def test_with_nothing_hidden_nothing_is_left_once_the_labelled_are_out() -> None:
    assert build(LabelsSpec(fraction=1.0, include_labelled=False)).experience(1).unlabelled is None


def test_labels_depend_on_the_seed_alone() -> None:
    labels = LabelsSpec(per_class=4)
    one, again, other = (build(labels, seed).experience(1).train.index for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    # nor on how many are labelled elsewhere: more labels of a class only add to fewer
    fewer, more = (set(build(LabelsSpec(per_class=n)).experience(2).train.index.tolist()) for n in (3, 9))
    assert fewer < more


def test_validation_is_held_out_first_and_keeps_its_labels() -> None:
    stream = build(LabelsSpec(fraction=0.25), validation=0.2)
    experience = stream.experience(0)
    assert experience.validation is not None
    assert experience.unlabelled is not None
    assert counts(experience.validation) == {0: 4, 1: 4}
    assert counts(experience.train) == {0: 4, 1: 4}
    held_out = set(experience.validation.index.tolist())
    assert not held_out & set(experience.unlabelled.index.tolist())
    assert len(experience.unlabelled) == 32


@pytest.mark.parametrize("presentation", ["cumulative", "joint"])
def test_earlier_experiences_come_along_where_the_stream_is_presented_so(presentation: str) -> None:
    stream = build(LabelsSpec(per_class=2), presentation=presentation)
    experience = stream.experience(2)
    assert counts(experience.train) == dict.fromkeys(range(6), 2)
    assert experience.unlabelled is not None
    assert len(experience.unlabelled) == len(stream.truth(2)) == 120


def test_unlabelled_samples_of_the_whole_stream_are_dealt_evenly() -> None:
    stream = build(LabelsSpec(per_class=5, unlabelled="stream", include_labelled=False))
    dealt: list[int] = []
    for i in stream.schedule:
        experience = stream.experience(i)
        assert experience.unlabelled is not None
        dealt += experience.unlabelled.index.tolist()
        assert set(experience.unlabelled.task.tolist()) == {i}
        assert set(stream.truth(i).tolist()) == set(range(6))
        assert set(experience.train.y.tolist()) == set(experience.classes)
    assert len(dealt) == len(set(dealt)) == 6 * 15
    with pytest.raises(InputError, match=r"labels\.unlabelled: found 'stream' with stream\.kind 'permuted'"):
        build(LabelsSpec(per_class=5, unlabelled="stream"), kind="permuted", setting="domain")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"fraction": 0.01},
            r"labels\.fraction: found 0\.01, which leaves class 0 of experience 1 \(20 samples\)",
        ),
        ({"count": 5}, r"labels\.count: found 5, which leaves a class without a label; allowed: 6 or more"),
        ({"per_class": 21}, r"labels: 21 samples of class 0 are to be labelled, but experience 1 has 20"),
        ({"fraction": 1.5}, r"labels\.fraction: found 1\.5, allowed: a share from 0 to 1"),
        ({"fraction": 0.5, "count": 3}, r"labels: found several of fraction, per_class and count, allowed: one"),
    ],
)
def test_mistakes_are_one_clear_line(labels: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(LabelsSpec(**labels))


def test_experiences_that_repeat_the_classes_have_labels_each() -> None:
    masks = revealed([np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1])], LabelsSpec(count=5), 0)
    assert [int(m.sum()) for m in masks] == [3, 2]


def test_a_later_layer_says_it_its_own_way() -> None:
    def labels(*settings: str, flag: str | None = None) -> LabelsSpec:
        flags = {"labels": label_share(flag)} if flag else {}
        return resolve("split-digits", "er", flags=flags, settings=settings).labels

    assert labels("labels.count=40") == LabelsSpec(count=40)
    assert labels("labels.include_labelled=false", flag="5%") == LabelsSpec(fraction=0.05, include_labelled=False)
    for wrong in ("-3", "0%", "101%", "few", "1.5"):
        with pytest.raises(InputError, match=f"labels: found '{wrong}', allowed: a whole number per class"):
            label_share(wrong)
    with pytest.raises(InputError, match="labels: found 0, allowed: 1 or more"):
        tables_of(labels=0)
    assert tables_of(labels=0, label="random")["labels"] == {"per_class": 0}


def test_a_supervised_learner_trains_on_the_labelled_part_alone(runs: Path) -> None:
    settings = ["data.per_class=40", "training.epochs=2"]
    record = clsim.run("split-digits", "er", labels=10, memory=20, settings=settings, runs=runs)
    assert [c["steps"] for c in record.data["cost"]] == [2 * 8] * 5  # epochs · batches of 10 out of 80, as its rivals
    assert len(record.data["unlabelled"]) == 5
    assert all(0 <= share <= 1 for share in record.data["unlabelled"])
    whole = clsim.run("split-digits", "er", memory=20, settings=settings, runs=runs)
    assert "unlabelled" not in whole.data
    assert "readouts" not in whole.data
    assert "labels" not in whole.data["spec"]


def test_a_memory_holds_labelled_samples_alone_evenly_and_what_survives_was_there() -> None:
    def make_pool(samples: Exemplars, *, reference: Any = None, incoming: Any = None) -> Pool:
        return Pool(samples, None, lambda x: x)

    stream, held = build(LabelsSpec(per_class=10)), set[int]()
    memory = Buffer(MemorySpec(capacity=15), per_class(random), rng=generator(), cost=Cost())
    for position in stream.schedule:
        experience = stream.experience(position)
        memory.after_experience(experience.train, stream.classes_seen(position), make_pool)
        assert memory.exemplars is not None
        found = counts(memory.exemplars).values()
        assert sum(found) == 15
        assert max(found) - min(found) <= 1
        now = set(memory.exemplars.index.tolist())
        assert now <= held | set(experience.train.index.tolist())
        held = now
