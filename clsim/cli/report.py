"""The command ``clsim report``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from clsim.cli.console import Metrics, Runs, err, names_of, out, words_of
from clsim.errors import InputError, nearest

MOST_SKIPPED = 20
"""Most records that cannot be read of which a report says why, one by one."""


def report(
    name: Annotated[
        str,
        typer.Argument(help="A name of `clsim list reports`, or a TOML file.", autocompletion=names_of("reports")),
    ] = "summary",
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="console, markdown, csv (a row per cell), runs (CSV, a row per run), parquet (the same with every "
            "column), latex or html.",
            autocompletion=words_of(["console", "markdown", "csv", "runs", "parquet", "latex", "html"]),
        ),
    ] = "console",
    metric: Metrics = None,
    tests: Annotated[
        bool, typer.Option("--tests", help="Also show paired tests by seed, and ranks; with csv, only the tests.")
    ] = False,
    figures: Annotated[
        Path | None, typer.Option(help="Also draw the figures into this folder, as PDF, SVG and PNG.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--out", help="File to write (default: NAME.html, NAME.parquet).")
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Show tables over all runs: mean ± interval over seeds, the best and its ties, beside published numbers."""
    from clsim.reporting.report import some
    from clsim.reporting.results import make
    from clsim.reporting.show import FORMS, write_parquet
    from clsim.reporting.show import show as show_report

    if format_ not in (*FORMS, "html", "parquet"):
        raise InputError(f"--format: found {format_!r}; {nearest(format_, (*FORMS, 'html', 'parquet'))}")
    if file is not None and format_ == "console":
        raise InputError(f"--out: found {file} with --format console, allowed: {', '.join(FORMS[1:])}, html, parquet")
    if file is not None and file.is_dir():
        raise InputError(f"--out: {file} is a folder, allowed: a file")
    made, problems = make(name, runs, tests=tests, metrics=metric or (), say=err.say)
    for line in problems[:MOST_SKIPPED]:
        err.say(f"skipped {line}")
    if len(problems) > MOST_SKIPPED:
        err.say(f"skipped {len(problems) - MOST_SKIPPED} more; `clsim runs` lists them all")
    if format_ not in ("console", "markdown", "html") or not made.records:  # those show them in the report
        for failure in made.failures:
            err.say(f"failed {failure.title}: {failure.error}")
    some(made.records, str(runs))
    if format_ == "html":
        from clsim.reporting.page import write as write_page

        file = file or Path(f"{made.name}.html")
        words = ["clsim", "report", name, "--format", "html", "--runs", str(runs)]
        words += [word for one in metric or () for word in ("--metric", one)]
        write_page(made.spec, made.records, made.failures, file, shlex.join(words))
    elif format_ == "parquet":
        file = file or Path(f"{made.name}.parquet")
        write_parquet(made.spec, made.data, file)
    else:
        show_report(
            made.spec,
            made.data,
            format_,
            out,
            name=made.name,
            failures=made.failures,
            doubts=made.doubts,
            tests=tests,
            path=file,
        )
    if file is not None:
        err.say(f"wrote {file}")
    for drawn in made.figures(figures) if figures is not None else ():
        err.say(f"drew {drawn}")
    for line in made.doubts:
        err.say(line)
