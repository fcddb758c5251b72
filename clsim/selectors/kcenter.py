"""k-center: choices that leave no candidate far from the nearest pick."""

from __future__ import annotations

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import Metric, measured, principal, scales
from clsim.selectors.farthest import farthest_first, plain_farthest_first
from clsim.selectors.points import Points, points


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


def _covered(pool: Pool, candidates: Points) -> Tensor | None:
    """Compute each candidate's squared distance to the nearest labelled sample; None without labelled samples."""
    return None if pool.labelled is None else candidates.nearest_of(pool.labelled.features)
