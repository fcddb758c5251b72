"""Measurement of accuracy, without any effect on training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch

from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience, Stream
from clsim.training.contract import Learner, Readout, Setup
from clsim.training.neighbours import NEAREST, borrowed, by_neighbours


def evaluate(learner: Learner, stream: Stream, experiences: int, spec: RunSpec, cost: Cost) -> list[float]:
    """Measure accuracy on the test samples of the first ``experiences`` experiences; NaN for the others."""
    return row_of(learner.predict, stream, experiences, spec, cost)


def row_of(predict: Readout, stream: Stream, experiences: int, spec: RunSpec, cost: Cost) -> list[float]:
    """Measure accuracy as :func:`evaluate` does, for any way to predict."""
    started = time.perf_counter()
    sizes = stream.test_sizes[:experiences]
    hits = _hits(predict, stream.tests[: sum(sizes)], spec, cost)
    shares = torch.stack([part.float().mean() for part in hits.split(sizes)]).tolist()
    cost.evaluate_seconds += time.perf_counter() - started
    return shares + [math.nan] * (len(stream) - experiences)


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
    return _hits(learner.predict, samples, spec, cost)


def _hits(predict: Readout, samples: Exemplars, spec: RunSpec, cost: Cost) -> torch.Tensor:
    return torch.cat([scores.argmax(1) == batch.y for batch, scores in scored(predict, samples, spec, cost)])


def scored(predict: Readout, samples: Exemplars, spec: RunSpec, cost: Cost) -> Iterator[tuple[Exemplars, torch.Tensor]]:
    """Yield the samples batch by batch, each with its scores (n, classes)."""
    cost.forward_passes += len(samples)
    cuda = [samples.device] if samples.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # a net that draws even in eval mode must not disturb training
        for start in range(0, len(samples), spec.evaluation.batch_size):
            batch = samples[start : start + spec.evaluation.batch_size]
            yield batch, predict(batch.x, batch.task)


def readouts(learner: Learner, setup: Setup, stream: Stream, position: int) -> dict[str, Readout]:
    """Return the learner's readouts and, on partly labelled streams, :func:`clsim.training.neighbours.by_neighbours`.

    The support of the latter are the memory's samples with a label (or a pseudo-label, with ``memory.unlabelled``). A
    learner without a memory is measured with :func:`~clsim.training.neighbours.borrowed` exemplars, which it is never
    trained on.
    """
    found = learner.readouts()
    if not setup.spec.labels.partial or NEAREST in found:
        return found
    held = setup.memory.exemplars
    support = borrowed(setup, stream, position) if held is None else held[held.y >= 0]
    if not len(support):
        return found
    cuda = [stream.device] if stream.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # a net that draws even in eval mode must not disturb training
        return {**found, NEAREST: by_neighbours(setup, learner.features, support)}
