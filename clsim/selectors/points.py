"""Features as points about their mean, optionally scaled, without a copy of the features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clsim.selectors.distances import blocks, squared_distances


@dataclass(frozen=True)
class Points:
    """Points z_i = s_i·φ_i − mean, where s_i is 1 or 1/‖φ_i‖; they are computed when needed.

    Distances come from ‖a‖² + ‖b‖² − 2⟨a, b⟩: about the mean, the round-off does not grow with the distance of the
    features from the origin.

    Attributes:
        features: float32 (n, d).
        scale: (n,), s; None: all are 1.
        mean: (d,), the mean of the scaled features.
        squares: (n,), ‖z‖².
    """

    features: Float[Tensor, "n width"]
    scale: Float[Tensor, " n"] | None
    mean: Float[Tensor, " width"]
    squares: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Return z of these rows, (m, d): a copy."""
        copied = self.features[rows].clone() if isinstance(rows, slice) else self.features[rows]
        return (copied if self.scale is None else copied.mul_(self.scale[rows, None])).sub_(self.mean)

    def along(self, direction: Float[Tensor, " width"]) -> Float[Tensor, " n"]:
        """Compute ⟨z_i, direction⟩, (n,), in one pass through the features."""
        products = self.features @ direction
        return (products if self.scale is None else products.mul_(self.scale)).sub_(self.mean @ direction)

    def nearest_of(self, others: Float[Tensor, "m width"]) -> Float[Tensor, " n"]:
        """Compute each point's squared distance to the nearest of other features (m, d): (n,)."""
        there = (others if self.scale is None else F.normalize(others)) - self.mean
        near = self.squares.new_empty(len(self))
        for rows in blocks(len(self), 4 * max(there.shape)):
            near[rows] = squared_distances(self[rows], there).min(1).values
        return near


def points(features: Float[Tensor, "n width"], *, normalise: bool = False) -> Points:
    """Make points of features, or of features scaled to length 1 (those of length 0 stay so)."""
    scale = None
    if normalise:
        scale = torch.linalg.vector_norm(features, dim=1).clamp_min_(1e-12).reciprocal_()
    total = features.sum(0) if scale is None else scale @ features
    squares = features.new_empty(len(features))
    about = Points(features, scale, total / max(len(features), 1), squares)
    for rows in blocks(len(features), 32 * features.shape[1]):  # small: they stay in the processor's cache
        squares[rows] = torch.linalg.vector_norm(about[rows], dim=1).square_()
    return about
