"""Options of components: the keyword-only parameters of a function or a class, and the fields of groups among them.

Options that several components share are one frozen dataclass, a *group*; a component takes it as a parameter whose
default is an instance, as in ``def dsa(pool, budget, *, making: Making = Making(lr=0.1), rng)``. In spec files, on the
command line and in fingerprints a group's fields are options like all others: ``[memory.options] lr = 0.1``.
"""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from clsim.errors import InputError, nearest


def options_of(component: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the options of a component by name, each with its default and its annotation; a group gives its fields.

    Annotations are types where they can be resolved, and the text in the file where they cannot.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Size:
    ...     width: int = 8
    >>> def net(shape, *, size=Size(width=16), depth: int = 2): ...
    >>> {name: option.default for name, option in options_of(net).items()}
    {'width': 16, 'depth': 2}
    """
    found = {}
    for parameter in _keywords(component):
        spread = _fields(parameter.default) if _is_group(parameter.default) else [parameter]
        found.update({option.name: option for option in spread})
    return found


def groups_of(component: Callable[..., Any]) -> dict[str, Any]:
    """Return the groups among a component's parameters: each parameter's name, and its default instance."""
    return {p.name: p.default for p in _keywords(component) if _is_group(p.default)}


def bind(component: Callable[..., Any], options: Mapping[str, Any], where: str = "options", name: str = "it") -> Any:
    """Bind flat options to a component, those of a group as one instance of the group.

    Args:
        component: a function or a class, or one to which options are bound already.
        options: values by flat name, as in a spec.
        where: the table that holds them, for error messages.
        name: the component's name, for messages.

    Raises:
        InputError: if the component has no such option, with the nearest one; or if a value is of another type.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Size:
    ...     width: int = 8
    >>> def net(shape, *, size=Size(), depth: int = 2): ...
    >>> bind(net, {"width": 4, "depth": 3}).keywords
    {'depth': 3, 'size': Size(width=4)}
    >>> bind(net, {"depth": "deep"}, "[model.options]", "net")
    Traceback (most recent call last):
    clsim.errors.InputError: [model.options]: option 'depth' of net: found 'deep', allowed: a whole number
    """
    if not options:
        return component
    known = options_of(component)
    for option, value in options.items():
        if option not in known:
            raise InputError(f"{where}: unknown option {option!r} of {name}; {nearest(option, known)}")
        kind = known[option].annotation
        if not _fits(kind, value):
            raise InputError(f"{where}: option {option!r} of {name}: found {value!r}, allowed: {in_words(kind)}")
    left, bound = dict(options), {}
    for parameter, group in groups_of(component).items():
        own = {field.name: left.pop(field.name) for field in dataclasses.fields(group) if field.name in left}
        if own:
            bound[parameter] = dataclasses.replace(group, **own)
    return partial(component, **left, **bound)


def _keywords(component: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = _signature(component).parameters.values()
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "rng"]


def _is_group(default: Any) -> bool:
    return dataclasses.is_dataclass(default) and not isinstance(default, type)


def _fields(group: Any) -> list[inspect.Parameter]:
    parameters = _signature(type(group)).parameters.values()
    return [p.replace(kind=p.KEYWORD_ONLY, default=getattr(group, p.name)) for p in parameters]


def _signature(component: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(component, eval_str=True)
    except Exception:  # an annotation in a user's file may name what is imported for type checkers only
        return inspect.signature(component)


_SIMPLE: dict[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str, "text"),
    type(None): (type(None), "none"),
}


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value is of an option's type; true for every value if a spec cannot hold values of that type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(part, value) for part in inner)
    if origin is Literal:  # the component itself checks which names are allowed
        return isinstance(value, tuple({type(name) for name in inner}))
    if origin is Sequence:
        plain = isinstance(value, (str, numbers.Number, type(None)))
        return not plain and (not isinstance(value, (list, tuple)) or all(_fits(inner[0], v) for v in value))
    if kind not in _SIMPLE:
        return True
    return isinstance(value, _SIMPLE[kind][0]) and (kind is bool or not isinstance(value, bool))


def in_words(kind: Any) -> str:
    """Describe the values of a type: those that a spec can hold, as people type them.

    >>> in_words(int | None), in_words(Sequence[float]), in_words(Literal["l1", "l2"]), in_words(Any)
    ('a whole number or none', 'a list, each a number', 'l1 or l2', 'an object of Python')
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, inner)))
    if origin is Literal:
        *first, last = map(str, inner)
        return f"{', '.join(first)} or {last}" if first else last
    if origin is Sequence:
        return f"a list, each {in_words(inner[0])}"
    if dict in (kind, origin):
        return "a table"
    return _SIMPLE[kind][1] if kind in _SIMPLE else "an object of Python"
