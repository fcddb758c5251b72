"""The one path of every run, from its spec to its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.errors import InputError
from clsim.execution.given import with_source, with_sources
from clsim.records.store import RunFolder, RunRecord, Store
from clsim.spec.cores import cores_of_one
from clsim.spec.resolve import prerequisites
from clsim.spec.run import NAMED, Given, RunSpec

if TYPE_CHECKING:
    from clsim.training.contract import Seat
    from clsim.training.progress import Progress

    Watch = Callable[[RunSpec], AbstractContextManager[Progress]]
    Say = Callable[[str], None]


def execute(
    spec: RunSpec,
    store: Store,
    *,
    scenario: str = "",
    data_root: str | Path | None = None,
    benchmark: Any = None,
    given: Given = NAMED,
    fresh: bool = False,
    watch: Watch | None = None,
    say: Say | None = None,
    command: str = "",
    cores: int = 0,
    seat: Seat | None = None,
) -> RunRecord:
    """Run a resolved spec, or read its record.

    The runs that it needs first (:func:`clsim.spec.resolve.prerequisites`) are read from the store too, or run. Modules
    that are slow to import are imported only if there is work to do.

    Args:
        spec: the resolved spec.
        store: the store that holds the records.
        scenario: path of the spec's scenario, if it is not found by its name.
        data_root: folder of the data sets; None: ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        benchmark: a benchmark made with Avalanche, in place of the data and the stream of the spec.
        given: objects in place of those that the spec names.
        fresh: whether to run it anew even if there is a record; the runs that it needs first are still read.
        watch: makes the progress display of a run, this one or one that it needs first; None: no display.
        say: takes a line for the user about each record that is read in place of a run; None: nobody is told.
        command: the command that makes this run, which is kept in its record.
        cores: the CPU cores that belong to the run; 0: all that the process may use. No number depends on them.
        seat: its place among the seeds that advance together; None: :func:`execute_all` gives it one if it needs one.

    Raises:
        InputError: if something in the spec is wrong that only shows when it is run.
    """
    spec = with_sources(spec, given)
    record = None if fresh or benchmark is not None else _finished(store.folder(spec))
    if record is None and spec.training.seeds and seat is None:
        options: dict[str, Any] = {"scenario": scenario, "data_root": data_root, "benchmark": benchmark, "given": given}
        options |= {"fresh": fresh, "watch": watch, "say": say, "cores": cores}
        return execute_all([spec], store, [command], **options)[0]
    needed = {}
    if record is None and benchmark is None:
        needed = _needed(spec, store, scenario, data_root, watch, say, cores)
    with nullcontext(None) if watch is None else watch(spec) as progress:
        how = (data_root, benchmark, given, fresh, needed, progress, command, say, cores or cores_of_one(), seat)
        record = record or _trained(spec, store, *how)
    if say is not None and record.read:
        say(record.line)
    return record


def execute_all(
    specs: Sequence[RunSpec],
    store: Store,
    commands: Sequence[str],
    *,
    scenario: str = "",
    data_root: str | Path | None = None,
    benchmark: Any = None,
    given: Given = NAMED,
    fresh: bool = False,
    watch: Watch | None = None,
    say: Say | None = None,
    cores: int = 0,
) -> list[RunRecord]:
    """Run specs that differ in their seed alone, or read their records: together if they say so, else one by one.

    Args:
        specs: the resolved specs.
        store, scenario, data_root, benchmark, given, fresh, say, cores: as for :func:`execute`.
        commands: the command that makes each run.
        watch: makes the progress display of a run; of seeds that advance together, the first shows how far they are.

    Raises:
        InputError: as for :func:`execute`; of seeds that advance together, after the others have ended.
    """
    how: dict[str, Any] = {"scenario": scenario, "data_root": data_root, "benchmark": benchmark, "given": given}
    how |= {"fresh": fresh, "say": say, "cores": cores}
    runs = list(zip(specs, commands, strict=True))
    seeds = specs[0].training.seeds
    left = [] if not seeds else [spec for spec in specs if fresh or _finished(store.folder(spec)) is None]
    if not left:
        return [execute(spec, store, command=words, watch=watch, **how) for spec, words in runs]
    from clsim.training import machine, together

    if unknown := [spec.seed for spec in specs if spec.seed not in seeds]:
        raise InputError(f"training.seeds: found {list(seeds)} with seed {unknown[0]}, allowed: seeds with this one")
    works: list[Any] = [None] * len(seeds)
    for spec, words in runs:
        shown = watch if spec is left[0] else None
        works[seeds.index(spec.seed)] = partial(execute, spec, store, command=words, watch=shown, **how)
    device = machine.device_of(specs[0].training.device)
    with machine.isolated(specs[0], device, cores or cores_of_one()):
        found = together.Together(len(seeds), device).run(works)
    results = [found[seeds.index(spec.seed)] for spec in specs]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _needed(
    spec: RunSpec,
    store: Store,
    scenario: str,
    data_root: str | Path | None,
    watch: Watch | None,
    say: Say | None,
    cores: int,
) -> dict[str, RunRecord]:
    """Return the records of the runs that a run needs first, by the key that names each; carry out what is missing."""
    found = {}
    for first in prerequisites(spec, scenario):
        record = _finished(RunFolder(store.root / first.named))
        if record is None:
            if first.spec.fingerprint != first.named:
                raise InputError(
                    f"{first.key}: no finished run {first.named} in {store.root}, and the {first.spec.strategy} run of "
                    f"{spec.scenario!r} is {first.spec.fingerprint} now; run the strategy {first.spec.strategy} on the "
                    "same scenario, data, stream and model first"
                )
            how: dict[str, Any] = {"scenario": scenario, "data_root": data_root, "watch": watch, "say": say}
            how["cores"] = cores
            record = execute(first.spec, store, command=first.command, **how)
        elif say is not None:
            say(record.line)
        found[first.key] = record
    return found


def _trained(
    spec: RunSpec,
    store: Store,
    data_root: str | Path | None,
    benchmark: Any,
    given: Given,
    fresh: bool,
    needed: dict[str, RunRecord],
    progress: Progress | None,
    command: str,
    say: Say | None,
    cores: int,
    seat: Seat | None,
) -> RunRecord:
    from clsim.data import datasets, foreign, room
    from clsim.streams import build
    from clsim.streams.pools import apply
    from clsim.training import fallbacks, footprint, loop, machine
    from clsim.training.progress import Quiet

    device, transforms = machine.device_of(spec.training.device), apply.bound(spec.pool)
    nets = datasets.data_root(data_root) / "clsim-cache" / "embeddings"
    with room.in_one_line(), machine.isolated(spec, device, cores):
        if benchmark is None:
            root, shown = datasets.data_root(data_root), progress is not None
            dataset = datasets.load(spec.data, root, progress=shown)
            footprint.refuse_too_large(spec, dataset, device)
            shape, other, outside = dataset.train_x.shape[1:], spec.labels.foreign, None
            if other:
                outside = foreign.images(other, shape, spec.data, root, progress=shown)
            joint = needed.get("stream.difficulty")
            difficulty = None if joint is None else joint.data["accuracy"][-1]
            kept, seed = root / "clsim-cache" / "divisions", spec.seed
            load = partial(foreign.fitted, shape=shape, own=spec.data, root=root, progress=shown)
            stream = build.build(
                dataset,
                spec.stream,
                seed,
                device,
                difficulty,
                spec.labels,
                outside,
                spec.labelling,
                kept,
                partial(apply.transformed, transforms=transforms, seed=seed) if transforms else None,
                load,
            )
        else:
            from clsim.interop import benchmarks  # with Avalanche

            if transforms:
                raise InputError(
                    f"pool: found {transforms[0][0]!r} with a benchmark, allowed: with a scenario of clsim's"
                )

            stream, found = benchmarks.from_benchmark(
                benchmark, spec.stream, spec.seed, device, spec.labels, spec.labelling
            )
            spec = with_source(dataclasses.replace(spec, stream=found), "benchmark", *stream.content())
        if spec.evaluation.on == "validation":
            stream = stream.tested_on_held_out()
        for line in fallbacks.fallbacks(spec, stream) if say is not None and spec.pool else ():
            say(line)  # type: ignore[misc]
        with store.open(spec, fresh=fresh) as folder:
            how: dict[str, Any] = {"given": given, "command": command, "kept": nets, "say": say, "seat": seat}
            return _finished(folder) or loop.train(spec, stream, folder, progress or Quiet(), **how)


def _finished(folder: RunFolder) -> RunRecord | None:
    record = folder.record()
    return dataclasses.replace(record, read=True) if record is not None and record.data["finished"] else None
