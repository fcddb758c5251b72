"""The readout by nearest neighbours, for every learner on a partly labelled stream."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import clsim
from clsim.checks.hidden_labels import partly_labelled
from clsim.checks.learners import train_on
from clsim.checks.setups import setup_of
from clsim.learners.sgd import Sgd
from clsim.spec import registry
from clsim.streams.stream import Stream
from clsim.training import loop
from clsim.training.contract import Setup
from clsim.training.evaluation import readouts
from clsim.training.neighbours import NEAREST, borrowed, by_neighbours
from tests.helpers import assert_same

SMALL = ["data.per_class=20", "training.epochs=1"]


def learnt(name: str, *, buffered: bool = True, **options: Any) -> tuple[Setup, Any, Stream]:
    """Both experiences of a small stream, without masks."""
    setup, stream = setup_of(buffered=buffered), partly_labelled(False)
    setup.net.visible.fill_(True)
    setup.net.masked = False
    learner = registry.component("learners", name, options)(setup)
    for position in stream.schedule:
        train_on(setup, learner, stream.experience(position))
    return setup, learner, stream


@pytest.mark.parametrize(
    "strategy",
    ["finetune", "er", "der++", "icarl", "gdumb", "ewc", "pseudo-label", "fixmatch", "comatch", "ccic", "csl"],
)
def test_both_readouts_are_in_the_record(strategy: str, runs: Path) -> None:
    record = clsim.run("split-digits", strategy, labels=5, memory=20, settings=SMALL, runs=runs)
    matrix = record.data["readouts"]["nearest-neighbour"]
    assert len(matrix) == 5
    assert all(0 <= share <= 1 for share in matrix[-1])
    # exemplars of all classes seen: even the first experience's are told, by a learner that has forgotten them too
    assert matrix[-1][0] > 0
    assert clsim.records.metrics.further(record.data)["accuracy_neighbours"] is not None


def test_scores_are_the_soft_vote_of_what_memory_holds() -> None:
    setup, learner, stream = learnt("sgd")
    held, test = setup.memory.exemplars, stream.tests
    assert held is not None
    scores = readouts(learner, setup, stream, 1)[NEAREST](test.x, test.task)
    with torch.no_grad():
        setup.net.eval()
        query, support = (F.normalize(setup.net.features(setup.transform.plain(s.x))) for s in (test, held))
    near = (query @ support.T / 0.1).softmax(1)
    for label in range(4):
        vote = near[:, held.y == label].sum(1)
        torch.testing.assert_close(scores[:, label], 0.9 * vote + 0.1 / 4)


def test_a_task_is_told_among_its_own_classes_and_others_than_the_supports_are_not_told() -> None:
    setup, learner, stream = learnt("sgd")
    test = stream.tests
    setup.net.visible[0, 2:] = False
    first = stream.experience(0).train
    scores = by_neighbours(setup, learner.features, first[first.y == 0])(test.x, test.task)
    assert scores[:, 1:].isneginf().all()
    everything = stream.experience(1).train
    both = by_neighbours(setup, learner.features, everything)(test.x, test.task)
    assert both[test.task == 0].isneginf().all()
    assert both[test.task == 1][:, 2:].isfinite().all()


def test_the_averaged_net_is_read_where_it_predicts() -> None:
    setup, learner, stream = learnt("fixmatch", ema=0.9)
    test, held = stream.tests, setup.memory.exemplars
    assert held is not None
    scores = readouts(learner, setup, stream, 1)[NEAREST](test.x, test.task)
    assert torch.equal(scores, by_neighbours(setup, learner.features, held)(test.x, test.task))
    assert not torch.equal(scores, by_neighbours(setup, Sgd(setup).features, held)(test.x, test.task))


def test_what_is_borrowed_is_what_a_random_memory_would_hold_of_labelled_samples() -> None:
    stream, setup = partly_labelled(False), setup_of(buffered=False)
    memory = dataclasses.replace(setup.spec.memory, capacity=8, update="batch")
    setup = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, memory=memory))
    first, second = (borrowed(setup, stream, position) for position in (0, 1))
    assert Counter(first.y.tolist()) == {0: 4, 1: 4}
    assert Counter(second.y.tolist()) == dict.fromkeys(range(4), 2)
    labelled = {i: set(stream.experience(i).train.index.tolist()) for i in (0, 1)}
    assert set(first.index.tolist()) <= labelled[0]
    assert set(second.index.tolist()) <= labelled[0] | labelled[1]
    assert_same(second.columns(), borrowed(setup, stream, 1).columns())


def test_a_learner_without_a_memory_is_measured_and_never_sees_the_exemplars() -> None:
    setup, learner, stream = learnt("sgd", buffered=False)
    assert setup.memory.exemplars is None
    before = {name: value.clone() for name, value in setup.net.state_dict().items()}
    draws = torch.get_rng_state()
    test = stream.tests
    scores = readouts(learner, setup, stream, 1)[NEAREST](test.x, test.task)
    assert scores.isfinite().all()  # classes of both experiences
    assert setup.memory.exemplars is None
    assert torch.equal(draws, torch.get_rng_state())
    assert_same(before, dict(setup.net.state_dict()))


def test_where_all_samples_are_labelled_there_is_no_such_readout() -> None:
    setup, learner, stream = learnt("sgd")
    labels = dataclasses.replace(setup.spec.labels, fraction=0.0)
    whole = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, labels=labels))
    passes = setup.cost.forward_passes
    assert readouts(learner, whole, stream, 1) == {}
    assert setup.cost.forward_passes == passes


@pytest.mark.parametrize("strategy", ["er", "finetune", "fixmatch"])
def test_the_readout_leaves_training_bit_identical(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> Any:
        model = {"model": {"name": "tests.helpers:mlp_with_dropout"}}
        record = clsim.run(
            "split-digits", strategy, labels=5, memory=20, settings=SMALL, tables=model, runs=tmp_path / name
        )
        saved = torch.load(record.folder / "checkpoint.pt", weights_only=True)
        return record.data["accuracy"], {name: part for name, part in saved.items() if name != "results"}

    measured = run("with")
    monkeypatch.setattr(loop, "readouts", lambda *_: {})
    assert_same(measured, run("without"))
