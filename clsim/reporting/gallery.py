"""The figures of a page: which there are, of which runs, and why one is absent."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from clsim.errors import InputError
from clsim.reporting import contents, figures, svg
from clsim.reporting.report import COSTS, ReportSpec
from clsim.reporting.series import Look, Series, looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from clsim.reporting.comparisons import Ranks

LINES = 12
"""In one panel; more could not be told apart: the best are drawn."""

SIZES, MATRICES, SELECTORS, SEEDS = 6, 12, 8, 3
"""Of a scenario: sizes of memory with a panel of their own, heat maps, selectors whose memory is shown, seeds of them."""

SCENARIOS = 6
"""With figures; a report of more is drawn for the first, and has tables of all."""


@dataclass(frozen=True)
class Picture:
    """One panel.

    Attributes:
        title: what a panel shows that its neighbours do not.
        svg: the drawing; or:
        image: a ``data:`` address.
        alt: what it shows, in words.
    """

    title: str
    svg: Markup = Markup()
    image: str = ""
    alt: str = ""


@dataclass(frozen=True)
class Group:
    """Panels of one kind, or the reason why there are none."""

    title: str
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    kind: str = "panels"


@dataclass(frozen=True)
class Exhibit:
    """The figures of a scenario, and the looks of the labels in them."""

    scenario: str
    groups: Sequence[Group]
    legend: Sequence[tuple[str, Markup]] = field(default_factory=list)


class Gallery:
    """Draws the figures of one report. Final.

    Args:
        spec: names the costs of the cost figures, by its metrics.
        scenarios: of :func:`clsim.reporting.series.by_scenario`.
        folders: fingerprint → the run's folder, for what memories hold.
        classes: fingerprint → how many classes the run's stream has.
    """

    def __init__(
        self,
        spec: ReportSpec,
        scenarios: Mapping[str, Sequence[Series]],
        folders: Mapping[str, Path | None],
        classes: Mapping[str, int],
    ) -> None:
        self._spec, self._scenarios, self._folders, self._classes = spec, scenarios, folders, classes
        self._looks = looks(s.label for of_scenario in scenarios.values() for s in of_scenario)
        self._names = (f"f{i}" for i in itertools.count())

    def exhibits(self) -> list[Exhibit]:
        """One a scenario."""
        made = []
        for scenario, series in itertools.islice(self._scenarios.items(), SCENARIOS):
            best = {s.label for s in _best(series, LINES)}
            groups = [
                self._over_time("Accuracy over experiences", series, "average accuracy on what was seen, %"),
                self._over_time("Forgetting over experiences", series, "average fall from the best, percentage points"),
                self._over_memory(series),
                self._against_cost(series),
                self._matrices(series),
                *self._memories(series),
            ]
            entries = [
                (label, self._svg(figures.swatch(look), label)) for label, look in self._looks.items() if label in best
            ]
            made.append(Exhibit(scenario, groups, entries))
        return made

    def ranking(self, ranks: Sequence[Ranks]) -> Group:
        """A critical-difference diagram for each metric that has one."""
        pictures = []
        for of_metric in ranks:
            names = [" ".join(v for v in arm if v != "–") for arm in of_metric.arms]
            if len(names) > 24:
                continue
            drawn = figures.ranking(names, of_metric.average, of_metric.bars, of_metric.critical_difference)
            alt = f"Average ranks over {len(of_metric.conditions)} conditions: "
            alt += ", ".join(f"{n} {r:.2f}" for n, r in zip(names, of_metric.average, strict=True))
            note = f"{of_metric.title}, over {len(of_metric.conditions)} conditions; Friedman p = {of_metric.p:.2g}"
            pictures.append(Picture(note, self._svg(drawn, alt), alt=alt))
        notes = ["Names joined by a bar cannot be told apart (Nemenyi's test at 5 %). Rank 1 is the best."]
        if not pictures:
            notes = [
                "No critical-difference diagram: it needs three or more arms that all ran under the same two or more "
                "conditions (scenarios, say), and at most 24 of them."
            ]
        return Group("Ranks over conditions", pictures, notes, "wide")

    def _over_time(self, title: str, series: Sequence[Series], unit: str) -> Group:
        if series[0].matrices.shape[1] < 2:
            return Group(title, notes=["There is one experience only."])
        sizes, notes = _some_sizes(series)
        pictures = []
        for size in sizes:
            shown = [s for s in series if s.memory in (size, None)]
            if "Forgetting" in title:
                shown = [s for s in shown if not s.at_the_end_only]
            ax = figures.panel()
            for s in reversed(_best(shown, LINES)):
                values = s.forgetting if "Forgetting" in title else s.accuracy
                figures.curve(ax, values, self._looks[s.label], s.label)
            ax.set(xlabel="experiences learnt", ylim=(None, None) if "Forgetting" in title else (0, 102))
            ax.set_title(unit, loc="left")
            ax.grid(axis="y", linewidth=0.6)
            if len(shown) > LINES:
                notes = [*notes, f"The best {LINES} of {len(shown)} in a panel."]
            head = f"memory {size}" if size is not None else ""
            pictures.append(self._picture(ax.figure, head, f"{title}, {head or 'no memory'}: {_summary(shown)}"))
        if any(len(s.fingerprints) >= 3 for s in series):
            notes = [*notes, "Mean over seeds; band: 95 % t interval, where there are three seeds or more."]
        return Group(title, pictures, list(dict.fromkeys(notes)))

    def _over_memory(self, series: Sequence[Series]) -> Group:
        sizes = sorted({s.memory for s in series if s.memory is not None})
        if len(sizes) < 2:
            return Group("Accuracy against memory", notes=["Absent: it needs two sizes of memory or more."])
        ax = figures.panel()
        best = {s.label for s in _best(series, LINES)}
        for label in sorted(best):
            figures.over_memory(ax, [s for s in series if s.label == label], self._looks[label], label)
        ax.set_xscale("log")
        ax.set_xticks(sizes if len(sizes) <= 8 else sizes[:: len(sizes) // 6], minor=False)
        ax.xaxis.set_major_formatter("{x:.0f}")
        ax.minorticks_off()
        ax.set(xlabel="exemplars in memory")
        ax.set_title("final accuracy, %", loc="left")
        ax.grid(axis="y", linewidth=0.6)
        notes = ["Whiskers: 95 % t interval. Level lines: without a memory."]
        return Group("Accuracy against memory", [self._picture(ax.figure, "", _summary(series))], notes)

    def _against_cost(self, series: Sequence[Series]) -> Group:
        named = [m for m in self._spec.metrics if m in COSTS and m != "evaluate_seconds"]
        kinds: list[tuple[tuple[str, ...], str]] = [((m,), COSTS[m]) for m in named] or [
            (("train_seconds", "select_seconds"), "training and selection, s"),
            (("forward_passes",), COSTS["forward_passes"]),
        ]
        shown = [s for s in _best(series, 4 * LINES) if np.isfinite(s.final).all()]
        pictures = []
        for names, label in kinds[:6] if shown else []:
            points = [
                (
                    float(np.mean(np.sum([s.costs[n] for n in names], axis=0))),
                    float(np.mean(s.final)),
                    "" if s.memory is None else str(s.memory),
                    self._looks[s.label],
                )
                for s in shown
            ]
            ax = figures.panel()
            figures.against_cost(ax, points)
            ax.set(xlabel=label)
            ax.set_title("final accuracy, %", loc="left")
            ax.grid(linewidth=0.6)
            pictures.append(self._picture(ax.figure, label.split(",")[0], f"Accuracy against {label}: {_summary(shown)}"))
        notes = [
            "One point a row of the table, mean over seeds; the number beside it: exemplars in memory. "
            "Line and filled points: the Pareto front, where nothing else is both cheaper and better. "
            "Seconds compare on one machine only."
        ]
        return Group("Accuracy against cost", pictures, notes)

    def _matrices(self, series: Sequence[Series]) -> Group:
        shown = [s for s in _best(series, MATRICES) if not s.at_the_end_only]
        pictures = []
        for s in sorted(shown, key=lambda s: (s.label, s.memory or 0)):
            ax = figures.panel(2.7, 2.75, left=0.45, bottom=0.45)
            figures.heatmap(ax, s.matrices)
            final = np.mean(s.final)
            alt = f"Accuracy matrix of {s.name}, mean over {len(s.fingerprints)} seeds; final average {final:.1f} %"
            pictures.append(self._picture(ax.figure, s.name, alt))
        notes = ["Row: after experience; column: tested on; percent, mean over seeds. Those of single runs: in the tables."]
        if len(shown) < len(series):
            notes.append(f"{len(shown)} of {len(series)}: the best that were tested after each experience.")
        if pictures:
            pictures.append(Picture("accuracy, %", self._svg(figures.scale(), "Colours of accuracy from 0 to 100 %")))
        return Group("Accuracy matrices", pictures, notes, "small")

    def _memories(self, series: Sequence[Series]) -> list[Group]:
        """Which classes the memories of one size hold, and the images in them."""
        kept = [s for s in series if s.memory is not None]
        sizes = sorted({s.memory for s in kept}, key=lambda m: (-sum(s.memory == m for s in kept), m))
        shown = [s for s in kept if s.memory == sizes[0]][:SELECTORS] if kept else []
        counts: dict[str, np.ndarray] = {}
        pictures, missing = [], []
        for s in shown:
            found = []
            for fingerprint in s.fingerprints[:SEEDS]:
                try:
                    found.append(self._held(fingerprint))
                except InputError as error:
                    missing.append(str(error))
            if found and len({len(h.counts) for h in found}) == 1:
                counts[s.label] = np.mean([h.counts for h in found], axis=0)
            sheet = contents.montage(found[0]) if found else None
            if sheet is not None:
                address, classes = sheet
                alt = f"Exemplars that {s.label} keeps; rows: classes {', '.join(map(str, classes))}"
                pictures.append(Picture(s.label, image=address, alt=alt))
        notes = [f"Skipped {line}" for line in missing[:3]]
        notes += [f"Skipped {len(missing) - 3} more that cannot be read."] if len(missing) > 3 else []
        if not counts:
            reason = "no run of it has a memory" if not kept else "no memory of its runs can be read"
            return [Group("What memories hold", notes=[f"Absent: {reason}.", *notes])]
        classes = len(next(iter(counts.values())))
        counts = {label: c for label, c in counts.items() if len(c) == classes}
        longest = max(map(len, counts))
        ax = figures.panel(7.4, 0.75 + 0.3 * len(counts), left=0.15 + 0.075 * longest)
        figures.picks(ax, counts)
        alt = "; ".join(f"{label}: {c.min():.0f} to {c.max():.0f} a class" for label, c in counts.items())
        about = f"Memory {sizes[0]}, at the end; mean over {SEEDS} seeds at most."
        made = [Group("Exemplars of each class", [self._picture(ax.figure, "", alt)], [about, *notes], "wide")]
        if pictures:
            about = f"Memory {sizes[0]}, at the end, one seed; a row a class, ten of each at most, spread over all classes."
            made.append(Group("What memories hold", pictures, [about], "small"))
        return made

    def _held(self, fingerprint: str) -> contents.Held:
        folder = self._folders[fingerprint]
        if folder is None:
            raise InputError(f"{fingerprint}: it was not stored")
        return contents.held(folder, self._classes[fingerprint])

    def _picture(self, figure: Any, title: str, alt: str) -> Picture:
        return Picture(title, self._svg(figure, alt), alt=alt)

    def _svg(self, figure: Figure, alt: str) -> Markup:
        return svg.inline(figure, next(self._names), alt)


def _best(series: Iterable[Series], most: int) -> list[Series]:
    """The best by final accuracy, in their own order; what was not tested comes last."""
    every = list(series)
    ranked = sorted(every, key=lambda s: -np.nan_to_num(np.mean(s.final), nan=-1.0))[:most]
    return [s for s in every if any(s is r for r in ranked)]


def _some_sizes(series: Sequence[Series]) -> tuple[list[int | None], list[str]]:
    """Sizes of memory that get a panel: all, or some evenly spread."""
    sizes: list[int | None] = sorted({s.memory for s in series if s.memory is not None}) or [None]  # type: ignore[type-var]
    if len(sizes) <= SIZES:
        return sizes, []
    chosen = [sizes[i] for i in np.linspace(0, len(sizes) - 1, SIZES).round().astype(int)]
    return chosen, [f"{SIZES} of {len(sizes)} sizes of memory."]


def _summary(series: Iterable[Series]) -> str:
    """The final numbers in words, for those who do not see the figure."""
    return "; ".join(f"{s.name} {np.mean(s.final):.1f} %" for s in itertools.islice(series, LINES))
