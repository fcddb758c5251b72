"""Similarities of samples, computed in blocks: the n × n matrix is only written out on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.pool.pool import Pool
from clsim.selectors.distances import in_a_block

Representation = Literal["features", "gradients", "hypothetical"]
"""The representation by which samples are compared.

``features``: those of the penultimate layer; no label is read. ``gradients``: last-layer gradients at the label where
there is one, as in DeepCore. ``hypothetical``: last-layer gradients at the predicted label, for acquisitions.
"""

BLOCK = 1 << 18
"""Number of similarities in a block that is processed at once: it fits a core's cache."""


@dataclass(frozen=True)
class Cosine:
    """Samples with the similarity s_ij = ½ + ½·cos(φ_i, φ_j), between 0 and 1; the cosine with a zero vector is 0.

    φ is one vector per sample, or the outer product of two, whose cosine is the product of the two cosines.

    Attributes:
        factors: the one or two vectors of each sample, (n, d) each, of any length.
        scales: the reciprocal lengths of these vectors, (n,) each; 0 for a zero vector.
    """

    factors: tuple[Tensor, ...]
    scales: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.factors[0])

    def __getitem__(self, rows: Tensor | slice) -> Cosine:
        return Cosine(tuple(f[rows] for f in self.factors), tuple(s[rows] for s in self.scales))

    def joined(self, other: Cosine) -> Cosine:
        """Join other samples behind these."""
        factors = tuple(torch.cat(pair) for pair in zip(self.factors, other.factors, strict=True))
        return Cosine(factors, tuple(torch.cat(pair) for pair in zip(self.scales, other.scales, strict=True)))

    @property
    def device(self) -> torch.device:
        """The device of the factors."""
        return self.factors[0].device

    def unit(self) -> tuple[Tensor, ...]:
        """Write out the factors at length 1; a single factor as [φ, 1]/√2, whose inner products are s itself."""
        scaled = [f * s[:, None] for f, s in zip(self.factors, self.scales, strict=True)]
        if len(scaled) == 1:
            scaled = [torch.cat([scaled[0], scaled[0].new_ones(len(self), 1)], 1).mul_(0.5**0.5)]
        return tuple(scaled)

    def similarity(self, other: Cosine) -> Float[Tensor, "n m"]:
        """Compute s of all pairs, (n, m), written out: only for small n × m."""
        return between(self.unit(), other.unit())

    def column(self, row: Int[Tensor, ""]) -> Float[Tensor, " n"]:
        """Compute s of one sample with all, (n,), without a copy."""
        along = [f @ f[row] * scale * scale[row] for f, scale in zip(self.factors, self.scales, strict=True)]
        return (1 + torch.stack(along).prod(0)) / 2

    def diagonal(self) -> Float[Tensor, " n"]:
        """Compute s of each sample with itself, (n,): 1, but ½ for a zero vector."""
        return (1 + torch.stack(self.scales).gt(0).all(0).to(self.scales[0].dtype)) / 2

    def typical(self) -> Int[Tensor, ""] | None:
        """Find the sample with the largest Σ_i s_ij, not a zero vector: the first pick where all alone are equal."""
        if not len(self):
            return None
        diagonal = self.diagonal()
        return self.sums().masked_fill(diagonal < diagonal.max(), -torch.inf).argmax()

    def matrix(self) -> Float[Tensor, "n n"]:
        """Compute all of s, (n, n), symmetric to the last bit: each block is computed once and mirrored."""
        n, size, unit = len(self), 512, self.unit()
        whole = unit[0].new_empty(n, n)
        for start in range(0, n, size):
            stop = min(start + size, n)
            block = whole[start:stop, start:]
            if len(unit) == 1:
                torch.mm(unit[0][start:stop], unit[0][start:].T, out=block)  # in its place: nothing is copied
            else:
                block.copy_(between(tuple(u[start:stop] for u in unit), tuple(u[start:] for u in unit)))
            own = block[:, : stop - start]
            own.copy_(own.triu() + own.triu(1).T)
            whole[stop:, start:stop] = block[:, stop - start :].T
        return whole

    def sums(self) -> Float[Tensor, " n"]:
        """Compute Σ_i s_ij over all samples i, float64 (n,), in O(n · width) by the sum of directions."""
        unit = self.unit()
        if len(unit) == 1:
            return (unit[0] @ unit[0].sum(0, dtype=torch.float64).to(unit[0].dtype)).double()
        return ((unit[0] @ (unit[0].T @ unit[1]) * unit[1]).sum(1).double() + len(self)) / 2


def cosine(*factors: Tensor) -> Cosine:
    """Make the similarity of these factors; zero vectors keep length 0."""
    lengths = [f.norm(dim=1) for f in factors]
    return Cosine(factors, tuple(torch.where(x > 0, 1 / x, 0.0) for x in lengths))


def represented(pool: Pool, by: Representation) -> Cosine:
    """Represent the pool's samples by the similarity of their features or gradients."""
    if by == "features":
        return cosine(pool.features)
    gradients = pool.gradients if by == "gradients" else pool.hypothetical_gradients
    return cosine(gradients.q, torch.cat([gradients.h, gradients.h.new_ones(len(pool), 1)], 1))


def neighbours(
    clients: Cosine, candidates: Cosine, count: int
) -> tuple[Float[Tensor, "m count"], Int[Tensor, "m count"]]:
    """Find the ``count`` most similar candidates of each client, exactly, by blocks of clients.

    Returns:
        Similarities, (m, count), and their candidates, int32 (m, count); in no order.
    """
    m, n = len(clients), len(candidates)
    values = clients.factors[0].new_empty(m, count)
    indices = torch.empty(m, count, dtype=torch.int32, device=clients.device)
    size, chunk = max(1, min(1024, 8 * in_a_block() // n)), 4096
    block = values.new_empty(size, n)
    for start in range(0, m, size):
        some = clients[start : start + size].unit()
        found = block[: len(some[0])]
        for first in range(0, n, chunk):
            found[:, first : first + chunk] = between(some, candidates[first : first + chunk].unit())
        nearest = found.topk(count, sorted=False)
        values[start : start + size], indices[start : start + size] = nearest.values, nearest.indices.int()
    return values, indices


def between(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    """Compute the similarities of samples, given their factors at length 1 (:meth:`Cosine.unit`)."""
    if len(a) == 1:
        return a[0] @ b[0].T
    return (a[0] @ b[0].T).mul_(a[1] @ b[1].T).add_(1).mul_(0.5)
