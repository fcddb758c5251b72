"""Nearest-neighbour readout: classes predicted from features, by a soft vote of the nearest labelled samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.memory.buffer import Buffer
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.pool.pool import Cost, Features, Pool
from clsim.randomness import generator
from clsim.selectors.combinators import per_class
from clsim.selectors.random import random
from clsim.streams.stream import Stream
from clsim.training.contract import Readout, Setup

NEAREST = "nearest-neighbour"
"""The name of this readout in a record."""


def by_neighbours(setup: Setup, embed: Features, support: Exemplars) -> Readout:
    """Make a readout whose scores are the posterior p(q) = softmax(q · Sᵀ / 0.1) · Y over the support's classes.

    See :func:`posterior`. The score is −inf for other classes, and for those that a sample's task does not have.

    Args:
        setup: the setup, for the cost and for the classes of each task.
        embed: computes the features of raw samples and their tasks.
        support: the labelled samples that vote.
    """
    size, visible = setup.spec.evaluation.batch_size, setup.net.visible
    setup.cost.forward_passes += len(support)
    parts = zip(support.x.split(size), support.task.split(size), strict=True)
    known, classes = torch.cat([embed(x, task) for x, task in parts]), support.y.unique()
    labels = smoothed(support.y, classes)

    def nearest(x: Tensor, task: Tensor) -> Tensor:
        near = posterior(embed(x, task), known, labels)
        scores = near.new_full((len(x), visible.shape[1]), -torch.inf).index_copy_(1, classes, near)
        return scores.masked_fill(~visible[task], -torch.inf)

    return nearest


def borrowed(setup: Setup, stream: Stream, position: int) -> Exemplars:
    """Return what a random, class-balanced memory of the spec's size would hold of the labelled samples seen so far.

    These exemplars show how good the features of a learner without a memory are; the learner itself never sees them.
    They are drawn from the run's seed alone.
    """
    past = [i for i in stream.schedule if i <= position]
    if setup.spec.stream.presentation != "separate":  # an experience holds all those before it
        past = [position]
    known = concatenate([stream.experience(i).train for i in past])
    rng = generator(setup.spec.seed, f"readout {position}")
    spec = replace(setup.spec.memory, update="experience")
    memory = Buffer(spec, per_class(random), rng=rng, cost=Cost(), tasks=len(stream))
    shares = stream.shares(position, spec.counted)
    memory.after_experience(known, shares, lambda samples, **_: Pool(samples, None, setup.transform.plain))
    return known if memory.exemplars is None else memory.exemplars


def smoothed(y: Tensor, classes: Tensor, smoothing: float = 0.1) -> Tensor:
    """Make smoothed one-hot labels among ``classes``, float32 (m, k): s/k everywhere, and 1 − s more at the label.

    Args:
        y: int64 (m,), labels that are among ``classes``.
        classes: int64 (k,), sorted.
        smoothing: s.
    """
    hot = (y[:, None] == classes).float()
    return hot * (1 - smoothing) + smoothing / len(classes)


def posterior(query: Tensor, support: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Compute p(q) = softmax(q · Sᵀ / τ) · Y, float32 (n, k), with rows of sum 1 and no entry below Y's smallest.

    Args:
        query: q, (n, d), features to predict classes for; normalised here.
        support: S, (m, d), features of the labelled samples; normalised here.
        labels: Y, (m, k), their labels, with rows of sum 1.
        temperature: τ.
    """
    near = F.normalize(query.float()) @ F.normalize(support.float()).T
    return (near / temperature).softmax(1) @ labels
