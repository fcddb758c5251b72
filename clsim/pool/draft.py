"""The draft of a condenser's images, and the watch that follows and stores it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from clsim.pool.exemplars import Exemplars


@runtime_checkable
class Draft(Protocol):
    """Images that a condenser is making; see :class:`clsim.condensers.synthesis.Synthetic`."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next iteration needs, as tensors and plain values."""

    def exemplars(self) -> Exemplars:
        """Return the images as they would be kept now."""


@runtime_checkable
class DraftWatch(Protocol):
    """A watch that is told of each iteration of a condenser and may store its state."""

    def resume(self) -> dict[str, Any] | None:
        """Return a draft's state, with the number of iterations done as ``iteration``; None: begin."""

    def step(self, done: int, total: int, loss: Tensor, draft: Draft) -> None:
        """Note that iteration ``done`` of ``total`` is done; the loss is on the device."""

    def finish(self, loss: float, stored: float) -> None:
        """Note the loss of the finished images, and the loss of the images as they are stored (uint8)."""
