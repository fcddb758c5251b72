"""Types of options: which values are of a type, within which bounds, and how a message says so.

A component states the bounds of a number in its annotation, as in ``passes: Annotated[int, Range(1)]``, or by a name of
this module: ``passes: Count``.
"""

from __future__ import annotations

import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from clsim.errors import nearest

MOST_INT = 10**9
"""Largest size of a whole number that does not state its bounds: no machine serves more."""

MOST_FLOAT = 3.4028234663852886e38
"""Largest size of a number that does not state its bounds: that of a 32-bit float, in which nets compute."""


@dataclass(frozen=True)
class Range:
    """The bounds of a number.

    Attributes:
        least, most: the lowest and the highest number that is allowed; None: those of all numbers of the type.
        above, below: numbers that are not reached themselves; None: there are none.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float, limit: float) -> bool:
        """Whether a number lies within the bounds; of a side without one, up to the limit of its type."""
        low = -limit if self.least is None else self.least
        high = limit if self.most is None else self.most
        above = self.above is None or value > self.above
        return low <= value <= high and above and (self.below is None or value < self.below)

    def in_words(self, limit: float) -> str:
        """Describe the bounds.

        >>> Range(0, 1).in_words(10**9), Range(above=0).in_words(1e38), Range(1).in_words(10**9), Range().in_words(9)
        ('from 0 to 1', 'above 0', 'from 1 to 1,000,000,000', 'from -9 to 9')
        """
        words = [f"above {_number(self.above)}"] if self.above is not None else []
        words += [f"from {_number(self.least)}"] if self.least is not None else []
        if self.below is not None:
            return " and ".join([*words, f"below {_number(self.below)}"])
        if self.most is None and isinstance(limit, float) and words:
            return words[0]
        if not words:
            words = [f"from {_number(-limit)}"]
        return f"{words[0]} to {_number(limit if self.most is None else self.most)}"


Count = Annotated[int, Range(1)]
Width = Annotated[int, Range(1, 65536)]
Few = Annotated[int, Range(1, 1000)]
CountOrNone = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(0)]


@dataclass(frozen=True)
class _Simple:
    """A type of plain values: those that belong to it, how they are called, and the limit of numbers."""

    type: type
    words: str
    limit: float = 0


_SIMPLE: dict[Any, _Simple] = {
    bool: _Simple(bool, "true or false"),
    int: _Simple(numbers.Integral, "a whole number", MOST_INT),
    float: _Simple(numbers.Real, "a number", MOST_FLOAT),
    str: _Simple(str, "text"),
    type(None): _Simple(type(None), "none"),
}


def unbounded(kind: Any) -> Any:
    """Return a type without its bounds; ``int`` also for its name.

    >>> unbounded(Count), unbounded(float), unbounded("int")
    (<class 'int'>, <class 'float'>, <class 'int'>)
    """
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    return int if kind == "int" else kind


def fits(kind: Any, value: Any) -> bool:
    """Whether a value is of an option's type; true where the type is not known.

    >>> fits(float, 1), fits(int, True), fits(Share, 1.5), fits(float, math.nan), fits(Sequence[int], [1, 2.5])
    (True, False, False, False, False)
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        bounds = [mark for mark in inner[1:] if isinstance(mark, Range)]
        if not bounds or inner[0] not in (int, float):
            return fits(inner[0], value)
        return _is_simple(inner[0], value) and all(mark.holds(value, _SIMPLE[inner[0]].limit) for mark in bounds)
    if origin in (typing.Union, types.UnionType):
        return any(fits(part, value) for part in inner)
    if origin is Literal:
        return any(type(value) is type(name) and value == name for name in inner)
    if kind in _SIMPLE:
        limit = _SIMPLE[kind].limit
        return _is_simple(kind, value) and (not limit or Range().holds(value, limit))
    if kind in _LISTS or origin in _LISTS:
        return _fits_list(inner, value, fixed=origin is tuple and inner[1:] != (Ellipsis,))
    if kind in _TABLES or origin in _TABLES:
        return not _plain(value) and not isinstance(value, (list, tuple))
    if origin is Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type)
    kind = origin if isinstance(origin, type) else kind
    return not isinstance(kind, type) or _fits_class(kind, value)


def in_words(kind: Any) -> str:
    """Describe the values of a type: those that a spec can hold, as people type them.

    >>> in_words(int | None), in_words(Sequence[float]), in_words(Literal["l1", "l2"]), in_words(Any)
    ('a whole number or none', 'a list, each a number', 'l1 or l2', 'an object of Python')
    >>> in_words(Share), in_words(Annotated[int, Range(1)]), in_words(Positive | None)
    ('a number from 0 to 1', 'a whole number from 1', 'a number above 0 or none')
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        bounds = [mark for mark in inner[1:] if isinstance(mark, Range)]
        return " ".join([in_words(inner[0]), *(mark.in_words(math.inf) for mark in bounds)])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, inner)))
    if origin is Literal:
        *first, last = map(str, inner)
        return f"{', '.join(first)} or {last}" if first else last
    if kind in _LISTS or origin in _LISTS:
        return f"a list, each {in_words(inner[0])}" if inner else "a list"
    if kind in _TABLES or origin in _TABLES:
        return "a table"
    return _SIMPLE[kind].words if kind in _SIMPLE else "an object of Python"


def allowed(kind: Any, value: Any) -> str:
    """Say what is allowed in the place of a value that does not fit: the nearest choice, or the bounds of a number.

    >>> allowed(Literal["euclidean", "cosine"], "euclidian")
    "did you mean 'euclidean'? (allowed: cosine, euclidean)"
    >>> allowed(int, 10**12), allowed(float, "x")
    ('allowed: a whole number from -1,000,000,000 to 1,000,000,000', 'allowed: a number')
    """
    parts = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    names = [name for part in parts if typing.get_origin(part) is Literal for name in typing.get_args(part)]
    if names and isinstance(value, str):
        return nearest(value, [*map(str, names), *(["none"] if type(None) in parts else [])])
    words = in_words(kind)
    for part in parts:
        own = unbounded(part)
        if own in (int, float) and _is_simple(own, value) and math.isfinite(value):
            bounds = [mark for mark in typing.get_args(part)[1:] if isinstance(mark, Range)]
            limits = " and ".join(mark.in_words(_SIMPLE[own].limit) for mark in bounds or [Range()])
            words = words.replace(in_words(part), f"{_SIMPLE[own].words} {limits}", 1)
    return f"allowed: {words}"


_LISTS: tuple[Any, ...] = (Sequence, list, tuple)
_TABLES: tuple[Any, ...] = (Mapping, dict)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _plain(value: Any) -> bool:
    return isinstance(value, (str, numbers.Number, type(None)))


def _is_simple(kind: Any, value: Any) -> bool:
    """Whether a value is of a plain type; a whole number that 64 bits hold is a number, and true is none."""
    if type(value) is int and abs(value) >= 2**63:  # torch takes no larger one, for a number neither
        return False
    return isinstance(value, _SIMPLE[kind].type) and (kind is bool or not isinstance(value, bool))


def _fits_list(inner: Sequence[Any], value: Any, *, fixed: bool) -> bool:
    if not isinstance(value, (list, tuple)):
        return not _plain(value) and not isinstance(value, Mapping)  # an array, say
    if fixed and inner:
        return len(inner) == len(value) and all(fits(k, v) for k, v in zip(inner, value, strict=True))
    return not inner or all(fits(inner[0], v) for v in value)


def _fits_class(kind: type, value: Any) -> bool:
    """Whether a value may stand for an object of a class; what a spec can hold is none, but text may be a path."""
    if kind in (object, inspect.Parameter.empty) or not (_plain(value) or isinstance(value, (list, tuple, Mapping))):
        return True
    if isinstance(value, str) and issubclass(kind, os.PathLike):
        return True
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be asked
        return True
