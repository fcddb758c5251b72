"""The seeds behind each number of a table, and which numbers are compared with each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from clsim.records.frame import COSTS
from clsim.reporting import statistics
from clsim.reporting.report import ReportSpec, groups
from clsim.reporting.statistics import FEWEST
from clsim.spec.components import BOUNDS

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[str, ...]
"""Labels of a row, a column, an arm or a condition, one for each name."""

BEST, TIED = "*", "~"
"""The marks of the best cell and of those that tie with it, in formats without a better way to mark them."""

Rows = dict[Key, dict[Key, "Cell"]]


@dataclass(frozen=True)
class Cell:
    """The seeds behind a number.

    Attributes:
        values: one number per run, in percent for metrics, in the order of the seeds; runs for which the metric is not
            defined are left out.
        published: the mean, and the ± if given, of a paper, in place of ``values``.
        runs: fingerprints of the runs behind the values.
        seeds: seeds of these runs.
        best: whether no cell that it is compared with has a better mean.
        tied: whether it is not the best, but not significantly worse (see :func:`clsim.reporting.grids.tables`).
        bound: whether the runs see several experiences at once (joint, cumulative), or what chose their labels reads
            hidden ones: such a cell is shown, not compared.
        interval: which interval is shown: ``t``, or ``bootstrap``.
        splits: seeds of the runs' initial sets, −1 where it is that of the run; empty if they are not known.
        labels: how many labels the runs may know, in words; empty if it is not known.
    """

    values: Sequence[float] = ()
    published: Sequence[float] | None = None
    runs: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    best: bool = False
    tied: bool = False
    bound: bool = False
    interval: Literal["t", "bootstrap"] = "t"
    splits: tuple[int, ...] = ()
    labels: str = ""

    @cached_property
    def units(self) -> dict[str, float]:
        """Independent values, by what runs are paired by: the seed, or, where several initial sets were drawn, the set.

        Runs that share an initial set are averaged first, as they are not independent of each other.
        """
        if len(set(self.splits)) < 2:
            return {f"seed {seed}": value for seed, value in zip(self.seeds, self.values, strict=False)}
        found: dict[str, list[float]] = {}
        for split, seed, value in zip(self.splits, self.seeds, self.values, strict=True):
            found.setdefault(f"seed {seed}" if split < 0 else f"split {split}", []).append(value)
        return {split: math.fsum(values) / len(values) for split, values in found.items()}

    @property
    def sample(self) -> Sequence[float]:
        """The values that statistics are of: those of :attr:`units`, or all if the seeds are not known."""
        return tuple(self.units.values()) if len(set(self.splits)) > 1 else self.values

    def __str__(self) -> str:
        """Mean ± half of the 95 % t interval, or mean [bootstrap interval]; the values themselves below three seeds."""
        if self.published is not None:
            return " ± ".join(f"{v:g}" for v in self.published)
        if not self.values:
            return "–"
        digits = decimals(*self.sample)
        if len(self.sample) < FEWEST:
            return ", ".join(f"{v:,.{digits}f}" for v in self.sample)
        if self.interval == "bootstrap":
            low, high = self.bounds
            return f"{self.mean:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"
        return f"{self.mean:,.{digits}f} ± {self.half_width:,.{digits}f}"

    @property
    def mean(self) -> float:
        """Mean of the values; NaN if there are none."""
        if self.published is not None:
            return float(self.published[0])
        return math.fsum(self.sample) / len(self.sample) if self.values else math.nan

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval of the mean; NaN below three seeds, and for a paper's row."""
        if self.interval == "bootstrap":
            return statistics.bootstrap_interval(self.sample, np.random.default_rng(0))
        return statistics.t_interval(self.sample)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval; NaN below three seeds, and for a paper's row."""
        if self.interval == "t":
            return statistics.half_width(self.sample)
        low, high = self.bounds
        return (high - low) / 2


@dataclass(frozen=True)
class Table:
    """The table of one metric: a cell for each row and column label.

    Attributes:
        rows: row label → column label → cell; where nothing was run there is no cell. Papers' rows come last.
        notes: what the numbers and the marks mean.
        published: label of a paper's row → the number of its source, from 1.
        sources: the papers of these rows; number 1 is the first.
        directions: column label → whether higher is better there; empty: as ``higher_is_better`` says.
    """

    metric: str
    title: str
    row_names: Key
    column_names: Key
    columns: Sequence[Key]
    rows: Mapping[Key, Mapping[Key, Cell]]
    notes: Sequence[str]
    higher_is_better: bool = True
    published: Mapping[Key, int] = dataclasses.field(default_factory=dict)
    sources: Sequence[str] = ()
    directions: Mapping[Key, bool] = dataclasses.field(default_factory=dict)


def cells(spec: ReportSpec, metric: str, row_names: Sequence[str], chosen: pd.DataFrame) -> Rows:
    """Group the runs of a report: row label → column label → cell; labels are sorted, numbers by size, then words."""
    scale = 100 if in_percent(spec, metric) else 1
    names = [*row_names, *spec.columns]
    ordered = chosen.sort_values("seed", kind="stable")
    found: dict[Key, list[tuple[float, str, int, bool, int]]] = {}
    known: dict[Key, set[str]] = {}
    for labels, value, run, seed, bound, split, may_know in zip(
        zip(*(ordered[name].map(label_of) for name in names), strict=True) if names else [()] * len(ordered),
        ordered[metric].astype(float),
        ordered["fingerprint"],
        ordered["seed"],
        bounds(ordered),
        splits(ordered),
        labels_known(ordered),
        strict=True,
    ):
        part = found.setdefault(labels, [])
        known.setdefault(labels, set()).add(may_know)
        if math.isfinite(value):
            part.append((scale * value, run, int(seed), bool(bound), split))
    rows: Rows = {}
    for labels in sorted(found, key=natural):
        part = found[labels]
        cell = Cell(
            values=tuple(v for v, *_ in part),
            runs=tuple(run for _, run, *_ in part),
            seeds=tuple(seed for _, _, seed, *_ in part),
            bound=any(bound for *_, bound, _ in part),
            interval=spec.interval,
            splits=tuple(split for *_, split in part),
            labels=" or ".join(sorted(known[labels])),
        )
        rows.setdefault(labels[: len(row_names)], {})[labels[len(row_names) :]] = cell
    return rows


def bounds(runs: pd.DataFrame) -> pd.Series[bool]:
    """Tell which runs are bounds: several experiences are seen at once, or hidden labels by what chose the labels."""
    return (runs["stream.presentation"] != "separate") | (reading(runs) != "")


def reading(runs: pd.DataFrame) -> pd.Series[str]:
    """Name what reads hidden labels in each run: the selector of its labels, or that of its initial set; else empty."""
    found = runs["label"].where(runs["label"].isin(BOUNDS), "")
    if "labelling.initial" in runs:
        found = found.where(~runs["labelling.initial"].isin(BOUNDS), runs["labelling.initial"])
    return found


def splits(runs: pd.DataFrame) -> list[int]:
    """List the seed of the initial set of each run; −1 where it is the seed of the run, or nobody asked for labels."""
    found = runs["labelling.split"] if "labelling.split" in runs else [-1] * len(runs)
    return [int(value) if type(value) is int or value == value else -1 for value in found]


def labels_known(runs: pd.DataFrame) -> list[str]:
    """Say how many labels each run may know, in words that are equal where the numbers are; empty if it is not told."""
    return [str(value) for value in runs["labels_known"]] if "labels_known" in runs else [""] * len(runs)


def contests(
    spec: ReportSpec, row_names: Sequence[str], rows: Rows
) -> Iterator[tuple[Key, dict[Key, tuple[Key, Key]]]]:
    """Yield each condition with the arms compared in it: arm → (row, column) of its cell.

    Bounds are left out. Arms that may know different numbers of labels are not compared: a condition comes once for
    each number.
    """
    names = [*row_names, *spec.columns]
    arm = [i for i, name in enumerate(names) if name in arm_names(spec, row_names)]
    rest = [i for i in range(len(names)) if i not in arm]
    found: dict[tuple[Key, str], dict[Key, tuple[Key, Key]]] = {}
    for row, columns in rows.items():
        for column, cell in columns.items():
            if cell.values and not cell.bound and cell.published is None:
                labels = (*row, *column)
                place = found.setdefault((tuple(labels[i] for i in rest), cell.labels), {})
                place[tuple(labels[i] for i in arm)] = (row, column)
    for (condition, _), arms in sorted(found.items(), key=lambda item: (natural(item[0][0]), natural([item[0][1]]))):
        yield condition, arms


def arm_names(spec: ReportSpec, row_names: Sequence[str]) -> Key:
    """Return the names of the labels that make up an arm; a setting in which runs differ is among them.

    The scenario never is: accuracies on different data sets are not compared.
    """
    further = [name for name in row_names if name not in spec.rows]
    arms = [*spec.arms, *further] if spec.arms else row_names
    return tuple(name for name in (*row_names, *spec.columns) if name in arms and name != "scenario")


def condition_names(spec: ReportSpec, row_names: Sequence[str]) -> Key:
    """Return the names of the labels that make up a condition, under which arms are compared."""
    arms = arm_names(spec, row_names)
    return tuple(name for name in (*row_names, *spec.columns) if name not in arms)


def grouped(spec: ReportSpec, runs: pd.DataFrame, held: Container[str]) -> dict[Key, list[tuple[Key, Cell]]]:
    """Group the runs of a report by condition and arm, as :func:`contests` does; the cells have no values yet.

    Args:
        held: fingerprints of the runs that are kept.
    """
    row_names, chosen = groups(spec, runs)
    chosen = chosen[[run in held for run in chosen["fingerprint"]]].sort_values("seed", kind="stable")
    names = [*row_names, *spec.columns]
    own, rest = arm_names(spec, row_names), condition_names(spec, row_names)
    found: dict[tuple[Key, Key], list[tuple[str, int, int, bool]]] = {}
    columns = zip(*(chosen[name].map(label_of) for name in names), strict=True) if names else [()] * len(chosen)
    about = zip(chosen["fingerprint"], chosen["seed"], splits(chosen), bounds(chosen), strict=True)
    for labels, (run, seed, split, bound) in zip(columns, about, strict=True):
        at = dict(zip(names, labels, strict=True))
        place = tuple(at[name] for name in rest), tuple(at[name] for name in own)
        found.setdefault(place, []).append((run, int(seed), split, bool(bound)))
    made: dict[Key, list[tuple[Key, Cell]]] = {}
    for condition, key in sorted(found, key=lambda place: (natural(place[0]), natural(place[1]))):
        part = found[condition, key]
        cell = Cell(
            (0.0,) * len(part),
            runs=tuple(run for run, *_ in part),
            seeds=tuple(seed for _, seed, *_ in part),
            splits=tuple(split for *_, split, _ in part),
            bound=any(bound for *_, bound in part),
        )
        made.setdefault(condition, []).append((key, cell))
    return made


def alike(
    names: Sequence[str], key: Key, every: Iterable[Key], by: str, value: str, about: tuple[str, ...]
) -> Key | None:
    """Find the arm that has a value in one label and differs from ``key`` in nothing else.

    Args:
        names: the names of the labels of an arm.
        every: the arms.
        by, value: the label, and its value.
        about: beginnings of the names of settings that may differ, too: of several arms, the one with the most equal
            ones is found, and none if that is not a single one.
    """
    if by not in names:
        return None
    at = names.index(by)
    free = [i for i, name in enumerate(names) if name.startswith(about) and i != at]
    like = [
        other
        for other in every
        if other[at] == value and all(other[i] == key[i] for i in range(len(names)) if i != at and i not in free)
    ]
    if key in like:
        return key
    equal = [sum(other[i] == key[i] for i in free) for other in like]
    best = [other for other, count in zip(like, equal, strict=True) if count == max(equal)]
    return best[0] if len(best) == 1 else None


def with_values(cell: Cell, values: Sequence[float]) -> Cell:
    """Return the cell with a value for each of its runs; those without one (NaN) are left out."""
    kept = [i for i, value in enumerate(values) if math.isfinite(value)]
    return dataclasses.replace(
        cell,
        values=tuple(values[i] for i in kept),
        runs=tuple(cell.runs[i] for i in kept),
        seeds=tuple(cell.seeds[i] for i in kept),
        splits=tuple(cell.splits[i] for i in kept),
    )


def aligned(a: Cell, b: Cell) -> tuple[list[float], list[float]]:
    """Return the values of both cells at their common seeds."""
    common = [unit for unit in a.units if unit in b.units]
    return [a.units[unit] for unit in common], [b.units[unit] for unit in common]


def higher_is_better(spec: ReportSpec, metric: str) -> bool:
    """Tell whether higher values of a metric are better; of a cost, lower ones are."""
    return metric in spec.known and spec.known[metric].higher_is_better


def in_percent(spec: ReportSpec, metric: str) -> bool:
    """Tell whether a metric is a share, and shown in percent; a cost never is."""
    return metric in spec.known and spec.known[metric].percent


def title(spec: ReportSpec, metric: str) -> str:
    """Return the heading of a metric or a cost, with its unit."""
    return spec.known[metric].heading if metric in spec.known else COSTS[metric]


def decimals(*values: float) -> int:
    """Choose how many decimals to show of numbers of this size; the larger the number, the fewer.

    >>> decimals(1234.5), decimals(56.7), decimals(0.5), decimals(0.01)
    (0, 1, 2, 3)
    """
    largest = max(map(abs, values))
    return 0 if largest >= 1000 else 1 if largest >= 1 or largest == 0 else 2 if largest >= 0.1 else 3


def natural(labels: Sequence[str]) -> list[tuple[int, float, str]]:
    """Make a key that sorts labels: numbers by size, then words.

    >>> sorted([("1000",), ("20",), ("–",)], key=natural)
    [('20',), ('1000',), ('–',)]
    """
    return [_natural(text) for text in labels]


def _natural(text: str) -> tuple[int, float, str]:
    try:
        number = float(text.removesuffix(" %"))
    except ValueError:
        return (1, 0.0, text)
    return (0, number, text) if math.isfinite(number) else (1, 0.0, text)


def label_of(value: object) -> str:
    """Write a label; a dash if the run lacks the value, as in records of an earlier version."""
    return "–" if value is None or value != value else str(value)
