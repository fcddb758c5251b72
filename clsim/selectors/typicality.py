"""Typical samples: those whose neighbours are near."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clsim.pool.pool import Pool, Selection
from clsim.selectors.clusters import by_turns, k_means_clusters
from clsim.selectors.distances import Metric, blocks, measured, squared_distances
from clsim.selectors.neighbour_index import neighbour_distances

EPSILON = 1e-5
"""Added to a mean distance before it is inverted, since that of duplicates is 0."""


def density(
    pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "cosine", neighbours: int = 20
) -> Selection:
    """Keep the samples with the nearest neighbours: the most typical, even if they are alike.

    typicality(i) = 1 / (mean distance from φ_i to its nearest neighbours), the largest first. By itself it keeps near
    copies of one sample; it is meant as a filter, as in ``prefilter(density,kcenter,5)``: k-center among the typical
    samples. Of more than 100,000 candidates, neighbours are found by an index if the extra ``neighbours`` (faiss) is
    installed, and may miss some; else all are exact.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        neighbours: number of neighbours that the mean distance is taken over.

    Needs: embedding, else features.
    Cost: O(n²·d) time, O(n) memory.
    Source: the typicality of Hacohen, Dekel & Weinshall, Active Learning on a Budget (ICML 2022).
    """
    typical = typicality(measured(pool.embedding, metric), neighbours)
    return Selection(typical.argsort(descending=True, stable=True)[:budget])


def centre_of_gravity(pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "euclidean") -> Selection:
    """Choose the samples farthest from the mean of all labelled samples and candidates: the least typical.

    They are ranked by ‖φ_i − mean(φ_{L∪U})‖, the largest first.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).

    Needs: features; labelled samples if there are any.
    Cost: O(n·d) time and memory.
    Source: the acquisition of that name in the TorchAL toolkit; its own form is unverified.
    """
    features = everything = measured(pool.features, metric)
    if pool.labelled is not None:
        everything = torch.cat([measured(pool.labelled.features, metric), features])
    distance = (features - everything.mean(0)).norm(dim=1)
    return Selection(distance.argsort(descending=True, stable=True)[:budget])


def typiclust(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "cosine",
    clusters: int = 500,
    neighbours: int = 20,
    smallest: int = 5,
) -> Selection:
    """Choose the most typical sample of each of the largest clusters that have no labelled sample yet.

    k-means divides labelled samples and candidates into min(labelled + budget, ``clusters``) clusters. Each cluster
    gives its member of highest typicality, 1 / (mean distance to its nearest neighbours in the cluster + 10⁻⁵), then
    its second, and so on; clusters with the fewest labelled samples come first, and of these the largest. In clusters
    of more than 100,000, neighbours are found by an index if the extra ``neighbours`` (faiss) is installed.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        clusters: number of clusters at most.
        neighbours: number of neighbours that the mean distance is taken over, at most; a small cluster has fewer.
        smallest: number of samples up to which a cluster is small; small clusters come after all others.

    Needs: embedding, else features; labelled samples if there are any.
    Cost: O(n·b·d) time an iteration of k-means, and O(n²·d / b) for the neighbours; O(n·d) memory.
    Source: Hacohen, Dekel & Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets (ICML
        2022), algorithm 1; neighbours at their distances, not squared ones as in its code.
    """
    n, features = len(pool), measured(pool.embedding, metric)
    labelled = 0
    if pool.labelled is not None:
        labelled = len(pool.labelled)
        features = torch.cat([features, measured(pool.labelled.embedding, metric)])
    cluster = k_means_clusters(features, min(labelled + budget, clusters), rng)
    size = cluster.bincount()
    count = cluster[n:].bincount(minlength=len(size))
    typical = torch.empty(len(features), device=features.device)
    for c in range(len(size)):
        members = (cluster == c).nonzero().flatten()
        typical[members] = typicality(features[members], neighbours)
    rows = by_turns(cluster[:n], -typical[:n], size - count * (len(features) + 1))
    small = size[cluster[rows]] <= smallest
    return Selection(torch.cat([rows[~small], rows[small]])[:budget])


def usl(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "cosine",
    neighbours: int = 400,
    weight: float = 1.0,
    momentum: float = 0.9,
    power: float = 1.0,
    horizon: float = 1.0,
    rounds: int = 10,
) -> Selection:
    """Choose a dense sample of each of ``budget`` k-means clusters, far from those of the other clusters.

    In each round, each cluster's member with the largest U − ``weight``·R is chosen, U = 1 / (mean distance to the
    nearest neighbours + 10⁻⁵); then R ← ``momentum``·R + (1 − ``momentum``)·Σ_j 1/‖φ_i − φ_j‖^``power`` over the
    samples chosen in the other clusters. R begins at 0; the last round's choice counts, the largest cluster's first.
    Samples labelled already count among those chosen in other clusters; the paper asks once, where there are none.
    Where duplicates leave fewer clusters than the budget, each gives its second best member, and so on. Of more than
    100,000 candidates, neighbours are found by an index if the extra ``neighbours`` (faiss) is installed.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        neighbours: number of neighbours that the density is computed from; at most n − 1.
        weight: weight of the repulsion R.
        momentum: momentum of R over the rounds, from 0 to 1.
        power: exponent of the distance in the repulsion.
        horizon: distance from which chosen samples do not repel.
        rounds: number of rounds of choosing; 1: without repulsion.

    Needs: embedding, else features; labelled samples if there are any.
    Cost: O(n²·d) time for the neighbours, O(n·b·d) a round; O(n·neighbours) memory.
    Source: Wang, Lian & Yu, Unsupervised Selective Labeling for More Effective Semi-Supervised Learning (ECCV 2022);
        distances as in the paper, not squared as in its code; the number of rounds as in its code.
    """
    features = measured(pool.embedding, metric)
    cluster = k_means_clusters(features, budget, rng)
    priority, dense = cluster.bincount(), typicality(features, neighbours)
    repulsion = asked_before = torch.zeros_like(dense)
    if pool.labelled is not None:
        centres = measured(pool.labelled.embedding, metric)
        asked_before = _repulsion(features, cluster, centres, cluster.new_full((len(centres),), -1), power, horizon)
    rows = by_turns(cluster, -dense, priority)
    for _ in range(1, rounds):
        chosen = rows[: int((priority > 0).sum())]
        push = asked_before + _repulsion(features, cluster, features[chosen], cluster[chosen], power, horizon)
        repulsion = momentum * repulsion + (1 - momentum) * push
        rows = by_turns(cluster, weight * repulsion - dense, priority)
    return Selection(rows[:budget])


def typicality(features: Float[Tensor, "n width"], neighbours: int) -> Float[Tensor, " n"]:
    """Compute 1 / (mean distance to the nearest neighbours + 10⁻⁵), (n,); 0 where there is no neighbour.

    Of more than 100,000 rows the neighbours are approximate where faiss is installed.
    """
    distance = neighbour_distances(features, neighbours)
    if not distance.shape[1]:
        return torch.zeros(len(features), device=features.device)
    return 1 / (distance.mean(1) + EPSILON)


def _repulsion(
    features: Tensor, cluster: Tensor, centres: Tensor, theirs: Tensor, power: float, horizon: float
) -> Tensor:
    """Sum 1 / distance^power over the centres, of ``theirs`` clusters, of other clusters within the horizon: (n,)."""
    total = features.new_empty(len(features))
    mean = features.mean(0)
    centres = centres - mean
    for rows in blocks(len(features), len(centres)):
        distance = squared_distances(features[rows] - mean, centres).sqrt_().clamp_min_(EPSILON)
        silent = (cluster[rows, None] == theirs) | (distance >= horizon)
        total[rows] = distance.pow_(-power).masked_fill_(silent, 0).sum(1)
    return total
