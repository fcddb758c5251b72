"""Training on one experience: its batches, the memory's share in them, and what ends it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.pool.pool import Cost
from clsim.spec.tables import TrainingSpec
from clsim.streams.stream import Experience
from clsim.training.checkpoint import copied
from clsim.training.contract import Learner, Setup, Terms
from clsim.training.evaluation import held_out, share_correct
from clsim.training.offered import offered
from clsim.training.progress import Progress


def learn(experience: Experience, setup: Setup, learner: Learner, shares: int, progress: Progress) -> list[Terms]:
    """Train a learner on one experience, and update the memory; return the losses of the steps.

    Args:
        experience: the experience.
        setup, learner: the setup and its learner.
        shares: number of classes (or tasks, by ``memory.per``) so far, with those of this experience.
        progress: display of the progress.
    """
    return fit(experience, setup, learner, shares, progress) + conclude(experience, setup, learner, shares)


def fit(
    experience: Experience,
    setup: Setup,
    learner: Learner,
    shares: int,
    progress: Progress,
    *,
    offers: bool = True,
    guessed: Tensor | None = None,
) -> list[Terms]:
    """Train a learner on one experience, but do not end it; return the losses of the steps.

    Args:
        experience, setup, learner, shares, progress: as for :func:`learn`.
        offers: whether a memory that every batch updates is offered the batches.
        guessed: int64, the ``index`` of the samples whose label nobody told, which are offered to no memory.
    """
    training, memory, plateau = setup.spec.training, setup.memory, setup.plateau
    best: dict[str, Any] | None = None
    losses: list[Terms] = []
    samples = learner.incoming(experience)
    plateau.begin()
    learner.begin(experience)
    # the memory is offered each sample once, in the first pass
    own = samples is experience.train
    new = batch_count(len(samples), training.batch_size, training.last_batch) if own and offers else 0
    for part in epochs_of(samples, training, setup.randomness.order, setup.batches(experience)):
        for batch in part:
            for _ in range(training.passes):
                losses.append(learner.observe(batch))
            if new:
                told = batch if guessed is None else batch[~torch.isin(batch.index, guessed)]
                if len(told):
                    memory.after_batch(learner.remember(told), shares, learner.pool)
                new -= 1
            progress.step(len(batch))
        if plateau.watches:
            gained = plateau.epoch(share_correct(learner, held_out(experience), setup.spec, setup.cost))
            if gained and training.patience:
                best = copied(learner.state_dict())
            if plateau.over:
                break
        if training.until and share_correct(learner, experience.train, setup.spec, setup.cost) >= training.until:
            break
    if training.patience:
        if best is None:
            raise InputError(f"training.patience: learner {setup.spec.learner.name!r} cannot be saved, allowed: 0")
        learner.load_state_dict(best)
    learner.settle(experience)
    plateau.begin()
    return losses


def conclude(experience: Experience, setup: Setup, learner: Learner, shares: int) -> list[Terms]:
    """End an experience: update the memory, then let the learner finish; return the losses of the steps taken there.

    Args:
        experience, setup, learner, shares: as for :func:`learn`.
    """
    training, memory = setup.spec.training, setup.memory
    if learner.incoming(experience) is not experience.train:  # its labelled samples were not among the batches
        for batch in batches(experience.train, training.batch_size, setup.randomness.order):
            memory.after_batch(learner.remember(batch), shares, learner.pool)
    kept = learner.remember(offered(experience, setup, learner))
    memory.after_experience(kept, shares, learner.pool, reference=experience.validation)
    return learner.finish(experience)


def epochs_of(
    samples: Exemplars, training: TrainingSpec, rng: torch.Generator, count: int = 0
) -> Iterator[Iterator[Exemplars]]:
    """Yield the batches of each epoch: ``training.epochs`` epochs, or ``training.steps`` batches, a pass an epoch.

    Args:
        samples: the samples, which are newly ordered for each pass.
        training: number of epochs or steps, and the batches.
        rng: generator of the order.
        count: number of batches in an epoch, in as many passes as they take, where ``training.epochs`` counts; 0: those
            of one pass.
    """
    size, last = training.batch_size, training.last_batch
    passes = itertools.chain.from_iterable(batches(samples, size, rng, last) for _ in itertools.count())
    each = batch_count(len(samples), size, last) if training.steps or not count else count
    left = training.steps or training.epochs * each
    while left > 0:
        yield itertools.islice(passes, min(each, left))
        left -= each


def images_of(n: int, training: TrainingSpec, count: int = 0) -> int:
    """Count the samples that :func:`epochs_of` yields from ``n``, each as often as it occurs."""
    size, one = training.batch_size, batch_count(n, training.batch_size, training.last_batch)
    epoch = {"short": n, "drop": min(n, one * size), "pad": one * size}[training.last_batch]
    whole, rest = divmod(training.steps or training.epochs * (count or one), one)
    return epoch * whole + rest * size


@contextmanager
def training_seconds(cost: Cost) -> Iterator[None]:
    """Add the time that is spent in the context to the training seconds, without that of selection."""
    started, selected = time.perf_counter(), cost.select_seconds
    yield
    cost.train_seconds += time.perf_counter() - started - (cost.select_seconds - selected)
