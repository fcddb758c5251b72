"""LFL: a penalty on moving features, and frozen head rows of old classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from clsim.errors import at_least
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net
from clsim.objectives.distillation import Taught, mean_of_new
from clsim.objectives.replay import cross_entropy
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Batch, Setup, Terms


class Nearness(Taught):
    """L = CE + λ · mean_i ½‖h_i − h*_i‖², h the features of new samples and h* the old net's. Final.

    Args:
        setup: the net.
        strength: The weight λ of the distance between features.
    """

    one_pass: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, strength: float) -> None:
        super().__init__(setup)
        self._strength = strength

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return the cross-entropy and, from the second experience on, the distance between features."""
        features = net.features(batch.x)
        terms = cross_entropy(net.logits(features, batch.task), batch)
        if self.teacher.net is not None:
            away = (features[: batch.new] - self.teacher.features(batch)).float().square().sum(1) / 2
            terms["features"] = self._strength * mean_of_new(away, batch)
        return terms


class Lfl(Around[Sgd]):
    """Less-forgetting learning: L = CE + λ · mean_i ½‖h_i − h*_i‖², with the head's rows of old classes frozen. Final.

    h are the features of new samples before the head, h* those of the net after the last experience. The paper's tasks
    share all classes, so that its whole head is frozen, as it is here on such streams; the rows of new classes learn.
    With a memory, CE covers new ∪ replayed samples.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the distance between features; the default is clsim's own.

    Cost: 1 M kept (the old net); one more forward pass for each new sample.

    Source: Jung et al., Less-forgetting Learning in Deep Neural Networks (2016)
    """

    takes_terms: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, strength: float = 0.1) -> None:
        at_least(0, "lfl: ", strength=strength)
        self.objective = Nearness(setup, strength=strength)
        super().__init__(setup, Sgd(setup, objective=self.objective))
        self._rows: Tensor | None = None

    def begin(self, experience: Experience) -> None:
        """Freeze the head's rows of the classes learnt before."""
        groups = self.objective.teacher.groups
        self._rows = torch.cat(groups).unique() if groups else None
        super().begin(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step, then set frozen rows back, which momentum and weight decay may have moved."""
        terms = super().observe(batch)
        old = self.objective.teacher.net
        if self._rows is not None and old is not None:
            head = self.setup.net.head
            with torch.no_grad():
                head.weight.index_copy_(0, self._rows, old.head.weight.index_select(0, self._rows))
                head.bias.index_copy_(0, self._rows, old.head.bias.index_select(0, self._rows))
        return terms
