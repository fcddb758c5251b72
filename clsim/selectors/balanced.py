"""Selectors that balance the classes, or the clusters."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from clsim.errors import at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import filled, highest, margins, ranks_within


def balanced_random(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Choose at random, each time from the class with the fewest samples: an oracle baseline.

    It reads the candidates' hidden labels, which an acquisition may not do, to show the effect of balance alone. The
    next sample is of the class that has the fewest samples among those labelled already and those chosen (water
    filling), so that the largest class exceeds the smallest by as little as possible. Where nothing is labelled yet,
    it equals ``class-balanced``.

    Needs: labels.
    Cost: O(n log n) time, O(n) memory.
    Source: the balanced random baseline of Emam et al., Active Learning at the ImageNet Scale (2021).
    """
    return Selection(water_filled(pool, pool.data.y, budget))


def water_filled(pool: Pool, y: Int[Tensor, " n"], budget: int) -> Int[Tensor, " m"]:
    """Choose rows as :func:`balanced_random` does, by these classes of the candidates: int64 (min(budget, n),)."""
    by_key = pool.data.key.argsort(descending=True, stable=True)
    y = y[by_key]
    level = ranks_within(y)
    if pool.labelled is not None:
        labelled = pool.labelled.data.y
        width = max(int(y.max()), int(labelled.max())) + 2 if len(y) else 1
        level = level + (labelled + 1).bincount(minlength=width)[y + 1]
    return by_key[level.argsort(stable=True)][:budget]


def balancing(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Choose at random at first, later samples like the rarest class and unlike the common ones.

    Known classes with more than the mean number of labelled samples are the majority, the others the minority. Picks
    are uniformly at random (by key) until the budget left is at most |minority|·(mean of majority − mean of minority);
    from then on the next pick is argmin_x ‖h − μ_rarest‖² / min_{c majority} ‖h − μ_c‖², where μ are the labelled
    samples' class means. A pick counts with its predicted class, since its label is hidden. Where the rarest class has
    no sample, the numerator is 1.

    Where nothing is labelled beside the candidates, as in a memory, the counts and the means are those of the picks
    alone, and a pick counts with its own label. Where no candidate has one either, all picks are random.

    Needs: features; labelled samples, among the candidates or beside them.
    Cost: O(b·n·d) time, O(n·C) memory.
    Source: Aggarwal, Popescu & Hudelot, Active Learning for Imbalanced Datasets (WACV 2020); here with the nearest
        centre of the majority.
    """
    budget = min(budget, len(pool))
    by_key = pool.data.key.argsort(descending=True, stable=True)
    labels, beside = pool.data.y, pool.labelled
    if beside is None and not (labels >= 0).any():
        return Selection(by_key[:budget])
    features, known = pool.features, pool.known.any(0)
    if beside is None:
        of, there = torch.where(labels >= 0, labels, pool.predictions), pool[labels[:0]]
    else:
        of, there, known = pool.predictions, beside, known | beside.known.any(0)
    centres, classes = _Centres(there, features), known.nonzero().flatten()
    open_ = torch.ones(len(pool), dtype=torch.bool, device=features.device)
    picks = torch.empty(budget, dtype=torch.int64, device=features.device)
    next_random = 0
    for i in range(budget):
        counts = centres.counts[classes]
        common = counts > counts.mean()
        gap = (~common).sum() * (counts[common].mean() - counts[~common].mean())  # NaN without a majority
        if budget - i <= gap:
            rarest = classes[counts.argmin()]
            far = centres.squared[:, classes[common]].amin(1)
            near = centres.squared[:, rarest] if centres.counts[rarest] else torch.ones_like(far)
            ratio = torch.where(near > 0, near / far, 0.0)
            picks[i] = ratio.masked_fill(~open_, torch.inf).nan_to_num(nan=torch.inf).argmin()
            if not open_[picks[i]]:  # all rows that are left lie on a centre of the majority
                picks[i] = open_.nonzero()[0, 0]
        else:
            while not open_[by_key[next_random]]:
                next_random += 1
            picks[i] = by_key[next_random]
        open_[picks[i]] = False
        centres.add(features[picks[i]], of[picks[i]])
    return Selection(picks)


def cluster_margin(
    pool: Pool, budget: int, *, rng: torch.Generator, factor: int = 10, size: int = 10, candidates: int = 4000
) -> Selection:
    """Query low-margin samples from all over the pool: clusters take turns, the smallest first.

    The ``factor``·b candidates with the lowest margin p₍₁₎ − p₍₂₎ are grouped by the clusters of all candidates
    (average linkage on features). In each round, every group that has samples left gives the one with its lowest
    margin; groups take turns by their size at the beginning, the smallest first.

    Args:
        factor: number of samples to choose from, as a multiple of the budget.
        size: mean number of samples per cluster.
        candidates: number of samples that are clustered, those with the lowest margin, since clustering takes memory
            quadratic in them; where the budget is larger, the others follow by margin.

    Needs: features, probabilities.
    Cost: O(m² log m) time, O(m²) memory, for m ≤ ``candidates``.
    Source: Citovsky et al., Batch Active Learning at Scale (NeurIPS 2021), algorithm 2; it draws at random inside a
        cluster.
    """
    at_least(1, factor=factor, size=size, candidates=candidates)
    budget = min(budget, len(pool))
    narrow = -margins(pool.probabilities)
    rows = highest(narrow, candidates)
    cluster = _clusters(pool.features[rows], -(-len(rows) // size))
    rows, cluster = rows[: factor * budget], cluster[: factor * budget]
    return Selection(filled(rows[in_turns(cluster)[:budget]], narrow, budget))


def in_turns(cluster: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Order the rows by a round robin over their clusters, small ones first; within a cluster they keep their order.

    >>> in_turns(torch.tensor([7, 7, 7, 2, 2, 5]))
    tensor([5, 3, 0, 4, 1, 2])
    """
    _, which, counts = cluster.unique(return_inverse=True, return_counts=True)
    order = counts[which].argsort(stable=True)
    return order[ranks_within(cluster)[order].argsort(stable=True)]


def _clusters(x: Tensor, count: int) -> Tensor:
    """Divide the rows into ``count`` clusters by average linkage: int64 (n,)."""
    if count < 2 or len(x) < 2:
        return torch.zeros(len(x), dtype=torch.int64, device=x.device)
    found = AgglomerativeClustering(n_clusters=count, linkage="average").fit_predict(np.asarray(x.cpu()))
    return torch.from_numpy(found).to(x.device, torch.int64)


class _Centres:
    """Class means that follow added samples, and the candidates' distances from them. Final.

    Attributes:
        counts: float32 (C,), number of samples of each class.
        squared: (n, C), squared distances of the candidates from the class means.
    """

    def __init__(self, labelled: Pool, candidates: Tensor) -> None:
        known = labelled.data.y >= 0
        y, h = labelled.data.y[known], labelled.features[known]
        self._x, self._squares = candidates, candidates.square().sum(1)
        self.counts = h.new_zeros(labelled.logits.shape[1]).index_add_(0, y, h.new_ones(len(y)))
        self._sums = h.new_zeros(len(self.counts), h.shape[1]).index_add_(0, y, h)
        self.squared = torch.stack([self._to(c) for c in range(len(self.counts))], 1)

    def add(self, h: Tensor, y: Tensor) -> None:
        self._sums[y] += h
        self.counts[y] += 1
        self.squared[:, y] = self._to(y)

    def _to(self, c: int | Tensor) -> Tensor:
        centre = self._sums[c] / self.counts[c].clamp_min(1)
        return (self._squares + centre.square().sum() - 2 * (self._x @ centre)).clamp_min(0)
