"""What a search of hyper-parameters tries: an axis for each, its values, and the axes of a run by default.

A search tries settings of one method. So the default axes are the numbers that decide how much it learns and how much
it keeps: learning rate, weight decay, and the learner's own options that are numbers with a fraction. Words and whole
numbers, which make another method or cost more time, are searched where the user names them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from clsim.errors import InputError, nearest
from clsim.spec import registry
from clsim.spec.definitions import Parameter, Unread, definition
from clsim.spec.flags import as_text, leaves, parsed
from clsim.spec.kinds import Range, unbounded
from clsim.spec.run import TABLES, RunSpec

SPREAD = 10.0
"""How far a default axis reaches from the value that a run has by itself, as a factor to both sides."""

DECAYS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
"""Values of the weight decay by default; the run's own is among them, too."""

TASK = ("data", "stream", "labels", "evaluation")
"""Tables that say what the task is: settings that differ there cannot be held against each other."""

DIGITS = 3
"""Digits of a number that a search draws out of a range, so that people can read and repeat it."""


@dataclass(frozen=True)
class Axis:
    """The values of one key of a run's spec that a search tries.

    Attributes:
        key: the key, as ``--set`` takes it.
        choices: the values, of which each is tried as it is; empty: all numbers from ``low`` to ``high``.
        low, high: the ends of a range, which belong to it.
        log: whether small numbers are drawn as often as large ones: evenly by their logarithm.
        whole: whether the range has whole numbers only.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        where = f"--search {self.key}"
        if self.choices:
            try:
                json.dumps(self.choices, allow_nan=False)
            except (TypeError, ValueError):  # a date, or what is no number
                found = ", ".join(map(str, self.choices))
                raise InputError(f"{where}: found {found}, allowed: finite numbers, text, lists") from None
            if any(self.place(value) < i for i, value in enumerate(self.choices)):
                raise InputError(f"{where}: found {list(self.choices)}, allowed: each value once")
            return
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"{where}: found {self.low:g}..{self.high:g}, allowed: LOW..HIGH with LOW below HIGH")
        if self.log and self.low <= 0:
            raise InputError(f"{where}: found {self.low:g}..{self.high:g}:log, allowed: a range above 0")

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of the axis."""
        if self.choices:
            return any(type(one) is type(value) and one == value for one in self.choices)
        return type(value) in ((int,) if self.whole else (int, float)) and self.low <= value <= self.high

    def place(self, value: Any) -> Any:
        """Return where a value of the axis stands: among choices its place, from 0; in a range the number itself."""
        if not self.choices:
            return value
        return next(i for i, one in enumerate(self.choices) if type(one) is type(value) and one == value)

    def at(self, place: Any) -> Any:
        """Return the value at a place; a number of a range is rounded to :data:`DIGITS` digits, within the range.

        >>> Axis("optimizer.lr", low=0.01, high=1.0).at(0.0123456), Axis("learner.options.loss", ("a", "b")).at(1)
        (0.0123, 'b')
        """
        if self.choices:
            return self.choices[place]
        return place if self.whole else min(max(float(f"{place:.{DIGITS}g}"), self.low), self.high)

    @property
    def text(self) -> str:
        """The axis as ``--search`` takes it.

        >>> Axis("optimizer.lr", low=0.01, high=1.0, log=True).text, Axis("memory.batch_size", (5, 10)).text
        ('optimizer.lr=0.01..1.0:log', 'memory.batch_size=5,10')
        """
        if self.choices:
            return f"{self.key}={','.join(map(as_text, self.choices))}"
        return f"{self.key}={self.low}..{self.high}{':log' if self.log else ''}"


def read_axis(text: str, values: Sequence[str] | None = None) -> Axis:
    """Read an argument of ``--search``: ``table.key=LOW..HIGH``, with ``:log`` behind it, or ``table.key=VALUE,VALUE``.

    Args:
        text: the argument.
        values: its values, if they are split at the commas already; None: they hold no comma of their own.

    Raises:
        InputError: if it has another form.

    >>> read_axis("optimizer.lr=0.001..0.1:log")
    Axis(key='optimizer.lr', choices=(), low=0.001, high=0.1, log=True, whole=False)
    >>> read_axis("learner.options.alpha=0.1,0.5,1").choices
    (0.1, 0.5, 1)
    """
    key, equals, given = (part.strip() for part in text.partition("="))
    table = key.partition(".")[0]
    if not equals or not given or "." not in key:
        raise InputError(
            f"--search: found {text!r}, allowed: table.key=LOW..HIGH[:log] or table.key=VALUE,VALUE …, as in "
            "optimizer.lr=0.001..0.1:log"
        )
    if table not in TABLES:
        raise InputError(f"--search {key}: unknown table {table!r}; {nearest(table, TABLES)}")
    if table in TASK:
        raise InputError(
            f"--search {key}: found a key of the table {table!r}, which says what the task is, not how it is learnt; "
            f"allowed: a key of another table than {', '.join(TASK)}"
        )
    ends, colon, scale = given.partition(":")
    low, dots, high = ends.partition("..")
    if not dots or "/" in given:  # a path is no range
        return Axis(key, tuple(parsed(value) for value in values or given.split(",")))
    if colon and scale != "log":
        raise InputError(f"--search {key}: found {scale!r} behind the colon, allowed: log")
    numbers = [parsed(end) for end in (low, high)]
    if not all(type(number) in (int, float) for number in numbers):
        raise InputError(f"--search {key}: found {ends!r}, allowed: two numbers, as in 0.001..0.1")
    return Axis(key, low=numbers[0], high=numbers[1], log=bool(colon), whole=all(type(n) is int for n in numbers))


def usual_axes(spec: RunSpec) -> tuple[Axis, ...]:
    """Return the axes that a run is searched on by default; see the head of this module.

    A number x is searched from x / :data:`SPREAD` to x · :data:`SPREAD`, by its logarithm; one of 1 or less at most up
    to 1, as such an option may be a share; where its annotation states bounds, these hold. An option that is 0 is left
    out unless both its bounds are stated. A controller sets the learning rate and the options that it decays itself, so
    that these are left out there.
    """
    rate = spec.optimizer.lr
    found = [Axis("optimizer.lr", low=rate / SPREAD, high=rate * SPREAD, log=True)]
    if spec.controller.name != "none":
        found = []
    found.append(Axis("optimizer.weight_decay", tuple(sorted({*DECAYS, spec.optimizer.weight_decay}))))
    for option in _options(spec):
        value = spec.learner.options.get(option.name, option.default)
        if option.name not in spec.controller.decay or spec.controller.name == "none":
            axis = _around(f"learner.options.{option.name}", option.kind, value)
            found += [] if axis is None else [axis]
    return tuple(found)


def default_of(spec: RunSpec, key: str) -> Any:
    """Return the value of a key in a run's own spec, or its default; None where neither is said."""
    known = leaves({table: vars(getattr(spec, table)) for table in TABLES})
    if key in known:
        return known[key]
    return {f"learner.options.{option.name}": option.default for option in _options(spec)}.get(key)


def combinations(axes: Sequence[Axis], most: int) -> list[dict[str, Any]]:
    """List all combinations of the values of axes that have choices only; of many the first ``most``.

    >>> combinations([Axis("a.b", (1, 2)), Axis("a.c", ("x", "y"))], 3)
    [{'a.b': 1, 'a.c': 'x'}, {'a.b': 1, 'a.c': 'y'}, {'a.b': 2, 'a.c': 'x'}]
    """
    every = itertools.product(*(axis.choices for axis in axes))
    return [{axis.key: v for axis, v in zip(axes, values, strict=True)} for values in itertools.islice(every, most)]


def _options(spec: RunSpec) -> list[Parameter]:
    """List the options of the run's learner as its source shows them; none where it does not."""
    target = registry.target_of("learners", spec.learner.name)
    try:
        return definition(target).options if target else []
    except Unread:
        return []


def _around(key: str, kind: Any, value: Any) -> Axis | None:
    """Make the default axis of an option; None if it is searched only where the user names it."""
    if unbounded(kind) is not float or type(value) not in (int, float):
        return None
    marks = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    bounds = next((mark for mark in marks if isinstance(mark, Range)), Range())
    if value <= 0:
        shut = bounds.least is not None and bounds.most is not None
        return Axis(key, low=float(bounds.least), high=float(bounds.most)) if shut else None  # type: ignore[arg-type]
    high = value * SPREAD if value > 1 else min(1.0, value * SPREAD)
    if bounds.most is not None:
        high = min(high, bounds.most)
    if bounds.below is not None:
        high = min(high, (value + bounds.below) / 2)
    low = value / SPREAD if bounds.least is None else max(value / SPREAD, bounds.least)
    return Axis(key, low=low, high=float(high), log=True) if low < high else None
