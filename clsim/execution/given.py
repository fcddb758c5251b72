"""Components that are given as objects: the text that tells one from another, and the name that a worker finds."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clsim.errors import InputError
from clsim.spec.components import COMPONENTS
from clsim.spec.followed import fingerprint, local, of_file
from clsim.spec.resolve import name_of
from clsim.spec.run import Given, RunSpec


def with_sources(spec: RunSpec, given: Given) -> RunSpec:
    """Return the same spec, with the source of each given object among its sources."""
    named = (
        (spec.memory.buffer, given.buffer),
        (spec.labelling.selector, given.label),
        (spec.batch.selector, given.batch),
    )
    for name, component in named:
        if component is not None:
            spec = with_source(spec, name, source_of(component).encode())
    return spec


def with_source(spec: RunSpec, name: str, *content: bytes) -> RunSpec:
    """Return the same spec, with the digest of ``content`` among its sources, once."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    source = (name, digest.hexdigest()[:16])
    return spec if source in spec.sources else dataclasses.replace(spec, sources=(*spec.sources, source))


def of_run(*, buffer: Any, label: Any, batch: Any = None) -> tuple[Given, dict[str, str | None]]:
    """Tell the objects among the arguments of a run from the names; return both, an object also by its name.

    Who asks for labels or chooses batches goes by name alone where every process finds it. A buffer that was given as
    an object stays one, whose source counts beside that of its file, as in the records that there are.
    """
    parts = {"buffer": buffer, "label": label, "batch": batch}
    for key in ("label", "batch"):
        if parts[key] is not None and not isinstance(parts[key], str):
            parts[key] = importable(parts[key], _KINDS[key]) or parts[key]
    objects = {key: one for key, one in parts.items() if one is not None and not isinstance(one, str)}
    return Given(**objects), {key: name_of(one) if key in objects else one for key, one in parts.items()}


def named(given: Any, axis: str) -> dict[str, Any]:
    """Name what stands on an axis of a study: name → the object behind it; None where every process finds it.

    Args:
        given: a name, an object, or several of them; None: nothing.
        axis: ``buffer``, ``label`` or ``batch``.

    Raises:
        InputError: if something else is given, or two objects have one name.
    """
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [] if given is None else [given]
    found: dict[str, Any] = {}
    for one in several:
        if not isinstance(one, str) and not callable(one):
            raise InputError(f"{axis}: found a {type(one).__name__}, allowed: a name, or a function")
        name = one if isinstance(one, str) else importable(one, _KINDS[axis]) or name_of(one)
        kept = None if isinstance(one, str) or importable(one, _KINDS[axis]) else one
        if found.get(name, kept) is not kept:
            raise InputError(f"{axis}: found two objects that are called {name}, allowed: functions of different names")
        found[name] = kept
    return found


_KINDS = {
    "buffer": ("selectors", "condensers"),
    "label": ("selectors", "acquisitions", "bounds"),
    "batch": ("selectors",),
}
"""Axis of a study → the kinds of components on it."""


def importable(component: Any, kinds: Sequence[str]) -> str:
    """Return the name by which another process finds a function or a class; empty if it finds none.

    Args:
        component: the function or class.
        kinds: kinds of components, in which what is shipped has a short name.

    >>> from clsim.selectors.kcenter import k_center
    >>> importable(k_center, ["selectors"]), importable(lambda pool, budget: None, ["selectors"])
    ('kcenter', '')
    """
    name = name_of(component)
    module, _, attribute = name.partition(":")
    known = {place: short for kind in kinds for short, place in reversed(COMPONENTS[kind].items())}
    there = vars(sys.modules[module]).get(attribute) if module in sys.modules and module != "__main__" else None
    return known.get(name) or (name if there is component else "")


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
            f"the source of {name_of(value)} cannot be read, so its runs cannot be told apart; "
            "allowed: a function in a file (./file.py:attr or module:attr)"
        ) from None
    seen.add(id(value))
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    text += "".join(_text(cell, seen) if inspect.isfunction(cell) else _spelt(cell) for cell in cells)
    if _shipped(value):
        return text
    file = _file(value)
    code = fingerprint([of_file(file)]) if file is not None and file.suffix == ".py" and local(file) else ""
    return text + code + "".join(f"\0{name}\0{found}" for name, found in sorted(_read(value, seen, bool(code))))


def _spelt(value: Any) -> str:
    """Write out all fields of clsim's own dataclasses, whose ``repr`` is short."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type) or not _shipped(type(value)):
        return repr(value)
    fields = (f"{field.name}={getattr(value, field.name)!r}" for field in dataclasses.fields(value))
    return f"{type(value).__qualname__}({', '.join(fields)})"


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
                f"{name_of(function)} reads {name}, a {type(value).__name__}: a change of it makes no new run",
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
