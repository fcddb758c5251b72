"""RWalk: the importance of weights, from a running Fisher and from their path, measured in KL divergence."""

from __future__ import annotations

from typing import Any

import torch

from clsim.errors import InputError, at_least
from clsim.learners.regularisation.walking import walk
from clsim.learners.sgd import Sgd
from clsim.objectives.among import Among
from clsim.objectives.importance import Weights, held, on_device, pull, weights
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Setup, Terms


class RWalk(Around[Sgd]):
    """Riemannian walk: EWC with a moving average of the Fisher, and a path integral in addition. Final.

    L = CE + λ Σ (F̂ + ŝ)(θ − θ*)², θ* the weights when the experience begins. After every stretch of Δ steps (and the
    rest at the experience's end)

    - F ← αF' + (1 − α)F, F' the mean over the stretch of the squared gradients of CE, each of a whole batch (new ∪
      replayed samples), as in the authors' code, and not of a sample; the first F is F';
    - the experience's score grows by ΔL / (½F·Δθ² + ε): ΔL = −Σ g·δθ, the fall of the loss due to the weight's own
      moves, divided by the second-order KL divergence of the predictions before and after these moves.

    When the experience ends, its negative scores are set to 0, and s ← ½(s + score), the first s being the score: old
    scores halve with each task, so that the net can go on learning. F̂ and ŝ are F and s scaled to a largest value of 1.
    Under SGD λ(F̂ + ŝ) is at most 1 / (2·lr); see :func:`clsim.objectives.importance.pull` and, for the weights that are
    covered, :mod:`clsim.objectives.importance`.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the penalty.
        fresh: The share α of the newest stretch in F, above 0 and at most 1.
        every: The number Δ of steps in a stretch.
        damping: The constant ε, which bounds the score of a weight that hardly moved.
        among: The classes that the cross-entropy of a new sample ranges over; see :class:`clsim.learners.sgd.Sgd`.

    Cost: 2 M kept (F, s); 7 M more in training (θ*, λ(F̂ + ŝ), the weights at the stretch's beginning, ΔL, F', the
    experience's score), and 2 M within a step.

    Source: Chaudhry et al., Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence
    (ECCV 2018).
    """

    def __init__(
        self,
        setup: Setup,
        *,
        strength: float = 1.0,
        fresh: float = 0.9,
        every: int = 10,
        damping: float = 1e-3,
        among: Among = "all",
    ) -> None:
        at_least(0, "rwalk: ", strength=strength)
        if not 0 < fresh <= 1:
            raise InputError(f"rwalk: fresh: found {fresh:g}, allowed: above 0 to 1")
        if every < 1:
            raise InputError(f"rwalk: every: found {every}, allowed: 1 and more")
        if not damping > 0:
            raise InputError(f"rwalk: damping: found {damping:g}, allowed: above 0")
        super().__init__(setup, Sgd(setup, among=among))
        self._strength, self._fresh, self._every, self._damping = strength, fresh, every, damping
        self._anchor: Weights = {}
        self._pull: Weights = {}
        self._from: Weights = {}
        self.fall: Weights = {}
        self._squares: Weights = {}
        self._steps = 0
        self._walked: Weights = {}
        self.fisher: Weights = {}
        self.score: Weights = {}

    @property
    def importance(self) -> Weights:
        """The importance F̂ + ŝ of each weight, from 0 to 2; empty before the end of the first experience."""
        if not self.score:
            return {}
        fisher, score = _scaled(self.fisher), _scaled(self.score)
        return {name: fisher[name] + score[name] for name in fisher}

    def begin(self, experience: Experience) -> None:
        """Copy the weights as anchor, and start the path there; a further round on the experience goes on with both."""
        super().begin(experience)
        if experience.again:
            return
        self._anchor = weights(self.setup.net)
        self._pull = pull(self.setup, self._strength, self.importance)
        self._walked = _zeros(self._anchor)
        self._start()

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step on cross-entropy and penalty; Fisher and path use the gradient of the cross-entropy alone."""
        step = walk(self.setup, self.inner, batch, self._anchor, self._pull)
        for name, gradient in step.gradients.items():
            self._squares[name] += gradient.square()
            self.fall[name] += step.falls[name]
        self._steps += 1
        if self._steps == self._every:
            self._end_stretch()
        return step.terms

    def finish(self, experience: Experience) -> list[Terms]:
        """Halve the earlier scores, and add half of this experience's."""
        self._end_stretch()
        new = {name: value.clamp_min(0) for name, value in self._walked.items()}
        self.score = {name: (self.score[name] + new[name]) / 2 for name in new} if self.score else new
        self._from, self.fall, self._squares, self._walked = {}, {}, {}, {}
        return super().finish(experience)

    def _start(self) -> None:
        """Start a stretch at the current weights."""
        self._from = weights(self.setup.net)
        self.fall, self._squares, self._steps = _zeros(self._from), _zeros(self._from), 0

    def _end_stretch(self) -> None:
        """Add the Fisher of the stretch to the average, and its fall of the loss to the score."""
        if not self._steps:
            return
        for name, parameter in self.setup.net.named_parameters():
            mean, old = self._squares[name] / self._steps, self.fisher.get(name)
            self.fisher[name] = mean if old is None else self._fresh * mean + (1 - self._fresh) * old
            moved = (parameter.detach() - self._from[name]).square()
            self._walked[name] += self.fall[name] / (self.fisher[name] * moved / 2 + self._damping)
        self._start()

    def diagnostics(self) -> dict[str, float]:
        """Return ``held``, the share of weights that the next experience cannot move."""
        return {"held": held(self.setup, self._strength, self.importance)}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the net, Fisher, scores and, within an experience, the path so far."""
        path = {"from": self._from, "fall": self.fall, "squares": self._squares, "walked": self._walked}
        return {
            "sgd": self.inner.state_dict(),
            "fisher": self.fisher,
            "score": self.score,
            "path": path,
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["sgd"])
        net, path = self.setup.net, state.get("path", {})  # older states are of between two experiences
        self.fisher, self.score = (on_device(net, state[name]) for name in ("fisher", "score"))
        self._from, self.fall, self._squares, self._walked = (
            on_device(net, path.get(name, {})) for name in ("from", "fall", "squares", "walked")
        )
        self._steps = state.get("steps", 0)


def _zeros(like: Weights) -> Weights:
    return {name: torch.zeros_like(value) for name, value in like.items()}


def _scaled(values: Weights) -> Weights:
    """Divide all values by the largest of them; zeros stay zeros."""
    largest = torch.stack([value.max() for value in values.values()]).max()
    return {name: value / largest.clamp_min(torch.finfo(value.dtype).tiny) for name, value in values.items()}
