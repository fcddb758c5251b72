"""Selectors that keep a representative of each cluster of features, and the clustering itself."""

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
from clsim.selectors.scores import uncertainties
from clsim.spec.kinds import Count


def k_means(
    pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "euclidean", iterations: Count = 100
) -> Selection:
    """Keep the sample nearest the centre of each of ``budget`` k-means clusters.

    Lloyd's iterations minimise Σ_i ‖φ_i − μ_{c(i)}‖² from a k-means++ start. Each cluster then gives its member nearest
    μ, the largest cluster first. Where duplicates leave fewer clusters than the budget, each gives its second nearest
    member, and so on.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        iterations: number of Lloyd's iterations at most.

    Needs: embedding, else features.
    Cost: O(n·b·d) time an iteration, O(n·d) memory.
    Source: MacQueen, Some Methods for Classification and Analysis of Multivariate Observations (1967), by scikit-learn;
        as an acquisition, DeepAL's k-means sampling.
    """
    features = measured(pool.embedding, metric)
    cluster = k_means_clusters(features, budget, rng, iterations=iterations)
    return Selection(representatives(features, cluster)[:budget])


def clue(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "euclidean",
    iterations: Count = 100,
    temperature: float = 1.0,
) -> Selection:
    """Query the sample nearest the centre of each of ``budget`` clusters of k-means, weighted by entropy.

    Lloyd's iterations minimise Σ_i H(p_i)·‖φ_i − μ_{c(i)}‖² from a k-means++ start, which draws by these weights too;
    μ is the weighted mean. Each cluster gives its member nearest μ, the cluster of the largest total weight first, then
    its second nearest where duplicates leave fewer clusters than the budget. Equal entropies make the picks of
    ``k-means``. A weight is at least 10⁻⁶ of the largest, so that certain samples belong to a cluster; where all
    entropies are 0, all samples weigh the same. The order of the clusters is ours. What is labelled is not looked at.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        iterations: number of Lloyd's iterations at most.
        temperature: what the logits are divided by before the softmax, above 0: the lower it is, the more the choice
            goes by uncertainty.

    Needs: features, probabilities.
    Cost: O(n·b·d) time an iteration, O(n·d) memory.
    Source: Prabhu, Chandrasekaran, Saenko & Hoffman, Active Domain Adaptation via Clustering Uncertainty-weighted
        Embeddings (ICCV 2021).
    """
    features = measured(pool.features, metric)
    weight = uncertainties(pool.logits, temperature=temperature).clamp_min(1e-6)
    cluster = k_means_clusters(features, budget, rng, iterations=iterations, weight=weight)
    return Selection(representatives(features, cluster, weight)[:budget])


def agglomerative(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "euclidean",
    linkage: Literal["ward", "average", "complete", "single"] = "ward",
    largest: int = 5000,
) -> Selection:
    """Keep the sample nearest the mean of each of ``budget`` agglomerative clusters.

    From n clusters of one sample each, the two nearest are merged until ``budget`` clusters are left: nearest by the
    growth of the within-cluster variance (``ward``), or by the mean, largest or smallest distance. Each cluster then
    gives its member nearest the mean, the largest cluster first.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        linkage: the distance between two clusters, as above.
        largest: number of samples that are clustered at most (or the budget, if that is more). From a larger pool
            they are drawn uniformly, and each other sample joins the cluster with the nearest mean.

    Needs: embedding, else features.
    Cost: O(m²·d) time and O(m²) memory, m = min(n, largest).
    Source: Ward, Hierarchical Grouping to Optimize an Objective Function (1963), by scikit-learn.
    """
    features = measured(pool.embedding, metric)
    cluster = agglomerative_clusters(features, budget, rng, linkage=linkage, largest=largest)
    return Selection(representatives(features, cluster)[:budget])


def k_means_clusters(
    features: Float[Tensor, "n width"],
    k: int,
    rng: torch.Generator,
    *,
    iterations: Count = 100,
    starts: int = 1,
    weight: Float[Tensor, " n"] | None = None,
) -> Int[Tensor, " n"]:
    """Find the k-means cluster of each row, int64 (n,): min(k, n) clusters, fewer where rows are alike.

    The best of ``starts`` runs counts. It runs on one thread: with more, scikit-learn adds up centres in the order in
    which threads end, and the same seed would not give the same clusters.

    Args:
        features: (n, d).
        k: number of clusters.
        iterations: number of Lloyd's iterations at most.
        starts: number of runs from different first centres.
        weight: what each row counts for in the sum of squares and in the means, above 0; None: 1.
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
        mass = None if weight is None else np.asarray(weight.cpu())
        labels = method.fit(np.asarray(features.cpu()), sample_weight=mass).labels_
    return torch.from_numpy(labels).to(features.device, torch.int64)


def agglomerative_clusters(
    features: Tensor,
    k: int,
    rng: torch.Generator,
    *,
    linkage: Literal["ward", "average", "complete", "single"] = "ward",
    largest: int = 5000,
) -> Tensor:
    """Find the agglomerative cluster of each row, int64 (n,): min(k, n) clusters; see :func:`agglomerative`."""
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


def means(
    features: Float[Tensor, "n width"], cluster: Int[Tensor, " n"], weight: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "clusters width"]:
    """Compute the weighted mean of each cluster, (clusters, d); clusters count from 0, and empty ones have a mean of 0.

    Args:
        weight: the weight of each row, above 0; None: 1.
    """
    mass = sums(cluster, weight)
    worth = features if weight is None else features * weight[:, None]
    total = features.new_zeros(len(mass), features.shape[1]).index_add_(0, cluster, worth)
    return total / torch.where(mass > 0, mass, 1)[:, None]


def sums(cluster: Int[Tensor, " n"], weight: Float[Tensor, " n"] | None) -> Shaped[Tensor, " clusters"]:
    """Add up the weights of each cluster, or count its rows: (clusters,)."""
    count = cluster.bincount()
    return count if weight is None else weight.new_zeros(len(count)).index_add_(0, cluster, weight)


def representatives(
    features: Float[Tensor, "n width"], cluster: Int[Tensor, " n"], weight: Float[Tensor, " n"] | None = None
) -> Int[Tensor, " n"]:
    """Order all rows: each cluster's member nearest its mean, the largest cluster first, then the second nearest, …

    Args:
        weight: the weight of each row in its cluster's mean and size, above 0; None: 1.
    """
    centre = means(features, cluster, weight)
    distance = features.new_empty(len(features))
    for rows in blocks(len(features), features.shape[1]):
        distance[rows] = torch.linalg.vector_norm(features[rows] - centre[cluster[rows]], dim=1)
    return by_turns(cluster, distance, sums(cluster, weight))


def by_turns(
    cluster: Int[Tensor, " n"], cost: Shaped[Tensor, " n"], priority: Shaped[Tensor, " clusters"]
) -> Int[Tensor, " n"]:
    """Order all rows: each cluster's member of least cost, then the second of each, and so on; int64 (n,).

    Args:
        cluster: (n,), the cluster of each row, from 0.
        cost: (n,), the cost of each row; of equal ones, the earlier row comes first.
        priority: (clusters,), the priority of each cluster; within a turn, the largest comes first.

    >>> by_turns(torch.tensor([0, 0, 1, 1, 1]), torch.tensor([2, 1, 3, 1, 2]), torch.tensor([2, 3])).tolist()
    [3, 1, 4, 0, 2]
    """
    order = cost.argsort(stable=True)
    order = order[priority[cluster[order]].argsort(descending=True, stable=True)]
    return order[in_turn(cluster[order])]
