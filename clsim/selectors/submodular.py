"""Submodular selectors, and the two dispersion functions that go with them.

Samples that are labelled already (``pool.labelled``) count as chosen: what is maximised is f(A | L) = f(A ∪ L) − f(L).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.selectors import facilities
from clsim.selectors.distances import blocks
from clsim.selectors.functions import Concave, Concavity, DisparityMin, LogDet, Quadratic
from clsim.selectors.greedy import Optimiser, SetFunction, maximise
from clsim.selectors.similarity import Cosine, Representation, between, cosine, represented
from clsim.selectors.targets import chosen_before, eliminated, most_like, summed
from clsim.spec.kinds import Positive

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
    """Keep the samples that best stand for all others, each by the most similar of them.

    f(A) = Σ_i max_{j∈A} s_ij with s = ½ + ½·cos, at least (1 − 1/e) of the optimum where nothing is approximated.

    Args:
        representation: the vectors that the cosine compares: ``features``, which read no labels and are defined for
            every sample; ``gradients`` of the last layer at the label, as in DeepCore; or ``hypothetical`` ones at the
            predicted label.
        similarities: ``dense``: all in memory, exact. ``blocks``: computed anew when needed, exact and slow, in O(n)
            memory. ``sparse``: only the most similar candidates of each sample count for a gain, which is exact once
            every sample is served as well as by the last of these, and too low before. ``auto``: dense up to half a
            gigabyte, else sparse.
        neighbours: number of similar candidates of each sample when sparse; None: four times n / budget, the mean
            number of samples that a pick serves, at least 64, within half a gigabyte.
        clients: number of drawn samples that are served instead of all, when sparse or in blocks; any set's f over n
            moves by less than √(ln(2/δ) / (2·clients)) with probability 1 − δ. None: all up to 100,000, else 10,000.
        optimiser: how each pick is found: ``naive``; ``lazy``, which makes the same picks with fewer gains computed;
            ``stochastic`` and ``approximate-lazy``, which make others sooner; ``auto``: lazy where that saves time. See
            :func:`clsim.selectors.greedy.maximise`.
        epsilon: ε of ``stochastic`` and ``approximate-lazy``, between 0 and 1: the larger, the sooner and the farther
            from the best pick.

    Needs: features; labelled samples if there are any.
    Cost: O(n·m·d) time for m served samples, O(n²) memory up to half a gigabyte, then O(n).
    Source: Wei, Iyer & Bilmes, Submodularity in Data Subset Selection and Active Learning (ICML 2015); the greedy
        bound of Nemhauser, Wolsey & Fisher (1978); the drawn clients: Mirzasoleiman et al., Distributed
        Submodular Maximization (NeurIPS 2013).
    """
    samples, before = represented(pool, representation), chosen_before(pool, representation)
    floor = None if before is None else most_like(samples, before)
    function = located(samples, budget, similarities, neighbours, clients, rng, floor)
    return Selection(maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon))


def for_clients(
    pool: Pool,
    budget: int,
    clients: Tensor,
    *,
    rng: torch.Generator,
    similarities: Similarities = "auto",
    neighbours: int | None = None,
    optimiser: Optimiser = "auto",
    epsilon: float = 0.1,
) -> tuple[Selection, float]:
    """Choose by facility location for clients that are given, so that several choices maximise the same function.

    Args:
        clients: float32 (clients, d), features of the samples that are served.
        similarities, neighbours, optimiser, epsilon: as for :func:`facility_location`, but ``auto`` is dense up to an
            eighth of a gigabyte, else in blocks, which is exact.

    Returns:
        The picks, and the mean over the clients of max_{j∈A} s_ij, from 0 to 1.
    """
    _check(similarities, neighbours=neighbours)
    served, candidates = cosine(clients), cosine(pool.features)
    if similarities == "auto":
        similarities = "dense" if len(served) * len(candidates) <= DENSE // 4 else "blocks"
    if similarities == "dense":
        function: SetFunction = facilities.Dense(served.similarity(candidates))
    else:
        function = _serving(served, candidates, budget, similarities, neighbours)
    picks = maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon)
    return Selection(picks), mean_service(clients, pool.features[picks])


def mean_service(clients: Tensor, chosen: Tensor) -> float:
    """Compute the mean over clients, (n, d), of the similarity to the most similar of chosen features, (m, d)."""
    served, by = cosine(clients), cosine(chosen).unit()
    most = [between(served[rows].unit(), by).amax(1) for rows in blocks(len(served), len(chosen))]
    return float(torch.cat(most).double().mean())


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
    """Keep samples that are like the whole pool and unlike each other.

    f(A) = Σ_{i∈V} Σ_{j∈A} s_ij − λ·Σ_{i∈A} Σ_{j∈A} s_ij with s = ½ + ½·cos; submodular, and monotone for λ ≤ ½.

    Args:
        penalty: λ, from 0; above ½ the choice is more spread and the greedy bound is lost.
        representation: the vectors that the cosine compares; see ``facility-location``.
        optimiser: how each pick is found: ``naive``; ``lazy``, which makes the same picks with fewer gains computed;
            ``stochastic`` and ``approximate-lazy``, which make others sooner; ``auto``: lazy where that saves time. See
            :func:`clsim.selectors.greedy.maximise`.
        epsilon: ε of ``stochastic`` and ``approximate-lazy``, between 0 and 1: the larger, the sooner and the farther
            from the best pick.

    Needs: features; labelled samples if there are any.
    Cost: O(n·b·d) time, O(n) memory.
    Source: Iyer & Bilmes, Submodular Optimization with Submodular Cover and Submodular Knapsack Constraints (NeurIPS
        2013); as a coreset, Guo et al., DeepCore (DEXA 2022).
    """
    if not penalty >= 0:
        raise InputError(f"graph-cut: penalty is {penalty:g}, allowed: 0 and more")
    samples, before = represented(pool, representation), chosen_before(pool, representation)
    function = cut(samples, penalty, None if before is None else 2 * penalty * summed(samples, before))
    return Selection(maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon))


def cut(samples: Cosine, penalty: float, avoided: Tensor | None = None) -> Quadratic:
    """Make the graph cut function of these samples, where each loses ``avoided``, (n,), if given."""
    alone = samples.sums() - penalty * samples.diagonal()
    return Quadratic(alone if avoided is None else alone - avoided, samples.column, -2 * penalty)


def log_det(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    ridge: Positive = 1.0,
    representation: Representation = "features",
    optimiser: Optimiser = "auto",
    epsilon: float = 0.1,
) -> Selection:
    """Keep diverse samples: those that span a large volume.

    f(A) = logdet(I + S_A / λ) with s = ½ + ½·cos: submodular, and monotone with f(∅) = 0 for every λ > 0. It differs
    from logdet(S_A + λ·I) by |A|·log λ alone, so both choose the same samples. All samples alone have the same value;
    without labelled samples the first pick is the one with the largest Σ_i s_ij. Of more than 1,000 labelled samples
    1,000 drawn ones count.

    Args:
        ridge: λ, above 0; the smaller it is, the more exact duplicates repel each other.
        representation: the vectors that the cosine compares; see ``facility-location``.
        optimiser: how each pick is found: ``naive``; ``lazy``, which makes the same picks with fewer gains computed;
            ``stochastic`` and ``approximate-lazy``, which make others sooner; ``auto``: lazy where that saves time. See
            :func:`clsim.selectors.greedy.maximise`.
        epsilon: ε of ``stochastic`` and ``approximate-lazy``, between 0 and 1: the larger, the sooner and the farther
            from the best pick.

    Needs: features; labelled samples if there are any.
    Cost: O(n·b·(d + b)) time, O(n·b) memory.
    Source: Kulesza & Taskar, Determinantal Point Processes for Machine Learning (2012); the incremental Cholesky
        factor of Chen, Zhang & Zhou, Fast Greedy MAP Inference for DPP (NeurIPS 2018), algorithm 1.
    """
    samples, before = represented(pool, representation), chosen_before(pool, representation, rng)
    function = LogDet(samples.diagonal(), samples.column, ridge, eliminated(samples, ridge, (before, 1.0)))
    start = samples.typical() if before is None else None
    return Selection(maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon, start=start))


def disparity_min(
    pool: Pool, budget: int, *, rng: torch.Generator, representation: Representation = "features"
) -> Selection:
    """Keep samples of which no two are alike.

    f(A) = min_{i≠j∈A} d_ij with d = ½ − ½·cos is neither submodular nor monotone, so the naive greedy optimiser is
    used: each pick is the sample farthest from its nearest pick. f of a single sample is 0, so the first pick is the
    one with the largest Σ_j d_ij. √d is a metric, and the √d of the closest pair is at least half of the optimum's.

    Args:
        representation: the vectors that the cosine compares; see ``facility-location``.

    Needs: features; labelled samples if there are any.
    Cost: O(n·b·d) time, O(n) memory.
    Source: Dasgupta, Kumar & Ravi, Summarization Through Submodularity and Dispersion (ACL 2013); the bound of Ravi,
        Rosenkrantz & Tayi, Heuristic and Special Case Algorithms for Dispersion Problems (1994).
    """
    samples, before = represented(pool, representation), chosen_before(pool, representation)
    near = None if before is None else (1 - most_like(samples, before)).clamp_min(0)
    function = DisparityMin(len(samples), samples.column, samples.device, near)
    start = samples.sums().argmin() if len(pool) and before is None else None
    return Selection(maximise(function, budget, rng=rng, start=start))


def disparity_sum(
    pool: Pool, budget: int, *, rng: torch.Generator, representation: Representation = "features"
) -> Selection:
    """Keep samples that are far from each other on average.

    f(A) = Σ_{i<j∈A} d_ij with d = ½ − ½·cos is supermodular, so the naive greedy optimiser is used. f of a single
    sample is 0, so the first pick is the one with the largest Σ_j d_ij. Picks may be near each other, since the sum
    only asks for a large mean distance.

    Args:
        representation: the vectors that the cosine compares; see ``facility-location``.

    Needs: features; labelled samples if there are any.
    Cost: O(n·b·d) time, O(n) memory.
    Source: Dasgupta, Kumar & Ravi, Summarization Through Submodularity and Dispersion (ACL 2013).
    """
    samples, before = represented(pool, representation), chosen_before(pool, representation)
    alone = torch.zeros(len(samples), device=samples.device)
    if before is not None:
        alone = len(before) - summed(samples, before)
    function = Quadratic(alone, lambda row: 1 - samples.column(row), 1.0)
    start = samples.sums().argmin() if len(pool) and before is None else None
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
    """Keep samples that together show every feature, with diminishing returns of each.

    f(A) = Σ_f ψ(Σ_{j∈A} x_jf), ψ concave, x ≥ 0: a feature's positive and negative activations count as two.

    Args:
        psi: ψ, ``sqrt``, ``log`` (log(1 + x)) or ``inverse`` (x/(1 + x)), which saturates most.
        normalise: whether each sample's features are scaled to length 1 first, so that large features do not decide.
        optimiser: how each pick is found: ``naive``; ``lazy``, which makes the same picks with fewer gains computed;
            ``stochastic`` and ``approximate-lazy``, which make others sooner; ``auto``: lazy where that saves time. See
            :func:`clsim.selectors.greedy.maximise`.
        epsilon: ε of ``stochastic`` and ``approximate-lazy``, between 0 and 1: the larger, the sooner and the farther
            from the best pick.

    Needs: features; labelled samples if there are any.
    Cost: O(n·b·d) time at most, lazily far less, O(n·d) memory.
    Source: Kirchhoff & Bilmes, Submodularity for Data Selection in Statistical Machine Translation (EMNLP 2014).
    """
    found = [pool.features, *([] if pool.labelled is None else [pool.labelled.features])]
    found = [F.normalize(features) for features in found] if normalise else found
    if any(bool((features < 0).any()) for features in found):
        found = [torch.cat([features.clamp_min(0), features.neg().clamp_min(0)], 1) for features in found]
    function = Concave(found[0], psi, before=None if len(found) == 1 else found[1].sum(0, dtype=torch.float64))
    return Selection(maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon))


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
    """Make facility location in the form that suits the size; arguments as for :func:`facility_location`.

    Args:
        floor, cap: (n,), the floor and the cap of each client; see :mod:`clsim.selectors.facilities`.
    """
    _check(similarities, neighbours=neighbours, clients=clients)
    n = len(samples)
    if similarities == "auto":
        similarities = "dense" if n * n <= DENSE and clients is None and neighbours is None else "sparse"
    if similarities == "dense":
        return facilities.Dense(samples.matrix(), floor, cap, symmetric=True)
    drawn, served = min(n, clients or (n if n <= 100_000 else 10_000)), samples
    if drawn < n:
        rows = torch.randperm(n, generator=rng)[:drawn].to(samples.device)
        served = samples[rows]
        floor, cap = (None if limit is None else limit[rows] for limit in (floor, cap))
    return _serving(served, samples, budget, similarities, neighbours, floor, cap)


def _check(similarities: str, **counts: int | None) -> None:
    """Refuse similarities that there are not, and counts below 1."""
    if similarities not in ("auto", "dense", "blocks", "sparse"):
        raise InputError(f"facility-location: similarities is {similarities!r}, allowed: auto, dense, blocks, sparse")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InputError(f"facility-location: {name} is {value}, allowed: 1 and more")


def _serving(
    served: Cosine,
    samples: Cosine,
    budget: int,
    similarities: Similarities,
    neighbours: int | None,
    floor: Tensor | None = None,
    cap: Tensor | None = None,
) -> SetFunction:
    """Make facility location without all similarities in memory: ``blocks``, else sparse."""
    n = len(samples)
    if similarities == "blocks":
        return facilities.Blocks(served, samples, floor, cap)
    count = neighbours or min(max(64, 4 * n // max(budget, 1)), max(64, SPARSE // len(served)))
    return facilities.Sparse(served, samples, min(count, n), floor, cap)


DENSE = 125_000_000
"""Number of similarities that may be in memory at once: half a gigabyte of float32."""

SPARSE = 62_500_000
"""Number of similarities, with their indices, that may be in memory at once: half a gigabyte."""
