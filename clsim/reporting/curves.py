"""Curves for figures: the runs of a report, grouped as in its tables, by scenario and size of memory."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clsim.records import frame
from clsim.records.metrics import average, weights
from clsim.reporting import report
from clsim.reporting.cells import bounds, label_of
from clsim.reporting.names import arms
from clsim.reporting.statistics import FEWEST

if TYPE_CHECKING:
    import pandas as pd

    from clsim.reporting.report import ReportSpec

COLORS = ("#0173b2", "#d55e00", "#029e73", "#cc78bc", "#de8f05", "#56b4e9", "#949494", "#ca9161")
"""Seaborn's ``colorblind`` palette without the two that are too light for white paper; neighbours differ clearly."""

DASHES = ("solid", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))
MARKERS = "os^DvPX<>"


@dataclass(frozen=True)
class LineStyle:
    """The style of one label in every figure of a report; no two look alike, and none differ by colour alone."""

    color: str
    dash: Any
    marker: str


@dataclass(frozen=True, order=True)
class Size:
    """The size of a memory: a number of exemplars, or a share of the samples seen, in percent.

    >>> str(Size.of(500)), str(Size.of("1 %"))
    ('500', '1 %')
    """

    amount: float
    unit: str = ""

    @staticmethod
    def of(text: object) -> Size:
        """Read a size as :func:`clsim.spec.naming.memory_size` writes it."""
        number, _, unit = str(text).partition(" ")
        return Size(float(number), unit)

    def __str__(self) -> str:
        return f"{self.amount:.12g} {self.unit}".strip()


@dataclass(frozen=True)
class Series:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: tells the runs from others of the report, in short; scenario and size of memory are apart.
        words: all of what the label is made of, as it stands in tables.
        memory: size of the memory; None without a memory.
        matrices: accuracy matrices of the runs in percent, (seeds, T, T), NaN = not tested.
        fingerprints: fingerprints of the runs.
        sizes: number of test samples of each experience in each run, (seeds, T), as they weigh in average accuracy;
            equal numbers where every experience counts the same.
        bound: whether the runs see several experiences at once (joint, cumulative), or labels that a bound chose.
        costs: name in :data:`clsim.records.frame.COSTS` → one value per run.
    """

    label: str
    words: str
    memory: Size | None
    matrices: np.ndarray
    fingerprints: tuple[str, ...]
    sizes: np.ndarray
    bound: bool
    costs: Mapping[str, Sequence[float]]

    @property
    def amount(self) -> float:
        """Size of memory as a number; 0 without one."""
        return 0.0 if self.memory is None else self.memory.amount

    @property
    def name(self) -> str:
        """Label and size of memory."""
        return self.label if self.memory is None else f"{self.label} {self.memory}"

    @functools.cached_property
    def final(self) -> list[float]:
        """Average accuracy at the end, one value per run; NaN where not all experiences were tested."""
        weighed = zip(self.matrices[:, -1], self.sizes, strict=True)
        return [average(row, sizes) for row, sizes in weighed]

    @functools.cached_property
    def level(self) -> float:
        """Mean of :attr:`final` over seeds."""
        return float(np.mean(self.final))

    @property
    def at_the_end_only(self) -> bool:
        """Whether the runs were tested after the last experience alone, as joint training is."""
        return self.matrices.shape[1] > 1 and bool(np.isnan(self.accuracy[:, :-1]).all())

    @functools.cached_property
    def accuracy(self) -> np.ndarray:
        """Average accuracy on what was seen so far, of what was tested, (seeds, T)."""
        R, n = self.matrices, self.sizes
        return np.stack([mean(R[:, t, : t + 1], 1, n[:, : t + 1]) for t in range(R.shape[1])], axis=1)

    @functools.cached_property
    def forgetting(self) -> np.ndarray:
        """Average fall of the earlier experiences from their best so far, (seeds, T); NaN in the first column.

        F_t = (1/t) Σ_{j<t} max_{j≤i<t} R[i, j] − R[t, j]; the last one is :func:`clsim.records.metrics.forgetting`.
        """
        R = self.matrices
        seen = np.tri(R.shape[1], dtype=bool)
        best = np.maximum.accumulate(np.where(seen, R, -np.inf), axis=1)
        out = np.full(R.shape[:2], np.nan)
        for t in range(1, R.shape[1]):
            out[:, t] = (best[:, t - 1, :t] - R[:, t, :t]).mean(1)
        return out


def by_scenario(spec: ReportSpec, runs: pd.DataFrame, records: Iterable[Mapping[str, Any]]) -> dict[str, list[Series]]:
    """Group the runs of a report's filter: scenario → its series, sorted by label and size of memory.

    Args:
        runs: the :func:`clsim.records.frame.frame` of ``records``.
    """
    row_names, chosen = report.groups(spec, runs)
    names = [n for n in (*row_names, *spec.columns) if n not in ("scenario", "memory")]
    records = list(records)
    matrices = {r["fingerprint"]: 100 * np.asarray(r["accuracy"], dtype=float) for r in records}
    sizes = {r["fingerprint"]: weights(r) or [1] * len(r["accuracy"]) for r in records}
    parts = {
        (scenario, tuple(map(label_of, words)), memory): part
        for (scenario, *words, memory), part in chosen.groupby(["scenario", *names, "memory"], dropna=False)
    }
    short = arms(names, (words for _, words, _ in parts))
    found: dict[str, list[Series]] = {}
    for (scenario, words, memory), part in parts.items():
        shapes = {matrices[f].shape for f in part["fingerprint"]}
        if len(shapes) > 1:
            continue  # a report that pools streams of several lengths has a table of them, but no curve
        series = Series(
            short[words],
            " ".join(word for word in words if word != "–") or str(scenario),
            None if memory == "–" else Size.of(memory),
            np.stack([matrices[f] for f in part["fingerprint"]]),
            tuple(part["fingerprint"]),
            np.array([sizes[f] for f in part["fingerprint"]]),
            bool(bounds(part).any()),
            {name: part[name].tolist() for name in frame.COSTS},
        )
        found.setdefault(str(scenario), []).append(series)
    for of_scenario in found.values():
        of_scenario.sort(key=lambda s: (s.label, s.amount))
    return found


def looks(labels: Iterable[str], further: Iterable[str] = ()) -> dict[str, LineStyle]:
    """Choose a style for each label: the most frequent ones come first, as the first eight differ in colour.

    Args:
        labels: the label of each series of a report.
        further: more labels, which change no style of the others.
    """
    order = dict.fromkeys([*(label for label, _ in Counter(iter(labels)).most_common()), *further])
    colors, dashes, markers = len(COLORS), len(DASHES), len(MARKERS)
    return {  # a colour that comes again has another dash, and a dash with the same marker another colour
        label: LineStyle(
            COLORS[i % colors], DASHES[(i + i // colors) % dashes], MARKERS[(i + i // (2 * colors)) % markers]
        )
        for i, label in enumerate(order)
    }


def mean(values: np.ndarray, axis: int, sizes: np.ndarray | float = 1.0) -> np.ndarray:
    """Compute the mean of what was tested, weighted by ``sizes``; NaN, without a warning, where nothing was."""
    tested = ~np.isnan(values)
    counted = np.where(tested, sizes, 0).sum(axis)
    with np.errstate(invalid="ignore"):
        return np.where(tested, values * sizes, 0).sum(axis) / np.where(tested.any(axis), counted, np.nan)


def band(values: np.ndarray) -> np.ndarray:
    """Half of the 95 % t interval of the mean over seeds, (seeds, T) → (T,); NaN below three seeds.

    The same as :func:`clsim.reporting.statistics.half_width` of each column, computed at once.
    """
    from scipy import stats

    n = np.isfinite(values).sum(0)
    enough = n >= FEWEST
    half = np.full(values.shape[1], np.nan)
    deviation = np.nanstd(values[:, enough], axis=0, ddof=1)
    half[enough] = stats.t.ppf(0.975, n[enough] - 1) * deviation / np.sqrt(n[enough])
    return half
