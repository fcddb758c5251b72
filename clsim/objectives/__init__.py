"""Objectives: what a learner minimises, as named terms whose sum is the loss.

The simplest is a function ``(net, batch) -> terms``. One that keeps something of the past (an importance, an old net)
is a final class, an :class:`Objective`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from clsim.exemplars import Exemplars
from clsim.models import Net
from clsim.streams import Experience


@dataclass(frozen=True)
class Batch:
    """New samples, then replayed ones, ready for the net.

    Attributes:
        x: float32 (n, \\*shape), augmented and normalised.
        y: int64 (n,); −1 = unlabelled.
        task: int64 (n,).
        new: the first so many rows are new; the rest comes from memory.
        weight: float32 (n,); None: all weigh the same.
        soft: float32 (n, classes), what memory holds beside the label (logits, or soft labels); NaN rows where there is
            none; or None.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    new: int
    weight: Tensor | None = None
    soft: Tensor | None = None


Terms = dict[str, Tensor]
"""The loss of one step, by term: scalar tensors."""


class Objective(Protocol):
    """Built as ``objective(setup, **options)``; works with and without a memory."""

    def begin(self, experience: Experience) -> None:
        """Before the first batch of an experience."""

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """The terms of the loss of one batch."""

    def finish(self, experience: Experience) -> None:
        """After the experience was learnt and the memory updated."""

    def remember(self, samples: Exemplars) -> Exemplars:
        """What of samples goes to memory: as they are, or with soft labels.

        Called with each batch after its last step, and with the whole experience at its end.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that the next experience needs, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""


class Stateless:
    """A function as an objective. Final."""

    def __init__(self, function: Callable[[Net, Batch], Terms]) -> None:
        self._function = function

    def begin(self, experience: Experience) -> None:
        """Nothing to prepare."""

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """The function's terms."""
        return self._function(net, batch)

    def finish(self, experience: Experience) -> None:
        """Nothing to keep."""

    def remember(self, samples: Exemplars) -> Exemplars:
        """As they are."""
        return samples

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""
