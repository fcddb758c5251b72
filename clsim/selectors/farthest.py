"""Gonzalez' farthest-first order, with the few distances that decide each pick computed exactly."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.selectors.points import Points

SMALL = 4096
"""Number of rows up to which each pick compares them all; of more rows, only those that may be the farthest."""

FEWEST, MOST = 64, 256
"""Number of rows whose distances are computed in float64 at a time, so that several picks follow; more where tied."""

ROWS, CENTRES = 1024, 256
"""Rows and centres that are compared at a time: their distances stay in the processor's cache."""


def farthest_first(
    candidates: Points, budget: int, near: Float[Tensor, " n"] | None = None, *, small: int = SMALL
) -> Int[Tensor, " m"]:
    """Order rows by Gonzalez' greedy algorithm: int64 (min(budget, n),).

    Of more than ``small`` rows, each pick is the farthest by distances in float64, and the first of equals, whatever
    the round-off of float32, the device and the number of threads. A distance to the nearest centre never rises, so a
    value computed earlier, and a bound of its round-off, bound it from above. Only rows whose bound is high are
    brought up to date with the centres that they missed, by matrix products, and only as long as their bound stays
    high. Of these, the few highest are computed in float64; they give picks for as long as the farthest is farther
    than the bound of every other row.

    Args:
        near: (n,), squared distances to the nearest centre chosen before; None: there are none.
        small: number of rows up to which float32 decides, with all rows at each pick.
    """
    n, budget = len(candidates), min(budget, len(candidates))
    if n <= max(small, 1) or not budget or not bool(candidates.squares.isfinite().all()):
        return plain_farthest_first(candidates, budget, near)
    search = _Search(candidates, budget, near)
    while search.done < budget:
        search.round()
    return search.picks


class _Search:
    """The state of a farthest-first search.

    Attributes:
        picks, done: the picks, int64 (budget,), of which ``done`` are made.
        centres, squares: the points picked, (budget, d), and their squared lengths, (budget,).
        near: (n,), squared distances to centres chosen before, or infinite.
        bound: (n,), squared distance to the nearest of the centres that a row has seen, in float32.
        upper: (n,), ``bound`` and its round-off: never below the squared distance to the nearest centre.
        seen: (n,), number of picks that ``bound`` includes.
        size, width: number of rows to bring up to date, and to compute in float64, at a time.
    """

    def __init__(self, candidates: Points, budget: int, near: Tensor | None) -> None:
        n, d = candidates.features.shape
        self.candidates, self.budget, self.done = candidates, budget, 0
        self.near = torch.full_like(candidates.squares, torch.inf) if near is None else near
        self.picks = candidates.squares.new_empty(budget, dtype=torch.int64)
        self.centres, self.squares = candidates.features.new_empty(budget, d), candidates.squares.new_empty(budget)
        self.length, self.offset = candidates.squares.sqrt(), candidates.mean.norm()
        self.bound, self.seen = self.near.clone(), torch.zeros(n, dtype=torch.int32, device=self.picks.device)
        self.upper = self._upper(self.bound, self.length)
        self.size, self.width = max(n // 16, 1), FEWEST
        if near is None:
            self._add(candidates.squares.argmin().reshape(1))
            for start in range(0, n, ROWS):
                rows = slice(start, start + ROWS)
                self._see(rows, candidates[rows], 0, 1)
            self._choose(self.picks[:1])

    def round(self) -> None:
        """Bring some rows up to date, and pick among them for as long as none of the others may be farther."""
        active, others = self._high()
        began, rows = self.done, self.candidates[active]
        while self.done < self.budget:
            upper = self.upper[active]
            width = min(self.width, len(active))
            top = upper.topk(min(width + 1, len(active)))
            rest = max(others, float(top.values[width])) if width < len(active) else others
            most, first = float(top.values[0]), active[top.indices[0]]
            if most <= others or (self.done > began and float(2 * self.bound[first] - self.upper[first]) <= others):
                break  # another row may be as far, or nearly
            before = self.done
            if most > rest:
                self._pick(active, rows, top.indices[:width].sort().values, rest)
            taken = self.done - before
            if taken:
                self._see(active, rows, before, self.done)
                self._choose(self.picks[before : self.done])
                self.width = min(max(3 * taken, FEWEST), MOST)
            elif width < len(active):
                self.width *= 4  # more rows are tied than are compared
            else:
                break
        taken, n = self.done - began, len(self.bound)
        if not taken:
            self.size = min(2 * self.size, n)
        elif taken < 32:
            self.size = min(2 * self.size, max(n // 8, self.size))
        elif taken > 128:
            self.size = max(self.size // 2, min(self.size, 512))

    def _high(self) -> tuple[Tensor, float]:
        """Find rows, in order and up to date, whose bounds are above those of all others, and the others' bound."""
        while True:
            step = max(min(len(self.upper) // 4096, self.size // 64), 1)
            some = self.upper[::step]
            level = float(some.kthvalue(max(len(some) - self.size // step, 1)).values)
            if self.size >= len(self.upper):
                level = -0.5  # all but those that are chosen
            stale = ((self.upper > level) & (self.seen < self.done)).nonzero().flatten()
            stale = stale[self.seen[stale].argsort(stable=True)]  # those that missed equally many together
            for rows in stale.split(ROWS) if len(stale) else ():
                self._catch_up(rows, level)
            active = (self.upper > level).nonzero().flatten()
            if len(active):
                return active, level
            self.size = min(2 * self.size, len(self.upper))

    def _catch_up(self, rows: Tensor, level: float) -> None:
        """Compare rows with the centres that they missed, each until its bound is down at ``level``."""
        there = self.candidates[rows]
        for first in range(int(self.seen[rows[0]]), self.done, CENTRES):
            self._see(rows, there, first, min(first + CENTRES, self.done))
            high = self.upper[rows] > level
            rows, there = rows[high], there[high]
            if not len(rows):
                return

    def _pick(self, active: Tensor, points: Tensor, places: Tensor, rest: float) -> None:
        """Pick among the active rows at ``places`` by exact distances, each farther than √``rest``."""
        rows, there = active[places], points[places]
        exact, limit = self._exact(rows), self._limit(rows)
        near = np.asarray(self._nearest(rows, there, exact, limit))
        near[np.asarray((self.upper[rows] < 0).cpu())] = CHOSEN
        close = None  # which rows a pick may come nearer to than all others; None: perhaps all
        if len(rows) <= MOST:
            close = (torch.addmm(self.candidates.squares[rows], there, there.T, alpha=-2) <= limit[:, None]).T.cpu()
        chosen: list[int] = []
        while self.done + len(chosen) < self.budget:
            best = int(near.argmax())
            if near[best] < 0 or near[best] ** 2 <= rest:
                break
            if near[best]:  # what is at no distance from a centre stays so
                nearer = np.flatnonzero(close[best]) if close is not None else np.arange(len(near))
                distance = np.asarray(_apart(exact[nearer], exact[best : best + 1])[:, 0])
                near[nearer] = np.minimum(near[nearer], distance)
            near[best] = CHOSEN
            chosen.append(best)
        self._add(rows[torch.tensor(chosen, dtype=torch.int64, device=rows.device)])

    def _limit(self, rows: Tensor) -> Tensor:
        """Compute which ‖b‖² − 2⟨a, b⟩ of a centre tells that it may be the nearest of rows a: at most this, (m,)."""
        error = self.upper[rows] - self.bound[rows]
        return self.bound[rows] + 2.5 * error - self.candidates.squares[rows]

    def _nearest(self, rows: Tensor, points: Tensor, exact: Tensor, limit: Tensor) -> Tensor:
        """Compute the distance of rows to the nearest centre in float64 (m,), on the processor."""
        found = self.near[rows].double().sqrt().cpu()
        for first in range(0, self.done, 4096):
            for some in torch.arange(len(rows), device=rows.device).split(4096):
                stop = min(first + 4096, self.done)
                apart = torch.addmm(self.squares[first:stop], points[some], self.centres[first:stop].T, alpha=-2)
                place, centre = (apart <= limit[some, None]).nonzero().T
                place, centre = some[place].cpu(), self.picks[first + centre]
                for these, those in zip(place.split(4096), centre.split(4096), strict=True):
                    distance = _apart(exact[these, None], self._exact(those)[:, None])[:, 0, 0]
                    found.scatter_reduce_(0, these, distance, "amin")
        return found

    def _see(self, rows: Tensor | slice, points: Tensor, first: int, stop: int) -> None:
        """Lower the bounds of rows by the picks from ``first`` to ``stop``."""
        products = torch.addmm(self.squares[first:stop], points, self.centres[first:stop].T, alpha=-2)
        squares = products.amin(1).add_(self.candidates.squares[rows]).clamp_min_(0)
        bound = torch.minimum(self.bound[rows], squares)
        self.bound[rows], self.seen[rows] = bound, stop
        self.upper[rows] = torch.minimum(self._upper(bound, self.length[rows]), self.upper[rows])

    def _upper(self, bound: Tensor, length: Tensor) -> Tensor:
        """Add the largest error of ‖a‖² + ‖b‖² − 2⟨a, b⟩, where ‖b‖ ≤ ‖a‖ + √bound, and that of moving to the mean."""
        unit = torch.finfo(bound.dtype).eps
        reach = bound.clamp_min(0).sqrt_().add_(length, alpha=2)
        about = reach * (self.candidates.features.shape[1] + 16) + 24 * self.offset
        return bound + (unit * reach * about + (6 * unit * self.offset) ** 2)

    def _exact(self, rows: Tensor) -> Tensor:
        """Return features in float64, not about the mean, (m, d), on the processor."""
        features = self.candidates.features[rows].double()
        scale = self.candidates.scale
        return (features if scale is None else features * scale[rows, None].double()).cpu()

    def _add(self, rows: Tensor) -> None:
        """Add picks."""
        places = slice(self.done, self.done + len(rows))
        self.picks[places], self.centres[places] = rows, self.candidates[rows]
        self.squares[places] = self.candidates.squares[rows]
        self.done += len(rows)

    def _choose(self, rows: Tensor) -> None:
        """Take rows out of the search."""
        self.bound[rows] = self.upper[rows] = CHOSEN


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Compute distances from differences, so that equal pairs are equally far wherever they stand."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


CHOSEN = -1.0
"""Stands for the squared distance of a row that is a centre: below that of its duplicates, so that none comes twice."""


def plain_farthest_first(candidates: Points, budget: int, near: Tensor | None, skipped: int = 0) -> Tensor:
    """Choose by the equation, with every row at every pick: the farthest row after ``skipped`` farther ones."""
    picks = candidates.squares.new_empty(budget, dtype=torch.int64)
    near = torch.full_like(candidates.squares, torch.inf) if near is None else near.clone()
    for i in range(budget):
        first = i == 0 and bool(near.isinf().all())
        centre = candidates.squares.argmin() if first else _farthest(near, min(skipped, len(near) - i - 1))
        picks[i] = centre
        torch.minimum(near, _squared_distances_to(candidates, centre), out=near)
        near[centre] = CHOSEN
    return picks


def _farthest(near: Tensor, skipped: int) -> Tensor:
    """Find the row of the (skipped + 1)-th largest distance; of equals, the first."""
    if not skipped:
        return near.argmax()
    return (near == near.kthvalue(len(near) - skipped).values).to(torch.uint8).argmax()


def _squared_distances_to(candidates: Points, centre: Tensor) -> Tensor:
    """Compute each row's squared distance to the centre, (n,); clamped, since round-off makes some negative."""
    products = candidates.along(candidates[centre[None]][0])
    return products.mul_(-2).add_(candidates.squares).add_(candidates.squares[centre]).clamp_min_(0)
