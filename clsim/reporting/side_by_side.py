"""The tables of a report for people: metrics side by side if it asks for that, none without a number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clsim.reporting import grids
from clsim.reporting.cells import Cell, Key, Table, natural
from clsim.reporting.listing import ARROWS, gathered
from clsim.reporting.report import ReportSpec

if TYPE_CHECKING:
    import pandas as pd


def tables(spec: ReportSpec, runs: pd.DataFrame) -> tuple[list[Table], list[Table]]:
    """Make the table of each metric; also return those that are shown to people.

    A metric that no run has a number of is left out there, and a note says so. With ``metric`` among the columns of the
    report, the others stand side by side in one table.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
    """
    every = grids.tables(spec, runs)
    shown = [table for table in every if any(not math.isnan(cell.mean) for cell in _cells(table))] or every
    empty = [table.title for table in every if table not in shown]
    if spec.metric_level >= 0:
        shown = [side_by_side(shown, spec.metric_level, spec.title or "Metrics")]
    if empty:
        note = f"Left out, as no run has a number: {'; '.join(empty)}."
        shown[-1] = dataclasses.replace(shown[-1], notes=[*shown[-1].notes, note])
    return every, shown


def side_by_side(each: Sequence[Table], level: int, title: str) -> Table:
    """Join the tables of several metrics, which have the same labels, to one.

    An arrow behind the heading of a metric says whether higher or lower is better; best means and ties are marked
    within a metric, as before.

    Args:
        each: a table for each metric, with the same sources of papers.
        level: where, among the levels of the column labels, the metrics stand.
        title: the heading of the table.
    """
    heads = [f"{table.title} {ARROWS[table.higher_is_better]}" for table in each]
    placed: dict[tuple[int, Key], Key] = {
        (i, column): (*column[:level], heads[i], *column[level:])
        for i, table in enumerate(each)
        for column in table.columns
    }
    order = sorted(placed, key=lambda at: (natural(at[1][:level]), at[0], natural(at[1][level:])))
    published = {key: number for table in each for key, number in table.published.items()}
    ours = [key for table in each for key in table.rows if key not in published]
    rows: dict[Key, dict[Key, Cell]] = {key: {} for key in dict.fromkeys([*ours, *published])}
    for i, table in enumerate(each):
        for key, found in table.rows.items():
            rows[key] |= {placed[i, column]: cell for column, cell in found.items()}
    names = each[0].column_names
    return Table(
        "metrics",
        title,
        each[0].row_names,
        (*names[:level], "metric", *names[level:]),
        [placed[at] for at in order],
        rows,
        gathered([(table.title, table.notes) for table in each]),
        published=published,
        sources=max((table.sources for table in each), key=len),
        directions={placed[at]: each[at[0]].higher_is_better for at in order},
    )


def _cells(table: Table) -> list[Cell]:
    return [cell for row in table.rows.values() for cell in row.values()]
