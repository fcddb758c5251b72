"""POAL: two aims at once, without a weight between them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.reference import told
from clsim.selectors.scores import entropies, highest


def poal(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    factor: int = 6,
    draws: int = 200,
    window: int = 10,
    tolerance: float = 0.01,
    most: int = 20_000,
) -> Selection:
    """Query samples that are uncertain and yet like the known classes, as a Pareto-optimal subset.

    Subsets A of size b are to maximise (Σ_A entropy, Σ_A confidence), where confidence is minus the squared Mahalanobis
    distance to the nearest class mean, under one covariance. Pareto fronts of single samples are removed one by one
    until they hold ``factor``·b. Random subsets are drawn from these; the archive keeps the subsets that no other
    dominates. The member with the highest Σ of its samples' frequencies in the archive is chosen, the most frequent
    sample first.

    Means and covariance are those of the samples labelled already as of a class, without those labelled as of none and
    without classes that only the private set has beside a query, as outsiders that are learnt as one more class; or
    where there are no such samples, of the candidates under their predictions.

    Args:
        factor: number of samples that the fronts must hold, as a multiple of the budget.
        draws: number of subsets drawn between two comparisons of the archive.
        window: number of comparisons in a row without a larger move than ``tolerance`` after which the search stops.
        tolerance: move of the archive in maximum mean discrepancy (Gaussian kernel on standardised sums).
        most: number of subsets drawn at most.

    Needs: features, probabilities; labelled samples, if there are any.
    Cost: O(n·d² + f·n + most·factor·b) time, O(n·d + draws·factor·b) memory, for f fronts.
    Source: Zhan et al., Pareto Optimization for Active Learning under Out-of-Distribution Data Scenarios (TMLR 2023),
        algorithm 1.
    """
    at_least(1, factor=factor, draws=draws, window=window, most=most)
    budget = min(budget, len(pool))
    if not budget:
        return Selection(pool.data.y[:0])
    aims = torch.stack([entropies(pool.probabilities), confidences(pool)], 1).double()
    rows = peeled(aims, factor * budget)
    archive = non_dominated_subsets(aims[rows], budget, draws, window, tolerance, most, rng)
    frequency = archive.flatten().bincount(minlength=len(rows))
    best = archive[frequency[archive].sum(1).argmax()]
    order = highest(frequency[best].double(), budget, ties=aims[rows[best], 0])
    return Selection(rows[best[order]])


def confidences(pool: Pool) -> Float[Tensor, " n"]:
    """Compute −min_c (h − μ_c)ᵀ Σ⁻¹ (h − μ_c), (n,): large values are in distribution.

    Σ is the covariance around the class means, with a thousandth of the mean of its diagonal added to it, so that it
    can be inverted with few samples too.

    Source: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples (NeurIPS 2018), eq. 2.
    """
    known = _inside(pool) or pool
    y = pool.predictions if known is pool else known.data.y
    h = known.features.double()
    classes, which, counts = y.unique(return_inverse=True, return_counts=True)
    means = h.new_zeros(len(classes), h.shape[1]).index_add_(0, which, h) / counts[:, None]
    around = h - means[which]
    covariance = around.T @ around / len(h)
    variance = covariance.diagonal()  # a view
    variance += 1e-3 * variance.mean() + 1e-12
    root = torch.linalg.cholesky(covariance)
    x, centres = (
        torch.linalg.solve_triangular(root, points.T, upper=False).T for points in (pool.features.double(), means)
    )
    return -torch.cdist(x, centres).square().amin(1).float()


def _inside(pool: Pool) -> Pool | None:
    """Find the samples labelled already as of a class that counts; None: there are none."""
    known, avoided, wanted = told(pool), pool.private, pool.query
    if known is None or avoided is None or wanted is None:
        return known
    y = known.data.y
    rows = (~torch.isin(y, avoided.data.y) | torch.isin(y, wanted.data.y)).nonzero().flatten()
    return known if len(rows) == len(known) else known[rows] if len(rows) else None


def peeled(aims: Float[Tensor, "n 2"], least: int) -> Int[Tensor, " m"]:
    """Collect the Pareto fronts of (n, 2), where large is better, until they hold ``least`` rows, the first first."""
    rows = _by_first(aims)
    fronts, found = [], 0
    while found < least and len(rows):
        on_front = _on_front(aims[rows])
        fronts.append(rows[on_front])
        found += len(fronts[-1])
        rows = rows[~on_front]
    return torch.cat(fronts)


def non_dominated_subsets(
    aims: Tensor, budget: int, draws: int, window: int, tolerance: float, most: int, rng: torch.Generator
) -> Tensor:
    """Draw random subsets of the rows of (n, 2); keep those that no other dominates in its sums: int64 (m, budget)."""
    scale: Tensor | None = None
    archive = torch.empty(0, budget, dtype=torch.int64, device=aims.device)
    before, calm = None, 0
    for _ in range(-(-most // draws)):
        keys = torch.rand(draws, len(aims), generator=rng).to(aims.device)
        drawn = keys.topk(budget, 1).indices.sort(1).values  # in one order, so that equal subsets have equal sums
        archive = torch.cat([archive, drawn]).unique(dim=0)
        sums = aims[archive].sum(1)
        if scale is None:
            scale = sums.std(0, correction=0).clamp_min(1e-12)
        order = _by_first(sums)
        order = order[_on_front(sums[order])]
        archive, now = archive[order], sums[order] / scale
        calm = calm + 1 if before is not None and _discrepancy(before, now) <= tolerance else 0
        before = now
        if calm >= window:
            break
    return archive


def _by_first(aims: Tensor) -> Tensor:
    """Order the rows of (n, 2) by their first aim, the largest first, then by their second."""
    return highest(aims[:, 0], len(aims), ties=aims[:, 1])


def _on_front(aims: Tensor) -> Tensor:
    """Tell which rows no other row dominates, bool (n,); rows stand in the order of :func:`_by_first`."""
    first, second = aims.T
    best = second.cummax(0).values
    before = torch.cat([best.new_full((1,), -torch.inf), best[:-1]])
    same = torch.zeros_like(second, dtype=torch.bool)
    same[1:] = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
    new = second > before
    # an equal of the row before it is on the front exactly if that one is
    leader = torch.where(~same, torch.arange(len(aims), device=aims.device), 0).cummax(0).values
    return new[leader]


def _discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """Compute the maximum mean discrepancy under exp(−‖x − y‖² / 2)."""

    def mean(x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y).square_().mul_(-0.5).exp_().mean()

    return (mean(a, a) + mean(b, b) - 2 * mean(a, b)).clamp_min(0).sqrt()
