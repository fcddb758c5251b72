"""THE path of one run: from a spec to its record."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.errors import InputError
from clsim.execution import plan
from clsim.records.store import RunFolder, RunRecord, Store
from clsim.spec.run import RunSpec

if TYPE_CHECKING:
    from clsim.pool.pool import Selector
    from clsim.training.progress import Progress


def execute(
    spec: RunSpec,
    store: Store,
    *,
    data_root: str | Path | None = None,
    benchmark: Any = None,
    selector: Selector | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> RunRecord:
    """Run a resolved spec, or read its record. What is slow to import is imported only if there is work to do."""
    if selector is not None:
        spec = _with_source(spec, spec.memory.buffer, source_of(selector).encode())
    if benchmark is None:
        record = None if fresh else _finished(store, spec)
        if record is not None:
            return record

    from clsim.data import datasets, foreign
    from clsim.interop import avalanche
    from clsim.streams import build
    from clsim.training import loop, machine
    from clsim.training.progress import Quiet

    by_difficulty = benchmark is None and spec.stream.by_difficulty
    difficulty = _joint_accuracy(spec, store, data_root, progress) if by_difficulty else None
    device = machine.device_of(spec.training.device)
    with machine.isolated(spec, device):
        if benchmark is None:
            root, shown = datasets.data_root(data_root), progress is not None
            dataset = datasets.load(spec.data, root, progress=shown)
            shape, other, outside = dataset.train_x.shape[1:], spec.labels.foreign, None
            if other:
                outside = foreign.images(other, shape, spec.data, root, progress=shown)
            stream = build.build(dataset, spec.stream, spec.seed, device, difficulty, spec.labels, outside)
        else:
            stream = avalanche.from_benchmark(benchmark, spec.stream, spec.seed, device, spec.labels)
            spec = _with_source(spec, "benchmark", *stream.content())
        with store.open(spec, fresh=fresh) as folder:
            return _finished(store, spec) or loop.train(
                spec, stream, folder, progress or Quiet(), selector=selector, command=command
            )


def _joint_accuracy(
    spec: RunSpec, store: Store, data_root: str | Path | None, progress: Progress | None
) -> list[float | None]:
    """On each task, of the run that the spec names; it is carried out first if need be."""
    name = spec.stream.difficulty
    record = RunFolder(store.root / name).record()
    if record is None or not record.data["finished"]:
        joint, command = plan.joint_run(spec)
        if joint.fingerprint != name:
            raise InputError(
                f"stream.difficulty: no finished run {name} in {store.root}, and the joint run of {spec.scenario!r} is "
                f"{joint.fingerprint} now; run the strategy joint on the same scenario, data, stream and model first"
            )
        record = execute(joint, store, data_root=data_root, progress=progress, command=command)
    return record.data["accuracy"][-1]


def _finished(store: Store, spec: RunSpec) -> RunRecord | None:
    record = store.folder(spec).record()
    return record if record is not None and record.data["finished"] else None


def _with_source(spec: RunSpec, name: str, *content: bytes) -> RunSpec:
    digest = hashlib.sha256()
    for part in content:
        digest.update(part)
    return dataclasses.replace(spec, sources=(*spec.sources, (name, digest.hexdigest()[:16])))


def name_of(selector: Selector) -> str:
    """``module:name`` of a selector that was handed over."""
    name = getattr(selector, "__qualname__", type(selector).__qualname__)
    return f"{getattr(selector, '__module__', 'unknown')}:{name}"


def source_of(selector: Any) -> str:
    """What tells a selector from another: its source, and what it has bound."""
    if isinstance(selector, functools.partial):
        return source_of(selector.func) + repr((selector.args, sorted(selector.keywords.items())))
    try:
        text = inspect.getsource(selector)
    except (OSError, TypeError):
        raise InputError(
            f"buffer: the source of {name_of(selector)} cannot be read, so its runs cannot be told apart; "
            "allowed: a function in a file (./file.py:attr or module:attr)"
        ) from None
    cells = [cell.cell_contents for cell in getattr(selector, "__closure__", None) or ()]
    return text + "".join(source_of(value) if inspect.isfunction(value) else repr(value) for value in cells)
