"""The searches of a controller, for people: what it tried and what it chose."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from clsim.records.search import Attempt, Search, Trial, read_search
from clsim.reporting.listing import Line, Listing
from clsim.reporting.names import printable
from clsim.reporting.report import ReportSpec, groups
from clsim.reporting.screen import plain

if TYPE_CHECKING:
    import pandas as pd

_MARKS = {
    "best so far": ("", ""),
    "no better": ("", "dim"),
    "accepted": (" ✓", "green"),
    "decayed": (" ✗", "red"),
    "last": (" ✗ kept: no decay is left", "yellow"),
    "kept": (" ✓", "green"),
}
"""Decision → the mark behind an attempt's accuracy, and its style."""


def searches(record: Mapping[str, Any]) -> list[Search]:
    """Read the searches of a record; empty if it has none."""
    return [read_search(found, "searches") for found in record.get("searches", ())]


def trial(tried: Trial | Attempt) -> str:
    """Say in a few words what is trained."""
    return f"{_trained(tried)} · lr {tried.lr:g}"


def glance(search: Search, heading: str) -> list[tuple[str, str, Text]]:
    """Show a search in three lines: learning rates, the accuracy needed, and the trade-offs until one reached it.

    Args:
        heading: text that says which experience it is.
    """
    rates = [a for a in search.attempts if a.phase == "plasticity"]
    others = [a for a in search.attempts if a.phase != "plasticity"]
    tried = [
        Text(f"{a.lr:g}: {_percent(a.accuracy)}{' ←' if best else ''}", "bold" if best else "dim")
        for a, best in ((a, a is _best(search)) for a in rates)
    ]
    found = [(heading, "fine-tuning at lr", _joined(tried))]
    if search.kept.phase == "once":
        return [*found, ("", "trained once", Text(f"{trial(search.kept)}: {_percent(search.kept.accuracy)}", "bold"))]
    found.append(("", "must reach", Text(_percent(search.kept.needed))))
    tried = [Text(f"{_numbers(a)}: {_percent(a.accuracy)}{_MARKS[a.decision][0]}", _look(a)) for a in others]
    return [*found, ("", ", ".join(map(printable, search.kept.values)), _joined(tried))]


def chosen(spec: ReportSpec, runs: pd.DataFrame, records: Iterable[Mapping[str, Any]]) -> list[Listing]:
    """List what the controllers of a report's runs chose, a line for each row of its tables; empty if no run has one.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
    """
    found = {record["fingerprint"]: searches(record) for record in records if record.get("searches")}
    if not found:
        return []
    row_names, kept = groups(spec, runs)
    kept = kept[kept["fingerprint"].isin(found)]
    names = [*spec.columns, *(name for name in row_names if name not in ("seed", *spec.columns))]
    lines = []
    for key, group in kept.groupby(names, dropna=False, sort=False):
        seeds = [found[fingerprint] for fingerprint in group["fingerprint"]]
        tasks = list(zip(*seeds, strict=True)) if len({len(one) for one in seeds}) == 1 else [()]
        every = [search for one in seeds for search in one]
        options = dict.fromkeys(name for search in every for name in search.kept.values)
        values = [f"{name} {_medians(tasks, name)}" for name in options]
        needed = [search for search in every if search.kept.phase == "stability"]
        reached = sum(search.kept.decision == "accepted" for search in needed)
        spent = sum(search.seconds for search in every)
        entries = [
            _medians(tasks),
            "; ".join(values) or "–",
            f"{reached} of {len(needed)}" if needed else "–",
            f"{sum(len(search.attempts) for search in every) / len(every):.1f}",
            f"{1 - sum(search.kept.seconds for search in every) / spent:.0%}" if spent else "–",
        ]
        lines.append(Line([str(label) for label in key], entries))
    heads = ("learning rate", "trade-off", "margin kept", "trainings a task", "time on other trainings")
    lines.sort(key=lambda line: list(line.labels))
    notes = ["Learning rates and trade-offs task by task: the median over seeds, of two middle ones the lower."]
    notes += ["Margin kept: searches that ended with an accuracy within the margin of the best fine-tuning."]
    return [Listing("What the controller chose", names, [(head,) for head in heads], lines, notes)] if lines else []


def _medians(tasks: Sequence[Sequence[Search]], name: str = "") -> str:
    """Write medians over seeds, task by task: of the trade-off ``name``, or of the learning rate if it is empty."""
    if not all(tasks):
        return "–"
    each = ([s.kept.values.get(name, 0) if name else s.kept.lr for s in seeds] for seeds in tasks)
    return " ".join(f"{statistics.median_low(of):g}" for of in each)


def summary(found: Sequence[Search]) -> Table:
    """Make a table of searches, a row for each: what was chosen, what it took; accuracies are on validation parts."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in ("task", "lr", "fine-tuned", "needed"):
        table.add_column(name, justify="right")
    names = list(dict.fromkeys(name for search in found for name in search.kept.values))
    for name in names:
        table.add_column(plain(name), justify="right")
    for name in ("reached", "tried", "seconds"):
        table.add_column(name, justify="right")
    for search in found:
        kept = search.kept
        first = next(a for a in search.attempts if a.phase != "plasticity")
        moved = [_moved(first.values.get(name), kept.values.get(name)) for name in names]
        reached = Text(_percent(kept.accuracy) + _MARKS[kept.decision][0][:2], _look(kept))
        table.add_row(
            str(search.experience + 1),
            f"{kept.lr:g}",
            _percent(search.best),
            _percent(kept.needed) if kept.phase == "stability" else "–",
            *moved,
            reached,
            str(len(search.attempts)),
            f"{search.seconds:.1f}",
        )
    return table


ROW = ("task", "trained", "lr", "reached", "needed", "decision", "steps", "seconds")
"""Headings of :func:`rows`."""


def rows(record: Mapping[str, Any]) -> list[list[str]]:
    """List every attempt of a record, as text under the headings :data:`ROW`."""
    return [
        [
            str(search.experience + 1),
            _trained(a),
            f"{a.lr:g}",
            _percent(a.accuracy),
            _percent(a.needed) if a.phase == "stability" else "",
            _said(a, search),
            f"{a.cost.get('steps', 0):,}",
            f"{a.seconds:.1f}",
        ]
        for search in searches(record)
        for a in search.attempts
    ]


def trace(record: Mapping[str, Any]) -> Table:
    """Make a table of every attempt of every experience."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in ROW:
        words = name in ("trained", "decision")
        table.add_column(name, justify="left" if words else "right", no_wrap=words)
    looks = [_look(a) for search in searches(record) for a in search.attempts]
    last = ""
    for row, look in zip(rows(record), looks, strict=True):
        if last not in ("", row[0]):
            table.add_section()
        last = row[0]
        table.add_row(*(plain(text) for text in row[:5]), Text(row[5], style=look), *row[6:])
    return table


def _best(search: Search) -> Attempt | None:
    """Find the fine-tuning whose learning rate was taken."""
    return next((a for a in search.attempts if a.phase == "plasticity" and a.accuracy == search.best), None)


def _said(attempt: Attempt, search: Search) -> str:
    if attempt.phase == "plasticity":
        return "best" if attempt is _best(search) else ""
    return attempt.decision


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _numbers(attempt: Attempt) -> str:
    return ", ".join(f"{value:g}" for value in attempt.values.values())


def _trained(tried: Trial | Attempt) -> str:
    if tried.phase == "plasticity":
        return "fine-tuning"
    return ", ".join(f"{name} {value:g}" for name, value in tried.values.items()) or "the method"


def _moved(first: float | None, kept: float | None) -> str:
    if first is None or kept is None:
        return "–"
    return f"{kept:g}" if first == kept else f"{first:g} → {kept:g}"


def _look(attempt: Attempt) -> str:
    style = _MARKS[attempt.decision][1]
    return f"bold {style}" if attempt.final else style


def _joined(parts: Sequence[Text]) -> Text:
    return Text(" · ", style="dim").join(parts)
