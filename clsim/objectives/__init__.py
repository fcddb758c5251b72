"""Objectives: what a learner minimises, as named terms whose sum is the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from clsim.models import Net


@dataclass(frozen=True)
class Batch:
    """New samples, then replayed ones, ready for the net.

    Attributes:
        x: float32 (n, \\*shape), augmented and normalised.
        y: int64 (n,); −1 = unlabelled.
        task: int64 (n,).
        new: the first so many rows are new; the rest comes from memory.
        weight: float32 (n,); None: all weigh the same.
        soft: float32 (n, classes), or None.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    new: int
    weight: Tensor | None = None
    soft: Tensor | None = None


class Objective(Protocol):
    """The terms of the loss of one batch; each a scalar tensor."""

    def __call__(self, net: Net, batch: Batch) -> dict[str, Tensor]:
        """Of ``batch``, under ``net``."""
