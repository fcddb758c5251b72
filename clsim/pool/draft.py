"""Images in the making, and who watches a condenser at work."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from clsim.pool.exemplars import Exemplars


@runtime_checkable
class Draft(Protocol):
    """Images in the making; see :class:`clsim.condensers.synthesis.Synthetic`."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration needs, as tensors and plain values."""

    def exemplars(self) -> Exemplars:
        """The images as they would be kept now."""


@runtime_checkable
class DraftWatch(Protocol):
    """Somebody who watches a condenser at work, and keeps its state."""

    def resume(self) -> dict[str, Any] | None:
        """A draft's state, with the number of iterations done as ``iteration``; None: begin."""

    def step(self, done: int, total: int, loss: Tensor, draft: Draft) -> None:
        """An iteration is done; the loss is on the device."""

    def finish(self, loss: float, stored: float) -> None:
        """The loss of what was made, and the loss of what of it is stored (as uint8)."""
