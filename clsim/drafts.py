"""Condensers, and who watches them at work."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from clsim.exemplars import Exemplars

if TYPE_CHECKING:
    from clsim.pool import Pool


class Condenser(Protocol):
    """Makes ``min(budget, labelled samples)`` exemplars, the classes balanced. All randomness comes from ``rng``."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
        """Out of ``pool``."""


class Draft(Protocol):
    """Images in the making; see :class:`clsim.condensers.synthesis.Synthetic`."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration needs, as tensors and plain values."""

    def exemplars(self) -> Exemplars:
        """The images as they would be kept now."""


class Watch(Protocol):
    """Somebody who watches a condenser at work, and keeps its state."""

    def resume(self) -> dict[str, Any] | None:
        """A draft's state, with the number of iterations done as ``iteration``; None: begin."""

    def step(self, done: int, total: int, loss: Tensor, draft: Draft) -> None:
        """An iteration is done; the loss is on the device."""

    def finish(self, loss: float, stored: float) -> None:
        """The loss of what was made, and the loss of what of it is stored (as uint8)."""


def factor_of(condense: Condenser) -> int:
    """How many small images a side of each stored one holds: the condenser's option ``factor``; 1 if it has none."""
    parameter = inspect.signature(condense).parameters.get("factor")
    return 1 if parameter is None else int(parameter.default)
