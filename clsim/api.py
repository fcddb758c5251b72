"""What the commands do, from Python: ``clsim.run(scenario="split-digits", buffer="kcenter").accuracy``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clsim.execution import plan
from clsim.execution.engines.engine import EngineSpec
from clsim.execution.execute import execute_all
from clsim.execution.given import named, of_run
from clsim.execution.study import StudyResult, StudyWatch, carry_out, carry_out_seeds, workers_of
from clsim.records.store import RunRecord, Store
from clsim.spec.flags import as_settings, command, seeds_of, tables_of, together_of
from clsim.spec.resolve import remarks, resolve

Component = Callable[..., Any]
"""A selector, or a class of acquisitions, itself."""

Settings = Mapping[str, Any] | Sequence[str]
"""``table.key`` → value, or texts ``table.key=value``."""


def run(
    scenario: Any = "split-digits",
    strategy: str = "er",
    *,
    buffer: str | Component | None = None,
    memory: int | str | None = None,
    labels: int | str | None = None,
    label: str | Component | None = None,
    label_budget: int | str | None = None,
    label_rounds: int | None = None,
    batch: str | Component | None = None,
    batch_share: float | None = None,
    embedding: str | None = None,
    pool: str | Sequence[str] | None = None,
    controller: str | None = None,
    seed: int = 0,
    seeds: int | Sequence[int] | None = None,
    together: bool | str = False,
    settings: Settings = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    runs: str | Path = "runs",
    data_root: str | Path | None = None,
    fresh: bool = False,
    progress: Any = "auto",
) -> RunRecord | Any:
    """Run a scenario, or read its record if it was run before (:attr:`~clsim.records.store.RunRecord.read` says which).

    Args:
        scenario: a name of ``clsim list scenarios``, a path to a TOML file, or a benchmark made with Avalanche.
        strategy: a name of ``clsim list strategies``, a path, or ``avalanche:NAME``.
        buffer: a name of ``clsim list buffers``, ``module:attr``, ``./file.py:attr``, or a selector itself.
        memory: exemplars in all, or a share of the samples seen (``"1%"``); the strategy's own if None.
        labels: labelled samples a class, or a share of each class (``"5%"``); the scenario's own if None.
        label: who asks for labels: a name of ``clsim list selectors`` or ``clsim list acquisitions``, ``module:attr``,
            ``./file.py:attr``, or a selector or a class of acquisitions itself; ``labels`` is what is labelled before
            anybody asks.
        label_budget: labels asked for in an experience, or a share of its samples (``"5%"``).
        label_rounds: rounds in which they are asked for.
        batch: who chooses the samples of each gradient step: a name of ``clsim list selectors`` or ``info-batch``,
            ``module:attr``, ``./file.py:attr``, or a selector itself.
        batch_share: share of the candidates of a step that is chosen.
        embedding: features for selectors that choose by an embedding: ``rotation``, ``simclr``, ``barlow``, or a file
            ``./NAME.npz``.
        pool: transforms that make the pool a realistic one, one or several in their order: each a name of
            ``clsim list pools``, ``NAME:number``, ``module:attr`` or ``./file.py:attr``; ``"none"``: none.
        controller: ``stability-decay`` searches the learning rate and the trade-off, experience by experience.
        seed: the seed of a single run.
        seeds: seeds of several runs in place of it: how many (0, 1, 2 …), or which.
        together: whether these seeds advance in one step, their nets as a stack, which may pay on a GPU; ``"auto"``:
            the fastest of that, a process for each core, and one after another. Processes show no progress, and
            objects that no name stands for stay in this one.
        settings: ``table.key`` → value, or a list of ``"table.key=value"`` as ``--set`` takes them. A value that is a
            list is one value here; in :func:`study` it is an axis of values.
        tables: the same as nested dictionaries.
        runs: the folder of all runs.
        data_root: folder of the data sets; by default ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        fresh: whether to run anew even if there is a record.
        progress: ``"auto"`` shows a bar in a notebook and at a prompt, and nothing in a script; True always shows the
            progress, False or None never; or a display of your own, a :class:`~clsim.training.progress.Progress`.

    Returns:
        The record; with ``seeds`` a :class:`~clsim.reporting.over_seeds.Records`, the sequence of the records.

    Raises:
        InputError: if an argument is wrong.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> record = run("split-digits", buffer="kcenter", memory=50, runs=folder)
    >>> record.accuracy.shape
    (5, 5)
    >>> run("split-digits", buffer="kcenter", memory=50, seeds=1, runs=folder).frame()["seed"].tolist()
    [0]
    """
    from clsim.reporting.over_seeds import Records
    from clsim.reporting.terminal import shown

    file = str(scenario) if isinstance(scenario, (str, Path)) else None
    given, names = of_run(buffer=buffer, label=label, batch=batch)
    flags = tables_of(
        tables=tables,
        memory=memory,
        labels=labels,
        label_budget=label_budget,
        label_rounds=label_rounds,
        batch_share=batch_share,
        embedding=embedding,
        pool=pool,
        together=together_of(together, "together"),
        controller=controller,
        buffer=names["buffer"],
        label=names["label"],
        batch=names["batch"],
    )
    texts, watch = as_settings(settings), shown(progress)
    wanted = seeds_of(seed, seeds)
    how: dict[str, Any] = {"flags": flags, "settings": texts, "seeds": wanted}
    specs = [resolve({} if file is None else file, strategy, seed=s, **how) for s in wanted]
    for line in dict.fromkeys(line for spec in specs for line in remarks(spec)):
        warnings.warn(line, stacklevel=2)
    # what is handed over as an object has no name on a command line
    words = [
        "" if file is None or given else command(file, strategy, flags, texts, spec.seed, spec.training.seeds)
        for spec in specs
    ]
    store, workers = Store(Path(runs)), 1 if file is None or given else workers_of(together, specs)
    if workers > 1:
        found = carry_out_seeds(specs, store, words, workers, scenario=file or "", data_root=data_root, fresh=fresh)
        return found[0] if seeds is None else Records(found)
    records = execute_all(
        specs,
        store,
        words,
        scenario=file or "",
        data_root=data_root,
        benchmark=scenario if file is None else None,
        given=given,
        fresh=fresh,
        watch=watch,
    )
    return records[0] if seeds is None else Records(records)


def study(
    name: str | None = None,
    *,
    scenario: str | Sequence[str] | None = None,
    strategy: str | Sequence[str] | None = None,
    buffer: str | Component | Sequence[str | Component] | None = None,
    memory: int | str | Sequence[int | str] | None = None,
    label: str | Component | Sequence[str | Component] | None = None,
    batch: str | Component | Sequence[str | Component] | None = None,
    pool: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    settings: Settings | None = None,
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
        scenario, strategy: names or paths, as for :func:`clsim.run`; one, or several.
        buffer: names, paths or selectors themselves, one or several. A function that no other process can import, as
            a lambda or one of a notebook, is carried out in this process, with ``workers=1``.
        memory: exemplars in all, one number or several.
        label: who asks for labels, one or several, as ``buffer``.
        batch: who chooses the samples of each step, one or several, as ``buffer``.
        pool: pools, one or several, each a transform or several that are joined by ``+``; ``"none"``: the clean one.
        seeds: how many (0, 1, 2 …), or which.
        settings: ``table.key`` → a value or a list of values, each an axis of the grid; a value that is a list: in a
            list. Or texts ``"table.key=VALUE,VALUE"``, as ``--set`` of ``clsim study`` takes them.
        training: ``device``, ``precision`` and ``threads`` of every run.
        engine: ``local``, ``here`` (this process, one run after the other), ``ray`` or ``slurm``; or an
            :class:`~clsim.execution.engines.engine.EngineSpec`.
        workers: runs at a time.

    Raises:
        InputError: for anything in the arguments that is wrong. What goes wrong in a run is among the failures.

    >>> import tempfile
    >>> found = study(buffer=["random", "kcenter"], memory=20, seeds=1, workers=1, runs=tempfile.mkdtemp())
    >>> found.frame()[["buffer", "memory", "seed"]].values.tolist(), found.failures
    ([['random', 20, 0], ['kcenter', 20, 0]], ())
    """
    buffers, labellers, choosers = named(buffer, "buffer"), named(label, "label"), named(batch, "batch")
    plain = {"scenario": scenario, "strategy": strategy, "memory": memory, "seeds": seeds, "pool": pool}
    tables: dict[str, Any] = {key: _listed(value) for key, value in plain.items() if value is not None}
    axes = (("buffer", buffers), ("label", labellers), ("batch", choosers))
    tables |= {key: list(of) for key, of in axes if of}
    if isinstance(settings, Mapping):
        tables["set"] = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
    elif settings is not None:
        tables["set"] = plan.axes(as_settings(settings))
    spec = plan.read(tables, "study", None if name is None else plan.find_study(name))
    objects = plan.Objects(*({n: one for n, one in of.items() if one is not None} for _, of in axes))
    training = dict(training or {})
    if isinstance(engine, str):
        engine = EngineSpec(objects.engine(engine, workers), workers, device=training.get("device", "auto"))
    store = Store(Path(runs))
    planned = plan.plan(spec, store, training, objects)
    for line in plan.remarks_on(planned):
        warnings.warn(line, stacklevel=2)
    return carry_out(planned, store, engine, data_root=data_root, fresh=fresh, watch=watch)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
