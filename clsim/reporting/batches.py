"""Runs that were tested on the way, arm by arm: accuracy at equal cost, and what it takes to a target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clsim.records.step_curve import Way, ways
from clsim.reporting.budgets import mean
from clsim.reporting.cells import Cell, Key, alike, arm_names, grouped
from clsim.reporting.names import IN_TABLES, arms
from clsim.reporting.report import ReportSpec, groups

if TYPE_CHECKING:
    import pandas as pd

BY = "batch.selector"
"""The label of who chooses the samples of a step."""

REFERENCES = ("random", "none")
"""The arms whose best accuracy is the target, in the order in which they are looked for."""

ABOUT = ("batch.", "irreducible.")
"""Beginnings of the settings in which an arm may differ from its reference."""


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seeds, and were tested on the way.

    Attributes:
        key: labels of the arm, as in the rows of tables.
        name: the labels in short; they differ between the arms of a report.
        cell: fingerprints of the runs, their seeds and those of their initial sets.
        ways: the ways of each run through its experiences, by their positions.
        rows: the row of each run in the table of all runs.
    """

    key: Key
    name: str
    cell: Cell
    ways: tuple[Mapping[int, Way], ...]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """What each run is paired by: its seed, and that of its initial set."""
        return list(zip(self.cell.seeds, self.cell.splits, strict=True))


@dataclass(frozen=True)
class Field:
    """The arms of a condition, which are compared with each other.

    Attributes:
        condition: labels of the condition.
        arms: its arms.
        names: names of the labels of an arm.
        target: the accuracy that is to be reached, in percent; 0: the best one of the reference with the same seed.
    """

    condition: Key
    arms: tuple[Arm, ...]
    names: Key
    target: float = 0.0

    @cached_property
    def positions(self) -> list[int]:
        """The positions of the experiences through which every run has a way."""
        return sorted(set.intersection(*({*of} for arm in self.arms for of in arm.ways)))

    def equal(self, axis: str, position: int) -> float:
        """Find the largest number of steps, or of candidates, that every run has reached in an experience."""
        return min(of[position].end(axis) for arm in self.arms for of in arm.ways)

    def accuracy_at(self, arm: Arm, axis: str, positions: Sequence[int]) -> list[float]:
        """Read off the accuracy of each run at equal steps or candidates, in percent: the mean over experiences."""
        places = {position: self.equal(axis, position) for position in positions}
        return [100 * mean([of[p].at(axis, place) for p, place in places.items()]) for of in arm.ways]

    def to_target(self, arm: Arm, axis: str, positions: Sequence[int]) -> list[tuple[float, float]]:
        """Return what each run took to the target, summed over experiences, and the share of these that reached it.

        An experience that never reached it counts as a whole, so that the sum is at least this. NaN without a target.
        """
        found = []
        for of, pair in zip(arm.ways, arm.pairs, strict=True):
            levels = [self._level(arm, pair, position) for position in positions]
            if not levels or any(map(math.isnan, levels)):
                found.append((math.nan, math.nan))
                continue
            each = [of[p].to(axis, level) for p, level in zip(positions, levels, strict=True)]
            found.append((math.fsum(taken for taken, _ in each), mean([float(there) for _, there in each])))
        return found

    def reference(self, arm: Arm) -> Arm | None:
        """Find the arm whose best accuracy is the target: batches at random or, without them, no choice at all.

        It differs from the arm in nothing but what chooses; or it is the only one of its kind.
        """
        if BY not in self.names:
            return None
        by_key, at = {other.key: other for other in self.arms}, self.names.index(BY)
        for value in REFERENCES:
            found = alike(self.names, arm.key, by_key, BY, value, ABOUT)
            only = [key for key in by_key if key[at] == value]
            if found is not None or len(only) == 1:
                return by_key[only[0] if found is None else found]
        return None

    @cached_property
    def _best(self) -> dict[Key, dict[tuple[int, int], Mapping[int, Way]]]:
        """The ways of the runs of each arm, by what they are paired by."""
        return {arm.key: dict(zip(arm.pairs, arm.ways, strict=True)) for arm in self.arms}

    def _level(self, arm: Arm, pair: tuple[int, int], position: int) -> float:
        """Return the target of a run in an experience, as a share; NaN if there is none."""
        if self.target:
            return self.target / 100
        other = self.reference(arm)
        of = None if other is None else self._best[other.key].get(pair)
        return math.nan if of is None else float(of[position].accuracy.max())


def fields(spec: ReportSpec, runs: pd.DataFrame, records: Iterable[Mapping[str, Any]]) -> list[Field]:
    """Group the runs of a report that were tested on the way by the conditions under which arms are compared.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
    """
    held = {record["fingerprint"]: through for record in records if (through := ways(record))}
    row_names, _ = groups(spec, runs)
    names = arm_names(spec, row_names)
    found = grouped(spec, runs, held)
    short = arms(names, (key for of in found.values() for key, _ in of), IN_TABLES)
    rows = {row["fingerprint"]: row for row in runs.to_dict("records")}
    made = []
    for condition, of in found.items():
        each = (
            Arm(key, short[key], cell, tuple(held[run] for run in cell.runs), tuple(rows[run] for run in cell.runs))
            for key, cell in of
        )
        made.append(Field(condition, tuple(each), names, spec.target))
    return made


def untested(spec: ReportSpec, runs: pd.DataFrame, records: Iterable[Mapping[str, Any]]) -> int:
    """Count the runs of a report that were not tested on the way."""
    held = {record["fingerprint"] for record in records if ways(record)}
    return sum(run not in held for run in groups(spec, runs)[1]["fingerprint"])
