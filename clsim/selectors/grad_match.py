"""Gradient matching: a few weighted samples whose summed gradient matches the mean gradient of all samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import nnls
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.exemplars import of_each_class
from clsim.pool.gradients import Gradients
from clsim.pool.pool import Pool, Selection
from clsim.selectors.reference import served


def grad_match(pool: Pool, budget: int, *, rng: torch.Generator, ridge: float = 1.0) -> Selection:
    """Keep weighted samples whose gradients add up to the mean gradient.

    The problem is min_{w ≥ 0, ‖w‖₀ ≤ b} ‖Σ_i w_i g_i − ḡ‖² + λ‖w‖², with the last layer's gradients g. Orthogonal
    matching pursuit picks argmax_i ⟨g_i, ḡ − Σ_S w_j g_j⟩ and refits w on the picks. The weights that are returned are
    fitted once more under w ≥ 0 (some may be zero) and scaled so that those of a class sum to its mass. ḡ is the mean
    over the held-out samples (``pool.reference``) of each class that the pool has; a class without held-out samples
    counts with its own candidates, each by its mass. An unlabelled sample counts with its predicted label.

    Args:
        ridge: λ, the weight of ‖w‖², from 0.

    Needs: gradients of the last layer.
    Cost: O(n·b·(C + d + b)) time, O(n·b) memory.
    Source: Killamsetty et al., GRAD-MATCH: Gradient Matching Based Data Subset Selection (ICML 2021), algorithm 2,
        with one gradient per sample.
    """
    if not 0 <= ridge < np.inf:
        raise InputError(f"grad-match: ridge: found {ridge}, allowed: a finite number from 0")
    gradients = pool.gradients
    y = torch.where(pool.data.y >= 0, pool.data.y, pool.predictions)
    towards = served(pool, y)
    target = Gradients(towards.errors(towards.logits), towards.features).sum() / towards.total
    correlation = gradients.along(target)
    picks, weight = matching_pursuit(
        correlation, lambda row: gradients.inner(gradients[row]).flatten(), min(budget, len(pool)), ridge
    )
    return Selection(picks, of_each_class(weight, y[picks], pool.mass, y))


def matching_pursuit(
    correlation: Float[Tensor, " n"],
    column: Callable[[Tensor], Tensor],
    budget: int,
    ridge: float,
    *,
    nonnegative: bool = True,
) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"]]:
    """Match a target t with a few vectors g_i, given by their inner products alone: orthogonal matching pursuit.

    Each pick adds a row to the Cholesky factor of the picks' K + λI, which solves min_w ‖Σ_S w_i g_i − t‖² + λ‖w‖²:
    O(k²) for the k-th pick, and O(n·k) to correlate every candidate with the remainder of t.

    Args:
        correlation: float32 (n,), ⟨g_i, t⟩.
        column: a row's index, int64 (1,) → ⟨g_i, g_row⟩ of all i, float32 (n,).
        budget: number of picks, at most n.
        ridge: λ, from 0.
        nonnegative: whether the returned weights are fitted once more under w ≥ 0.

    Returns:
        The picks in order, int64 (budget,), and their weights, float32; all equal where every weight would be 0.

    Source: Pati, Rezaiifar & Krishnaprasad, Orthogonal Matching Pursuit (Asilomar 1993), restricted to vectors that
        point along the remainder, as w ≥ 0 asks for.
    """
    device, n = correlation.device, len(correlation)
    picks = torch.empty(budget, dtype=torch.int64, device=device)
    columns = correlation.new_empty(budget, n)
    factor = torch.zeros(budget, budget, dtype=torch.float64, device=device)
    solved = torch.zeros(budget, dtype=torch.float64, device=device)  # factor⁻¹ · ⟨g_S, t⟩
    weight = solved
    taken = torch.zeros(n, dtype=torch.bool, device=device)
    for k in range(budget):
        left = correlation - weight[:k].to(correlation.dtype) @ columns[:k]
        picks[k] = left.masked_fill_(taken, -torch.inf).argmax()
        pick = picks[k : k + 1]
        taken[pick] = True
        columns[k] = column(pick)
        known = columns[: k + 1].index_select(1, pick).double()  # ⟨g_S, g_pick⟩, itself last
        row = torch.linalg.solve_triangular(factor[:k, :k], known[:k], upper=False).flatten()
        # a pick that depends on those before has no pivot but round-off
        least = (1e-6 * known[k, 0]).clamp_min(torch.finfo(torch.float32).tiny)
        pivot = (known[k, 0] + ridge - row @ row).clamp_min(least).sqrt()
        factor[k, :k], factor[k, k] = row, pivot
        solved[k] = ((correlation[pick].double() - row @ solved[:k]) / pivot).squeeze()
        weight = _back(factor[: k + 1, : k + 1], solved[: k + 1])
    if nonnegative and budget:
        weight = nonnegative_solution(factor.T, solved)
    return picks, torch.where(weight.abs().sum() > 0, weight, 1).to(correlation.dtype)


def nonnegative_solution(matrix: Float[Tensor, "rows k"], target: Float[Tensor, " rows"]) -> Float[Tensor, " k"]:
    """Solve argmin_{w ≥ 0} ‖matrix · w − target‖: float64 (k,)."""
    w, _ = nnls(np.asarray(matrix.cpu()), np.asarray(target.cpu()), maxiter=100 * matrix.shape[1])
    return torch.from_numpy(w).to(target.device)


def _back(factor: Tensor, solved: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor.T, solved[:, None], upper=True).flatten()
