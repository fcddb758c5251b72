"""Max-herding and uncertainty herding: samples whose Gaussian kernels cover the pool, or its uncertain part."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError, at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import Metric, blocks, measured, nearest, nearest_of, squared_distances
from clsim.selectors.facilities import Dense
from clsim.selectors.greedy import maximise
from clsim.selectors.scores import Uncertainty, uncertainties

DENSE = 2**27
"""Number of kernel values that are kept in memory: half a gigabyte of float32."""

LEAST = 1000
"""Number of samples that are covered at least, of a pool that is too large to cover all."""

TIE = 1e-5
"""What the largest key adds to a gain, of which a sample's own coverage is at most 1."""


def max_herding(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "cosine",
    lengthscale: float = 1.0,
    clients: int | None = None,
) -> Selection:
    """Choose the samples whose Gaussian kernels cover the pool, greedily: dense regions first.

    Each pick is u = argmax_c Σ_x max(0, k(x, c) − max_{j∈S} k(x, j)) over the candidates x, k(x, c) =
    exp(−‖φ_x − φ_c‖² / σ²), where S begins with ``pool.labelled`` (an empty maximum is 0). The coverage
    Σ_x max_{j∈S} k(x, j) then grows by at least 1 − 1/e of what is possible. Labelled samples cover themselves, so that
    to sum over them too would change nothing. Up to 11,585 candidates nothing is drawn: of gains that differ by less
    than about 10⁻⁵, as those of two samples that are alone with each other do, the sample with the larger key comes
    first. ``prob-cover`` is the same with k = 1 up to a radius, else 0.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        lengthscale: σ, in units of the distance; 1, read in public code, is meant for features of length 1. 0: the
            smallest distance between two different labelled samples, as in ``uncertainty-herding``.
        clients: number of drawn samples x that are to be covered instead of all, from 1; None: all up to 11,585, and of
            more candidates as many as half a gigabyte of kernels allows (2,684 of 50,000), at least 1,000.

    Needs: embedding, else features; labelled samples if there are any.
    Cost: O(n·m·d) time and O(n·m) memory, m the number of samples that are covered: half a gigabyte up to 134,000
        candidates.
    Source: Bae, Noh & Sutherland, Generalized Coverage for More Robust Low-Budget Active Learning (ECCV 2024).
    """
    return Selection(_herded(pool, budget, rng, metric, lengthscale, clients))


def uncertainty_herding(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "cosine",
    lengthscale: float = 0.0,
    uncertainty: Uncertainty = "margin",
    temperature: float = 1.0,
    clients: int | None = None,
) -> Selection:
    """Choose the samples whose Gaussian kernels cover the uncertain samples, greedily.

    Each pick is u = argmax_c Σ_x U_x · max(0, k(x, c) − max_{j∈S} k(x, j)): ``max-herding`` where each candidate x
    counts by its uncertainty U_x. With equal uncertainties it is ``max-herding``, and as σ → 0 it takes the most
    uncertain samples, one by one. Where all uncertainties are 0, all samples count alike.

    The method sets both constants by what is labelled, as read in public code. Its σ, the smallest distance between two
    labelled samples, is the default here: it falls with more labels. Its temperature, the best calibrated one on
    labelled samples that a second net was not trained on, is left to the option ``temperature``; no second net is
    trained. Before the first label, public code lets all samples count alike; here the untrained net's uncertainties
    count, which are nearly equal.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        lengthscale: σ, in units of the distance; 0: the smallest distance between two different labelled samples, or
            1 where there are no two.
        uncertainty: U, ``margin`` (1 − p₍₁₎ + p₍₂₎), ``least-confidence`` (1 − max p) or ``entropy``.
        temperature: what the logits are divided by before the softmax, above 0; 1: the net's own probabilities.
        clients: number of drawn samples x that are to be covered instead of all, from 1; None: all up to 11,585, and of
            more candidates as many as half a gigabyte of kernels allows (2,684 of 50,000), at least 1,000.

    Needs: embedding, else features; probabilities; labelled samples if there are any.
    Cost: O(n·m·d) time and O(n·m) memory, m the number of samples that are covered: half a gigabyte up to 134,000
        candidates.
    Source: Bae, Oliveira & Sutherland, Uncertainty Herding: One Active Learning Method for All Label Budgets (ICLR
        2025), algorithm 1.
    """
    weight = uncertainties(pool.logits, uncertainty, temperature)
    return Selection(_herded(pool, budget, rng, metric, lengthscale, clients, weight))


def smallest_distance(features: Float[Tensor, "n width"]) -> float:
    """Find the smallest distance between two different rows; 1 where there are no two."""
    different = features.unique(dim=0) if len(features) else features
    return float(nearest(different, None, 1)[0].min()) if len(different) > 1 else 1.0


def kernels(features: Float[Tensor, "n width"], rows: Int[Tensor, " m"], lengthscale: float) -> Float[Tensor, "m n"]:
    """Compute exp(−‖φ_i − φ_j‖² / σ²) of these rows with all, (m, n), exactly 1 with itself; centre the rows first."""
    values = of_squares(squared_distances(features[rows], features), lengthscale)
    return values.scatter_(1, rows[:, None], 1.0)


def of_squares(squares: Tensor, lengthscale: float) -> Tensor:
    """Compute exp(−d² / σ²) of squared distances, in their place."""
    return squares.div_(-max(lengthscale**2, 1e-30)).exp_()  # above 0 in float32 too


def _herded(
    pool: Pool,
    budget: int,
    rng: torch.Generator,
    metric: Metric,
    lengthscale: float,
    clients: int | None,
    weight: Tensor | None = None,
) -> Tensor:
    """Choose the rows that cover the pool, each sample by its weight; None: all by 1."""
    if not 0 <= lengthscale < torch.inf:
        raise InputError(f"lengthscale: found {lengthscale}, allowed: from 0, finite")
    at_least(1, clients=1 if clients is None else clients)
    features, n = measured(pool.embedding, metric), len(pool)
    mean = features.mean(0) if n else 0
    there = features[:0] if pool.labelled is None else measured(pool.labelled.embedding, metric)
    sigma = lengthscale or smallest_distance(there)
    features, there = features - mean, there - mean
    drawn = torch.arange(n, device=features.device)
    count = max(DENSE // max(n, 1), LEAST) if clients is None else clients
    if count < n:
        drawn = torch.randperm(n, generator=rng)[:count].sort().values.to(features.device)
    covered = features[drawn]
    service = features.new_zeros(len(drawn))
    if len(there):
        service = of_squares(nearest_of(covered, there)[0], sigma)
    weight = torch.ones_like(service) if weight is None else weight[drawn]
    worth = features.new_empty(len(drawn), n)
    for rows in blocks(len(drawn), n):
        # U·max(0, k − c) = max(0, U·k − U·c): weights scale rows
        worth[rows] = kernels(features, drawn[rows], sigma).mul_(weight[rows, None])
    function = Dense(worth, service * weight, modular=TIE * pool.data.key)
    return maximise(function, budget, rng=rng)
