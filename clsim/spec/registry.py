"""Find files (scenarios, strategies, reports) and components (buffers, learners, models …) by their names.

A file's name is an explicit path, else that of a file in the working directory's folder, else that of a shipped file. A
component's name is a listed one, else ``module:attr``, else ``./file.py:attr``, else that of an installed entry point.
A component's module is imported only when the component itself is needed.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

from clsim.compat import tomllib
from clsim.errors import InputError, nearest
from clsim.spec import moved
from clsim.spec.components import ALIASES, BOUNDS, COMBINATORS, COMPONENTS, OVER_ALL
from clsim.spec.followed import Code, of_entry_point, of_file, of_module
from clsim.spec.loading import load_file, load_module
from clsim.spec.options import bind
from clsim.spec.roles import check_role

_PACKAGE = Path(__file__).parent.parent

FILES = ("scenarios", "strategies", "reports", "studies")


def find_file(kind: str, name: str) -> Path:
    """Find the TOML file that a name stands for.

    Raises:
        InputError: if there is none, with the nearest name.
    """
    if name.endswith(".toml") or "/" in name or "\\" in name:
        path = Path(name)
        if path.is_file():
            return path
        raise InputError(f"{kind}: no file {name!r}; allowed: a path to a TOML file, or a name of `clsim list {kind}`")
    for folder in _folders(kind):
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise InputError(f"{kind}: unknown name {name!r}; {nearest(name, file_names(kind))}")


def file_names(kind: str) -> list[str]:
    """List every name of a kind of file; a file in the working directory hides a shipped one of the same name."""
    return sorted({path.stem for folder in _folders(kind) for path in folder.glob("*.toml")})


def component_names(kind: str) -> list[str]:
    """List every name of a kind of component, those of installed packages included."""
    return [*COMPONENTS.get(kind, ()), *(entry.name for entry in installed(kind))]


def read_toml(path: Path) -> dict[str, Any]:
    """Read the tables of a TOML file.

    Raises:
        InputError: if the file is not valid TOML or cannot be read, naming the file and the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}") from None


def component(kind: str, name: str, options: Mapping[str, Any] | None = None, where: str = "") -> Any:
    """Load the object behind a name, with its options bound as keyword arguments.

    Args:
        kind: a kind of :data:`COMPONENTS`; or ``buffers``: the condensers, and the selectors as ``--buffer`` means
            them, applied to each class separately unless they are in :data:`OVER_ALL` or inside a combinator; or
            ``labellers``: the acquisitions, and the selectors as they are; or ``batches``: the pruners, and the
            selectors as they are.
        name: the name as users type it; a selector may be inside combinators, as in ``per_class(./mine.py:pick)``.
        options: flat options by name; the component's signature is their schema, see :mod:`clsim.spec.options`. With
            combinators, they are the options of the first selector inside.
        where: the table that holds the options, for error messages.

    Raises:
        InputError: if there is no such name, module, file, attribute or option, with the nearest one; if an option's
            value is not of its type; or if the component cannot be called as its kind is.
    """
    name = name.strip()
    if kind == "buffers" and is_condenser(name):
        kind, name = "condensers", innermost(name)[0]
    kind = _OF_SOME[kind](name) if kind in _OF_SOME else kind
    if kind == "buffers":
        name, kind = canonical(name), "selectors"
        name = f"per_class({name})" if name in COMPONENTS[kind] and name not in OVER_ALL else name
    combinator, inner = taken_apart(name)
    if inner:
        if kind != "selectors" or combinator not in COMBINATORS:
            raise InputError(f"{kind}: unknown combinator {combinator!r}; {nearest(combinator, COMBINATORS)}")
        combine = load(COMBINATORS[combinator], kind)
        parameters = inspect.signature(combine).parameters
        needed = sum(p.default is p.empty for p in parameters.values())
        if not needed <= len(inner) <= len(parameters):
            takes = str(needed) if needed == len(parameters) else f"{needed} to {len(parameters)}"
            wanted = f"{combinator}({', '.join(parameters)})"
            raise InputError(f"selectors: {name!r}: {combinator} takes {takes} arguments, found {len(inner)}: {wanted}")
        further = zip(inner[1:], list(parameters.values())[1:], strict=False)
        others = [_argument(kind, text, parameter, name) for text, parameter in further]
        return combine(component(kind, inner[0], options, where), *others)
    found = _find(kind, name)
    if not callable(found):
        raise InputError(f"{kind}: {name!r} is a {type(found).__name__}, allowed: a function or a class")
    bound = bind(found, options or {}, where, name)
    if name not in COMPONENTS.get(kind, ()) and not (kind == "selectors" and name in ALIASES):
        check_role(kind, name, bound)
    return bound


def _argument(kind: str, text: str, parameter: inspect.Parameter, name: str) -> Any:
    """Read a further argument of a combinator: a whole number if the parameter is one, else a selector."""
    if str(parameter.annotation) != "int":
        return component(kind, text)
    if text.isdecimal():
        return int(text)
    raise InputError(f"selectors: {name!r}: {parameter.name}: found {text!r}, allowed: a whole number")


def is_condenser(name: str) -> bool:
    """Whether a name is that of a condenser: a shipped or installed one, or ``condensed(./mine.py:attr)``.

    >>> is_condenser("dm"), is_condenser("condensed(./mine.py:make)"), is_condenser("kcenter")
    (True, True, False)
    """
    combinator, inner = taken_apart(name)
    if inner:
        return combinator == "condensed" and len(inner) == 1
    return name in COMPONENTS["condensers"] or name in {entry.name for entry in installed("condensers")}


def _of_labeller(name: str) -> str:
    """Tell the kind of who asks for labels: an acquisition or a bound by its name, else a selector."""
    if name in BOUNDS:
        return "bounds"
    known = {*COMPONENTS["acquisitions"], *(entry.name for entry in installed("acquisitions"))}
    return "acquisitions" if name in known else "selectors"


def _of_batch(name: str) -> str:
    """Tell the kind of who chooses batches: a pruner by its name, else a selector."""
    return "pruners" if name in COMPONENTS["pruners"] else "selectors"


_OF_SOME: dict[str, Callable[[str], str]] = {"labellers": _of_labeller, "batches": _of_batch}
"""Kinds that stand for several → what tells the kind of a name."""


def is_selector(name: str) -> bool:
    """Whether a name can be that of a selector: a shipped or installed one, or a combinator with its arguments."""
    combinator, inner = taken_apart(canonical(name))
    known = {*COMPONENTS["selectors"], *(entry.name for entry in installed("selectors"))}
    return bool(inner) or combinator in known


def canonical(name: str) -> str:
    """Return a selector's name in clsim for any of its names in the literature.

    >>> canonical("per_class( k-center )"), canonical("uniform")
    ('per_class(kcenter)', 'random')
    """
    combinator, inner = taken_apart(name)
    if inner:
        return f"{combinator}({','.join(map(canonical, inner))})"
    return ALIASES.get(combinator, combinator)


def taken_apart(name: str) -> tuple[str, list[str]]:
    """Split a name into its combinator and the arguments; without a combinator, into the name and an empty list.

    >>> taken_apart("prefilter(entropy, per_class(kcenter), 5)")
    ('prefilter', ['entropy', 'per_class(kcenter)', '5'])
    """
    name = name.strip()
    combinator, inside, rest = name.partition("(")
    if not inside or not name.endswith(")"):
        return name, []
    parts, depth = [""], 0
    for character in rest[:-1]:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return combinator.strip(), [part.strip() for part in parts]


def target_of(kind: str, name: str) -> str:
    """Return the place of the code that gets a component's options, ``module:attr`` or ``file.py:attr``, not imported.

    Args:
        kind: the kind of the name, as for :func:`component`; of selectors inside combinators, the first gets options.

    Returns:
        The place; empty where there is no such name, or the code is Avalanche's.
    """
    if kind == "buffers":
        kind = "condensers" if is_condenser(name) else "selectors"
    kind = _OF_SOME[kind](name) if kind in _OF_SOME else kind
    inner = innermost(canonical(name) if kind == "selectors" else name)[0]
    if target := COMPONENTS.get(kind, {}).get(inner):
        return target
    if ":" in inner:
        return "" if inner.startswith("avalanche:") else inner
    entry = next((entry for entry in installed(kind) if entry.name == inner), None)
    return f"{entry.module}:{entry.attr}" if entry else ""


def check_name(kind: str, name: str) -> None:
    """Refuse an unknown name without importing any component; ``module:attr`` and ``file.py:attr`` are not looked up.

    Raises:
        InputError: if the name is unknown, with the nearest name.
    """
    if kind == "buffers":
        kind = "condensers" if is_condenser(name) else "selectors"
    kind = _OF_SOME[kind](name) if kind in _OF_SOME else kind
    for inner in innermost(canonical(name) if kind == "selectors" else name):
        if inner not in COMPONENTS[kind] and ":" not in inner and not inner.isdecimal():
            _entry_point(kind, inner)


def codes(kind: str, name: str) -> list[Code]:
    """Follow the code behind a component's name, without importing it; empty for what is shipped or not there.

    Args:
        kind: the kind of the name, as for :func:`component`; of a selector inside combinators, each part counts.
    """
    if kind == "buffers":
        kind = "condensers" if is_condenser(name) else "selectors"
    kind = _OF_SOME[kind](name) if kind in _OF_SOME else kind
    found = [_code(kind, part) for part in innermost(canonical(name) if kind == "selectors" else name)]
    return [code for code in found if code is not None]


def _code(kind: str, name: str) -> Code | None:
    target, colon, _ = name.rpartition(":")
    if target.endswith(".py"):
        return of_file(Path(target)) if Path(target).is_file() else None
    if name in COMPONENTS.get(kind, ()) or name.isdecimal() or (kind == "learners" and target == "avalanche"):
        return None
    if colon:
        return of_module(target) if all(part.isidentifier() for part in target.split(".")) else None
    entry = next((entry for entry in installed(kind) if entry.name == name), None)
    return None if entry is None else of_entry_point(entry)


def innermost(name: str) -> list[str]:
    """List the names inside all combinators; a name without a combinator gives itself.

    >>> innermost("per_class(./mine.py:pick)")
    ['./mine.py:pick']
    """
    combinator, inner = taken_apart(name)
    return [part for arg in inner for part in innermost(arg)] if inner else [combinator]


def _find(kind: str, name: str) -> Any:
    name = ALIASES.get(name, name) if kind == "selectors" else name
    if target := COMPONENTS.get(kind, {}).get(name):
        return load(target, kind)
    if kind == "learners" and name.startswith("avalanche:"):
        return load("clsim.interop.avalanche:strategy", kind)(name.partition(":")[2])
    if ":" in name:
        return load(name, kind)
    entry = _entry_point(kind, name)
    try:
        return entry.load()
    except (Exception, SystemExit) as error:  # another package's code may raise anything, shown in one line
        raise InputError(
            f"{kind}: {name!r}, installed by {entry.module}: cannot be imported: {_said(error)}"
        ) from error


def _entry_point(kind: str, name: str) -> EntryPoint:
    found = {entry.name: entry for entry in installed(kind)}
    if name in found:
        return found[name]
    if malformed := next((entry.value for entry in _installed(kind) if entry.name == name), ""):
        raise InputError(f"{kind}: {name!r} is installed as {malformed!r}, allowed: module:attr; tell its authors")
    known = nearest(name, [*COMPONENTS.get(kind, ()), *found])
    raise InputError(f"{kind}: unknown name {name!r}; {known}; or module:attr, or ./file.py:attr")


def installed(kind: str) -> list[EntryPoint]:
    """List the components of other packages: the entry points of the group ``clsim.<kind>`` that name an attribute."""
    return [entry for entry in _installed(kind) if (form := entry.pattern.match(entry.value)) and form["attr"]]


def _installed(kind: str) -> EntryPoints:
    state = tuple((path, os.stat(path).st_mtime_ns) for path in sys.path if os.path.exists(path))
    return _entry_points(state).get(kind, EntryPoints())


@cache
def _entry_points(path: tuple[tuple[str, int], ...]) -> Mapping[str, EntryPoints]:
    """Read the entry points of all kinds once for a state of ``sys.path``: each reading opens every package."""
    found = entry_points()
    return {group.removeprefix("clsim."): found.select(group=group) for group in found.groups if "clsim." in group}


def _folders(kind: str) -> list[Path]:
    package = _PACKAGE
    # the folders lie beside the modules in a wheel, and beside the package in a source tree
    return [Path.cwd() / kind, package / kind, package.parent / kind]


def load(target: str, kind: str) -> Any:
    """Import what stands behind ``module:attr`` or ``./file.py:attr``.

    Args:
        kind: what it should be, for messages.

    Raises:
        InputError: if there is no such module, file or attribute, or its code raises an error.
    """
    module_name, _, attribute = target.rpartition(":")
    try:
        module = load_file(module_name) if module_name.endswith(".py") else load_module(module_name)
    except (Exception, SystemExit) as error:  # a user's file may raise anything; its error is shown in one line
        why = moved.advice(module_name, [attribute]) or moved.advice_on(error)
        raise InputError(f"{kind}: {target!r}: {why or f'cannot import {module_name!r}: {_said(error)}'}") from error
    if attribute not in vars(module) and (why := moved.advice(module_name, [attribute])):
        raise InputError(f"{kind}: {target!r}: {why}")
    if attribute not in vars(module):
        public = [n for n, v in vars(module).items() if inspect.getmodule(v) is module and not n.startswith("_")]
        raise InputError(f"{kind}: {target!r}: {module_name} has no {attribute!r}; {nearest(attribute, public)}")
    return vars(module)[attribute]


def _said(error: BaseException) -> str:
    """Write an error in one line; one without words by its name."""
    return " ".join(str(error).split()) or type(error).__name__
