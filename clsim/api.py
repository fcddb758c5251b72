"""The same runs from Python: ``clsim.run(scenario="split-digits", buffer="kcenter").accuracy``."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim import grid
from clsim.errors import InputError
from clsim.resolve import label_share, memory_size, resolve
from clsim.specs import RunSpec
from clsim.store import RunFolder, RunRecord, Store

if TYPE_CHECKING:
    from clsim.loop import Progress
    from clsim.pool import Selector


def run(
    scenario: Any = "split-digits",
    strategy: str = "er",
    *,
    buffer: str | Selector | None = None,
    memory: int | str | None = None,
    labels: int | str | None = None,
    controller: str | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    runs: str | Path = "runs",
    data_root: str | Path | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> RunRecord:
    """Run a scenario, or read its record if it was run before.

    Args:
        scenario: a name of ``clsim list scenarios``, a path to a TOML file, or a benchmark made with Avalanche.
        strategy: a name of ``clsim list strategies``, a path, or ``avalanche:NAME``.
        buffer: a name of ``clsim list buffers``, ``module:attr``, ``./file.py:attr``, or a selector itself.
        memory: exemplars in all, or a share of the samples seen (``"1%"``); the strategy's own if None.
        labels: labelled samples a class, or a share of each class (``"5%"``); the scenario's own if None.
        controller: ``stability-decay`` searches the learning rate and the trade-off, experience by experience.
        settings: ``table.key=value``, as ``--set`` takes them.
        tables: the same as nested dictionaries.
        runs: the folder of all runs.
        data_root: of the data sets; by default ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        fresh: run anew even if there is a record.
        progress: who watches; nobody by default.

    Raises:
        InputError: for anything in the arguments that is wrong.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> record = run("split-digits", buffer="kcenter", memory=50, runs=folder)
    >>> record.accuracy.shape
    (5, 5)
    """
    flags: dict[str, dict[str, Any]] = {table: dict(values) for table, values in (tables or {}).items()}
    if buffer is not None:
        flags.setdefault("memory", {})["buffer"] = buffer if isinstance(buffer, str) else _name(buffer)
    if memory is not None:
        flags.setdefault("memory", {}).update(memory_size(memory))
    if labels is not None:
        flags.setdefault("labels", {}).update(label_share(labels))
    if controller is not None:
        flags.setdefault("controller", {})["name"] = controller
    named = scenario if isinstance(scenario, (str, Path)) else None
    spec = resolve({} if named is None else str(named), strategy, flags=flags, settings=settings, seed=seed)
    return execute(
        spec,
        Store(Path(runs)),
        data_root=data_root,
        benchmark=scenario if named is None else None,
        selector=None if isinstance(buffer, str) else buffer,
        fresh=fresh,
        progress=progress,
    )


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
        spec = _with_source(spec, spec.memory.buffer, _source(selector).encode())
    if benchmark is None:
        record = None if fresh else _finished(store, spec)
        if record is not None:
            return record

    from clsim import bridge, data, divide, loop, machine
    from clsim.data import foreign

    by_difficulty = benchmark is None and spec.stream.by_difficulty
    difficulty = _joint_accuracy(spec, store, data_root, progress) if by_difficulty else None
    device = machine.device_of(spec.training.device)
    with machine.isolated(spec, device):
        if benchmark is None:
            root, shown = data.data_root(data_root), progress is not None
            dataset = data.load(spec.data, root, progress=shown)
            shape, other, outside = dataset.train_x.shape[1:], spec.labels.foreign, None
            if other:
                outside = foreign.images(other, shape, spec.data, root, progress=shown)
            stream = divide.build(dataset, spec.stream, spec.seed, device, difficulty, spec.labels, outside)
        else:
            stream = bridge.from_benchmark(benchmark, spec.stream, spec.seed, device, spec.labels)
            spec = _with_source(spec, "benchmark", *stream.content())
        with store.open(spec, fresh=fresh) as folder:
            return _finished(store, spec) or loop.train(
                spec, stream, folder, progress or loop.Quiet(), selector=selector, command=command
            )


def _joint_accuracy(
    spec: RunSpec, store: Store, data_root: str | Path | None, progress: Progress | None
) -> list[float | None]:
    """On each task, of the run that the spec names; it is carried out first if need be."""
    name = spec.stream.difficulty
    record = RunFolder(store.root / name).record()
    if record is None or not record.data["finished"]:
        joint, command = grid.joint_run(spec)
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


def _name(selector: Selector) -> str:
    name = getattr(selector, "__qualname__", type(selector).__qualname__)
    return f"{getattr(selector, '__module__', 'unknown')}:{name}"


def _source(selector: Any) -> str:
    """What tells a selector from another: its source, and what it has bound."""
    if isinstance(selector, functools.partial):
        return _source(selector.func) + repr((selector.args, sorted(selector.keywords.items())))
    try:
        text = inspect.getsource(selector)
    except (OSError, TypeError):
        raise InputError(
            f"buffer: the source of {_name(selector)} cannot be read, so its runs cannot be told apart; "
            "allowed: a function in a file (./file.py:attr or module:attr)"
        ) from None
    cells = [cell.cell_contents for cell in getattr(selector, "__closure__", None) or ()]
    return text + "".join(_source(value) if inspect.isfunction(value) else repr(value) for value in cells)
