"""``clsim report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clsim import catalog
from clsim.commands import Runs, err, out
from clsim.errors import InputError, nearest


def report(
    name: Annotated[str, typer.Argument(help="A name of `clsim list reports`, or a TOML file.")] = "summary",
    format_: Annotated[
        str, typer.Option("--format", help="console, markdown, csv, or runs: CSV with a row a run.")
    ] = "console",
    figures: Annotated[Path | None, typer.Option(help="Also draw the figures, as PNG, into this folder.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Tables over all runs: mean ± interval over seeds, beside published numbers."""
    from clsim.reporting.report import read_report
    from clsim.reporting.show import show as show_report
    from clsim.store import Store

    formats = ("console", "markdown", "csv", "runs")
    if format_ not in formats:
        raise InputError(f"--format: found {format_!r}; {nearest(format_, formats)}")
    spec = read_report(catalog.find_file("reports", name))
    records, problems = Store(runs).records()
    for problem in problems:
        err.print(f"skipped {problem}", markup=False, highlight=False)
    if not records:
        raise InputError(f"{runs}: no finished runs; make some with `clsim run`, or name another folder with --runs")
    show_report(spec, [record.data for record in records], format_, out, figures)
