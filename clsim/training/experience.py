"""Training on one experience: its batches, the memory's share in them, and what ends it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars, LastBatch, batch_count, batches
from clsim.spec.tables import TrainingSpec
from clsim.streams.stream import Experience
from clsim.training.checkpoint import copied
from clsim.training.contract import Learner, Setup, Terms
from clsim.training.evaluation import held_out, share_correct
from clsim.training.injection import Injection
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
    waiting: Tensor | None = None,
) -> list[Terms]:
    """Train a learner on one experience, but do not end it; return the losses of the steps.

    Args:
        experience, setup, learner, shares, progress: as for :func:`learn`.
        offers: whether a memory that every batch updates is offered the batches.
        guessed: int64, the ``index`` of the samples whose label nobody told, which are offered to no memory.
        waiting: int64 (n,), rows of the labelled part whose labels come during training, in their order; see
            :class:`clsim.training.injection.Injection`.
    """
    training, memory, plateau = setup.spec.training, setup.memory, setup.plateau
    best: dict[str, Any] | None = None
    losses: list[Terms] = []
    count, done = setup.batches(experience), 0
    injection = Injection(experience, waiting, setup.spec, training.steps or training.epochs * count, learner.incoming)
    samples = injection.samples
    plateau.begin()
    learner.begin(injection.now)
    # the memory is offered each sample once, in the first pass
    own = samples is injection.now.train
    new = batch_count(len(samples), training.batch_size, training.last_batch) if own and offers else 0
    late = _Offers() if new and injection.gradual else None
    for part in epochs_of(injection.given, training, setup.randomness.order, count):
        for batch in part:
            for _ in range(training.passes):
                losses.append(learner.observe(batch))
            if new:
                told = learner.remember(batch)
                if guessed is not None:
                    told = told[~torch.isin(told.index, guessed)]
                if late is not None:
                    told = late.unseen(told)
                else:
                    new -= 1
                if len(told):
                    memory.after_batch(told, shares, learner.pool)
            done += 1
            if injection.advance(done):
                learner.told(injection.now)
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


class _Offers:
    """What a memory is offered while labels come: each sample with the first batch that it is in. Final."""

    def __init__(self) -> None:
        self._offered: Tensor | None = None

    def unseen(self, batch: Exemplars) -> Exemplars:
        """Return the samples of a batch that were in none before."""
        if self._offered is None:
            self._offered = batch.index
            return batch
        found = batch[~torch.isin(batch.index, self._offered)]
        self._offered = torch.cat([self._offered, found.index])
        return found


def epochs_of(
    samples: Exemplars | Callable[[], Exemplars], training: TrainingSpec, rng: torch.Generator, count: int = 0
) -> Iterator[Iterator[Exemplars]]:
    """Yield the batches of each epoch: ``training.epochs`` epochs, or ``training.steps`` batches, a pass an epoch.

    Args:
        samples: the samples, which are newly ordered for each pass; or a function that returns them, and begins a new
            pass when it returns others.
        training: number of epochs or steps, and the batches.
        rng: generator of the order.
        count: number of batches in an epoch, in as many passes as they take, where ``training.epochs`` counts; 0: those
            of one pass.
    """
    size, last = training.batch_size, training.last_batch
    given = samples if callable(samples) else lambda: samples
    passes = itertools.chain.from_iterable(_passes(given, size, rng, last) for _ in itertools.count())
    each = batch_count(len(given()), size, last) if training.steps or not count else count
    left = training.steps or training.epochs * each
    while left > 0:
        yield itertools.islice(passes, min(each, left))
        left -= each


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
