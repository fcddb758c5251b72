"""The plan of a study: a grid of scenarios, strategies, buffers, memories, settings and seeds, as :class:`RunSpec` s.

Neither torch nor Avalanche is imported, so that a study with nothing left to do answers at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clsim.errors import InputError
from clsim.execution.given import with_sources
from clsim.records.overview import seconds_of
from clsim.records.store import Store
from clsim.spec import registry
from clsim.spec.flags import as_text, command, count_of_seeds, parsed, tables_of
from clsim.spec.naming import run_name
from clsim.spec.reader import Options, arguments
from clsim.spec.resolve import keeps_memory, prerequisites, remarks, resolve
from clsim.spec.run import NAMED, Given, RunSpec


@dataclass(frozen=True)
class StudySpec:
    """A study, as its TOML file has it. A single value need not stand in a list.

    Attributes:
        title: title of the study's table.
        description: text for people, which is not read otherwise.
        scenario, strategy: names, or paths of TOML files.
        buffer: buffers of the strategies that keep a memory; empty: each strategy's own. A strategy without a memory
            runs once per seed.
        memory: sizes of these memories, each a number of exemplars or a share as in ``1%``; empty: the strategy's own.
        label: selectors of labels; empty: the scenario's own.
        batch: selectors of the samples of each step; empty: the scenario's own.
        pool: pools, each a transform or several that are joined by ``+``, as in ``noise:0.2 + redundant``; ``none``: no
            transform; empty: the scenario's own.
        seeds: seeds of each combination; in a file, a number N stands for 0 … N − 1.
        set: further axes of the grid: ``table.key`` → its values. A value that is a list stands in a list of its own.
        also: further grids, each a table in the form of ``set``: the grid again, with these axes in place of those of
            the same key. What two grids have in common is run once. One factor at a time is varied so, around a grid
            of a single cell.
    """

    title: str = ""
    description: str = ""
    scenario: tuple[str, ...] = ("split-digits",)
    strategy: tuple[str, ...] = ("er",)
    buffer: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    batch: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    set: Options = field(default_factory=dict)
    also: tuple[Options, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A run of a study.

    Attributes:
        spec: the resolved spec.
        title: words that tell it from the other runs, for people.
        command: the command that makes exactly this run.
        finished: whether its record is in the store already.
        done, total: number of experiences that are finished, and in all.
        seconds: expected seconds from here on, by what finished runs of the same work took; None: not known.
        scenario: name or path of the spec's scenario.
        given: objects in place of those that the spec names.
    """

    spec: RunSpec
    title: str
    command: str
    finished: bool = False
    done: int = 0
    total: int = 1
    seconds: float | None = None
    scenario: str = ""
    given: Given = NAMED


@dataclass(frozen=True)
class Objects:
    """Objects in the grid of a study, by the name that stands for each on its axis."""

    buffer: Mapping[str, Any] = field(default_factory=dict)
    label: Mapping[str, Any] = field(default_factory=dict)
    batch: Mapping[str, Any] = field(default_factory=dict)

    def engine(self, name: str, workers: int | None) -> str:
        """Return the engine that can carry out these objects, which no other process can find.

        Raises:
            InputError: if another engine or several workers are asked for.
        """
        found = [*self.buffer, *self.label, *self.batch]
        if not found or name == "here":
            return name
        if name != "local" or workers != 1:
            raise InputError(
                f"study: {found[0]} is in this process alone, where no worker finds it; allowed: workers=1, which "
                "carries out the study here, or a function in a file, by its name: ./file.py:attr"
            )
        return "here"


def read(tables: Mapping[str, Any], where: str, base: StudySpec | None = None) -> StudySpec:
    """Read a study strictly: unknown keys and mistyped values are refused.

    Args:
        tables: the study's tables, as parsed from TOML.
        where: the file, or "command line", for error messages.
        base: a study whose values hold for missing keys; its ``set`` is extended key by key.

    >>> read({"strategy": "er", "memory": [20, 50], "seeds": 3}, "my.toml").seeds
    (0, 1, 2)
    """
    listed = {}
    for key, value in tables.items():
        if key == "seeds" and type(value) is int:
            value = list(range(count_of_seeds(value, f"{where}: seeds")))
        elif key not in ("title", "description", "set", "also") and not isinstance(value, (list, tuple)):
            value = [value]
        listed[key] = [str(v) if type(v) is int else v for v in value] if key == "memory" else value
        if value == [] or value == ():
            raise InputError(f"{where}: {key}: found {tables[key]!r}, allowed: one value or more")
    found = arguments(StudySpec, listed, where, "")
    base = base or StudySpec()
    axes = _axes(found.get("set", {}), f"{where}: [set]")
    if "also" in found:
        found["also"] = tuple(_axes(table, f"{where}: [[also]]") for table in found["also"])
    return dataclasses.replace(base, **(found | {"set": {**base.set, **axes}}))


def _axes(table: Options, where: str) -> dict[str, list[Any]]:
    """Read the axes of a table; a single value need not stand in a list."""
    axes = {}
    for key, values in table.items():
        axes[key] = values if isinstance(values, list) else [values]
        if "." not in key or not axes[key]:
            allowed = '"table.key" = [values], as in "optimizer.lr" = [0.01, 0.1]'
            raise InputError(f"{where} {key}: found {values!r}, allowed: {allowed}")
    return axes


def split(text: str, where: str) -> list[str]:
    """Split text at its commas, but not inside brackets or quotes.

    >>> split("random,per_class(./f.py:pick),herding", "--buffer")
    ['random', 'per_class(./f.py:pick)', 'herding']
    >>> split("[100],[200, 50]", "--set"), split('"a,b",c', "--set")
    (['[100]', '[200, 50]'], ['"a,b"', 'c'])
    """
    pairs = {"(": ")", "[": "]", "{": "}"}
    expected: list[str] = []  # closing brackets, or the one quote, innermost last
    values, before = [""], ","
    for letter in text:
        if expected and expected[-1] in "\"'":
            if letter == expected[-1] and before != "\\":
                expected.pop()
        elif expected and letter == expected[-1]:
            expected.pop()
        elif letter in pairs:
            expected.append(pairs[letter])
        elif letter in "\"'" and before in ",([{=":  # elsewhere it is an apostrophe
            expected.append(letter)
        if letter == "," and not expected:
            values.append("")
        else:
            values[-1] += letter
        before = letter if letter != " " else before
    values = [value.strip() for value in values]
    if expected or not all(values):
        found = f"no closing {expected[-1]}" if expected else "nothing between two commas"
        raise InputError(f"{where}: found {text!r} with {found}, allowed: values with a comma between them")
    return values


def axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read ``table.key=VALUE,VALUE`` texts into axes of values.

    >>> axes(["optimizer.lr=0.1,0.2", "model.options.hidden=[10, 20]"])
    {'optimizer.lr': [0.1, 0.2], 'model.options.hidden': [[10, 20]]}
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or "." not in key:
            raise InputError(f"--set: found {text!r}, allowed: table.key=VALUE,VALUE …, as in optimizer.lr=0.01,0.1")
        if key.strip() in found:
            raise InputError(f"--set {key}: found twice, allowed: once, as in {key}=VALUE,VALUE")
        found[key.strip()] = [parsed(value) for value in split(values, f"--set {key}")]
    return found


def plan(
    study: StudySpec, store: Store, training: Mapping[str, Any] | None = None, objects: Objects = Objects()
) -> list[Planned]:
    """List every run of a study once: all combinations with the first seed, then those with the next.

    Args:
        study: the study.
        store: the store, which says how far each run is.
        training: device, precision and threads, where the command line names them.
        objects: what stands behind names that no other process can find.

    Raises:
        InputError: if something is wrong that can be seen before a run begins.
    """
    cells = {cell[0].fingerprint: cell for cell in _cells(study, training or {}, objects)}
    planned: dict[str, Planned] = {}
    for seed in study.seeds:
        for cell, shown, words, given in cells.values():
            spec = dataclasses.replace(cell, seed=seed)
            scenario, strategy, flags, settings = words
            if prerequisites(cell, scenario):  # each seed has its own
                how: dict[str, Any] = {"flags": flags, "settings": settings, "seed": seed, "seeds": study.seeds}
                spec = with_sources(resolve(scenario, strategy, **how), given)
            again = "" if given else command(*words, seed, spec.training.seeds)
            title = run_name(spec.as_dict(), *shown)
            run = Planned(spec, title, again, total=experiences(spec), scenario=scenario, given=given)
            planned.setdefault(spec.fingerprint, looked_up(run, store))
    return list(planned.values())


def remarks_on(runs: Sequence[Planned]) -> list[str]:
    """List, once each, the lines that a user should read before the runs."""
    return list(dict.fromkeys(line for run in runs for line in remarks(run.spec)))


def with_expected_seconds(runs: Sequence[Planned], store: Store) -> list[Planned]:
    """Return the same runs, with the seconds that each unfinished one is expected to take.

    They are those of finished runs that differ in the seed alone; else of runs of the same work (scenario, strategy,
    data, stream, model and training).
    """
    took: dict[str, list[float]] = {}
    for record in store.records()[0]:
        for key in _alike(record.data["spec"]):
            took.setdefault(key, []).append(seconds_of(record.data))
    known = []
    for run in runs:
        like = next((took[key] for key in _alike(run.spec.as_dict()) if key in took), None)
        if like and not run.finished:
            run = dataclasses.replace(run, seconds=statistics.median(like) * (1 - run.done / run.total))
        known.append(run)
    return known


def experiences(spec: RunSpec) -> int:
    """Return how many experiences a run trains on."""
    return spec.stream.trained


Words = tuple[str, str, dict[str, dict[str, Any]], list[str]]


def _cells(
    study: StudySpec, training: Mapping[str, Any], objects: Objects
) -> Iterator[tuple[RunSpec, list[str], Words, Given]]:
    """Yield every combination apart from the seed.

    Each comes with its spec, the settings of its title, the arguments of :func:`command`, and its objects.
    """
    for grid in (study.set, *study.also):
        yield from _grid(
            dataclasses.replace(study, set={**study.set, **grid}), [*grid] if study.also else [], training, objects
        )


def _grid(
    study: StudySpec, named: Sequence[str], training: Mapping[str, Any], objects: Objects
) -> Iterator[tuple[RunSpec, list[str], Words, Given]]:
    """Yield the combinations of one grid, as :func:`_cells` does; ``named`` are keys that stand in every title."""
    pairs = list(itertools.product(study.scenario, study.strategy))
    keeping = {pair for pair in pairs if keeps_memory(*pair)}
    if (study.buffer or study.memory) and not keeping:
        names = ", ".join(study.strategy)
        raise InputError(f"study: found a buffer or a memory, but none of its strategies ({names}) keeps any")
    for scenario, strategy in pairs:
        keeps = (scenario, strategy) in keeping
        for pool, label, batch, buffer, size in itertools.product(
            study.pool or (None,),
            study.label or (None,),
            study.batch or (None,),
            study.buffer if keeps and study.buffer else (None,),
            study.memory if keeps and study.memory else (None,),
        ):
            remembers = keeps and buffer != "none"
            given = Given(
                objects.buffer.get(buffer or ""), objects.label.get(label or ""), objects.batch.get(batch or "")
            )
            kept = size if remembers else None
            flags = tables_of(label=label, batch=batch, buffer=buffer, memory=kept, pool=pool, **training)
            axes = {k: v for k, v in study.set.items() if remembers or not k.startswith("memory.")}
            for values in itertools.product(*axes.values()):
                settings = [f"{key}={as_text(value)}" for key, value in zip(axes, values, strict=True)]
                made = resolve(scenario, strategy, flags=flags, settings=settings, seeds=study.seeds)
                spec = with_sources(made, given)
                check_names(spec)
                shown = [
                    s
                    for s, (key, several) in zip(settings, axes.items(), strict=True)
                    if len(several) > 1 or key in named
                ]
                yield spec, shown, (scenario, strategy, flags, settings), given


def check_names(spec: RunSpec) -> None:
    """Refuse a misspelt name once, before the runs."""
    if spec.memory.buffer != "none":
        registry.check_name("buffers", spec.memory.buffer)
    if spec.labelling.asks:
        registry.check_name("labellers", spec.labelling.selector)
    if spec.batch.selector != "none":
        registry.check_name("batches", spec.batch.selector)
    registry.check_name("models", spec.model.name)
    registry.check_name("learners", spec.learner.name)
    for transform in spec.pool:
        registry.check_name("pools", transform.name)


def looked_up(run: Planned, store: Store) -> Planned:
    """Return the run with how far it is, by its record in the store."""
    try:
        record = store.folder(run.spec).record()
    except InputError:  # a damaged record, which the run itself reports
        return run
    if record is None:
        return run
    return dataclasses.replace(run, finished=record.data["finished"], done=len(record.data["cost"]))


def _alike(spec: Mapping[str, Any]) -> tuple[str, str]:
    """Return what runs that take the same time have in common: all but the seed, then the same work alone."""
    cell = cell_of(spec)
    work = {key: cell.get(key) for key in ("scenario", "strategy", "data", "stream", "model", "training")}
    return json.dumps(cell, sort_keys=True), json.dumps(work, sort_keys=True)


def cell_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run has in common with its other seeds, the run that each needs first apart."""
    spec = {**spec, "stream": {key: value for key, value in spec["stream"].items() if key != "difficulty"}}
    return {key: value for key, value in spec.items() if key != "seed"}


def find_study(name: str) -> StudySpec:
    """Read the study of a name in ``./studies``, of a shipped name, or of a path."""
    path: Path = registry.find_file("studies", name)
    return read(registry.read_toml(path), str(path))
