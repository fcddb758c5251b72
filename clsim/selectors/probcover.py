"""ProbCover: samples whose balls of one radius cover as many samples as possible."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.selectors.clusters import k_means_clusters
from clsim.selectors.distances import Metric, blocks, measured, nearest_of, squared_distances


def prob_cover(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "cosine",
    radius: float = 0.0,
    purity: float = 0.95,
    clusters: int = 0,
) -> Selection:
    """Choose the samples whose balls of radius δ cover the most samples, greedily: dense regions first.

    Each pick is u = argmax_i |{j not covered: ‖φ_i − φ_j‖ ≤ δ}|, of equals the one with the largest key, where labelled
    samples cover from the beginning: at least 1 − 1/e of the largest coverage possible. Once all samples are covered, δ
    becomes half of the largest distance to the chosen ones, and these cover anew; where only duplicates are left, those
    with the largest keys come first.

    δ is the largest radius at which a share ``purity`` of all balls is pure, that is, holds samples of a single k-means
    cluster. A ball about i is pure up to the distance r_i to the nearest sample of another cluster, so δ is the
    (1 − purity) quantile of r, or just below it.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        radius: δ; 0: found by ``purity``.
        purity: α, the share of balls that must be pure, above 0 up to 1.
        clusters: number of k-means clusters that stand for the classes; 0: the number of known classes, at least 2, or,
            before any is known, as many as samples are chosen (as TypiClust has it; the paper knows the classes).

    Needs: embedding, else features; labelled samples if there are any.
    Cost: O(n²·d) time for each δ, O(n·d) memory and a block.
    Source: Yehuda, Dekel, Hacohen & Weinshall, Active Learning Through a Covering Lens (NeurIPS 2022): greedy, and
        the radius by purity; the steps after a full cover are ours.
    """
    if radius < 0 or not 0 < purity <= 1:
        raise InputError(
            f"prob-cover: found radius {radius} and purity {purity}; allowed: a radius from 0, a purity above 0 up to 1"
        )
    n, budget = len(pool), min(budget, len(pool))
    features = measured(pool.embedding, metric)
    mean = features.mean(0)
    features = features - mean
    labelled = features[:0] if pool.labelled is None else measured(pool.labelled.embedding, metric) - mean
    if not radius and budget:
        classes = clusters or max(len(pool.classes) or budget, 2)
        radius = pure_radius(features, k_means_clusters(features, classes, rng, starts=10), purity)
    near = torch.full((n,), torch.inf, device=features.device)  # distance to what is chosen or labelled
    if len(labelled):
        near = nearest_of(features, labelled)[0].sqrt_()
    picks: list[Tensor] = []
    chosen = torch.zeros(n, dtype=torch.bool, device=features.device)
    while len(picks) < budget:
        _cover(features, radius, near, picks, budget, chosen, pool.data.key)
        left = near.masked_fill(chosen, 0)
        if len(picks) == budget or bool(left.max() <= 0):
            break
        radius = float(left.max()) / 2
    index = torch.stack(picks) if picks else torch.empty(0, dtype=torch.int64, device=features.device)
    rest = (~chosen).nonzero().flatten()
    rest = rest[pool.data.key[rest].argsort(descending=True, stable=True)]
    return Selection(torch.cat([index, rest])[:budget])


def pure_radius(features: Float[Tensor, "n width"], cluster: Int[Tensor, " n"], purity: float) -> float:
    """Find the largest radius at which a share ``purity`` of the rows' balls is of one cluster; ∞ for one cluster."""
    margin = torch.full((len(features),), torch.inf, device=features.device)
    for rows in blocks(len(features), len(features)):
        squares = squared_distances(features[rows], features)
        squares.masked_fill_(cluster[rows, None] == cluster, torch.inf)
        margin[rows] = squares.min(1).values.sqrt_()
    # impure at δ ≥ margin: at most this many rows may be
    impure = int((1 - purity) * len(features) + 1e-6)
    bound = margin.sort().values[impure] if impure < len(features) else margin.max()
    return float(torch.nextafter(bound, bound.new_zeros(())))


def _cover(
    features: Tensor, radius: float, near: Tensor, picks: list[Tensor], budget: int, chosen: Tensor, key: Tensor
) -> None:
    """Add the ball that covers most uncovered samples, until all are covered or the budget is spent.

    ``near`` (n,), the distances to the chosen samples, is updated.
    """
    covered = near <= radius
    gain = _within(features, (~covered).nonzero().flatten(), radius)
    while len(picks) < budget and not bool(covered.all()):
        least = (~covered).to(gain.dtype)  # itself
        best = (torch.maximum(gain, least) + key.double()).masked_fill(chosen, -1).argmax()  # keys are below 1
        picks.append(best)
        chosen[best] = True
        distance = torch.linalg.vector_norm(features - features[best], dim=1)  # exactly 0 for duplicates
        torch.minimum(near, distance, out=near)
        new = ((distance <= radius) & ~covered).nonzero().flatten()
        covered[new] = True
        gain -= _within(features, new, radius)


def _within(features: Tensor, others: Tensor, radius: float) -> Tensor:
    """Count the rows ``others`` within the radius of each row: int64 (n,)."""
    count = torch.zeros(len(features), dtype=torch.int64, device=features.device)
    there = features[others]
    for rows in blocks(len(features), len(others)) if len(others) else ():
        count[rows] = (squared_distances(features[rows], there) <= radius**2).sum(1)
    return count
