"""DACS: k-center in regions of similar density, with more of the budget for sparse regions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import Metric, measured, scales
from clsim.selectors.farthest import farthest_first
from clsim.selectors.points import points
from clsim.selectors.typicality import typicality


def dacs(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "euclidean",
    neighbours: int = 20,
    groups: int = 4,
    temperature: float = 0.25,
) -> Selection:
    """Choose by k-center within groups of similar density, with most of the budget for small groups.

    Density is 1 / (mean distance to the nearest neighbours + 10⁻⁵), computed exactly where the paper uses hashing; of
    more than 100,000 candidates, by an index of neighbours if the extra ``neighbours`` (faiss) is installed.
    Jenks' natural breaks split the candidates by density into the groups of least variance. Group g's share of the
    budget is softmax((1 − |g|/n) / τ); what exceeds a group's size goes to the others. Within each group, greedy
    k-center starts from the labelled samples. The groups' picks are interleaved in proportion to their shares. The
    constants are not the paper's (unverified). With one group it equals ``kcenter``.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        neighbours: number of neighbours that the density is computed from.
        groups: number of groups, from 1.
        temperature: τ, above 0; the larger it is, the more equal are the shares.

    Needs: features; labelled samples if there are any.
    Cost: O(n²·d) time for the densities, O(n·b·d) for k-center; O(n·d) memory.
    Source: Kim & Shin, In Defense of Core-set: A Density-aware Core-set Selection for Active Learning (KDD 2022).
    """
    if groups < 1 or temperature <= 0:
        raise InputError(
            f"dacs: found groups {groups} and temperature {temperature}; allowed: groups from 1, a temperature above 0"
        )
    n, budget = len(pool), min(budget, len(pool))
    features, labelled = pool.features, None if pool.labelled is None else pool.labelled.features
    group = torch.zeros(n, dtype=torch.int64, device=features.device)
    if groups > 1 and n:
        group = natural_breaks(typicality(measured(features, metric), neighbours), groups)
    size = group.bincount(minlength=1).cpu()
    picks, places = [], []
    for g, quota in enumerate(group_shares(size, budget, temperature).tolist()):
        rows = (group == g).nonzero().flatten()
        part = points(features[rows], normalise=scales(metric))
        near = None if labelled is None else part.nearest_of(labelled)
        picks.append(rows[farthest_first(part, quota, near)])
        places.append((torch.arange(quota, dtype=torch.float64) + 0.5) / max(quota, 1))
    order = torch.cat(places).argsort(stable=True).to(features.device)
    return Selection(torch.cat(picks)[order])


def natural_breaks(values: Float[Tensor, " n"], groups: int) -> Int[Tensor, " n"]:
    """Find the group of each value by Jenks' natural breaks: int64 (n,), from the smallest values up.

    The split into consecutive groups minimises Σ (v − mean of its group)² exactly: one-dimensional k-means. With
    cost(i, j) of the sorted values i to j − 1, best_g(j) = min_{i<j} best_{g−1}(i) + cost(i, j). The i that attains the
    minimum never falls as j rises, so that only O(groups · n · log n) pairs have to be tried.
    """
    n = len(values)
    order = np.asarray(values.argsort(stable=True).cpu())
    ascending = np.asarray(values.cpu(), dtype=np.float64)[order]
    ascending = ascending - (ascending.mean() if n else 0.0)
    sums = np.stack([np.concatenate([[0.0], np.cumsum(v)]) for v in (ascending, ascending**2)])

    def cost(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        total, squares = sums[:, j] - sums[:, i]
        return np.maximum(squares - total**2 / np.maximum(j - i, 1), 0)

    ends = np.arange(n + 1)
    best, starts = cost(np.zeros_like(ends), ends), []
    for _ in range(1, min(groups, n)):
        best, start = _least(best, cost)
        starts.append(start)
    group, end = np.zeros(n, dtype=np.int64), n
    for g in range(len(starts), 0, -1):
        end = starts[g - 1][end]
        group[end:] += 1
    label = torch.empty(n, dtype=torch.int64)
    label[torch.from_numpy(order)] = torch.from_numpy(group)
    return label.to(values.device)


def _least(best: np.ndarray, cost: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Compute min over i ≤ j of best(i) + cost(i, j) for each j, and the first i that attains it, by halving gaps."""
    n = len(best) - 1
    value, start = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=np.int64)
    value[0] = 0.0
    stride = 1 << n.bit_length()
    while stride:
        js = np.arange(stride, n + 1, 2 * stride)
        low = start[js - stride]
        high = np.where(js + stride <= n, start[np.minimum(js + stride, n)], js)
        high = np.minimum(high, js)
        count = high - low + 1
        first = np.cumsum(count) - count
        i = np.arange(count.sum()) - np.repeat(first - low, count)
        tried = best[i] + cost(i, np.repeat(js, count))
        if len(js):
            least = np.minimum.reduceat(tried, first)
            value[js] = least
            attained = np.where(tried == np.repeat(least, count), i, n + 1)
            start[js] = np.minimum.reduceat(attained, first)
        stride //= 2
    return value, start


def group_shares(size: Tensor, budget: int, temperature: float) -> Tensor:
    """Divide the budget over the groups by softmax: int64 (groups,), rounded, at most each group's size."""
    share = ((1 - size.double() / size.sum().clamp_min(1)) / temperature).softmax(0).clamp_min(1e-12)
    quota = torch.zeros_like(size)
    while int(quota.sum()) < budget:
        left = budget - int(quota.sum())
        wanted = torch.where(quota < size, share, 0.0)
        wanted = wanted / wanted.sum() * left
        more = torch.minimum(wanted.floor().to(torch.int64), size - quota)
        if not int(more.sum()):  # less than one each: the largest remainders
            more[wanted.argsort(descending=True, stable=True)[:left]] = 1
            more = torch.minimum(more, size - quota)
        quota += more
    return quota
