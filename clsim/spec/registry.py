"""Names: of files (scenarios, strategies, reports) and of components (buffers, learners, models …).

A file's name resolves to an explicit path, else the working directory's folder, else the shipped one. A component's
name resolves to what is listed here, else ``module:attr``, else ``./file.py:attr``, else an installed entry point.
Nothing heavy is imported before a component is asked for.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from clsim.compat import tomllib
from clsim.errors import InputError, nearest
from clsim.spec import moved
from clsim.spec.components import ALIASES, COMBINATORS, COMPONENTS, OVER_ALL
from clsim.spec.followed import Code, of_entry_point, of_file, of_module
from clsim.spec.loading import load_file, load_module
from clsim.spec.options import bind

_PACKAGE = Path(__file__).parent.parent

FILES = ("scenarios", "strategies", "reports", "studies")


def find_file(kind: str, name: str) -> Path:
    """The TOML file that a name stands for.

    Raises:
        InputError: with the nearest name, if there is none.
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
    """Every name of a kind of file; the working directory's hide shipped ones of the same name."""
    return sorted({path.stem for folder in _folders(kind) for path in folder.glob("*.toml")})


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        InputError: naming the file and the line, if it is no valid TOML or cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}") from None


def entries(kind: str) -> list[Entry]:
    """What ``clsim list KIND`` shows, without importing any of it; ``buffers`` are selectors and condensers."""
    if kind == "buffers":
        return entries("selectors") + entries("condensers")
    if kind in FILES:
        found = []
        for name in file_names(kind):
            path = find_file(kind, name)
            tables = read_toml(path)
            found.append(Entry(name, str(tables.get("title", "")), str(tables.get("paper", "")), str(path)))
        return found
    if kind == "datasets":
        from clsim.spec.sources import DATASETS  # with numpy: only where it is shown

        return [Entry(name, title, paper, "clsim.data") for name, (title, paper) in DATASETS.items()]
    known = [described(name, target) for name, target in COMPONENTS[kind].items()]
    installed = [Entry(e.name, f"installed by {e.module}", "", e.value) for e in _installed(kind)]
    return known + installed


def combinators() -> list[Entry]:
    """List the selectors that are made of selectors, as entries of `clsim list`."""
    return [described(name, target) for name, target in COMBINATORS.items()]


def component(kind: str, name: str, options: Mapping[str, Any] | None = None, where: str = "") -> Any:
    """The object behind a name, its options bound as keyword arguments.

    Args:
        kind: of :data:`COMPONENTS`, or ``buffers``: the condensers, and the selectors as ``--buffer`` means them,
            applied to each class apart unless they are :data:`OVER_ALL` or stand inside a combinator.
        name: as users type it; a selector may stand inside combinators, as in ``per_class(./mine.py:pick)``.
        options: flat, by name; the component's signature is their schema, see :mod:`clsim.spec.options`. They are
            those of the first selector inside the combinators.
        where: the table that holds the options, for error messages.

    Raises:
        InputError: if there is no such name, module, file, attribute or option, with the nearest one; or if an option's
            value is not of its type.
    """
    name = name.strip()
    if kind == "buffers" and is_condenser(name):
        kind, name = "condensers", _innermost(name)[0]
    if kind == "buffers":
        name, kind = canonical(name), "selectors"
        name = f"per_class({name})" if name in COMPONENTS[kind] and name not in OVER_ALL else name
    combinator, inner = taken_apart(name)
    if inner:
        if kind != "selectors" or combinator not in COMBINATORS:
            raise InputError(f"{kind}: unknown combinator {combinator!r}; {nearest(combinator, COMBINATORS)}")
        combine = _load(COMBINATORS[combinator], kind)
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
    return bind(found, options or {}, where, name)


def _argument(kind: str, text: str, parameter: inspect.Parameter, name: str) -> Any:
    """A combinator's further argument: a whole number where it is one, else a selector."""
    if str(parameter.annotation) != "int":
        return component(kind, text)
    if text.isdecimal():
        return int(text)
    raise InputError(f"selectors: {name!r}: {parameter.name}: found {text!r}, allowed: a whole number")


def is_condenser(name: str) -> bool:
    """Whether a buffer is synthesised: a shipped or installed condenser, or ``condensed(./mine.py:attr)``.

    >>> is_condenser("dm"), is_condenser("condensed(./mine.py:make)"), is_condenser("kcenter")
    (True, True, False)
    """
    combinator, inner = taken_apart(name)
    if inner:
        return combinator == "condensed" and len(inner) == 1
    return name in COMPONENTS["condensers"] or name in {entry.name for entry in _installed("condensers")}


def is_selector(name: str) -> bool:
    """Whether a name can be that of a selector: shipped, installed, or of selectors inside combinators."""
    combinator, inner = taken_apart(canonical(name))
    known = {*COMPONENTS["selectors"], *(entry.name for entry in _installed("selectors"))}
    return bool(inner) or combinator in known


def canonical(name: str) -> str:
    """A selector's name here, whichever the field uses.

    >>> canonical("per_class( k-center )"), canonical("uniform")
    ('per_class(kcenter)', 'random')
    """
    combinator, inner = taken_apart(name)
    if inner:
        return f"{combinator}({','.join(map(canonical, inner))})"
    return ALIASES.get(combinator, combinator)


def taken_apart(name: str) -> tuple[str, list[str]]:
    """
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


def check_name(kind: str, name: str) -> None:
    """Refuse a name that leads nowhere, without importing what it leads to.

    Raises:
        InputError: with the nearest name.
    """
    if kind == "buffers":
        kind = "condensers" if is_condenser(name) else "selectors"
    for inner in _innermost(canonical(name) if kind == "selectors" else name):
        if inner not in COMPONENTS[kind] and ":" not in inner and not inner.isdecimal():
            _entry_point(kind, inner)


def codes(kind: str, name: str) -> list[Code]:
    """Follow the code behind a component's name, without importing it; empty for what is shipped or not there.

    Args:
        kind: the kind of the name, as for :func:`component`; of a selector inside combinators, each part counts.
    """
    if kind == "buffers":
        kind = "condensers" if is_condenser(name) else "selectors"
    found = [_code(kind, part) for part in _innermost(canonical(name) if kind == "selectors" else name)]
    return [code for code in found if code is not None]


def _code(kind: str, name: str) -> Code | None:
    target, colon, _ = name.rpartition(":")
    if target.endswith(".py"):
        return of_file(Path(target)) if Path(target).is_file() else None
    if name in COMPONENTS.get(kind, ()) or name.isdecimal() or (kind == "learners" and target == "avalanche"):
        return None
    if colon:
        return of_module(target) if all(part.isidentifier() for part in target.split(".")) else None
    entry = next((entry for entry in _installed(kind) if entry.name == name), None)
    return None if entry is None else of_entry_point(entry)


def needs(name: str) -> dict[str, str]:
    """Say what each shipped selector in a name needs, by its docstring.

    >>> needs("per_class(kcenter)"), needs("class-balanced")
    ({'kcenter': 'features; labelled samples if there are any'}, {'class-balanced': 'labels'})
    """
    shipped = COMPONENTS["selectors"]
    return {part: described(part, shipped[part]).needs for part in _innermost(canonical(name)) if part in shipped}


def place(kind: str, name: str) -> str:
    """``file:line`` of the code behind a component's name, for ``clsim show``."""
    found = component(kind, _innermost(name)[0])
    return f"{inspect.getsourcefile(found)}:{inspect.getsourcelines(found)[1]}"


def _innermost(name: str) -> list[str]:
    """
    >>> _innermost("per_class(./mine.py:pick)")
    ['./mine.py:pick']
    """
    combinator, inner = taken_apart(name)
    return [part for arg in inner for part in _innermost(arg)] if inner else [combinator]


def _find(kind: str, name: str) -> Any:
    name = ALIASES.get(name, name) if kind == "selectors" else name
    if name in COMPONENTS[kind]:
        return _load(COMPONENTS[kind][name], kind)
    if kind == "learners" and name.startswith("avalanche:"):
        return _load("clsim.interop.avalanche:strategy", kind)(name.partition(":")[2])
    if ":" in name:
        return _load(name, kind)
    return _entry_point(kind, name).load()


def _entry_point(kind: str, name: str) -> EntryPoint:
    installed = {entry.name: entry for entry in _installed(kind)}
    if name in installed:
        return installed[name]
    known = nearest(name, [*COMPONENTS[kind], *installed])
    raise InputError(f"{kind}: unknown name {name!r}; {known}; or module:attr, or ./file.py:attr")


def _installed(kind: str) -> Iterable[EntryPoint]:
    """Other packages' components, of the entry point group ``clsim.<kind>``."""
    return entry_points(group=f"clsim.{kind}")


def _folders(kind: str) -> list[Path]:
    package = _PACKAGE
    # the folders lie beside the modules in a wheel, and beside the package in a source tree
    return [Path.cwd() / kind, package / kind, package.parent / kind]


def _load(target: str, kind: str) -> Any:
    module_name, _, attribute = target.rpartition(":")
    try:
        module = load_file(module_name) if module_name.endswith(".py") else load_module(module_name)
    except Exception as error:  # anything may go wrong in a user's file; they get its own words, in a line
        why = moved.advice(module_name, [attribute]) or moved.advice_on(error)
        raise InputError(f"{kind}: {target!r}: {why or f'cannot import {module_name!r}: {error}'}") from error
    if attribute not in vars(module) and (why := moved.advice(module_name, [attribute])):
        raise InputError(f"{kind}: {target!r}: {why}")
    if attribute not in vars(module):
        public = [n for n, v in vars(module).items() if inspect.getmodule(v) is module and not n.startswith("_")]
        raise InputError(f"{kind}: {target!r}: {module_name} has no {attribute!r}; {nearest(attribute, public)}")
    return vars(module)[attribute]


@dataclass(frozen=True)
class Entry:
    """A line of ``clsim list``: a name, what it is, where that comes from; of a selector, what it needs and costs."""

    name: str
    title: str
    paper: str
    place: str
    family: str = ""
    needs: str = ""
    cost: str = ""


def described(name: str, target: str) -> Entry:
    """What a docstring says (first line, ``Needs:``, ``Cost:``, ``Source:``), read from the file without running it."""
    module_name, _, attribute = target.rpartition(":")
    path = _PACKAGE.joinpath(*module_name.split(".")[1:]).with_suffix(".py")
    for name_there, text in _docstrings(path):
        if name_there == attribute:
            said = {key: " ".join(value.split()) for key, value in _SAYS.findall(text)}
            title = " ".join(text.partition("\n\n")[0].split())
            return Entry(
                name,
                title,
                said.get("Source", ""),
                target,
                module_name.rpartition(".")[2],
                said.get("Needs", "").rstrip("."),
                said.get("Cost", "").rstrip("."),
            )
    return Entry(name, "", "", target)


@cache
def _docstrings(path: Path) -> list[tuple[str, str]]:
    """Of the functions and classes of a file, which hold several components each."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [(node.name, ast.get_docstring(node) or "") for node in nodes if isinstance(node, kinds)]


_SAYS = re.compile(r"^(Needs|Cost|Source): (.*?)(?=\n\n|\n(?:Needs|Cost|Source): |\Z)", re.DOTALL | re.MULTILINE)
