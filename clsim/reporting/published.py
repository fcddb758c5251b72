"""A paper's claims and numbers beside ours: verdicts, and how each published number lies to our interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from clsim.records.metrics import ALL
from clsim.reporting import claims
from clsim.reporting.cells import Cell, Rows, Table, cells, higher_is_better, title
from clsim.reporting.listing import Line, Listing
from clsim.reporting.report import Published, ReportSpec, groups

if TYPE_CHECKING:
    import pandas as pd

Agreement = Literal["inside our interval", "exceeded", "not reached", "no interval"]

ARMS = ("strategy", "label", "buffer", "batch.selector")
"""Columns that name what a published row compares; its other ones name the condition."""


def agreement(cell: Cell, paper: float, *, higher: bool) -> Agreement:
    """Say how a published number, in the unit of the cell, lies to our interval.

    Args:
        higher: whether higher numbers are better.
    """
    low, high = cell.bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    if low <= paper <= high:
        return "inside our interval"
    return "exceeded" if (low > paper) == higher else "not reached"


def claims_of(
    spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]
) -> tuple[list[Listing], list[Table]]:
    """Judge the claims of a report; return them for people, and for CSV.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
    """
    judged = claims.judge(spec, runs, records)
    return claims.listed(judged, spec.size), claims.table(judged)


def listed(spec: ReportSpec, runs: pd.DataFrame) -> list[Listing]:
    """List the published numbers of :attr:`ReportSpec.elsewhere` beside ours of the same arm; nothing without any.

    In a report of the published size, it is said how each number lies to our interval. In a small one the settings
    differ, so that only the order of the arms can be held against the paper's: a row stands beside ours of the same
    arm, and of the same value of each column in which rows and runs have a value in common. Rows without a run like
    them are left out where others have one. Accuracies over numbers of labels stand beside our last one.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
    """
    if not spec.elsewhere:
        return []
    row_names, chosen = groups(spec, runs)
    names = [*row_names, *spec.columns]
    ours = {metric: cells(spec, metric, row_names, chosen) for metric in spec.metrics if metric in ALL}
    whole = spec.size == "published"
    common = None if whole else _common(spec.elsewhere, names, ours)
    beside: list[tuple[Published, str, str, list[Cell]]] = []
    for row in spec.elsewhere:
        for metric in row.percent or ["over_labels"]:
            read = "accuracy" if metric == "over_labels" else metric
            beside.append((row, metric, read, _alike(row, names, ours.get(read, {}), common)))
    if not whole and any(found for *_, found in beside):
        beside = [one for one in beside if one[-1]]
    sources = list(dict.fromkeys(row.source for row, *_ in beside))
    lines = []
    for row, metric, read, found in beside:
        labels = " · ".join([*map(str, row.at.values())]) + f" [{sources.index(row.source) + 1}]"
        entries = [_printed(row, metric), " / ".join(map(str, found)) or "–"]
        if whole:
            higher = higher_is_better(spec, read)
            single = found[0] if len(found) == 1 and metric in row.percent else None
            entries.append(agreement(single, row.percent[metric][0], higher=higher) if single else "–")
        lines.append(Line([labels, title(spec, read)], entries))
    notes = [
        "Ours: mean ± half of the 95 % t interval over seeds; several conditions of one arm are separated by /."
        if whole
        else "Ours are of a reduced setting: the numbers are not comparable, the order of the arms is.",
        *(f"[{i}] {source}" for i, source in enumerate(sources, 1)),
    ]
    columns = [("published",), ("ours",), *([("the paper's is",)] if whole else [])]
    return [Listing("Beside what was published", ["row", "metric"], columns, lines, notes)]


def _common(rows: Sequence[Published], names: Sequence[str], ours: Mapping[str, Rows]) -> set[str]:
    """Name the columns in which published rows and our runs have a value in common."""
    theirs = {name: {str(row.at[name]) for row in rows if name in row.at} for name in names}
    keys = [dict(zip(names, (*key, *column), strict=True)) for of in ours.values() for key in of for column in of[key]]
    return {name for name in names if theirs[name] & {str(key[name]) for key in keys}}


def _alike(row: Published, names: Sequence[str], ours: Rows, common: set[str] | None) -> list[Cell]:
    """Return our cells of a published row: those of its condition, or, in another setting, all of its arm.

    Args:
        common: the columns whose values must be the row's in another setting; None: the setting is the row's own.
    """
    at = {name: str(value) for name, value in row.at.items() if common is None or name != "scenario" or name in common}
    placed = [
        (dict(zip(names, (*key, *column), strict=True)), cell)
        for key, columns in ours.items()
        for column, cell in columns.items()
        if cell.values
    ]
    exact = [cell for labels, cell in placed if all(labels.get(name) == value for name, value in at.items())]
    if exact or common is None:
        return exact
    arm = {name: value for name, value in at.items() if name in names and (name in ARMS or name in common)}
    named = any(name in ARMS for name in arm)
    return [cell for labels, cell in placed if named and all(labels[name] == value for name, value in arm.items())]


def _printed(row: Published, metric: str) -> str:
    if metric == "over_labels":
        return ", ".join(f"{value:g} at {int(number):,}" for number, value in row.over_labels.items())
    return str(Cell(published=row.percent[metric]))
