"""k-medoids: the samples whose distances to all others are smallest in sum."""

from __future__ import annotations

import torch
from torch import Tensor

from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import Metric, blocks, measured, squared_distances


def k_medoids(
    pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "euclidean", passes: int = 10
) -> Selection:
    """Keep the samples that minimise the sum of distances from each sample to the nearest kept one.

    Swaps of a medoid and another sample lower Σ_i min_{j∈S} ‖φ_i − φ_j‖ until no swap does: a swap (m, x) changes the
    sum by Σ_i min(d_ix − d_i, 0) + Σ_{i nearest to m} (clamp(d_ix, d_i, d′_i) − d_i), with d_i and d′_i the distances
    to the nearest and second nearest medoid. A block of samples is tried at a time, for all medoids at once, and its
    best swap is done as long as there is one. The first medoids are drawn in proportion to their distance. Medoids are
    returned by the size of their clusters, the largest first. Unless ``passes`` ends the search, no swap improves
    the result; the sum is then at most 5 times the optimum.

    Large pools: ``subsample(k-medoids,5000)``.

    Args:
        metric: ``euclidean`` on the features, or on features scaled to length 1 (``cosine``).
        passes: number of times each sample is tried at most.

    Needs: embedding, else features.
    Cost: O(n²·(d + b′)) time a pass, b′ the swaps in a block; O(n) memory beside the features.
    Source: Schubert & Rousseeuw, Fast and Eager k-Medoids Clustering (Information Systems 2021), equations of
        FastPAM1 with eager swaps by block; the bound: Arya et al., Local Search Heuristics (SIAM J. Comput. 2004).
    """
    n, budget = len(pool), min(budget, len(pool))
    if not budget:
        return Selection(torch.empty(0, dtype=torch.int64, device=pool.data.device))
    features = measured(pool.embedding, metric)
    features = features - features.mean(0)
    medoids = _drawn(features, budget, rng)
    near = _Nearest(features, medoids)
    for _ in range(passes if budget < n else 0):
        swaps = sum(_swap(features, rows, medoids, near) for rows in blocks(n, 8 * n))
        if not swaps:
            break
    size = near.which.bincount(minlength=budget)
    return Selection(medoids[size.argsort(descending=True, stable=True)])


class _Nearest:
    """Each row's nearest and second nearest medoid, and the distances to them. Final."""

    def __init__(self, features: Tensor, medoids: Tensor) -> None:
        self.features = features
        self.first = features.new_empty(len(features))
        self.second = torch.full_like(self.first, torch.inf)
        self.which = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        self.other = torch.full_like(self.which, -1)
        self.look(torch.arange(len(features), device=features.device), medoids)

    def look(self, rows: Tensor, medoids: Tensor) -> None:
        """Compare these rows with all medoids."""
        for part in blocks(len(rows), len(medoids)):
            some = rows[part]
            squares = squared_distances(self.features[some], self.features[medoids])
            found = squares.topk(min(2, len(medoids)), largest=False)
            self.first[some], self.which[some] = found.values[:, 0].sqrt(), found.indices[:, 0]
            if len(medoids) > 1:
                self.second[some], self.other[some] = found.values[:, 1].sqrt(), found.indices[:, 1]

    def replace(self, m: Tensor, distance: Tensor, medoids: Tensor) -> None:
        """Replace medoid number m by a sample at this distance from each row."""
        lost = ((self.which == m) | (self.other == m)).nonzero().flatten()
        nearer, between = distance < self.first, distance < self.second
        self.second = torch.where(nearer, self.first, torch.where(between, distance, self.second))
        self.other = torch.where(nearer, self.which, torch.where(between, m, self.other))
        self.first, self.which = torch.where(nearer, distance, self.first), torch.where(nearer, m, self.which)
        self.look(lost, medoids)


def _swap(features: Tensor, rows: slice, medoids: Tensor, near: _Nearest) -> int:
    """Do the best swap with one of these rows as long as a swap helps; return the number of swaps."""
    distance = squared_distances(features, features[rows]).sqrt_()  # (n, rows)
    swaps, total = 0, near.first.sum()
    while True:
        first, second = near.first[:, None], near.second[:, None]
        change = torch.zeros(len(medoids), distance.shape[1], device=features.device)
        change.index_add_(0, near.which, torch.minimum(torch.maximum(distance, first), second).sub_(first))
        change += (distance - first).clamp_max_(0).sum(0)
        best = change.argmin()
        if bool(change.flatten()[best] >= -1e-5 * total):
            return swaps
        m, x = best // change.shape[1], best % change.shape[1]
        medoids[m] = x + rows.start
        near.replace(m, distance[:, x], medoids)
        before, total = total, near.first.sum()
        if bool(total >= before * (1 - 1e-6)):  # among duplicates: round-off alone
            return swaps
        swaps += 1


def _drawn(features: Tensor, k: int, rng: torch.Generator) -> Tensor:
    """Draw k different rows, each in proportion to its distance from those before, the first uniformly."""
    near = torch.ones(len(features))
    picks = torch.empty(k, dtype=torch.int64)
    tiny = torch.finfo(near.dtype).tiny
    for i in range(k):
        drawn = torch.multinomial(near, 1, generator=rng)
        picks[i] = drawn[0]
        row = features[drawn.to(features.device)]
        distance = squared_distances(features, row)[:, 0].sqrt_().cpu().clamp_min_(tiny)
        near = distance if i == 0 else torch.minimum(near, distance)
        near[picks[: i + 1]] = 0
    return picks.to(features.device)
