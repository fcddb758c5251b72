"""RWalk: importance from a running Fisher, and from the path measured in steps of KL divergence."""

from __future__ import annotations

from typing import Any

import torch

from clsim.errors import InputError, at_least
from clsim.learners.regularisation.walking import walk
from clsim.learners.sgd import Sgd
from clsim.objectives.importance import Weights, on_device, pull, weights
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Setup, Terms


class RWalk(Around[Sgd]):
    """Riemannian walk: EWC with a moving average for a Fisher, and a path integral beside it. Final.

    L = CE + λ Σ (F̂ + ŝ)(θ − θ*)², θ* the weights when the experience begins. After every stretch of Δ steps (and the
    rest at the experience's end)

    - F ← αF' + (1 − α)F, F' the mean over the stretch of the squared gradients of CE, each of a whole batch (new ∪
      replayed samples), as in the authors' code, and not of a sample; the first F is F';
    - the experience's score grows by ΔL / (½F·Δθ² + ε): ΔL = −Σ g·δθ, what the weight's own moves took off the loss,
      by how far they moved the predictions, which is the KL divergence's second order.

    When the experience ends, what is negative of its score is set to 0, and s ← ½(s + score), the first s being the
    score: old scores halve with each task, and the net stays able to learn. F̂ and ŝ are F and s scaled to a largest
    value of 1. Under SGD λ(F̂ + ŝ) is at most 1 / (2·lr); see :func:`clsim.objectives.importance.pull`, and there which
    weights are covered.

    Args:
        setup: net, memory, transform, generators.
        strength: λ.
        fresh: α, the share of the newest stretch in F, above 0 to 1.
        every: Δ, steps in a stretch.
        damping: ε.

    Cost: 2 M kept (F, s); 7 M more in training (θ*, λ(F̂ + ŝ), the weights at the stretch's beginning, ΔL, F', the
    experience's score), and 2 M within a step.

    Source: Chaudhry et al., Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence
    (ECCV 2018).
    """

    def __init__(
        self, setup: Setup, *, strength: float = 1.0, fresh: float = 0.9, every: int = 10, damping: float = 1e-3
    ) -> None:
        at_least(0, "rwalk: ", strength=strength)
        if not 0 < fresh <= 1:
            raise InputError(f"rwalk: fresh: found {fresh:g}, allowed: above 0 to 1")
        if every < 1:
            raise InputError(f"rwalk: every: found {every}, allowed: 1 and more")
        if not damping > 0:
            raise InputError(f"rwalk: damping: found {damping:g}, allowed: above 0")
        super().__init__(setup, Sgd(setup))
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
        """F̂ + ŝ of each weight, from 0 to 2; empty before the first experience's end."""
        if not self.score:
            return {}
        fisher, score = _scaled(self.fisher), _scaled(self.score)
        return {name: fisher[name] + score[name] for name in fisher}

    def begin(self, experience: Experience) -> None:
        """The path starts at the weights as they are."""
        super().begin(experience)
        self._anchor = weights(self.setup.net)
        self._pull = pull(self.setup, self._strength, self.importance)
        self._walked = _zeros(self._anchor)
        self._start()

    def observe(self, batch: Exemplars) -> Terms:
        """One step along the gradient of cross-entropy and penalty; Fisher and path know of the first alone."""
        step = walk(self.setup, self.inner, batch, self._anchor, self._pull)
        for name, gradient in step.gradients.items():
            self._squares[name] += gradient.square()
            self.fall[name] += step.falls[name]
        self._steps += 1
        if self._steps == self._every:
            self._end_stretch()
        return step.terms

    def finish(self, experience: Experience) -> list[Terms]:
        """Halve the scores of before, and add half of this experience's."""
        self._end_stretch()
        new = {name: value.clamp_min(0) for name, value in self._walked.items()}
        self.score = {name: (self.score[name] + new[name]) / 2 for name in new} if self.score else new
        return super().finish(experience)

    def _start(self) -> None:
        """A stretch, at the weights as they are."""
        self._from = weights(self.setup.net)
        self.fall, self._squares, self._steps = _zeros(self._from), _zeros(self._from), 0

    def _end_stretch(self) -> None:
        """Its Fisher into the average, its fall of the loss into the score."""
        if not self._steps:
            return
        for name, parameter in self.setup.net.named_parameters():
            mean, old = self._squares[name] / self._steps, self.fisher.get(name)
            self.fisher[name] = mean if old is None else self._fresh * mean + (1 - self._fresh) * old
            moved = (parameter.detach() - self._from[name]).square()
            self._walked[name] += self.fall[name] / (self.fisher[name] * moved / 2 + self._damping)
        self._start()

    def state_dict(self) -> dict[str, Any]:
        """The net's, Fisher and scores; anchor and path begin anew with each experience."""
        return {"sgd": self.inner.state_dict(), "fisher": self.fisher, "score": self.score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["sgd"])
        self.fisher, self.score = (on_device(self.setup.net, state[name]) for name in ("fisher", "score"))


def _zeros(like: Weights) -> Weights:
    return {name: torch.zeros_like(value) for name, value in like.items()}


def _scaled(values: Weights) -> Weights:
    """By the largest of all; zeros stay zeros."""
    largest = torch.stack([value.max() for value in values.values()]).max()
    return {name: value / largest.clamp_min(torch.finfo(value.dtype).tiny) for name, value in values.items()}
