"""Set functions besides facility location. Unless a class says otherwise, additions update all gains, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError
from clsim.selectors.greedy import SetFunction

Column = Callable[[Tensor], Tensor]
"""Columns of a similarity s: the row of a candidate → its similarities with all candidates, (n,)."""

Concavity = Literal["sqrt", "log", "inverse"]
"""ψ(x): √x, log(1 + x), or 1 − 1/(1 + x) = x/(1 + x)."""


class Quadratic:
    """The function Σ_{j∈A} alone_j + together · Σ_{{i,j}⊆A, i≠j} s_ij; O(n) memory. Final.

    Each addition computes one column of s. The function is submodular where ``together`` ≤ 0, since s ≥ 0. Graph cut
    and disparity-sum (which is supermodular) have this form.

    Args:
        alone: (n,), the value of each candidate by itself.
        column: computes a column of s.
        together: the factor of the similarities between chosen candidates.
    """

    incremental = True

    def __init__(self, alone: Tensor, column: Column, together: float) -> None:
        self.device = alone.device
        self.submodular = together <= 0
        self._gains, self._column, self._together = alone.double(), column, together

    def __len__(self) -> int:
        return len(self._gains)

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Of these candidates, or of all: float64."""
        return self._gains if rows is None else self._gains[rows]

    def add(self, row: Int[Tensor, ""]) -> None:
        """Add a candidate: each other one now makes one more pair."""
        if self._together:
            self._gains = self._gains.add(self._column(row), alpha=self._together)


class Concave:
    """The function Σ_f ψ(Σ_{j∈A} x_jf) + Σ_{j∈A} modular_j over features f. Final.

    It is monotone submodular for x, modular ≥ 0. Gains are computed when needed, O(width) each, so the lazy optimisers
    save time.

    Args:
        x: (n, width), the features of each candidate, from 0.
        concavity: the name of ψ.
        modular: (n,), the modular part of each candidate; None: 0.
        before: (width,), the features of samples that count as chosen, summed; None: there are none.
    """

    submodular = True
    incremental = False

    def __init__(
        self, x: Tensor, concavity: Concavity, modular: Tensor | None = None, before: Tensor | None = None
    ) -> None:
        self.device = x.device
        self._x, self._psi = x, concave(concavity)
        self._modular = x.new_zeros(len(x), dtype=torch.float64) if modular is None else modular.double()
        self._mass = x.new_zeros(x.shape[1], dtype=torch.float64) if before is None else before.double()

    def __len__(self) -> int:
        return len(self._x)

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Of these candidates, or of all: float64."""
        rows = torch.arange(len(self), device=self.device) if rows is None else rows
        now = self._psi(self._mass)
        size = max(1, (1 << 20) // max(self._x.shape[1], 1))
        parts = [(self._psi(self._mass + self._x[part]) - now).sum(1) for part in rows.split(size)]
        return torch.cat(parts) + self._modular[rows]

    def add(self, row: Int[Tensor, ""]) -> None:
        """Add a candidate's features to the sums."""
        self._mass = self._mass + self._x[row]


def concave(name: Concavity) -> Callable[[Tensor], Tensor]:
    """Return the function ψ of a name.

    Raises:
        InputError: if no function has that name.
    """
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "sqrt": lambda x: x.clamp_min(0).sqrt(),
        "log": torch.log1p,
        "inverse": lambda x: x / (1 + x),
    }
    if name not in known:
        raise InputError(f"selector: psi is {name!r}, allowed: {', '.join(known)}")
    return known[name]


class LogDet:
    """The function logdet(M_A + ridge·I) with M = S − W·Wᵀ, by an incremental Cholesky factorisation. Final.

    The gain of j is the logarithm of its residual M_jj + ridge − ‖c_j‖², where c_j is j's row of the factor so far. An
    addition adds a column to the factor: O(n·|A|) time, O(n·budget) memory. The function has f(∅) = 0; it is submodular
    for positive semidefinite M, and monotone for ridge ≥ 1.

    Args:
        diagonal: (n,), the diagonal of S.
        column: computes a column of S.
        ridge: what is added to the diagonal, above 0.
        before: W, (n, p), which eliminates the samples that S is conditioned on; None: there are none.
    """

    submodular = True
    incremental = True

    def __init__(self, diagonal: Tensor, column: Column, ridge: float, before: Tensor | None = None) -> None:
        if not ridge > 0:
            raise InputError(f"selector: ridge is {ridge:g}, allowed: above 0")
        self.device = diagonal.device
        self._residual, self._column = diagonal.double() + ridge, column
        self._factor, self._used = self._residual.new_empty(0, len(diagonal)), 0  # a column of the factor is a row here
        if before is not None and before.shape[1]:
            self._factor, self._used = before.T.double().contiguous(), before.shape[1]
            self._residual = self._residual - self._factor.square().sum(0)
        self._least = torch.finfo(torch.float64).eps * ridge  # round-off leaves a residual of at most this

    def __len__(self) -> int:
        return len(self._residual)

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Of these candidates, or of all: float64."""
        residual = self._residual if rows is None else self._residual[rows]
        return residual.clamp_min(self._least).log()

    def add(self, row: Int[Tensor, ""]) -> None:
        """Eliminate a candidate from all residuals."""
        if self._used == len(self._factor):
            room = self._factor.new_empty(max(64, 2 * self._used), len(self))
            room[: self._used] = self._factor
            self._factor = room
        factor = self._factor[: self._used]
        new = self._column(row).double() - factor[:, row] @ factor
        new /= self._residual[row].clamp_min(self._least).sqrt()
        self._factor[self._used] = new
        self._used += 1
        self._residual = self._residual - new.square()


class Difference:
    """The function first(A) − second(A) of two set functions over the same candidates; not submodular. Final."""

    submodular = False

    def __init__(self, first: SetFunction, second: SetFunction) -> None:
        self.device, self._parts = first.device, (first, second)
        self.incremental = first.incremental and second.incremental

    def __len__(self) -> int:
        return len(self._parts[0])

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Of these candidates, or of all: float64."""
        return self._parts[0].gains(rows) - self._parts[1].gains(rows)

    def add(self, row: Int[Tensor, ""]) -> None:
        """Add a candidate to both functions."""
        for part in self._parts:
            part.add(row)


class DisparityMin:
    """The function min_{i≠j∈A} (1 − s_ij), 0 while A has fewer than two; neither submodular nor monotone. Final.

    Args:
        n: number of candidates.
        column: computes a column of s.
        device: where gains are computed.
        near: (n,), each candidate's distance to the nearest of samples that count as chosen, whose own distances do not
            count; None: there are none.
    """

    submodular = False
    incremental = True

    def __init__(self, n: int, column: Column, device: torch.device, near: Tensor | None = None) -> None:
        self.device, self._column, self._size = device, column, int(near is not None)
        self._near = torch.full((n,), torch.inf, dtype=torch.float64, device=device) if near is None else near.double()
        self._value = torch.zeros((), dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return len(self._near)

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Of these candidates, or of all: float64."""
        near = self._near if rows is None else self._near[rows]
        if self._size < 2:
            return near if self._size else torch.zeros_like(near)
        return torch.minimum(near, self._value) - self._value

    def add(self, row: Int[Tensor, ""]) -> None:
        """Add a candidate, whose distances now count."""
        if self._size:
            self._value = self._near[row] if self._size == 1 else torch.minimum(self._value, self._near[row])
        self._near = torch.minimum(self._near, (1 - self._column(row).double()).clamp_min(0))
        self._size += 1
