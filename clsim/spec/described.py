"""What can be found by name: every kind of thing, its names, and the description of each, made without an import."""

from __future__ import annotations

import ast
import inspect
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from clsim.errors import InputError, nearest
from clsim.spec import registry
from clsim.spec.components import ALIASES, COMBINATORS, COMPONENTS, OF_SOME, OPTIMIZERS
from clsim.spec.definitions import Definition, Parameter, Source, Unread, assigned, definition
from clsim.spec.docstrings import Docstring, parsed
from clsim.spec.flags import as_text
from clsim.spec.options import in_words, options_of
from clsim.spec.run import TABLES
from clsim.spec.sources import DATASETS

KINDS = (
    *registry.FILES,
    "datasets",
    *("selectors", "combinators", "acquisitions", "bounds", "condensers", "objectives", "learners", "models"),
    *("optimizers", "metrics", "tables"),
)
"""Every kind, in the order of ``clsim list``."""


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


@dataclass(frozen=True)
class Description:
    """What ``clsim show`` prints of a name.

    Attributes:
        aliases: its other names, in the literature.
        title: what it is, in a line without marks.
        text: prose; paragraphs with an empty line between them, code in single backticks.
        needs: what it asks of the pool, or of the learner.
        cost: its time and memory.
        source: the paper.
        place: its file, with the line for code.
        example: a command that uses it.
        tables: the text of a TOML file; empty for all else.
        can_label: whether it can choose what to label.
        parts: kind and name of each component that a file names.
        family: the file that its code is in, which holds alike components; empty for what is installed.
    """

    kind: str
    name: str
    title: str
    aliases: tuple[str, ...] = ()
    text: str = ""
    options: tuple[Option, ...] = ()
    needs: str = ""
    cost: str = ""
    source: str = ""
    place: str = ""
    example: str = ""
    tables: str = ""
    can_label: bool = False
    parts: tuple[tuple[str, str], ...] = ()
    family: str = ""


def names(kind: str) -> list[str]:
    """List the names of a kind: what is shipped, what is installed, and the files of the working directory.

    Args:
        kind: one of :data:`KINDS`; or ``buffers``: selectors and condensers.
    """
    if kind == "buffers":
        return names("selectors") + names("condensers")
    if kind in registry.FILES:
        return registry.file_names(kind)
    known: dict[str, Mapping[str, Any]] = {
        **COMPONENTS,
        "combinators": COMBINATORS,
        "datasets": DATASETS,
        "optimizers": OPTIMIZERS,
        "tables": TABLES,
    }
    shipped = list(known[kind]) if kind in known else list(_metrics())
    return shipped + [entry.name for entry in registry.installed(kind) if entry.name not in shipped]


def kinds_of(name: str) -> list[str]:
    """List the kinds that a name belongs to: none if it is unknown.

    Of code of one's own, ``module:attr`` or ``./file.py:attr``, the parameters tell the kind.

    >>> kinds_of("forgetting"), kinds_of("k-center"), kinds_of("nothing")
    (['reports', 'selectors', 'metrics'], ['selectors'], [])
    """
    if name.endswith(".toml"):
        return [_kind_of_file(registry.find_file("scenarios", name))]
    if ":" in name:
        return _kinds_of_code(name)
    combinator, inner = registry.taken_apart(name)
    if inner:
        return ["selectors"] if combinator in COMBINATORS else []
    return [kind for kind in KINDS if name in names(kind) or (kind == "selectors" and name in ALIASES)]


def kind_named(text: str) -> str:
    """Return the kind that a word names, in the singular or the plural.

    Raises:
        InputError: if there is none, with the nearest.

    >>> kind_named("selector"), kind_named("study"), kind_named("data sets")
    ('selectors', 'studies', 'datasets')
    """
    word = text.lower().replace("-", "").replace(" ", "").replace("_", "")
    for kind in (*KINDS, "buffers"):
        if word in (kind, kind.removesuffix("s"), kind.removesuffix("ies") + "y", "strategy" * (kind == "strategies")):
            return kind
    raise InputError(f"unknown kind {text!r}; {nearest(word, [*KINDS, 'buffers'])}")


def describe(kind: str, name: str, *, whole: bool = True) -> Description:
    """Describe what a name of a kind stands for.

    Args:
        kind: one of :data:`KINDS`.
        name: one of :func:`names`, or another name of a selector; or a TOML file's path, ``module:attr`` or
            ``./file.py:attr``.
        whole: whether to read the options, and the components that a file names, which takes longer.

    Raises:
        InputError: if there is none, with the nearest name.
    """
    if kind in registry.FILES:
        return _of_file(kind, name, whole)
    name = ALIASES.get(name, name) if kind == "selectors" else name
    if name not in names(kind) and ":" not in name:
        raise InputError(f"{kind}: unknown name {name!r}; {nearest(name, names(kind))}")
    if kind == "datasets":
        title, paper = DATASETS[name]
        return Description(kind, name, title, source=paper, place="clsim.data", example=_example(kind, name))
    if kind == "optimizers":
        title, paper = OPTIMIZERS[name]
        table = _table("optimizer")
        keys = [p for p in table.fields if p.name != "name" and name in OF_SOME.get(p.name, (name,))]
        options, example = tuple(map(_option, keys)), _example(kind, name)
        return Description(kind, name, title, (), "", options, "", "", paper, table.place, example)
    if kind == "tables":
        table = _table(name)
        said, options = table.docstring, tuple(map(_option, table.fields))
        return Description(kind, name, said.title, (), said.text, options, place=table.place, example=_example(kind, name))
    return _of_code(kind, name, whole)


def _of_code(kind: str, name: str, whole: bool) -> Description:
    """Describe a component by its source; or, where that does not show it, by what its module makes when it runs."""
    target = _target(kind, name)
    try:
        found = definition(target)
        said, options, place = found.docstring, found.options if whole else [], found.place
    except Unread:
        component = registry.component(kind, name)
        said, place = parsed(inspect.getdoc(component)), _place_of(component)
        options = [
            Parameter(p.name, p.annotation, p.default, said.args.get(p.name, ""), p.default is p.empty)
            for p in options_of(component).values()
        ]
    aliases = tuple(alias for alias, of in ALIASES.items() if of == name) if kind == "selectors" else ()
    label = kind in ("acquisitions", "bounds") or (kind == "selectors" and registry.acquires(name))
    family = target.partition(":")[0].rpartition(".")[2] if name in COMPONENTS.get(kind, ()) else ""
    if kind == "metrics" and name in _metrics():
        options = []
    return Description(
        kind,
        name,
        said.title or _titled(kind, name),
        aliases,
        said.text,
        tuple(map(_option, options)),
        said.needs,
        said.cost,
        said.source,
        place,
        _example(kind, name),
        can_label=label,
        family=family,
    )


def _titled(kind: str, name: str) -> str:
    """Say where an installed component without a docstring is from."""
    entry = next((entry for entry in registry.installed(kind) if entry.name == name), None)
    return "" if entry is None else f"installed by {entry.module}"


def _target(kind: str, name: str) -> str:
    if ":" in name:
        return name
    known = {**COMPONENTS, "combinators": COMBINATORS}.get(kind, {})
    if kind == "metrics" and name in _metrics():
        return _metrics()[name]
    if name in known:
        return known[name]
    return next(entry.value for entry in registry.installed(kind) if entry.name == name)


def _place_of(component: Any) -> str:
    try:
        return f"{inspect.getsourcefile(component)}:{inspect.getsourcelines(component)[1]}"
    except (OSError, TypeError):
        return ""


@cache
def _metrics() -> dict[str, str]:
    """Return the shipped metrics by name, with the place of the function: the tables of :mod:`clsim.records.metrics`."""
    module, found = "clsim.records.metrics", dict[str, str]()
    for table in ("METRICS", "FURTHER"):
        _, value = assigned(module, table)
        if isinstance(value, ast.Dict):
            for key, metric in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(metric, ast.Call):
                    found[str(key.value)] = f"{module}:{ast.unparse(metric.args[1])}"
    return found


def _table(name: str) -> Definition:
    table = TABLES[name]
    return definition(f"{table.__module__}:{table.__name__}")


def _option(parameter: Parameter) -> Option:
    return Option(
        parameter.name,
        in_words(parameter.kind),
        "" if parameter.required else _as_text(parameter.default),
        parameter.says,
    )


def _as_text(value: Any) -> str:
    """Write a default as ``--set`` takes it.

    >>> _as_text(("crop", 1.0)), _as_text(None), _as_text(math.inf), _as_text(Source("WIDTH * 2"))
    ('["crop", 1.0]', 'none', 'inf', 'WIDTH * 2')
    """
    if isinstance(value, Source):
        return value.text
    if value is None or value == {}:
        return "none"
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    if isinstance(value, (bool, int, float, list, tuple)):
        return as_text(value)
    return value if isinstance(value, str) and value else repr(value)


def _of_file(kind: str, name: str, whole: bool) -> Description:
    """Describe a TOML file."""
    path = registry.find_file(kind, name)
    tables, text = registry.read_toml(path), path.read_text(encoding="utf-8")
    said = {key: " ".join(str(tables.get(key, "")).split()) for key in ("title", "paper", "description")}
    return Description(
        kind,
        name,
        said["title"],
        text=said["description"],
        source=said["paper"],
        place=str(path),
        example=_example(kind, name),
        tables=text,
        parts=tuple(_parts(tables)) if whole else (),
    )


def _parts(tables: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the components that the tables of a file name."""
    said = [("datasets", "data", "dataset"), ("learners", "learner", "name"), ("models", "model", "name")]
    said += [("optimizers", "optimizer", "name"), ("selectors", "memory", "buffer"), ("selectors", "memory", "retrieval")]
    said += [("selectors", "labelling", "selector")]
    found = list[tuple[str, str]]()
    for kind, table, key in said:
        value = tables.get(table)
        named = value.get(key) if isinstance(value, dict) else None
        if isinstance(named, str):
            kinds = [kind, "condensers", "acquisitions", "bounds"] if kind == "selectors" else [kind]
            found += [(one, named) for one in kinds if named in names(one)][:1]
    return found


def _kind_of_file(path: Path) -> str:
    """Tell a scenario, a strategy, a study and a report apart: by the folder, else by the keys."""
    if path.resolve().parent.name in registry.FILES:
        return path.resolve().parent.name
    tables = registry.read_toml(path)
    if {"data", "stream"} & {*tables}:
        return "scenarios"
    if {"scenario", "strategy", "seeds", "set"} & {*tables}:
        return "studies"
    return "strategies" if {*tables} & {*TABLES, "on"} else "reports"


def _kinds_of_code(target: str) -> list[str]:
    """Tell the kind of one's own code by its parameters; none if they are of no kind, or the code cannot be read."""
    try:
        found = definition(target)
        first = tuple(found.parameters[:2])
    except Unread:
        return []
    for kind, wanted in _FIRST.items():
        if first[: len(wanted)] == wanted:
            condenses = kind == "selectors" and getattr(found.node, "returns", None) is not None
            makes = condenses and "Exemplars" in ast.unparse(found.node.returns)  # type: ignore[union-attr,arg-type]
            return ["condensers" if makes else kind]
    return []


_FIRST: dict[str, tuple[str, ...]] = {
    "selectors": ("pool", "budget"),
    "objectives": ("net", "batch"),
    "acquisitions": ("net", "rng"),
    "learners": ("setup",),
    "models": ("shape",),
    "metrics": ("R",),
}
"""Kind → the first parameters of its components."""


def _example(kind: str, name: str) -> str:
    """Return a command that uses a name."""
    return _EXAMPLES[kind](shlex.quote(name))


_RUN = "clsim run --scenario"

_EXAMPLES: dict[str, Callable[[str], str]] = {
    "scenarios": lambda name: f"{_RUN} {name}",
    "strategies": lambda name: f"{_RUN} split-digits --strategy {name}",
    "studies": lambda name: f"clsim study {name}",
    "reports": lambda name: f"clsim report {name}",
    "datasets": lambda name: f"{_RUN} split-digits --set data.dataset={name}",
    "selectors": lambda name: f"{_RUN} split-digits --buffer {name}",
    "combinators": lambda name: f"{_RUN} split-digits --buffer '{name}(kcenter)'",
    "acquisitions": lambda name: f"{_RUN} active-digits --strategy finetune --label {name}",
    "bounds": lambda name: f"{_RUN} active-digits --strategy finetune --label {name}",
    "condensers": lambda name: f"{_RUN} split-digits --buffer {name}",
    "objectives": lambda name: f"{_RUN} split-digits --set learner.options.objective={name}",
    "learners": lambda name: f"{_RUN} split-digits --set learner.name={name}",
    "models": lambda name: f"{_RUN} split-digits --set model.name={name}",
    "optimizers": lambda name: f"{_RUN} split-digits --set optimizer.name={name} --set optimizer.lr=0.001",
    "metrics": lambda name: f"clsim report --metric {name}",
    "tables": lambda name: f"{_RUN} split-digits --set {name}.KEY=VALUE",
}
