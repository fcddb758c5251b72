"""The readouts of features, for every learner on a partly labelled stream, and the warning of a crowded class."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn import functional as F

import clsim
from clsim.checks.hidden_labels import partly_labelled
from clsim.checks.learners import train_on
from clsim.checks.setups import setup_of
from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.reporting.finished import show_finished
from clsim.spec import registry
from clsim.streams.stream import Stream
from clsim.training import evaluations
from clsim.training.contract import Readout, Setup
from clsim.training.evaluation import crowded, measured, readouts
from clsim.training.neighbours import NEAREST_MEAN, NEAREST_SAMPLE, borrowed, by_features, by_vote
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
def test_all_readouts_are_in_the_record(strategy: str, runs: Path) -> None:
    record = clsim.run("split-digits", strategy, labels=5, memory=20, settings=SMALL, runs=runs)
    for name in (NEAREST_MEAN, NEAREST_SAMPLE):
        matrix = record.data["readouts"][name]
        assert len(matrix) == 5
        assert all(0 <= share <= 1 for share in matrix[-1])
        # exemplars of all classes seen: even the first experience's are told, by a learner that has forgotten them too
        assert matrix[-1][0] > 0
    assert clsim.records.metrics.further(record.data)["accuracy_class_means"] is not None
    assert ("projection-diagnostic" in record.data["readouts"]) == (strategy == "csl")


def features_of(setup: Setup, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        setup.net.eval()
        return F.normalize(setup.net.features(setup.transform.plain(x)))


def test_scores_are_by_the_nearest_mean_and_by_the_nearest_sample_of_what_memory_holds() -> None:
    setup, learner, stream = learnt("sgd")
    held, test = setup.memory.exemplars, stream.tests
    assert held is not None
    found = readouts(learner, setup, stream, 1)
    query, support = (features_of(setup, s.x) for s in (test, held))
    squared = torch.cdist(query, support).square()
    for label in range(4):
        mean = F.normalize(support[held.y == label].mean(0), dim=0)
        by_mean = found[NEAREST_MEAN](test.x, test.task)[:, label]
        torch.testing.assert_close(by_mean, -(query - mean).square().sum(1))
        by_sample = found[NEAREST_SAMPLE](test.x, test.task)[:, label]
        torch.testing.assert_close(by_sample, -squared[:, held.y == label].amin(1), atol=1e-5, rtol=1e-4)


def image(x: torch.Tensor) -> bytes:
    return bytes(x.numpy().tobytes())


def test_in_a_narrow_cone_a_vote_is_won_by_one_class_and_a_mean_is_not() -> None:
    """Two classes apart by a few degrees, one sample of the first, three of the second: the vote counts heads."""
    setup, stream = setup_of(buffered=False), partly_labelled(False)
    setup.net.visible.fill_(True)
    samples = stream.experience(0).train
    held = samples[torch.cat([(samples.y == 0).nonzero()[:1, 0], (samples.y == 1).nonzero()[:3, 0]])]
    test = stream.tests[stream.tests.task == 0]
    apart = {0: torch.tensor([1.0, 0.1]), 1: torch.tensor([1.0, -0.1])}  # cosine 0.98
    label_of = {image(x): int(y) for part in (held, test) for x, y in zip(part.x, part.y, strict=True)}

    def embed(x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        return torch.stack([apart[label_of[image(row)]] for row in x])

    guess = by_vote(setup, embed, held)(test.x, test.task).argmax(1)
    assert (guess == 1).all()
    for predict in by_features(setup, embed, held).values():
        assert torch.equal(predict(test.x, test.task).argmax(1), test.y)


def test_both_readouts_compute_features_once() -> None:
    setup, learner, stream = learnt("sgd")
    calls = []

    def embed(x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return learner.features(x, task)

    held = setup.memory.exemplars
    assert held is not None
    predicts = by_features(setup, embed, held)
    calls.clear()
    before = setup.cost.forward_passes
    found = measured(predicts, stream, 2, 2, setup.spec, setup.cost)
    assert sum(calls) == len(stream.tests) == setup.cost.forward_passes - before
    assert set(found) == {NEAREST_MEAN, NEAREST_SAMPLE}


def test_a_task_is_told_among_its_own_classes_and_others_than_the_supports_are_not_told() -> None:
    setup, learner, stream = learnt("sgd")
    test = stream.tests
    setup.net.visible[0, 2:] = False
    first = stream.experience(0).train
    second = stream.experience(1).train

    def all_of(support: Exemplars) -> list[Readout]:
        return [by_vote(setup, learner.features, support), *by_features(setup, learner.features, support).values()]

    for one, both in zip(all_of(first[first.y == 0]), all_of(second), strict=True):
        assert one(test.x, test.task)[:, 1:].isneginf().all()
        scores = both(test.x, test.task)
        assert scores[test.task == 0].isneginf().all()
        assert scores[test.task == 1][:, 2:].isfinite().all()


def test_the_averaged_net_is_read_where_it_predicts() -> None:
    setup, learner, stream = learnt("fixmatch", ema=0.9)
    test, held = stream.tests, setup.memory.exemplars
    assert held is not None
    scores = readouts(learner, setup, stream, 1)[NEAREST_MEAN](test.x, test.task)
    assert torch.equal(scores, by_features(setup, learner.features, held)[NEAREST_MEAN](test.x, test.task))
    assert not torch.equal(scores, by_features(setup, Sgd(setup).features, held)[NEAREST_MEAN](test.x, test.task))


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
    scores = readouts(learner, setup, stream, 1)[NEAREST_MEAN](test.x, test.task)
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
    monkeypatch.setattr(evaluations, "readouts", lambda *_: {})
    assert_same(measured, run("without"))


def test_a_class_that_takes_more_than_three_times_its_share_is_said_once_a_run(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fine-tuning predicts the last experience's classes alone: two of ten."""
    y = torch.arange(4).repeat_interleave(5)
    assert crowded(torch.where(y < 1, y, 3), y) == ""  # exactly three times
    assert crowded(torch.full_like(y, 3), y).startswith("class 3 is predicted for 100 % of the test samples")
    record = clsim.run("split-digits", "finetune", runs=runs)
    line = record.data["crowded"]["accuracy"]
    assert line.endswith("10 % are of it")
    assert "crowded" not in clsim.run("split-digits", "joint", runs=runs).data
    show_finished([record], Console(width=200))
    assert capsys.readouterr().out.count(line) == 1
