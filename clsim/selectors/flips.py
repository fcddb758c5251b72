"""Query samples whose predicted label flips under a change of their features, one of each cluster."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clsim.errors import InputError, at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.clusters import k_means_clusters, means, representatives
from clsim.selectors.distances import Metric, blocks, measured
from clsim.spec.kinds import Count, Range


def dropquery(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    passes: int = 3,
    rate: float = 0.75,
    metric: Metric = "euclidean",
    iterations: Count = 100,
) -> Selection:
    """Query one of each cluster of the samples whose predicted label flips when features are dropped.

    A sample is shortlisted if argmax head(m ⊙ h / (1 − ρ)) differs from its prediction for more than half of T masks m,
    m_i ~ Bernoulli(1 − ρ), drawn for each sample apart. k-means divides the shortlist into ``budget`` clusters, and
    each gives its member nearest the mean, the largest cluster first.

    Where fewer than the budget are shortlisted, all of them come first, and k-means chooses the rest in the same way
    among the other samples; where none is, this is ``k-means``. The rule is ours: of public codes one lowers the
    threshold, another draws the rest. The features are those before the head, whether or not the net has dropout.

    Args:
        passes: T, the number of masks of each sample.
        rate: ρ, the share of features that a mask drops, from 0 to below 1.
        metric: the distance of the clusters: ``euclidean`` between features, or between features scaled to length 1
            (``cosine``).
        iterations: number of Lloyd's iterations at most.

    Needs: features, logits.
    Cost: ``passes`` passes through the head, then O(m·b·d) time an iteration with m the size of the shortlist; O(n·d)
        memory.
    Source: Gupte et al., Revisiting Active Learning in the Era of Vision Foundation Models (TMLR 2024).
    """
    at_least(1, passes=passes)
    if not 0 <= rate < 1:
        raise InputError(f"dropquery: rate: found {rate}, allowed: from 0 to below 1")
    listed = 2 * dropped_flips(pool, passes, rate, rng) > passes
    return Selection(spread(measured(pool.features, metric), listed, budget, rng, iterations))


def alfa_mix(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    epsilon: Annotated[float, Range(0.0001, 1)] = 0.2,
    metric: Metric = "euclidean",
    iterations: Count = 100,
) -> Selection:
    """Query one of each cluster of the samples whose predicted label flips on the way to a class mean.

    z* is the mean feature of the labelled samples of a class, h a candidate's feature, ŷ its predicted label and g =
    ∇_h CE(head(h), ŷ). The share α of the way to z* that raises the loss most, to first order, under
    ‖α ⊙ (z* − h)‖ ≤ ε·‖z* − h‖ is α = ε·‖z* − h‖·g / (‖g‖·(z* − h)), element by element. It is clipped to [0, 1], so
    that every feature moves towards z*. A sample is shortlisted if argmax head(h + α ⊙ (z* − h)) differs from ŷ for any
    class. k-means divides the shortlist into ``budget`` clusters, and each gives its member nearest the mean, the
    largest cluster first.

    ε = ``epsilon``/√d. While fewer than the budget flip, ε is raised by as much again, up to 1/√d. The equation, its
    constant and these steps were read in public code, not in the paper; that code clips α from below at a negative
    number, or not at all, so that features may also move away from z*, and steps by 1/32. Where too few flip even so,
    those that do come first, and k-means chooses the rest in the same way among the other samples (public code draws
    them). Where nothing is labelled there is no class mean, no sample flips, and this is ``k-means``.

    Args:
        epsilon: √d·ε, above 0 to 1: how far features move, and by how much more each time that too few labels flip.
        metric: the distance of the clusters: ``euclidean`` between features, or between features scaled to length 1
            (``cosine``).
        iterations: number of Lloyd's iterations at most.

    Needs: features, logits; labelled samples if there are any.
    Cost: O(n·C·d) time for each class with labelled samples and each ε, then O(m·b·d) time an iteration with m the
        size of the shortlist; O(n·d) memory.
    Source: Parvaneh et al., Active Learning by Feature Mixing (CVPR 2022), equation 5.
    """
    if not 0 < epsilon <= 1:
        raise InputError(f"alfa-mix: epsilon: found {epsilon}, allowed: above 0 up to 1")
    listed = torch.zeros(len(pool), dtype=torch.bool, device=pool.data.device)
    anchors = class_means(pool)
    for step in range(1, math.ceil(1 / epsilon) + 1) if len(anchors) else ():
        listed |= mixed_flips(pool, anchors, min(step * epsilon, 1) / anchors.shape[1] ** 0.5)
        if int(listed.sum()) >= min(budget, len(pool)):
            break
    return Selection(spread(measured(pool.features, metric), listed, budget, rng, iterations))


def dropped_flips(pool: Pool, passes: int, rate: float, rng: torch.Generator) -> Int[Tensor, " n"]:
    """Count the masks under which the head predicts another label than without: int64 (n,)."""
    features, before = pool.features, pool.predictions
    count = torch.zeros_like(before)
    for _ in range(passes):
        for rows in blocks(*features.shape):
            there = features[rows]
            kept = torch.rand(there.shape, generator=rng).to(there) >= rate
            count[rows] += _predicted(pool, there * kept / (1 - rate), rows) != before[rows]
    return count


def mixed_flips(pool: Pool, anchors: Float[Tensor, "classes width"], epsilon: float) -> Bool[Tensor, " n"]:
    """Tell which samples the head predicts otherwise when they move towards one of the anchors: bool (n,)."""
    features, before, weight = pool.features, pool.predictions, pool.net.head.weight.detach()
    # ∇_h CE(head(h), ŷ) ∝ Σ_{c≠ŷ} r_c (w_c − w_ŷ), r the softmax without ŷ: its direction holds where p_ŷ rounds to 1
    others = pool.logits.scatter(1, before[:, None], -torch.inf).softmax(1).nan_to_num(0)  # 0: there is no other class
    flips = torch.zeros_like(before, dtype=torch.bool)
    for rows in blocks(*features.shape):
        there = features[rows]
        rising = others[rows] @ weight - others[rows].sum(1, keepdim=True) * weight[before[rows]]
        for anchor in anchors:
            towards = anchor - there
            # clip(α, 0, 1) ⊙ (z* − h), without a division by features that need not move
            way = steepest(rising, towards, epsilon).clamp(towards.clamp_max(0), towards.clamp_min(0))
            flips[rows] |= _predicted(pool, there + way, rows) != before[rows]
    return flips


def steepest(
    rising: Float[Tensor, "n width"], towards: Float[Tensor, "n width"], epsilon: float
) -> Float[Tensor, "n width"]:
    """Compute α ⊙ (z* − h) = ε·‖z* − h‖·g/‖g‖ from g and z* − h, (n, d); 0 where g is."""
    tiny = torch.finfo(rising.dtype).tiny
    length = epsilon * towards.norm(dim=1) / rising.norm(dim=1).clamp_min(tiny)
    return torch.where(rising.abs().amax(1, keepdim=True) > 0, length[:, None] * rising, 0)


def class_means(pool: Pool) -> Float[Tensor, "classes width"]:
    """Compute the mean feature of the labelled samples of each class that has any, (classes, d)."""
    if pool.labelled is None:
        return pool.features[:0]
    told = pool.labelled.data.y >= 0
    return means(pool.labelled.features[told], pool.labelled.data.y[told].unique(return_inverse=True)[1])


def spread(
    features: Float[Tensor, "n width"],
    listed: Bool[Tensor, " n"],
    budget: int,
    rng: torch.Generator,
    iterations: Count = 100,
) -> Int[Tensor, " m"]:
    """Choose one of each k-means cluster of the listed rows, then, where they are too few, of the others: int64."""
    picks = torch.empty(0, dtype=torch.int64, device=features.device)
    for rows in (listed.nonzero().flatten(), (~listed).nonzero().flatten()):
        left = min(budget - len(picks), len(rows))
        if left > 0:
            cluster = k_means_clusters(features[rows], left, rng, iterations=iterations)
            picks = torch.cat([picks, rows[representatives(features[rows], cluster)[:left]]])
    return picks


def _predicted(pool: Pool, features: Tensor, rows: slice) -> Tensor:
    """Predict the labels of other features of the pool's samples at ``rows``."""
    with torch.no_grad():
        return pool.net.logits(features, pool.data.task[rows]).argmax(1)
