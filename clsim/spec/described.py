"""What can be found by name: every kind of thing, its names, and a description of each, made without an import."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from clsim.errors import InputError, nearest
from clsim.spec import abilities, registry
from clsim.spec.components import ALIASES, COMBINATORS, COMPONENTS, OF_SOME, OPTIMIZERS
from clsim.spec.definitions import Definition, Unread, assigned, definition
from clsim.spec.examples import example
from clsim.spec.option_lines import Option, implied, of_object, option_lines
from clsim.spec.recognised import kind_of_file, kinds_of_code
from clsim.spec.run import TABLES
from clsim.spec.sources import DATASETS, OWN_DATA

KINDS = (
    *registry.FILES,
    "datasets",
    *("selectors", "combinators", "acquisitions", "bounds", "pruners", "condensers"),
    *("objectives", "learners", "models", "pools"),
    *("optimizers", "metrics", "tables"),
)
"""Every kind, in the order of ``clsim list``."""

OPTIONS_IN = {
    **dict.fromkeys(("selectors", "condensers"), "memory.options"),
    **dict.fromkeys(("acquisitions", "bounds"), "labelling.options"),
    "pruners": "batch.options",
    **dict.fromkeys(("learners", "objectives"), "learner.options"),
    "models": "model.options",
    "optimizers": "optimizer",
    "datasets": "data",
}
"""Kind → the table of a spec that holds the options of its components; of a table, its own name."""


@dataclass(frozen=True)
class Description:
    """What ``clsim show`` prints of a name.

    Attributes:
        title: what it is, in a line without marks.
        aliases: its other names, in the literature.
        text: prose; paragraphs with an empty line between them, code in single backticks.
        options_in: the table of a spec that holds the options; empty for what has none.
        implies: what choosing it by name sets besides, as ``key=value``.
        needs: what it asks of the pool, or of the learner.
        cost: its time and memory.
        source: the paper.
        place: its file, with the line for code; empty if it has none of its own.
        example: a command that uses it.
        tables: the text of a TOML file; empty for all else.
        can_label: whether it can choose what to label.
        can_batch: whether it can choose the samples of a gradient step.
        parts: kind and name of each thing that a file names.
        family: the file that its code is in, which holds alike components; empty for what is not shipped.
    """

    kind: str
    name: str
    title: str
    aliases: tuple[str, ...] = ()
    text: str = ""
    options: tuple[Option, ...] = ()
    options_in: str = ""
    implies: tuple[str, ...] = ()
    needs: str = ""
    cost: str = ""
    source: str = ""
    place: str = ""
    example: str = ""
    tables: str = ""
    can_label: bool = False
    can_batch: bool = False
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
    shipped = list(_shipped(kind))
    return shipped + [entry.name for entry in registry.installed(kind) if entry.name not in shipped]


def kinds_of(name: str) -> list[str]:
    """List the kinds that a name belongs to: none if it is unknown.

    Of code of one's own, ``module:attr`` or ``./file.py:attr``, the parameters tell the kind.

    >>> kinds_of("forgetting"), kinds_of("k-center"), kinds_of("nothing")
    (['reports', 'selectors', 'metrics'], ['selectors'], [])
    """
    if name.endswith(".toml"):
        return [kind_of_file(registry.find_file("scenarios", name))]
    if name.startswith("avalanche:"):
        return ["learners"]
    if ":" in name:
        return kinds_of_code(name)
    return [kind for kind in KINDS if _known(kind, name)]


def kind_named(text: str) -> str:
    """Return the kind that a word names, in the singular or the plural.

    Raises:
        InputError: if there is none, with the nearest.

    >>> kind_named("selector"), kind_named("study"), kind_named("data set")
    ('selectors', 'studies', 'datasets')
    """
    word = "".join(c for c in text.lower() if c.isalnum())
    for kind in (*KINDS, "buffers"):
        if word in (kind, kind.removesuffix("s"), kind.removesuffix("ies") + "y"):
            return kind
    raise InputError(f"unknown kind {text!r}; {nearest(word, [*KINDS, 'buffers'])}")


def describe(kind: str, name: str, *, whole: bool = True) -> Description:
    """Describe what a name of a kind stands for.

    Args:
        kind: one of :data:`KINDS`; or ``buffers``: a selector or a condenser.
        name: one of :func:`names`, or another name of a selector; or the path of a TOML file, ``module:attr`` or
            ``./file.py:attr``.
        whole: whether to read all; else what ``clsim list`` shows, which takes less time: no options and no example.

    Raises:
        InputError: if there is none, with the nearest name.
    """
    if kind == "buffers":
        kind = "condensers" if registry.is_condenser(name) else "selectors"
    if kind in registry.FILES:
        return _of_file(kind, name, whole)
    if not _known(kind, name) and (":" not in name or kind not in (*COMPONENTS, "metrics")):
        raise InputError(f"{kind}: unknown name {name!r}; {nearest(name, names(kind))}")
    if kind == "datasets":
        return _of_data(name, whole)
    if kind == "optimizers":
        title, paper = OPTIMIZERS[name]
        keys = [p for p in _table("optimizer").fields if p.name != "name" and name in OF_SOME.get(p.name, (name,))]
        return _made(
            kind, name, title, whole, options=option_lines(keys), source=paper, place=_table("optimizer").place
        )
    if kind == "tables":
        table = _table(name)
        said = table.docstring
        return _made(
            kind, name, said.title, whole, text=said.text, options=option_lines(table.fields), place=table.place
        )
    return _of_code(kind, ALIASES.get(name, name) if kind == "selectors" else name, whole)


def _made(kind: str, name: str, title: str, whole: bool, **rest: Any) -> Description:
    within = name if kind == "tables" else _within(kind, name) if rest.get("options") else ""
    return Description(kind, name, title, options_in=within, example=example(kind, name) if whole else "", **rest)


def _within(kind: str, name: str) -> str:
    return f"pool.{name.rpartition(':')[2]}" if kind == "pools" else OPTIONS_IN.get(kind, "")


def _shipped(kind: str) -> Mapping[str, Any]:
    if kind == "metrics":
        return _metrics()
    others: dict[str, Mapping[str, Any]] = {"combinators": COMBINATORS, "datasets": DATASETS}
    others |= {"optimizers": OPTIMIZERS, "tables": TABLES}
    return COMPONENTS[kind] if kind in COMPONENTS else others[kind]


def _known(kind: str, name: str) -> bool:
    if kind in registry.FILES:
        return name in registry.file_names(kind)
    if name in _shipped(kind) or (kind == "selectors" and name in ALIASES):
        return True
    return any(entry.name == name for entry in registry.installed(kind))


def _of_code(kind: str, name: str, whole: bool) -> Description:
    """Describe a component by its source; or, where that does not show it, by what its module makes when it runs."""
    shipped = _shipped(kind).get(name, "")
    metric = shipped if kind == "metrics" and shipped else None
    entry = next((entry for entry in registry.installed(kind) if entry.name == name), None)
    target = metric.target if metric else shipped or (f"{entry.module}:{entry.attr}" if entry else name)
    try:
        found = definition(target)
        said, place = found.docstring, found.place
        options = found.options if whole and kind != "metrics" else []
        groups = (f"{one[0].upper()}{one[1:]}" for one in (found.groups if whole else ()))
        text = "\n\n".join(filter(None, [said.text, *groups]))
    except Unread:
        if not whole:
            return Description(kind, name, f"installed by {entry.module}" if entry else "")
        said, place, options = of_object(registry.component(kind, name))
        text = said.text
    title = said.title or (f"installed by {entry.module}" if entry else "")
    if metric:
        title = f"{metric.label[0].upper()}{metric.label[1:]} · {title}"
        text = "\n\n".join(filter(None, [text, "Higher is better." if metric.higher else "Lower is better."]))
    return _made(
        kind,
        name,
        title,
        whole,
        aliases=tuple(alias for alias, of in ALIASES.items() if of == name) if kind == "selectors" else (),
        text=text,
        options=option_lines(options),
        implies=implied(kind, name),
        needs=said.needs,
        cost=said.cost,
        source=said.source,
        place=place,
        can_label=kind in ("acquisitions", "bounds") or (kind == "selectors" and abilities.acquires(name)),
        can_batch=kind == "pruners" or (kind == "selectors" and abilities.chooses_batch(name)),
        family=target.partition(":")[0].rpartition(".")[2] if shipped else "",
    )


@dataclass(frozen=True)
class _Metric:
    """A row of the tables of :mod:`clsim.records.metrics`, as its source has it."""

    target: str
    label: str
    higher: bool


@cache
def _metrics() -> dict[str, _Metric]:
    module, found = "clsim.records.metrics", dict[str, _Metric]()
    for table in ("METRICS", "FURTHER"):
        _, value = assigned(module, table)
        for key, metric in zip(value.keys, value.values, strict=True) if isinstance(value, ast.Dict) else ():
            if isinstance(key, ast.Constant) and isinstance(metric, ast.Call):
                label, function = metric.args
                lower = any(k.arg == "higher_is_better" and ast.unparse(k.value) == "False" for k in metric.keywords)
                found[str(key.value)] = _Metric(f"{module}:{ast.unparse(function)}", ast.literal_eval(label), not lower)
    return found


def _table(name: str) -> Definition:
    table = TABLES[name]
    return definition(f"{table.__module__}:{table.__name__}")


def _of_data(name: str, whole: bool) -> Description:
    """Describe a data set, with the keys of ``[data]`` that it reads."""
    title, paper = DATASETS[name]
    own = {"path": OWN_DATA, "sequence": ("sequence",)} | dict.fromkeys(("config", "splits", "columns"), ("hf",))
    keys = [p for p in _table("data").fields if p.name != "dataset" and name in own.get(p.name, (name,))]
    users = []
    for scenario in registry.file_names("scenarios") if whole else ():
        data = _tables_of(scenario).get("data")
        users += [f"`{scenario}`"] * (isinstance(data, dict) and data.get("dataset") == name)
    fetched = "" if name in ("digits", "sequence", *OWN_DATA) else _FETCHED
    used = f"Scenarios with it: {', '.join(users)}." if users else ""
    text = "\n\n".join(filter(None, [fetched, used]))
    return _made("datasets", name, title, whole, text=text, options=option_lines(keys), source=paper)


def _tables_of(scenario: str) -> dict[str, Any]:
    """Read the tables of a scenario's file; none if it cannot be read, which is said where the file itself is used."""
    try:
        return registry.read_toml(registry.find_file("scenarios", scenario))
    except InputError:
        return {}


_FETCHED = (
    "It is downloaded when it is first used, into `--data-root` (`$CLSIM_DATA`, else `~/.cache/clsim`), unless it lies "
    "there already."
)


def _of_file(kind: str, name: str, whole: bool) -> Description:
    """Describe a TOML file."""
    path = registry.find_file(kind, name)
    tables = registry.read_toml(path)
    said = {key: " ".join(str(tables.get(key, "")).split()) for key in ("title", "paper", "description")}
    return _made(
        kind,
        name,
        said["title"],
        whole,
        text=said["description"],
        source=said["paper"],
        place=str(path),
        tables=path.read_text(encoding="utf-8") if whole else "",
        parts=tuple(_parts(tables)) if whole else (),
    )


def _parts(tables: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the things that the tables of a file name, each once.

    >>> _parts({"scenario": "split-mnist", "buffer": ["random", "dm"], "model": {"name": "mlp"}})
    [('scenarios', 'split-mnist'), ('selectors', 'random'), ('condensers', 'dm'), ('models', 'mlp')]
    """
    found = dict[tuple[str, str], None]()
    for key, kinds in _NAMED.items():
        table, _, inner = key.partition(".")
        value = tables.get(table)
        value = value.get(inner) if inner and isinstance(value, dict) else None if inner else value
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str):
                found |= dict.fromkeys([(kind, name) for kind in kinds if _known(kind, name)][:1])
    return list(found)


_BUFFERS, _LABELLERS = ("selectors", "condensers"), ("bounds", "acquisitions", "selectors")
_NAMED = {
    "scenario": ("scenarios",),
    "strategy": ("strategies",),
    "buffer": _BUFFERS,
    "label": _LABELLERS,
    "batch": ("pruners", "selectors"),
    "metrics": ("metrics",),
    "data.dataset": ("datasets",),
    "data.sequence": ("datasets",),
    "learner.name": ("learners",),
    "model.name": ("models",),
    "optimizer.name": ("optimizers",),
    "memory.buffer": _BUFFERS,
    "memory.retrieval": ("selectors",),
    "labelling.selector": _LABELLERS,
    "batch.selector": ("pruners", "selectors"),
}
"""Key of a file → the kinds that its value may be of, the one that is meant first."""
