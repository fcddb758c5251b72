"""Max-herding and uncertainty herding: samples whose Gaussian kernels cover the pool, or its uncertain part."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import Metric, blocks, measured, nearest, nearest_of, squared_distances
from clsim.selectors.facilities import Dense
from clsim.selectors.greedy import maximise
from clsim.selectors.scores import entropies, least_confidences, margins

DENSE = 2**27
"""Number of kernel values that are kept in memory at most: half a gigabyte of float32."""

TIE = 1e-5
"""What the largest key adds to a gain, of which a sample's own coverage is at most 1."""

Uncertainty = Literal["margin", "least-confidence", "entropy"]
"""1 − (p₍₁₎ − p₍₂₎), 1 − max p, or −Σ p log p."""


def max_herding(
    pool: Pool, budget: int, *, rng: torch.Generator, metric: Metric = "cosine", lengthscale: float = 1.0
) -> Selection:
    """Choose the samples whose Gaussian kernels cover the pool, greedily: dense regions first.

    Each pick is u = argmax_c Σ_x max(0, k(x, c) − max_{j∈S} k(x, j)) over the candidates x, k(x, c) =
    exp(−‖φ_x − φ_c‖² / σ²), where S begins with ``pool.labelled`` (an empty maximum is 0): at least 1 − 1/e of the
    largest coverage Σ_x max_{j∈S} k(x, j) possible. Labelled samples cover themselves, so that to sum over them too
    would change nothing. Nothing is drawn: of gains that differ by less than about 10⁻⁵, as those of two samples that
    are alone with each other do, the sample with the larger key comes first. ``prob-cover`` is the same with k = 1 up
    to a radius, else 0.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        lengthscale: σ, in units of the distance; the paper's 1 is meant for features of length 1. 0: the smallest
            distance between two different labelled samples, as in ``uncertainty-herding``.

    Needs: features; labelled samples if there are any.
    Cost: O(n²·d) time, O(n²) memory up to half a gigabyte, then O(n·d) and a block.
    Source: Bae, Noh & Sutherland, Generalized Coverage for More Robust Low-Budget Active Learning (ECCV 2024).
    """
    return Selection(_herded(pool, budget, rng, metric, lengthscale, None))


def uncertainty_herding(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    metric: Metric = "cosine",
    lengthscale: float = 0.0,
    uncertainty: Uncertainty = "margin",
    temperature: float = 1.0,
) -> Selection:
    """Choose the samples whose Gaussian kernels cover the uncertain samples, greedily.

    Each pick is u = argmax_c Σ_x U_x · max(0, k(x, c) − max_{j∈S} k(x, j)): ``max-herding`` where each candidate x
    counts by its uncertainty U_x. With equal uncertainties it is ``max-herding``, and as σ → 0 it takes the most
    uncertain samples, one by one. Where all uncertainties are 0, all samples count alike.

    The paper sets both constants by what is labelled. Its σ, the smallest distance between two labelled samples, is
    the default here: it falls with more labels. Its temperature, the best calibrated one on a part of the labelled
    samples that a second net was not trained on, is left to the option ``temperature``; no second net is trained.
    Before the first label, public code lets all samples count alike; here the untrained net's uncertainties count,
    which are nearly equal.

    Args:
        metric: the distance: ``euclidean`` between features, or between features scaled to length 1 (``cosine``).
        lengthscale: σ, in units of the distance; 0: the smallest distance between two different labelled samples, or
            1 where there are no two.
        uncertainty: U, ``margin`` (1 − p₍₁₎ + p₍₂₎), ``least-confidence`` (1 − max p) or ``entropy``.
        temperature: what the logits are divided by before the softmax, above 0; 1: the net's own probabilities.

    Needs: features; probabilities; labelled samples if there are any.
    Cost: O(n²·d) time, O(n²) memory up to half a gigabyte, then O(n·d) and a block.
    Source: Bae, Oliveira & Sutherland, Uncertainty Herding: One Active Learning Method for All Label Budgets (ICLR
        2025), algorithm 1.
    """
    weight = uncertainties(pool, uncertainty, temperature)
    return Selection(_herded(pool, budget, rng, metric, lengthscale, weight))


def uncertainties(pool: Pool, measure: Uncertainty, temperature: float) -> Float[Tensor, " n"]:
    """Measure the uncertainty of each sample, float32 (n,), in parts of the largest; 1 for all where all are 0."""
    if not 0 < temperature < torch.inf:
        raise InputError(f"uncertainty-herding: temperature: found {temperature}, allowed: above 0, finite")
    p = (pool.logits / temperature).softmax(1)
    if measure == "margin":
        found = 1 - margins(p)
    elif measure == "least-confidence":
        found = least_confidences(p)
    elif measure == "entropy":
        found = entropies(p)
    else:
        allowed = "margin, least-confidence, entropy"
        raise InputError(f"uncertainty-herding: uncertainty: found {measure!r}, allowed: {allowed}")
    most = found.amax() if len(found) else 0.0
    return found.clamp_min(0) / most if most > 0 else torch.ones_like(found)


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


class Kernels:
    """Coverage Σ_x U_x · max_{j∈S} k(x, j), with kernels computed when needed, in blocks. Exact. Final.

    A gain costs O(n · width), so the lazy optimiser saves time.

    Args:
        features: centred features, (n, d).
        lengthscale: σ.
        weight: (n,), U.
        service: (n,), the largest kernel with what is labelled already.
        modular: (n,), what each candidate adds by itself.
    """

    submodular = True
    incremental = False

    def __init__(self, features: Tensor, lengthscale: float, weight: Tensor, service: Tensor, modular: Tensor) -> None:
        self.device = features.device
        self._features, self._lengthscale = features, lengthscale
        self._weight, self.service, self._modular = weight, service, modular.double()

    def __len__(self) -> int:
        return len(self._features)

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Compute the gains of these candidates, or of all: float64."""
        rows = torch.arange(len(self), device=self.device) if rows is None else rows
        found = self._modular[rows]
        for part in blocks(len(rows), len(self)):
            offered = kernels(self._features, rows[part], self._lengthscale)
            found[part] += (offered.sub_(self.service).clamp_(min=0) @ self._weight).double()
        return found

    def add(self, row: Int[Tensor, ""]) -> None:
        """Cover the samples from this candidate too."""
        offered = kernels(self._features, row.reshape(1), self._lengthscale)[0]
        self.service = torch.maximum(self.service, offered)


def _herded(
    pool: Pool, budget: int, rng: torch.Generator, metric: Metric, lengthscale: float, weight: Tensor | None
) -> Tensor:
    """Choose the rows that cover the pool, each sample by its weight; None: all by 1."""
    if not 0 <= lengthscale < torch.inf:
        raise InputError(f"lengthscale: found {lengthscale}, allowed: from 0, finite")
    features = measured(pool.features, metric)
    mean = features.mean(0) if len(features) else 0
    there = features[:0] if pool.labelled is None else measured(pool.labelled.features, metric)
    sigma = lengthscale or smallest_distance(there)
    features, there = features - mean, there - mean
    service = torch.zeros(len(features), device=features.device)
    if len(there):
        service = of_squares(nearest_of(features, there)[0], sigma)
    if weight is None:
        weight = torch.ones_like(service)
    tie = TIE * pool.data.key
    if len(features) ** 2 > DENSE:
        return maximise(Kernels(features, sigma, weight, service, tie), budget, rng=rng)
    worth = features.new_empty(len(features), len(features))
    everything = torch.arange(len(features), device=features.device)
    for rows in blocks(len(features), len(features)):
        # U·max(0, k − c) = max(0, U·k − U·c): weights scale rows
        worth[rows] = kernels(features, everything[rows], sigma).mul_(weight[rows, None])
    return maximise(Dense(worth, service * weight, modular=tie), budget, rng=rng)
