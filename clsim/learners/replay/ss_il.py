"""SS-IL: replay with a softmax of new classes and one of old ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clsim.learners.sgd import Sgd
from clsim.objectives.separated_softmax import Separated
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Setup, Terms


class SsIl:
    """Separated softmax for incremental learning: cross-entropy by sides, distillation by tasks. Final.

    L = mean CE over the sample's own side (new or old classes) + λ·T² Σ_s KL over the classes of earlier task s; see
    :class:`clsim.objectives.separated_softmax.Separated`. Each step holds as many exemplars to each new sample: the
    paper's ratio-preserving batches are ``memory.batch_size`` exemplars beside ``training.batch_size`` new samples; its
    code has 32 beside 128. Without a memory it is distillation by tasks alone.

    No softmax ever lowers the logits of classes to come, so predictions leave them out: −inf, but for a task that has
    no other.

    Args:
        setup: net, memory, transform, generators.
        strength: λ; 1 in the paper.
        temperature: T.

    Cost: 1 M kept; a second forward pass a step.

    Source: Ahn et al., SS-IL: Separated Softmax for Incremental Learning (ICCV 2021), and its code.
    """

    def __init__(self, setup: Setup, *, strength: float = 1.0, temperature: float = 2.0) -> None:
        self._setup = setup
        self._objective = Separated(setup, strength=strength, temperature=temperature)
        self._sgd = Sgd(setup, objective=self._objective)

    def begin(self, experience: Experience) -> None:
        """Its classes are the new side."""
        self._sgd.begin(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """One step on both sides."""
        return self._sgd.observe(batch)

    def finish(self, experience: Experience) -> list[Terms]:
        """The net as it is now becomes the old one."""
        return self._sgd.finish(experience)

    def remember(self, samples: Exemplars) -> Exemplars:
        """As they are."""
        return samples

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits of raw samples, of the classes seen."""
        logits, seen = self._sgd.predict(x, task), self._objective.seen
        known = (self._setup.net.visible[task] & seen).any(1, keepdim=True)
        return torch.where(known, logits.masked_fill(~seen, -torch.inf), logits)

    def state_dict(self) -> dict[str, Any]:
        """The net's and the objective's."""
        return self._sgd.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._sgd.load_state_dict(state)
