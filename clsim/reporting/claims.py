"""Claims of papers, judged on our runs: each by a 95 % interval over seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clsim.records.frame import COSTS
from clsim.records.metrics import ALL
from clsim.records.step_curve import Way, ways
from clsim.reporting.budgets import Arm, arms, mean, reached
from clsim.reporting.cells import Cell, Key, Table, arm_names, cells, condition_names, higher_is_better
from clsim.reporting.listing import Line, Listing
from clsim.reporting.report import Claim, ReportSpec, groups, having
from clsim.reporting.statistics import FEWEST, t_interval

if TYPE_CHECKING:
    import pandas as pd

Units = dict[str, float]
"""Independent unit (see :attr:`clsim.reporting.cells.Cell.units`) → value."""

Verdict = Literal["holds", "does not hold", "cannot be told", "not judged"]

OF_LABELS = ("efficiency", "first")
"""Measures that read the accuracy at each number of labels."""

OF_CURVES = (*OF_LABELS, "speed-up")
"""Measures that read accuracies on the way, which a record holds and a CSV of its metrics does not."""

Side = dict[Key, dict[Key, Any]]
"""Condition → arm → its :class:`Cell`, or its :class:`Arm` where a claim is about curves."""


@dataclass(frozen=True)
class Judged:
    """A claim with what was found.

    Attributes:
        values: the measure for each independent unit; empty if the claim was not judged.
        low, high: 95 % t interval of their mean; NaN below three.
        verdict: ``holds`` if the whole interval lies where the claim expects it, ``does not hold`` if all of it lies
            elsewhere.
        why: why the claim was not judged, or cannot be told; else empty.
    """

    claim: Claim
    values: tuple[float, ...]
    low: float
    high: float
    verdict: Verdict
    why: str = ""


class Absent(Exception):
    """Runs that a claim compares are not there; the text names them."""


def judge(spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Judge every claim of a report.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.

    Raises:
        InputError: if a claim names an unknown column.
    """
    made = []
    for claim in spec.claims:
        if claim.size == "published" and spec.size != "published":
            made.append(Judged(claim, (), math.nan, math.nan, "not judged", "published size alone"))
            continue
        try:
            found = measured(claim, spec, runs, records)
        except Absent as absent:
            made.append(Judged(claim, (), math.nan, math.nan, "not judged", str(absent)))
            continue
        values = tuple(found.values())
        low, high = t_interval(values)
        verdict = of_interval(claim, low, high)
        few = f"{len(values)} common seed{'s' * (len(values) != 1)}, {FEWEST} needed"
        made.append(Judged(claim, values, low, high, verdict, few if len(values) < FEWEST else ""))
    return made


def of_interval(claim: Claim, low: float, high: float) -> Verdict:
    """Compare an interval with what a claim expects; NaN cannot be told.

    >>> [of_interval(Claim("", bound=1), *ends) for ends in ((1.1, 2), (0, 0.9), (0, 2))]
    ['holds', 'does not hold', 'cannot be told']
    """
    bound = claim.bound
    holds = {"above": low > bound, "below": high < bound, "within": -bound < low and high < bound}[claim.expect]
    outside = high < -bound or low > bound
    fails = {"above": high < bound or low == high == bound, "below": low > bound or low == high == bound}
    return "holds" if holds else "does not hold" if fails.get(claim.expect, outside) else "cannot be told"


def measured(claim: Claim, spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> Units:
    """Compute the measure of a claim for each independent unit that all of its runs have.

    Raises:
        Absent: if some side of the comparison has no run, or both have no condition in common.
    """
    row_names, chosen = groups(spec, runs)
    varied = {*claim.a, *claim.b, *claim.than}
    names = [*row_names, *spec.columns]
    kept = [name for name in condition_names(spec, row_names) if name not in varied]
    curves = claim.measure in OF_LABELS
    every = arms(spec, runs, records) if curves else {}

    def side(*wanted: Mapping[str, Any]) -> Side:
        asked = {column: value for table in wanted for column, value in table.items()}
        part = having(asked, chosen, f"claim {claim.text!r}")
        if part.empty:
            raise Absent(f"no finished run with {_words(asked)}")
        found: Side = {}
        if curves:
            own = {*part["fingerprint"]}
            placed: list[tuple[dict[str, str], Any]] = [
                (_named(spec, row_names, condition, arm.key), arm)
                for condition, of in every.items()
                for arm in of
                if own.intersection(arm.cell.runs)
            ]
        else:
            rows = cells(spec, claim.metric, row_names, part)
            placed = [
                (dict(zip(names, (*row, *column), strict=True)), cell)
                for row, columns in rows.items()
                for column, cell in columns.items()
                if cell.values
            ]
        for labels, one in placed:
            condition = found.setdefault(tuple(labels[name] for name in kept), {})
            condition[tuple(label for name, label in labels.items() if name not in {*kept, *claim.than})] = one
        if not found:
            raise Absent(f"no value of {claim.metric} with {_words(asked)}")
        return found

    if claim.measure == "ranks":
        return _over(side(claim.at, claim.a), side(claim.at, claim.a, claim.than), of_ranks)
    measure: Callable[[Mapping[Key, Any], Mapping[Key, Any]], Units]
    measure = {
        "difference": lambda a, b: _of_means(a, b, lambda x, y: x - y),
        "ratio": lambda a, b: _of_means(a, b, lambda x, y: x / y if y else math.nan),
        "wins": lambda a, b: _of_wins(a, b, 1 if higher_is_better(spec, claim.metric) else -1),
        "efficiency": _of_curves,
        "first": _of_first,
        "speed-up": lambda a, b: _of_steps(a, b, {record["fingerprint"]: record for record in records}),
    }[claim.measure]
    here = _over(side(claim.at, claim.a), side(claim.at, claim.b), measure)
    if not claim.than:
        return here
    there = _over(side(claim.at, claim.a, claim.than), side(claim.at, claim.b, claim.than), measure)
    return {unit: value - there[unit] for unit, value in here.items() if unit in there}


def of_ranks(one: Mapping[Key, Cell], other: Mapping[Key, Cell]) -> Units:
    """Compute for each seed how much less its ranks of the arms agree with the other setting than with its own.

    With x_s the values of the arms at seed s in one setting, y_s in the other, x̄ and ȳ the means over all other seeds
    and ρ Spearman's rank correlation: f(ρ(x_s, ȳ), ρ(y_s, x̄)) − f(ρ(x_s, x̄), ρ(y_s, ȳ)), where f(p, q) = p·q, and
    −p·q if both are negative. Where a setting does not matter to the order of the arms its expectation is about 0,
    however noisy either setting is (noise scales both products alike); where it does, it is below 0, −2 at the least.
    [A measure of ours. Seeds share the means over others, so that the interval is too narrow: with five
    seeds a change that is none is found in about 6 % of the cases instead of 2.5 %.]

    Raises:
        Absent: with fewer than three common arms.
    """
    arms_ = [arm for arm in one if arm in other]
    if len(arms_) < 3:
        raise Absent(f"{len(arms_)} arms in both settings, 3 needed")
    units = _common([cells_[arm].units for arm in arms_ for cells_ in (one, other)])
    if len(units) < FEWEST:
        return dict.fromkeys(units, 0.0)
    x, y = (np.array([[of[arm].units[unit] for arm in arms_] for unit in units]) for of in (one, other))
    found = {}
    for i, unit in enumerate(units):
        rest_x, rest_y = (np.delete(of, i, axis=0).mean(axis=0) for of in (x, y))
        across = _agreement(_spearman(x[i], rest_y), _spearman(y[i], rest_x))
        found[unit] = across - _agreement(_spearman(x[i], rest_x), _spearman(y[i], rest_y))
    return found


def _agreement(p: float, q: float) -> float:
    """Multiply two correlations; two negative ones are disagreement."""
    return -p * q if p < 0 and q < 0 else p * q


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Compute Spearman's rank correlation; 0 if one of them does not vary."""
    from scipy.stats import rankdata

    p, q = rankdata(a), rankdata(b)
    return float(np.corrcoef(p, q)[0, 1]) if np.ptp(p) and np.ptp(q) else 0.0


def _over(one: Side, other: Side, measure: Callable[[Mapping[Key, Any], Mapping[Key, Any]], Units]) -> Units:
    """Average a measure over the conditions that both sides have, for the units that all of these have."""
    conditions = [condition for condition in one if condition in other]
    if not conditions:
        raise Absent("both sides have no condition in common")
    found = [measure(one[condition], other[condition]) for condition in conditions]
    return {unit: mean([of[unit] for of in found]) for unit in _common(found)}


def _common(found: Sequence[Mapping[str, Any]]) -> list[str]:
    return [unit for unit in found[0] if all(unit in of for of in found)]


def _of_means(a: Mapping[Key, Cell], b: Mapping[Key, Cell], of: Callable[[float, float], float]) -> Units:
    """Compare the means over arms, for the units that all arms have."""
    units = _common([cell.units for cell in (*a.values(), *b.values())])
    means = [{unit: mean([cell.units[unit] for cell in side.values()]) for unit in units} for side in (a, b)]
    found = {unit: of(means[0][unit], means[1][unit]) for unit in units}
    return {unit: value for unit, value in found.items() if math.isfinite(value)}


def _of_wins(a: Mapping[Key, Cell], b: Mapping[Key, Cell], sign: int) -> Units:
    """Count in how many percent of the comparisons an arm of a is better; equal ones count half."""
    units = _common([cell.units for cell in (*a.values(), *b.values())])
    pairs = list(itertools.product(a.values(), b.values()))
    return {
        unit: 50 * mean([1 + float(np.sign(sign * (x.units[unit] - y.units[unit]))) for x, y in pairs])
        for unit in units
    }


def _of_curves(a: Mapping[Key, Arm], b: Mapping[Key, Arm]) -> Units:
    """Average labelling efficiency over arms, in the last experience, each unit for itself.

    The accuracy is that of b at its last budget. Where a never reaches it, a's last budget counts: its efficiency is at
    most this.
    """
    found = []
    for x, y in itertools.product(a.values(), b.values()):
        last = max(points[-1].experience for arm in (x, y) for points in arm.curves)
        each: Units = {}
        for unit in (unit for unit in x.cell.units if unit in y.cell.units):
            own, theirs = x.path([unit], last), y.path([unit], last)
            if own and theirs:
                level = theirs[-1][1]
                needed = reached(own, level)
                needed = own[-1][0] if math.isnan(needed) else needed
                each |= {unit: reached(theirs, level) / needed} if needed else {}
        found.append(each)
    return {unit: mean([of[unit] for of in found]) for unit in _common(found)}


def _of_first(a: Mapping[Key, Arm], b: Mapping[Key, Arm]) -> Units:
    """Compare the accuracy at the first number of labels that a choice led to, in the last experience, over arms.

    Raises:
        Absent: if the sides' first choices are of different numbers of labels.
    """
    found = []
    for x, y in itertools.product(a.values(), b.values()):
        last = max(place[0] for arm in (x, y) for place in arm.chosen)
        first = [next((place for place in arm.chosen if place[0] == last), None) for arm in (x, y)]
        if first[0] is None or first[0] != first[1]:
            raise Absent("the first choices are of different numbers of labels")
        own, theirs = x.at(first[0]), y.at(first[0])
        found.append({unit: own[unit] - theirs[unit] for unit in own if unit in theirs})
    return {unit: mean([of[unit] for of in found]) for unit in _common(found)}


def _of_steps(a: Mapping[Key, Cell], b: Mapping[Key, Cell], records: Mapping[str, Mapping[str, Any]]) -> Units:
    """Average over arms how many times as many steps b takes to its best accuracy on the way as a, seed by seed.

    Steps and accuracies are those of the last experience, whose accuracies on the experiences so far are averaged.
    Where a never has that accuracy, its last step counts: its speed-up is at most this.

    Raises:
        Absent: if a run was not tested on the way.
    """
    found = []
    for x, y in itertools.product(a.values(), b.values()):
        own, theirs = (dict(zip(cell.seeds, cell.runs, strict=True)) for cell in (x, y))
        each: Units = {}
        for seed in (seed for seed in own if seed in theirs):
            way, other = (_way(records[runs[seed]]) for runs in (own, theirs))
            first, needed = (of.to("steps", float(other.accuracy.max()))[0] for of in (way, other))
            each[f"seed {seed}"] = needed / first
        found.append(each)
    return {unit: mean([of[unit] for of in found]) for unit in _common(found)}


def _way(record: Mapping[str, Any]) -> Way:
    """Return the way through the last experience."""
    found = ways(record)
    if not found or max(found) < max(entry["experience"] for entry in record["batches"]):
        raise Absent("no accuracies on the way (evaluation.steps)")
    return found[max(found)]


def _named(spec: ReportSpec, row_names: Sequence[str], condition: Key, arm: Key) -> dict[str, str]:
    """Give the labels of an arm and of its condition their names."""
    names = condition_names(spec, row_names), arm_names(spec, row_names)
    return dict(zip((*names[0], *names[1]), (*condition, *arm), strict=True))


def listed(judged: Sequence[Judged], size: str = "small") -> list[Listing]:
    """List the claims of a report, with what was found; nothing without a claim."""
    if not judged:
        return []
    lines = []
    for number, one in enumerate(judged, 1):
        verdict = f"{one.verdict} at this size" if (one.verdict, size) == ("cannot be told", "small") else one.verdict
        said = f"{verdict}: {one.why}" if one.why else verdict
        lines.append(
            Line([str(number)], [one.claim.text, said, _found(one), expected(one.claim), str(len(one.values))])
        )
    notes = [
        "Mean over common seeds with its 95 % t interval: a claim holds where all of it lies where the claim says, "
        "does not hold where none of it does. Each claim is judged alone, without a correction for their number.",
        *(f"{number}: {compared(one.claim)}." for number, one in enumerate(judged, 1)),
    ]
    heads = ["claim", "verdict", "found [95 %]", "claimed", "seeds"]
    return [Listing("Claims", ["#"], [(head,) for head in heads], lines, notes)]


def table(judged: Sequence[Judged]) -> list[Table]:
    """Make the table of the claims for CSV; nothing without a claim."""
    rows: dict[Key, dict[Key, Cell]] = {
        (one.claim.text, expected(one.claim), f"{one.verdict}: {one.why}" if one.why else one.verdict): {
            (): Cell(one.values)
        }
        for one in judged
    }
    return [Table("claim", "Claims", ("claim", "claimed", "verdict"), (), [()], rows, [])] if judged else []


def expected(claim: Claim) -> str:
    """Write where the measure lies if a claim is true."""
    return f"{'within ±' if claim.expect == 'within' else claim.expect} {claim.bound:g}"


def compared(claim: Claim) -> str:
    """Say what a claim compares."""
    metric = ALL[claim.metric].label if claim.metric in ALL else COSTS[claim.metric]
    unit = "points" if claim.metric in ALL and ALL[claim.metric].percent else "difference"
    a, b, at, than = map(_words, (claim.a, claim.b, claim.at, claim.than))
    if claim.measure == "ranks":
        what = f"ranks by {metric}{f' of {a}' if a else ''}: agreement with the other setting less that between seeds"
        what += ", 0 = no change, −2 = turned around"
    else:
        what = {
            "difference": f"{metric}, {unit}: {a} − {b}",
            "ratio": f"{metric}: {a} / {b}",
            "wins": f"{metric}: share of comparisons, in %, in which {a} is better than {b}",
            "first": f"accuracy after the first choice of labels, points: {a} − {b}",
            "speed-up": f"steps to the best accuracy of {b} on the way: those of {b} / those of {a}",
            "efficiency": f"labels that {b} needs for its last accuracy / labels that {a} needs",
        }[claim.measure]
    return what + (f"; at {at}" if at else "") + (f"; against the same at {than}" if than else "")


def _words(asked: Mapping[str, Any]) -> str:
    """Write the values of columns in words."""

    def text(value: Any) -> str:
        return " or ".join(map(str, value)) if isinstance(value, list) else str(value)

    return ", ".join(f"{column} {text(value)}" for column, value in asked.items())


def _found(one: Judged) -> str:
    if not one.values:
        return "–"
    interval = f" [{one.low:+,.2f}, {one.high:+,.2f}]" if math.isfinite(one.low) else ""
    return f"{mean(one.values):+,.2f}{interval}"
