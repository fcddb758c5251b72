"""Tables as markdown and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clsim.reporting.cells import Cell, Table, natural
from clsim.reporting.report import ReportSpec, groups

if TYPE_CHECKING:
    import pandas as pd


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
                numbers = {"metric": table.metric, "mean": cell.mean}
                rows.append(labels | numbers | {"half_width_95": cell.half_width, "n": len(cell.values)})
    return pd.DataFrame(rows).to_csv(index=False)


def to_runs(spec: ReportSpec, runs: pd.DataFrame) -> str:
    """CSV, a row a run of the report's filter: labels, seed, its metrics (shares of 1) and costs, and its command."""
    row_names, chosen = groups(spec, runs)
    labels = [*spec.columns, *row_names, "seed"]
    ordered = chosen.sort_values(labels, key=lambda column: column.map(lambda value: natural([str(value)])[0]))
    return ordered[[*labels, *spec.metrics, "version", "command"]].to_csv(index=False, float_format="%.6g")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
