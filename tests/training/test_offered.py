"""Memories that also hold unlabelled samples, under the label that the learner predicts."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clsim
from clsim.checks.hidden_labels import partly_labelled
from clsim.checks.learners import snapshot
from clsim.checks.samples import CLASSES
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars
from clsim.spec import registry
from clsim.spec.resolve import resolve
from clsim.spec.tables import MemorySpec
from clsim.streams.stream import Stream
from clsim.training import offered, progress
from clsim.training.contract import Learner, Setup
from clsim.training.experience import learn
from tests.helpers import generator


def setup_with(**memory: Any) -> Setup:
    """Of four clusters in two experiences, a quarter labelled."""
    setup = setup_of(buffered=True)
    spec = dataclasses.replace(setup.spec.memory, unlabelled=True, **memory)
    setup.memory.spec = spec
    return dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, memory=spec))


def learnt(name: str, stream: Stream, **memory: Any) -> tuple[Setup, Learner]:
    setup = setup_with(**memory)
    learner = registry.component("learners", name)(setup)
    for position in stream.schedule:
        learn(stream.experience(position), setup, learner, 2 * position + 2, progress.Quiet())
    return setup, learner


class Oracle:
    """Predicts what it is told, as confidently as it is told, of samples by their first pixel."""

    read_net = None

    def __init__(self, wanted: dict[int, tuple[int, float]]) -> None:
        self.wanted = wanted

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        told = [self.wanted[int(level)] for level in x.flatten(1)[:, 0]]
        shares = torch.full((len(x), CLASSES), -torch.inf)
        for row, (label, confidence) in zip(shares, told, strict=True):
            row[:] = torch.tensor((1 - confidence) / (CLASSES - 1)).log()
            row[label] = torch.tensor(confidence).log()
        return shares


def some(n: int) -> Exemplars:
    x = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4)
    zero = torch.zeros(n, dtype=torch.int64)
    return Exemplars(x, zero - 1, zero, torch.rand(n, generator=generator()), torch.arange(n))


@pytest.mark.parametrize(("confidence", "kept"), [(0.0, [0, 1, 2, 3]), (0.8, [0, 2, 3]), (0.95, [2]), (1.0, [])])
def test_a_pseudo_label_is_the_highest_score_if_it_is_high_enough(confidence: float, kept: list[int]) -> None:
    oracle = Oracle({0: (3, 0.9), 1: (0, 0.7), 2: (1, 0.99), 3: (2, 0.85)})
    samples = some(4)
    found = offered.pseudo_labelled(samples, setup_with(confidence=confidence), oracle)  # type: ignore[arg-type]
    assert found.index.tolist() == kept
    assert found.y.tolist() == [oracle.wanted[i][0] for i in kept]
    assert torch.equal(found.key, samples.key[kept])
    assert samples.y.tolist() == [-1] * 4


def test_memory_is_offered_each_sample_once_and_known_labels_as_they_are() -> None:
    stream, setup = partly_labelled(False), setup_with()
    experience = stream.experience(0)
    assert experience.unlabelled is not None
    wrong = Oracle(dict.fromkeys(range(256), (3, 0.9)))
    found = offered.offered(experience, setup, wrong)  # type: ignore[arg-type]
    known = len(experience.train)
    assert found.index.tolist()[:known] == experience.train.index.tolist()
    assert torch.equal(found.y[:known], experience.train.y)
    assert set(found.y[known:].tolist()) == {3}
    assert found.index.sort().values.tolist() == experience.unlabelled.index.sort().values.tolist()  # which holds both
    plain = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, memory=MemorySpec()))
    assert offered.offered(experience, plain, wrong) is experience.train  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sgd", "nncsl"])
def test_the_labels_of_a_learner_that_knows_the_classes_are_mostly_right(name: str) -> None:
    stream = partly_labelled(False)
    setup, _ = learnt(name, stream)
    memory = setup.memory.exemplars
    assert memory is not None
    labelled = torch.cat([stream.experience(p).train.index for p in stream.schedule])
    guessed = ~torch.isin(memory.index, labelled)
    assert int(guessed.sum()) > 5  # three quarters of what was offered
    truth = {
        int(i): int(y)
        for p in stream.schedule
        for i, y in zip(stream.experience(p).unlabelled.index, stream.truth(p), strict=True)  # type: ignore[union-attr]
    }
    right = [truth[int(i)] == int(y) for i, y in zip(memory.index, memory.y, strict=True)]
    assert sum(right) >= 0.9 * len(right)


@pytest.mark.parametrize("name", ["sgd", "nncsl", "icarl"])
def test_hidden_labels_are_still_not_read(name: str) -> None:
    ends = []
    for permuted in (False, True):
        setup, _ = learnt(name, partly_labelled(permuted))
        memory = setup.memory.exemplars
        assert memory is not None
        ends.append([snapshot(setup), *memory.columns().values()])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("buffer", ["kcenter", "herding", "per_class(random)"])
def test_any_selector_fills_such_a_memory(buffer: str, tmp_path: Path) -> None:
    settings = ["data.per_class=30", "memory.unlabelled=true", "memory.confidence=0.5", "stream.experiences=2"]
    settings.append("training.epochs=20")
    record = clsim.run("split-digits", "er", buffer=buffer, labels=3, memory=60, settings=settings, runs=tmp_path)
    saved = torch.load(record.folder / "checkpoint.pt", weights_only=True)["memory"]["columns"]
    assert len(saved["y"]) == 60  # of 30 labelled ones in all
    assert (saved["y"] >= 0).all()


@pytest.mark.parametrize(
    ("labels", "buffer", "settings", "message"),
    [
        (None, "random", ["memory.unlabelled=true"], "memory.unlabelled: found true, but all samples of this stream"),
        (5, "reservoir", ["memory.unlabelled=true"], "memory.unlabelled: found true with update = 'batch', allowed: "),
        (5, "random", ["memory.confidence=0.5"], "memory.confidence: found 0.5 with unlabelled = false, allowed: "),
        (5, "random", ["memory.unlabelled=true", "memory.confidence=2"], "memory.confidence: found 2.0 with unlabel"),
    ],
)
def test_what_cannot_be_is_said(
    labels: int | None, buffer: str, settings: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        clsim.run("split-digits", "er", buffer=buffer, labels=labels, settings=settings, runs=tmp_path)


def test_a_run_that_does_not_ask_is_the_run_it_was() -> None:
    plain = resolve("split-digits", "er", flags={"labels": {"per_class": 5}})
    assert not {"unlabelled", "confidence"} & set(plain.as_dict()["memory"])
    asks = resolve("split-digits", "er", flags={"labels": {"per_class": 5}}, settings=["memory.unlabelled=true"])
    assert asks.fingerprint != plain.fingerprint
