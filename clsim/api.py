"""The same runs from Python: ``clsim.run(scenario="split-digits", buffer="kcenter").accuracy``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.execution.execute import execute, name_of
from clsim.records.store import RunRecord, Store
from clsim.spec.resolve import label_share, memory_size, resolve

if TYPE_CHECKING:
    from clsim.pool.pool import Selector
    from clsim.training.progress import Progress


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
        flags.setdefault("memory", {})["buffer"] = buffer if isinstance(buffer, str) else name_of(buffer)
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
