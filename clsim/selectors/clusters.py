"""Clusters of features, and the samples that stand for them."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import Metric, blocks, measured, nearest_of
from clsim.selectors.random import in_turn


def k_means(
    pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "euclidean", iterations: int = 100
) -> Selection:
    """The sample nearest the centre of each of as many k-means clusters as there is budget.

    min Σ_i ‖φ_i − μ_{c(i)}‖² by Lloyd's iterations from a k-means++ start; then of each cluster, the largest first, its
    member nearest μ. Where fewer clusters than that can be told apart (duplicates), the second nearest of each, and so
    on.

    Args:
        metric: ``euclidean`` on the features, or on features scaled to length 1 (``cosine``).
        iterations: at most so many of Lloyd's.

    Needs: features.
    Cost: O(n·b·d) time an iteration, O(n·d) memory.
    Source: MacQueen, Some Methods for Classification and Analysis of Multivariate Observations (1967), by scikit-learn;
        as an acquisition, DeepAL's k-means sampling.
    """
    features = measured(pool.features, metric)
    cluster = k_means_clusters(features, budget, rng, iterations=iterations)
    return Selection(representatives(features, cluster)[:budget])


def agglomerative(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "euclidean",
    linkage: Literal["ward", "average", "complete", "single"] = "ward",
    largest: int = 5000,
) -> Selection:
    """The sample nearest the mean of each of as many agglomerative clusters as there is budget.

    From n clusters of one sample, the two nearest are merged until so many are left: nearest by the growth of the
    within-cluster variance (``ward``), or by the mean, largest or smallest distance. Of each cluster, the largest
    first, its member nearest the mean.

    Args:
        metric: ``euclidean`` on the features, or on features scaled to length 1 (``cosine``).
        linkage: which two clusters are nearest.
        largest: of a larger pool, so many samples (or the budget, if that is more) are drawn uniformly and clustered,
            and each other joins the cluster whose mean is nearest.

    Needs: features.
    Cost: O(m²·d) time and O(m²) memory, m = min(n, largest).
    Source: Ward, Hierarchical Grouping to Optimize an Objective Function (1963), by scikit-learn.
    """
    features = measured(pool.features, metric)
    cluster = agglomerative_clusters(features, budget, rng, linkage=linkage, largest=largest)
    return Selection(representatives(features, cluster)[:budget])


def k_means_clusters(
    features: Float[Tensor, "n width"], k: int, rng: torch.Generator, *, iterations: int = 100, starts: int = 1
) -> Int[Tensor, " n"]:
    """The k-means cluster of each row, int64 (n,), the best of so many starts; min(k, n), fewer where rows are alike.

    On one thread: with more, scikit-learn adds up centres in whatever order threads end, and the same seed would not
    give the same clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    k, seed = min(k, len(features)), int(torch.randint(2**31 - 1, (1,), generator=rng))
    if k < 1:
        return torch.zeros(len(features), dtype=torch.int64, device=features.device)
    method = KMeans(k, n_init=starts, max_iter=iterations, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(limits=1, user_api="openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # duplicates: fewer clusters than asked for
        labels = method.fit(np.asarray(features.cpu())).labels_
    return torch.from_numpy(labels).to(features.device, torch.int64)


def agglomerative_clusters(
    features: Tensor,
    k: int,
    rng: torch.Generator,
    *,
    linkage: Literal["ward", "average", "complete", "single"] = "ward",
    largest: int = 5000,
) -> Tensor:
    """The agglomerative cluster of each row, int64 (n,): min(k, n) of them; see :func:`agglomerative`."""
    from sklearn.cluster import AgglomerativeClustering

    n = len(features)
    if k >= n or n < 2:
        return torch.arange(n, device=features.device)
    if n > max(largest, k):
        drawn = torch.randperm(n, generator=rng)[: max(largest, k)].to(features.device)
        part = agglomerative_clusters(features[drawn], k, rng, linkage=linkage, largest=largest)
        cluster = nearest_of(features, means(features[drawn], part))[1]
        return cluster.index_copy(0, drawn, part)
    labels = AgglomerativeClustering(max(k, 1), linkage=linkage).fit(np.asarray(features.cpu())).labels_
    return torch.from_numpy(labels).to(features.device, torch.int64)


def means(features: Float[Tensor, "n width"], cluster: Int[Tensor, " n"]) -> Float[Tensor, "clusters width"]:
    """The mean of each cluster, (clusters, d); clusters are numbered from 0, and empty ones have a mean of 0."""
    count = cluster.bincount()
    total = features.new_zeros(len(count), features.shape[1]).index_add_(0, cluster, features)
    return total / count.clamp_min(1)[:, None]


def representatives(features: Float[Tensor, "n width"], cluster: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """All rows: of each cluster the member nearest its mean, the largest cluster first; then the second nearest, …"""
    centre = means(features, cluster)
    distance = features.new_empty(len(features))
    for rows in blocks(len(features), features.shape[1]):
        distance[rows] = torch.linalg.vector_norm(features[rows] - centre[cluster[rows]], dim=1)
    return by_turns(cluster, distance, cluster.bincount())


def by_turns(
    cluster: Int[Tensor, " n"], cost: Shaped[Tensor, " n"], priority: Shaped[Tensor, " clusters"]
) -> Int[Tensor, " n"]:
    """All rows: of each cluster the member of least cost, then the second of each, and so on; int64 (n,).

    Args:
        cluster: (n,), numbered from 0.
        cost: (n,); of equals, the earlier row comes first.
        priority: (clusters,); within a turn, the largest comes first.

    >>> by_turns(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([2, 1, 3, 1, 2]), torch.tensor([2, 3])).tolist()
    [3, 1, 4, 0, 2]
    """
    order = cost.argsort(stable=True)
    order = order[priority[cluster[order]].argsort(descending=True, stable=True)]
    return order[in_turn(cluster[order])]
