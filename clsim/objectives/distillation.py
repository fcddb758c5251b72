"""Distillation: the new net keeps the answers that the old net gives on new samples."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.models.nets import Net
from clsim.objectives.replay import cross_entropy
from clsim.objectives.teacher import frozen
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Terms


class OldLogits:
    """The net after the last experience, and the groups of its logits that had been learnt by then. Final.

    The old logits fall into groups, each with a softmax of its own: where tasks are masked, the classes of each task
    learnt; otherwise all classes learnt, as one group. Logits of classes that were not learnt yet are never read.

    The copy stays in eval mode: its batch norm uses the running statistics of that time, while the net that learns uses
    those of its batch. With batch norm the two outputs therefore differ a little even at equal weights.

    Args:
        setup: the net.

    Cost: 1 M kept; one more forward pass for each new sample.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.net: Net | None = None
        self.groups: list[Tensor] = []

    def learn(self, experience: Experience) -> None:
        """Copy the net as the old one, and count the classes of ``experience`` as old."""
        net = self._setup.net
        self.net = frozen(net)
        classes = torch.tensor(experience.classes, device=self._setup.device)
        if net.masked:
            classes = net.visible[experience.position].nonzero().flatten()
            if not any(torch.equal(classes, group) for group in self.groups):
                self.groups = [*self.groups, classes]
        else:
            self.groups = [torch.cat([*self.groups, classes]).unique()]

    def features(self, batch: Batch) -> Tensor:
        """Return the old net's features (new, width) of the batch's new samples, without gradient."""
        self._setup.cost.forward_passes += batch.new
        with torch.no_grad():
            return self._there.features(batch.x[: batch.new])

    def divergence(self, net: Net, features: Tensor, old: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the divergence of the new net's softened probabilities from the old net's, a scalar.

        Σ_g mean_i KL(softmax(z*_ig / T) ‖ softmax(z_ig / T)) over the groups g and the new samples i. LwF's
        paper writes the cross-entropy of the softened probabilities instead. It differs by the entropy of the old
        probabilities alone: the gradient is the same, and the divergence is 0 at the old logits. As in the paper there
        is no factor T²; to have it, multiply the strength by T².

        Args:
            net: The net that learns.
            features: The features (new, width) that this net computes for the new samples.
            old: The features (new, width) that the old net computes for them, from :meth:`features`.
            batch: The batch that the samples' weights are taken from.
            temperature: The temperature T.
        """
        with torch.no_grad():
            target = self._there.head(old).float() / temperature
        logits = net.head(features).float() / temperature
        parts = []
        for group in self.groups:
            p, q = target.index_select(1, group).log_softmax(1), logits.index_select(1, group).log_softmax(1)
            parts.append(mean_of_new(F.kl_div(q, p, reduction="none", log_target=True).sum(1), batch))
        return torch.stack(parts).sum()

    def state_dict(self) -> dict[str, Any]:
        """The old net's weights and statistics, and the groups of its logits."""
        return {"net": None if self.net is None else self.net.state_dict(), "groups": self.groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.groups = [group.to(self._setup.device, copy=True) for group in state["groups"]]
        self.net = None
        if state["net"] is not None:
            self.net = frozen(self._setup.net)
            self.net.load_state_dict(state["net"])

    @property
    def _there(self) -> Net:
        if self.net is None:
            raise RuntimeError("there is no old net before the first experience was learnt")
        return self.net


class Taught(Objective):
    """An objective that uses the outputs of the net after the last experience. Abstract.

    Args:
        setup: the net.

    Attributes:
        teacher: The net after the last experience; it holds none during the first experience.
    """

    def __init__(self, setup: Setup) -> None:
        self.teacher = OldLogits(setup)

    def finish(self, experience: Experience) -> None:
        self.teacher.learn(experience)

    def state_dict(self) -> dict[str, Any]:
        return self.teacher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.teacher.load_state_dict(state)


class Distillation(Taught):
    """L = CE + λ Σ_g KL(old ‖ new), on the old logits of new samples; see :meth:`OldLogits.divergence`. Final.

    The first experience has no old logits. With a memory, CE covers new ∪ replayed samples; the distillation covers
    the new ones.

    Args:
        setup: net, counters.
        strength: The weight λ of the distillation.
        temperature: The temperature T of the softmax.
    """

    one_pass: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, strength: float, temperature: float) -> None:
        super().__init__(setup)
        self._strength = strength
        self._temperature = temperature

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return the cross-entropy and, from the second experience on, the distillation."""
        features = net.features(batch.x)
        terms = cross_entropy(net.logits(features, batch.task), batch)
        if self.teacher.net is not None:
            old = self.teacher.features(batch)
            away = self.teacher.divergence(net, features[: batch.new], old, batch, self._temperature)
            terms["distillation"] = self._strength * away
        return terms


def mean_of_new(values: Tensor, batch: Batch) -> Tensor:
    """Return the weighted mean of values (new,), one for each new sample of the batch."""
    if batch.weight is None:
        return values.mean()
    weight = batch.weight[: batch.new]
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)
