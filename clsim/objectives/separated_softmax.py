"""SS-IL's objective: new and old classes never share a softmax, and each earlier task is distilled by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clsim.errors import InputError, at_least
from clsim.models.nets import Net
from clsim.objectives.among import members, narrowed
from clsim.objectives.replay import by_origin, cross_entropy
from clsim.objectives.teacher import Teacher, divergence
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Terms


class Separated(Objective):
    """L = mean CE over the classes of the sample's own side + λ·T² Σ_s mean KL over the classes of task s. Final.

    The sides are the classes of the experience at hand and those known before it, from the stream or from what the
    memory began with: a sample's softmax is over the side that its label is on, so that new samples neither push old
    classes away nor exemplars new ones. The divergence KL(softmax(o°/T) ‖ softmax(o/T)), on new and replayed samples,
    is taken over the classes that each earlier experience brought, apart; o° are the old net's logits, o the net's own,
    both unmasked. A mask narrows the softmax of a sample's side.

    Args:
        setup: net, memory, transform.
        strength: λ.
        temperature: T.
    """

    def __init__(self, setup: Setup, *, strength: float, temperature: float) -> None:
        at_least(0, "ss-il: ", strength=strength)
        if not temperature > 0:
            raise InputError(f"ss-il: temperature: found {temperature:g}, allowed: above 0")
        self._strength = strength
        self._temperature = temperature
        self._teacher = Teacher(setup)
        self._now = torch.zeros_like(self._teacher.classes)
        self._begun = torch.zeros_like(self._now)  # bool (classes,): what the memory holds before the stream
        if setup.memory.stored is not None:
            self._begun[setup.memory.stored.y] = True
        self._tasks = self._now[None][:0]  # bool (experiences so far, classes): what each of them brought

    @property
    def seen(self) -> Tensor:
        """bool (classes,): those of the experiences so far, the one at hand included."""
        return self._teacher.classes | self._now

    def begin(self, experience: Experience) -> None:
        """Its classes are the new side."""
        self._now = members(experience.classes, self._now)

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """``new``, ``memory`` with exemplars, and ``distillation`` from the second experience on."""
        features = net.features(batch.x)
        side = torch.where(self._now[batch.y][:, None], self._now, (self._teacher.classes | self._begun) & ~self._now)
        terms = cross_entropy(narrowed(net.logits(features, batch.task), side), batch)
        if self._teacher.ready:
            logits, target = net.head(features).float(), self._teacher.logits(batch.x)
            gaps = [divergence(logits, target, task, self._temperature) for task in self._tasks]
            parts = by_origin(torch.stack(gaps).sum(0), batch)
            terms["distillation"] = self._strength * self._temperature**2 * torch.stack(list(parts.values())).sum()
        return terms

    def finish(self, experience: Experience) -> None:
        """The net as it is now becomes the old one, with a task more."""
        brought = self._now & ~self._teacher.classes
        self._tasks = torch.cat([self._tasks, brought[None]])
        self._teacher.take(experience.classes)

    def state_dict(self) -> dict[str, Any]:
        """The old net, and which classes came with which experience."""
        return {"teacher": self._teacher.state_dict(), "tasks": self._tasks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._teacher.load_state_dict(state["teacher"])
        self._tasks = state["tasks"].to(self._now.device)
