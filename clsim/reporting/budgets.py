"""Runs with label rounds, arm by arm: accuracy over the number of labels, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from clsim.records.budget import Point, curve
from clsim.reporting.cells import Cell, Key, alike, grouped, natural
from clsim.reporting.report import ReportSpec
from clsim.reporting.statistics import FEWEST, ROUND_OFF, paired_t

if TYPE_CHECKING:
    import pandas as pd

Place = tuple[int, int]
"""Where on a curve: an experience, and the number of labels in it."""

Path = Sequence[tuple[float, float]]
"""Numbers of labels, rising, and the accuracy at each."""

LEVEL = 0.10
"""Level of the paired t test that decides whether an arm beats another at a budget (a win at 90 %)."""

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Where efficiency is measured: shares of the way from random's first accuracy to its last."""


@dataclass(frozen=True)
class Arm:
    """Runs with label rounds that differ in nothing but their seeds.

    Attributes:
        key: labels of the arm, as in the rows of tables.
        records: records of the runs.
        cell: fingerprints of the runs, their seeds and those of their initial sets, and whether they are bounds.
    """

    key: Key
    records: tuple[Mapping[str, Any], ...]
    cell: Cell

    @cached_property
    def curves(self) -> list[list[Point]]:
        """The curve of each run."""
        return [curve(record) for record in self.records]

    @cached_property
    def places(self) -> list[Place]:
        """Every budget at which a run was tested."""
        return sorted({(p.experience, p.own) for points in self.curves for p in points})

    @cached_property
    def chosen(self) -> list[Place]:
        """Those of the places that an asked label led to: without the trainings on initial sets."""
        return sorted({(p.experience, p.own) for points in self.curves for p in points if p.round})

    def values(self, place: Place) -> list[float]:
        """Accuracy of each run in percent, between budgets on a straight line; NaN beyond them."""
        return [100 * value_at(points, place) for points in self.curves]

    def at(self, place: Place) -> dict[str, float]:
        """Accuracy in percent by independent unit (see :attr:`clsim.reporting.cells.Cell.units`)."""
        return of_units(self.cell, self.values(place))

    def labels(self, place: Place) -> float:
        """Labels of all experiences together at a place: the mean over runs."""
        before = [
            next((p.labels - p.own for p in points if p.experience == place[0]), math.nan) for points in self.curves
        ]
        return place[1] + mean(before)

    def path(self, units: Iterable[str], experience: int) -> list[tuple[float, float]]:
        """Mean accuracy in percent over the labels of an experience, where all of the units were tested."""
        wanted, made = list(units), list[tuple[float, float]]()
        for place in (place for place in self.places if place[0] == experience):
            found = self.at(place)
            if wanted and all(unit in found for unit in wanted):
                made.append((place[1], mean([found[unit] for unit in wanted])))
        return made


def arms(spec: ReportSpec, runs: pd.DataFrame, records: Iterable[Mapping[str, Any]]) -> dict[Key, list[Arm]]:
    """Group the runs that hold label rounds: condition → its arms, as :func:`clsim.reporting.cells.contests` does."""
    held = {record["fingerprint"]: record for record in records if curve(record)}
    return {
        condition: [Arm(key, tuple(held[run] for run in cell.runs), cell) for key, cell in of]
        for condition, of in grouped(spec, runs, held).items()
    }


def of_units(cell: Cell, values: Sequence[float]) -> dict[str, float]:
    """Average values of runs by independent unit; a unit that lacks the value of one of its runs is left out."""
    units = Cell(tuple(values), seeds=cell.seeds, splits=cell.splits).units
    return {unit: value for unit, value in units.items() if not math.isnan(value)}


def value_at(points: Sequence[Point], place: Place) -> float:
    """Read accuracy off the curve of a run, within an experience on a straight line; NaN beyond its budgets."""
    experience, labels = place
    own = [p for p in points if p.experience == experience]
    for point in own:
        if point.own == labels:
            return point.accuracy
    for left, right in pairwise(own):
        if left.own < labels < right.own:
            share = (labels - left.own) / (right.own - left.own)
            return left.accuracy + share * (right.accuracy - left.accuracy)
    return math.nan


def reached(path: Path, level: float) -> float:
    """Find the number of labels at which an accuracy is first reached, on straight lines; NaN if it never is.

    >>> reached([(10, 50.0), (20, 60.0), (40, 80.0)], 70.0), reached([(10, 50.0)], 40.0)
    (30.0, 10.0)
    """
    for i, (labels, accuracy) in enumerate(path):
        if accuracy >= level - ROUND_OFF * abs(level):
            if i == 0:
                return float(labels)
            before, lower = path[i - 1]
            return before + (labels - before) * min((level - lower) / (accuracy - lower), 1)
    return math.nan


def efficiency(random: Path, method: Path, level: float) -> float:
    """How many times as many labels random selection needs to reach an accuracy: n_random(a) / n_method(a).

    NaN where one of them never reaches it. Above 1, the method saves labels.

    Source: labelling efficiency as in DISTIL's evaluation (Beck et al., Effective Evaluation of Deep Active Learning on
    Image Classification Tasks, 2021).

    >>> efficiency([(10, 50.0), (40, 80.0)], [(10, 50.0), (20, 80.0)], 80.0)
    2.0
    """
    needed = reached(method, level)
    return reached(random, level) / needed if needed else math.nan


def levels(random: Path) -> list[float]:
    """Choose accuracies at which efficiency is measured, the last one random's own at its last budget."""
    if not random:
        return []
    first, last = random[0][1], random[-1][1]
    return [first + share * (last - first) for share in SHARES] if last > first else [last]


def reference(names: Sequence[str], arm: Arm, every: Iterable[Arm]) -> Arm | None:
    """Find the arm whose labels were chosen at random and that differs in nothing but how labels were asked for.

    Of several, the one with the most equal settings of ``[labelling]``; None if there is none, or no single one.
    """
    by_key = {other.key: other for other in every}
    found = alike(names, arm.key, by_key, "label", "random", ("labelling.",))
    return None if found is None else by_key[found]


@dataclass(frozen=True)
class Penalties:
    """How often arms beat each other at equal numbers of labels.

    Attributes:
        arms: labels of the arms.
        wins: number of budgets at which the arm of the row beats that of the column, (k, k).
        penalties: the same, each experiment counting 1 however many budgets it has: 1 / budgets for each, (k, k).
        experiments: number of conditions in which both arms were compared, (k, k).
    """

    arms: tuple[Key, ...]
    wins: list[list[int]]
    penalties: list[list[float]]
    experiments: list[list[int]]

    def beaten(self, j: int) -> float:
        """Mean penalty of an arm: in which share of an experiment's budgets another beats it; NaN without any."""
        others = [i for i in range(len(self.arms)) if i != j and self.experiments[i][j]]
        return mean([self.penalties[i][j] / self.experiments[i][j] for i in others])


def penalties(conditions: Mapping[Key, Sequence[Arm]]) -> Penalties:
    """Count in which share of the budgets an arm beats another, over all conditions.

    At each budget that labels were asked for, an arm beats another where its mean over the common seeds (three at
    least) is larger and a two-sided paired t test tells them apart at :data:`LEVEL`, uncorrected. With L such budgets,
    each win adds 1/L, so that an experiment counts 1 at most. Bounds are left out.

    Source: the pairwise penalty matrix of Ash et al., BADGE (ICLR 2020). [The level of their test is recalled.]
    """
    conditions = {at: [arm for arm in of if not arm.cell.bound] for at, of in conditions.items()}
    keys = sorted({arm.key for of in conditions.values() for arm in of}, key=natural)
    size = range(len(keys))
    wins, sums = [[0] * len(keys) for _ in size], [[0.0] * len(keys) for _ in size]
    experiments = [[0] * len(keys) for _ in size]
    for of in conditions.values():
        places = sorted({place for arm in of for place in arm.chosen})
        found = [(keys.index(arm.key), [arm.at(place) for place in places]) for arm in of]
        for i, mine in found:
            for j, theirs in found:
                common = [[unit for unit in a if unit in b] for a, b in zip(mine, theirs, strict=True)]
                tested = [k for k, units in enumerate(common) if len(units) >= FEWEST]
                if i == j or not tested:
                    continue
                experiments[i][j] += 1
                for k in tested:
                    a, b = ([values[k][unit] for unit in common[k]] for values in (mine, theirs))
                    if mean(a) > mean(b) and paired_t(a, b) < LEVEL:
                        wins[i][j] += 1
                        sums[i][j] += 1 / len(tested)
    return Penalties(tuple(keys), wins, sums, experiments)


def mean(values: Sequence[float]) -> float:
    """Compute a mean; NaN without values."""
    return math.fsum(values) / len(values) if values else math.nan
