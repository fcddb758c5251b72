"""Reports: which runs, which rows and columns, which metrics, what is tested.

Runs are pooled over seeds only. Where runs of one cell differ in anything else, that becomes a row label of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clsim.errors import InputError, nearest
from clsim.records.frame import COSTS, NAMES, SUMS, comparable, settings
from clsim.records.metrics import ALL
from clsim.records.store import RunFailure
from clsim.spec import registry
from clsim.spec.reader import Options, arguments

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Published:
    """Published results: a row of a paper, shown beside our runs.

    Attributes:
        at: column → value: where in the tables it stands.
        percent: metric → mean and the ± as printed, in percent.
        source: the paper, and the setting where it differs.
        seeds: number of runs behind the row; 0: not known.
        over_labels: number of labels → accuracy in percent, for reports with ``labelling``.
    """

    at: Options
    percent: Options
    source: str
    seeds: int = 0
    over_labels: Options = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class ReportSpec:
    """A report, as its TOML file has it.

    Attributes:
        filter: column of :func:`frame` → the allowed value, or a list of them; ``memory.batch_size = 10`` and every
            other ``table.key`` of a run's spec is a column too.
        exclude: the same, for values that are left out.
        rows, columns: columns of :func:`frame` that label the rows and the columns of a table.
        metrics: metrics, with a table for each; names of :data:`clsim.records.metrics.ALL` or :data:`COSTS`.
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
    """

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


def read_report(path: Path) -> ReportSpec:
    """The report of a TOML file.

    Raises:
        InputError: naming the file and the key.
    """
    where = str(path)
    tables = registry.read_toml(path)
    tables |= {key: _flat(tables[key]) for key in ("filter", "exclude") if isinstance(tables.get(key), dict)}
    spec = ReportSpec(**arguments(ReportSpec, tables, where, ""))
    labels = [*spec.rows, *spec.columns]
    if twice := sorted({name for name in labels if labels.count(name) > 1}):
        raise InputError(f"{where}: rows and columns: found {twice[0]!r} twice, allowed: once")
    if "scenario" in spec.arms:
        raise InputError(f"{where}: arms: found 'scenario', allowed: what is compared within a scenario")
    for name in spec.arms:
        if name not in labels:
            raise InputError(f"{where}: arms: {name!r} is no label of a row or a column; {nearest(name, labels)}")
    if spec.over and spec.over not in labels:
        raise InputError(f"{where}: over: {spec.over!r} is no label of a row or a column; {nearest(spec.over, labels)}")
    for metric in spec.metrics:
        if metric not in ALL and metric not in COSTS:
            raise InputError(f"{where}: metrics: unknown name {metric!r}; {nearest(metric, [*ALL, *COSTS])}")
    for published in spec.published:
        for metric, values in published.percent.items():
            if metric not in ALL:
                raise InputError(f"{where}: published.percent: unknown name {metric!r}; {nearest(metric, ALL)}")
            numbers = isinstance(values, list) and all(type(v) in (int, float) for v in values)
            if not numbers or len(values) not in (1, 2):
                allowed = "a list of the mean, or of the mean and its ±"
                raise InputError(f"{where}: published.percent.{metric}: found {values!r}, allowed: {allowed}")
        for number, value in published.over_labels.items():
            if not number.isdecimal() or type(value) not in (int, float):
                allowed = "a number of labels, and an accuracy in percent"
                raise InputError(f"{where}: published.over_labels: found {number!r} = {value!r}, allowed: {allowed}")
    return spec


def find_report(name: str) -> ReportSpec:
    """The report of a name in ``./reports``, a shipped name, or a path."""
    return read_report(registry.find_file("reports", name))


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


def groups(spec: ReportSpec, runs: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The row labels (those of the spec, and what else tells runs of one cell apart), and the runs of the filter.

    Raises:
        InputError: for an unknown column, or if no run passes the filter.
    """
    for column in (*spec.filter, *spec.exclude, *spec.rows, *spec.columns):
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
    labels = [*spec.rows, *spec.columns]
    told = [c for c in chosen if "." in c or c == "revisions"]
    # another run a seed, and another seed of the initial set: they tell no two cells apart
    told = [c for c in told if c not in ("stream.difficulty", "labelling.split")]
    for names in (NAMES, told, ["sources"]):  # digests only tell apart what has the same name
        labels += _varying(chosen, labels, [name for name in names if name not in labels])
    return [name for name in labels if name not in spec.columns], chosen


def failed(spec: ReportSpec, failures: Iterable[RunFailure]) -> list[RunFailure]:
    """The failed runs that the filter of a report allows; one whose spec cannot be read is not hidden."""
    kept = []
    for failure in failures:
        try:
            row = settings(failure.spec)
        except (AttributeError, IndexError, KeyError, TypeError):
            row = {}
        allowed, left_out = (
            [
                any(_allows(v if isinstance(v, list) else [v], row[name]) for name in _alike(column))
                for column, v in of.items()
                if column in row
            ]
            for of in (spec.filter, spec.exclude)
        )
        if all(allowed) and not any(left_out):
            kept.append(failure)
    return kept


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
