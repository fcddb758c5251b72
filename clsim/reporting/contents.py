"""What a report holds, whichever form shows it: tables, what controllers chose, paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clsim.reporting import published, searches
from clsim.reporting.batch_tables import batches
from clsim.reporting.budget_tables import labelling
from clsim.reporting.cells import Key, Table
from clsim.reporting.comparisons import Contest, comparisons, first_comparisons
from clsim.reporting.listing import Listing, once
from clsim.reporting.names import IN_TABLES, arms_in_tables, shortened
from clsim.reporting.report import ReportSpec
from clsim.reporting.side_by_side import tables

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Contents:
    """The parts of a report.

    Attributes:
        tables: a table for each metric, for CSV and for programs.
        shown: the tables for people, see :func:`clsim.reporting.side_by_side.tables`.
        chosen: what the controllers chose; empty if no run has one.
        contests: paired tests.
        left_out: number of conditions whose tests are left out.
        labelling: tables on labels, for people; empty if the report does not ask for them.
        batches: tables on batches, for people; empty if the report does not ask for them.
        further: tables on labels and on batches, for CSV.
        claims: claims of papers, judged, for people; empty if the report has none.
        judged: the same for CSV.
        beside: published numbers of another setting beside ours, for people; empty if the report is given none.
    """

    tables: Sequence[Table]
    shown: Sequence[Table]
    chosen: Sequence[Listing]
    contests: Sequence[Contest]
    left_out: int = 0
    labelling: Sequence[Listing] = ()
    batches: Sequence[Listing] = ()
    further: Sequence[Table] = ()
    claims: Sequence[Listing] = ()
    judged: Sequence[Table] = ()
    beside: Sequence[Listing] = ()

    @property
    def apart(self) -> tuple[list[Table], list[str]]:
        """The tables for people without the notes that several of them have in common; and these."""
        return once(self.shown, "")

    @property
    def arms(self) -> dict[Key, str]:
        """Short names of the arms of the paired tests."""
        names = self.contests[0].arm_names if self.contests else ()
        return arms_in_tables(names, (arm for contest in self.contests for arm in contest.arms), " ")

    def short_names(self, further: Iterable[str]) -> dict[str, str]:
        """Return short names of the labels, and of ``further`` texts, that are too long for a column of a table."""
        texts = [label for table in self.shown for key in table.rows for label in key]
        texts += [" · ".join(column) for table in self.shown if not table.directions for column in table.columns]
        texts += [*(" · ".join(contest.condition) for contest in self.contests), *further]
        texts += [
            label for listing in (*self.labelling, *self.batches) for line in listing.lines for label in line.labels
        ]
        return {name: text for name, text in shortened(texts, IN_TABLES).items() if name != text}


def contents(
    spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]], *, tests: bool, most: int = 0
) -> Contents:
    """Make the parts of a report.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
        tests: whether to make all paired tests.
        most: number of paired tests to make otherwise, see :func:`clsim.reporting.comparisons.first_comparisons`.
    """
    found, left_out = (comparisons(spec, runs), 0) if tests else (list[Contest](), 0)
    if most and not tests:
        found, left_out = first_comparisons(spec, runs, most)
    further, labels = labelling(spec, runs, records)
    steps, on_batches = batches(spec, runs, records)
    chosen = searches.chosen(spec, runs, records)
    said, judged = published.claims_of(spec, runs, records)
    parts = (labels, on_batches, [*further, *steps], said, judged, published.listed(spec, runs))
    each, shown = tables(spec, runs)
    return Contents(each, shown, chosen, found, left_out, *parts)
