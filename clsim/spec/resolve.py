"""Resolve names and flags to one :class:`RunSpec`, by merging the layers of :mod:`clsim.spec.layers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from clsim.spec import registry, run
from clsim.spec.abilities import blind_start
from clsim.spec.flags import as_text, command, leaves, settled_machine
from clsim.spec.layers import Layer, buffer_of, layers_of, merged, strategy_layers
from clsim.spec.own_code import notices, open_ends, sources
from clsim.spec.precision import settled
from clsim.spec.readers import about_embedding
from clsim.spec.run import USUAL, RunSpec
from clsim.spec.seats import alone, seated
from clsim.spec.typed import check_options


def resolve(
    scenario: str | Mapping[str, Any],
    strategy: str,
    *,
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
    seeds: Sequence[int] = (),
) -> RunSpec:
    """Build the spec of one run.

    Args:
        scenario: a name, a path, or tables (of a stream that no file describes).
        strategy: a name, a path, or ``avalanche:NAME`` for a strategy of Avalanche.
        flags: the tables that the command line's own flags set.
        settings: arguments of ``--set``: ``table.key=value``, the value in TOML; a word without quotes is text.
        seed: the seed of the run.
        seeds: the seeds of all runs that it is one of; with ``training.together`` they advance together.

    Raises:
        InputError: if a name or a value is not allowed, naming the file, table and key.
    """
    return resolved(scenario, strategy, flags=flags, settings=settings, seed=seed, seeds=seeds).spec


@dataclass(frozen=True)
class Resolved:
    """A spec, and the layers that were merged into it, the lowest first; see :func:`clsim.spec.layers.explained`."""

    spec: RunSpec
    layers: tuple[Layer, ...]


def resolved(
    scenario: str | Mapping[str, Any],
    strategy: str,
    *,
    flags: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    seed: int = 0,
    seeds: Sequence[int] = (),
) -> Resolved:
    """Build the spec of one run as :func:`resolve` does, and keep the layers that tell where each value comes from."""
    scenario_name, strategy_name, layers = layers_of(scenario, strategy, flags or {}, settings)
    tables = merged(layers)
    on_machine = settled_machine(tables, seeds)
    if on_machine is not tables:
        changed = {k: v for k, v in on_machine["training"].items() if v is not tables["training"][k]}
        tables = on_machine
        layers.append(Layer("this machine", {"training": changed}))
    tables |= {"scenario": scenario_name, "strategy": strategy_name, "seed": seed}
    spec = run.read(tables | {"sources": sources(tables)}, f"{scenario_name} with {strategy_name}")
    check_options(spec)
    precise = settled(spec.training.precision, spec.training.device)
    if precise != spec.training.precision:
        spec = replace(spec, training=replace(spec.training, precision=precise))
        layers.append(Layer("this machine", {"training": {"precision": precise}}))
    together = seated(spec, seeds)
    if together is not spec:
        spec = together
        layers.append(Layer("the seeds of this command", {"training": {"seeds": list(spec.training.seeds)}}))
    for first in prerequisites(spec, scenario):
        table, _, key = first.key.partition(".")
        if not first.named:
            found = {key: first.spec.fingerprint}
            spec = replace(spec, **{table: replace(getattr(spec, table), **found)})
            layers.append(Layer(f"the {first.spec.strategy} run that it needs first", {table: found}))
    return Resolved(spec, tuple(layers))


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
        key: getattr(spec.training, key) for key in ("device", "precision", "tf32", "threads", "channels_last")
    }
    for key in ("presentation", "tasks", "difficulty", "length"):
        del tables["stream"][key]
    if spec.evaluation.on != "test":  # then no test sample may decide the order either
        tables["evaluation"] = {"on": spec.evaluation.on}
    pool: dict[str, Any] = {"pool": [asdict(one) for one in spec.pool]} if spec.pool else {}
    joint = resolve(scenario, "joint", flags={**tables, **pool}, seed=spec.seed)
    before, after = (
        leaves({name: asdict(getattr(s, name)) for name in tables})
        for s in (resolve(scenario, "joint", seed=spec.seed), joint)
    )
    changed = [f"{key}={as_text(value)}" for key, value in after.items() if value != before.get(key)]
    words = command(scenario, "joint", pool, changed, spec.seed) if isinstance(scenario, str) else ""
    return [Prerequisite("stream.difficulty", spec.stream.difficulty, joint, words)]


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
    return buffer_of(strategy_layers(strategy, registry.find_file("scenarios", scenario).stem)[1]) != "none"


def remarks(spec: RunSpec) -> list[str]:
    """List the lines that a user should read before a run: imports, open ends, a blind start, seeds alone."""
    return [line for line in (*notices(spec), open_ends(spec), blind_start(spec), alone(spec)) if line]


def announcements(spec: RunSpec) -> list[str]:
    """List the lines that ``clsim run`` prints first: :func:`remarks`, and who chooses by the embedding."""
    return [*remarks(spec), *about_embedding(spec)]


def name_of(selector: Any) -> str:
    """Return ``module:name`` of a selector that was given as an object."""
    name = getattr(selector, "__qualname__", type(selector).__qualname__)
    return f"{getattr(selector, '__module__', 'unknown')}:{name}"
