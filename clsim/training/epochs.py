"""The batches of the epochs of an experience."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch

from clsim.pool.exemplars import Exemplars, LastBatch, batch_count, batches
from clsim.spec.tables import TrainingSpec


def epochs_of(
    samples: Exemplars | Callable[[], Exemplars],
    training: TrainingSpec,
    rng: torch.Generator,
    count: int = 0,
    kept: Callable[[Exemplars, float], Exemplars] | None = None,
) -> Iterator[Iterator[Exemplars]]:
    """Yield the batches of each epoch: ``training.epochs`` epochs, or ``training.steps`` batches, a pass an epoch.

    Args:
        samples: the samples, which are newly ordered for each pass; or a function that returns them, and begins a new
            pass when it returns others.
        training: number of epochs or steps, and the batches.
        rng: generator of the order.
        count: number of batches in an epoch, in as many passes as they take, where ``training.epochs`` counts; 0: those
            of one pass.
        kept: returns those of the samples that an epoch passes over, by the share of the training that is done: the
            number of its batches falls with them. None: all.
    """
    size, last = training.batch_size, training.last_batch
    given = samples if callable(samples) else lambda: samples
    if kept is not None:
        yield from _pruned(given(), training, rng, count, kept)
        return
    passes = itertools.chain.from_iterable(_passes(given, size, rng, last) for _ in itertools.count())
    each = batch_count(len(given()), size, last) if training.steps or not count else count
    left = training.steps or training.epochs * each
    while left > 0:
        yield itertools.islice(passes, min(each, left))
        left -= each


def _pruned(
    samples: Exemplars,
    training: TrainingSpec,
    rng: torch.Generator,
    count: int,
    kept: Callable[[Exemplars, float], Exemplars],
) -> Iterator[Iterator[Exemplars]]:
    """Yield the batches of each epoch, which passes over a part of the samples."""
    size, last = training.batch_size, training.last_batch
    one = batch_count(len(samples), size, last)
    count = count or one
    total, done = training.steps or training.epochs * count, 0
    while done < total:
        part = kept(samples, done / total)
        each = batch_count(len(part), size, last)
        if count != one:  # an epoch is several passes
            each = max(round(count * len(part) / len(samples)), 1)
        each = min(each, total - done) if training.steps else each
        yield itertools.islice(_forever(part, size, rng, last), each)
        done += each if training.steps else count


def _forever(samples: Exemplars, size: int, rng: torch.Generator, last: LastBatch) -> Iterator[Exemplars]:
    """Yield the batches of one pass after the other."""
    return itertools.chain.from_iterable(_passes(lambda: samples, size, rng, last) for _ in itertools.count())


def _passes(given: Callable[[], Exemplars], size: int, rng: torch.Generator, last: LastBatch) -> Iterator[Exemplars]:
    """Yield the batches of one pass, up to where other samples are given."""
    samples = given()
    for batch in batches(samples, size, rng, last):
        yield batch
        if given() is not samples:
            return


def images_of(n: int, training: TrainingSpec, count: int = 0) -> int:
    """Count the samples that :func:`epochs_of` yields from ``n``, each as often as it occurs."""
    size, one = training.batch_size, batch_count(n, training.batch_size, training.last_batch)
    epoch = {"short": n, "drop": min(n, one * size), "pad": one * size}[training.last_batch]
    whole, rest = divmod(training.steps or training.epochs * (count or one), one)
    return epoch * whole + rest * size
