"""BiC's objective, in which labels and old logits weigh as new and old classes do, and its bias correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.models.optimizers import light
from clsim.objectives.among import members
from clsim.objectives.replay import by_origin, cross_entropy
from clsim.objectives.teacher import Teacher, divergence
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Terms


@dataclass(frozen=True)
class Correction:
    """A bias correction: q = α·o + β for the logits o of some classes, q = o for the others.

    Attributes:
        classes: The classes that are corrected, bool (classes,).
        numbers: The values α and β, float32 (2,).
    """

    classes: Tensor
    numbers: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the corrected logits, of the same shape (n, classes)."""
        return torch.where(self.classes, self.numbers[0] * logits + self.numbers[1], logits)

    @staticmethod
    def none(like: Tensor) -> Correction:
        """Return a correction that changes no class."""
        return Correction(torch.zeros_like(like), torch.tensor([1.0, 0.0], device=like.device))


def fitted(logits: Tensor, y: Tensor, new: Tensor, seen: Tensor, ridge: float) -> Correction:
    """Fit the correction of the new classes under which the held-out labels are most likely.

    argmin over α, β of mean CE(q, y) + ½ρ((α − 1)² + β²), the softmax over the classes seen. The problem is convex in
    its two numbers, and ρ > 0 gives it one solution even where the labels can be told without error; it is found by
    L-BFGS in double precision.

    Args:
        logits: Finite logits (n, classes) of held-out samples.
        y: Their labels (n,), all of classes seen.
        new: The classes to correct, bool (classes,).
        seen: The classes seen, bool (classes,).
        ridge: The strength ρ of the regularisation.
    """
    logits = logits.double()
    start = torch.tensor([1.0, 0.0], dtype=torch.float64, device=logits.device)
    numbers = start.clone().requires_grad_()
    optimizer = light(torch.optim.LBFGS)(
        [numbers], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        corrected = Correction(new, numbers)(logits).masked_fill(~seen, -torch.inf)
        value = F.cross_entropy(corrected, y) + ridge / 2 * (numbers - start).square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return Correction(new, numbers.detach().float())


class Proportional(Objective):
    """L = (1 − λ)·CE + λ·KL(softmax(q°/T) ‖ softmax(o/T)), λ = n / (n + m). Final.

    n is the number of classes seen before, m that of the experience's classes. The divergence ranges over the n
    classes, on new and replayed samples; q° are the corrected logits of the old net, o the logits of the net itself,
    all unmasked. In an experience that holds every class again, n is 0.

    Args:
        setup: net, memory, transform.
        temperature: The temperature T.

    Attributes:
        correction: The correction of the old net.
    """

    one_pass: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, temperature: float) -> None:
        if not temperature > 0:
            raise InputError(f"bic: temperature: found {temperature:g}, allowed: above 0")
        self._temperature = temperature
        self._teacher = Teacher(setup)
        self._old = torch.zeros_like(self._teacher.classes)
        self._share = 0.0
        self.correction = Correction.none(self._old)

    @property
    def old(self) -> Tensor:
        """The classes seen before that are not in the current experience, bool (classes,)."""
        return self._old

    def begin(self, experience: Experience) -> None:
        """Compute the weights of old and new classes."""
        self._old = self._teacher.classes & ~members(experience.classes, self._old)
        old = len(self._old.nonzero())
        self._share = old / (old + len(experience.classes))

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return ``new``, ``memory`` if there are exemplars, and ``distillation`` from the second experience on."""
        features = net.features(batch.x)
        by_label = cross_entropy(net.logits(features, batch.task), batch)
        if not self._share:
            return by_label
        terms = {name: (1 - self._share) * term for name, term in by_label.items()}
        target = self.correction(self._teacher.logits(batch.x))
        gap = divergence(net.head(features).float(), target, self._old, self._temperature)
        terms["distillation"] = self._share * torch.stack(list(by_origin(gap, batch).values())).sum()
        return terms

    def finish(self, experience: Experience) -> None:
        """Copy the net as the old one, not corrected yet."""
        self._teacher.take(experience.classes)
        self.correction = Correction.none(self._old)

    def state_dict(self) -> dict[str, Any]:
        """The old net and its correction."""
        correction = {"classes": self.correction.classes, "numbers": self.correction.numbers}
        return {"teacher": self._teacher.state_dict(), "correction": correction}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._teacher.load_state_dict(state["teacher"])
        stored = {name: value.to(self._old.device) for name, value in state["correction"].items()}
        self.correction = Correction(stored["classes"], stored["numbers"])
