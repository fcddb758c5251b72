"""Reports on their way out: to the terminal, as markdown or CSV, and as figures in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from clsim.metrics import METRICS, summary
from clsim.reporting import report
from clsim.reporting.cells import Cell, Table
from clsim.reporting.formats import to_csv, to_markdown, to_runs
from clsim.reporting.report import ReportSpec
from clsim.reporting.tables import tables

RUN_METRICS = ("accuracy", "average_incremental_accuracy", "learning_accuracy", "forgetting", "backward_transfer")


def show(
    spec: ReportSpec, records: Sequence[Mapping[str, Any]], form: str, out: Console, figures: Path | None = None
) -> None:
    """Print a report over finished runs, and draw its figures into a folder if one is named."""
    runs = report.frame(records)
    made = tables(spec, runs)
    if form == "csv":
        print(to_csv(made), end="")
    elif form == "runs":
        print(to_runs(spec, runs), end="")
    elif form == "markdown":
        print("\n".join(to_markdown(table) for table in made), end="")
    else:
        if spec.title:
            out.print(Text(spec.title, style="bold"))
        for table in made:
            out.print(to_console(table))
            for note in table.notes:
                out.print(Text(f"  {note}", style="dim"))
    if figures is not None:
        from clsim.reporting import plots

        for path in plots.draw(spec, records, figures):
            Console(stderr=True, soft_wrap=True).print(f"drew {path}", markup=False, highlight=False)


def to_console(table: Table) -> RichTable:
    """Text only: a name that looks like markup is shown as it is."""
    rich = RichTable(title=Text(table.title), title_justify="left", header_style="bold")
    for name in table.row_names:
        rich.add_column(Text(name))
    for column in table.columns:
        rich.add_column(Text(" · ".join(column) or table.title), justify="right")
    for key, cells in table.rows.items():
        numbers = [str(cells.get(column, Cell())) for column in table.columns]
        rich.add_row(*map(Text, (*key, *numbers)))
    return rich


def show_runs(records: Sequence[Mapping[str, Any]], out: Console) -> None:
    """What `clsim run` prints at its end: a row a seed, and the mean over seeds."""
    spec = records[0]["spec"]
    memory = f", {spec['memory']['buffer']} memory of {spec['memory']['capacity']}"
    if spec["memory"]["buffer"] == "none":
        memory = ", no memory"
    elif spec["memory"]["per"] == "class":
        memory += " a class"
    rich = RichTable(title=Text(f"{spec['scenario']}: {spec['strategy']}{memory}"), title_justify="left")
    rich.add_column("seed", justify="right")
    found = [summary(record["accuracy"], record["initial"]) for record in records]
    shown = [name for name in RUN_METRICS if any(values[name] is not None for values in found)]
    for name in shown:
        rich.add_column(f"{METRICS[name].label}, %", justify="right")
    columns = {name: [100 * v for values in found if (v := values[name]) is not None] for name in shown}
    for i, record in enumerate(records):
        rich.add_row(str(record["spec"]["seed"]), *(f"{columns[name][i]:.1f}" for name in shown))
    if len(records) >= 3:
        rich.add_section()
        rich.add_row("mean", *(str(Cell(columns[name])) for name in shown), style="bold")
    out.print(rich)
    if len(records) >= 3:
        out.print(Text(f"mean ± half of the 95 % t interval over {len(records)} seeds", style="dim"))
