"""Training on one experience: its batches, the memory's share in them, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.streams.stream import Experience
from clsim.training.checkpoint import copied
from clsim.training.contract import Learner, Losses, Setup, Terms
from clsim.training.epochs import epochs_of
from clsim.training.evaluation import held_out, share_correct
from clsim.training.injection import Injection
from clsim.training.offered import offered
from clsim.training.progress import Progress


def learn(experience: Experience, setup: Setup, learner: Learner, shares: int, progress: Progress) -> Losses:
    """Train a learner on one experience, and update the memory; return the losses of the steps.

    Args:
        experience: the experience.
        setup, learner: the setup and its learner.
        shares: number of classes (or tasks, by ``memory.per``) so far, with those of this experience.
        progress: display of the progress.
    """
    losses = fit(experience, setup, learner, shares, progress)
    losses.extend(conclude(experience, setup, learner, shares))
    return losses


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
    after: Callable[[int], None] | None = None,
) -> Losses:
    """Train a learner on one experience, but do not end it; return the losses of the steps.

    Args:
        experience, setup, learner, shares, progress: as for :func:`learn`.
        offers: whether a memory that every batch updates is offered the batches.
        guessed: int64, the ``index`` of the samples whose label nobody told, which are offered to no memory.
        waiting: int64 (n,), rows of the labelled part whose labels come during training, in their order; see
            :class:`clsim.training.injection.Injection`.
        after: called after the steps on each batch, with the number of new samples that it drew.
    """
    training, memory, plateau = setup.spec.drawing, setup.memory, setup.plateau
    best: dict[str, Any] | None = None
    losses = Losses()
    count, done = setup.batches(experience), 0
    injection = Injection(experience, waiting, setup.spec, training.steps or training.epochs * count, learner.incoming)
    samples = injection.samples
    plateau.begin()
    learner.begin(injection.now)
    # the memory is offered each sample once, in the first pass
    own = samples is injection.now.train
    new = batch_count(len(samples), training.batch_size, training.last_batch) if own and offers else 0
    kept = learner.kept if setup.spec.batch.prunes else None
    late = _Offers() if new and injection.gradual else None
    for part in epochs_of(injection.given, training, setup.randomness.order, count, kept):
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
            if after is not None:
                after(len(batch))
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
