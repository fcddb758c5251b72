"""Selectors that are given as objects: the text that tells one from another."""

from __future__ import annotations

import functools
import inspect
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clsim.errors import InputError
from clsim.spec.followed import fingerprint, local, of_file
from clsim.spec.resolve import name_of


def source_of(selector: Any) -> str:
    """Return the text that tells a selector from others: its source, what is bound to it, and what it reads.

    That is the source of its file and of the files that this one imports, and the values of the globals that it reads
    now: of functions and classes their source, of other objects that print alike in every process what they print. Of a
    selector of clsim's own, its source alone counts.

    Raises:
        InputError: if its source cannot be read.
    """
    return _text(selector, set())


def _text(value: Any, seen: set[int]) -> str:
    if isinstance(value, functools.partial):
        return _text(value.func, seen) + repr((value.args, sorted(value.keywords.items())))
    try:
        text = inspect.getsource(value)
    except (OSError, TypeError):
        raise InputError(
            f"buffer: the source of {name_of(value)} cannot be read, so its runs cannot be told apart; "
            "allowed: a function in a file (./file.py:attr or module:attr)"
        ) from None
    seen.add(id(value))
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    text += "".join(_text(cell, seen) if inspect.isfunction(cell) else repr(cell) for cell in cells)
    if _shipped(value):
        return text
    file = _file(value)
    code = fingerprint([of_file(file)]) if file is not None and file.suffix == ".py" and local(file) else ""
    return text + code + "".join(f"\0{name}\0{found}" for name, found in sorted(_read(value, seen, bool(code))))


def _read(function: Any, seen: set[int], in_file: bool) -> Iterator[tuple[str, str]]:
    """Yield the globals that a function reads, as text; those of a file that is hashed count by their value alone."""
    names = {name for code in _codes(getattr(function, "__code__", None)) for name in code.co_names}
    for name in sorted(names & {*getattr(function, "__globals__", ())}):
        value = function.__globals__[name]
        if inspect.isfunction(value) or inspect.isclass(value):
            file = _file(value)
            installed = file is None or (file.is_file() and not local(file))
            if id(value) not in seen and not installed and not _shipped(value):
                yield name, _text(value, seen)
        elif _plain(value):
            yield name, repr(value)
        elif not in_file and not inspect.ismodule(value):
            warnings.warn(
                f"buffer: {name_of(function)} reads {name}, a {type(value).__name__}: a change of it makes no new run",
                stacklevel=2,
            )


def _shipped(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] == "clsim"


def _file(value: Any) -> Path | None:
    """Return the file of a function or a class, which need not be there; None if it is compiled."""
    try:
        return Path(inspect.getsourcefile(value) or "")
    except (TypeError, OSError):
        return None


def _codes(code: types.CodeType | None) -> Iterator[types.CodeType]:
    if code is not None:
        yield code
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                yield from _codes(inner)


def _plain(value: Any) -> bool:
    """Whether a value prints alike in every process."""
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(_plain(part) for item in value.items() for part in item)
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes))
