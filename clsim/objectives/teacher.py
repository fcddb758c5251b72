"""The net as it was before the experience at hand, and how far another one's answers are from its own."""

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

    It is in eval mode: batch norm uses the statistics that the net had then.

    Args:
        setup: the net.

    Attributes:
        classes: bool (classes,), those that had been seen when the copy was taken.

    Cost: 1 M kept, and a forward pass of what it is asked about.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._net: Net | None = None
        self.classes = torch.zeros(setup.net.visible.shape[1], dtype=torch.bool, device=setup.device)

    @property
    def ready(self) -> bool:
        """Whether there is a copy to ask."""
        return self._net is not None

    def take(self, classes: Iterable[int]) -> None:
        """Copy the net, which has now seen these classes too."""
        self._net = frozen(self._setup.net)
        self.classes = self.classes.index_fill(0, torch.tensor(list(classes), device=self.classes.device), True)

    def logits(self, x: Tensor) -> Tensor:
        """float32 (n, classes) of all classes, whatever a task may use; without gradient."""
        if self._net is None:
            raise RuntimeError("there is no copy to ask yet: look at ready first")
        self._setup.cost.forward_passes += len(x)
        with torch.no_grad():
            return self._net.head(self._net.features(x)).float()

    def state_dict(self) -> dict[str, Any]:
        """The copy's weights and statistics, if there is one, and the classes."""
        return {"net": None if self._net is None else self._net.state_dict(), "classes": self.classes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.classes = state["classes"].to(self.classes.device)
        self._net = None
        if state["net"] is not None:
            self._net = frozen(self._setup.net)
            self._net.load_state_dict(state["net"])


def frozen(net: Net) -> Net:
    """A copy in eval mode that nothing trains."""
    copied = copy.deepcopy(net).eval().requires_grad_(False)
    copied.zero_grad()  # deepcopy takes the gradients along
    return copied


def divergence(logits: Tensor, target: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """KL(softmax(target / T) ‖ softmax(logits / T)) of each sample (n,), over some columns; 0 where there are none.

    Its gradient shrinks with T²; who wants it on the scale of a cross-entropy multiplies by that.

    Args:
        logits, target: (n, classes); what stands outside the columns does not matter, but must not be NaN.
        columns: bool, (classes,) or (n, classes).
        temperature: T.

    Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network (2015).
    """
    log_p = F.log_softmax((logits / temperature).masked_fill(~columns, _NEVER), 1)
    log_q = F.log_softmax((target / temperature).masked_fill(~columns, _NEVER), 1)
    return (log_q.exp() * (log_q - log_p)).sum(1)
