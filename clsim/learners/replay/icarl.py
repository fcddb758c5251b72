"""iCaRL: features learnt with labels and distillation, and predictions by the means of classes' exemplars."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from clsim.learners.sgd import Sgd
from clsim.models.nets import evaluating
from clsim.objectives.representation import Representation
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Setup, Terms
from clsim.training.neighbours import class_means, nearness


class Icarl(Around[Sgd]):
    """Incremental classifier and representation learning. Final.

    Features are learnt on new ∪ replayed samples with the net before, f°, as a teacher, in one of two ways; the
    default is the survey's, not the first paper's:

    - ``survey``: L = CE + λ·T²·KL(softmax(f°/T) ‖ softmax(f/T)), the divergence on exemplars, over the old classes.
    - ``original``: L = mean over samples and seen classes of BCE(σ(f), q), q = [c = y] for classes of the experience
      at hand, σ(f°) for old ones; λ weighs the old ones, 1 in the paper. The paper sums over classes; the mean, which
      wants a rate larger by their number, is what implementations have.

    Predictions: with φ the features, scaled to length 1, and μ_c the mean of those of class c's exemplars, scaled
    again, the class is argmin_c ‖φ(x) − μ_c‖² among those that the task may use and memory has an exemplar of. Scores
    are −‖φ − μ_c‖², and −inf for the other classes. While an experience is learnt, and for a task of whose classes
    memory has none (all tasks, without a memory), they are the net's logits.

    The features, and so the means, are taken in eval mode and without augmentation when the experience's end has
    updated the memory. The paper's memory keeps as many of each class, by herding: ``buffer = "herding"``. Where a
    class's share shrinks, the paper keeps the first of its exemplars in the order in which they were herded; here those
    that survive are herded anew, among themselves, under the features of the net at that time.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the distillation. The survey's search begins at 10, where high rates diverge.
        temperature: The temperature T of the survey's loss.
        loss: The loss, ``survey`` or ``original``.

    Cost: 1 M and a mean for each class kept; a second forward pass in each step, and one of the memory after each
        experience.

    Source: Rebuffi et al., iCaRL: Incremental Classifier and Representation Learning (CVPR 2017), algorithms 1-5; the
    loss of De Lange et al., A continual learning survey (TPAMI 2021).
    """

    takes_terms: ClassVar[bool] = True
    takes_average: ClassVar[bool] = True

    def __init__(
        self,
        setup: Setup,
        *,
        strength: float = 1.0,
        temperature: float = 2.0,
        loss: Literal["survey", "original"] = "survey",
    ) -> None:
        objective = Representation(setup, strength=strength, temperature=temperature, loss=loss)
        super().__init__(setup, Sgd(setup, objective=objective))
        self.means: Tensor | None = None

    def begin(self, experience: Experience) -> None:
        """Forget the means, since the features change."""
        self.means = None
        super().begin(experience)

    def finish(self, experience: Experience) -> list[Terms]:
        """Compute the means of the exemplars that memory holds now."""
        steps = super().finish(experience)
        exemplars = self.setup.memory.exemplars
        if exemplars is not None:
            self.means = class_means(self._features(exemplars), exemplars.y, self.setup.net.visible.shape[1])
        return steps

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Return scores of raw samples; the class of the nearest mean has the highest."""
        net = self.setup.net
        with evaluating(net), torch.no_grad(), self.setup.precision():
            features = net.features(self.setup.transform.plain(x)).float()
            logits = net.logits(features, task)
        if self.means is None:
            return logits
        usable = net.visible[task] & ~self.means.isnan().any(1)
        scores = nearness(features, self.means.nan_to_num()).masked_fill(~usable, -torch.inf)
        return torch.where(usable.any(1, keepdim=True), scores, logits)

    def _features(self, samples: Exemplars) -> Tensor:
        setup, size = self.setup, self.setup.spec.evaluation.batch_size
        parts = []
        with evaluating(setup.net), torch.no_grad(), setup.precision():
            for start in range(0, len(samples), size):
                parts.append(setup.net.features(setup.transform.plain(samples.x[start : start + size])).float())
        setup.cost.forward_passes += len(samples)
        return torch.cat(parts)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the net, the old net, and the means."""
        return {"sgd": self.inner.state_dict(), "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["sgd"])
        self.means = None if state["means"] is None else state["means"].to(self.setup.device)
