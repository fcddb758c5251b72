"""Last-layer gradients of many samples, never written out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gradients:
    """The gradient of each sample's cross-entropy with respect to the last layer, as two factors.

    g_i = q_i ⊗ [h_i, 1] with q = p − e_y, so that ⟨g_i, g_j⟩ = ⟨q_i, q_j⟩·(⟨h_i, h_j⟩ + 1) and ‖g‖ = ‖q‖·√(1 + ‖h‖²).
    The factors are exact and take O(n·(C + d)) memory, where the gradients themselves take O(n·C·d).

    Attributes:
        q: float32 (n, C), softmax minus the one-hot label.
        h: float32 (n, d), penultimate features.

    >>> g = Gradients(torch.tensor([[0.5, -0.5]]), torch.tensor([[2.0]]))
    >>> g.dense(), g.squares, g.inner(g)
    (tensor([[[ 1.0000,  0.5000],
             [-1.0000, -0.5000]]]), tensor([2.5000]), tensor([[2.5000]]))
    """

    q: Float[Tensor, "n classes"]
    h: Float[Tensor, "n width"]

    def __len__(self) -> int:
        return len(self.q)

    def __getitem__(self, rows: Tensor | slice) -> Gradients:
        return Gradients(self.q[rows], self.h[rows])

    @property
    def squares(self) -> Float[Tensor, " n"]:
        """‖g‖², (n,)."""
        return self.q.square().sum(1) * (self.h.square().sum(1) + 1)

    def inner(self, other: Gradients) -> Float[Tensor, "n m"]:
        """Compute ⟨g_i, g_j⟩ of all pairs, (n, m), written out: only for small n × m."""
        return (self.q @ other.q.T) * (self.h @ other.h.T + 1)

    def squared_distances(self, other: Gradients) -> Float[Tensor, "n m"]:
        """Compute ‖g_i − g_j‖², (n, m), never below 0."""
        return (self.squares[:, None] + other.squares - 2 * self.inner(other)).clamp_min_(0)

    def dense(self) -> Float[Tensor, "n classes inputs"]:
        """Write out the gradients, (n, C, d + 1), the bias last: for few samples."""
        h = torch.cat([self.h, self.h.new_ones(len(self), 1)], 1)
        return self.q[:, :, None] * h[:, None, :]

    def sum(self, weight: Float[Tensor, " n"] | None = None) -> Float[Tensor, "classes inputs"]:
        """Compute Σ_i w_i g_i as a matrix (C, d + 1), the bias last."""
        q = self.q if weight is None else self.q * weight[:, None]
        return torch.cat([q.T @ self.h, q.sum(0)[:, None]], 1)

    def along(self, direction: Float[Tensor, "classes inputs"]) -> Float[Tensor, " n"]:
        """Compute ⟨g_i, direction⟩ for a matrix (C, d + 1): (n,)."""
        return (self.q * torch.addmm(direction[:, -1], self.h, direction[:, :-1].T)).sum(1)
