"""Readouts by features: the nearest class mean, the nearest sample, and a soft vote of the nearest samples."""

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

NEAREST_MEAN, NEAREST_SAMPLE = "nearest-class-mean", "nearest-sample"
"""The names of the readouts of a backbone's features in a record."""

DIAGNOSTIC = "projection-diagnostic"
"""The name of the readout of a projection in a record: it shows what the loss on it does, not what features hold."""


def by_features(setup: Setup, embed: Features, support: Exemplars) -> dict[str, Readout]:
    """Make two readouts of features scaled to length 1: −‖φ − μ_c‖², and −‖φ − s‖² of the nearest sample s of a class.

    μ_c is the mean of a class's samples (:func:`class_means`). The score is −inf for classes that the support has none
    of, and for those that a sample's task does not have. Neither has a temperature: features that were not trained with
    one lie in a narrow cone, where a soft vote is flat, and few classes win.

    Features of a batch are computed once for both, if the readouts are given the same batch in turn.

    Args:
        setup: the setup, for the cost and for the classes of each task.
        embed: computes the features of raw samples and their tasks.
        support: the labelled samples.
    """
    visible, known = setup.net.visible, _embedded(setup, embed, support)
    means, samples = class_means(known, support.y, visible.shape[1]), F.normalize(known)
    held = ~means.isnan().any(1)
    last: list[Tensor] = []

    def features(x: Tensor, task: Tensor) -> Tensor:
        if not last or last[0] is not x:
            last[:] = [x, embed(x, task)]
        return last[1]

    def by_mean(x: Tensor, task: Tensor) -> Tensor:
        near = nearness(features(x, task), means.nan_to_num())
        return near.masked_fill(~(visible[task] & held), -torch.inf)

    def by_sample(x: Tensor, task: Tensor) -> Tensor:
        near = 2 * F.normalize(features(x, task)) @ samples.T - 2
        best = near.new_full((len(x), visible.shape[1]), -torch.inf)
        best.scatter_reduce_(1, support.y.expand(len(x), -1), near, "amax")
        return best.masked_fill(~visible[task], -torch.inf)

    return {NEAREST_MEAN: by_mean, NEAREST_SAMPLE: by_sample}


def by_vote(setup: Setup, embed: Features, support: Exemplars) -> Readout:
    """Make a readout whose scores are the posterior p(q) = softmax(q · Sᵀ / 0.1) · Y over the support's classes.

    See :func:`posterior`. It is for embeddings that were trained with this temperature. The score is −inf for other
    classes, and for those that a sample's task does not have.

    Args:
        setup: the setup, for the cost and for the classes of each task.
        embed: computes the embeddings of raw samples and their tasks.
        support: the labelled samples that vote.
    """
    visible, classes = setup.net.visible, support.y.unique()
    known, labels = _embedded(setup, embed, support), smoothed(support.y, classes)

    def vote(x: Tensor, task: Tensor) -> Tensor:
        near = posterior(embed(x, task), known, labels)
        scores = near.new_full((len(x), visible.shape[1]), -torch.inf).index_copy_(1, classes, near)
        return scores.masked_fill(~visible[task], -torch.inf)

    return vote


def _embedded(setup: Setup, embed: Features, support: Exemplars) -> Tensor:
    size = setup.spec.evaluation.batch_size
    setup.cost.forward_passes += len(support)
    parts = zip(support.x.split(size), support.task.split(size), strict=True)
    return torch.cat([embed(x, task) for x, task in parts])


def class_means(features: Tensor, y: Tensor, classes: int) -> Tensor:
    """Return the mean of each class's features (n, d), all scaled to length 1: (classes, d), NaN for absent classes."""
    members = (y[:, None] == torch.arange(classes, device=y.device)).float()
    sums = members.T @ F.normalize(features, dim=1)
    return F.normalize(sums, dim=1).masked_fill(members.sum(0)[:, None] == 0, torch.nan)


def nearness(features: Tensor, means: Tensor) -> Tensor:
    """Return −‖φ − μ‖² for features (n, d), scaled to length 1, and means (classes, d)."""
    features = F.normalize(features, dim=1)
    return 2 * features @ means.T - features.square().sum(1, keepdim=True) - means.square().sum(1)


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
    memory = Buffer(spec, per_class(random), rng=rng, cost=Cost(), tasks=stream.tasks)
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
