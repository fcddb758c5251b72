"""Bayesian batches: a few samples with nearly the same expected log-likelihood, over the weights, as the whole pool."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.exemplars import of_each_class
from clsim.pool.pool import Pool, Selection
from clsim.selectors.grad_match import nonnegative_solution


def acs_fw(
    pool: Pool, budget: int, *, rng: torch.Generator, projections: int = 10, entropy_weight: float = 0.7
) -> Selection:
    """Query a subset whose expected log-likelihood approximates the whole pool's, by Frank–Wolfe.

    L_n(θ) = E_{y∼p̄(y|x_n)} log p(y|x_n, θ) + γ·H(p̄_n) as a vector over J nets θ_j drawn by dropout, divided by √J; p̄
    is the mean prediction of the same nets. With σ_n = ‖L_n‖, Frank–Wolfe minimises ‖Σ_n L_n − Σ_n w_n L_n‖² over
    w ≥ 0, Σ_n w_n σ_n ≤ Σ_n σ_n, from w = 0: argmax_n ⟨L − L(w), L_n/σ_n⟩, then an exact line search. The batch is
    the support of w, in the order of its first picks.

    The support is often smaller than the budget, since Frank–Wolfe returns to samples that it has chosen. The rest is
    then chosen in the same way out of the samples left over, until the budget is spent. This top-up is ours; the paper
    queries fewer samples.

    Args:
        projections: J, the number of nets drawn by dropout.
        entropy_weight: γ, the weight of the entropy term.

    Needs: dropout passes.
    Cost: J forward passes, then O(b·n·J) time a round, O(n·J) memory.
    Source: Pinsler et al., Bayesian Batch Active Learning as Sparse Subset Approximation (NeurIPS 2019), algorithm 1
        with the projections of section 5.
    """
    likelihoods, _ = expected_log_likelihoods(pool, projections, rng, entropy_weight)
    rest = torch.arange(len(pool), device=likelihoods.device)
    picks = rest[:0]
    size = min(budget, len(pool))
    while len(picks) < size:
        chosen = frank_wolfe(likelihoods[rest], size - len(picks))[0]
        picks = torch.cat([picks, rest[chosen]])
        rest = rest[torch.ones_like(rest).index_fill_(0, chosen, 0).bool()]
    return Selection(picks)


def frank_wolfe(vectors: Float[Tensor, "n nets"], steps: int) -> tuple[Int[Tensor, " m"], Float[Tensor, " n"]]:
    """Minimise ‖Σ_n a_n − Σ_n w_n a_n‖² over w ≥ 0, Σ_n w_n‖a_n‖ ≤ Σ_n ‖a_n‖, from w = 0.

    Args:
        vectors: a, (n, J) with n ≥ 1.
        steps: number of Frank–Wolfe steps at most.

    Returns:
        The support in the order in which it grew, int64 (at most steps,), never empty if steps > 0; w, float64 (n,).
    """
    vectors = vectors.double()
    sigma = vectors.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    corners = vectors * (sigma.sum() / sigma)[:, None]  # corners of the polytope that w·a moves in
    target, point = vectors.sum(0), torch.zeros_like(vectors[0])
    weight = torch.zeros_like(sigma)
    visited = torch.empty(steps, dtype=torch.int64, device=vectors.device)
    for step in range(steps):
        best = (vectors @ (target - point) / sigma).argmax()
        towards = corners[best] - point
        length = (towards @ (target - point) / (towards @ towards).clamp_min(1e-30)).clamp(0, 1)
        weight *= 1 - length
        weight[best] += length * sigma.sum() / sigma[best]
        point = point + length * towards
        visited[step] = best
        if not (target - point).norm() > 1e-9 * target.norm():
            visited = visited[: step + 1]
            break  # the target is met
    return _first_visits(visited, len(vectors)), weight


def sparse_approximation(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    solver: Literal["iht", "greedy"] = "iht",
    projections: int = 10,
    uncertainty: float = 1.0,
    spread: float = 0.01,
    iterations: int = 100,
) -> Selection:
    """Query weighted samples that represent the pool's expected log-likelihood and are uncertain themselves.

    min over S, |S| = b, and w ≥ 0 on S, 0 elsewhere, of
    ‖Σ_n φ_n − Σ_S w_n φ_n‖² + α·(Σ_n σ_n − Σ_S σ_n)² + β·‖w − 1‖². φ_n, a vector over J nets drawn by dropout divided
    by √J, is the mean and σ_n the standard deviation, over y ∼ p̄(y|x_n), of log p(y|x_n, θ_j): the pool's expected
    log-likelihood, and its uncertainty without the labels. A candidate of mass m counts as m samples that get the
    same w: its φ and σ are m times as large. The weights that are returned, w·m, are scaled to sum to the pool's mass.

    ``greedy`` adds the sample that lowers the objective most by its own weight, then refits w on S (orthogonal matching
    pursuit with the two further terms). ``iht``, proximal iterative hard thresholding, takes a gradient step on w by
    exact line search, then keeps the b samples that the step and the linearised term of α rank highest, projected to
    w ≥ 0. It halves a step that does not lower the objective, starts from w = 0 and from w = 1, and takes the better
    result. Both solvers end with w fitted to S under w ≥ 0. The objective was written from memory: the form of φ and σ,
    the steps and all constants are unverified. β is small so that w may grow to n/b, which b samples need to stand for
    n.

    Args:
        solver: how S is searched for, ``iht`` or ``greedy``.
        projections: J, the number of nets drawn by dropout.
        uncertainty: α, the weight of the uncertainty term, from 0.
        spread: β, the weight of ‖w − 1‖², above 0.
        iterations: number of iterations of ``iht``, at least 1.

    Needs: dropout passes.
    Cost: J forward passes, then O(n·J) time a pick or an iteration and O(b³) for the weights, O(n·J) memory.
    Source: Shen et al., Batch Active Learning from the Perspective of Sparse Approximation (2022), as recalled.
    """
    if not (0 <= uncertainty < torch.inf and 0 < spread < torch.inf and iterations > 0):
        raise InputError(
            f"sparse-approximation: found uncertainty {uncertainty}, spread {spread} and iterations {iterations}, "
            "allowed: uncertainty from 0, spread above 0, both finite, iterations from 1"
        )
    mean, deviation = expected_log_likelihoods(pool, projections, rng)
    mass = pool.mass.double()
    problem = Approximation(mean.double() * mass[:, None], deviation.double() * mass, uncertainty, spread)
    size = min(budget, len(pool))
    picks = problem.greedy(size) if solver == "greedy" else problem.thresholded(size, iterations)
    alike = torch.zeros_like(picks), torch.zeros_like(pool.data.index)  # one class for all: labels may not be read
    return Selection(picks, of_each_class(problem.weights(picks) * mass[picks], alike[0], mass, alike[1]))


def expected_log_likelihoods(
    pool: Pool, projections: int, rng: torch.Generator, entropy_weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compute (E_{y∼p̄} log p(y|x_n, θ_j) + γ·H(p̄_n)) / √J, (n, J), and the deviation over y, (n,).

    The deviation is the root mean square over j. Classes that a sample cannot have do not count, and log 0 is the
    logarithm of the smallest float.
    """
    if projections < 1:
        raise InputError(f"projections: found {projections}, allowed: 1 or more")
    drawn = pool.stochastic(projections, rng)
    logs = drawn.clamp_min(torch.finfo(drawn.dtype).tiny).log()
    predictive = drawn.mean(0)
    mean = (predictive * logs).sum(2)
    deviation = (predictive * (logs - mean[:, :, None]).square()).sum(2).mean(0).sqrt()
    entropy = torch.special.entr(predictive).sum(1)
    return (mean + entropy_weight * entropy).T / projections**0.5, deviation


class Approximation:
    """The problem min over |S| = b, w ≥ 0 on S, of ‖Σφ − Σ_S w φ‖² + α(Σσ − Σ_S σ)² + β‖w − 1‖². Final.

    Args:
        vectors: φ, float64 (n, J).
        sigma: σ, float64 (n,).
        alpha, beta: α and β, the weights of the second and third term.
    """

    def __init__(self, vectors: Tensor, sigma: Tensor, alpha: float, beta: float) -> None:
        self._vectors, self._sigma, self._alpha, self._beta = vectors, sigma, alpha, beta
        self._target = vectors.sum(0)

    def value(self, picks: Int[Tensor, " m"], weight: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        """Compute the objective for w on ``picks`` and 0 elsewhere."""
        others = len(self._sigma) - len(picks)
        return (
            (self._target - weight @ self._vectors[picks]).square().sum()
            + self._alpha * self._missing(picks).square()
            + self._beta * ((weight - 1).square().sum() + others)
        )

    def weights(self, picks: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Fit the best w ≥ 0 on ``picks``."""
        if not len(picks):
            return self._sigma[:0]
        ones = self._sigma.new_ones(len(picks))
        matrix = torch.cat([self._vectors[picks].T, self._beta**0.5 * torch.diag(ones)])
        weight = nonnegative_solution(matrix, torch.cat([self._target, self._beta**0.5 * ones]))
        return torch.where(weight.sum() > 0, weight, 1)

    def greedy(self, budget: int) -> Tensor:
        """Choose rows by orthogonal matching pursuit, in the order in which they are chosen."""
        picks = torch.empty(budget, dtype=torch.int64, device=self._sigma.device)
        squares = self._vectors.square().sum(1) + self._beta
        ridge = self._beta * torch.eye(self._vectors.shape[1], dtype=squares.dtype, device=squares.device)
        left = self._target
        for k in range(budget):
            alone = (self._vectors @ left + self._beta).clamp_min(0) / squares  # best weight while the others stay
            missing = self._missing(picks[:k])
            gain = squares * alone.square() + self._alpha * (missing.square() - (missing - self._sigma).square())
            gain[picks[:k]] = -torch.inf
            picks[k] = gain.argmax()
            chosen = self._vectors[picks[: k + 1]]
            # the part of the target that the best w on the picks leaves, computed in the J dimensions of φ
            left = self._beta * torch.linalg.solve(chosen.T @ chosen + ridge, self._target - chosen.sum(0))
        return picks

    def thresholded(self, budget: int, iterations: int) -> Tensor:
        """Choose rows by proximal iterative hard thresholding, those with the largest weights first."""
        found = []
        for start in (0.0, 1.0):
            picks, _ = self.iterate(budget, iterations, start)
            weight = self.weights(picks)
            found.append((float(self.value(picks, weight)), picks[weight.argsort(descending=True, stable=True)]))
        return min(found, key=lambda one: one[0])[1]

    def iterate(self, budget: int, iterations: int, start: float) -> tuple[Tensor, Tensor]:
        """Iterate from w = ``start``; return the rows that are kept, in no order, and their weights."""
        weight = torch.full_like(self._sigma, start)
        picks, value, shorter = weight[:0].long(), torch.inf, 1.0
        for _ in range(iterations):
            slope = 2 * (self._beta * (weight - 1) - self._vectors @ (self._target - weight @ self._vectors))
            length = shorter * self._line_search(slope, picks, budget)
            tried, moved = self._projected(weight - length * slope, self._missing(picks), budget, length)
            lower = float(self.value(tried, moved[tried]))
            if lower < value:
                picks, weight, value, shorter = tried, moved, lower, 1.0
            else:
                shorter /= 2
                if shorter < 1e-6:
                    break  # no step along the slope lowers the objective
        return picks, weight[picks]

    def _line_search(self, slope: Tensor, picks: Tensor, budget: int) -> float:
        """Find the exact step against the slope, on the picks and the b other rows that it would raise most."""
        outside = slope.index_fill(0, picks, torch.inf)
        moving = torch.cat([picks, outside.argsort(stable=True)[: min(budget, len(slope) - len(picks))]])
        part = slope[moving]
        square = part.square().sum()
        curvature = (part @ self._vectors[moving]).square().sum() + self._beta * square
        return float(torch.where(square > 0, square / (2 * curvature), 1))

    def _projected(self, moved: Tensor, missing: Tensor, budget: int, length: float) -> tuple[Tensor, Tensor]:
        """Project a step to ``moved``: the b rows that rank highest, and their weights, 0 for all others, (n,)."""
        kept = moved.clamp_min(0)
        rank = kept.square() / (2 * length) + 2 * self._alpha * missing * self._sigma
        chosen = rank.argsort(descending=True, stable=True)[:budget]
        return chosen, torch.zeros_like(kept).index_copy_(0, chosen, kept[chosen])

    def _missing(self, picks: Tensor) -> Tensor:
        return self._sigma.sum() - self._sigma[picks].sum()


def _first_visits(visited: Tensor, n: int) -> Tensor:
    """List the distinct rows in the order of their first visit."""
    first = torch.full((n,), len(visited), device=visited.device)
    first.scatter_reduce_(0, visited, torch.arange(len(visited), device=visited.device), "amin")
    order = first.argsort(stable=True)
    return order[: int((first < len(visited)).sum())]
