"""k-center: choices that leave no candidate far from the nearest pick."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import Metric, measured, principal, scales, squared_distances
from clsim.selectors.points import Points, points

SMALL = 4096
"""Number of rows up to which each pick compares them all; of more rows, only those that may be the farthest."""


def k_center(pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "euclidean") -> Selection:
    """Choose the sample farthest from the chosen ones each time: greedy k-center on features.

    Each pick is u = argmax_i min_{j∈S} d(φ_i, φ_j), where S begins with ``pool.labelled`` if there is any; the radius
    is at most twice the optimum (Gonzalez, 1985). Without labelled samples the first centre is the sample nearest the
    mean, so that nothing is drawn at random. Every prefix is itself the k-center of that size.

    It covers the pool, outliers first: a memory of a few exemplars per class holds untypical samples, and a larger one
    typical ones too. For small memories, ``k-means``, ``k-medoids``, ``herding`` or ``kcenter-robust`` suit better, or
    k-center among the typical samples, ``per_class(prefilter(density,kcenter,5))``.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).

    Needs: features; labelled samples if there are any.
    Cost: O(n·b·d) time at worst, far less where distances differ; O(n) memory.
    Source: Sener & Savarese, Active Learning for CNNs: A Core-Set Approach (ICLR 2018), algorithm 1.
    """
    candidates = points(pool.features, normalise=scales(metric))
    return Selection(farthest_first(candidates, budget, _covered(pool, candidates)))


def k_center_pca(
    pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "euclidean", width: int = 50
) -> Selection:
    """Choose by k-center on the first principal components of the features.

    It is ``kcenter`` on the scores (φ − μ)·V, where V are the eigenvectors of the ``width`` largest eigenvalues of the
    candidates' covariance, in float32. Where the features are no wider than ``width``, it equals ``kcenter``.

    Args:
        metric: the scale of features before the projection: as they are (``euclidean``), or length 1 (``cosine``).
        width: number of principal components.

    Needs: features; labelled samples if there are any.
    Cost: O(n·d² + n·b·width) time, O(n·width) memory.
    Source: k-center as in Sener & Savarese (ICLR 2018), algorithm 1; active-learning libraries run it on
        components, which no paper claims.
    """
    features = measured(pool.features, metric)
    if features.shape[1] <= width:
        return k_center(pool, budget, rng=rng, metric=metric)
    mean, directions = principal(features, width)
    scores = points((features - mean) @ directions)
    near = None
    if pool.labelled is not None:
        near = scores.nearest_of((measured(pool.labelled.features, metric) - mean) @ directions)
    return Selection(farthest_first(scores, budget, near))


def k_center_robust(
    pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "euclidean", outliers: float = 0.1
) -> Selection:
    """Choose by k-center that may leave a fraction of the samples uncovered as outliers.

    Each pick is the (z+1)-th farthest from the chosen samples, z = ⌊outliers·n⌋, where k-center takes the farthest.
    Sener & Savarese bound the outliers in a mixed integer program; this is a greedy form of our own. Its guarantee:
    after k + z picks all but z samples lie within twice the radius that k centres with z outliers need, since a pick
    farther away than that is one of the z outliers or lies in a ball that had no pick.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        outliers: the fraction that may stay uncovered, from 0 (k-center) to below 1.

    Needs: features; labelled samples if there are any.
    Cost: O(n·b·d) time, O(n) memory.
    Source: greedy form of the robust k-center of Sener & Savarese, Active Learning for CNNs: A Core-Set Approach (ICLR
        2018), algorithm 2.
    """
    if not 0 <= outliers < 1:
        raise InputError(f"kcenter-robust: outliers: found {outliers}, allowed: from 0 to below 1")
    candidates = points(pool.features, normalise=scales(metric))
    near = _covered(pool, candidates)
    return Selection(plain_farthest_first(candidates, min(budget, len(pool)), near, int(outliers * len(pool))))


def farthest_first(
    candidates: Points, budget: int, near: Float[Tensor, " n"] | None = None, *, small: int = SMALL
) -> Int[Tensor, " m"]:
    """Order rows by Gonzalez' greedy algorithm: int64 (min(budget, n),).

    A squared distance to the nearest centre never rises, so a value computed earlier stays an upper bound. While the
    farthest of a few *active* rows is at least as far as the bound of every other row, it is the farthest of all, and
    no other row has to be computed: exact, as long as no two distances are equal. Other rows catch up with the centres
    they missed, in one product, when their bound makes them candidates again.

    Args:
        near: (n,), squared distances to the nearest centre chosen before; None: there are none.
        small: number of rows up to which all are active.
    """
    n, budget = len(candidates), min(budget, len(candidates))
    if n <= max(small, 1) or not budget:
        return plain_farthest_first(candidates, budget, near)
    picks = candidates.squares.new_empty(budget, dtype=torch.int64)
    picks[0] = candidates.squares.argmin() if near is None else near.argmax()
    bound = _squared_distances_to(candidates, picks[0])
    bound = bound if near is None else torch.minimum(bound, near)
    bound[picks[0]] = CHOSEN
    seen = torch.ones(n, dtype=torch.int32, device=bound.device)  # number of picks that each bound includes
    done, size = 1, max(n // 16, 1)
    while done < budget:
        active, others = _catch_up(candidates, bound, seen, picks[:done], size)
        rows, squares, values = candidates[active], candidates.squares[active], bound[active]
        began = done
        while done < budget:
            best = values.argmax()
            if bool(values[best] < others):
                break
            picks[done] = active[best]
            distance = torch.addmv(squares + squares[best], rows, rows[best], alpha=-2).clamp_min_(0)
            torch.minimum(values, distance, out=values)
            values[best] = CHOSEN
            done += 1
        bound[active], seen[active] = values, done
        del rows  # before the next are gathered
        # one product with many missed centres costs little, many products with many rows do not pay
        size = min(2 * size, max(n // 8, 1)) if done - began < 8 else max(size // 2, min(size, 512))
    return picks


CHOSEN = -1.0
"""Stands for the squared distance of a row that is a centre: below that of its duplicates, so that none comes twice."""


def plain_farthest_first(candidates: Points, budget: int, near: Tensor | None, skipped: int = 0) -> Tensor:
    """Choose by the equation, with every row at every pick: the farthest row after ``skipped`` farther ones."""
    picks = candidates.squares.new_empty(budget, dtype=torch.int64)
    near = torch.full_like(candidates.squares, torch.inf) if near is None else near.clone()
    for i in range(budget):
        first = i == 0 and bool(near.isinf().all())
        centre = candidates.squares.argmin() if first else _farthest(near, min(skipped, len(near) - i - 1))
        picks[i] = centre
        torch.minimum(near, _squared_distances_to(candidates, centre), out=near)
        near[centre] = CHOSEN
    return picks


def _farthest(near: Tensor, skipped: int) -> Tensor:
    """Find the row of the (skipped + 1)-th largest distance; of equals, the first."""
    if not skipped:
        return near.argmax()
    return (near == near.kthvalue(len(near) - skipped).values).to(torch.uint8).argmax()


def _squared_distances_to(candidates: Points, centre: Tensor) -> Tensor:
    """Compute each row's squared distance to the centre, (n,); clamped, since round-off makes some negative."""
    products = candidates.along(candidates[centre[None]][0])
    return products.mul_(-2).add_(candidates.squares).add_(candidates.squares[centre]).clamp_min_(0)


def _catch_up(candidates: Points, bound: Tensor, seen: Tensor, picks: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Find the ``size`` rows with the largest bounds, made exact, the largest at least the bound of all other rows.

    Returns the rows, in order, and the bound of the others.
    """
    while True:
        top = bound.topk(size + 1)
        active, others = top.indices[:size].sort().values, top.values[size]
        stale = active[seen[active] < len(picks)]
        stale = stale[seen[stale].argsort(stable=True)]  # those that missed equally many together
        for rows in stale.split(1024) if len(stale) else ():
            there = candidates[rows]
            for centres in picks[int(seen[rows[0]]) :].split(1024):
                squares = squared_distances(there, candidates[centres]).min(1).values
                bound[rows] = torch.minimum(bound[rows], squares)
        seen[stale] = len(picks)
        if bool(bound[active].max() >= others):
            return active, others


def _covered(pool: Pool, candidates: Points) -> Tensor | None:
    """Compute each candidate's squared distance to the nearest labelled sample; None without labelled samples."""
    return None if pool.labelled is None else candidates.nearest_of(pool.labelled.features)
