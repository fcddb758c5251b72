"""Consolidation: cross-entropy, and a penalty on moving weights that earlier experiences need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from clsim.models.nets import Net
from clsim.objectives.importance import Weights, distance, held, on_device, pull, weights
from clsim.objectives.replay import replay
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Terms


class Consolidation(Objective):
    """L = CE + λ Σ Ω(θ − θ*)², with Ω ← decay · Ω + Ω_t after each experience. Final.

    θ* are the weights at the end of the experience before: one anchor and one importance for all tasks. The
    first experience has no penalty. Under SGD λΩ is at most 1 / (2·lr); see
    :func:`clsim.objectives.importance.pull`. With a memory, CE covers new ∪ replayed samples; the importance is that
    of the new ones. Memory beside the net: 1 M kept, and 2 M more (θ*, λΩ) while an experience is learnt.

    Args:
        setup: net, transform.
        measure: The function that measures the importance Ω_t of each weight to an experience, as tensors from 0.
        strength: The weight λ of the penalty.
        decay: The factor of earlier importances in each new sum; with 1 they are summed.
    """

    one_pass: ClassVar[bool] = True

    def __init__(
        self, setup: Setup, measure: Callable[[Setup, Exemplars], Weights], *, strength: float, decay: float = 1.0
    ) -> None:
        self._setup = setup
        self._measure = measure
        self._strength = strength
        self._decay = decay
        self._anchor: Weights = {}
        self._pull: Weights = {}
        self.importance: Weights = {}

    def begin(self, experience: Experience) -> None:
        """Copy the weights as the anchor, unless the net goes on from an earlier round on this experience."""
        if experience.again:
            return
        self._anchor = weights(self._setup.net) if self.importance else {}
        self._pull = pull(self._setup, self._strength, self.importance)

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return the cross-entropy and, from the second experience on, the penalty."""
        terms = replay(net, batch)
        if self.importance:
            terms["penalty"] = distance(net, self._anchor, self._pull)
        return terms

    def finish(self, experience: Experience) -> None:
        """Measure the importance of each weight to the experience, and add it."""
        new, old = self._measure(self._setup, experience.train), self.importance
        self.importance = {name: self._decay * old[name] + value if old else value for name, value in new.items()}

    def diagnostics(self) -> dict[str, float]:
        """Return ``held``, the share of weights that the next experience cannot move."""
        return {"held": held(self._setup, self._strength, self.importance)}

    def state_dict(self) -> dict[str, Any]:
        """Return the importances; between two experiences the anchor is the net itself."""
        return {"importance": self.importance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.importance = on_device(self._setup.net, state["importance"])
