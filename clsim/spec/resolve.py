"""From names and flags to one :class:`RunSpec`.

Later wins: defaults < scenario < strategy < its ``[on.<scenario>]`` < what the buffer's name says < flags < ``--set``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clsim.compat import tomllib
from clsim.errors import InputError, nearest
from clsim.spec import components, registry, run
from clsim.spec.components import DIGITS, DIGITS_DEFAULTS
from clsim.spec.reader import merge
from clsim.spec.run import RunSpec
from clsim.spec.sources import OWN_DATA, data_digest, file_digest
from clsim.spec.tables import DataSpec, LearnerSpec, MemorySpec, ModelSpec

ABOUT = ("title", "paper", "description")
"""Top-level keys of a spec file that people read and runs do not."""


def resolve(
    scenario: str | Mapping[str, Any],
    strategy: str,
    *,
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
) -> RunSpec:
    """The spec of one run.

    Args:
        scenario: a name, a path, or tables (of a stream that no file describes).
        strategy: a name, a path, or ``avalanche:NAME``, one of Avalanche's.
        flags: tables, as the command line's own flags set them.
        settings: ``table.key=value``, the value in TOML; a bare word is text.

    Raises:
        InputError: naming the file, table and key.
    """
    if isinstance(scenario, str):
        path = registry.find_file("scenarios", scenario)
        scenario_name, scenario_tables = path.stem, _spec_file(path)
    else:
        scenario_name, scenario_tables = "custom", dict(scenario)
    strategy_name, strategy_tables = _strategy(strategy, scenario_name)
    command_line = merge(flags or {}, *(_setting(text) for text in settings))
    run.check(command_line, "command line")

    scenario_tables, command_line = _one_size(scenario_tables), _one_size(command_line)
    planned = _buffer(strategy_tables)
    wished = registry.canonical(command_line.get("memory", {}).get("buffer", planned))
    if planned == "none" and wished != "none":
        raise InputError(
            f"memory.buffer: found {wished!r}, but strategy {strategy_name!r} keeps no memory; allowed: none"
        )
    tables = _without_options_of_others(merge(scenario_tables, strategy_tables), command_line)
    if wished != planned:  # what the strategy says of its own buffer does not hold for another
        for key in ("update", "options"):
            tables["memory"].pop(key, None)
    tables = _controlled(merge({"memory": _implied(wished, tables, command_line)}, tables, command_line), command_line)
    if "buffer" in tables.get("memory", {}):
        tables["memory"]["buffer"] = registry.canonical(tables["memory"]["buffer"])
    tables |= {"scenario": scenario_name, "strategy": strategy_name, "seed": seed}
    spec = run.read(tables | {"sources": sources(tables)}, f"{scenario_name} with {strategy_name}")
    if spec.stream.by_difficulty and not spec.stream.difficulty:
        difficulty = joint_of(spec, scenario).fingerprint
        spec = replace(spec, stream=replace(spec.stream, difficulty=difficulty))
    return spec


def joint_of(spec: RunSpec, scenario: str | Mapping[str, Any] = "") -> RunSpec:
    """The joint run that says how hard the tasks of a run are: its data, stream, model and seed, the tasks as given.

    The same one for all strategies that alter none of these.

    Args:
        scenario: where the run's comes from; else it is looked up by name.

    Raises:
        InputError: if it is not found by name.
    """
    tables = {name: asdict(getattr(spec, name)) for name in ("data", "stream", "model")}
    tables["training"] = {
        key: getattr(spec.training, key) for key in ("device", "precision", "threads", "channels_last")
    }
    for key in ("presentation", "tasks", "difficulty"):
        del tables["stream"][key]
    return resolve(scenario or spec.scenario, "joint", flags=tables, seed=spec.seed)


def keeps_memory(scenario: str, strategy: str) -> bool:
    """Whether a strategy keeps exemplars on a scenario. One that does not takes neither a buffer nor a memory."""
    return _buffer(_strategy(strategy, registry.find_file("scenarios", scenario).stem)[1]) != "none"


def parsed(text: str) -> Any:
    """The value of a ``--set``: TOML, else a bare word.

    >>> parsed("0.1"), parsed("cosine"), parsed("[100, 50]")
    (0.1, 'cosine', [100, 50])
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def as_text(value: Any) -> str:
    """What :func:`parsed` reads as this value; a bare word where one will do.

    >>> as_text([0.1, True]), as_text("cosine"), as_text("true")
    ('[0.1, true]', 'cosine', '"true"')
    """
    if isinstance(value, str) and "\n" not in value and parsed(value) == value:
        return value
    return _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)  # TOML writes numbers, truth and text as JSON does


def _strategy(strategy: str, scenario_name: str) -> tuple[str, dict[str, Any]]:
    """Name and tables of a strategy, its ``[on.<scenario>]`` above the rest."""
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


def memory_size(size: int | str) -> dict[str, Any]:
    """What ``--memory`` sets: a number of exemplars, or a share of the samples seen so far.

    >>> memory_size("500"), memory_size("1%"), memory_size(20)
    ({'capacity': 500}, {'fraction': 0.01}, {'capacity': 20})
    """
    text = str(size).replace(" ", "")
    try:
        if not text.endswith("%"):
            return {"capacity": int(text)}
        share = float(text[:-1]) / 100
        if 0 < share <= 1:
            return {"fraction": share}
    except ValueError:
        pass
    raise InputError(f"memory: found {size!r}, allowed: a whole number, as in 500, or a share, as in 1%")


def label_share(size: int | str) -> dict[str, Any]:
    """What ``--labels`` sets: so many labelled samples a class, or a share of each class.

    >>> label_share("25"), label_share("5%"), label_share("100%")
    ({'per_class': 25}, {'fraction': 0.05}, {'fraction': 1.0})
    """
    text = str(size).replace(" ", "")
    try:
        share = float(text.removesuffix("%")) / 100
        if text.endswith("%") and 0 < share <= 1:
            return {"fraction": share}
        if int(text) > 0:
            return {"per_class": int(text)}
    except ValueError:
        pass
    raise InputError(f"labels: found {size!r}, allowed: a whole number a class, as in 25, or a share, as in 5%")


def _one_size(tables: Mapping[str, Any]) -> dict[str, Any]:
    """A layer that gives a size (of the memory, of the labelled part) one way takes back what an earlier one gave."""
    memory, usual = tables.get("memory", {}), MemorySpec()
    if any(key in tables.get("labels", {}) for key in _LABELLED):
        tables = merge({"labels": _LABELLED}, tables)
    if memory.get("fraction"):
        return merge({"memory": {"capacity": usual.capacity, "per": usual.per}}, tables)
    return merge({"memory": {"fraction": usual.fraction}} if "capacity" in memory else {}, tables)


_LABELLED = {"fraction": 0.0, "per_class": 0, "count": 0}


def _without_options_of_others(tables: dict[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Where the command line names another model or learner, the options of the one before do not hold."""
    for table, usual in (("model", ModelSpec().name), ("learner", LearnerSpec().name)):
        planned = tables.get(table, {}).get("name", usual)
        if command_line.get(table, {}).get("name", planned) != planned:
            tables[table] = {key: value for key, value in tables.get(table, {}).items() if key != "options"}
    return tables


def _implied(buffer: str, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``[memory]`` that a buffer's name implies, with the data set and the capacity of some layers."""
    merged = merge(*layers)
    data, usual = merged.get("data", {}), components.BUFFER_DEFAULTS.get(buffer, {})
    digits = {*data.get("sequence", ()), data.get("dataset", DataSpec().dataset)} - {"sequence"} <= {*DIGITS}
    implied = merge(usual, DIGITS_DEFAULTS.get(buffer, {}) if digits else {})
    if merged.get("memory", {}).get("per") == "class":  # no share shrinks: it would make another run of the same one
        implied.pop("shrink", None)
    return implied


def _controlled(tables: dict[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """A controller needs a validation part: a fifth of each class, as in the survey, unless anything says otherwise.
    Without a controller, what a strategy says of its own use of one does not make another run."""
    if tables.get("controller", {}).get("name", "none") != "none":
        return merge({"stream": {"validation": 0.2}}, tables)
    for key, value in command_line.get("controller", {}).items():
        if key != "name":
            raise InputError(f"controller.{key}: found {value!r} without a controller, allowed: with stability-decay")
    return {name: table for name, table in tables.items() if name != "controller"}


def _setting(text: str) -> dict[str, Any]:
    """``table.key=value`` as nested tables.

    >>> _setting("memory.capacity=20"), _setting("memory.options.metric=cosine")
    ({'memory': {'capacity': 20}}, {'memory': {'options': {'metric': 'cosine'}}})
    """
    name, equals, value = text.partition("=")
    if not equals or "." not in name:
        raise InputError(f"--set: found {text!r}, allowed: table.key=value, as in memory.capacity=500")
    nested = parsed(value)
    for key in reversed(name.strip().split(".")):
        nested = {key: nested}
    return nested


FILE_KEYS = (("memory", "buffer"), ("memory", "retrieval"), ("learner", "name"), ("model", "name"))
"""Keys that may name a file of the user's."""


def sources(tables: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Digests of the user's own files, so that an edited one makes another run."""
    named = [tables.get(t, {}).get(k, "") for t, k in FILE_KEYS]
    named += [str(v) for v in tables.get("learner", {}).get("options", {}).values()]
    found = [(name, registry.digest(name)) for name in named]
    data = tables.get("data", {})
    if data.get("dataset") in OWN_DATA:
        own = DataSpec(data["dataset"], data.get("path", ""))
        found.append((own.path, data_digest(own)))
    if start := tables.get("memory", {}).get("start", ""):
        found.append((start, file_digest(start, "memory.start")))
    return [(name, digest) for name, digest in found if digest]
