"""SS-IL: replay with separate softmaxes for new and old classes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from clsim.learners.sgd import Sgd
from clsim.objectives.among import of_seen
from clsim.objectives.separated_softmax import Separated
from clsim.training.contract import Around, Setup


class SsIl(Around[Sgd]):
    """Separated softmax for incremental learning: cross-entropy by sides, distillation by tasks. Final.

    L = mean CE over the sample's own side (new or old classes) + λ·T² Σ_s KL over the classes of earlier task s; see
    :class:`clsim.objectives.separated_softmax.Separated`. Each step holds as many exemplars to each new sample: the
    paper's ratio-preserving batches are ``memory.batch_size`` exemplars beside ``training.batch_size`` new samples; its
    code has 32 beside 128. Without a memory it is distillation by tasks alone.

    No softmax lowers the logits of classes not seen yet, so that predictions set them to −inf, unless a task has no
    others.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the distillation; 1 in the paper.
        temperature: The temperature T.

    Cost: 1 M kept; a second forward pass in each step.

    Source: Ahn et al., SS-IL: Separated Softmax for Incremental Learning (ICCV 2021), and its code.
    """

    takes_terms: ClassVar[bool] = True
    takes_average: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, strength: float = 1.0, temperature: float = 2.0) -> None:
        self._objective = Separated(setup, strength=strength, temperature=temperature)
        super().__init__(setup, Sgd(setup, objective=self._objective))

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Return logits of raw samples, −inf for classes not seen yet."""
        return of_seen(super().predict(x, task), self._objective.seen, self.setup.net.visible[task])
