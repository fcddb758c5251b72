"""Resolve names and flags to one :class:`RunSpec`.

The later wins: defaults < what the buffer's name implies < scenario < strategy < the strategy's ``[on.<scenario>]`` <
flags < ``--set``. Where the command line names another buffer than the strategy's own, ``memory.update`` and
``memory.options`` of scenario and strategy do not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clsim.errors import InputError, nearest
from clsim.spec import components, registry, run
from clsim.spec.components import DIGITS, DIGITS_DEFAULTS
from clsim.spec.flags import as_text, command, leaves, setting
from clsim.spec.followed import Code, fingerprint
from clsim.spec.precision import settled
from clsim.spec.reader import merge
from clsim.spec.run import USUAL, RunSpec
from clsim.spec.sources import OWN_DATA, data_digest, file_digest
from clsim.spec.tables import DataSpec, LearnerSpec, MemorySpec, ModelSpec

ABOUT = ("title", "paper", "description")
"""Top-level keys of a spec file that describe it to its readers; runs do not use them."""


def resolve(
    scenario: str | Mapping[str, Any],
    strategy: str,
    *,
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
) -> RunSpec:
    """Build the spec of one run.

    Args:
        scenario: a name, a path, or tables (of a stream that no file describes).
        strategy: a name, a path, or ``avalanche:NAME`` for a strategy of Avalanche.
        flags: the tables that the command line's own flags set.
        settings: arguments of ``--set``: ``table.key=value``, the value in TOML; a word without quotes is text.
        seed: the seed of the run.

    Raises:
        InputError: if a name or a value is not allowed, naming the file, table and key.
    """
    if isinstance(scenario, str):
        path = registry.find_file("scenarios", scenario)
        scenario_name, scenario_tables = path.stem, _spec_file(path)
    else:
        scenario_name, scenario_tables = "custom", dict(scenario)
    strategy_name, strategy_tables = _strategy(strategy, scenario_name)
    command_line = merge(flags or {}, *map(setting, settings))
    run.check(command_line, "command line")
    if memory := strategy_name.startswith("avalanche:") and command_line.get("memory", {}):
        key, value = next(iter(memory.items()))
        raise InputError(
            f"memory.{key}: found {value!r} with an Avalanche strategy, whose memory is its own; "
            "allowed: learner.options, such as mem_size"
        )

    scenario_tables, command_line = _one_size(scenario_tables), _one_size(command_line)
    planned = _buffer(strategy_tables)
    wished = registry.canonical(command_line.get("memory", {}).get("buffer", planned))
    if planned == "none" and wished != "none":
        raise InputError(
            f"memory.buffer: found {wished!r}, but strategy {strategy_name!r} keeps no memory; allowed: none"
        )
    tables = _without_options_of_others(merge(scenario_tables, strategy_tables), command_line)
    planned_label = tables.get("labelling", {}).get("selector", "none")
    if wished != planned:  # what the strategy says of its own buffer does not hold for another
        for key in ("update", "options"):
            tables["memory"].pop(key, None)
    tables = merge({"memory": _implied(wished, tables, command_line)}, tables, command_line)
    tables = _controlled(_labelled(tables, planned_label, command_line), command_line)
    if "buffer" in tables.get("memory", {}):
        tables["memory"]["buffer"] = registry.canonical(tables["memory"]["buffer"])
    tables |= {"scenario": scenario_name, "strategy": strategy_name, "seed": seed}
    spec = run.read(tables | {"sources": sources(tables)}, f"{scenario_name} with {strategy_name}")
    precise = settled(spec.training.precision, spec.training.device)
    spec = replace(spec, training=replace(spec.training, precision=precise))
    return _with_prerequisites(spec, scenario)


@dataclass(frozen=True)
class Prerequisite:
    """A run that must be finished before another one can begin.

    Attributes:
        key: the key of the other run's spec, as ``table.key``, that names this one by its fingerprint.
        named: the fingerprint that the spec gives under this key; empty if it gives none. A user may name another run.
        spec: the spec of the run that clsim carries out if the named one is not in the store.
        command: the command of that run.
    """

    key: str
    named: str
    spec: RunSpec
    command: str


def prerequisites(spec: RunSpec, scenario: str | Mapping[str, Any] = "") -> list[Prerequisite]:
    """List the runs that must be finished before a run can begin.

    A stream whose tasks are ordered by difficulty needs a joint run, whose accuracy says how hard each task is. The
    joint run has the same data, stream, model and seed, with the tasks in their given order. All strategies that change
    none of these share one joint run.

    Args:
        spec: the spec of the run.
        scenario: the scenario of the run, as :func:`resolve` takes it; by default it is found by its name.

    Raises:
        InputError: if the scenario is not found by its name.
    """
    if not spec.stream.by_difficulty:
        return []
    scenario = scenario or spec.scenario
    tables = {name: asdict(getattr(spec, name)) for name in ("data", "stream", "model")}
    tables["training"] = {
        key: getattr(spec.training, key) for key in ("device", "precision", "threads", "channels_last")
    }
    for key in ("presentation", "tasks", "difficulty"):
        del tables["stream"][key]
    joint = resolve(scenario, "joint", flags=tables, seed=spec.seed)
    before, after = (
        leaves({name: asdict(getattr(s, name)) for name in tables})
        for s in (resolve(scenario, "joint", seed=spec.seed), joint)
    )
    changed = [f"{key}={as_text(value)}" for key, value in after.items() if value != before.get(key)]
    words = command(scenario, "joint", {}, changed, spec.seed) if isinstance(scenario, str) else ""
    return [Prerequisite("stream.difficulty", spec.stream.difficulty, joint, words)]


def _with_prerequisites(spec: RunSpec, scenario: str | Mapping[str, Any]) -> RunSpec:
    """Return the same spec, with the fingerprints of the runs that it needs first."""
    for first in prerequisites(spec, scenario):
        table, _, key = first.key.partition(".")
        changed = replace(getattr(spec, table), **{key: first.named or first.spec.fingerprint})
        spec = replace(spec, **{table: changed})
    return spec


def departures(spec: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Find the settings of a run that are not its scenario's and its strategy's own.

    Args:
        spec: the spec as it stands in records.

    Returns:
        ``table.key`` → the value of the run, and their own; None where one of them has no such key.

    Raises:
        InputError: if the scenario or the strategy is not found by its name.
    """
    own = resolve(spec["scenario"], spec["strategy"], seed=spec["seed"]).as_dict()
    theirs, ours = (
        USUAL | leaves({name: table for name, table in tables.items() if isinstance(table, Mapping)})
        for tables in (own, spec)
    )
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if key != "stream.difficulty"]  # names another run
    return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def keeps_memory(scenario: str, strategy: str) -> bool:
    """Whether a strategy keeps exemplars on a scenario; if not, neither a buffer nor a memory size can be set."""
    return _buffer(_strategy(strategy, registry.find_file("scenarios", scenario).stem)[1]) != "none"


def _strategy(strategy: str, scenario_name: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the tables of a strategy, its ``[on.<scenario>]`` merged over the others."""
    theirs = strategy.startswith("avalanche:")  # one file for all of Avalanche's strategies
    path = registry.find_file("strategies", "avalanche" if theirs else strategy)
    tables = _spec_file(path)
    if theirs:
        tables = merge(tables, {"learner": {"name": strategy}})
    exceptions = tables.pop("on", {})
    _check_exceptions(exceptions, path)
    return strategy if theirs else path.stem, merge(_one_size(tables), _one_size(exceptions.get(scenario_name, {})))


def _buffer(strategy_tables: Mapping[str, Any]) -> str:
    return strategy_tables.get("memory", {}).get("buffer", "none")


def _spec_file(path: Path) -> dict[str, Any]:
    tables = registry.read_toml(path)
    for key in ABOUT:
        if not isinstance(tables.pop(key, ""), str):
            raise InputError(f"{path}: {key}: allowed: text")
    run.check({key: value for key, value in tables.items() if key != "on"}, str(path))
    return tables


def _check_exceptions(exceptions: Any, path: Path) -> None:
    if not isinstance(exceptions, Mapping):
        raise InputError(f"{path}: on: found {exceptions!r}, allowed: tables [on.<scenario>.<table>]")
    known = registry.file_names("scenarios")
    for name, tables in exceptions.items():
        if name not in known:
            raise InputError(f"{path}: [on.{name}]: unknown scenario; {nearest(name, known)}")
        run.check(tables, f"{path}: [on.{name}]")


def _one_size(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Let a layer that sets a size (of the memory, of the labelled part) reset the keys that set it in another way."""
    memory, usual = tables.get("memory", {}), MemorySpec()
    for table, usual_values in _EITHER:
        if any(key in tables.get(table, {}) for key in usual_values):
            tables = merge({table: usual_values}, tables)
    if memory.get("fraction"):
        return merge({"memory": {"capacity": usual.capacity, "per": usual.per}}, tables)
    return merge({"memory": {"fraction": usual.fraction}} if "capacity" in memory else {}, tables)


_EITHER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("labels", {"fraction": 0.0, "per_class": 0, "count": 0}),
    ("labelling", {"budget": 0, "fraction": 0.0}),
    ("labelling", {"rounds": 1, "per_round": 0}),
)
"""Keys of a table that say the same in different ways, with the values of those that say nothing."""


def _without_options_of_others(tables: dict[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the options of a model or learner that the command line replaces by another one."""
    for table, usual in (("model", ModelSpec().name), ("learner", LearnerSpec().name)):
        planned = tables.get(table, {}).get("name", usual)
        if command_line.get(table, {}).get("name", planned) != planned:
            tables[table] = {key: value for key, value in tables.get(table, {}).items() if key != "options"}
    return tables


def _implied(buffer: str, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of ``[memory]`` that a buffer's name implies, given the data and ``memory.per`` of layers."""
    merged = merge(*layers)
    combinator, inner = registry.taken_apart(buffer)
    while combinator in components.PLAIN and len(inner) == 1:  # what a selector implies holds inside these too
        buffer = inner[0]
        combinator, inner = registry.taken_apart(buffer)
    data, usual = merged.get("data", {}), components.BUFFER_DEFAULTS.get(buffer, {})
    digits = {*data.get("sequence", ()), data.get("dataset", DataSpec().dataset)} - {"sequence"} <= {*DIGITS}
    implied = merge(usual, DIGITS_DEFAULTS.get(buffer, {}) if digits else {})
    if merged.get("memory", {}).get("per") == "class":  # shares never shrink: the key would change only the fingerprint
        implied.pop("shrink", None)
    return implied


def _labelled(tables: dict[str, Any], planned: str, command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Set what the name of a selector of labels implies; without such a selector, drop its table.

    Args:
        tables: all tables, merged.
        planned: the selector that scenario and strategy name; their options do not hold for another one.
        command_line: the tables of the command line.

    Raises:
        InputError: if the command line says how labels are asked for, and nobody asks; or if a selector needs the
            labels that it is to ask for.
    """
    given, table = command_line.get("labelling", {}), tables.get("labelling", {})
    wished = registry.canonical(table.get("selector", "none"))
    if wished == "none":
        for key, value in given.items():
            if key != "selector":
                raise InputError(f"labelling.{key}: found {value!r}, but nobody asks for labels; allowed: with --label")
        return {name: table for name, table in tables.items() if name != "labelling"}
    registry.check_acquires(wished)
    initial = table.get("initial", "random")
    if initial != "class":
        registry.check_acquires(initial, "labelling.initial")
    if wished != planned:
        table = {**table, "options": given.get("options", {})}
    table = merge(components.LABEL_DEFAULTS.get(wished, {}), table, {"selector": wished})
    return {**tables, "labelling": table}


def _controlled(tables: dict[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Set the validation part that a controller needs; without a controller, drop its table.

    The default part is a fifth of each class, as in the survey. The table of a controller that is not used would change
    only the fingerprint.
    """
    if tables.get("controller", {}).get("name", "none") != "none":
        return merge({"stream": {"validation": 0.2}}, tables)
    for key, value in command_line.get("controller", {}).items():
        if key != "name":
            raise InputError(f"controller.{key}: found {value!r} without a controller, allowed: with stability-decay")
    return {name: table for name, table in tables.items() if name != "controller"}


NAMED = {
    ("labelling", "selector"): "labellers",
    ("labelling", "initial"): "labellers",
    ("memory", "buffer"): "buffers",
    ("memory", "retrieval"): "selectors",
    ("learner", "name"): "learners",
    ("model", "name"): "models",
}
"""Keys that name a component → its kind."""

OPTIONS = {
    ("memory", "options"): {"model": "models", "start": "selectors"},
    ("learner", "options"): {"objective": "objectives"},
}
"""Options that may name a component of the user's → key → its kind."""


def sources(tables: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Hash the user's own code and data, so that a change makes another run."""
    found = [(name, fingerprint(codes)) for name, codes in _codes(tables)]
    data = tables.get("data", {})
    if data.get("dataset") in OWN_DATA and data.get("path"):  # a scenario may leave the path to its user
        own = DataSpec(data["dataset"], data["path"])
        found.append((own.path, data_digest(own)))
    if start := tables.get("memory", {}).get("start", ""):
        found.append((start, file_digest(start, "memory.start")))
    return [(name, digest) for name, digest in found if digest]


def user_files(spec: RunSpec) -> list[Path]:
    """List the files of the code that a spec names and that is not shipped, local imports included."""
    codes = [code for _, found in _codes(spec.as_dict()) for code in found]
    return [path for code in codes for _, path in code.files]


def remarks(spec: RunSpec) -> list[str]:
    """List the lines that a user should read before a run: :func:`open_ends`, and :func:`blind_start`."""
    return [line for line in (open_ends(spec), blind_start(spec)) if line]


def blind_start(spec: RunSpec) -> str:
    """Say in a line that an untrained net makes the first choice of labels; empty if it does not, or it is no matter.

    It matters to acquisitions, and to selectors that go by what the net predicts.
    """
    labelling = spec.labelling
    if not labelling.asks or labelling.initial_count or spec.labels.partial or labelling.selector in components.BOUNDS:
        return ""
    said = " ".join(registry.needs(labelling.selector).values())
    if labelling.selector not in components.COMPONENTS["acquisitions"] and not any(w in said for w in _PREDICTS):
        return ""
    return (
        "without an initial set, an untrained net makes the first choice of labels, and some selectors choose badly by "
        "it; begin with --labels 2 or --set labelling.initial_count=20"
    )


_PREDICTS = ("probabilit", "logit", "gradient", "dropout", "committee", "perturbed")
"""Words for what depends on a trained net, as ``Needs:`` says it."""


def open_ends(spec: RunSpec) -> str:
    """Say in a line what the spec's code uses that cannot be followed; empty if there is nothing."""
    found = {end: None for _, codes in _codes(spec.as_dict()) for code in codes for end in code.open_ends}
    if not found:
        return ""
    return f"a change of what is loaded here makes no new run, use --fresh then: {'; '.join(found)}"


def _codes(tables: Mapping[str, Any]) -> Iterator[tuple[str, list[Code]]]:
    """Yield the name and the code of every component of the user's."""
    named = [(kind, tables.get(table, {}).get(key, "")) for (table, key), kind in NAMED.items()]
    for (table, key), kinds in OPTIONS.items():
        for option, value in tables.get(table, {}).get(key, {}).items():
            if isinstance(value, str) and (option in kinds or ":" in value):
                named.append((kinds.get(option, "objectives"), value))
    for kind, name in named:
        if codes := registry.codes(kind, name) if name else []:
            yield name, codes


def name_of(selector: Any) -> str:
    """Return ``module:name`` of a selector that was given as an object."""
    name = getattr(selector, "__qualname__", type(selector).__qualname__)
    return f"{getattr(selector, '__module__', 'unknown')}:{name}"
