"""iCaRL's objective: labels, and the answers of the net before on what it knew."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError, at_least
from clsim.models.nets import Net
from clsim.objectives.among import members, narrowed
from clsim.objectives.replay import by_origin, cross_entropy
from clsim.objectives.teacher import Teacher, divergence
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Terms

LOSSES = ("survey", "original")


class Representation(Objective):
    """What iCaRL's features are learnt with; see :func:`clsim.learners.replay.icarl.Icarl` for the equations. Final.

    The net before is kept and asked about the very (augmented) images of the step; the paper stores its answers.
    A task's mask holds for the net before too: a sample is distilled over those old classes that its task has.

    Args:
        setup: net, memory, transform.
        strength: λ.
        temperature: T of the survey's loss.
        loss: ``survey`` or ``original``.
    """

    def __init__(
        self, setup: Setup, *, strength: float, temperature: float, loss: Literal["survey", "original"]
    ) -> None:
        at_least(0, "icarl: ", strength=strength)
        if loss not in LOSSES:
            raise InputError(f"icarl: loss: found {loss!r}, allowed: {', '.join(LOSSES)}")
        if not temperature > 0:
            raise InputError(f"icarl: temperature: found {temperature:g}, allowed: above 0")
        self._strength = strength
        self._temperature = temperature
        self._original = loss == "original"
        self._teacher = Teacher(setup)
        self._now = torch.zeros_like(self._teacher.classes)

    def begin(self, experience: Experience) -> None:
        """Its classes."""
        self._now = members(experience.classes, self._now)

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """``new``, ``memory`` with exemplars, and ``distillation`` where there is something to distil."""
        logits = net.head(net.features(batch.x)).float()
        visible = net.visible[batch.task]
        target = self._teacher.logits(batch.x) if self._teacher.ready else None
        if self._original:
            return self._binary(logits, target, visible, batch)
        terms = cross_entropy(narrowed(logits, visible), batch)
        if target is not None and batch.new < len(batch.y):
            known = visible & self._teacher.classes
            gap = divergence(logits[batch.new :], target[batch.new :], known[batch.new :], self._temperature)
            terms["distillation"] = self._strength * self._temperature**2 * _mean(gap, batch, batch.new)
        return terms

    def _binary(self, logits: Tensor, target: Tensor | None, visible: Tensor, batch: Batch) -> Terms:
        known, seen = visible & self._teacher.classes & ~self._now, visible & (self._teacher.classes | self._now)
        wanted = F.one_hot(batch.y, logits.shape[1]).float()
        columns = seen.sum(1)
        labels = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        terms = by_origin(labels.masked_fill(~(seen & ~known), 0).sum(1) / columns, batch)
        if target is not None:
            answers = F.binary_cross_entropy_with_logits(logits, target.sigmoid(), reduction="none")
            terms["distillation"] = self._strength * _mean(answers.masked_fill(~known, 0).sum(1) / columns, batch)
        return terms

    def finish(self, experience: Experience) -> None:
        """The net as it is now becomes the net before."""
        self._teacher.take(experience.classes)

    def state_dict(self) -> dict[str, Any]:
        """The net before."""
        return {"teacher": self._teacher.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._teacher.load_state_dict(state["teacher"])


def _mean(losses: Tensor, batch: Batch, first: int = 0) -> Tensor:
    """The weighted mean of the losses of a batch's rows from ``first`` on."""
    weight = torch.ones_like(losses) if batch.weight is None else batch.weight[first:]
    return (losses * weight).sum() / weight.sum().clamp_min(1e-12)
