"""The output of reports, to the terminal or as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from clsim.records import frame
from clsim.records.atomic import make_folder, write
from clsim.records.store import RunFailure
from clsim.reporting import formats, latex, listing
from clsim.reporting.comparisons import ranks
from clsim.reporting.contents import contents
from clsim.reporting.listing import SIGNS, Listing, Mark, fitting, in_short, said_below
from clsim.reporting.report import ReportSpec, find_report, with_metrics
from clsim.reporting.screen import Screen, plain

if TYPE_CHECKING:
    import pandas as pd

FORMS = ("console", "markdown", "csv", "runs", "latex")


def show(
    spec: ReportSpec,
    records: Sequence[Mapping[str, Any]],
    form: str,
    out: Console,
    *,
    name: str = "report",
    failures: Sequence[RunFailure] = (),
    doubts: Sequence[str] = (),
    tests: bool = False,
    path: Path | None = None,
) -> None:
    """Print a report over finished runs, or write it into a file.

    Args:
        form: one of :data:`FORMS`.
        name: name of the report, for the labels of LaTeX.
        failures: listed below the tables of console and markdown.
        doubts: lines on runs that a reader should know of, for markdown and, as comments, LaTeX.
        tests: whether to show paired tests and ranks, whatever the report says; as CSV, only the paired tests.
        path: the file, for every form but console; it is replaced as a whole.
    """
    runs = frame.frame(records, spec.own)
    if form == "console":
        _to_console(spec, listings(spec, runs, records, tests or spec.tests), failures, out)
        return
    written = text(spec, runs, records, form, name, failures, tests, doubts)
    if path is None:
        print(written, end="")
    else:
        make_folder(path.parent)
        write(path, written.encode())


def write_parquet(spec: ReportSpec, records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the runs of a report as Parquet; see :func:`clsim.reporting.formats.to_parquet`."""
    content = formats.to_parquet(spec, frame.frame(records, spec.own), records)
    make_folder(path.parent)
    write(path, content)


def show_summary(records: Sequence[Mapping[str, Any]], title: str, out: Console, metrics: Sequence[str] = ()) -> None:
    """Print the report ``summary`` under another title, with further metrics by their names."""
    spec = with_metrics(find_report("summary"), metrics)
    show(dataclasses.replace(spec, title=title), records, "console", out)


def text(
    spec: ReportSpec,
    runs: pd.DataFrame,
    records: Sequence[Mapping[str, Any]],
    form: str,
    name: str,
    failures: Sequence[RunFailure],
    tests: bool,
    doubts: Sequence[str] = (),
) -> str:
    """Write a report as text, in one of :data:`FORMS` but console; the arguments are those of :func:`show`.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
    """
    if form == "runs":
        return formats.to_runs(spec, runs, records)
    if form == "csv":
        parts = contents(spec, runs, records, tests=tests)
        return (
            formats.contests_to_csv(parts.contests)
            if tests
            else formats.to_csv([*parts.tables, *parts.further, *parts.judged])
        )
    if form == "latex":
        whole = listings(spec, runs, records, tests or spec.tests, captions=True)
        preamble = latex.PREAMBLE + "".join(f"% {line}\n" for line in doubts)
        return "\n".join([preamble, *latex.captioned(whole, name)])
    made = listings(spec, runs, records, tests or spec.tests)
    further = [formats.failures_to_markdown(failures)] if failures else []
    further += [formats.doubts_to_markdown(doubts)] if doubts else []
    return "\n".join([*map(formats.to_markdown, made), *further])


def listings(
    spec: ReportSpec,
    runs: pd.DataFrame,
    records: Sequence[Mapping[str, Any]],
    tests: bool,
    captions: bool = False,
) -> list[Listing]:
    """List the tables, claims, published numbers, labels and batches, controllers' choices, then the tests.

    What has neither a line nor a note is left out.

    Args:
        captions: whether each keeps all of its notes; else those that tables in a row have in common are said once.
    """
    parts = contents(spec, runs, records, tests=tests)
    found = [listing.of_contest(contest) for contest in parts.contests] if tests else []
    ranked = [listing.of_ranks(of) for of in ranks(spec, runs)] if tests else []
    tables = [listing.of_table(table) for table in parts.shown]
    groups = [tables, parts.claims, parts.beside, parts.labelling, parts.batches, parts.chosen, found, ranked]
    groups = [[listed for listed in group if listed.lines or listed.notes] for group in groups]
    return [listed for group in groups for listed in (group if captions else said_below(group))]


def _to_console(spec: ReportSpec, made: Sequence[Listing], failures: Sequence[RunFailure], out: Console) -> None:
    out = _wide(out)
    if spec.title and spec.title not in [listed.title for listed in made]:  # metrics side by side have it already
        out.print(plain(spec.title, "bold"))
    show_listings(made, out)
    if failures:
        out.print(Text(f"Failed runs: {len(failures)}", style="bold red"))
    for failure in failures:
        out.print(plain(f"  {failure.title}: {failure.error}"))
        out.print(plain(f"    {failure.command}", "dim"))


def show_listings(made: Sequence[Listing], out: Console) -> None:
    """Print tables with their notes; a long name that is shortened is explained once."""
    out, explained = _wide(out), set[str]()
    for listed in made:
        shown, short = in_short(listed)
        for part in fitting(shown, out.width) if shown.lines else ():
            out.print(to_console(part))
        if not shown.lines:
            out.print(plain(shown.title))
        for note in shown.notes:
            out.print(plain(f"  {note}", "dim"))
        for name, text in short.items():
            if name not in explained:
                out.print(plain(f"  {text} = {name}", "dim"))
        explained |= {*short}


def _wide(out: Console) -> Console:
    """Return the console; for a file or a pipe, which has no width to fit into, one that breaks no line."""
    return out if out.is_terminal else Screen(file=out.file, width=1000, soft_wrap=True)


def to_console(shown: Listing) -> RichTable:
    """Make a table for the console; a name that looks like markup is shown as it is."""
    rich = RichTable(title=plain(shown.title), title_justify="left", header_style="bold")
    for name in shown.names:
        rich.add_column(plain(name), overflow="fold")
    for name in shown.header[len(shown.names) :]:
        rich.add_column(plain(name), justify="right", overflow="fold")
    for line in shown.lines:
        labels = [plain(label, "italic" if line.source else "") for label in line.labels]
        rich.add_row(*labels, *(_entry(text, look) for text, look in line.marked))
    return rich


def _entry(text: str, look: Mark) -> Text:
    """Write an entry with its mark, which always takes two characters, so that numbers stay aligned."""
    return plain(f"{text} {SIGNS[look] or ' '}", "bold" if look == "best" else "")
