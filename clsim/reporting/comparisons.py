"""Comparisons of arms: paired tests by seed in each condition, ranks over conditions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clsim.reporting.cells import (
    Cell,
    Key,
    aligned,
    arm_names,
    cells,
    condition_names,
    contests,
    higher_is_better,
    natural,
    title,
)
from clsim.reporting.ranks import cliques, friedman, games_howell, kruskal
from clsim.reporting.report import ReportSpec, groups
from clsim.reporting.statistics import FEWEST, holm, paired, seeds_needed

if TYPE_CHECKING:
    import pandas as pd

MOST_ARMS = 10
"""Most arms of a condition that are all compared with each other; if there are more, each with the best only."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of arm a with arm b in one condition, over the seeds that both have.

    Attributes:
        n: number of common seeds; below three there is no test, and its results are NaN.
        difference: mean of a − b, in the unit of the table.
        low, high: 95 % t interval of the difference.
        p, p_wilcoxon: p of the paired t test, and of the signed-rank test; two-sided, uncorrected.
        p_holm, p_wilcoxon_holm: the same, with Holm's correction over the comparisons of the condition.
        p_games_howell: p of an unpaired test, corrected over all pairs; computed only if some pair of arms has
            fewer than three common seeds, or in reports with ``labelling``; else NaN.
        wins, losses: number of seeds on which a is better than b, and worse; on the rest they are equal.
        seeds_needed: number of seeds with which the paired t test would find a difference of this size with a chance of
            80 %; None if more than 10,000 are needed, or without a test.
    """

    a: Key
    b: Key
    n: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    p_wilcoxon: float
    p_wilcoxon_holm: float
    p_games_howell: float
    wins: int
    losses: int
    seeds_needed: int | None


@dataclass(frozen=True)
class Contest:
    """The arms of one condition, in one metric.

    Attributes:
        arm_names, condition_names: names of the labels that ``arms`` and ``condition`` hold.
        arms: labels of each arm, the best mean first.
        pairs: every pair, or each arm with the best if there are more than :data:`MOST_ARMS`; arm a has the better
            mean.
        kruskal, p_kruskal: Kruskal–Wallis' H over all arms, as independent samples, and its p.
    """

    metric: str
    title: str
    arm_names: Key
    condition_names: Key
    condition: Key
    arms: tuple[Key, ...]
    pairs: tuple[Comparison, ...]
    kruskal: float
    p_kruskal: float

    @property
    def unpaired(self) -> bool:
        """Whether the pairs were also compared as independent samples."""
        return any(math.isfinite(pair.p_games_howell) for pair in self.pairs)


@dataclass(frozen=True)
class Ranks:
    """Arms ranked over the conditions in which all of them ran, by their means over seeds; rank 1 is the best.

    Attributes:
        arms: the best average rank first; every other attribute is in this order.
        conditions: the blocks of the test.
        left_out: arms that did not run in all of these conditions.
        average: average rank over conditions.
        statistic, p: statistic and p of Friedman's test.
        critical_difference: average ranks closer than this cannot be told apart (Nemenyi, 5 %).
        p_pairs: Nemenyi's p of each pair, (k, k).
        wins: number of conditions in which the arm of the row is better than that of the column, (k, k).
        bars: first and last arm of each group that cannot be told apart: the bars of the diagram.
    """

    metric: str
    title: str
    arm_names: Key
    condition_names: Key
    arms: tuple[Key, ...]
    conditions: tuple[Key, ...]
    left_out: tuple[Key, ...]
    average: tuple[float, ...]
    statistic: float
    p: float
    critical_difference: float
    p_pairs: tuple[tuple[float, ...], ...]
    wins: tuple[tuple[int, ...], ...]
    bars: tuple[tuple[int, int], ...]


def comparisons(spec: ReportSpec, runs: pd.DataFrame) -> list[Contest]:
    """Make paired tests between the arms of every condition with two arms or more, for each metric of the report."""
    row_names, chosen = groups(spec, runs)
    made = []
    for metric in spec.metrics:
        rows = cells(spec, metric, row_names, chosen)
        for condition, places in contests(spec, row_names, rows):
            if len(places) < 2:
                continue
            sign = 1 if higher_is_better(spec, metric) else -1
            found = {arm: rows[row][column] for arm, (row, column) in places.items()}
            arms = sorted(found, key=lambda arm: (-sign * found[arm].mean, natural(arm)))
            samples = [found[arm].sample for arm in arms]
            made.append(
                Contest(
                    metric,
                    title(spec, metric),
                    arm_names(spec, row_names),
                    condition_names(spec, row_names),
                    condition,
                    tuple(arms),
                    _pairs(found, arms, sign, unpaired=spec.labelling),
                    *kruskal(samples),
                )
            )
    return made


def first_comparisons(spec: ReportSpec, runs: pd.DataFrame, most: int) -> tuple[list[Contest], int]:
    """The paired tests of the first metric in the first conditions, ``most`` of them; and how many conditions are left.

    The first condition with two arms or more is always among them.
    """
    first = replace(spec, metrics=spec.metrics[:1])
    row_names, chosen = groups(first, runs)
    rows = cells(first, first.metrics[0], row_names, chosen)
    kept: set[str] = set()
    pairs = conditions = left_out = 0
    for _, places in contests(first, row_names, rows):
        arms = len(places)
        pairs += arms - 1 if arms > MOST_ARMS else arms * (arms - 1) // 2
        if arms > 1 and pairs > most and conditions:
            left_out += 1
        elif arms > 1:
            conditions += 1
            kept |= {run for row, column in places.values() for run in rows[row][column].runs}
    return comparisons(first, runs[runs["fingerprint"].isin(kept)]) if kept else [], left_out


def ranks(spec: ReportSpec, runs: pd.DataFrame) -> list[Ranks]:
    """Test over conditions (Friedman, Nemenyi), for each metric with three arms or more in two conditions or more.

    The arms are those that ran in most conditions; an arm that lacks one of them is left out and named. In a report
    with ``labelling`` and a single condition, its seeds take the place of conditions: they have an initial set each.
    """
    row_names, chosen = groups(spec, runs)
    made = []
    for metric in spec.metrics:
        rows = cells(spec, metric, row_names, chosen)
        found_in = {
            condition: {arm: rows[row][column] for arm, (row, column) in places.items()}
            for condition, places in contests(spec, row_names, rows)
            if len(places) > 1
        }
        names = condition_names(spec, row_names)
        means = {condition: {arm: cell.mean for arm, cell in of.items()} for condition, of in found_in.items()}
        if spec.labelling and len(found_in) == 1:
            (of,) = found_in.values()
            names = ("seed",)
            units = dict.fromkeys(unit for cell in of.values() for unit in cell.units)
            means = {(u,): {arm: cell.units[u] for arm, cell in of.items() if u in cell.units} for u in units}
        every = sorted({arm for of in means.values() for arm in of}, key=natural)
        arms, conditions = _block(means, every)
        if len(arms) < 3 or len(conditions) < 2:
            continue
        scores = [[means[c][arm] for arm in arms] for c in conditions]
        found = friedman(scores, higher_is_better=higher_is_better(spec, metric))
        order = sorted(range(len(arms)), key=lambda i: found.average[i])
        average = [found.average[i] for i in order]
        made.append(
            Ranks(
                metric,
                title(spec, metric),
                arm_names(spec, row_names),
                names,
                tuple(arms[i] for i in order),
                tuple(conditions),
                tuple(arm for arm in every if arm not in arms),
                tuple(average),
                found.statistic,
                found.p,
                found.critical_difference,
                tuple(tuple(found.p_pairs[i][j] for j in order) for i in order),
                tuple(tuple(found.wins[i][j] for j in order) for i in order),
                tuple(cliques(average, found.critical_difference)),
            )
        )
    return made


def _pairs(found: Mapping[Key, Cell], arms: list[Key], sign: int, *, unpaired: bool = False) -> tuple[Comparison, ...]:
    every = list(itertools.combinations(arms, 2))
    if len(arms) > MOST_ARMS:
        every = [(arms[0], other) for other in arms[1:]]
    made = []
    for a, b in every:
        test = paired(*aligned(found[a], found[b]))
        wins, losses = (test.above, test.below) if sign > 0 else (test.below, test.above)
        needed = seeds_needed(test.difference, test.deviation) if test.n >= FEWEST else None
        made.append(
            Comparison(
                a,
                b,
                test.n,
                test.difference,
                test.low,
                test.high,
                test.p,
                math.nan,
                test.p_wilcoxon,
                math.nan,
                math.nan,
                wins,
                losses,
                needed,
            )
        )
    corrected = holm([c.p for c in made]), holm([c.p_wilcoxon for c in made])
    apart = [math.nan] * len(made)
    if (any(c.n < FEWEST for c in made) and len(arms) <= MOST_ARMS) or (unpaired and len(arms) <= 2 * MOST_ARMS):
        p = games_howell([found[arm].sample if len(found[arm].sample) >= FEWEST else () for arm in arms])
        apart = [p[arms.index(a)][arms.index(b)] for a, b in every]
    return tuple(
        replace(c, p_holm=t, p_wilcoxon_holm=w, p_games_howell=g)
        for c, t, w, g in zip(made, *corrected, apart, strict=True)
    )


def _block(means: Mapping[Key, Mapping[Key, float]], arms: list[Key]) -> tuple[list[Key], list[Key]]:
    """Find the arms that ran in most conditions, and the conditions that have all of these arms."""
    count = {arm: sum(arm in of for of in means.values()) for arm in arms}
    most = max(count.values(), default=0)
    kept = [arm for arm in arms if count[arm] == most]
    return kept, [condition for condition, of in means.items() if all(arm in of for arm in kept)]
