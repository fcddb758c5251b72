"""Reports: which runs, which rows and columns, which metrics, what is tested.

Runs are pooled over seeds only. Where runs of one cell differ in anything else, that becomes a row label of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clsim.errors import InputError, nearest
from clsim.records.frame import COSTS, NAMES, SUMS, comparable, frame, settings
from clsim.records.metrics import ALL, Metric
from clsim.records.own_metrics import own_metric
from clsim.records.store import RunFailure, RunRecord, Store
from clsim.reporting import papers
from clsim.spec import registry
from clsim.spec.reader import NO_KEY, Options, arguments, merge

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Published:
    """Published results: a row of a paper, shown beside our runs.

    Attributes:
        at: column → value: where in the tables it stands.
        percent: metric → mean and the ± as printed, in percent; counts, such as ``rare_found``, as they are.
        source: the paper, and the setting where it differs.
        seeds: number of runs behind the row; 0: not known.
        over_labels: number of labels → accuracy in percent, for reports with ``labelling``.
        command: the ``clsim run`` command of a run in the paper's setting; empty: none is known to be that.
    """

    at: Options
    percent: Options
    source: str
    seeds: int = 0
    over_labels: Options = dataclasses.field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: a comparison with a direction, judged by an interval over seeds.

    Attributes:
        text: the claim in words.
        metric: a metric or a cost that :class:`ReportSpec` allows; ``efficiency``, ``first`` and ``speed-up`` read
            accuracies alone.
        measure: what is computed for each seed. ``difference``: a − b, in percentage points for metrics. ``ratio``:
            a / b. ``wins``: in how many percent of the comparisons an arm of ``a`` is better than one of ``b``.
            ``efficiency``: how many times as many labels b needs as a, for b's own accuracy at its last budget.
            ``speed-up``: how many times as many gradient steps b takes as a, to b's best accuracy on the way (with
            ``evaluation.steps``).
            ``first``: a − b in accuracy, in percentage points, when the first labels that were asked for are learnt.
            ``ranks``: how much less alike the ranks of the arms of ``a`` are in two settings than between seeds of one
            (:func:`clsim.reporting.claims.of_ranks`).
        a, b: what is compared: column → its value, or a list of them. Several arms are averaged.
        at: where, in the same form; empty: everywhere. Conditions that only one of both has are left out.
        than: another setting, in the same form: the measure there is subtracted; ``ranks`` compares with it.
        expect: where the measure lies if the claim is true: ``above`` or ``below`` the bound, or ``within`` ± of it.
        bound: the bound (default 0).
        size: ``published``: the claim is beyond a small machine, and judged in reports of the published size alone.
    """

    text: str
    metric: str = "accuracy"
    measure: Literal["difference", "ratio", "wins", "efficiency", "speed-up", "first", "ranks"] = "difference"
    a: Options = dataclasses.field(default_factory=dict)
    b: Options = dataclasses.field(default_factory=dict)
    at: Options = dataclasses.field(default_factory=dict)
    than: Options = dataclasses.field(default_factory=dict)
    expect: Literal["above", "below", "within"] = "above"
    bound: float = 0.0
    size: Literal["any", "published"] = "any"


@dataclass(frozen=True)
class ReportSpec:
    """A report, as its TOML file has it.

    Attributes:
        base: another report, whose values hold for missing keys; ``filter`` and ``exclude`` are extended key by key.
        title: heading of the report.
        description: text for people, shown on the page.
        filter: column of :func:`frame` → the allowed value, or a list of them; ``memory.batch_size = 10`` and every
            other ``table.key`` of a run's spec is a column too.
        exclude: the same, for values that are left out.
        rows, columns: columns of :func:`frame` that label the rows and the columns of a table. ``metric`` among
            ``columns`` puts the metrics side by side, in one table.
        metrics: metrics, with a table for each unless ``columns`` has ``metric``: names of
            :data:`clsim.records.metrics.ALL` or :data:`COSTS`, or metrics of the user's: ``./file.py:attr``,
            ``module:attr``, or the name of an installed one.
        published: rows of papers, shown beside ours.
        arms: the labels among rows and columns that name what is compared; the others name the conditions that it is
            compared under. Empty: the rows are compared, in each column. ``scenario`` is no arm: runs on different data
            sets are never compared.
        interval: ``t``, or ``bootstrap`` (BCa).
        ties: whether to mark what cannot be told from the best.
        tests: whether to show also paired tests, ranks and wins, as ``--tests`` does.
        over: a label among rows and columns whose values are numbers: ``--figures`` also draws final accuracy over it.
        labelling: whether to show what was labelled, too: accuracy over the number of labels, labelling efficiency,
            diagnostics of the picks, with their figures.
        batches: whether to show what choosing batches is worth, too: accuracy at equal steps and candidates, cost to a
            target, with their figures; of runs with ``evaluation.steps``.
        target: the accuracy, in percent, to which ``batches`` counts the cost; 0: the best one of random batches.
        claims: claims of papers, judged on these runs.
        tuned: settings, as columns, of which the best was searched for every arm with the same trials: of the runs of a
            cell that differ in them (and in seeds) alone, those of one value of each are shown, with the highest mean
            accuracy on held-out samples. They may not be labels.
        size: whether these runs have the ``published`` size of the claims' paper, or a ``small`` one.
        paper: the paper that this is the report of, with the studies and reports of its sizes; no title: of none.
        own: the metrics of the user's among ``metrics``, by their names there; no key of a file.
        elsewhere: published rows of another setting, listed beside ours for their order alone; no key of a file.
        metric_level: where, among the levels of the columns, the metrics stand, which ``columns`` then lacks; −1: each
            metric has a table of its own. No key of a file.
    """

    base: str = ""
    title: str = ""
    description: str = ""
    filter: Options = dataclasses.field(default_factory=dict)
    exclude: Options = dataclasses.field(default_factory=dict)
    rows: tuple[str, ...] = ("strategy", "buffer", "memory")
    columns: tuple[str, ...] = ("scenario",)
    metrics: tuple[str, ...] = ("accuracy", "forgetting")
    published: tuple[Published, ...] = ()
    arms: tuple[str, ...] = ()
    interval: Literal["t", "bootstrap"] = "t"
    ties: bool = True
    tests: bool = False
    over: str = ""
    labelling: bool = False
    batches: bool = False
    target: float = 0.0
    claims: tuple[Claim, ...] = ()
    tuned: tuple[str, ...] = ()
    size: Literal["small", "published"] = "small"
    paper: papers.Paper = dataclasses.field(default_factory=papers.Paper)
    own: Mapping[str, Metric] = dataclasses.field(default_factory=dict, metadata=NO_KEY)
    elsewhere: tuple[Published, ...] = dataclasses.field(default=(), metadata=NO_KEY)
    metric_level: int = dataclasses.field(default=-1, metadata=NO_KEY)

    @property
    def known(self) -> dict[str, Metric]:
        """Every metric that the report may show, by its name."""
        return {**ALL, **self.own}


def with_metrics(
    spec: ReportSpec, metrics: Iterable[str], where: str = "--metric", say: Callable[[str], None] | None = None
) -> ReportSpec:
    """Return a report with further metrics.

    Args:
        spec: the report.
        metrics: names as in :attr:`ReportSpec.metrics`; code that they name is loaded.
        where: what names them, for messages.
        say: takes a line on each file of code that is about to be imported; None: nobody is told.

    Raises:
        InputError: if there is no such metric.
    """
    named = list(dict.fromkeys([*spec.metrics, *metrics]))
    new = [name for name in named if name not in {*ALL, *COSTS, *spec.own}]
    if say is not None:
        for code in (code for name in new for code in registry.codes("metrics", name)):
            say(f"{where}: {code.notice}")
    own = {name: own_metric(name, where, [*ALL, *COSTS]) for name in new}
    return dataclasses.replace(spec, metrics=tuple(named), own={**spec.own, **own})


def read_report(path: Path, say: Callable[[str], None] | None = None) -> ReportSpec:
    """The report of a TOML file.

    Args:
        say: as for :func:`with_metrics`.

    Raises:
        InputError: naming the file and the key.
    """
    where = str(path)
    tables = _read(path)
    if isinstance(tables.get("base"), str):
        below = _read(registry.find_file("reports", tables["base"]))
        if "base" in below:
            raise InputError(f"{where}: base: {tables['base']!r} has a base itself, allowed: a report without")
        below.pop("paper", None)  # a paper has one report that stands for it
        tables = merge(below, tables)
    given = arguments(ReportSpec, tables, where, "")
    spec = ReportSpec(**given | ({"paper": papers.made(given["paper"], where)} if "paper" in given else {}))
    labels = [*spec.rows, *spec.columns]
    if twice := sorted({name for name in labels if labels.count(name) > 1}):
        raise InputError(f"{where}: rows and columns: found {twice[0]!r} twice, allowed: once")
    for key, found in (("rows", spec.rows), ("arms", spec.arms), ("tuned", spec.tuned), ("over", (spec.over,))):
        if METRIC in found:
            raise InputError(f"{where}: {key}: found {METRIC!r}, allowed: in columns alone, for metrics side by side")
    if METRIC in spec.columns:
        kept = tuple(name for name in spec.columns if name != METRIC)
        spec = dataclasses.replace(spec, columns=kept, metric_level=spec.columns.index(METRIC))
        labels.remove(METRIC)
    if "scenario" in spec.arms:
        raise InputError(f"{where}: arms: found 'scenario', allowed: what is compared within a scenario")
    for name in spec.arms:
        if name not in labels:
            raise InputError(f"{where}: arms: {name!r} is no label of a row or a column; {nearest(name, labels)}")
    if spec.over and spec.over not in labels:
        raise InputError(f"{where}: over: {spec.over!r} is no label of a row or a column; {nearest(spec.over, labels)}")
    if not 0 <= spec.target <= 100:
        raise InputError(f"{where}: target: found {spec.target:g}, allowed: a percentage from 0 to 100")
    if labelled := [name for name in spec.tuned if name in labels]:
        raise InputError(f"{where}: tuned: found {labelled[0]!r}, which is a label too, allowed: another setting")
    spec = with_metrics(spec, (), f"{where}: metrics", say)
    for published in spec.published:
        for metric, values in published.percent.items():
            if metric not in spec.known:
                raise InputError(f"{where}: published.percent: unknown name {metric!r}; {nearest(metric, spec.known)}")
            numbers = isinstance(values, list) and all(type(v) in (int, float) for v in values)
            if not numbers or len(values) not in (1, 2):
                allowed = "a list of the mean, or of the mean and its ±"
                raise InputError(f"{where}: published.percent.{metric}: found {values!r}, allowed: {allowed}")
        for number, value in published.over_labels.items():
            if not number.isdecimal() or type(value) not in (int, float):
                allowed = "a number of labels, and an accuracy in percent"
                raise InputError(f"{where}: published.over_labels: found {number!r} = {value!r}, allowed: {allowed}")
    for position, claim in enumerate(spec.claims, 1):
        _check_claim(claim, f"{where}: claims, number {position}")
    return spec


def _read(path: Path) -> dict[str, Any]:
    """Read the tables of a report; the columns that it names may be written with or without quotes."""
    tables = registry.read_toml(path)
    for of, keys in ((tables, ("filter", "exclude")), *((c, CHOOSING) for c in _tables(tables.get("claims")))):
        of |= {key: _flat(of[key]) for key in keys if isinstance(of.get(key), dict)}
    return tables


def _tables(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _check_claim(claim: Claim, where: str) -> None:
    """Refuse a claim that cannot be judged, whatever runs there are."""
    if claim.metric not in ALL and claim.metric not in COSTS:
        raise InputError(f"{where}: metric: unknown name {claim.metric!r}; {nearest(claim.metric, [*ALL, *COSTS])}")
    ranks = claim.measure == "ranks"
    for key, needed in (("a", not ranks), ("b", not ranks), ("than", ranks)):
        if needed and not vars(claim)[key]:
            raise InputError(f"{where}: {key}: found nothing with measure {claim.measure!r}, allowed: column = value")
    if ranks and claim.b:
        raise InputError(f"{where}: b: found {dict(claim.b)} with measure 'ranks', allowed: none; 'a' names the arms")
    if claim.expect == "within" and claim.bound <= 0:
        raise InputError(f"{where}: bound: found {claim.bound:g} with expect = 'within', allowed: a number above 0")


CHOOSING = ("a", "b", "at", "than")
"""The keys of a claim that choose runs."""


def find_report(name: str, say: Callable[[str], None] | None = None) -> ReportSpec:
    """The report of a name in ``./reports``, a shipped name, or a path."""
    return read_report(registry.find_file("reports", name), say)


def problem(record: Mapping[str, Any]) -> str:
    """Why a record cannot stand in a report, as one that another version wrote; empty if it can."""
    spec = record["spec"]
    kinds = {"scenario": str, "strategy": str, "seed": int, "sources": list}
    kinds |= dict.fromkeys(("data", "stream", "model", "memory"), dict)
    for key, kind in kinds.items():
        if not isinstance(spec.get(key), kind):
            return f"spec.{key}: found {spec.get(key)!r}, allowed: {kind.__name__}"
    if not all(isinstance(s, list) and len(s) == 2 and all(isinstance(t, str) for t in s) for s in spec["sources"]):
        return "spec.sources: found something else than pairs of a name and a digest"
    for table, key in (("memory", "buffer"), ("memory", "capacity"), ("stream", "presentation")):
        if not isinstance(spec[table].get(key), (str, int)):
            return f"spec.{table}.{key}: found {spec[table].get(key)!r}, allowed: text or a number"
    for cost in record["cost"]:
        if lacking := [name for name in (*SUMS, "peak_bytes", "memory_bytes") if cost.get(name) is None]:
            return f"cost.{lacking[0]}: found nothing, allowed: a number"
    return "" if record["accuracy"] else "accuracy: found no experience, allowed: one or more"


def load(runs: str | Path = "runs") -> pd.DataFrame:
    """Read all finished runs of a folder as a table, a row for each run.

    Args:
        runs: the folder of all runs. A run in it that cannot be read is left out, with one warning for all of them.

    Returns:
        Labels, every value of the runs' specs as ``table.key``, metrics (shares of 1), costs, and ``folder``.

    Raises:
        InputError: if there is no such folder.

    >>> import clsim, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> record = clsim.run("split-digits", buffer="random", memory=50, seed=3, runs=folder)
    >>> load(folder)[["strategy", "buffer", "memory", "seed"]].values.tolist()
    [['er', 'random', 50, 3]]
    """
    if not Path(runs).is_dir():
        raise InputError(f"runs: no folder {str(runs)!r}, allowed: a folder of runs")
    records, problems = readable(Store(Path(runs)))
    warn_skipped(problems)
    return frame([record.data for record in records]).assign(folder=[str(record.folder) for record in records])


def warn_skipped(problems: Sequence[str]) -> None:
    """Warn once of the runs that cannot be read."""
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        warnings.warn(f"skipped {problems[0]}{more}", stacklevel=3)


def readable(store: Store) -> tuple[list[RunRecord], list[str]]:
    """Read the finished runs of a store; also return a line for each folder whose run no table can hold."""
    found, problems = store.records()
    wrong = {str(record.folder): text for record in found if (text := problem(record.data))}
    kept = [record for record in found if str(record.folder) not in wrong]
    return kept, [*problems, *(f"{folder}: {text}" for folder, text in wrong.items())]


def some(records: Sequence[RunRecord], where: str) -> None:
    """Refuse to go on without runs.

    Raises:
        InputError: if there are none.
    """
    if not records:
        raise InputError(f"{where}: no finished runs; make some with `clsim run`, or name another folder with --runs")


def groups(spec: ReportSpec, runs: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The row labels (those of the spec, and what else tells runs of one cell apart), and the runs of the filter.

    Runs that were measured on held-out samples, such as the trials of ``clsim tune``, do not stand beside tests: they
    are left out where there are tests, unless the report names :data:`MEASURED`.

    Raises:
        InputError: for an unknown column, or if no run passes the filter.
    """
    for column in (*spec.filter, *spec.exclude, *spec.rows, *spec.columns, *spec.tuned):
        if column not in runs:
            raise InputError(f"report: unknown column {column!r}; {nearest(column, runs.columns)}")
    chosen = runs
    for column, value in spec.filter.items():
        allowed = value if isinstance(value, list) else [value]
        chosen = chosen[_are(allowed, chosen, column)]
        if chosen.empty:
            there = sorted(map(str, runs[column].unique()))
            listed = ", ".join(there[:24]) + (f", … ({len(there)} in all)" if len(there) > 24 else "")
            raise InputError(f"report: no finished run with {column} {comparable(allowed)}; there are: {listed}")
    for column, value in spec.exclude.items():
        left_out = value if isinstance(value, list) else [value]
        chosen = chosen[~_are(left_out, chosen, column)]
        if chosen.empty:
            raise InputError(f"report: every finished run is left out: all have {column} {comparable(left_out)}")
    if MEASURED in chosen and MEASURED not in (*spec.filter, *spec.exclude, *spec.rows, *spec.columns):
        on_tests = chosen[MEASURED] == "test"
        chosen = chosen[on_tests] if on_tests.any() else chosen
    if spec.tuned:
        chosen = _tuned(spec, chosen)
    labels = [*spec.rows, *spec.columns]
    told = [c for c in chosen if ("." in c and c not in spec.own) or c == "revisions"]
    told = [c for c in told if c not in (*_SAME, *spec.tuned)]
    for names in (NAMES, told, ["sources"]):  # digests only tell apart what has the same name
        labels += _varying(chosen, labels, [name for name in names if name in chosen and name not in labels])
    return [name for name in labels if name not in spec.columns], chosen


METRIC = "metric"
"""The level of column labels that names metrics, where they stand side by side."""

MEASURED = "evaluation.on"
"""The column that says whether accuracies are those of test samples."""

_SAME = ("stream.difficulty", "labelling.split")
"""Columns that tell no two cells apart: another run a seed, and another seed of the initial set."""


def _tuned(spec: ReportSpec, runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the runs of each cell whose tuned settings have the highest mean accuracy on held-out samples.

    Where two are equally good, the one whose runs come first is kept. Only seeds count that all trials of a cell have,
    so that none is better for its seeds.

    Raises:
        InputError: if the runs of some cell have no held-out samples.
    """
    import pandas as pd

    units, score = ["seed", "labelling.split"], "accuracy_validation"
    settings_ = [c for c in runs if ("." in c and c not in spec.own) or c in NAMES]
    within = [c for c in settings_ if c not in (*_SAME, *spec.tuned) and runs[c].nunique(dropna=False) > 1]
    kept = []
    for _, cell in runs.groupby(within, dropna=False, sort=False) if within else [((), runs)]:
        trials = [trial for _, trial in cell.groupby(list(spec.tuned), dropna=False, sort=False)]
        common = functools.reduce(operator.and_, ({*zip(*(t[u] for u in units), strict=True)} for t in trials))
        means = [
            float(pd.to_numeric(t[score])[[unit in common for unit in zip(*(t[u] for u in units), strict=True)]].mean())
            for t in trials
        ]
        if len(trials) > 1 and any(map(math.isnan, means)):
            raise InputError(
                f"report: tuned: found trials of {', '.join(spec.tuned)} without a common seed, or without held-out "
                "samples; allowed: runs with a stream.validation above 0, the same seeds in each"
            )
        kept.append(trials[max(range(len(trials)), key=means.__getitem__)])
    return pd.concat(kept).sort_index()


def failed(spec: ReportSpec, failures: Iterable[RunFailure]) -> list[RunFailure]:
    """The failed runs that the filter of a report allows; one whose spec cannot be read is not hidden."""
    rows = [(failure, row_of(failure.spec)) for failure in failures]
    return [f for f, row in rows if all(_admitted(spec.filter, row)) and not any(_admitted(spec.exclude, row))]


def row_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a run's spec decides, as a filter sees them; empty if it cannot be read."""
    try:
        return settings(spec)
    except (AttributeError, IndexError, KeyError, TypeError):
        return {}


def admits(wanted: Options, row: Mapping[str, Any]) -> bool:
    """Whether a run has one of the wanted values in every column.

    Args:
        wanted: column → the allowed value, or a list of them.
        row: the run, as :func:`row_of` describes it.
    """
    return all(column in row for column in wanted) and all(_admitted(wanted, row))


def _admitted(wanted: Options, row: Mapping[str, Any]) -> list[bool]:
    """Tell for each column that the run has whether it has one of the wanted values there."""
    listed = {column: v if isinstance(v, list) else [v] for column, v in wanted.items() if column in row}
    return [any(_allows(allowed, row[name]) for name in _alike(column)) for column, allowed in listed.items()]


def having(wanted: Options, runs: pd.DataFrame, where: str) -> pd.DataFrame:
    """Keep the runs that have one of the wanted values in every column.

    Args:
        where: what names the columns, for the message.

    Raises:
        InputError: for an unknown column.
    """
    for column, value in wanted.items():
        if column not in runs:
            raise InputError(f"{where}: unknown column {column!r}; {nearest(column, runs.columns)}")
        runs = runs[_are(value if isinstance(value, list) else [value], runs, column)]
    return runs


def _are(values: Sequence[Any], runs: pd.DataFrame, column: str) -> pd.Series[bool]:
    """Tell which runs have one of the values in a column."""
    found = [runs[name].map(lambda value: _allows(values, value)).astype(bool) for name in _alike(column)]
    return functools.reduce(operator.or_, found)


def _alike(column: str) -> list[str]:
    """List the columns that a filter on one of them looks at: a scenario may be named as its file is."""
    return ["scenario", "scenario_file"] if column == "scenario" else [column]


def _allows(allowed: Sequence[Any], found: Any) -> bool:
    """Whether ``found`` is one of the allowed values; True does not equal 1."""
    return any(found == v and (type(found) is bool) == (type(v) is bool) for v in map(comparable, allowed))


def _varying(runs: pd.DataFrame, labels: list[str], names: Sequence[str]) -> list[str]:
    """The columns in which runs of one label differ."""
    # without a controller a run has none of its settings: that alone is said by its name
    own = [name for name in names if name.startswith("controller.")]
    names = [name for name in names if runs[name].nunique(dropna=name in own) > 1]
    if not names:
        return []
    if not labels:
        return list(names)
    within = runs.groupby(labels, dropna=False)
    return [name for name in names if (within[name].nunique(dropna=name in own) > 1).any()]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables in tables as ``table.key``: TOML reads an unquoted ``memory.batch_size`` as a table."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out
