"""k-center: no candidate far from what is chosen."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from clsim.pool import Pool, Selection


def k_center(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Literal["euclidean", "cosine"] = "euclidean",
) -> Selection:
    """The greedy 2-approximation of the k-center problem on features.

    u = argmax_i min_{j∈S} d(φ_i, φ_j), again and again; the radius is at most twice the optimum (Gonzalez, 1985).
    The first centre is the sample nearest the mean, so that nothing is drawn at random. Memory O(n) beside the
    features; every prefix is itself the k-center of that size.

    It covers the pool, outliers first: when only a handful of exemplars a class fit, they are the untypical ones, and
    random or herding do better. It pays when the budget is large enough to reach the typical ones too.

    Args:
        metric: ``euclidean`` on the features, or on features scaled to length 1 (``cosine``).

    Source: Sener & Savarese, Active Learning for CNNs: A Core-Set Approach (ICLR 2018), algorithm 1.
    """
    features = F.normalize(pool.features) if metric == "cosine" else pool.features
    squares = features.square().sum(1)
    mean = features.mean(0)
    picks = torch.empty(min(budget, len(pool)), dtype=torch.int64, device=features.device)
    if not len(picks):
        return Selection(picks)
    centre = torch.add(squares, features @ mean, alpha=-2).argmin()
    nearest = torch.full_like(squares, torch.inf)  # squared distance to the closest centre so far
    for i in range(len(picks)):
        picks[i] = centre
        distance = squares + squares[centre] - 2 * (features @ features[centre])
        nearest = torch.minimum(nearest, distance.clamp_min_(0))  # clamped: round-off makes some slightly negative
        nearest[centre] = -1  # below every duplicate of it, so that no row is chosen twice
        centre = nearest.argmax()
    return Selection(picks)
