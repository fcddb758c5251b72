"""Facility location: every client is served by the most similar of the chosen candidates.

The function is Σ_i max(min(max_{j∈A} s_ij, cap_i) − floor_i, 0) + Σ_{j∈A} modular_j over clients i, with s ≥ 0 and
floor ≥ 0; without floors, caps and a modular part it is facility location itself. A client's service is c_i, at first
floor_i; the gain of a candidate is Σ_i max(min(s_ij, cap_i) − c_i, 0) + modular_j. There are three classes for three
sizes of problem, all monotone submodular.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.selectors.distances import in_a_block
from clsim.selectors.similarity import BLOCK, Cosine, between, neighbours


class Dense:
    """Facility location with all similarities in memory; every addition updates all gains. Final.

    When the service of a client rises from c to c′, the gain of j falls by clamp(s_ij, c, c′) − c. Only clients whose
    service changes are visited: about n·log k of them in all, where computing all gains anew would visit n·k.

    Args:
        similarity: (clients, n), s; if it is ``symmetric``, its rows are read in place of its columns, which is faster.
        floor, cap: (clients,), the floor and the cap of each client; None: there are none.
        modular: (n,), the modular part of each candidate; None: 0.
    """

    submodular = True
    incremental = True

    def __init__(
        self,
        similarity: Tensor,
        floor: Tensor | None = None,
        cap: Tensor | None = None,
        modular: Tensor | None = None,
        symmetric: bool = False,
    ) -> None:
        m, n = similarity.shape
        self._offers = similarity if symmetric else similarity.T
        self.device = similarity.device
        self.service = similarity.new_zeros(m) if floor is None else floor.to(similarity.dtype)
        self._s, self._cap = similarity, None if cap is None else cap.to(similarity.dtype)
        self._gains = similarity.new_zeros(n, dtype=torch.float64) if modular is None else modular.double()
        self._rows = max(1, min(m, BLOCK // max(n, 1)))  # clients at a time
        self._block = similarity.new_empty(self._rows, n)
        for start in range(0, m, self._rows):
            rows = slice(start, start + self._rows)
            worth = similarity[rows]
            if self._cap is not None:
                worth = torch.minimum(worth, self._cap[rows, None])
            if floor is not None:
                worth = worth - self.service[rows, None]
            if floor is not None or cap is not None:
                worth = worth.clamp(min=0)
            # not by a product with ones: that may round equal columns apart, and break ties otherwise
            self._gains = self._gains + worth.sum(0).double()

    def __len__(self) -> int:
        return self._s.shape[1]

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Return the gains of these candidates, or of all: float64."""
        return self._gains if rows is None else self._gains[rows]

    def add(self, row: Int[Tensor, ""]) -> None:
        """Serve the clients from this candidate too."""
        offered = self._offers[row].contiguous()
        if self._cap is not None:
            offered = torch.minimum(offered, self._cap)
        served = (offered > self.service).nonzero().flatten()
        for part in served.split(self._rows):
            low, high = self.service[part, None], offered[part, None]
            block = torch.index_select(self._s, 0, part, out=self._block[: len(part)])
            torch.minimum(block, high, out=block)
            torch.maximum(block, low, out=block)
            self._gains -= block.sub_(low).sum(0)
        self.service = torch.maximum(self.service, offered)


class Blocks:
    """Facility location with similarities computed when needed, in blocks. Exact, O(clients) memory. Final.

    A gain costs O(clients · width), so the lazy and stochastic optimisers save time.
    """

    submodular = True
    incremental = False

    def __init__(
        self, clients: Cosine, candidates: Cosine, floor: Tensor | None = None, cap: Tensor | None = None
    ) -> None:
        self.device = clients.device
        self.service = clients.scales[0].new_zeros(len(clients)) if floor is None else floor
        self._cap = cap
        self._unit, self._candidates = clients.unit(), candidates

    def __len__(self) -> int:
        return len(self._candidates)

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Return the gains of these candidates, or of all: float64."""
        rows = torch.arange(len(self), device=self.device) if rows is None else rows
        size = max(1, in_a_block() // max(len(self.service), 1))
        found = [self._similar(part).sub_(self.service).clamp_(min=0).sum(1).double() for part in rows.split(size)]
        return torch.cat(found)

    def add(self, row: Int[Tensor, ""]) -> None:
        """Serve the clients from this candidate too."""
        self.service = torch.maximum(self.service, self._similar(row.reshape(1))[0])

    def _similar(self, rows: Tensor) -> Tensor:
        offered = between(self._candidates[rows].unit(), self._unit)
        return offered if self._cap is None else torch.minimum(offered, self._cap, out=offered)


class Sparse:
    """Facility location with only the most similar candidates of each client. O(clients · count) memory. Final.

    The service of a client by the chosen candidates is exact. A gain leaves out clients that do not have the candidate
    among their ``count`` most similar: it is a lower bound, and exact as soon as every client is served at least as
    well as by the last of these, which takes about n / count well spread picks.
    """

    submodular = True
    incremental = True

    def __init__(
        self,
        clients: Cosine,
        candidates: Cosine,
        count: int,
        floor: Tensor | None = None,
        cap: Tensor | None = None,
    ) -> None:
        self.device = clients.device
        self.service = clients.scales[0].new_zeros(len(clients)) if floor is None else floor
        self._cap = cap
        self._unit, self._candidates = clients.unit(), candidates
        self._s, self._of = neighbours(clients, candidates, count)
        self._gains = self.service.new_zeros(len(candidates), dtype=torch.float64)
        self._rows = max(1, (1 << 20) // count)
        for start in range(0, len(clients), self._rows):
            rows = slice(start, start + self._rows)
            if cap is not None:
                torch.minimum(self._s[rows], cap[rows, None], out=self._s[rows])
            worth = (self._s[rows] - self.service[rows, None]).clamp_(min=0)
            self._gains.index_add_(0, self._of[rows].flatten(), worth.double().flatten())

    def __len__(self) -> int:
        return len(self._candidates)

    def gains(self, rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " _"]:
        """Return the gains of these candidates, or of all: float64."""
        return self._gains if rows is None else self._gains[rows]

    def add(self, row: Int[Tensor, ""]) -> None:
        """Serve the clients from this candidate too."""
        offered = between(self._candidates[row.reshape(1)].unit(), self._unit)[0]
        if self._cap is not None:
            offered = torch.minimum(offered, self._cap)
        served = (offered > self.service).nonzero().flatten()
        for part in served.split(self._rows):
            low, high = self.service[part, None], offered[part, None]
            lost = torch.maximum(torch.minimum(self._s[part], high), low).sub_(low)
            self._gains.index_add_(0, self._of[part].flatten(), lost.double().flatten(), alpha=-1)
        self.service = torch.maximum(self.service, offered)
