"""The strict reader: it turns parsed TOML or JSON into arguments of a dataclass; wrong keys and types are refused."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from clsim.errors import InputError, nearest
from clsim.spec.kinds import MOST_FLOAT

Options = Mapping[str, Any]
"""The keyword arguments of a component: strings, numbers, booleans, or lists of them."""


_TINY = f"0, or a number of at least {sys.float_info.min:.3g} in size"
"""What is said of a smaller one: a run takes it as 0."""

_MOST = 2**63 - 1
"""The largest whole number that tensors count with."""

NO_KEY: Mapping[str, bool] = {"no key": True}
"""Metadata of a field that no file can set."""


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge layers of tables, key by key; the later layer wins. ``options`` tables are merged too.

    >>> merge({"memory": {"capacity": 5}}, {"memory": {"buffer": "random"}})
    {'memory': {'capacity': 5, 'buffer': 'random'}}
    """
    out: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            known = out.get(key)
            out[key] = merge(known if isinstance(known, dict) else {}, value) if isinstance(value, Mapping) else value
    return out


def arguments(kind: Any, values: Any, where: str, table: str) -> dict[str, Any]:
    """Read the arguments of a dataclass: its keys must be known, and its values of the right type.

    Args:
        kind: the dataclass; its type hints are the schema.
        values: the table, as parsed.
        where: the file, for error messages.
        table: the name of the table in the file; empty for the top level.

    Raises:
        InputError: naming file, table and key, what was found, what is allowed and the nearest match.
    """
    hints = _hints(kind)
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: {table or 'spec'}: found {values!r}, allowed: a table")
    out = {}
    for key, value in values.items():
        spot = f"[{table}] {key}" if table else key
        if key not in hints:
            raise InputError(f"{where}: {spot}: unknown key; {nearest(key, hints)}")
        inner = dataclasses.is_dataclass(hints[key])
        out[key] = arguments(hints[key], value, where, key) if inner else _convert(hints[key], value, where, spot)
    for field in dataclasses.fields(kind):
        if field.name not in out and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: {f'[{table}] ' if table else ''}{field.name}: missing")
    return out


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Return the type hints of a dataclass; they are kept, since finding them is slow and a study reads many specs."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.metadata != NO_KEY}


def _convert(kind: Any, value: Any, where: str, spot: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is Literal:
        allowed = typing.get_args(kind)
        if value in allowed:
            return value
        raise InputError(f"{where}: {spot}: found {value!r}; {nearest(str(value), map(str, allowed))}")
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = typing.get_args(kind)
        if inner[-1] is Ellipsis:
            return tuple(_convert(inner[0], v, where, f"{spot}[{i}]") for i, v in enumerate(value))
        if len(inner) == len(value):
            return tuple(_convert(k, v, where, spot) for k, v in zip(inner, value, strict=True))
    if dataclasses.is_dataclass(kind):
        return kind(**arguments(kind, value, where, spot))  # type: ignore[operator]
    if kind is float and type(value) in (int, float) and _is_kept(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind and _is_kept(value):
        return value
    if isinstance(value, Mapping) and kind == Options:
        return {k: _option(v, where, f"{spot}.{k}") for k, v in value.items()}
    raise InputError(f"{where}: {spot}: found {value!r}, allowed: {_kept(value, kind) or _named(kind)}")


def _option(value: Any, where: str, spot: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_option(v, where, spot) for v in value]
    if type(value) in (bool, int, str, float) and _is_kept(value):
        return value
    words = _kept(value, type(value)) or "a number, text, true or false, or a list of them"
    raise InputError(f"{where}: {spot}: found {value!r}, allowed: {words}")


def _is_kept(value: Any) -> bool:
    """Whether a number is a whole one of 64 bits, or a finite one that runs compute with, 0 or of normal range."""
    if type(value) is int:
        return abs(value) <= _MOST
    return type(value) is not float or value == 0 or sys.float_info.min <= abs(value) <= MOST_FLOAT


def _kept(value: Any, kind: Any) -> str:
    """Say which numbers of this kind are kept, if that is why one is not; else empty."""
    if kind in (int, float) and type(value) is int:
        return f"a whole number of 64 bits, up to {_MOST}"
    if kind is not float or type(value) is not float or not math.isfinite(value):
        return ""
    return _TINY if abs(value) < 1 else f"at most {MOST_FLOAT:.3g} in size, float32's largest"


def _named(kind: Any) -> str:
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    if isinstance(kind, types.GenericAlias) and typing.get_origin(kind) is tuple:
        return f"a list, each {_named(typing.get_args(kind)[0])}"
    return names.get(kind, "a table")
