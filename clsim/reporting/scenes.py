"""What the figures of a report on labels are drawn from, on its page and as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clsim.errors import InputError
from clsim.reporting.album import FIRST, Album, album
from clsim.reporting.budgets import Arm, arms
from clsim.reporting.curves import LineStyle, Series, Size, by_scenario, looks
from clsim.reporting.report import ReportSpec

if TYPE_CHECKING:
    import pandas as pd

    from clsim.reporting.cells import Cell, Table

ARMS = 12
"""Most arms whose first picks are shown."""


class Scenes:
    """What the figures of a report on labels are drawn from, scenario by scenario. Final.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
        further: the tables on labels that :func:`clsim.reporting.budget_tables.labelling` makes for CSV.
    """

    def __init__(
        self,
        spec: ReportSpec,
        runs: pd.DataFrame,
        records: Sequence[Mapping[str, Any]],
        further: Sequence[Table],
    ) -> None:
        self.scenarios = by_scenario(spec, runs, records)
        self.looks = looks(s.label for series in self.scenarios.values() for s in series)
        found = [arm for of in arms(spec, runs, records).values() for arm in of]
        self._arms = {run: arm for arm in found for run in arm.cell.runs}
        self._rounds: dict[tuple[str, str], dict[int, Cell]] = {}
        for table in further:
            if table.column_names[-1] == "round":
                for row in table.rows.values():
                    for column, cell in row.items():
                        for run in cell.runs[:1]:
                            self._rounds.setdefault((table.metric, run), {})[int(column[-1])] = cell

    def series(self, scenario: str, labels: Sequence[str] | None = None) -> list[Series]:
        """List the series of a scenario that hold label rounds, those of some labels alone."""
        return [
            s
            for s in self.scenarios.get(scenario, ())
            if s.fingerprints[0] in self._arms and (labels is None or s.label in labels)
        ]

    def drawn(self, series: Sequence[Series]) -> list[tuple[str, LineStyle, Arm]]:
        """Label, style and runs of each series."""
        return [(s.label, self.looks[s.label], self._arms[s.fingerprints[0]]) for s in series]

    def over_rounds(self, series: Sequence[Series], name: str) -> list[tuple[str, LineStyle, Mapping[int, Cell]]]:
        """Label, style and the cell of each round in one measure; series without it are left out."""
        made: list[tuple[str, LineStyle, Mapping[int, Cell]]] = []
        for label, look, arm in self.drawn(series):
            cells: Mapping[int, Cell] = {}
            for run in arm.cell.runs:
                cells = {**self._rounds.get((f"picks_{name}", run), {}), **cells}
            if cells:
                made.append((label, look, cells))
        return made


def sizes_of(series: Sequence[Series]) -> list[Size | None]:
    """List the sizes of memory; None stands for all series if there is no memory."""
    return [*sorted({s.memory for s in series if s.memory is not None})] or [None]


def albums(drawn: Sequence[tuple[str, LineStyle, Arm]]) -> tuple[dict[str, Album], list[str]]:
    """Fetch the first picks of each arm by its label; and notes: what they are, why some are absent."""
    found: dict[str, Album] = {}
    missing = dict[str, None]()
    for label, _, arm in drawn[:ARMS]:
        try:
            found.setdefault(label, album(arm.records[0]))
        except InputError as error:
            missing[str(error)] = None
    notes = [f"The first {FIRST} at most, in the order of picking: first experience, first seed."] if found else []
    notes += [f"{ARMS} of {len(drawn)} arms."] if len(drawn) > ARMS else []
    return found, [*notes, *(f"Absent: {line}." for line in [*missing][:3])]
