"""Greedy maximisation of set functions, for all selectors that maximise one.

A set function computes the gain of each candidate and adds a candidate; the optimiser decides which gains it asks for.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError

Optimiser = Literal["auto", "naive", "lazy", "stochastic", "approximate-lazy"]
"""How to look for the best next candidate; see :func:`maximise`."""


@runtime_checkable
class SetFunction(Protocol):
    """A function f over subsets of n candidates, at the set A of those added so far, at first none.

    Attributes:
        submodular: whether a candidate's gain never rises as A grows, which the lazy optimisers rely on.
        incremental: whether all gains are available at no cost, since every addition updates them.
        device: the device of rows and gains.
    """

    submodular: bool
    incremental: bool
    device: torch.device

    def __len__(self) -> int:
        """Return n, the number of candidates."""

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Compute f(A ∪ {j}) − f(A) of these candidates j outside A, or of all n: float64; read-only."""

    def add(self, row: Int[Tensor, ""]) -> None:
        """Set A ← A ∪ {row}, for an int64 scalar."""


def maximise(
    function: SetFunction,
    budget: int,
    *,
    rng: torch.Generator,
    optimiser: Optimiser = "auto",
    epsilon: float = 0.1,
    start: Tensor | None = None,
) -> Tensor:
    """Choose greedily: each time the candidate with the largest gain, the earlier one of equals.

    For a monotone submodular function with f(∅) = 0, naive and lazy reach at least (1 − 1/e) · optimum (Nemhauser,
    Wolsey & Fisher, 1978), stochastic at least (1 − 1/e − ε) of it on average.

    Args:
        budget: number of picks, at most n; all of them are returned, even where gains are negative.
        rng: draws the candidates of ``stochastic``; nothing else is random.
        optimiser: ``naive`` computes all gains each time. ``lazy`` computes only the gains of candidates whose last
            known gain, an upper bound, still exceeds the best known one; the picks are the same. ``approximate-lazy``
            accepts a candidate with at least 1 − ε of the largest bound, and reaches at least 1 − exp(ε − 1) of the
            optimum. ``stochastic`` compares (n/budget)·ln(1/ε) drawn candidates. ``auto`` is lazy where that saves
            time and the function is submodular, else naive.
        epsilon: ε of ``stochastic`` and ``approximate-lazy``, between 0 and 1.
        start: the first pick, where all candidates alone have the same value; None: the largest gain.

    Returns:
        The picks in the order of selection, int64 (min(budget, n),).

    Raises:
        InputError: for a lazy optimiser of a function that is not submodular, or an ε that is not between 0 and 1.

    Source: Minoux, Accelerated Greedy Algorithms for Maximizing Submodular Set Functions (1978); Mirzasoleiman et
    al., Lazier Than Lazy Greedy (AAAI 2015), algorithm 1, drawn with replacement as its analysis does; Wei, Iyer &
    Bilmes, Fast Multi-stage Submodular Maximization (ICML 2014), for the approximate form.
    """
    if optimiser == "auto":
        optimiser = "lazy" if function.submodular and not function.incremental else "naive"
    if optimiser not in ("naive", "lazy", "stochastic", "approximate-lazy"):
        allowed = "auto, naive, lazy, stochastic, approximate-lazy"
        raise InputError(f"selector: optimiser is {optimiser!r}, allowed: {allowed}")
    if "lazy" in optimiser and not function.submodular:
        raise InputError(
            f"selector: the optimiser {optimiser!r} needs a submodular function; allowed: naive, stochastic"
        )
    if not 0 < epsilon < 1:
        raise InputError(f"selector: epsilon is {epsilon:g}, allowed: above 0 and below 1")
    budget = min(budget, len(function))
    if not budget:
        return torch.empty(0, dtype=torch.int64, device=function.device)
    if optimiser == "naive":
        return _naive(function, budget, start)
    if optimiser == "stochastic":
        return _stochastic(function, budget, start, rng, epsilon)
    return _lazy(function, budget, start, 0.0 if optimiser == "lazy" else epsilon)


def _naive(function: SetFunction, budget: int, start: Tensor | None) -> Tensor:
    taken = torch.zeros(len(function), dtype=torch.bool, device=function.device)
    picks = torch.empty(budget, dtype=torch.int64, device=function.device)
    for i in range(budget):
        best = _finite(function.gains()).masked_fill_(taken, -torch.inf).argmax() if i or start is None else start
        picks[i] = best
        taken[best] = True
        if i + 1 < budget:
            function.add(best)
    return picks


def _lazy(function: SetFunction, budget: int, start: Tensor | None, slack: float) -> Tensor:
    """Keep earlier gains as bounds; recompute the largest, in batches, until a known gain exceeds all bounds."""
    bounds = _finite(function.gains()).clone()
    asked = torch.zeros(len(bounds), dtype=torch.int64, device=bounds.device)  # the step of the last gain
    picks = torch.empty(budget, dtype=torch.int64, device=bounds.device)
    for i in range(budget):
        width, best = 16, bounds.argmax() if i or start is None else start
        while i and not bool(asked[best] == i):
            top = bounds.topk(min(width, len(bounds)))
            candidates = top.indices[(asked[top.indices] < i) & (top.values > -torch.inf)]
            candidates = torch.cat([candidates, best.reshape(1)]).unique()
            bounds[candidates] = _finite(function.gains(candidates))
            asked[candidates] = i
            best, width = bounds.argmax(), width * 2
            if slack:  # accept the best known gain if it is close to the largest bound
                known = torch.where(asked == i, bounds, -torch.inf).argmax()
                best = torch.where(bounds[known] >= bounds[best] - slack * bounds[best].abs(), known, best)
        picks[i] = best
        bounds[best] = -torch.inf
        if i + 1 < budget:
            function.add(best)
    return picks


def _stochastic(
    function: SetFunction, budget: int, start: Tensor | None, rng: torch.Generator, epsilon: float
) -> Tensor:
    n = len(function)
    left = torch.arange(n, device=function.device)
    size = min(n, math.ceil(n / budget * math.log(1 / epsilon)))
    picks = torch.empty(budget, dtype=torch.int64, device=left.device)
    for i in range(budget):
        if i or start is None:
            places = torch.randint(n - i, (size,), generator=rng).to(left.device)
            rows, first = left[places].unique(return_inverse=True)
            best = _finite(function.gains(rows)).argmax()
            place = places[(first == best).byte().argmax()]
        else:
            place = start
        picks[i] = left[place]
        left[place] = left[n - i - 1]
        if i + 1 < budget:
            function.add(picks[i])
    return picks


def _finite(gains: Tensor) -> Tensor:
    """Copy the gains, with NaN replaced by the lowest number, which is above the −inf of rows that are taken."""
    return gains.nan_to_num(torch.finfo(gains.dtype).min)
