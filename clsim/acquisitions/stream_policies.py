"""Policies that decide on each sample of a stream as it comes: ask for its label now, or never.

A policy walks over a batch in the order of its rows, since each decision changes the state for the next one. The names
and the defaults of the options are those of scikit-activeml, whose code (version of 2025-04) was read for the forms of
the rules where the papers could not be.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clsim.acquisitions.acquisition import Acquisition
from clsim.acquisitions.nearest_windows import NearestWindow
from clsim.errors import InputError, at_least, nearest
from clsim.models.nets import Net
from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import margins

Space = Literal["inputs", "features"]
Rule = Literal["fixed", "variable", "random-variable", "random"]


class StreamPolicy(Acquisition):
    """Policy that asks for labels within a budget, sample by sample, and cannot come back to one. Abstract.

    A budget manager remembers what was spent, u ← u·(w − 1)/w + asked, and lets the policy ask only while u/w < B. So
    of its first n samples the policy asks for fewer than (w·B + 1 − B)·(1 + n/w): in the long run for B + (1 − B)/w of
    them at most, and for more at the beginning, when nothing is remembered. The budget of a call is a second, hard
    limit. While nothing may be asked for, no threshold changes and nothing is drawn.

    Decisions depend on the samples and their order, not on where a batch ends, if the net stays the same. All draws
    use a generator of the policy's own, which begins where ``rng`` stands and is part of the state.

    Args:
        net: the net that is trained.
        rng: generator on the CPU, whose state the policy copies.
        budget: B, the share of samples whose label may be asked for.
        w: the number of samples that the budget manager looks back.

    Attributes:
        budget: B; a run sets it for each experience, to ``labelling.budget`` over the number of its samples.
    """

    def __init__(self, net: Net, rng: torch.Generator, *, budget: float = 0.1, w: int = 100) -> None:
        _share(budget=budget)
        at_least(1, w=w)
        self.budget = budget
        self._w = w
        self._spent = 0.0
        self._rng = torch.Generator()
        self._rng.set_state(rng.get_state())

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select the rows whose label is asked for, in the order of the pool; ``rng`` is not used."""
        said = torch.stack([self.confidences(pool).double(), pool.visible.sum(1).double()], 1)
        dense = self.dense(pool)
        asked: list[int] = []
        for row, (confidence, classes) in enumerate(said.tolist()):  # a decision must reach the host: once a batch
            if self.decide(confidence, int(classes), dense[row], len(asked) < budget):
                asked.append(row)
        return Selection(torch.tensor(asked, dtype=torch.int64, device=pool.data.device))

    def confidences(self, pool: Pool) -> Float[Tensor, " n"]:
        """Compute how sure the net is of each sample: the largest probability among the classes of its task."""
        return pool.probabilities.amax(1)

    def dense(self, pool: Pool) -> list[bool]:
        """Say of each sample whether it may be asked for at all, by where it lies; by default yes."""
        return [True] * len(pool)

    def decide(self, confidence: float, classes: int, dense: bool, room: bool) -> bool:
        """Decide on one sample, and remember the decision.

        Args:
            confidence: how sure the net is of the sample.
            classes: number of classes of its task.
            dense: whether it may be asked for by where it lies.
            room: whether the budget of the call leaves a label.
        """
        asked = room and dense and self._left() and self.asks(confidence, classes)
        self._remember(asked)
        return asked

    @abstractmethod
    def asks(self, confidence: float, classes: int) -> bool:
        """Apply the rule to a sample, while a label may be asked for, and let its threshold follow."""

    def _left(self) -> bool:
        # with B = 1 all may be asked for: u < w always, but it is rounded to w in the end
        return self.budget >= 1 or self._spent / self._w < self.budget

    def _remember(self, asked: bool) -> None:
        self._spent = self._spent * (self._w - 1) / self._w + asked

    def state_dict(self) -> dict[str, Any]:
        return {"spent": self._spent, "rng": self._rng.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._spent = state["spent"]
        self._rng.set_state(state["rng"].cpu())


class ThresholdPolicy(StreamPolicy):
    """Policy with a threshold θ that falls by a share when a sample is asked for, and else rises by it. Abstract.

    Args:
        net: the net that is trained.
        rng: generator on the CPU, whose state the policy copies.
        theta: θ before the first sample.
        s: the share of θ by which it changes.
        budget: B, the share of samples whose label may be asked for.
        w: the number of samples that the budget manager looks back.
    """

    def __init__(
        self, net: Net, rng: torch.Generator, theta: float, s: float, *, budget: float = 0.1, w: int = 100
    ) -> None:
        super().__init__(net, rng, budget=budget, w=w)
        at_least(0, theta=theta)
        _share(s=s)
        self._theta, self._s = theta, s

    def _below(self, confidence: float, factor: float = 1.0) -> bool:
        """Ask for what is below θ·factor, and let θ follow."""
        asked = confidence < self._theta * factor
        self._theta *= 1 - self._s if asked else 1 + self._s
        return asked

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "theta": self._theta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._theta = state["theta"]


class FixedUncertainty(StreamPolicy):
    """Ask for a sample of which the net is unsure: max_c p_c ≤ 1/C + B·(1 − 1/C). Final.

    C counts the classes that p ranges over, those of the sample's task. The threshold never moves: a net that is sure
    of classes that it has not met, as after an earlier experience of a class-incremental stream, asks for nothing.

    Args:
        budget: B, the share of samples whose label may be asked for.
        w: the number of samples that the budget manager looks back.

    Needs: probabilities, one sample after the other.
    Cost: O(n·C) time and memory.
    Source: Žliobaitė, Bifet, Pfahringer & Holmes, Active Learning With Drifting Streaming Data (TNNLS 2014); threshold
        as in scikit-activeml's FixedUncertainty.
    """

    def asks(self, confidence: float, classes: int) -> bool:
        return _fixed(confidence, classes, self.budget)


class VariableUncertainty(ThresholdPolicy):
    """Ask for a sample of which the net is unsure by a threshold that follows the stream: max_c p_c < θ. Final.

    θ ← θ·(1 − s) after a sample that was asked for, θ·(1 + s) after another one.

    Args:
        budget: B, the share of samples whose label may be asked for.
        w: the number of samples that the budget manager looks back.
        theta: θ before the first sample.
        s: the step by which θ changes.

    Needs: probabilities, one sample after the other.
    Cost: O(n·C) time and memory.
    Source: Žliobaitė, Bifet, Pfahringer & Holmes, Active Learning With Drifting Streaming Data (TNNLS 2014).
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        budget: float = 0.1,
        w: int = 100,
        theta: float = 1.0,
        s: float = 0.01,
    ) -> None:
        super().__init__(net, rng, theta, s, budget=budget, w=w)

    def asks(self, confidence: float, classes: int) -> bool:
        return self._below(confidence)


class RandomVariableUncertainty(ThresholdPolicy):
    """Ask by a threshold that follows the stream and is drawn anew for each sample: max_c p_c < θ·η. Final.

    η ~ N(1, δ); θ changes as for ``variable-uncertainty``. So samples of which the net is sure are asked for at times,
    which finds changes far from the boundary. Where η is below 0, nothing is asked for, as in scikit-activeml; MOA
    divides by η instead, and asks.

    Args:
        budget: B, the share of samples whose label may be asked for.
        w: the number of samples that the budget manager looks back.
        theta: θ before the first sample.
        s: the step by which θ changes.
        delta: δ, the standard deviation of η.

    Needs: probabilities, one sample after the other.
    Cost: O(n·C) time and memory.
    Source: Žliobaitė, Bifet, Pfahringer & Holmes, Active Learning With Drifting Streaming Data (TNNLS 2014).
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        budget: float = 0.1,
        w: int = 100,
        theta: float = 1.0,
        s: float = 0.01,
        delta: float = 1.0,
    ) -> None:
        super().__init__(net, rng, theta, s, budget=budget, w=w)
        at_least(0, delta=delta)
        self._delta = delta

    def asks(self, confidence: float, classes: int) -> bool:
        return self._below(confidence, _eta(self._delta, self._rng))


class Split(ThresholdPolicy):
    """Decide on a share v of the samples at random, and on the others by variable uncertainty. Final.

    Each sample belongs to the random share with probability v, and is then asked for with probability B; θ follows the
    other samples alone. The random share shows changes anywhere in the stream. The form is that of scikit-activeml.

    Args:
        budget: B, the share of samples whose label may be asked for.
        w: the number of samples that the budget manager looks back.
        theta: θ before the first sample.
        s: the step by which θ changes.
        v: the share of samples that are decided on at random.

    Needs: probabilities, one sample after the other.
    Cost: O(n·C) time and memory.
    Source: Žliobaitė, Bifet, Pfahringer & Holmes, Active Learning With Drifting Streaming Data (TNNLS 2014).
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        budget: float = 0.1,
        w: int = 100,
        theta: float = 1.0,
        s: float = 0.01,
        v: float = 0.1,
    ) -> None:
        super().__init__(net, rng, theta, s, budget=budget, w=w)
        _share(v=v)
        self._v = v

    def asks(self, confidence: float, classes: int) -> bool:
        if _uniform(self._rng) < self._v:
            return _uniform(self._rng) < self.budget
        return self._below(confidence)


class DensityBased(ThresholdPolicy):
    """Ask for a sample that lies among many, if its margin is small: p₍₁₎ − p₍₂₎ < θ·η. Final.

    A sample lies among many if it is the new nearest neighbour of at least one of the last ``window_size`` samples.
    η ~ N(1, δ), and θ changes as for ``variable-uncertainty``, but rests at a sample that lies alone, as in the
    authors' code in MOA; in scikit-activeml such a sample raises it. The budget is counted, as in both: a label may be
    asked for while fewer than B·t were, at the t-th sample. So of n samples at most ⌈B·n⌉ are asked for.

    Args:
        budget: B, the share of samples whose label may be asked for.
        theta: θ before the first sample.
        s: the step by which θ changes.
        delta: δ, the standard deviation of η.
        window_size: number of samples in the window.
        space: where samples are neighbours: among the ``inputs``, as in the paper, or among the ``features`` of the net
            as it was when each sample came.

    Needs: probabilities and inputs (or features), one sample after the other.
    Cost: O(n·window·d) time, O(window·d) memory.
    Source: Ienco, Žliobaitė & Pfahringer, High Density-Focused Uncertainty Sampling for Active Learning over Evolving
        Stream Data (BigMine 2014); scikit-activeml's StreamDensityBasedAL.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        budget: float = 0.1,
        theta: float = 1.0,
        s: float = 0.01,
        delta: float = 1.0,
        window_size: int = 100,
        space: Space = "inputs",
    ) -> None:
        super().__init__(net, rng, theta, s, budget=budget)
        at_least(0, delta=delta)
        at_least(1, window_size=window_size)
        self._delta = delta
        self._window, self._space = NearestWindow(window_size, "oldest"), _one_of(Space, space=space)
        self._asked = self._seen = 0

    def confidences(self, pool: Pool) -> Float[Tensor, " n"]:
        """Compute the margin between the two likeliest classes."""
        return margins(pool.probabilities)

    def dense(self, pool: Pool) -> list[bool]:
        return [count > 0 for count in self._window.counts(_places(pool, self._space))]

    def asks(self, confidence: float, classes: int) -> bool:
        return self._below(confidence, _eta(self._delta, self._rng))

    def _left(self) -> bool:
        return self._asked < self.budget * (self._seen + 1)

    def _remember(self, asked: bool) -> None:
        self._asked += asked
        self._seen += 1

    def state_dict(self) -> dict[str, Any]:
        own = {"asked": self._asked, "seen": self._seen, "window": self._window.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._asked, self._seen = state["asked"], state["seen"]
        self._window.load_state_dict(state["window"])


class CognitiveDualQuery(ThresholdPolicy):
    """Ask for a sample that is near what the policy still remembers, if the net is unsure of it too. Final.

    A sample is near if it is the new nearest neighbour of at least ``density_threshold`` samples of a small window. A
    member whose strength exp(−Δt / (h + 1)) is smallest leaves the full window, with h its new nearest neighbours so
    far and Δt the number of samples since the last of them. Then the rule decides. A sample that is not near leaves
    budget manager and threshold as they are, so that fewer than a share B of all samples is asked for. The form is that
    of scikit-activeml, but for the size of the window, which there holds one sample more than it says.

    Args:
        budget: B, the share of samples whose label may be asked for.
        w: the number of samples that the budget manager looks back.
        theta: θ before the first sample.
        s: the step by which θ changes.
        delta: δ, the standard deviation of η.
        rule: the rule of the second question: that of ``fixed``, ``variable`` or ``random-variable`` uncertainty, or
            ``random``: ask with probability B.
        cognition_window_size: number of samples in the window.
        density_threshold: number of new nearest neighbours from which on a sample is near.
        force_full_budget: whether a sample that is not near counts for budget manager and threshold, as one that was
            not asked for.
        space: where samples are neighbours: among the ``inputs``, as in the paper, or among the ``features`` of the net
            as it was when each sample came.

    Needs: probabilities and inputs (or features), one sample after the other.
    Cost: O(n·window·d) time, O(window·d) memory.
    Source: Liu, Xue, Wu, Zhou, Yang, Li & Cao, Online Active Learning for Drifting Data Streams (TNNLS 2023);
        scikit-activeml's CognitiveDualQueryStrategy.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        budget: float = 0.1,
        w: int = 100,
        theta: float = 1.0,
        s: float = 0.01,
        delta: float = 1.0,
        rule: Rule = "random-variable",
        cognition_window_size: int = 10,
        density_threshold: int = 1,
        force_full_budget: bool = False,
        space: Space = "inputs",
    ) -> None:
        super().__init__(net, rng, theta, s, budget=budget, w=w)
        at_least(0, delta=delta, density_threshold=density_threshold)
        at_least(1, cognition_window_size=cognition_window_size)
        self._delta, self._rule = delta, _one_of(Rule, rule=rule)
        self._window = NearestWindow(cognition_window_size, "weakest")
        self._near, self._all, self._space = density_threshold, force_full_budget, _one_of(Space, space=space)

    def dense(self, pool: Pool) -> list[bool]:
        return [count >= self._near for count in self._window.counts(_places(pool, self._space))]

    def decide(self, confidence: float, classes: int, dense: bool, room: bool) -> bool:
        if dense:
            return super().decide(confidence, classes, dense, room)
        if self._all:
            if room and self._left():
                self.asks(math.inf, classes)
            self._remember(False)
        return False

    def asks(self, confidence: float, classes: int) -> bool:
        if self._rule == "fixed":
            return _fixed(confidence, classes, self.budget)
        if self._rule == "random":
            return _uniform(self._rng) < self.budget
        return self._below(confidence, _eta(self._delta, self._rng) if self._rule != "variable" else 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "window": self._window.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._window.load_state_dict(state["window"])


def _fixed(confidence: float, classes: int, budget: float) -> bool:
    return confidence <= 1 - (1 - budget) * (1 - 1 / classes)  # the same threshold, and exactly 1 with B = 1


def _eta(delta: float, rng: torch.Generator) -> float:
    return 1 + delta * float(torch.randn(1, generator=rng))


def _uniform(rng: torch.Generator) -> float:
    return float(torch.rand(1, generator=rng))


def _places(pool: Pool, space: str) -> Float[Tensor, "n d"]:
    """Return what distances are computed of: the normalised inputs, or the features."""
    return pool.features if space == "features" else pool.inputs(slice(None)).flatten(1).float()


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name}: found {value:g}, allowed: a share from 0 to 1")


def _one_of(kind: Any, **values: str) -> str:
    [(name, value)] = values.items()
    if value not in get_args(kind):
        raise InputError(f"{name}: found {value!r}; {nearest(value, get_args(kind))}")
    return value
