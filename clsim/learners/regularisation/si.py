"""SI: the importance of weights, measured along their path in training."""

from __future__ import annotations

from typing import Any

import torch

from clsim.errors import at_least
from clsim.learners.regularisation.walking import walk
from clsim.learners.sgd import Sgd
from clsim.objectives.among import Among
from clsim.objectives.importance import Weights, held, on_device, pull, weights
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Setup, Terms


class Si(Around[Sgd]):
    """Synaptic intelligence: a weight's importance is its part in the fall of the loss. Final.

    L = CE + λ Σ Ω(θ − θ*)². Along the path of an experience ω = −Σ g·δθ, with g the gradient of CE alone (on new ∪
    replayed samples, before the penalty) and δθ the step that the optimizer took; for small steps of plain gradient
    descent Σω is the fall of the loss. At the end of the experience
    Ω += max(0, ω / (Δθ² + ξ)), with Δθ the change from θ*, the weights at its beginning. Under SGD λΩ is at most
    1 / (2·lr); see :func:`clsim.objectives.importance.pull`. All weights are covered, including the head's; its rows of
    other tasks have no gradient under a mask, and so no importance. Running statistics of batch norm are no weights:
    they are not held.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the penalty. The survey's search begins with 400, which holds most weights fast.
        damping: The constant ξ, which bounds the importance of a weight that hardly moved.
        among: The classes that the cross-entropy of a new sample ranges over; see :class:`clsim.learners.sgd.Sgd`.

    Cost: 1 M kept (Ω), 3 M more in training (θ*, ω, λΩ), and 2 M within a step.

    Source: Zenke, Poole & Ganguli, Continual Learning Through Synaptic Intelligence (ICML 2017), eq. 3-5
    """

    def __init__(self, setup: Setup, *, strength: float = 1.0, damping: float = 1e-3, among: Among = "all") -> None:
        at_least(0, "si: ", strength=strength, damping=damping)
        super().__init__(setup, Sgd(setup, among=among))
        self._strength, self._damping = strength, damping
        self._anchor: Weights = {}
        self._pull: Weights = {}
        self.path: Weights = {}
        self.importance: Weights = {}

    def begin(self, experience: Experience) -> None:
        """Copy the weights as anchor, and start the path there; a further round on the experience goes on with both."""
        super().begin(experience)
        if experience.again:
            return
        self._anchor = weights(self.setup.net)
        self._pull = pull(self.setup, self._strength, self.importance)
        self.path = {name: torch.zeros_like(value) for name, value in self._anchor.items()}

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step on cross-entropy and penalty; the path counts the fall of the cross-entropy alone."""
        step = walk(self.setup, self.inner, batch, self._anchor, self._pull)
        for name, fall in step.falls.items():
            self.path[name] += fall
        return step.terms

    def finish(self, experience: Experience) -> list[Terms]:
        """Add the importance of each weight to this experience."""
        for name, parameter in self.setup.net.named_parameters():
            moved = (parameter.detach() - self._anchor[name]).square() + self._damping
            # without damping, a weight that did not move has 0 / 0: its importance is 0
            new = torch.where(moved > 0, self.path[name] / moved, 0).clamp_min(0)
            self.importance[name] = self.importance[name] + new if name in self.importance else new
        self.path = {}
        return super().finish(experience)

    def diagnostics(self) -> dict[str, float]:
        """Return ``held``, the share of weights that the next experience cannot move."""
        return {"held": held(self.setup, self._strength, self.importance)}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the net, the importances and, within an experience, the path so far."""
        return {"sgd": self.inner.state_dict(), "importance": self.importance, "path": self.path}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["sgd"])
        self.importance = on_device(self.setup.net, state["importance"])
        self.path = on_device(self.setup.net, state.get("path", {}))  # older states are of between two experiences
