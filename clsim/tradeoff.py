"""Stability decay: the search for a method's trade-off, from the current experience alone. No torch, no training here.

    for experience t:
      grid = first_rates if t == 1 else rates
      lr*, A* = the best validation accuracy of fine-tuning from the previous model      # maximal plasticity search
      repeat                                                                             # stability decay
        train the method with (H, lr*) from the previous model
        if validation accuracy >= (1 - margin) * A*: accept
        else: H <- factor * H, at most `decays` times, then keep the last model

Source: De Lange et al., A continual learning survey: Defying forgetting in classification tasks (TPAMI 2021)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from clsim.errors import InputError
from clsim.strict import Options, arguments

_ROUND_OFF = 1e-9
"""Of (1 − margin) · A*: two shares of the same n samples are at least 1/n apart."""


@dataclass(frozen=True)
class ControllerSpec:
    """What sets the learning rate and the method's trade-off in each experience.

    The defaults are the survey's. FACIL's way is ``carry = false``, ``skip_first = true``, ``decays = 7``.

    Attributes:
        name: ``none``, or ``stability-decay``; see :mod:`clsim.tradeoff`.
        decay: the learner's options that trade stability for plasticity: the larger, the less is forgotten. Without
            any, the method is trained once with the best learning rate. Whole numbers are rounded down.
        first: values of some of them that the search begins with, instead of those that the learner has without a
            controller.
        margin: p, the share of the best fine-tuning's validation accuracy that stability may cost.
        factor: α, which an option that costs more is multiplied by.
        decays: at most so many in an experience; the model after the last one is kept, whatever its accuracy.
        carry: whether an experience begins with the values that the one before ended with; else with those given.
        skip_first: whether the first experience, where there is nothing to forget, is trained once, with no decay.
        first_rates: learning rates of the search in the first experience.
        rates: learning rates of the search in all others.
    """

    name: Literal["none", "stability-decay"] = "none"
    decay: tuple[str, ...] = ()
    first: Options = field(default_factory=dict)
    margin: float = 0.2
    factor: float = 0.5
    decays: int = 10
    carry: bool = True
    skip_first: bool = False
    first_rates: tuple[float, ...] = (1e-1, 5e-2, 1e-2, 5e-3, 1e-3, 5e-4, 1e-4)
    rates: tuple[float, ...] = (1e-2, 5e-3, 1e-3, 5e-4, 1e-4)

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise InputError(f"controller.margin: found {self.margin}, allowed: a share from 0 to below 1")
        if not 0 < self.factor < 1:
            raise InputError(f"controller.factor: found {self.factor}, allowed: above 0 and below 1")
        if self.decays < 0:
            raise InputError(f"controller.decays: found {self.decays}, allowed: 0 or more")
        if len(set(self.decay)) < len(self.decay):
            raise InputError(f"controller.decay: found {list(self.decay)}, allowed: each option once")
        for name, value in self.first.items():
            if name not in self.decay:
                raise InputError(f"controller.first: found {name!r}, allowed: the options of controller.decay")
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise InputError(f"controller.first.{name}: found {value!r}, allowed: a finite number above 0")
        for key, rates in (("first_rates", self.first_rates), ("rates", self.rates)):
            if not rates or not all(0 < rate < math.inf for rate in rates):
                raise InputError(f"controller.{key}: found {list(rates)}, allowed: one number above 0, or more")


Phase = Literal["plasticity", "stability", "once"]
Decision = Literal["best so far", "no better", "accepted", "decayed", "last", "kept"]
Values = dict[str, float]
"""Stability hyper-parameters by name: H."""


@dataclass(frozen=True)
class Trial:
    """A training of the experience, from where the experience before ended.

    Attributes:
        phase: fine-tuning (``plasticity``), the method in search of its trade-off (``stability``), or ``once``.
        lr: learning rate.
        values: H; empty in fine-tuning.
        needed: validation accuracy to exceed (``plasticity``: the best so far) or to reach.
        last: whether its model is kept, whatever its accuracy.
    """

    phase: Phase
    lr: float
    values: Values
    needed: float
    last: bool = False

    def decision(self, accuracy: float) -> Decision:
        """What follows from the validation accuracy."""
        if self.phase == "plasticity":
            return "best so far" if accuracy > self.needed else "no better"
        if self.phase == "once":
            return "kept"
        if accuracy >= self.needed - _ROUND_OFF:
            return "accepted"
        return "last" if self.last else "decayed"


@dataclass(frozen=True)
class Attempt:
    """What became of a trial.

    Attributes:
        phase, lr, values, needed: of the trial.
        accuracy: on the experience's own validation part.
        decision: what followed.
        cost: of this attempt alone; see :class:`clsim.pool.Cost`.
    """

    phase: Phase
    lr: float
    values: Options
    needed: float
    accuracy: float
    decision: Decision
    cost: Options

    @property
    def final(self) -> bool:
        """Whether its model is the one that the search ends with."""
        return self.decision in ("accepted", "last", "kept")

    @property
    def seconds(self) -> float:
        """Of training and selection."""
        return self.cost.get("train_seconds", 0) + self.cost.get("select_seconds", 0)


@dataclass(frozen=True)
class Search:
    """The trace of one experience.

    Attributes:
        experience: its position in the stream.
        attempts: in order; the last one's model was kept.
    """

    experience: int
    attempts: tuple[Attempt, ...]

    def __post_init__(self) -> None:
        if not self.attempts or not self.kept.final:
            raise InputError("attempts: the last one is none that a search ends with")

    @property
    def kept(self) -> Attempt:
        """The attempt whose model the run goes on with."""
        return self.attempts[-1]

    @property
    def best(self) -> float:
        """A*: the best validation accuracy of fine-tuning."""
        return max((a.accuracy for a in self.attempts if a.phase == "plasticity"), default=math.nan)

    @property
    def seconds(self) -> float:
        """Of the whole search."""
        return sum(attempt.seconds for attempt in self.attempts)


def search(spec: ControllerSpec, start: Mapping[str, float], *, first: bool, train: Callable[[Trial], float]) -> None:
    """Both phases; the model of the last trial is the one to keep.

    Of equal accuracies in the first phase, the earlier rate of the grid wins.

    Args:
        start: H, with which the experience begins.
        first: whether it is the first experience.
        train: carries out a trial, and returns its validation accuracy.
    """
    rate, best = 0.0, -1.0
    for lr in spec.first_rates if first else spec.rates:
        accuracy = train(Trial("plasticity", lr, {}, best))
        if accuracy > best:
            rate, best = lr, accuracy
    if not start or (first and spec.skip_first):
        train(Trial("once", rate, dict(start), 0.0))
        return
    needed = (1 - spec.margin) * best
    for decays, values in enumerate(chain([dict(start)], decayed(start, spec.factor))):
        trial = Trial("stability", rate, values, needed, last=decays == spec.decays)
        if trial.decision(train(trial)) != "decayed":
            return


def decayed(start: Mapping[str, float], factor: float) -> Iterator[Values]:
    """One after the other: each value alone, the others restored; then all of them, and again from there.

    >>> from itertools import islice
    >>> [tuple(values.values()) for values in islice(decayed({"strength": 5.0, "code": 2.0}, 0.5), 5)]
    [(2.5, 2.0), (5.0, 1.0), (2.5, 1.0), (1.25, 1.0), (2.5, 0.5)]
    >>> [values["margin"] for values in islice(decayed({"margin": 1.0}, 0.5), 3)]
    [0.5, 0.25, 0.125]
    """
    values = dict(start)
    while True:
        lower = {name: type(value)(factor * value) for name, value in values.items()}
        if len(values) > 1:
            yield from ({**values, name: lower[name]} for name in values)
        values = lower
        yield values


def read_search(data: Any, where: str) -> Search:
    """A search as a record has it.

    Raises:
        InputError: naming ``where``, and what is wrong.
    """
    return Search(**arguments(Search, data, where, ""))
