"""BADGE: samples with large and different gradients."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clsim.pool.pool import Pool, Selection


def badge(
    pool: Pool, budget: int, *, rng: torch.Generator, first: Literal["uniform", "largest"] = "uniform"
) -> Selection:
    """Query samples whose gradients at the predicted labels are large and far from each other.

    k-means++ seeding on the gradient embeddings g_i = (p − e_ŷ) ⊗ [h, 1]: each pick is drawn with probability
    ∝ min_{j∈S} ‖g_i − g_j‖², never twice. g is never written out: ‖g_i − g_j‖² = ‖g_i‖² + ‖g_j‖² − 2⟨q_i, q_j⟩·
    (⟨h_i, h_j⟩ + 1). Where all distances are zero, the draw is uniform. g includes the bias of the layer.

    Args:
        first: how the first pick is chosen: drawn at random (``uniform``), as in k-means++, or the ``largest``
            gradient, as in the code of the paper's authors.

    Needs: gradients of the last layer at predicted labels.
    Cost: O(n·b·(C + d)) time, O(n) memory beside the features.
    Source: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds (ICLR 2020), algorithm 1;
        Arthur & Vassilvitskii, k-means++ (SODA 2007).
    """
    gradients = pool.hypothetical_gradients
    n, device = len(pool), gradients.q.device
    picks = torch.empty(min(budget, n), dtype=torch.int64, device=device)
    draws = torch.rand(len(picks), generator=rng, dtype=torch.float64).to(device)
    left = torch.ones(n, dtype=torch.float64, device=device)  # 1 for rows that may still be drawn, else 0
    squares = gradients.squares
    nearest = squares if first == "largest" else torch.zeros_like(squares)
    for i in range(len(picks)):
        picks[i] = nearest.argmax() if first == "largest" and not i else _drawn(nearest * left, left, draws[i])
        pick = picks[i : i + 1]
        left[pick] = 0
        inner = gradients.inner(gradients[pick]).flatten()
        distance = (squares + squares[pick] - 2 * inner).clamp_min_(0)  # round-off makes some slightly negative
        nearest = torch.minimum(nearest, distance) if i else distance
    return Selection(picks)


def _drawn(weight: Tensor, otherwise: Tensor, draw: Tensor) -> Tensor:
    """Find the row where the cumulated weight passes ``draw`` times its sum, without waiting for the device."""
    edges = torch.where(weight.sum() > 0, weight, otherwise).cumsum(0)
    return torch.searchsorted(edges, draw * edges[-1] * (1 - 1e-12), right=True)
