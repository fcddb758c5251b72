"""From names and flags to one :class:`RunSpec`.

Later wins: defaults < scenario < strategy < its ``[on.<scenario>]`` < what the buffer's name says < flags < ``--set``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clsim import catalog, specs
from clsim.data import datasets
from clsim.errors import InputError, nearest
from clsim.specs import DataSpec, LearnerSpec, MemorySpec, ModelSpec, RunSpec
from clsim.strict import merge

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
        path = catalog.find_file("scenarios", scenario)
        scenario_name, scenario_tables = path.stem, _spec_file(path)
    else:
        scenario_name, scenario_tables = "custom", dict(scenario)
    theirs = strategy.startswith("avalanche:")  # one file for all of Avalanche's strategies
    path = catalog.find_file("strategies", "avalanche" if theirs else strategy)
    strategy_name = strategy if theirs else path.stem
    strategy_tables = _spec_file(path)
    if theirs:
        strategy_tables = merge(strategy_tables, {"learner": {"name": strategy}})
    exceptions = strategy_tables.pop("on", {})
    _check_exceptions(exceptions, path)
    here = exceptions.get(scenario_name, {})
    command_line = merge(flags or {}, *(_setting(text) for text in settings))
    specs.check(command_line, "command line")

    scenario_tables, strategy_tables, here, command_line = (
        _one_size(layer) for layer in (scenario_tables, strategy_tables, here, command_line)
    )
    planned = merge(strategy_tables, here).get("memory", {}).get("buffer", "none")
    wished = catalog.canonical(command_line.get("memory", {}).get("buffer", planned))
    if planned == "none" and wished != "none":
        raise InputError(
            f"memory.buffer: found {wished!r}, but strategy {strategy_name!r} keeps no memory; allowed: none"
        )
    tables = _without_options_of_others(merge(scenario_tables, strategy_tables, here), command_line)
    if wished != planned:  # what the strategy says of its own buffer does not hold for another
        for key in ("update", "options"):
            tables["memory"].pop(key, None)
    implied = catalog.BUFFER_DEFAULTS.get(wished, {})
    tables = merge({"memory": implied}, tables, command_line)
    if "buffer" in tables.get("memory", {}):
        tables["memory"]["buffer"] = catalog.canonical(tables["memory"]["buffer"])
    tables |= {"scenario": scenario_name, "strategy": strategy_name, "seed": seed}
    return specs.read(tables | {"sources": _sources(tables)}, f"{scenario_name} with {strategy_name}")


def _spec_file(path: Path) -> dict[str, Any]:
    tables = catalog.read_toml(path)
    for key in ABOUT:
        if not isinstance(tables.pop(key, ""), str):
            raise InputError(f"{path}: {key}: allowed: text")
    specs.check({key: value for key, value in tables.items() if key != "on"}, str(path))
    return tables


def _check_exceptions(exceptions: Any, path: Path) -> None:
    if not isinstance(exceptions, Mapping):
        raise InputError(f"{path}: on: found {exceptions!r}, allowed: tables [on.<scenario>.<table>]")
    known = catalog.file_names("scenarios")
    for name, tables in exceptions.items():
        if name not in known:
            raise InputError(f"{path}: [on.{name}]: unknown scenario; {nearest(name, known)}")
        specs.check(tables, f"{path}: [on.{name}]")


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


def _one_size(tables: Mapping[str, Any]) -> dict[str, Any]:
    """A layer that gives the memory's size one way takes back what an earlier one gave the other way."""
    memory, usual = tables.get("memory", {}), MemorySpec()
    if memory.get("fraction"):
        return merge({"memory": {"capacity": usual.capacity, "per": usual.per}}, tables)
    return merge({"memory": {"fraction": usual.fraction}} if "capacity" in memory else {}, tables)


def _without_options_of_others(tables: dict[str, Any], command_line: Mapping[str, Any]) -> dict[str, Any]:
    """Where the command line names another model or learner, the options of the one before do not hold."""
    for table, usual in (("model", ModelSpec().name), ("learner", LearnerSpec().name)):
        planned = tables.get(table, {}).get("name", usual)
        if command_line.get(table, {}).get("name", planned) != planned:
            tables[table] = {key: value for key, value in tables.get(table, {}).items() if key != "options"}
    return tables


def _setting(text: str) -> dict[str, Any]:
    """``table.key=value`` as nested tables.

    >>> _setting("memory.capacity=20"), _setting("memory.options.metric=cosine")
    ({'memory': {'capacity': 20}}, {'memory': {'options': {'metric': 'cosine'}}})
    """
    name, equals, value = text.partition("=")
    if not equals or "." not in name:
        raise InputError(f"--set: found {text!r}, allowed: table.key=value, as in memory.capacity=500")
    parsed = value_of(value)
    for key in reversed(name.strip().split(".")):
        parsed = {key: parsed}
    return parsed


def value_of(text: str) -> Any:
    """A value in TOML; a bare word is text.

    >>> value_of("0.5"), value_of(" cosine")
    (0.5, 'cosine')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


OWN = (("memory", "buffer"), ("memory", "retrieval"), ("learner", "name"), ("model", "name"))
"""Keys that may name a file of the user's."""


def _sources(tables: Mapping[str, Any]) -> list[list[str]]:
    """Digests of the user's own files, so that an edited one makes another run."""
    named = [tables.get(t, {}).get(k, "") for t, k in OWN]
    named += [str(v) for v in tables.get("learner", {}).get("options", {}).values()]
    found = [[name, catalog.digest(name)] for name in named]
    data = DataSpec(**{key: tables.get("data", {}).get(key, "") for key in ("dataset", "path")})
    found.append([data.path, datasets.digest(data)])
    return [[name, digest] for name, digest in found if digest]
