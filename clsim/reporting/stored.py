"""The runs of a folder for people: a list with filters, and one run in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clsim.errors import InputError, nearest
from clsim.records.frame import COSTS, frame
from clsim.records.metrics import ALL, UNSIZED
from clsim.records.overview import StoredRun
from clsim.reporting import searches
from clsim.reporting.report import admits, problem, row_of
from clsim.reporting.screen import plain
from clsim.spec.flags import as_text
from clsim.spec.reader import Options
from clsim.spec.resolve import departures

_STYLES = {"finished": "green", "half done": "yellow", "failed": "red", "busy": "bold", "broken": "red"}
WIDE = 100
"""Columns of a console that the whole list needs."""

_SHORT = 7
"""Digits of a fingerprint that a list shows, where they tell its runs apart."""


def chosen(runs: Sequence[StoredRun], wanted: Options) -> list[StoredRun]:
    """Keep the runs that have one of the wanted values in every column.

    Args:
        runs: all runs of a folder.
        wanted: column of :func:`clsim.records.frame.settings` → the allowed values, in a list.

    Raises:
        InputError: for a column that no run has.
    """
    rows = {run.fingerprint: row_of(run.spec) for run in runs}
    known = {column for row in rows.values() for column in row}
    for column in wanted if known else ():
        if column not in known:
            raise InputError(f"--where: unknown column {column!r}; {nearest(column, known)}")
    return [run for run in runs if admits(wanted, rows[run.fingerprint])]


def table(runs: Sequence[StoredRun], width: int) -> Table:
    """Make a table with a row for each run; what failed or cannot be read says why.

    Args:
        width: columns of the console; a narrow one gets shorter headings and no seconds.
    """
    wide = width >= WIDE
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("id", style="dim", no_wrap=True)
    made.add_column("run", overflow="fold", min_width=16)
    made.add_column("state", no_wrap=True)
    for heading in ("accuracy, %", "forgetting, %") if wide else ("acc., %", "forg., %"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("when", no_wrap=True)
    if wide:
        made.add_column("seconds", justify="right", no_wrap=True)
    digits = _digits([run.fingerprint for run in runs])
    for run in runs:
        name = plain(run.name)
        if run.reason:
            name.append("\n").append(plain(run.reason, "red"))
        made.add_row(
            run.fingerprint[:digits],
            name,
            Text(run.progress, style=_STYLES[run.state]),
            _percent(run.metric("accuracy")),
            _percent(run.metric("forgetting")),
            _when(run.ended),
            *(["–" if run.seconds is None else f"{run.seconds:.1f}"] if wide else []),
        )
    return made


def as_json(run: StoredRun) -> dict[str, Any]:
    """The line of a list as plain values; accuracy and forgetting are shares of 1."""
    return {
        "fingerprint": run.fingerprint,
        "name": run.name,
        "state": run.state,
        "done": run.done,
        "experiences": run.total,
        "accuracy": run.metric("accuracy"),
        "forgetting": run.metric("forgetting"),
        "ended": run.ended,
        "seconds": run.seconds,
        "folder": str(run.folder),
        "reason": run.reason,
        "command": run.command,
    }


def show_run(run: StoredRun, out: Console) -> None:
    """Print a run: accuracy matrix, metrics, cost, settings of its own, where it was made, its command.

    Raises:
        InputError: if the run cannot be read.
    """
    if run.state == "broken":
        raise InputError(f"{run.folder}: {run.reason}")
    out.print(plain(run.name, "bold"))
    facts = [run.progress, *([f"ended {_when(run.ended, whole=True)}"] if run.ended else []), str(run.folder)]
    out.print(plain(" · ".join(facts), "dim"))
    if run.reason:
        out.print(plain(run.reason, "red"))
    for doubt in run.doubts():
        out.print(plain(doubt, "yellow"))
    record = None if run.record is None else run.record.data
    if record is not None and record["accuracy"]:
        _show_matrix(record, out)
        if refusal := problem(record):
            out.print(plain(f"its metrics and costs cannot be shown: {refusal}", "red"))
        else:
            _show_numbers(record, out)
        if record.get("searches"):
            controller = record["spec"]["controller"]["name"]
            out.print(plain(f"{controller}: what was chosen, task by task", "bold"))
            out.print(searches.summary(searches.searches(record)))
            out.print(searches.trace(record))
    _show_settings(run.spec, out)
    if record is not None:
        made = _made(record)
        out.print(Text("made by", style="bold"), plain(made), sep="  ")
    if run.command:
        out.print(plain(run.command))


def _show_matrix(record: Mapping[str, Any], out: Console) -> None:
    made = Table(title="accuracy, %: after experience ↓, tested on →", title_justify="left", box=None, pad_edge=False)
    made.add_column("", justify="right", style="bold")
    for column in range(len(record["accuracy"])):
        made.add_column(str(column + 1), justify="right")
    for i, row in enumerate(record["accuracy"]):
        if any(value is not None for value in row):
            entries = (Text(_percent(value), style="" if j <= i else "dim") for j, value in enumerate(row))
            made.add_row(str(i + 1), *entries)
    out.print(made, "")


def _show_numbers(record: Mapping[str, Any], out: Console) -> None:
    """Print the metrics and the costs that the record has."""
    (row,) = frame([record]).to_dict("records")
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(justify="right")
    for name, metric in ALL.items():
        if _is_number(row[name]):
            made.add_row(metric.heading, _percent(row[name]) if metric.percent else f"{row[name]:,g}")
    for name, heading in COSTS.items():
        if _is_number(row[name]):
            made.add_row(heading, f"{row[name]:,.0f}" if row[name] == round(row[name]) else f"{row[name]:,.2f}")
    out.print(made, "")
    if row["unsized"]:
        out.print(Text(UNSIZED, style="dim"))


def _show_settings(spec: Mapping[str, Any], out: Console) -> None:
    """Print the settings that are not those of the run's scenario and strategy."""
    heading = Text("settings that differ from the scenario's and the strategy's own", style="bold")
    try:
        found = departures(spec)
    except InputError as error:
        out.print(plain(f"its own settings are not known: {error}", "dim"))
        return
    except (AttributeError, KeyError, TypeError):
        return
    if not found:
        out.print(heading, Text("none"), sep="  ")
        return
    made = Table(title=heading, title_justify="left", box=None, pad_edge=False, show_header=False)
    made.add_column()
    made.add_column(overflow="fold")
    made.add_column(style="dim", overflow="fold")
    for key, (value, own) in found.items():
        made.add_row(*(plain(text) for text in (key, _value(value), f"own: {_value(own)}")))
    out.print(made, "")


def _made(record: Mapping[str, Any]) -> str:
    """Say which versions, which code and which processor made a record."""
    environment = record.get("environment")
    tables = [record["versions"], environment if isinstance(environment, Mapping) else {}]
    return " · ".join(f"{key} {value}" for of in tables for key, value in of.items() if value is not None)


def _digits(fingerprints: Sequence[str]) -> int:
    """Count the digits that tell fingerprints apart, from :data:`_SHORT` on."""
    return next((n for n in range(_SHORT, 16) if len({f[:n] for f in fingerprints}) == len(fingerprints)), 16)


def _when(text: str, *, whole: bool = False) -> str:
    """Write a time of a record in local time: the hour alone if it is of today."""
    try:
        when = datetime.fromisoformat(text).astimezone()
    except (OverflowError, ValueError):
        return "–"
    today = when.date() == datetime.now(timezone.utc).astimezone().date()
    return f"{when:%Y-%m-%d %H:%M}" if whole else f"{when:%H:%M}" if today else f"{when:%Y-%m-%d}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _value(value: Any) -> str:
    return "–" if value is None else as_text(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value
