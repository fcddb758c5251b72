"""iCaRL's objective: the labels, and the old net's outputs for the classes that it had learnt."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

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
    """The loss of iCaRL's features; see :class:`clsim.learners.replay.icarl.Icarl` for the equations. Final.

    The old net is kept and computes its outputs on the augmented images of each step; the paper stores its outputs.
    A task's mask holds for the old net too: a sample is distilled over the old classes that its task has.

    Args:
        setup: net, memory, transform.
        strength: The weight λ of the distillation.
        temperature: The temperature T of the survey's loss.
        loss: The loss, ``survey`` or ``original``.
    """

    one_pass: ClassVar[bool] = True

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
        """Note the classes of ``experience``."""
        self._now = members(experience.classes, self._now)

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return ``new``, ``memory`` if there are exemplars, and ``distillation`` if there is something to distil."""
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
        """Copy the net as the old one."""
        self._teacher.take(experience.classes)

    def state_dict(self) -> dict[str, Any]:
        """Return the old net."""
        return {"teacher": self._teacher.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._teacher.load_state_dict(state["teacher"])


def _mean(losses: Tensor, batch: Batch, first: int = 0) -> Tensor:
    """Return the weighted mean of the losses of a batch's rows from ``first`` on."""
    weight = torch.ones_like(losses) if batch.weight is None else batch.weight[first:]
    return (losses * weight).sum() / weight.sum().clamp_min(1e-12)
