"""The figures of a page as it shows them: explanations once, and nothing without a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clsim.records.store import RunRecord
from clsim.reporting.batch_panels import with_curves
from clsim.reporting.cells import Table
from clsim.reporting.gallery import Exhibit, Group, drawn
from clsim.reporting.listing import once
from clsim.reporting.report import ReportSpec

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Exhibits:
    """What a page has of figures.

    Attributes:
        shown: the figures of each scenario, those with pictures.
        ranking: the diagrams of ranks; without pictures if there is none.
        notes: how the figures of several groups are read.
        absent: what is left out, and why.
    """

    shown: Sequence[Exhibit]
    ranking: Group
    notes: Sequence[str]
    absent: Sequence[tuple[str, str]]


def exhibits(spec: ReportSpec, every: pd.DataFrame, records: Sequence[RunRecord], further: Sequence[Table]) -> Exhibits:
    """Draw the figures of a report.

    Args:
        every: the table of all finished runs.
        records: those of the report.
        further: as in :func:`clsim.reporting.label_panels.with_labels`.
    """
    found, ranking = drawn(spec, every, records)
    found = with_curves(spec, every, [record.data for record in records], further, found)
    groups = [(exhibit.scenario, group) for exhibit in found for group in exhibit.groups]
    absent = [(f"{scenario}, {group.title}", " ".join(group.notes)) for scenario, group in groups if not group.pictures]
    absent += [] if ranking.pictures else [(ranking.title, " ".join(ranking.notes))]
    lean, notes = once([group for _, group in groups if group.pictures], "")
    rest = iter(lean)
    shown = [
        dataclasses.replace(exhibit, groups=[next(rest) for group in exhibit.groups if group.pictures])
        for exhibit in found
    ]
    return Exhibits(shown, ranking, notes, absent)
