"""Reports: which runs, which rows and columns, which metrics, what is tested.

Runs are pooled over seeds only. Where runs of one cell differ in anything else, that becomes a row label of its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from clsim import catalog
from clsim.errors import InputError, nearest
from clsim.metrics import ALL, further, summary
from clsim.specs import USUAL
from clsim.strict import Options, arguments

if TYPE_CHECKING:
    import pandas as pd

COSTS = {
    "steps": "optimizer steps",
    "forward_passes": "samples passed forward",
    "train_seconds": "training, s",
    "select_seconds": "selection, s",
    "evaluate_seconds": "evaluation, s",
    "peak_bytes": "peak memory, bytes",
    "memory_bytes": "memory, bytes",
    "state_bytes": "kept beside net and memory, bytes",
    "net_bytes": "net, bytes",
    "storage_bytes": "storage beside the net, bytes",
    "storage_nets": "storage beside the net, in nets",
    "relative_passes": "samples passed forward, × fine-tuning",
    "relative_seconds": "training and selection, × fine-tuning",
}
"""What a run has spent, by the name that specs and records use; the last four are made of the others."""

_SUMS = ("steps", "forward_passes", "train_seconds", "select_seconds", "evaluate_seconds")

NAMES = ("scenario", "strategy", "buffer", "memory", "controller")
"""What names a run beside its seed; everything else that can tell two runs apart is a setting."""


class Failed(Protocol):
    """A run that ended in an error: a :class:`clsim.store.Failure`."""

    @property
    def fingerprint(self) -> str:
        """Of the run."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """As it stands in ``spec.json``."""

    @property
    def error(self) -> str:
        """What was raised, and where."""

    @property
    def command(self) -> str:
        """What runs it again."""


@dataclass(frozen=True)
class Published:
    """A row of somebody's paper, shown beside ours.

    Attributes:
        at: column → value: where in the tables it stands.
        percent: metric → mean and the ± as printed, in percent.
        source: the paper, and the setting where it differs.
        seeds: runs behind it; 0 = not known.
    """

    at: Options
    percent: Options
    source: str
    seeds: int = 0


@dataclass(frozen=True)
class ReportSpec:
    """A report, as its TOML file has it.

    Attributes:
        filter: column of :func:`frame` → the allowed value, or a list of them; ``memory.batch_size = 10`` and every
            other ``table.key`` of a run's spec is a column too.
        exclude: the same, for values that are left out.
        rows, columns: columns of :func:`frame` that label the rows and the columns of a table.
        metrics: a table each; names of :data:`clsim.metrics.ALL` or :data:`COSTS`.
        published: rows of papers, shown beside ours.
        arms: the labels among rows and columns that name what is compared; the others name the conditions that it is
            compared under. Empty: the rows are compared, in each column.
        interval: ``t``, or ``bootstrap`` (BCa).
        ties: mark what cannot be told from the best.
        tests: also show paired tests, ranks and wins, as ``--tests`` does.
        over: a label among rows and columns whose values are numbers: ``--figures`` also draws final accuracy over it.
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


def read_report(path: Path) -> ReportSpec:
    """The report of a TOML file.

    Raises:
        InputError: naming the file and the key.
    """
    where = str(path)
    tables = catalog.read_toml(path)
    tables |= {key: _flat(tables[key]) for key in ("filter", "exclude") if isinstance(tables.get(key), dict)}
    spec = ReportSpec(**arguments(ReportSpec, tables, where, ""))
    labels = [*spec.rows, *spec.columns]
    if twice := sorted({name for name in labels if labels.count(name) > 1}):
        raise InputError(f"{where}: rows and columns: found {twice[0]!r} twice, allowed: once")
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
    return spec


def frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a run: scenario, strategy, buffer, memory, seed; every value of its spec as ``table.key``; metrics; costs.

    Metrics are computed from the accuracy matrix, whatever version wrote the record. Intransigence is held against
    the joint run on the same stream with the same seed, if it is among the records; relative costs likewise against
    the run of the strategy ``finetune``.
    """
    import pandas as pd

    records = list(records)
    joint = {_stream(r): r["accuracy"][-1] for r in records if r["spec"]["stream"]["presentation"] == "joint"}
    tuned: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["spec"]["strategy"] == "finetune":
            tuned.setdefault(_stream(record), []).append(record)
    rows = []
    for record in records:
        row = {"fingerprint": record["fingerprint"], "version": record["versions"].get("clsim", "?")}
        row |= {"command": record["command"], **settings(record["spec"])}
        row |= summary(record["accuracy"], record["initial"], joint.get(_stream(record))) | further(record)
        rows.append(row | _spent(record) | _relative(record, tuned.get(_stream(record), [])))
    return pd.DataFrame(rows)


def _spent(record: Mapping[str, Any]) -> dict[str, float]:
    """What a run has spent in all; NaN where its version did not count it."""
    cost = record["cost"]
    last = cost[-1] if cost else {}
    spent: dict[str, float] = {name: sum(c[name] for c in cost) for name in _SUMS}
    spent["peak_bytes"] = max((c["peak_bytes"] for c in cost), default=0)
    spent |= {n: math.nan if (v := last.get(n)) is None else v for n in ("memory_bytes", "state_bytes", "net_bytes")}
    spent["storage_bytes"] = spent["memory_bytes"] + spent["state_bytes"]
    spent["storage_nets"] = spent["storage_bytes"] / (spent["net_bytes"] or math.nan)
    return spent


def _relative(record: Mapping[str, Any], tuned: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a run has spent, as a multiple of what fine-tuning on the same stream has; NaN where no one run is that."""
    like = [r for r in tuned if r["spec"].get("training") == record["spec"].get("training")] or tuned
    base = like[0]["cost"] if len(like) == 1 else []

    def ratio(*names: str) -> float:
        mine, theirs = (sum(c[name] for c in cost for name in names) for cost in (record["cost"], base))
        return mine / theirs if theirs else math.nan

    seconds = ratio("train_seconds", "select_seconds")
    return {"relative_passes": ratio("forward_passes"), "relative_seconds": seconds}


def memory_size(spec: Mapping[str, Any]) -> int | str:
    """Of a run that keeps a memory: its exemplars, or its share of the samples seen, as in ``1 %``."""
    fraction = spec["memory"].get("fraction")
    return f"{100 * fraction:.4g} %" if isinstance(fraction, float) and fraction else spec["memory"]["capacity"]


def settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of :func:`frame` that a run's spec, as it stands in its files, decides."""
    kept = spec["memory"]["buffer"] != "none"
    row = {name: spec[name] for name in ("scenario", "strategy", "seed")}
    row |= {"buffer": spec["memory"]["buffer"] if kept else "–"}
    row |= {"memory": memory_size(spec) if kept else "–"}
    controller = spec.get("controller")
    row |= {"controller": controller.get("name", "–") if isinstance(controller, dict) else "–"}
    for table, values in spec.items():
        if isinstance(values, dict):
            row |= {f"{table}.{key}": _plain(value) for key, value in values.items()}
    for name, value in USUAL.items():
        row.setdefault(name, _plain(value))
    return row | {"sources": _plain(spec["sources"])}


def problem(record: Mapping[str, Any]) -> str:
    """Why a record cannot stand in a report, as one that another version wrote; empty if it can."""
    spec = record["spec"]
    kinds = {"scenario": str, "strategy": str, "seed": int, "sources": list}
    kinds |= dict.fromkeys(("data", "stream", "model", "memory"), dict)
    for key, kind in kinds.items():
        if not isinstance(spec.get(key), kind):
            return f"spec.{key}: found {spec.get(key)!r}, allowed: {kind.__name__}"
    for table, key in (("memory", "buffer"), ("memory", "capacity"), ("stream", "presentation")):
        if not isinstance(spec[table].get(key), (str, int)):
            return f"spec.{table}.{key}: found {spec[table].get(key)!r}, allowed: text or a number"
    for cost in record["cost"]:
        if lacking := [name for name in (*_SUMS, "peak_bytes", "memory_bytes") if cost.get(name) is None]:
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
        chosen = chosen[chosen[column].map(lambda found, allowed=allowed: _allows(allowed, found)).astype(bool)]
        if chosen.empty:
            there = sorted(map(str, runs[column].unique()))
            listed = ", ".join(there[:24]) + (f", … ({len(there)} in all)" if len(there) > 24 else "")
            raise InputError(f"report: no finished run with {column} {_plain(allowed)}; there are: {listed}")
    for column, value in spec.exclude.items():
        left_out = value if isinstance(value, list) else [value]
        chosen = chosen[~chosen[column].map(lambda found, some=left_out: _allows(some, found)).astype(bool)]
        if chosen.empty:
            raise InputError(f"report: every finished run is left out: all have {column} {_plain(left_out)}")
    labels = [*spec.rows, *spec.columns]
    told = [c for c in chosen if "." in c or c == "sources"]
    told = [c for c in told if c != "stream.difficulty"]  # another run a seed: it tells no two cells apart
    for names in (NAMES, told):
        labels += _varying(chosen, labels, [name for name in names if name not in labels])
    return [name for name in labels if name not in spec.columns], chosen


def failed(spec: ReportSpec, failures: Iterable[Failed]) -> list[Failed]:
    """The failed runs that the filter of a report allows; one whose spec cannot be read is not hidden."""
    kept = []
    for failure in failures:
        try:
            row = settings(failure.spec)
        except (KeyError, TypeError):
            row = {}
        allowed, left_out = (
            [_allows(v if isinstance(v, list) else [v], row[column]) for column, v in of.items() if column in row]
            for of in (spec.filter, spec.exclude)
        )
        if all(allowed) and not any(left_out):
            kept.append(failure)
    return kept


def _allows(allowed: Sequence[Any], found: Any) -> bool:
    """Is ``found`` one of the values? True is not 1."""
    return any(found == v and (type(found) is bool) == (type(v) is bool) for v in map(_plain, allowed))


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


def _stream(record: Mapping[str, Any]) -> str:
    """What a run and its joint counterpart have in common."""
    spec = record["spec"]
    stream = {key: value for key, value in spec["stream"].items() if key != "presentation"}
    return json.dumps([spec["scenario"], spec["seed"], spec["data"], stream, spec["model"]], sort_keys=True)


def _plain(value: Any) -> Any:
    """Lists and tables as text, so that they can be compared and shown."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
