"""SI: importance from the path that the weights took while they learnt."""

from __future__ import annotations

from typing import Any

import torch

from clsim.errors import at_least
from clsim.learners.regularisation.walking import walk
from clsim.learners.sgd import Sgd
from clsim.objectives.importance import Weights, on_device, pull, weights
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Setup, Terms


class Si(Around[Sgd]):
    """Synaptic intelligence: a weight matters by how much of the loss's fall its own moves account for. Final.

    L = CE + λ Σ Ω(θ − θ*)². Along the path of an experience ω = −Σ g·δθ, with g the gradient of CE alone (on new ∪
    replayed samples, before the penalty) and δθ the step that the optimizer took; for small steps of plain gradient
    descent Σω is the fall of the loss. At its end Ω += max(0, ω / (Δθ² + ξ)),
    Δθ the way from θ*, the weights at the experience's beginning. Under SGD λΩ is at most 1 / (2·lr); see
    :func:`clsim.objectives.importance.pull`. All weights are covered, the head's too: its rows of other tasks have no
    gradient under a mask, and so no importance. Running statistics of batch norm are no weights: they are not held.

    Args:
        setup: net, memory, transform, generators.
        strength: λ.
        damping: ξ, which bounds the importance of a weight that hardly moved.

    Cost: 1 M kept (Ω), 3 M more in training (θ*, ω, λΩ), and 2 M within a step.

    Source: Zenke, Poole & Ganguli, Continual Learning Through Synaptic Intelligence (ICML 2017), eq. 3-5
    """

    def __init__(self, setup: Setup, *, strength: float = 400.0, damping: float = 1e-3) -> None:
        at_least(0, "si: ", strength=strength, damping=damping)
        super().__init__(setup, Sgd(setup))
        self._strength, self._damping = strength, damping
        self._anchor: Weights = {}
        self._pull: Weights = {}
        self.path: Weights = {}
        self.importance: Weights = {}

    def begin(self, experience: Experience) -> None:
        """The path starts at the weights as they are."""
        super().begin(experience)
        self._anchor = weights(self.setup.net)
        self._pull = pull(self.setup, self._strength, self.importance)
        self.path = {name: torch.zeros_like(value) for name, value in self._anchor.items()}

    def observe(self, batch: Exemplars) -> Terms:
        """One step along the gradient of cross-entropy and penalty; the path knows of the first alone."""
        step = walk(self.setup, self.inner, batch, self._anchor, self._pull)
        for name, fall in step.falls.items():
            self.path[name] += fall
        return step.terms

    def finish(self, experience: Experience) -> list[Terms]:
        """Add what the path of this experience says."""
        for name, parameter in self.setup.net.named_parameters():
            moved = (parameter.detach() - self._anchor[name]).square() + self._damping
            # without damping, a weight that did not move has 0 / 0: it mattered nothing
            new = torch.where(moved > 0, self.path[name] / moved, 0).clamp_min(0)
            self.importance[name] = self.importance[name] + new if name in self.importance else new
        return super().finish(experience)

    def state_dict(self) -> dict[str, Any]:
        """The net's and the importances; anchor and path begin anew with each experience."""
        return {"sgd": self.inner.state_dict(), "importance": self.importance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["sgd"])
        self.importance = on_device(self.setup.net, state["importance"])
