"""SS-IL's objective: separate softmaxes for new and old classes, and a distillation for each earlier task."""

from __future__ import annotations

from typing import Any, ClassVar

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

    One side is the classes of the current experience; the other is the classes known before it, from the stream or
    from the memory's first exemplars. The softmax of a sample ranges over the side of its label, so that new samples do
    not lower the logits of old classes, and exemplars do not lower those of new classes. The divergence
    KL(softmax(o°/T) ‖ softmax(o/T)), on new and replayed samples, is taken separately over the new classes of each
    earlier experience; o° are the old net's logits, o those of the net itself, both unmasked. A mask narrows the
    softmax of a sample's side.

    Args:
        setup: net, memory, transform.
        strength: The weight λ of the distillation.
        temperature: The temperature T.
    """

    one_pass: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, strength: float, temperature: float) -> None:
        at_least(0, "ss-il: ", strength=strength)
        if not temperature > 0:
            raise InputError(f"ss-il: temperature: found {temperature:g}, allowed: above 0")
        self._strength = strength
        self._temperature = temperature
        self._teacher = Teacher(setup)
        self._now = torch.zeros_like(self._teacher.classes)
        self._begun = torch.zeros_like(self._now)  # bool (classes,): classes in the memory before the stream
        if setup.memory.stored is not None:
            self._begun[setup.memory.stored.y] = True
        self._tasks = self._now[None][:0]  # bool (experiences so far, classes): the new classes of each

    @property
    def seen(self) -> Tensor:
        """The classes of all experiences so far, the current one included, bool (classes,)."""
        return self._teacher.classes | self._now

    def begin(self, experience: Experience) -> None:
        """Take the classes of ``experience`` as the new side."""
        self._now = members(experience.classes, self._now)

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return ``new``, ``memory`` if there are exemplars, and ``distillation`` from the second experience on."""
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
        """Copy the net as the old one, and note the new classes of the experience as a task."""
        brought = self._now & ~self._teacher.classes
        self._tasks = torch.cat([self._tasks, brought[None]])
        self._teacher.take(experience.classes)

    def state_dict(self) -> dict[str, Any]:
        """Return the old net, and the new classes of each experience."""
        return {"teacher": self._teacher.state_dict(), "tasks": self._tasks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._teacher.load_state_dict(state["teacher"])
        self._tasks = state["tasks"].to(self._now.device)
