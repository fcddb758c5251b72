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
        str,
        typer.Option(
            "--format", help="console, markdown, csv (a row a cell), runs (CSV, a row a run), latex, or html: one page."
        ),
    ] = "console",
    tests: Annotated[
        bool, typer.Option("--tests", help="Also paired tests by seed and ranks; with csv, the tests alone.")
    ] = False,
    figures: Annotated[Path | None, typer.Option(help="Also draw the figures, as PNG, into this folder.")] = None,
    file: Annotated[
        Path | None, typer.Option("--out", help="Write into this file; html: NAME.html if none is named.")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Tables over all runs: mean ± interval over seeds, the best and its ties, beside published numbers."""
    from clsim.reporting.report import problem, read_report
    from clsim.reporting.show import FORMS
    from clsim.reporting.show import show as show_report
    from clsim.store import Store

    if format_ not in FORMS:
        raise InputError(f"--format: found {format_!r}; {nearest(format_, FORMS)}")
    if file is not None and format_ == "console":
        raise InputError(f"--out: found {file} with --format console, allowed: {', '.join(FORMS[1:])}")
    if file is not None and file.is_dir():
        raise InputError(f"--out: {file} is a folder, allowed: a file")
    spec = read_report(catalog.find_file("reports", name))
    found, problems = Store(runs).records()
    records = [record.data for record in found if not problem(record.data)]
    problems += [f"{record.folder}: {text}" for record in found if (text := problem(record.data))]
    for line in problems:
        err.print(f"skipped {line}", markup=False, highlight=False)
    if not records:
        raise InputError(f"{runs}: no finished runs; make some with `clsim run`, or name another folder with --runs")
    show_report(
        spec,
        records,
        format_,
        out,
        name=Path(name).stem,
        figures=figures,
        tests=tests,
        path=file,
        store=runs,
    )
