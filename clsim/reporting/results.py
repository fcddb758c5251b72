"""A report in hand: its tables, the report as text or as a page, its figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim import notebook
from clsim.records.frame import frame
from clsim.records.store import RunFailure, RunRecord, Store
from clsim.reporting import page, show
from clsim.reporting.cells import Cell, Table
from clsim.reporting.contents import contents
from clsim.reporting.listing import SIGNS, Listing
from clsim.reporting.report import ReportSpec, failed, find_report, groups, readable, some, warn_skipped, with_metrics

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Report:
    """A report over finished runs, as :func:`clsim.report` returns it. Final.

    Attributes:
        name: name of the report, for the labels of LaTeX.
        spec: what it shows, as its TOML file has it; with ``tests`` if paired tests were asked for.
        records: all finished runs; the report's filter chooses among them.
        failures: runs that ended in an error, as far as the filter allows them.
        where: where the runs are from, in words.
    """

    name: str
    spec: ReportSpec
    records: tuple[RunRecord, ...]
    failures: tuple[RunFailure, ...] = ()
    where: str = ""

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of numbers by title: a row for each row of the report, for each column mean, half width and n.

        Metrics are in percent. ``half width`` is half of the 95 % interval, NaN below three seeds; a paper's row has
        the numbers as printed, and n = NaN.
        """
        return {table.title: _numbers(table) for table in self._contents.tables}

    @property
    def runs(self) -> pd.DataFrame:
        """The runs behind the tables, a row for each, as :func:`clsim.load` has them."""
        return groups(self.spec, self._frame)[1]

    @property
    def doubts(self) -> list[str]:
        """What a reader of these runs should know, a line for each kind: which of them diverged, or are unchecked."""
        return page.doubts_of(self.records, {*self.runs["fingerprint"]})

    def to_markdown(self) -> str:
        """Write all tables as GitHub's markdown."""
        return self._text("markdown")

    def to_latex(self) -> str:
        """Write all tables as LaTeX, with the packages that they need as comments."""
        return self._text("latex")

    def to_csv(self) -> str:
        """Write all tables as one in CSV, a row for each cell, with the runs behind it."""
        return self._text("csv")

    def to_html(self, command: str = "") -> str:
        """Write the report as a page of its own, which needs no other file.

        Args:
            command: command that made the report, to be shown beside those of its runs.
        """
        return page.render(self.spec, self.records, self.failures, command)

    def figures(self, folder: str | Path) -> list[Path]:
        """Draw the figures into a folder, each as PDF, SVG and PNG; return the files."""
        from clsim.reporting.label_plots import draw_all

        return draw_all(self.spec, self.data, Path(folder))

    @property
    def data(self) -> list[Any]:
        """The records as they stand in ``record.json``."""
        return [record.data for record in self.records]

    def __repr__(self) -> str:
        tables, runs = len(self._contents.tables), len(self.runs)
        where = f" in {self.where}" if self.where else ""
        return f"<Report {self.name}: {tables} table{'s' * (tables != 1)} over {runs} run{'s' * (runs != 1)}{where}>"

    def _repr_html_(self) -> str:
        return "".join(map(_shown, show.listings(self.spec, self._frame, self.data, self.spec.tests)))

    @cached_property
    def _frame(self) -> pd.DataFrame:
        return frame(self.data, self.spec.own)

    @cached_property
    def _contents(self) -> Any:
        return contents(self.spec, self._frame, self.data, tests=self.spec.tests)

    def _text(self, form: str) -> str:
        return show.text(self.spec, self._frame, self.data, form, self.name, self.failures, False, self.doubts)


def report(
    name: str = "summary",
    runs: str | Path | Sequence[RunRecord] = "runs",
    *,
    tests: bool = False,
    metrics: Sequence[str] = (),
) -> Report:
    """Make a report over finished runs, as ``clsim report`` prints it.

    Args:
        name: a name of ``clsim list reports``, or a path to a TOML file.
        runs: the folder of all runs, or records, as :attr:`StudyResult.records` has them.
        tests: whether to show paired tests and ranks, too.
        metrics: further metrics to show: shipped ones by name, your own as ``module:attr`` or ``./file.py:attr``.

    Returns:
        An object with ``tables`` (title → DataFrame), ``to_markdown()``, ``to_latex()``, ``to_csv()``, ``to_html()``
        and ``figures(folder)``.

    Raises:
        InputError: if there is no such report, or no finished run for it.

    >>> import clsim, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> record = clsim.run("split-digits", memory=50, runs=folder)
    >>> list(report("accuracy", folder).tables)
    ['final accuracy, %']
    """
    made, problems = make(name, runs, tests=tests, metrics=metrics)
    warn_skipped(problems)
    some(made.records, made.where or "runs")
    return made


def make(
    name: str,
    runs: str | Path | Sequence[RunRecord],
    *,
    tests: bool = False,
    metrics: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> tuple[Report, list[str]]:
    """Make a report; also return a line for each folder whose run cannot stand in it.

    Args:
        name: a name of ``clsim list reports``, or a path.
        runs: the folder of all runs, or records.
        tests: whether to show paired tests, whatever the report says.
        metrics: further metrics to show, by their names.
        say: takes a line on each file of code that the report's file makes it import; None: nobody is told.

    Raises:
        InputError: if there is no such report, or no such metric.
    """
    spec = with_metrics(find_report(name, say), metrics)
    if isinstance(runs, (str, Path)):
        store = Store(Path(runs))
        records, problems = readable(store)
        failures, where = failed(spec, store.failures()), str(runs)
    else:
        records, problems, failures, where = list(runs), [], [], ""
    spec = dataclasses.replace(spec, tests=tests or spec.tests)
    return Report(Path(name).stem, spec, tuple(records), tuple(failures), where), problems


def _numbers(table: Table) -> pd.DataFrame:
    """Write a table as numbers: the columns of the report, each with mean, half width and n."""
    import pandas as pd

    names = [*table.column_names, ""]
    columns = pd.MultiIndex.from_tuples(
        [(*column, part) for column in table.columns for part in ("mean", "half width", "n")], names=names
    )
    rows = [[v for column in table.columns for v in _parts(cells.get(column))] for cells in table.rows.values()]
    index = pd.MultiIndex.from_tuples(list(table.rows), names=table.row_names)
    return pd.DataFrame(rows, index=index, columns=columns, dtype=float)


def _parts(cell: Cell | None) -> tuple[float, float, float]:
    if cell is None:
        return math.nan, math.nan, 0
    if cell.published is not None:
        return cell.mean, cell.published[1] if len(cell.published) > 1 else math.nan, math.nan
    return cell.mean, cell.half_width, len(cell.sample)


def _shown(listing: Listing) -> str:
    rows = ([*line.labels, *(f"{text} {SIGNS[look]}".strip() for text, look in line.marked)] for line in listing.lines)
    return notebook.grid(listing.title, listing.header, rows, listing.notes)
