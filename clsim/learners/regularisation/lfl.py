"""LFL: features that stay where they were, and old boundaries that do not move at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clsim.errors import at_least
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net
from clsim.objectives.distillation import OldLogits, mean_of_new
from clsim.objectives.replay import cross_entropy
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Setup, Terms


class Nearness:
    """L = CE + λ · mean_i ½‖h_i − h*_i‖², h the features of new samples and h* the old net's. Final.

    Args:
        setup: the net.
        strength: λ.
    """

    def __init__(self, setup: Setup, *, strength: float) -> None:
        self._strength = strength
        self.teacher = OldLogits(setup)

    def begin(self, experience: Experience) -> None:
        """Nothing to prepare."""

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Cross-entropy, and from the second experience on the features."""
        features = net.features(batch.x)
        terms = cross_entropy(net.logits(features, batch.task), batch)
        if self.teacher.net is not None:
            away = (features[: batch.new] - self.teacher.features(batch)).float().square().sum(1) / 2
            terms["features"] = self._strength * mean_of_new(away, batch)
        return terms

    def finish(self, experience: Experience) -> None:
        """The net as it is becomes the old one."""
        self.teacher.learn(experience)

    def remember(self, samples: Exemplars) -> Exemplars:
        """As they are."""
        return samples

    def state_dict(self) -> dict[str, Any]:
        """The old net."""
        return self.teacher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.teacher.load_state_dict(state)


class Lfl:
    """Less-forgetting learning: L = CE + λ · mean_i ½‖h_i − h*_i‖², with the head's rows of old classes frozen. Final.

    h are the features of new samples before the head, h* those of the net after the last experience. The paper's tasks
    share all classes, so its whole head is frozen, as it is here where they do; where new classes come, their rows
    learn. With a memory, CE covers new ∪ replayed samples.

    Args:
        setup: net, memory, transform, generators.
        strength: λ; the default is ours.

    Cost: 1 M kept (the old net); a forward pass more for each new sample.

    Source: Jung et al., Less-forgetting Learning in Deep Neural Networks (2016)
    """

    def __init__(self, setup: Setup, *, strength: float = 0.1) -> None:
        at_least(0, "lfl: ", strength=strength)
        self._setup = setup
        self._objective = Nearness(setup, strength=strength)
        self._sgd = Sgd(setup, objective=self._objective)
        self._rows: Tensor | None = None

    def begin(self, experience: Experience) -> None:
        """Freeze the rows of what was learnt before."""
        groups = self._objective.teacher.groups
        self._rows = torch.cat(groups).unique() if groups else None
        self._sgd.begin(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """One step; frozen rows go back to where they were, whatever momentum and weight decay did to them."""
        terms = self._sgd.observe(batch)
        old = self._objective.teacher.net
        if self._rows is not None and old is not None:
            head = self._setup.net.head
            with torch.no_grad():
                head.weight.index_copy_(0, self._rows, old.head.weight.index_select(0, self._rows))
                head.bias.index_copy_(0, self._rows, old.head.bias.index_select(0, self._rows))
        return terms

    def finish(self, experience: Experience) -> list[Terms]:
        """Let the objective keep the net."""
        return self._sgd.finish(experience)

    def remember(self, samples: Exemplars) -> Exemplars:
        """As they are."""
        return samples

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits of raw samples."""
        return self._sgd.predict(x, task)

    def state_dict(self) -> dict[str, Any]:
        """The net's and the old net's."""
        return self._sgd.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._sgd.load_state_dict(state)
