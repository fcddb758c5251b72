"""Submodular selectors, and the two dispersion functions that go with them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.selectors import facilities
from clsim.selectors.functions import Concave, Concavity, DisparityMin, LogDet, Quadratic
from clsim.selectors.greedy import Optimiser, SetFunction, maximise
from clsim.selectors.similarity import Cosine, Representation, represented

Similarities = Literal["auto", "dense", "blocks", "sparse"]


def facility_location(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    representation: Representation = "features",
    similarities: Similarities = "auto",
    neighbours: int | None = None,
    clients: int | None = None,
    optimiser: Optimiser = "auto",
    epsilon: float = 0.1,
) -> Selection:
    """Keeps the samples that best stand for all others, each by the most similar of them.

    f(A) = Σ_i max_{j∈A} s_ij with s = ½ + ½·cos, at least (1 − 1/e) of the optimum where nothing is approximated.

    Args:
        representation: what the cosine is of: ``features``, which read no labels and are defined for every sample;
            ``gradients`` of the last layer at the label, as DeepCore has it; or ``hypothetical`` ones at the predicted
            label.
        similarities: ``dense``, all in memory, exact; ``blocks``, computed anew when needed, exact and slow, in O(n)
            memory; ``sparse``: only the most similar candidates of each sample count for a gain, which is exact once
            every sample is served as well as by the last of these, and too low before. ``auto``: dense up to half a
            gigabyte, else sparse.
        neighbours: of a sample, when sparse; None: four times the n / budget that a pick serves on average, at least
            64, within half a gigabyte.
        clients: so many drawn samples are to be served instead of all, when sparse or in blocks; any set's f over n
            moves by less than √(ln(2/δ) / (2·clients)) with probability 1 − δ. None: all up to 100,000, else 10,000.
        optimiser, epsilon: see :func:`clsim.selectors.greedy.maximise`.

    Needs: features.
    Cost: O(n²·d) time, O(n²) memory up to half a gigabyte, then O(n).
    Source: Wei, Iyer & Bilmes, Submodularity in Data Subset Selection and Active Learning (ICML 2015); the greedy
        bound of Nemhauser, Wolsey & Fisher (1978); the drawn clients: Mirzasoleiman et al., Distributed
        Submodular Maximization (NeurIPS 2013).
    """
    samples = represented(pool, representation)
    function = located(samples, budget, similarities, neighbours, clients, rng)
    return Selection(maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon))


def graph_cut(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    penalty: float = 0.5,
    representation: Representation = "features",
    optimiser: Optimiser = "auto",
    epsilon: float = 0.1,
) -> Selection:
    """Keeps samples that are like the whole pool and unlike each other.

    f(A) = Σ_{i∈V} Σ_{j∈A} s_ij − λ·Σ_{i∈A} Σ_{j∈A} s_ij with s = ½ + ½·cos; submodular, and monotone for λ ≤ ½.

    Args:
        penalty: λ, from 0; above ½ the choice is more spread and the greedy bound is lost.
        representation: what the cosine is of; see ``facility-location``.
        optimiser, epsilon: see :func:`clsim.selectors.greedy.maximise`.

    Needs: features.
    Cost: O(n·b·d) time, O(n) memory.
    Source: Iyer & Bilmes, Submodular Optimization with Submodular Cover and Submodular Knapsack Constraints (NeurIPS
        2013); as a coreset, Guo et al., DeepCore (DEXA 2022).
    """
    if not penalty >= 0:
        raise InputError(f"graph-cut: penalty is {penalty:g}, allowed: 0 and more")
    function = cut(represented(pool, representation), penalty)
    return Selection(maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon))


def cut(samples: Cosine, penalty: float) -> Quadratic:
    """Graph cut of these samples."""
    return Quadratic(samples.sums() - penalty * samples.diagonal(), samples.column, -2 * penalty)


def log_det(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    ridge: float = 1.0,
    representation: Representation = "features",
    optimiser: Optimiser = "auto",
    epsilon: float = 0.1,
) -> Selection:
    """Keeps samples that span a large volume: diverse ones.

    f(A) = logdet(I + S_A / λ) with s = ½ + ½·cos: submodular, and monotone with f(∅) = 0 for every λ > 0. It differs
    from logdet(S_A + λ·I) by |A|·log λ alone, so the picks are those of either. Alone, all samples
    are worth the same: the first is the one with the largest Σ_i s_ij.

    Args:
        ridge: λ; the smaller, the more exact duplicates repel each other.
        representation: what the cosine is of; see ``facility-location``.
        optimiser, epsilon: see :func:`clsim.selectors.greedy.maximise`.

    Needs: features.
    Cost: O(n·b·(d + b)) time, O(n·b) memory.
    Source: Kulesza & Taskar, Determinantal Point Processes for Machine Learning (2012); the incremental Cholesky
        factor of Chen, Zhang & Zhou, Fast Greedy MAP Inference for DPP (NeurIPS 2018), algorithm 1.
    """
    samples = represented(pool, representation)
    function, start = LogDet(samples.diagonal(), samples.column, ridge), samples.typical()
    return Selection(maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon, start=start))


def disparity_min(
    pool: Pool, budget: int, *, rng: torch.Generator, representation: Representation = "features"
) -> Selection:
    """Keeps samples of which no two are alike.

    f(A) = min_{i≠j∈A} d_ij with d = ½ − ½·cos. Neither submodular nor monotone, so it is naive greedy: the farthest
    from its nearest pick, again and again. The first is the sample with the largest Σ_j d_ij, since f does not tell
    one. √d is a metric, and the √d of the closest pair is at least half of the optimum's.

    Args:
        representation: what the cosine is of; see ``facility-location``.

    Needs: features.
    Cost: O(n·b·d) time, O(n) memory.
    Source: Dasgupta, Kumar & Ravi, Summarization Through Submodularity and Dispersion (ACL 2013); the bound of Ravi,
        Rosenkrantz & Tayi, Heuristic and Special Case Algorithms for Dispersion Problems (1994).
    """
    samples = represented(pool, representation)
    function = DisparityMin(len(samples), samples.column, samples.device)
    start = samples.sums().argmin() if len(pool) else None
    return Selection(maximise(function, budget, rng=rng, start=start))


def disparity_sum(
    pool: Pool, budget: int, *, rng: torch.Generator, representation: Representation = "features"
) -> Selection:
    """Keeps samples that are far from each other on average.

    f(A) = Σ_{i<j∈A} d_ij with d = ½ − ½·cos; supermodular, so it is naive greedy. The first is the sample with the
    largest Σ_j d_ij, since f does not tell one. It may keep several at the same far end: the sum does not mind.

    Args:
        representation: what the cosine is of; see ``facility-location``.

    Needs: features.
    Cost: O(n·b·d) time, O(n) memory.
    Source: Dasgupta, Kumar & Ravi, Summarization Through Submodularity and Dispersion (ACL 2013).
    """
    samples = represented(pool, representation)
    none = torch.zeros(len(samples), device=samples.device)
    function = Quadratic(none, lambda row: 1 - samples.column(row), 1.0)
    start = samples.sums().argmin() if len(pool) else None
    return Selection(maximise(function, budget, rng=rng, start=start))


def feature_based(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    psi: Concavity = "sqrt",
    normalise: bool = True,
    optimiser: Optimiser = "auto",
    epsilon: float = 0.1,
) -> Selection:
    """Keeps samples that together show every feature, with diminishing returns of each.

    f(A) = Σ_f ψ(Σ_{j∈A} x_jf), ψ concave, x ≥ 0: a feature's positive and negative activations count as two.

    Args:
        psi: ``sqrt``; ``log``: log(1 + x); ``inverse``: x/(1 + x), the most saturating.
        normalise: scale each sample's features to length 1 first, so that loud samples do not win by it.
        optimiser, epsilon: see :func:`clsim.selectors.greedy.maximise`.

    Needs: features.
    Cost: O(n·b·d) time at most, lazily far less, O(n·d) memory.
    Source: Kirchhoff & Bilmes, Submodularity for Data Selection in Statistical Machine Translation (EMNLP 2014).
    """
    features = F.normalize(pool.features) if normalise else pool.features
    if bool((features < 0).any()):
        features = torch.cat([features.clamp_min(0), features.neg().clamp_min(0)], 1)
    return Selection(maximise(Concave(features, psi), budget, rng=rng, optimiser=optimiser, epsilon=epsilon))


def located(
    samples: Cosine,
    budget: int,
    similarities: Similarities,
    neighbours: int | None,
    clients: int | None,
    rng: torch.Generator,
    floor: Tensor | None = None,
    cap: Tensor | None = None,
) -> SetFunction:
    """Facility location in the form that the size asks for; the arguments are those of :func:`facility_location`.

    Args:
        floor, cap: (n,), of each client; see :mod:`clsim.selectors.facilities`.
    """
    n = len(samples)
    if similarities not in ("auto", "dense", "blocks", "sparse"):
        raise InputError(f"facility-location: similarities is {similarities!r}, allowed: auto, dense, blocks, sparse")
    for name, value in (("neighbours", neighbours), ("clients", clients)):
        if value is not None and value < 1:
            raise InputError(f"facility-location: {name} is {value}, allowed: 1 and more")
    if similarities == "auto":
        similarities = "dense" if n * n <= DENSE and clients is None and neighbours is None else "sparse"
    if similarities == "dense":
        return facilities.Dense(samples.matrix(), floor, cap, symmetric=True)
    drawn, served = min(n, clients or (n if n <= 100_000 else 10_000)), samples
    if drawn < n:
        rows = torch.randperm(n, generator=rng)[:drawn].to(samples.device)
        served = samples[rows]
        floor, cap = (None if limit is None else limit[rows] for limit in (floor, cap))
    if similarities == "blocks":
        return facilities.Blocks(served, samples, floor, cap)
    count = neighbours or min(max(64, 4 * n // max(budget, 1)), max(64, SPARSE // drawn))
    return facilities.Sparse(served, samples, min(count, n), floor, cap)


DENSE = 125_000_000
"""Similarities that may be in memory at once: half a gigabyte of float32."""

SPARSE = 62_500_000
"""Similarities with their indices that may be in memory at once: half a gigabyte."""
