"""Tables, one for each metric: mean ± interval over seeds in each cell, the best and its ties marked, papers below."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clsim.records.metrics import UNSIZED
from clsim.reporting import statistics
from clsim.reporting.cells import (
    BEST,
    TIED,
    Cell,
    Key,
    Rows,
    Table,
    aligned,
    cells,
    condition_names,
    contests,
    higher_is_better,
    natural,
    reading,
    title,
)
from clsim.reporting.report import Published, ReportSpec, groups
from clsim.reporting.statistics import ALPHA, FEWEST, paired_t

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMED = 6
"""Most versions, states of the code, or processors that a note names."""

MINGLED = "Records of earlier versions count evaluation with training: what training took is blank there."


def tables(spec: ReportSpec, runs: pd.DataFrame) -> list[Table]:
    """Make a table for each metric of the report.

    The cells of one column (or of one condition, if the report names its arms) are compared. The best mean is marked,
    and so are its ties: the cells that a paired t test over common seeds (three at least) cannot tell from it at 5 %,
    with Holm's correction over these comparisons.
    """
    row_names, chosen = groups(spec, runs)
    made = []
    sources: list[str] = []
    for metric in spec.metrics:
        sources = sources if spec.metric_level >= 0 else []  # side by side, a paper has one number
        rows = cells(spec, metric, row_names, chosen)
        columns = sorted({c for found in rows.values() for c in found}, key=natural)
        marked = _mark(spec, metric, row_names, rows)
        notes = [*_notes(rows, chosen, spec), *_lacking(metric, chosen), *([_rule(spec, row_names)] if marked else [])]
        shown, further = _add_published(spec, metric, row_names, (rows, columns), sources, chosen)
        made.append(
            Table(
                metric,
                title(spec, metric),
                tuple(row_names),
                tuple(spec.columns),
                columns,
                rows,
                [*further, *notes],
                higher_is_better(spec, metric),
                shown,
                [*sources],
            )
        )
    return made


def _rule(spec: ReportSpec, row_names: Sequence[str]) -> str:
    place = f"condition ({', '.join(condition_names(spec, row_names)) or 'one'})" if spec.arms else "column"
    place += " and scenario" if "scenario" in row_names and not spec.arms else ""
    tied = (
        f"; {TIED} what cannot be told from it: p ≥ 5 % in the paired t test over common seeds (three at least), with "
        f"Holm's correction over the {place.split()[0]}'s comparisons with the best"
    )
    return f"{BEST} marks the best mean of its {place}{tied if spec.ties else ''}."


def _mark(spec: ReportSpec, metric: str, row_names: Sequence[str], rows: Rows) -> bool:
    """Mark the best cell of each contest and those that tie with it; return whether there was one to mark."""
    sign = 1 if higher_is_better(spec, metric) else -1
    marked = False
    for _, places in contests(spec, row_names, rows):
        here = {place: rows[place[0]][place[1]] for place in places.values()}
        means = [sign * cell.mean for cell in here.values()]
        if len(here) < 2 or max(means) == min(means):
            continue
        marked = True
        best = [place for place, mean in zip(here, means, strict=True) if mean == max(means)]
        others = [place for place in here if place not in best]
        p = statistics.holm([paired_t(*aligned(here[best[0]], here[place])) for place in others])
        changes = {place: dataclasses.replace(here[place], best=True) for place in best}
        for place, value in zip(others, p, strict=True):
            changes[place] = dataclasses.replace(here[place], tied=spec.ties and value >= ALPHA)
        for (row, column), cell in changes.items():
            rows[row][column] = cell
    return marked


def _add_published(
    spec: ReportSpec,
    metric: str,
    row_names: Sequence[str],
    table: tuple[Rows, Sequence[Key]],
    sources: list[str],
    chosen: pd.DataFrame,
) -> tuple[dict[Key, int], list[str]]:
    """Put the papers' rows below ours, and say how far ours are from them.

    Args:
        table: the rows, and the columns.
        sources: the sources that have a number already; those of further rows are appended.
        chosen: the runs of the table.

    Returns:
        Label of a paper's row → number of its source; notes.
    """
    rows, columns = table
    ours_on = {name: {*map(str, chosen[name])} for name in ("scenario", "scenario_file") if name in chosen}
    scenarios = set[str]().union(*(of for of in ours_on.values() if "scenario" in row_names or len(of) == 1))
    shown: dict[Key, int] = {}
    apart: dict[tuple[int, Key, int], list[tuple[Key, float]]] = {}
    ours, lonely = dict(rows), set()
    for published in spec.published:
        column = tuple(str(published.at.get(name, "–")) for name in spec.columns)
        if metric not in published.percent:
            continue
        if column not in columns:
            lonely.add(" · ".join(column))
            continue
        if "scenario" not in spec.columns and published.at.get("scenario", None) not in {None, *scenarios}:
            lonely.add(str(published.at["scenario"]))  # no column tells it from ours
            continue
        source = _source(published)
        if source not in sources:
            sources.append(source)
        number = sources.index(source) + 1
        label = tuple(str(published.at.get(name, "–")) for name in row_names)
        cell = Cell(published=published.percent[metric])
        for key in [k for k in ours if all(v in ("–", k[i]) for i, v in enumerate(label))]:
            own = ours[key].get(column, Cell())
            if own.values:
                apart.setdefault((number, column, len(own.values)), []).append((key, own.mean - cell.mean))
        mine = (f"{label[0]} {mark(number)}", *label[1:])
        rows.setdefault(mine, {})[column] = cell
        shown[mine] = number
    notes = [_difference(*at, of) for at, of in apart.items()]
    if lonely:
        notes.append(
            f"Published rows are left out where none of our runs stands beside them: {', '.join(sorted(lonely))}."
        )
    return shown, [*(f"published [{i}]: {sources[i - 1]}." for i in sorted({*shown.values()})), *notes]


def _difference(number: int, column: Key, seeds: int, of: Sequence[tuple[Key, float]]) -> str:
    """Say how far ours are from the numbers of one source, in one line; labels that all of them have stand once."""
    keys = [key for key, _ in of]
    alike = [len(of) > 1 and len({key[i] for key in keys}) == 1 for i in range(len(keys[0]))]
    names = [" · ".join(v for v, same in zip(key, alike, strict=True) if v != "–" and not same) for key in keys]
    at = [v for v, same in zip(keys[0], alike, strict=True) if same and v != "–"]
    each = ", ".join(f"{by:+.1f}{f' ({name})' if name else ''}" for name, (_, by) in zip(names, of, strict=True))
    return f"ours − published [{number}]: {each}; {', '.join([*at, *column, f'ours over {_seeds(seeds)}'])}."


def mark(source: int) -> str:
    """Return the ending of the label of a paper's row, with the number of its source."""
    return f"(published [{source}])"


def _source(published: Published) -> str:
    return published.source + (f", {_seeds(published.seeds)}" if published.seeds else "")


def _seeds(n: int) -> str:
    return f"{n} seed{'s' if n > 1 else ''}"


def _notes(rows: Rows, chosen: pd.DataFrame, spec: ReportSpec) -> list[str]:
    every = [cell for found in rows.values() for cell in found.values() if cell.values]
    counts = {len(cell.sample) for cell in every}
    notes = []
    if counts and max(counts) >= FEWEST:
        given = [n for n in counts if n >= FEWEST]
        number = str(min(given)) if len(given) == 1 else f"{min(given)} to {max(given)}"
        kind = "± half of the 95 % t interval" if spec.interval == "t" else "[95 % BCa bootstrap interval]"
        what = "initial sets" if any(len(set(cell.splits)) > 1 for cell in every) else "seeds"
        notes.append(f"Mean {kind} over {number} {what}.")
    if counts and min(counts) < FEWEST:
        notes.append("Fewer than three seeds: the points themselves, as no interval can be given.")
    if any(len(set(cell.splits)) > 1 for cell in every):
        notes.append("Runs on one initial set are averaged first, as they are not independent of each other.")
    notes += _origins(chosen)
    notes += bounds_note(chosen)
    if (chosen["stream.presentation"] != "separate").any():
        notes.append("Runs that see several experiences at once (joint, cumulative) are bounds: shown, not compared.")
    if len({cell.labels for cell in every if not cell.bound}) > 1:
        notes.append("Runs that may know different numbers of labels are not compared with each other.")
    return notes


def bounds_note(chosen: pd.DataFrame) -> list[str]:
    """Say which of the runs are bounds since what chose their labels reads hidden ones; no line if none is."""
    names = sorted({*reading(chosen)} - {""})
    return [f"{', '.join(names)} reads hidden labels: a bound, shown and not compared."] if names else []


def _lacking(metric: str, chosen: pd.DataFrame) -> list[str]:
    """Say which runs do not hold all that a metric takes, since an earlier version recorded them."""
    said, lacking = "", chosen["unsized"]
    if metric in ("accuracy", "average_incremental_accuracy", "accuracy_neighbours"):
        said = UNSIZED
    elif metric in ("train_passes", "relative_passes"):
        said, lacking = MINGLED, chosen["train_passes"].isna()
    return [f"{said} Runs concerned: {lacking.sum()} of {len(chosen)}."] if said and lacking.any() else []


def _origins(chosen: pd.DataFrame) -> list[str]:
    """Say in one line in what the runs' versions, code and processors differ; no line if in nothing."""
    parts = []
    for column, what in (
        ("version", "versions of clsim"),
        ("code", "states of clsim's code"),
        ("processor", "processors"),
    ):
        counts = chosen[column].fillna("not recorded").value_counts(sort=False).sort_index()
        if len(counts) > 1:
            listed = [f"{name} ({n})" for name, n in counts.items()]
            more = f", {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
            parts.append(f"{what} {', '.join(listed[:MOST_NAMED])}{more}")
    return [f"The runs (their number in brackets) were made by several {'; '.join(parts)}."] if parts else []
