"""Options of components: the keyword-only parameters of a function or a class, and the fields of groups among them.

Options that several components share are one frozen dataclass, a *group*; a component takes it as a parameter whose
default is an instance, as in ``def dsa(pool, budget, *, making: Making = Making(lr=0.1), rng)``. In spec files, on the
command line and in fingerprints a group's fields are options like all others: ``[memory.options] lr = 0.1``.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from clsim.errors import InputError, nearest
from clsim.spec.kinds import allowed, fits


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
    check(options, ((p.name, p.annotation, p.default) for p in options_of(component).values()), where, name)
    left, bound = dict(options), {}
    for parameter, group in groups_of(component).items():
        own = {field.name: left.pop(field.name) for field in dataclasses.fields(group) if field.name in left}
        if own:
            bound[parameter] = dataclasses.replace(group, **own)
    return partial(component, **left, **bound)


def check(options: Mapping[str, Any], known: Iterable[tuple[str, Any, Any]], where: str, name: str) -> None:
    """Refuse options that a component does not have, and values that are not of an option's type.

    Args:
        options: values by flat name, as in a spec.
        known: name, type and default of each option of the component.
        where: the table that holds the options, for error messages.
        name: the component's name, for messages.

    Raises:
        InputError: naming the first option that is refused, with the nearest one, or what is allowed.
    """
    kinds, said = {option: (kind, default) for option, kind, default in known}, f"{where}: " if where else ""
    for option, value in options.items():
        if option not in kinds:
            there = nearest(option, kinds) if kinds else "allowed: none, as it has no options"
            raise InputError(f"{said}unknown option {option!r} of {name}; {there}")
        kind, default = kinds[option]
        usual = isinstance(value, (int, float, str)) and type(value) is type(default) and value == default
        if not usual and not fits(kind, value):
            words = allowed(kind, value)
            separator = "; " if words.startswith("did") else ", "
            raise InputError(f"{said}option {option!r} of {name}: found {_shown(value)}{separator}{words}")


def _shown(value: Any) -> str:
    """Write a value in one line of bearable length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


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
