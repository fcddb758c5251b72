"""The layers of a spec: tables with where they come from. What is merged is what ``clsim run --dry-run`` explains.

The later wins: defaults < what names imply < scenario < strategy < the strategy's ``[on.<scenario>]`` < flags <
``--set``. Where the command line names another buffer than the strategy's own, ``memory.update`` and ``memory.options``
of scenario and strategy do not hold.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.errors import InputError, nearest
from clsim.spec import abilities, components, pools, registry, run
from clsim.spec.components import DIGITS_DEFAULTS
from clsim.spec.flags import flag_of, leaves, setting
from clsim.spec.hub import plain_name
from clsim.spec.reader import merge
from clsim.spec.tables import STARTS, DataSpec, LearnerSpec, MemorySpec, ModelSpec

if TYPE_CHECKING:
    from clsim.spec.run import RunSpec

ABOUT = ("title", "paper", "description")
"""Top-level keys of a spec file that describe it to its readers; runs do not use them."""

FLAGS = "flags"
"""Origin of the layer of flags; each of its values comes from the flag that sets it."""

DEFAULT = "default"
"""Origin of what nobody gives."""


@dataclass(frozen=True)
class Layer:
    """Tables that come from one place.

    Attributes:
        origin: the place, in words; :data:`FLAGS` for all flags together.
        tables: the tables.
        given: whether somebody gave these values; else they are usual ones, put back since the layer above sets the
            same thing in another way.
    """

    origin: str
    tables: Mapping[str, Any]
    given: bool = True


@dataclass(frozen=True)
class Value:
    """A value of a resolved spec, with where it comes from.

    Attributes:
        key: the key, as ``table.key``.
        value: the value, in plain types.
        origin: where it comes from, in words, such as ``--memory`` or ``scenario split-digits``.
        given: whether somebody gave it; a default is not given.
        over: the value below it in another layer, and the origin of that; None if there is none.
    """

    key: str
    value: Any
    origin: str
    given: bool
    over: tuple[Any, str] | None = None


def merged(layers: Iterable[Layer]) -> dict[str, Any]:
    """Merge the tables of layers, the later ones over the earlier ones."""
    return merge(*(layer.tables for layer in layers))


def explained(spec: RunSpec, layers: Sequence[Layer]) -> list[Value]:
    """List every value of a spec in the order of its tables, with the layer that it comes from.

    Args:
        spec: the resolved spec.
        layers: the layers that were merged into it, as :func:`clsim.spec.resolve.resolved` returns them.
    """
    found: dict[str, list[tuple[Any, str, bool]]] = {}
    for layer in layers:
        for key, value in leaves(layer.tables).items():
            origin = flag_of(key) if layer.origin == FLAGS else layer.origin
            found.setdefault(key, []).append((value, origin, layer.given))
    plain = json.loads(json.dumps(dataclasses.asdict(spec)))
    values = []
    shown = {name: plain[name] for name in run.TABLES} | ({"pool": plain["pool"]} if spec.pool else {})
    for key, value in leaves(shown).items():
        *below, (_, origin, given) = [(None, DEFAULT, False), *found.get(key, [])]
        hidden = next(((old, whose) for old, whose, meant in reversed(below) if meant), None)
        values.append(Value(key, value, origin, given, hidden))
    return values


def layers_of(
    scenario: str | Mapping[str, Any], strategy: str, flags: Mapping[str, Any], settings: Sequence[str]
) -> tuple[str, str, list[Layer]]:
    """Return the names of scenario and strategy, and the layers of their spec without ``sources``, the lowest first.

    Args:
        scenario, strategy, flags, settings: as for :func:`clsim.spec.resolve.resolve`.

    Raises:
        InputError: if a name or a value is not allowed, or if what the command line sets does not go with the rest.
    """
    scenario_name, below = _scenario(scenario)
    strategy_name, own = strategy_layers(strategy, scenario_name)
    above = [Layer(FLAGS, flags), *(Layer("--set", setting(text)) for text in settings)]
    pool = pools.joined([layer.tables["pool"] for layer in (*below, *own, *above) if "pool" in layer.tables])
    origins = [
        flag_of("pool") if layer.origin == FLAGS else layer.origin
        for layer in (*below, *own, *above)
        if "pool" in layer.tables
    ]
    below, own, above = (_without_table("pool", part) for part in (below, own, above))
    command_line = merged(above)
    run.check(command_line, "command line")
    if memory := strategy_name.startswith("avalanche:") and command_line.get("memory", {}):
        key, value = next(iter(memory.items()))
        raise InputError(
            f"memory.{key}: found {value!r} with an Avalanche strategy, whose memory is its own; "
            "allowed: learner.options, such as mem_size"
        )
    above = [*_one_size(command_line, "the command line"), *above]
    command_line = merged(above)

    planned = buffer_of(own)
    wished = registry.canonical(command_line.get("memory", {}).get("buffer", planned))
    if planned == "none" and wished != "none":
        raise InputError(
            f"memory.buffer: found {wished!r}, but strategy {strategy_name!r} keeps no memory; allowed: none"
        )
    below = _without(_options_of_others(merged([*below, *own]), command_line), [*below, *own])
    planned_label = _table(below, "labelling").get("selector", "none")
    if wished != planned:  # what the strategy says of its own buffer does not hold for another
        below = _without({("memory", "update"), ("memory", "options")}, below)
    chosen = [registry.canonical(_table(part, "batch").get("selector", "none")) for part in (below, [*below, *above])]
    if chosen[0] != chosen[1]:
        below = _without({("batch", "options")}, below)
    implied = Layer(f"implied by buffer {wished}", {"memory": _implied(wished, merged([*below, *above]))})
    layers = _labelled(below, above, planned_label)
    layers = _embedded(_controlled(_batched([implied, *layers], command_line), command_line))
    layers = _irreducible(layers, wished)
    if pool:
        layers.append(Layer(" and ".join(dict.fromkeys(origins)), {"pool": pool}))
    return scenario_name, strategy_name, _plain_data(_canonical(layers, "memory", "buffer"))


def strategy_layers(strategy: str, scenario_name: str) -> tuple[str, list[Layer]]:
    """Return the name and the layers of a strategy: its tables, and its ``[on.<scenario>]``."""
    theirs = strategy.startswith("avalanche:")  # one file for all of Avalanche's strategies
    path = registry.find_file("strategies", "avalanche" if theirs else strategy)
    tables = _spec_file(path)
    if theirs:
        tables = merge(tables, {"learner": {"name": strategy}})
    exceptions = tables.pop("on", {})
    _check_exceptions(exceptions, path)
    name = strategy if theirs else path.stem
    origin, special = f"strategy {name}", exceptions.get(scenario_name, {})
    layers = [*_one_size(tables, origin), Layer(origin, tables)]
    where = f"{origin} [on.{scenario_name}]"
    return name, [*layers, *([*_one_size(special, where), Layer(where, special)] if special else [])]


def buffer_of(layers: Iterable[Layer]) -> str:
    """Return the name of the buffer that layers plan; ``none`` if they plan none."""
    return _table(layers, "memory").get("buffer", "none")


def _table(layers: Iterable[Layer], name: str) -> dict[str, Any]:
    found: dict[str, Any] = merged(layers).get(name, {})
    return found


def _scenario(scenario: str | Mapping[str, Any]) -> tuple[str, list[Layer]]:
    if isinstance(scenario, str):
        path = registry.find_file("scenarios", scenario)
        name, tables = path.stem, _spec_file(path)
    else:
        name, tables = "custom", dict(scenario)
    return name, [*_one_size(tables, f"scenario {name}"), Layer(f"scenario {name}", tables)]


def _spec_file(path: Path) -> dict[str, Any]:
    tables = registry.read_toml(path)
    for key in ABOUT:
        if not isinstance(tables.pop(key, ""), str):
            raise InputError(f"{path}: {key}: allowed: text")
    run.check({key: value for key, value in tables.items() if key not in ("on", "pool")}, str(path))
    if "pool" in tables:
        try:
            run.check({"pool": pools.entries_of(tables["pool"])}, str(path))
        except TypeError:
            raise InputError(
                f"{path}: pool: found {tables['pool']!r}, allowed: [[pool]] tables, each with a name"
            ) from None
    return tables


def _check_exceptions(exceptions: Any, path: Path) -> None:
    if not isinstance(exceptions, Mapping):
        raise InputError(f"{path}: on: found {exceptions!r}, allowed: tables [on.<scenario>.<table>]")
    known = registry.file_names("scenarios")
    for name, tables in exceptions.items():
        if name not in known:
            raise InputError(f"{path}: [on.{name}]: unknown scenario; {nearest(name, known)}")
        run.check(tables, f"{path}: [on.{name}]")


def _one_size(tables: Mapping[str, Any], origin: str) -> list[Layer]:
    """Put back the keys that say a size (of the memory, of the labelled part) in another way than a layer does.

    Args:
        tables: the tables of the layer.
        origin: where they come from.

    Returns:
        The layer that stands below that one; none if it sets no such size.
    """
    back: dict[str, Any] = {}
    for table, usual in _EITHER:
        if any(key in tables.get(table, {}) for key in usual):
            back = merge(back, {table: usual})
    memory, plain = tables.get("memory", {}), MemorySpec()
    if memory.get("fraction"):
        back = merge(back, {"memory": {"capacity": plain.capacity, "per": plain.per}})
    elif "capacity" in memory:
        back = merge(back, {"memory": {"fraction": plain.fraction}})
    return [Layer(f"{DEFAULT}, as {origin} sets it otherwise", back, given=False)] if back else []


_EITHER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("labels", {"fraction": 0.0, "per_class": 0, "count": 0}),
    ("labelling", {"budget": 0, "fraction": 0.0}),
    ("labelling", {"rounds": 1, "per_round": 0}),
)
"""Keys of a table that say the same in different ways, with the values of those that say nothing."""


def _options_of_others(planned: Mapping[str, Any], command_line: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Name the options of a model or a learner that the command line replaces by another one."""
    replaced = set()
    for table, usual in (("model", ModelSpec().name), ("learner", LearnerSpec().name)):
        name = planned.get(table, {}).get("name", usual)
        if command_line.get(table, {}).get("name", name) != name:
            replaced.add((table, "options"))
    return replaced


def _without(keys: Collection[tuple[str, str]], layers: Iterable[Layer]) -> list[Layer]:
    """Return layers without some keys, each the name of a table and of a key in it."""

    def kept(table: str, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if (table, key) not in keys}

    return [
        dataclasses.replace(layer, tables={name: kept(name, table) for name, table in layer.tables.items()})
        for layer in layers
    ]


def _without_table(table: str, layers: Iterable[Layer]) -> list[Layer]:
    return [
        dataclasses.replace(layer, tables={name: found for name, found in layer.tables.items() if name != table})
        for layer in layers
    ]


def _canonical(layers: Iterable[Layer], table: str, key: str) -> list[Layer]:
    """Put the name that a selector has in clsim in the place of any other one."""
    return [
        dataclasses.replace(layer, tables=merge(layer.tables, {table: {key: registry.canonical(name)}}))
        if isinstance(name := layer.tables.get(table, {}).get(key), str)
        else layer
        for layer in layers
    ]


def _plain_data(layers: Iterable[Layer]) -> list[Layer]:
    """Put the name and the path that a data set has in a spec in the place of any other way to name it."""
    out = []
    for layer in layers:
        table = layer.tables.get("data", {})
        if isinstance(dataset := table.get("dataset"), str):
            name, path = plain_name(dataset, str(table.get("path", "")))
            given = {"dataset": name} | ({"path": path} if path else {})
            layer = dataclasses.replace(layer, tables=merge(layer.tables, {"data": given}))
        out.append(layer)
    return out


def _implied(buffer: str, tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of ``[memory]`` that a buffer's name implies, given the data and ``memory.per``."""
    combinator, inner = registry.taken_apart(buffer)
    while combinator in components.PLAIN and len(inner) == 1:  # what a selector implies holds inside these too
        buffer = inner[0]
        combinator, inner = registry.taken_apart(buffer)
    data, usual = tables.get("data", {}), components.BUFFER_DEFAULTS.get(buffer, {})
    digits = components.are_digits(data.get("dataset", DataSpec().dataset), data.get("sequence", ()))
    implied = merge(usual, DIGITS_DEFAULTS.get(buffer, {}) if digits else {})
    if tables.get("memory", {}).get("per") == "class":  # shares never shrink: the key would change only the fingerprint
        implied.pop("shrink", None)
    return implied


def _labelled(below: list[Layer], above: list[Layer], planned: str) -> list[Layer]:
    """Add what the name of a selector of labels implies; without such a selector, drop its table.

    Args:
        below: the layers of scenario and strategy.
        above: those of the command line.
        planned: the selector that scenario and strategy name; their options do not hold for another one.

    Raises:
        InputError: if the command line says how labels are asked for, and nobody asks; or if a selector needs the
            labels that it is to ask for.
    """
    given, table = _table(above, "labelling"), _table([*below, *above], "labelling")
    wished = registry.canonical(table.get("selector", "none"))
    if wished == "none":
        for key, value in given.items():
            if key != "selector":
                raise InputError(f"labelling.{key}: found {value!r}, but nobody asks for labels; allowed: with --label")
        return _without_table("labelling", [*below, *above])
    abilities.check_acquires(wished)
    initial = table.get("initial", "random")
    if initial != "class":
        abilities.check_acquires(initial, "labelling.initial")
    if wished != planned:
        below = _without({("labelling", "options")}, below)
    implied = Layer(f"implied by label {wished}", {"labelling": components.LABEL_DEFAULTS.get(wished, {})})
    return _canonical([implied, *below, *above], "labelling", "selector")


def _embedded(layers: list[Layer]) -> list[Layer]:
    """Drop the table of the embedding where no net learns without labels: it would change only the fingerprint."""
    names = (_table(layers, "embedding").get("name", "none"), _table(layers, "model").get("start", "none"))
    used = names[0] != "none" or names[1] in STARTS
    return layers if used else _without_table("embedding", layers)


def _batched(layers: list[Layer], command_line: Mapping[str, Any]) -> list[Layer]:
    """Check who chooses the samples of a step; without such a selector, drop its table.

    Raises:
        InputError: if the command line says how batches are chosen, and nobody chooses; or if the selector needs more
            than a forward pass.
    """
    wished = registry.canonical(_table(layers, "batch").get("selector", "none"))
    if wished == "none":
        for key, value in command_line.get("batch", {}).items():
            if key != "selector":
                raise InputError(f"batch.{key}: found {value!r}, but nobody chooses the batch; allowed: with --batch")
        return _without_table("batch", layers)
    abilities.check_chooses_batch(wished)
    return _canonical(layers, "batch", "selector")


def _irreducible(layers: list[Layer], buffer: str) -> list[Layer]:
    """Drop the table of the irreducible-loss net where no selector reads its losses."""
    memory = _table(layers, "memory")
    names = [_table(layers, "batch").get("selector", "none"), memory.get("retrieval", "random"), buffer]
    used = any(map(abilities.reads_irreducible, names))
    return layers if used else _without_table("irreducible", layers)


def _controlled(layers: list[Layer], command_line: Mapping[str, Any]) -> list[Layer]:
    """Add the validation part that a controller needs; without a controller, drop its table.

    The default part is a fifth of each class, as in the survey. The table of a controller that is not used would change
    only the fingerprint.
    """
    name = _table(layers, "controller").get("name", "none")
    if name != "none":
        return [Layer(f"implied by controller {name}", {"stream": {"validation": 0.2}}), *layers]
    for key, value in command_line.get("controller", {}).items():
        if key != "name":
            raise InputError(f"controller.{key}: found {value!r} without a controller, allowed: with stability-decay")
    return _without_table("controller", layers)
