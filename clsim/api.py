"""What the commands do, from Python: ``clsim.run(scenario="split-digits", buffer="kcenter").accuracy``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.execution import plan
from clsim.execution.engines.engine import EngineSpec
from clsim.execution.execute import execute
from clsim.execution.study import StudyResult, StudyWatch, carry_out
from clsim.records.store import RunRecord, Store
from clsim.spec.flags import command, tables_of
from clsim.spec.reader import merge
from clsim.spec.resolve import name_of, remarks, resolve

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
    label: str | None = None,
    label_budget: int | str | None = None,
    label_rounds: int | None = None,
    controller: str | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    runs: str | Path = "runs",
    data_root: str | Path | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> RunRecord:
    """Run a scenario, or read its record if it was run before (:attr:`~clsim.records.store.RunRecord.read` says which).

    Args:
        scenario: a name of ``clsim list scenarios``, a path to a TOML file, or a benchmark made with Avalanche.
        strategy: a name of ``clsim list strategies``, a path, or ``avalanche:NAME``.
        buffer: a name of ``clsim list buffers``, ``module:attr``, ``./file.py:attr``, or a selector itself.
        memory: exemplars in all, or a share of the samples seen (``"1%"``); the strategy's own if None.
        labels: labelled samples a class, or a share of each class (``"5%"``); the scenario's own if None.
        label: who asks for labels: a name of ``clsim list selectors`` or ``clsim list acquisitions``, ``module:attr``
            or ``./file.py:attr``; ``labels`` is what is labelled before anybody asks.
        label_budget: labels asked for in an experience, or a share of its samples (``"5%"``).
        label_rounds: rounds in which they are asked for.
        controller: ``stability-decay`` searches the learning rate and the trade-off, experience by experience.
        settings: ``table.key=value``, as ``--set`` takes them.
        tables: the same as nested dictionaries.
        runs: the folder of all runs.
        data_root: folder of the data sets; by default ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        fresh: whether to run anew even if there is a record.
        progress: display of the progress; None: none.

    Raises:
        InputError: if an argument is wrong.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> record = run("split-digits", buffer="kcenter", memory=50, runs=folder)
    >>> record.accuracy.shape
    (5, 5)
    """
    named = str(scenario) if isinstance(scenario, (str, Path)) else None
    selector = None if buffer is None or isinstance(buffer, str) else buffer
    name = buffer if isinstance(buffer, str) else None if selector is None else name_of(selector)
    given = tables_of(
        buffer=name,
        memory=memory,
        labels=labels,
        label=label,
        label_budget=label_budget,
        label_rounds=label_rounds,
        controller=controller,
    )
    flags = merge(tables or {}, given)
    spec = resolve({} if named is None else named, strategy, flags=flags, settings=settings, seed=seed)
    for line in remarks(spec):
        warnings.warn(line, stacklevel=2)
    words = ""  # what is handed over as an object has no name on a command line
    if named is not None and selector is None:
        words = command(named, strategy, flags, settings, seed)
    return execute(
        spec,
        Store(Path(runs)),
        scenario=named or "",
        data_root=data_root,
        benchmark=scenario if named is None else None,
        selector=selector,
        fresh=fresh,
        watch=None if progress is None else lambda spec: nullcontext(progress),
        command=words,
    )


def study(
    name: str | None = None,
    *,
    scenario: str | Sequence[str] | None = None,
    strategy: str | Sequence[str] | None = None,
    buffer: str | Sequence[str] | None = None,
    memory: int | str | Sequence[int | str] | None = None,
    label: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    engine: str | EngineSpec = "local",
    workers: int | None = None,
    runs: str | Path = "runs",
    data_root: str | Path | None = None,
    fresh: bool = False,
    watch: StudyWatch | None = None,
) -> StudyResult:
    """Run a grid; what was finished before is read, not run again.

    Args:
        name: of a study in ``./studies``, or the path of a TOML file; what else is given stands above it.
        scenario, strategy, buffer: names or paths, as for :func:`clsim.run`; one, or several.
        memory: exemplars in all, one number or several.
        label: who asks for labels, one name or several.
        seeds: how many (0, 1, 2 …), or which.
        settings: ``table.key`` → a value or a list of values, each an axis; a value that is a list: in a list.
        training: ``device``, ``precision`` and ``threads`` of every run.
        engine: ``local``, ``ray`` or ``slurm``; or an :class:`~clsim.execution.engines.engine.EngineSpec`.
        workers: runs at a time.

    Raises:
        InputError: for anything in the arguments that is wrong. What goes wrong in a run is among the failures.

    >>> import tempfile
    >>> found = study(buffer=["random", "kcenter"], memory=20, seeds=1, workers=1, runs=tempfile.mkdtemp())
    >>> found.frame()[["buffer", "memory", "seed"]].values.tolist(), found.failures
    ([['random', 20, 0], ['kcenter', 20, 0]], ())
    """
    axes = {"scenario": scenario, "strategy": strategy, "buffer": buffer, "memory": memory, "label": label}
    axes["seeds"] = seeds
    tables: dict[str, Any] = {key: value for key, value in axes.items() if value is not None}
    for key in ("scenario", "strategy", "buffer", "memory", "label", "seeds"):
        if isinstance(tables.get(key), Iterable) and not isinstance(tables[key], str):
            tables[key] = list(tables[key])
    if settings is not None:
        tables["set"] = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
    spec = plan.read(tables, "study", None if name is None else plan.find_study(name))
    training = dict(training or {})
    if isinstance(engine, str):
        machine = {key: training[key] for key in ("threads", "device") if key in training}
        engine = EngineSpec(engine, workers, **machine)
    store = Store(Path(runs))
    planned = plan.plan(spec, store, training)
    for line in plan.remarks_on(planned):
        warnings.warn(line, stacklevel=2)
    return carry_out(planned, store, engine, data_root=data_root, fresh=fresh, watch=watch)
