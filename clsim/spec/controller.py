"""The table of a spec for a controller of hyper-parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from clsim.errors import InputError
from clsim.spec.reader import Options


@dataclass(frozen=True)
class ControllerSpec:
    """What sets the learning rate and the method's trade-off in each experience.

    The defaults are the survey's. FACIL's way is ``carry = false``, ``skip_first = true``, ``decays = 7``.

    Attributes:
        name: ``none``, or ``stability-decay``; see :mod:`clsim.training.stability_decay`.
        decay: the learner's options that trade stability for plasticity: the larger, the less is forgotten. Without
            any, the method is trained once with the best learning rate. Whole numbers are rounded down.
        first: values of some of them that the search begins with, instead of those that the learner has without a
            controller.
        margin: p, the share of the best fine-tuning's validation accuracy that stability may cost.
        factor: α, which an option that costs more is multiplied by.
        decays: largest number of decays in an experience; the model after the last one is kept in any case.
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
