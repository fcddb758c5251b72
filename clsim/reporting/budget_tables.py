"""Tables of a report on labels: accuracy at each budget, labelling efficiency, wins, labels counted, the picks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clsim.records.budget import best_round
from clsim.records.label_record import COUNTS, counted
from clsim.reporting.budgets import (
    LEVEL,
    Arm,
    Place,
    arms,
    efficiency,
    levels,
    mean,
    of_units,
    penalties,
    reference,
)
from clsim.reporting.cells import Cell, Key, Table, arm_names, condition_names, decimals, with_values
from clsim.reporting.grids import bounds_note, mark
from clsim.reporting.listing import WIDEST, Line, Listing, of_table
from clsim.reporting.names import arms_in_tables
from clsim.reporting.picked import MEASURES, measured, of_classes, partners
from clsim.reporting.report import Published, ReportSpec, groups
from clsim.reporting.statistics import FEWEST, variance_components

if TYPE_CHECKING:
    import pandas as pd

BUDGETS, ROUNDS, CLASSES = 8, 4, 20
"""Most budgets, rounds and classes that a table for people shows; CSV has all budgets and rounds."""

EXPLAINS = 120
"""Length of a note from which on it explains the columns, and is shown once."""


@dataclass(frozen=True)
class About:
    """What all tables of a report on labels share.

    Attributes:
        arm_names, condition_names: names of the labels of an arm, and of a condition.
        notes: on bounds, for every table.
    """

    arm_names: Key
    condition_names: Key
    notes: list[str]

    def arms(self, of: Iterable[Key]) -> tuple[str, dict[Key, str]]:
        """Head a column of arms, and name each in one text; labels that no arm has are left out."""
        keys = list(of)
        used = [i for i in range(len(self.arm_names)) if any(key[i] != "–" for key in keys)]
        names = [self.arm_names[i] for i in used]
        short = arms_in_tables(names, [tuple(key[i] for i in used) for key in keys], " · ")
        return " · ".join(names), {key: short[tuple(key[i] for i in used)] for key in keys}

    def title(self, what: str, condition: Key) -> str:
        """Name a table of one condition; labels that no run of it has are left out."""
        labels = zip(self.condition_names, condition, strict=True)
        where = ", ".join(f"{name} {value}" for name, value in labels if value != "–")
        return f"{what}{f' ({where})' if where else ''}"


def labelling(
    spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]
) -> tuple[list[Table], list[Listing]]:
    """Make the tables of a report on labels.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.

    Returns:
        Tables for CSV: accuracy at every budget, and measures of the picks in every round; and listings for people.
        Both are empty if the report does not ask for them, or no run holds label rounds.
    """
    found = arms(spec, runs, records) if spec.labelling else {}
    if not found:
        return [], []
    row_names, chosen = groups(spec, runs)
    about = About(arm_names(spec, row_names), condition_names(spec, row_names), bounds_note(chosen))
    curves, made = [], list[Listing]()
    for condition, of in found.items():
        table = accuracies(about, condition, of)
        curves.append(table)
        made.append(_shown(about, of, table))
        made += _published(about, condition, of, spec.published)
    made += [_efficiencies(about, condition, of) for condition, of in found.items()]
    made += _wins(about, found)
    made += [_counts(about, condition, of) for condition, of in found.items()]
    measures = list[Table]()
    for condition, of in found.items():
        tables = picked(about, condition, of)
        measures += tables
        made += [_picks(about, condition, of, tables), *_histogram(about, condition, of)]
    made += _variances(about, found)
    return curves + measures, _explained_once(made)


def _explained_once(made: Sequence[Listing]) -> list[Listing]:
    """Leave out notes that an earlier listing has."""
    said, kept = set[str](), []
    for listing in made:
        kept.append(replace(listing, notes=[note for note in listing.notes if note not in said]))
        said |= {note for note in listing.notes if len(note) > EXPLAINS}
    return kept


def accuracies(about: About, condition: Key, of: Sequence[Arm]) -> Table:
    """Make the table of accuracy at every budget of a condition; between its own budgets, an arm's is interpolated."""
    places = sorted({place for arm in of for place in arm.places})
    names = {place: (*condition, _labels(of, place)) for place in places}
    rows = {}
    for arm in of:
        cells = {names[place]: with_values(arm.cell, arm.values(place)) for place in places}
        rows[arm.key] = {column: cell for column, cell in cells.items() if cell.values}
    title = about.title("Accuracy over the number of labels, %", condition)
    columns = list(dict.fromkeys(names.values()))
    notes = [_origin(of), *about.notes]
    return Table(
        "accuracy_over_labels", title, about.arm_names, (*about.condition_names, "labels"), columns, rows, notes
    )


def _labels(of: Sequence[Arm], place: Place) -> str:
    """Write the number of labels at a place, of all experiences together."""
    counts = [count for arm in of if not math.isnan(count := arm.labels(place))]
    return f"{mean(counts):.0f}"


def _origin(of: Sequence[Arm]) -> str:
    """Say which of the labels were not asked for."""
    starts = [point.initial for arm in of for points in arm.curves for point in points]
    low, high = min(starts), max(starts)
    experiences = max(points[-1].experience for arm in of for points in arm.curves) + 1
    each = " an experience" if experiences > 1 else ""
    number = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    text = f"Labels are counted with the initial set: {number}{each}." if high else "There is no initial set."
    many = (
        " Labels are summed over experiences; accuracy is that on the classes seen so far." if experiences > 1 else ""
    )
    return f"{text}{many} Accuracy is that of the last epoch of each training."


def _shown(about: About, of: Sequence[Arm], table: Table) -> Listing:
    """Show some of the budgets, evenly spread."""
    columns = _some(table.columns, BUDGETS)
    notes = list(table.notes)
    if len(columns) < len(table.columns):
        notes.append(f"{len(columns)} of {len(table.columns)} budgets; CSV has all.")
    counts = {len(cell.sample) for found in table.rows.values() for cell in found.values()}
    if max(counts, default=0) >= FEWEST:
        notes.insert(0, f"Mean ± half of the 95 % t interval over {_span(n for n in counts if n >= FEWEST)} seeds.")
    made = of_table(replace(table, columns=columns, notes=notes))
    head, named = about.arms(arm.key for arm in of)
    lines = [replace(line, labels=[named[key]]) for key, line in zip(table.rows, made.lines, strict=True)]
    return replace(made, names=[head], lines=lines, columns=[(f"{int(column[-1]):,} labels",) for column in columns])


def _efficiencies(about: About, condition: Key, of: Sequence[Arm]) -> Listing:
    """List labelling efficiency at some accuracies, in the last experience."""
    last = max(points[-1].experience for arm in of for points in arm.curves)
    head, named = about.arms(arm.key for arm in of)
    lines = []
    for arm in of:
        random = reference(about.arm_names, arm, of)
        units = [u for u in arm.at(arm.places[-1]) if random and u in random.at(random.places[-1])]
        theirs = random.path(units, last) if random else []
        at = levels(theirs)
        if random is arm:
            continue
        each = [efficiency(theirs, arm.path(units, last), level) for level in at]
        entries = [f"{_number(value, 2)} at {level:.1f} %" for value, level in zip(each, at, strict=True)]
        entries = ["–"] * (4 - len(entries)) + entries if entries else ["–"] * 4
        lines.append(Line([named[arm.key]], entries))
    heads = ["a quarter", "half", "three quarters", "all of random's gain"]
    notes = [
        "Labels that random selection needs to reach an accuracy, divided by those that the arm needs: above 1, labels "
        "are saved. Means over common seeds, straight lines between budgets; – where the accuracy is never reached, or "
        "no run differs in nothing but that its labels were asked for at random. All of random's gain: its accuracy at "
        "its last budget."
    ]
    if last:
        notes.append("In the last experience: accuracy on all classes, over the labels of that experience.")
    title = about.title("Labelling efficiency against random", condition)
    return Listing(title, [head], [(text,) for text in heads], lines, [*notes, *about.notes])


def _wins(about: About, found: Mapping[Key, Sequence[Arm]]) -> list[Listing]:
    """List how often arms beat each other at equal budgets; nothing without two arms."""
    of = penalties(found)
    size = range(len(of.arms))
    if len(of.arms) < 2:
        return []
    head, named = about.arms(of.arms)
    wide = len(of.arms) <= WIDEST
    heads = ["won", "lost", "mean penalty", *(f"beats {i + 1}" for i in size if wide)]
    lines = []
    for i in size:
        won, lost = sum(of.wins[i]), sum(of.wins[j][i] for j in size)
        entries = [str(won), str(lost), _number(of.beaten(i), 2)]
        entries += ["·" if i == j else _number(of.penalties[i][j], 2) for j in size] if wide else []
        lines.append(Line((str(i + 1), named[of.arms[i]]), entries))
    notes = [
        "At each budget, an arm beats another where its mean is larger and a paired t test over common seeds "
        f"({FEWEST} at least) has p < {100 * LEVEL:.0f} %, uncorrected; tests with Holm's correction are apart. Won, "
        "lost: budgets. Beats: the share of an experiment's budgets, summed over experiments. Mean penalty: the share "
        "of budgets at which another arm beats this one; lower is better. After Ash et al., BADGE (ICLR 2020).",
        *about.notes,
    ]
    return [Listing("Wins at equal numbers of labels", ["#", head], [(text,) for text in heads], lines, notes)]


def _counts(about: About, condition: Key, of: Sequence[Arm]) -> Listing:
    """List what was labelled, kind by kind, and what the best round would have given."""
    head, named = about.arms(arm.key for arm in of)
    lines = []
    for arm in of:
        entries = [_span(n for r in arm.records if (n := counted(r, kind)) is not None) for kind in COUNTS]
        final = Cell(tuple(of_units(arm.cell, [100 * points[-1].accuracy for points in arm.curves]).values()))
        best = Cell(tuple(of_units(arm.cell, [100 * best_round(record) for record in arm.records]).values()))
        lines.append(Line([named[arm.key]], [*entries, str(final), str(best)]))
    heads = ["initial", "asked for", "validation", "accuracy at the last budget, %", "best round, % (no result)"]
    notes = [
        "Labels of all experiences. The best round is chosen on the test data: it is not for comparison, and says only "
        "how much such a choice would have added.",
        *about.notes,
    ]
    title = about.title("Labels, counted apart", condition)
    return Listing(title, [head], [(text,) for text in heads], lines, notes)


def picked(about: About, condition: Key, of: Sequence[Arm]) -> list[Table]:
    """Make a table for each measure of the picks, a column for each round."""
    found: dict[Key, list[dict[int, dict[str, float]]]] = {}
    for arm in of:
        others = partners(arm, reference(about.arm_names, arm, of))
        found[arm.key] = [measured(r, other) for r, other in zip(arm.records, others, strict=True)]
    rounds = sorted({number for rows in found.values() for row in rows for number in row})
    made = []
    for name, heading in MEASURES.items():
        rows: dict[Key, dict[Key, Cell]] = {}
        for arm in of:
            each = {n: [row.get(n, {}).get(name, math.nan) for row in found[arm.key]] for n in rounds}
            each = {n: [math.nan] * len(v) if math.inf in v else v for n, v in each.items()}  # there is no mean
            rows[arm.key] = {(*condition, str(n)): with_values(arm.cell, each[n]) for n in rounds}
        names = (*about.condition_names, "round")
        columns = [(*condition, str(n)) for n in rounds]
        made.append(Table(f"picks_{name}", heading, about.arm_names, names, columns, rows, about.notes))
    return made


def _picks(about: About, condition: Key, of: Sequence[Arm], tables: Sequence[Table]) -> Listing:
    """List the measures of the picks that some run has, a line for each arm and some of its rounds."""
    known = [table for table in tables if any(cell.values for row in table.rows.values() for cell in row.values())]
    every = tables[0].columns
    columns = _some(every, ROUNDS)
    head, named = about.arms(arm.key for arm in of)
    lines = []
    for arm in of:
        for column in columns:
            cells = [table.rows[arm.key][column] for table in known]
            if any(cell.values for cell in cells):
                lines.append(Line([named[arm.key], column[-1]], [_mean(cell) for cell in cells]))
    notes = [
        "Means over seeds and experiences. Classes and overlap are of all picks up to the round, without the initial "
        "set; the rest is of the round. Class entropy: 1 = balanced, 0 = one class. Largest / smallest class: – where, "
        "in some run, a class has no pick; missing: without a pick. Radius: of coverage, the largest distance of a "
        "sample of the pool from what is labelled, by the net's features; distance: the mean between picks. As random: "
        "share of the picks that the run with the same seed and initial set asked for at random, up to the same round. "
        "Seconds compare on one machine only."
    ]
    if len(columns) < len(every):
        notes.append(f"{len(columns)} of {len(every)} rounds; CSV has all.")
    title = about.title("What was picked", condition)
    heads = [(table.title,) for table in known]
    return Listing(title, [head, "round"], heads, lines, [*notes, *about.notes])


def _histogram(about: About, condition: Key, of: Sequence[Arm]) -> list[Listing]:
    """List the picks of each class; nothing if there are too many classes for a table."""
    classes = 1 + max(c for arm in of for record in arm.records for own in record["classes"] for c in own)
    if classes > CLASSES:
        return []
    head, named = about.arms(arm.key for arm in of)
    lines = []
    for arm in of:
        counts = [of_classes(record, classes) for record in arm.records]
        lines.append(Line([named[arm.key]], [f"{mean([float(n[c]) for n in counts]):.1f}" for c in range(classes)]))
    title = about.title("Labels asked for, by class", condition)
    notes = ["All rounds and experiences, mean over seeds, without the initial set.", *about.notes]
    return [Listing(title, [head], [(str(c),) for c in range(classes)], lines, notes)]


def _variances(about: About, found: Mapping[Key, Sequence[Arm]]) -> list[Listing]:
    """List the spread between initial sets, and that of seeds on one of them, where there are two or more of each."""
    head, named = about.arms(arm.key for of in found.values() for arm in of)
    lines = []
    for condition, of in found.items():
        for arm in of:
            grouped: dict[int, list[Mapping[str, Any]]] = {}
            for split, record in zip(arm.cell.splits, arm.records, strict=True):
                grouped.setdefault(split, []).append(record)
            parts = [part for split, part in grouped.items() if split >= 0 and len(part) > 1]
            if len(parts) < 2:
                continue
            final = {r["fingerprint"]: 100 * p[-1].accuracy for r, p in zip(arm.records, arm.curves, strict=True)}
            between, within = variance_components([[final[r["fingerprint"]] for r in part] for part in parts])
            total = between + within
            entries = [str(len(parts)), _span(map(len, parts)), f"{math.sqrt(between):.2f}", f"{math.sqrt(within):.2f}"]
            entries.append(f"{between / total:.0%}" if total else "–")
            lines.append(Line([*condition, named[arm.key]], entries))
    if not lines:
        return []
    heads = ["initial sets", "seeds of each", "between sets, ±", "within a set, ±", "between, of the variance"]
    notes = [
        "Standard deviations of the accuracy at the last budget, in percentage points, by one-way analysis of variance "
        "with random effects: initial sets (labelling.split), and the seeds of runs on one of them.",
        *about.notes,
    ]
    return [
        Listing(
            "Variance between initial sets, and within",
            [*about.condition_names, head],
            [(text,) for text in heads],
            lines,
            notes,
        )
    ]


def _published(about: About, condition: Key, of: Sequence[Arm], rows: Iterable[Published]) -> list[Listing]:
    """List papers' accuracies over labels beside ours at the same numbers; nothing where there are none."""
    here = dict(zip(about.condition_names, condition, strict=True))
    mine = [row for row in rows if row.over_labels and row.at.get("scenario") == here.get("scenario")]
    if not mine or any(points[-1].experience for arm in of for points in arm.curves):
        return []
    budgets = sorted({int(labels) for row in mine for labels in row.over_labels})
    head, named = about.arms(arm.key for arm in of)
    lines = []
    for arm in of:
        cells = [with_values(arm.cell, arm.values((0, labels))) for labels in budgets]
        lines.append(Line([named[arm.key]], [str(cell) for cell in cells]))
    if not any(entry != "–" for line in lines for entry in line.entries):
        low, high = min(arm.places[0][1] for arm in of), max(arm.places[-1][1] for arm in of)
        title = about.title("Published accuracy over labels", condition)
        text = f"Left out: papers have {budgets[0]:,} to {budgets[-1]:,} labels, ours {low:,} to {high:,}."
        return [Listing(title, [head], [("%",)], [], [text])]
    sources = list(dict.fromkeys(row.source + (f", {row.seeds} runs" if row.seeds else "") for row in mine))
    for row in mine:
        number = 1 + sources.index(row.source + (f", {row.seeds} runs" if row.seeds else ""))
        label = " · ".join(str(row.at[name]) for name in about.arm_names if name in row.at)
        entries = [f"{row.over_labels[str(n)]:g}" if str(n) in row.over_labels else "–" for n in budgets]
        lines.append(Line([f"{label} {mark(number)}"], entries, source=number))
    notes = [f"published [{i}]: {source}." for i, source in enumerate(sources, 1)]
    notes.append("Ours between two budgets: on a straight line. Settings differ: orders compare, levels hardly.")
    title = about.title("Published accuracy over labels beside ours, %", condition)
    heads = [(f"{n:,} labels",) for n in budgets]
    return [Listing(title, [head], heads, lines, [*notes, *about.notes])]


def _some(columns: Sequence[Key], most: int) -> list[Key]:
    """Choose columns evenly spread, the first and the last among them."""
    if len(columns) <= most:
        return [*columns]
    return [columns[round(i * (len(columns) - 1) / (most - 1))] for i in range(most)]


def _span(counts: Iterable[int]) -> str:
    found = sorted({*counts})
    if not found:
        return "–"
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _mean(cell: Cell) -> str:
    return _number(cell.mean, decimals(cell.mean)) if cell.values else "–"


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"
