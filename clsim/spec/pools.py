"""The list ``[[pool]]`` of a spec: transforms that make a clean stream's pool a realistic one, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clsim.errors import InputError, nearest
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.spec.definitions import Unread, definition
from clsim.spec.flags import as_text, parsed
from clsim.spec.kinds import unbounded
from clsim.spec.reader import Options, merge


@dataclass(frozen=True)
class PoolSpec:
    """A transform of the training samples of a stream: rare classes, copies, outsiders, imbalance, noise, blurry tasks.

    The transforms of a spec are carried out in the order of their list. Each draws from a generator of its own. What a
    sample is (rare, a copy, an outsider, labelled wrong) is kept for reports; no selector, learner or module sees it.

    Attributes:
        name: a name of ``clsim list pools``, ``module:attr`` or ``./file.py:attr``.
        options: keyword arguments of the transform, as ``clsim show pools NAME`` lists them.
    """

    name: str
    options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InputError(f"pool: found {self.name!r}, {nearest(self.name, COMPONENTS['pools'])}")


def entries_of(texts: str | Iterable[Any]) -> list[dict[str, Any]]:
    """Read transforms: as people type them, ``NAME`` or ``NAME:number`` for the first option, or as tables.

    Args:
        texts: one transform or several; in a text, a plus sign may join several. ``none``: no transform at all.

    Raises:
        InputError: for an unknown name, with the nearest, or a number for a transform without options.

    >>> entries_of(["rare", "noise:0.2"])
    [{'name': 'rare'}, {'name': 'noise', 'options': {'share': 0.2}}]
    >>> entries_of("none"), entries_of("rare + noise:0.4")[1]["options"]
    ([], {'share': 0.4})
    """
    found: list[dict[str, Any]] = []
    for one in [texts] if isinstance(texts, str) else texts:
        if isinstance(one, str):
            found += [_entry(part.strip()) for part in one.split("+") if part.strip() != "none"]
        else:
            found.append(dict(one) if isinstance(one, Mapping) else one)
    return found


def _entry(text: str) -> dict[str, Any]:
    before, colon, last = text.rpartition(":")
    value = parsed(last) if colon else None
    name = before.strip() if type(value) in (int, float) else text
    if not name or ":" not in name:
        registry.check_name("pools", name)
    if name == text:
        return {"name": text}
    first = _first_option(name)
    if first is None:
        raise InputError(f"pool: found {text!r}, but {name!r} has no option that a number sets; allowed: {name}")
    option, kind = first
    return {"name": name, "options": {option: float(value) if unbounded(kind) is float else value}}  # type: ignore[arg-type]


def _first_option(name: str) -> tuple[str, Any] | None:
    """Return the name and the type of a transform's first option, without an import; None if it has none."""
    entry = next((entry for entry in registry.installed("pools") if entry.name == name), None)
    target = COMPONENTS["pools"].get(name) or (f"{entry.module}:{entry.attr}" if entry else name)
    try:
        found = definition(target).options
    except Unread:
        raise InputError(
            f"pool: {target!r} cannot be read; allowed: a function in a file, or its options by name"
        ) from None
    return (found[0].name, found[0].kind) if found else None


def named(entries: Any) -> str:
    """Name the transforms of a spec as it stands in files, in a few words; a dash without any.

    >>> named([{"name": "rare", "options": {}}, {"name": "noise", "options": {"share": 0.2}}]), named(None)
    ('rare + noise share=0.2', '–')
    """
    if not isinstance(entries, (list, tuple)):
        return "–"
    words = []
    for entry in entries:
        if isinstance(entry, Mapping):
            options = entry.get("options")
            told = [f"{k}={as_text(v)}" for k, v in options.items()] if isinstance(options, Mapping) else []
            words.append(" ".join([str(entry.get("name", "?")), *told]))
    return " + ".join(words) or "–"


def joined(layers: Iterable[Any]) -> list[dict[str, Any]]:
    """Join what layers say of the pool, the lowest first: a list takes the place of what is below it, a table
    ``NAME → options`` changes options of the transforms of that name.

    Raises:
        InputError: if a table names a transform that is not in the list, with the nearest, or is no table of options.
    """
    found: list[dict[str, Any]] = []
    for said in layers:
        if not isinstance(said, Mapping):
            found = entries_of(said)
            continue
        for name, options in said.items():
            matching = [i for i, entry in enumerate(found) if name in _names(entry)]
            if not matching:
                there = [_names(entry)[1] for entry in found]
                known = nearest(name, there) if there else "allowed: with --pool, which names transforms"
                raise InputError(f"pool.{name}: found options of a transform that this run does not have; {known}")
            if not isinstance(options, Mapping):
                raise InputError(f"pool.{name}: found {options!r}, allowed: pool.{name}.OPTION=VALUE")
            for i in matching:
                found[i] = merge(found[i], {"options": options})
    return found


def _names(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names by which ``--set`` may mean a transform: its own and, of one's own code, the attribute alone."""
    name = str(entry.get("name", ""))
    return name, name.rpartition(":")[2]
