"""The options of a component as ``clsim show`` lists them, and what choosing it by name sets besides."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from clsim.spec import components
from clsim.spec.definitions import Parameter, Source
from clsim.spec.docstrings import Docstring, parsed
from clsim.spec.flags import as_text, leaves
from clsim.spec.kinds import in_words
from clsim.spec.options import options_of


@dataclass(frozen=True)
class Option:
    """An option: a keyword argument of a component, or a key of a table of a spec.

    Attributes:
        kind: the values that it takes, in words.
        default: its default, as ``--set`` takes it; empty if it has none.
        says: its line in the docstring.
    """

    name: str
    kind: str
    default: str
    says: str


def option_lines(parameters: Iterable[Parameter]) -> tuple[Option, ...]:
    """Write parameters as people read them."""
    return tuple(
        Option(p.name, in_words(p.kind), "" if p.required else _as_text(p.default), p.says) for p in parameters
    )


def _as_text(value: Any) -> str:
    """Write a default as ``--set`` takes it.

    >>> _as_text(("crop", 1.0)), _as_text(None), _as_text(math.inf), _as_text(""), _as_text(Source("WIDTH * 2"))
    ('["crop", 1.0]', 'none', 'inf', '""', 'WIDTH * 2')
    """
    if isinstance(value, Source):
        return value.text
    if value is None:
        return "none"
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    if isinstance(value, (bool, int, float, str, list, tuple)):
        return as_text(value) or '""'
    return repr(value)


def of_object(component: Callable[..., Any]) -> tuple[Docstring, str, list[Parameter]]:
    """Describe a component that is there: what its docstring says, its place, and its options."""
    code = component.func if isinstance(component, partial) else component
    own = inspect.isroutine(code) or inspect.isclass(code)  # an object has its class' docstring
    said = parsed(inspect.getdoc(code) if own else str(vars(code).get("label", "")))
    options = [
        Parameter(p.name, p.annotation, p.default, said.args.get(p.name, ""), p.default is p.empty)
        for p in options_of(component).values()
    ]
    return said, _place_of(code), options


def _place_of(component: Any) -> str:
    try:
        return f"{inspect.getsourcefile(component)}:{inspect.getsourcelines(component)[1]}"
    except (OSError, TypeError):
        return ""


def implied(kind: str, name: str) -> tuple[str, ...]:
    """List what a name sets besides, as a buffer or as what asks for labels."""
    if kind in ("selectors", "condensers"):
        table, said, digits = "memory", components.BUFFER_DEFAULTS, components.DIGITS_DEFAULTS.get(name, {})
    elif kind in ("acquisitions", "bounds"):
        table, said, digits = "labelling", components.LABEL_DEFAULTS, {}
    else:
        return ()
    found = [f"{key}={as_text(value)}" for key, value in leaves(said.get(name, {}), table).items()]
    return (*found, *(f"{key}={as_text(value)} on images of digits" for key, value in leaves(digits, table).items()))
