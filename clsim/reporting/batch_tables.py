"""Tables of a report on batches: accuracy at equal cost, what it takes to a target, what was spent and learnt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clsim.reporting.batches import REFERENCES, Arm, Field, fields, untested
from clsim.reporting.budget_tables import About
from clsim.reporting.budgets import mean
from clsim.reporting.cells import Cell, Key, Table, arm_names, condition_names, decimals, with_values
from clsim.reporting.grids import bounds_note
from clsim.reporting.listing import Line, Listing
from clsim.reporting.report import ReportSpec, groups
from clsim.reporting.statistics import FEWEST

if TYPE_CHECKING:
    import pandas as pd

TO_TARGET = {
    "steps": "steps",
    "candidates": "candidates",
    "seconds": "s",
    "all_seconds": "s, with nets",
}
"""What it takes to the target: axis of :data:`clsim.records.step_curve.AXES` → heading."""

SPENT: Mapping[str, tuple[str, Callable[[Arm], Sequence[float]]]] = {
    "steps": ("steps", lambda arm: _ends(arm, "steps")),
    "candidates": ("candidates", lambda arm: _ends(arm, "candidates")),
    "train_passes": ("forward passes", lambda arm: _column(arm, "train_passes")),
    "seconds": ("s", lambda arm: _ends(arm, "seconds")),
    "irreducible_images": ("nets: images", lambda arm: _column(arm, "irreducible_images")),
    "irreducible_steps": ("nets: steps", lambda arm: _column(arm, "irreducible_steps")),
    "irreducible_passes": ("nets: forward passes", lambda arm: _column(arm, "irreducible_passes")),
    "irreducible_seconds": ("nets: s", lambda arm: _column(arm, "irreducible_seconds")),
    "wrong_trained": ("wrong labels learnt, %", lambda arm: _column(arm, "wrong_trained", 100)),
    "learnt_before": ("learnt already, %", lambda arm: _column(arm, "learnt_before", 100)),
}
"""What a whole run took and what it learnt: name → heading, and the value of each run."""

CURE = "make runs with --set evaluation.steps=20 (a test after 20 steps, and so on)"


def batches(
    spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]
) -> tuple[list[Table], list[Listing]]:
    """Make the tables of a report on batches.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.

    Returns:
        Tables for CSV, and listings for people. Both are empty if the report does not ask for them.
    """
    if not spec.batches:
        return [], []
    row_names, chosen = groups(spec, runs)
    found, without = fields(spec, runs, records), untested(spec, runs, records)
    left_out = [f"{without} runs were not tested on the way, and are left out: {CURE}."] if without else []
    if not found:
        text = f"No run was tested on the way: {CURE}."
        return [], [Listing("Accuracy on the way", ["arm"], [("%",)], [], [text])]
    about = About(arm_names(spec, row_names), condition_names(spec, row_names), [*left_out, *bounds_note(chosen)])
    tables, made = [], list[Listing]()
    for field in found:
        tables += for_csv(about, field)
        made += [_equal(about, field), _target(about, field), _spent(about, field)]
    return tables, made


def for_csv(about: About, field: Field) -> list[Table]:
    """Make a table for each number of a condition; those of a single experience, too, where there are several."""
    places: dict[str, list[int]] = {"all": field.positions}
    if len(field.positions) > 1:
        places |= {str(position + 1): [position] for position in field.positions}
    measures: dict[str, Callable[[Arm, list[int]], Sequence[float]]] = {
        "accuracy_at_steps": lambda arm, at: field.accuracy_at(arm, "steps", at),
        "accuracy_at_candidates": lambda arm, at: field.accuracy_at(arm, "candidates", at),
        "equal_steps": lambda arm, at: [_equal_at(field, "steps", at)] * len(arm.ways),
        "equal_candidates": lambda arm, at: [_equal_at(field, "candidates", at)] * len(arm.ways),
        "target_reached": lambda arm, at: [100 * share for _, share in field.to_target(arm, "steps", at)],
    }
    for axis in TO_TARGET:
        measures[f"{axis}_to_target_where_reached"] = lambda arm, at, axis=axis: [  # type: ignore[misc]
            taken if share == 1 else math.nan for taken, share in field.to_target(arm, axis, at)
        ]
    made = []
    for name, values in measures.items():
        rows = {
            arm.key: {(*field.condition, label): with_values(arm.cell, values(arm, at)) for label, at in places.items()}
            for arm in field.arms
        }
        made.append(_table(about, name, field, rows, [*places]))
    for name, (_, of) in SPENT.items():
        rows = {arm.key: {(*field.condition, "all"): with_values(arm.cell, of(arm))} for arm in field.arms}
        made.append(_table(about, f"spent_{name}", field, rows, ["all"]))
    return made


def _table(
    about: About, name: str, field: Field, rows: Mapping[Key, Mapping[Key, Cell]], places: Sequence[str]
) -> Table:
    columns = [(*field.condition, label) for label in places]
    return Table(name, name, about.arm_names, (*about.condition_names, "experience"), columns, rows, about.notes)


def _equal(about: About, field: Field) -> Listing:
    """List the final accuracy, and that at equal steps and at equal candidates."""
    several, axes = len(field.positions) > 1, ("steps", "candidates")
    lines = []
    for arm in field.arms:
        at = (field.accuracy_at(arm, axis, field.positions) for axis in axes)
        cells = [with_values(arm.cell, values) for values in (_column(arm, "accuracy", 100), *at)]
        lines.append(Line([arm.name], [str(cell) for cell in cells]))
    numbers = ["equal" if several else _number(_equal_at(field, axis, field.positions)) for axis in axes]
    heads = ["accuracy at the end, %", *(f"at {n} {axis}, %" for n, axis in zip(numbers, axes, strict=True))]
    notes = [
        "Equal steps and candidates: the largest numbers that every run has reached within an experience. Between two "
        "tests, accuracy is read off a straight line."
    ]
    if several:
        each = (f"{_each(field.equal(axis, p) for p in field.positions)} {axis}" for axis in axes)
        notes.append(
            f"Accuracy at equal cost is that on what was seen so far, averaged over {len(field.positions)} "
            f"experiences. In each of them: {', '.join(each)}."
        )
    title = about.title("Accuracy at equal cost", field.condition)
    return Listing(title, ["arm"], [(head,) for head in heads], lines, [*_seeds(field), *notes, *about.notes])


def _target(about: About, field: Field) -> Listing:
    """List what each arm takes to the target, and how many of its runs reached it."""
    lines = []
    for arm in field.arms:
        shares = [share for _, share in field.to_target(arm, "steps", field.positions)]
        known = [share for share in shares if not math.isnan(share)]
        entries = [f"{100 * mean(known):.0f}" if known else "–"]
        for axis in TO_TARGET:
            cell = with_values(arm.cell, [taken for taken, _ in field.to_target(arm, axis, field.positions)])
            count = axis in ("steps", "candidates")
            entries.append(_short(cell, count) if min(known, default=1.0) == 1 else f"≥ {_number(cell.mean, count)}")
        lines.append(Line([arm.name], entries))
    several = len(field.positions) > 1
    heads = [f"reached, % of {'seeds and experiences' if several else 'seeds'}", *TO_TARGET.values()]
    notes = [
        f"{_said(field)} It is reached at the first test with that accuracy. With nets: with the time of the "
        "irreducible-loss nets, which are trained first. ≥: not every seed reached it; those count as a whole, so that "
        "the mean is at least this. Seconds compare on one machine only."
    ]
    if several:
        notes.append(f"Each experience has a target of its own; its cost is summed over {len(field.positions)}.")
    title = about.title("To the target", field.condition)
    return Listing(title, ["arm"], [(head,) for head in heads], lines, [*notes, *about.notes])


def _said(field: Field) -> str:
    """Say what the target is."""
    if field.target:
        return f"Target: {field.target:g} %."
    kinds = {None if other is None else other.name for other in map(field.reference, field.arms)} - {None}
    if not kinds:
        words = " nor ".join(f"batch.selector {name}" for name in REFERENCES)
        return f"No target: there is no single arm with {words}, and the report sets none (target = 80)."
    return (
        f"Target: the best accuracy of {' or '.join(sorted(map(str, kinds)))} on the way, of the run with the same "
        "seed, by the test samples, as in the notebook of RHO-LOSS."
    )


def _spent(about: About, field: Field) -> Listing:
    """List what whole runs took, what irreducible-loss nets took, and what was learnt; columns of dashes left out."""
    cells = {name: [with_values(arm.cell, of(arm)) for arm in field.arms] for name, (_, of) in SPENT.items()}
    known = [name for name, of in cells.items() if any(cell.values for cell in of)]
    counts = [name for name in known if not name.endswith("seconds") and name not in ("wrong_trained", "learnt_before")]
    lines = [
        Line([arm.name], [_short(cells[name][i], name in counts) for name in known]) for i, arm in enumerate(field.arms)
    ]
    notes = [
        "Of whole runs, all experiences together. Forward passes: samples, in training and in the choice, without "
        "evaluation. Seconds: training and choice. Wrong labels, learnt already: shares of the samples that steps were "
        "taken on; learnt already is counted where batches are chosen."
    ]
    if "irreducible_seconds" in known:
        notes.append(
            "Nets: irreducible-loss nets; images are those that they were trained on, kept-back ones included."
        )
    title = about.title("What was spent and learnt", field.condition)
    return Listing(title, ["arm"], [(SPENT[name][0],) for name in known], lines, [*notes, *about.notes])


def of_runs(spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Give each run its numbers against the others: fingerprint → name → value; accuracies are shares of 1.

    What it takes to the target is NaN for a run that does not reach it.
    """
    found: dict[str, dict[str, float]] = {}
    for field in fields(spec, runs, records) if spec.batches else ():
        for arm in field.arms:
            columns: dict[str, list[float]] = {}
            for axis in ("steps", "candidates"):
                at = field.accuracy_at(arm, axis, field.positions)
                columns[f"equal_{axis}"] = [_equal_at(field, axis, field.positions)] * len(arm.ways)
                columns[f"accuracy_at_{axis}"] = [value / 100 for value in at]
            columns["target_reached"] = [share for _, share in field.to_target(arm, "steps", field.positions)]
            for axis in TO_TARGET:
                taken = field.to_target(arm, axis, field.positions)
                columns[f"{axis}_to_target"] = [value if share == 1 else math.nan for value, share in taken]
            columns |= {name: [*of(arm)] for name, (_, of) in SPENT.items()}
            for name in ("wrong_trained", "learnt_before"):
                columns[name] = [*_column(arm, name)]
            for i, run in enumerate(arm.cell.runs):
                found[run] = {name: values[i] for name, values in columns.items()}
    return found


def _equal_at(field: Field, axis: str, positions: Sequence[int]) -> float:
    return math.fsum(field.equal(axis, position) for position in positions)


def _ends(arm: Arm, axis: str) -> list[float]:
    """What each run took in all of its experiences."""
    return [math.fsum(way.end(axis) for way in of.values()) for of in arm.ways]


def _column(arm: Arm, name: str, scale: float = 1.0) -> list[float]:
    """A column of the table of runs; NaN where a run has no value."""
    return [math.nan if row[name] is None else scale * float(row[name]) for row in arm.rows]


def _seeds(field: Field) -> list[str]:
    counts = sorted({len(arm.cell.sample) for arm in field.arms})
    if counts[-1] < FEWEST:
        return []
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [f"Mean ± half of the 95 % t interval over {span} seeds."]


def _each(values: Iterable[float]) -> str:
    """Write the numbers of all experiences, once if they are equal."""
    found = [_number(value) for value in values]
    return found[0] if len({*found}) == 1 else " · ".join(found)


def _short(cell: Cell, count: bool) -> str:
    """Write a cell; without an interval where nothing varies, and without decimals if it is of counts."""
    if cell.values and len({*cell.sample}) == 1:
        return _number(cell.mean, count)
    if not count or not cell.values:
        return str(cell)
    if len(cell.sample) < FEWEST:
        return ", ".join(_number(value, count) for value in cell.sample)
    return f"{_number(cell.mean, count)} ± {_number(cell.half_width, count)}"


def _number(value: float, count: bool = True) -> str:
    return "–" if math.isnan(value) else f"{value:,.{0 if count else decimals(value)}f}"
