"""ER-ACE's objective: new samples do not push old classes away."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Terms


class AsymmetricCrossEntropy(Objective):
    """Two cross-entropies, each with a softmax over classes of its own. Final.

    L = CE(new, C_now) + CE(memory, C_seen), weighted means each. C_now are the classes of the new samples of this very
    batch (or of the experience), so that their logits are not raised at the cost of others'; C_seen all classes seen
    so far, these included. Under a task's mask a softmax is over those of them that the task has. New and replayed
    samples pass through the net together, so that batch norm sees both.

    Args:
        setup: the net.
        classes: what C_now is: of the ``batch``, as in the paper, or of the ``experience``.

    Source: Caccia et al., New Insights on Reducing Abrupt Representation Change in Online Continual Learning
    (ICLR 2022), ER-ACE.
    """

    def __init__(self, setup: Setup, *, classes: Literal["batch", "experience"] = "batch") -> None:
        if classes not in ("batch", "experience"):
            raise InputError(f"er-ace: classes: found {classes!r}, allowed: batch, experience")
        self._classes = classes
        self._seen = torch.zeros(setup.net.visible.shape[1], dtype=torch.bool, device=setup.device)
        self._experience = torch.zeros_like(self._seen)

    def begin(self, experience: Experience) -> None:
        """Its classes, for ``classes = "experience"``."""
        self._experience = torch.zeros_like(self._seen)
        self._experience[list(experience.classes)] = True
        if self._classes == "experience":
            self._seen |= self._experience

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """``new`` and, with exemplars, ``memory``."""
        n, new = len(batch.y), batch.new
        self._seen[batch.y] = True
        out = net(batch.x, batch.task)
        weight = out.new_ones(n) if batch.weight is None else batch.weight
        now = self._experience
        if self._classes == "batch":
            now = torch.zeros_like(self._seen)
            now[batch.y[:new]] = True
        terms = {"new": _over(now, out[:new], batch.y[:new], weight[:new])}
        if new < n:
            terms["memory"] = _over(self._seen, out[new:], batch.y[new:], weight[new:])
        return terms

    def state_dict(self) -> dict[str, Any]:
        """The classes seen so far, bool (classes,)."""
        return {"seen": self._seen.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen = state["seen"].to(self._seen.device, copy=True)


def _over(classes: Tensor, logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean cross-entropy with a softmax over some classes alone."""
    losses = F.cross_entropy(logits.masked_fill(~classes, -torch.inf), y, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp_min(1e-12)
