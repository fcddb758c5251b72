"""Reports: which runs, which rows and columns, which metrics; a table a metric, mean ± interval over seeds.

Runs are pooled over seeds only. Where runs of one cell differ in anything else, that becomes a row label of its own.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim import catalog
from clsim.errors import InputError, nearest
from clsim.metrics import METRICS, summary
from clsim.reporting.statistics import half_width
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
}
"""What a run has spent, by the name that specs and records use."""

Key = tuple[str, ...]


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
        filter: column → the allowed value, or a list of them.
        rows, columns: columns of :func:`frame` that label the rows and the columns of a table.
        metrics: a table each; names of :data:`clsim.metrics.METRICS` or :data:`COSTS`.
    """

    title: str = ""
    description: str = ""
    filter: Options = dataclasses.field(default_factory=dict)
    rows: tuple[str, ...] = ("strategy", "buffer", "memory")
    columns: tuple[str, ...] = ("scenario",)
    metrics: tuple[str, ...] = ("accuracy", "forgetting")
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Cell:
    """The seeds behind a number.

    Attributes:
        values: one a run, in percent for metrics.
        published: the mean and ± of a paper, instead of values.
    """

    values: Sequence[float] = ()
    published: Sequence[float] | None = None

    def __str__(self) -> str:
        """Mean ± half of the 95 % t interval; the points themselves below three seeds."""
        if self.published is not None:
            return " ± ".join(f"{v:g}" for v in self.published)
        if not self.values:
            return "–"
        digits = 0 if max(map(abs, self.values)) >= 1000 else 1
        if len(self.values) < 3:
            return ", ".join(f"{v:,.{digits}f}" for v in self.values)
        return f"{self.mean:,.{digits}f} ± {half_width(self.values):,.{digits}f}"

    @property
    def mean(self) -> float:
        """NaN of nothing."""
        if self.published is not None:
            return float(self.published[0])
        return math.fsum(self.values) / len(self.values) if self.values else math.nan


@dataclass(frozen=True)
class Table:
    """One metric: a cell for each row and column label."""

    metric: str
    title: str
    row_names: Key
    column_names: Key
    columns: Sequence[Key]
    rows: Mapping[Key, Mapping[Key, Cell]]
    notes: Sequence[str]


def read_report(path: Path) -> ReportSpec:
    """The report of a TOML file.

    Raises:
        InputError: naming the file and the key.
    """
    where = str(path)
    spec = ReportSpec(**arguments(ReportSpec, catalog.read_toml(path), where, ""))
    for metric in spec.metrics:
        if metric not in METRICS and metric not in COSTS:
            raise InputError(f"{where}: metrics: unknown name {metric!r}; {nearest(metric, [*METRICS, *COSTS])}")
    for published in spec.published:
        for metric, values in published.percent.items():
            if metric not in METRICS:
                raise InputError(f"{where}: published.percent: unknown name {metric!r}; {nearest(metric, METRICS)}")
            numbers = isinstance(values, list) and all(type(v) in (int, float) for v in values)
            if not numbers or len(values) not in (1, 2):
                allowed = "a list of the mean, or of the mean and its ±"
                raise InputError(f"{where}: published.percent.{metric}: found {values!r}, allowed: {allowed}")
    return spec


def frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a run: scenario, strategy, buffer, memory, seed; every value of its spec as ``table.key``; metrics; costs.

    Metrics are computed from the accuracy matrix, whatever version wrote the record. Intransigence is held against
    the joint run on the same stream with the same seed, if it is among the records.
    """
    import pandas as pd

    records = list(records)
    joint = {_stream(r): r["accuracy"][-1] for r in records if r["spec"]["stream"]["presentation"] == "joint"}
    rows = []
    for record in records:
        spec = record["spec"]
        kept = spec["memory"]["buffer"] != "none"
        row = {"fingerprint": record["fingerprint"], "version": record["versions"].get("clsim", "?")}
        row |= {"command": record["command"]}
        row |= {name: spec[name] for name in ("scenario", "strategy", "seed")}
        row |= {"buffer": spec["memory"]["buffer"] if kept else "–"}
        row |= {"memory": spec["memory"]["capacity"] if kept else "–"}
        for table, values in spec.items():
            if isinstance(values, dict):
                row |= {f"{table}.{key}": _plain(value) for key, value in values.items()}
        row |= {"sources": _plain(spec["sources"])}
        row |= summary(record["accuracy"], record["initial"], joint.get(_stream(record)))
        row |= {name: sum(c[name] for c in record["cost"]) for name in COSTS}
        row |= {"peak_bytes": max((c["peak_bytes"] for c in record["cost"]), default=0)}
        row |= {"memory_bytes": record["cost"][-1]["memory_bytes"] if record["cost"] else 0}
        rows.append(row)
    return pd.DataFrame(rows)


def groups(spec: ReportSpec, runs: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The row labels (those of the spec, and what else tells runs of one cell apart), and the runs of the filter.

    Raises:
        InputError: for an unknown column, or if no run passes the filter.
    """
    for column in (*spec.filter, *spec.rows, *spec.columns):
        if column not in runs:
            raise InputError(f"report: unknown column {column!r}; {nearest(column, runs.columns)}")
    chosen = runs
    for column, value in spec.filter.items():
        allowed = value if isinstance(value, list) else [value]
        chosen = chosen[chosen[column].isin(allowed)]
        if chosen.empty:
            there = ", ".join(sorted(map(str, runs[column].unique())))
            raise InputError(f"report: no finished run with {column} {_plain(allowed)}; there are: {there}")
    labels = [*spec.rows, *spec.columns]
    settings = [c for c in chosen if "." in c or c == "sources"]
    varying = (chosen.groupby(labels, dropna=False)[settings].nunique(dropna=False) > 1).any()
    shown = [c for c in settings if varying[c] and c not in labels and f"memory.{c}" not in labels]
    return [*spec.rows, *shown], chosen


def tables(spec: ReportSpec, runs: pd.DataFrame) -> list[Table]:
    """A table for each metric of the report."""
    row_names, chosen = groups(spec, runs)
    made = []
    for metric in spec.metrics:
        rows: dict[Key, dict[Key, Cell]] = {}
        scale = 100 if metric in METRICS else 1
        for label, part in chosen.groupby([*row_names, *spec.columns], dropna=False, sort=False):
            key = tuple(map(str, label))
            values = [scale * v for v in part.sort_values("seed")[metric].dropna()]
            rows.setdefault(key[: len(row_names)], {})[key[len(row_names) :]] = Cell(values)
        rows = dict(sorted(rows.items(), key=lambda item: [_natural(v) for v in item[0]]))
        columns = sorted({c for cells in rows.values() for c in cells}, key=lambda c: [_natural(v) for v in c])
        notes = _add_published(spec, metric, row_names, rows, set(columns)) if scale == 100 else []
        notes += _notes(rows, chosen)
        label = METRICS[metric].label + ", %" if metric in METRICS else COSTS[metric]
        made.append(Table(metric, label, tuple(row_names), tuple(spec.columns), columns, rows, notes))
    return made


def to_markdown(table: Table) -> str:
    """With its notes below."""
    header = [*table.row_names, *(" · ".join(c) or table.title for c in table.columns)]
    lines = [header, ["---"] * len(header)]
    lines += [[*key, *(str(cells.get(c, Cell())) for c in table.columns)] for key, cells in table.rows.items()]
    body = "\n".join("| " + " | ".join(_escaped(v) for v in line) + " |" for line in lines)
    notes = "".join(f"\n\n{note}" for note in table.notes)
    return f"**{table.title}**\n\n{body}{notes}\n"


def to_csv(made: Sequence[Table]) -> str:
    """All tables in one, a row a cell: labels, metric, mean, half of the 95 % interval, number of seeds."""
    import pandas as pd

    rows = []
    for table in made:
        for key, cells in table.rows.items():
            for column, cell in cells.items():
                labels = dict(zip((*table.row_names, *table.column_names), (*key, *column), strict=True))
                interval = math.nan if cell.published is not None else half_width(cell.values)
                numbers = {"metric": table.metric, "mean": cell.mean, "half_width_95": interval, "n": len(cell.values)}
                rows.append(labels | numbers)
    return pd.DataFrame(rows).to_csv(index=False)


def to_runs(spec: ReportSpec, runs: pd.DataFrame) -> str:
    """CSV, a row a run of the report's filter: labels, seed, its metrics (shares of 1) and costs, and its command."""
    row_names, chosen = groups(spec, runs)
    labels = [*spec.columns, *row_names, "seed"]
    ordered = chosen.sort_values(labels, key=lambda column: column.map(lambda value: _natural(str(value))))
    return ordered[[*labels, *spec.metrics, "version", "command"]].to_csv(index=False, float_format="%.6g")


def _stream(record: Mapping[str, Any]) -> str:
    """What a run and its joint counterpart have in common."""
    spec = record["spec"]
    stream = {key: value for key, value in spec["stream"].items() if key != "presentation"}
    return json.dumps([spec["scenario"], spec["seed"], spec["data"], stream, spec["model"]], sort_keys=True)


def _plain(value: Any) -> Any:
    """Lists and tables as text, so that they can be compared and shown."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def _add_published(
    spec: ReportSpec, metric: str, row_names: Sequence[str], rows: dict[Key, dict[Key, Cell]], columns: set[Key]
) -> list[str]:
    """Put the paper's rows below ours, and say how far ours are from them."""
    notes = []
    for published in spec.published:
        column = tuple(str(published.at.get(name, "")) for name in spec.columns)
        if metric not in published.percent or column not in columns:
            continue
        label = tuple(str(published.at.get(name, "–")) for name in row_names)
        cell = Cell(published=published.percent[metric])
        seeds = f", {published.seeds} seeds" if published.seeds else ""
        notes.append(f"published: {published.source}{seeds}.")
        for key in [k for k in rows if all(v == "–" or v == k[i] for i, v in enumerate(label))]:
            ours = rows[key].get(column, Cell())
            if ours.values:
                n = len(ours.values)
                notes.append(
                    f"ours − published: {ours.mean - cell.mean:+.1f} ({' · '.join(key)}; ours over {n} seeds)."
                )
        rows[(f"{label[0]} (published)", *label[1:])] = {column: cell}
    return notes


def _notes(rows: Mapping[Key, Mapping[Key, Cell]], chosen: pd.DataFrame) -> list[str]:
    counts = {len(cell.values) for cells in rows.values() for cell in cells.values() if cell.values}
    notes = []
    if counts and max(counts) >= 3:
        number = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        notes.append(f"Mean ± half of the 95 % t interval over {number} seeds.")
    if counts and min(counts) < 3:
        notes.append("Fewer than three seeds: the points themselves, as no interval can be given.")
    versions = sorted(set(chosen["version"]))
    if len(versions) > 1:
        notes.append(f"The runs were made by several versions of clsim: {', '.join(versions)}.")
    return notes


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
