"""Measurement of accuracy, without any effect on training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.models.passes import side_by_side
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience, Stream
from clsim.training.contract import Learner, Readout, Setup
from clsim.training.neighbours import NEAREST_SAMPLE, borrowed, by_features

R = TypeVar("R")


@dataclass(frozen=True)
class Outcome:
    """What a way to predict did on the test samples. Final.

    Attributes:
        row: accuracy on each experience; NaN where it was not tested.
        crowded: a sentence on the class that took more than three times its share of the test samples of the classes
            seen; empty if none did.
        rare: accuracy on the test samples of rare classes, of the experiences so far; NaN where there are none.
    """

    row: list[float]
    crowded: str
    rare: float = math.nan


def measured(
    predicts: Mapping[str, Readout],
    stream: Stream,
    experiences: int,
    seen: int,
    spec: RunSpec,
    cost: Cost,
    net: Net | None = None,
) -> dict[str, Outcome]:
    """Measure accuracy on the test samples of the first experiences, for several ways to predict.

    Each batch is given to all of them in turn.

    Args:
        predicts: ways to predict, by name.
        stream: the stream.
        experiences: the number of experiences to test.
        seen: the number of experiences whose classes the learner has seen, among those that are tested.
        spec, cost: the run's spec and counters.
        net: the net, if all of them only read it; see :func:`clsim.models.passes.side_by_side`.
    """
    started = time.perf_counter()
    sizes = stream.test_sizes[:experiences]
    samples = stream.tests[: sum(sizes)]
    cost.forward_passes += len(samples) * len(predicts.keys() - {NEAREST_SAMPLE})  # which shares its features

    def guessed(batch: Exemplars) -> list[torch.Tensor]:
        found = []
        for predict in predicts.values():
            scores = predict(batch.x, batch.task)
            if stream.roles.own >= 0:  # no test sample is an outsider
                scores = scores.index_fill(1, torch.tensor([stream.roles.own], device=scores.device), -torch.inf)
            found.append(scores.argmax(1))
        return found

    guesses = _passed(net, guessed, samples, spec) if predicts else []
    found = {}
    for name, parts in zip(predicts, zip(*guesses, strict=True), strict=True):
        guess = torch.cat(parts)
        shares = torch.stack([hits.float().mean() for hits in (guess == samples.y).split(sizes)]).tolist()
        n = sum(sizes[:seen])
        row = shares + [math.nan] * (len(stream) - experiences)
        found[name] = Outcome(row, crowded(guess[:n], samples.y[:n]), _on(stream.roles.rare, guess[:n], samples.y[:n]))
    cost.evaluate_seconds += time.perf_counter() - started
    return found


def _on(classes: tuple[int, ...], guess: torch.Tensor, y: torch.Tensor) -> float:
    """Compute the accuracy on the samples of some classes; NaN where there are none."""
    if not classes:
        return math.nan
    wanted = torch.isin(y, torch.tensor(classes, device=y.device))
    return float((guess == y)[wanted].float().mean()) if wanted.any() else math.nan


def crowded(guess: torch.Tensor, y: torch.Tensor) -> str:
    """Say which class is guessed for more than three times its share of the samples; empty if none is.

    >>> crowded(torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 1, 2, 3, 4]))
    'class 0 is predicted for 80 % of the test samples of the classes seen; 20 % are of it'
    >>> crowded(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]))
    ''
    """
    if not len(y):
        return ""
    size = 1 + int(torch.maximum(guess.max(), y.max()))
    often, own = guess.bincount(minlength=size), y.bincount(minlength=size)
    ratio = torch.where(own > 0, often / own.clamp_min(1), 0.0)
    label = int(ratio.argmax())
    if ratio[label] <= 3:
        return ""
    predicted, there = (100 * int(count[label]) / len(y) for count in (often, own))
    where = "of the test samples of the classes seen"
    return f"class {label} is predicted for {predicted:.0f} % {where}; {there:.0f} % are of it"


def evaluate(learner: Learner, stream: Stream, experiences: int, spec: RunSpec, cost: Cost) -> list[float]:
    """Measure accuracy on the test samples of the first ``experiences`` experiences; NaN for the others."""
    return measured({"": learner.predict}, stream, experiences, 0, spec, cost, learner.read_net)[""].row


def share_correct(learner: Learner, samples: Exemplars, spec: RunSpec, cost: Cost) -> float:
    """Measure accuracy on any samples, as a quotient of whole numbers, so that equal accuracies are equal floats."""
    return int(correct(learner, samples, spec, cost).sum()) / len(samples)


def held_out(experience: Experience) -> Exemplars:
    """Return the experience's validation part.

    Raises:
        InputError: if there is none, or it holds no sample.
    """
    if experience.validation is None or not len(experience.validation):
        raise InputError(
            f"stream.validation: nothing is held out of experience {experience.position + 1}, "
            "allowed: a share that holds out one sample or more"
        )
    return experience.validation


def correct(learner: Learner, samples: Exemplars, spec: RunSpec, cost: Cost) -> torch.Tensor:
    """Tell which samples are predicted right, bool (n,)."""
    return torch.cat([scores.argmax(1) == batch.y for batch, scores in scored(learner, samples, spec, cost)])


def scored(learner: Learner, samples: Exemplars, spec: RunSpec, cost: Cost) -> list[tuple[Exemplars, torch.Tensor]]:
    """Return the samples batch by batch, each with the learner's scores (n, classes)."""
    cost.forward_passes += len(samples)
    return _passed(learner.read_net, lambda batch: (batch, learner.predict(batch.x, batch.task)), samples, spec)


def _passed(net: Net | None, passed: Callable[[Exemplars], R], samples: Exemplars, spec: RunSpec) -> list[R]:
    size = spec.evaluation.batch_size
    cuda = [samples.device] if samples.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # a net that draws even in eval mode must not disturb training
        return side_by_side(net, passed, [samples[start : start + size] for start in range(0, len(samples), size)])


def readouts(learner: Learner, setup: Setup, stream: Stream, position: int) -> dict[str, Readout]:
    """Return the learner's readouts and, on partly labelled streams, :func:`clsim.training.neighbours.by_features`.

    The support of the latter are the memory's samples with a label (or a pseudo-label, with ``memory.unlabelled``). A
    learner without a memory is measured with :func:`~clsim.training.neighbours.borrowed` exemplars, which it is never
    trained on.
    """
    found = learner.readouts()
    if not setup.spec.partly_labelled:
        return found
    held = setup.memory.exemplars
    support = borrowed(setup, stream, position) if held is None else held[held.y >= 0]
    if not len(support):
        return found
    cuda = [stream.device] if stream.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # a net that draws even in eval mode must not disturb training
        return {**found, **by_features(setup, learner.features, support)}
