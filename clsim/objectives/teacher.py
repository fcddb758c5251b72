"""A copy of the net from before the current experience, and the divergence of another net's outputs from its own."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.models.nets import Net
from clsim.training.contract import Setup

_NEVER = -1e30
"""A logit of probability 0 that, unlike −inf, may be subtracted."""


class Teacher:
    """A frozen copy of the net, taken at the end of an experience. Final.

    The copy is in eval mode: batch norm uses the statistics that the net had then.

    Args:
        setup: the net.

    Attributes:
        classes: The classes that had been seen when the copy was taken, bool (classes,).

    Cost: 1 M kept, and a forward pass of each sample that :meth:`logits` gets.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._net: Net | None = None
        self.classes = torch.zeros(setup.net.visible.shape[1], dtype=torch.bool, device=setup.device)

    @property
    def ready(self) -> bool:
        """Whether a copy has been taken."""
        return self._net is not None

    def take(self, classes: Iterable[int]) -> None:
        """Copy the net, and count ``classes`` as seen."""
        self._net = frozen(self._setup.net)
        self.classes = self.classes.index_fill(0, torch.tensor(list(classes), device=self.classes.device), True)

    def logits(self, x: Tensor) -> Tensor:
        """Return logits of all classes, float32 (n, classes), without mask and without gradient."""
        if self._net is None:
            raise RuntimeError("there is no copy to ask yet: look at ready first")
        self._setup.cost.forward_passes += len(x)
        with torch.no_grad():
            return self._net.head(self._net.features(x)).float()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and statistics of the copy, if there is one, and the classes."""
        return {"net": None if self._net is None else self._net.state_dict(), "classes": self.classes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.classes = state["classes"].to(self.classes.device)
        self._net = None
        if state["net"] is not None:
            self._net = frozen(self._setup.net)
            self._net.load_state_dict(state["net"])


def frozen(net: Net) -> Net:
    """Return a copy of ``net`` in eval mode, without gradients."""
    copied = copy.deepcopy(net).eval().requires_grad_(False)
    copied.zero_grad()  # deepcopy takes the gradients along
    return copied


def divergence(logits: Tensor, target: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """Return KL(softmax(target / T) ‖ softmax(logits / T)) of each sample (n,), over some columns.

    It is 0 for a sample without such columns. Its gradient shrinks with T²; multiplied by T² it has the scale of a
    cross-entropy's.

    Args:
        logits, target: Logits (n, classes). Values outside the columns are not used, but must not be NaN.
        columns: The classes that the softmax ranges over, bool (classes,) or (n, classes).
        temperature: The temperature T.

    Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network (2015).
    """
    log_p = F.log_softmax((logits / temperature).masked_fill(~columns, _NEVER), 1)
    log_q = F.log_softmax((target / temperature).masked_fill(~columns, _NEVER), 1)
    return (log_q.exp() * (log_q - log_p)).sum(1)
