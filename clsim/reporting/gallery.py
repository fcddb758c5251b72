"""The figures of a page: which there are, of which runs, and why one is absent."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from clsim.errors import InputError
from clsim.records.frame import COSTS
from clsim.records.store import RunRecord
from clsim.reporting import figures, svg
from clsim.reporting.comparisons import Ranks, ranks
from clsim.reporting.curves import Series, Size, by_scenario, looks
from clsim.reporting.held import COLUMNS, Held, held, montage
from clsim.reporting.names import arms, width
from clsim.reporting.report import ReportSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LINES = 12
"""Most labels in the figures of a scenario, as more could not be told apart: the best are drawn."""

SIZES, MATRICES = 12, 20
"""Most sizes of memory with a panel of their own, and most heat maps, of all scenarios: they bound a page's time."""

SELECTORS, SEEDS = 8, 3
"""Most selectors of a scenario whose memory is shown, and most seeds of each."""

SCENARIOS = 6
"""Most scenarios with figures: a report of more has figures of the first ones, and tables of all."""


@dataclass(frozen=True)
class Picture:
    """One panel.

    Attributes:
        title: what this panel shows and its neighbours do not.
        svg: the drawing; None if the panel is an image.
        image: the image as a ``data:`` address; empty if the panel is a drawing.
        alt: what the panel shows, in words.
    """

    title: str
    svg: Markup | None = None
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
    """The figures of a scenario, and a note on what was left out.

    Attributes:
        legend: each label of the figures, the full name of what it stands for, and its style.
    """

    scenario: str
    groups: Sequence[Group]
    legend: Sequence[tuple[str, str, Markup]]
    note: str


def drawn(spec: ReportSpec, every: pd.DataFrame, records: Sequence[RunRecord]) -> tuple[list[Exhibit], Group]:
    """The figures of each scenario, and the diagrams of ranks over conditions.

    Args:
        every: the table of all finished runs.
        records: those of the report.
    """
    data = [record.data for record in records]
    with svg.style(svg.STYLE):
        gallery = Gallery(
            spec,
            by_scenario(spec, every, data),
            {r["fingerprint"]: 1 + max((c for of in r["classes"] for c in of), default=0) for r in data},
            {r.data["fingerprint"]: r.folder for r in records},
        )
        return gallery.exhibits(), gallery.ranking(ranks(spec, every))


class Gallery:
    """Draws the figures of one report. Final.

    Args:
        spec: the report; its metrics name the costs of the cost figures.
        scenarios: the series by scenario, as :func:`clsim.reporting.curves.by_scenario` returns them.
        classes: fingerprint → number of classes of the run's stream.
        folders: fingerprint → the run's folder, for what memories hold.
    """

    def __init__(
        self,
        spec: ReportSpec,
        scenarios: Mapping[str, Sequence[Series]],
        classes: Mapping[str, int],
        folders: Mapping[str, Path | None],
    ) -> None:
        self._spec, self._scenarios, self._classes, self._folders = spec, scenarios, classes, folders
        drawn = max(min(len(scenarios), SCENARIOS), 1)
        self._sizes, self._most = max(min(SIZES // drawn, 6), 2), max(min(MATRICES // drawn, 15), 4)
        self._looks = looks(s.label for of_scenario in scenarios.values() for s in of_scenario)
        self._names = (f"f{i}" for i in itertools.count())

    def exhibits(self) -> list[Exhibit]:
        """Draw the figures of each scenario."""
        made = []
        for scenario, series in itertools.islice(self._scenarios.items(), SCENARIOS):
            best = _best_labels(series)
            count = len({s.label for s in series})
            series = [s for s in series if s.label in best]
            groups = [
                self._over_time("Accuracy over experiences", series, "average accuracy on what was seen, %"),
                self._over_time("Forgetting over experiences", series, "average fall from the best, percentage points"),
                self._against_memory_and_cost(series),
                self._matrices(series),
                *self._memories(series),
            ]
            words = {s.label: s.words for s in series}
            entries = [(label, words[label], figures.swatch(self._looks[label])) for label in best]
            note = f"The {LINES} best of {count}, by final accuracy; the tables have all." if count > LINES else ""
            made.append(Exhibit(scenario, groups, entries, note))
        return made

    def ranking(self, ranks: Sequence[Ranks]) -> Group:
        """Draw a critical-difference diagram for each metric that has one."""
        pictures = []
        for of_metric in ranks:
            if len(of_metric.arms) > 24:
                continue
            short = arms(of_metric.arm_names, of_metric.arms)
            names = [short[arm] for arm in of_metric.arms]
            drawn = figures.ranking(names, of_metric.average, of_metric.bars, of_metric.critical_difference)
            blocks = "seeds" if of_metric.condition_names == ("seed",) else "conditions"
            alt = f"Average ranks over {len(of_metric.conditions)} {blocks}: "
            alt += ", ".join(f"{n} {r:.2f}" for n, r in zip(names, of_metric.average, strict=True))
            note = f"{of_metric.title}, over {len(of_metric.conditions)} {blocks}; Friedman p = {of_metric.p:.2g}"
            pictures.append(Picture(note, self._svg(drawn, alt), alt=alt))
        notes = ["Names joined by a bar cannot be told apart (Nemenyi's test at 5 %). Rank 1 is the best."]
        if not pictures:
            notes = [
                "No critical-difference diagram: it needs three or more arms that all ran under the same two or more "
                "conditions (scenarios, say), and at most 24 of them."
            ]
        return Group("Ranks over conditions", pictures, notes, "wide")

    def _over_time(self, title: str, series: Sequence[Series], unit: str) -> Group:
        if max(s.matrices.shape[1] for s in series) < 2:
            return Group(title, notes=["There is one experience only."])
        sizes, notes = _some_sizes(series, self._sizes)
        highest = max(float(np.nanmax(s.accuracy, initial=0)) for s in series)
        top = 102 if highest > 60 else max(1.15 * highest, 1)  # the same in all panels
        pictures = []
        for size in sizes:
            shown = [s for s in series if s.memory in (size, None)]
            if "Forgetting" in title:
                shown = [s for s in shown if not s.at_the_end_only]
            if not shown:
                continue
            ax = figures.panel()
            for s in reversed(shown):
                values = s.forgetting if "Forgetting" in title else s.accuracy
                figures.curve(ax, values, self._looks[s.label], s.label)
            ax.set(xlabel="experiences learnt", ylim=(None, None) if "Forgetting" in title else (0, top))
            ax.set_title(unit, loc="left")
            ax.grid(axis="y", linewidth=0.6)
            head = f"memory {size}" if size is not None else ""
            pictures.append(self._picture(ax.figure, head, f"{title}, {head or 'no memory'}: {_summary(shown)}"))
        if any(len(s.fingerprints) >= 3 for s in series):
            notes = [*notes, "Mean over seeds; band: 95 % t interval, where there are three seeds or more."]
        return Group(title, pictures, notes)

    def _against_memory_and_cost(self, series: Sequence[Series]) -> Group:
        title = "Accuracy against memory and cost"
        shown = [s for s in series if np.isfinite(s.level)]
        if not shown:
            return Group(title, notes=["Absent: no run was tested on all experiences at the end."])
        pictures, notes = [], []
        sizes = sorted({s.memory for s in shown if s.memory is not None})
        if len(sizes) > 1:
            pictures.append(self._against_memory(shown, sizes))
            about = "Against memory: whiskers are 95 % t intervals, level lines are runs without a memory; "
            notes.append(about + "those beyond the axis are written at its edge.")
        else:
            notes.append("Accuracy against memory is absent: it needs two sizes of memory or more.")
        named = [m for m in self._spec.metrics if m in COSTS and m != "evaluate_seconds"]
        named = [m for m in named if any(np.isfinite(s.costs[m]).all() for s in shown)]  # not known for all runs
        apart = all(np.isfinite(s.costs["train_passes"]).all() for s in shown)
        passes = "train_passes" if apart else "forward_passes"
        kinds: list[tuple[tuple[str, ...], str]] = [((m,), COSTS[m]) for m in named] or [
            (("train_seconds", "select_seconds"), "training and selection, s"),
            ((passes,), COSTS[passes]),
        ]
        pictures += [self._against_cost(shown, *kind) for kind in kinds[:6]]
        notes.append(
            "Against cost: a point for each row of the table, mean over seeds. Line and filled points: the Pareto "
            "front, where nothing else is both cheaper and better; beside them: exemplars in memory. Runs that see "
            "several experiences at once are bounds, and not on it. Seconds compare on one machine only."
        )
        return Group(title, pictures, notes)

    def _against_memory(self, series: Sequence[Series], sizes: Sequence[Size]) -> Picture:
        ax = figures.panel()
        figures.over_memory(ax, series, {s.label: self._looks[s.label] for s in series})
        ticks = sizes if len(sizes) <= 8 else sizes[:: len(sizes) // 6]
        ax.set_xticks([size.amount for size in ticks], [f"{size.amount:g}" for size in ticks], minor=False)
        ax.minorticks_off()
        ax.set(xlabel="exemplars in memory" + (", % of the samples seen" if sizes[0].unit else ""))
        ax.set_title("final accuracy, %", loc="left")
        ax.grid(axis="y", linewidth=0.6)
        return self._picture(ax.figure, "memory", f"Accuracy against memory: {_summary(series)}")

    def _against_cost(self, series: Sequence[Series], names: Sequence[str], label: str) -> Picture:
        points, bounds = [], []
        for s in series:
            cost, accuracy = float(np.mean(np.sum([s.costs[n] for n in names], axis=0))), s.level
            if not np.isfinite(cost):
                continue
            if s.bound:
                bounds.append((cost, accuracy, self._looks[s.label]))
            else:
                points.append((cost, accuracy, str(s.memory or ""), self._looks[s.label]))
        ax = figures.panel()
        figures.against_cost(ax, points, bounds)
        ax.set(xlabel=label)
        ax.set_title("final accuracy, %", loc="left")
        ax.grid(linewidth=0.6)
        return self._picture(ax.figure, label.split(",")[0], f"Accuracy against {label}: {_summary(series)}")

    def _matrices(self, series: Sequence[Series]) -> Group:
        shown = _best((s for s in series if not s.at_the_end_only), self._most)
        pictures = []
        for s in sorted(shown, key=lambda s: (s.label, s.amount)):
            ax = figures.panel(2.7, 2.6, left=0.45, bottom=0.45, top=0.06)
            figures.heatmap(ax, s.matrices)
            final = s.level
            alt = f"Accuracy matrix of {s.name}, mean over {len(s.fingerprints)} seeds; final average {final:.1f} %"
            pictures.append(self._picture(ax.figure, s.name, alt))
        notes = [
            "Row: after experience; column: tested on; percent, mean over seeds; blank: not learnt so far. Those of "
            "single runs: in the tables."
        ]
        if len(shown) < len(series):
            notes.append(f"{len(shown)} of {len(series)}: the best that were tested after each experience.")
        if pictures:
            pictures.append(Picture("accuracy, %", self._svg(figures.scale(), "Colours of accuracy from 0 to 100 %")))
        return Group("Accuracy matrices", pictures, notes, "small")

    def _memories(self, series: Sequence[Series]) -> list[Group]:
        """Show which classes the memories of one size hold, and the images in them."""
        kept = [s for s in series if s.memory is not None]
        sizes = sorted({s.memory for s in kept}, key=lambda m: (-sum(s.memory == m for s in kept), m))
        shown = [s for s in kept if s.memory == sizes[0]][:SELECTORS] if kept else []
        counts: dict[str, np.ndarray] = {}
        memories: list[tuple[str, Held]] = []
        missing = []
        for s in shown:
            found = []
            for fingerprint in s.fingerprints[:SEEDS]:
                try:
                    found.append(self._held(fingerprint))
                except InputError as error:
                    missing.append(str(error))
            if found and len({len(h.counts) for h in found}) == 1:
                counts[s.label] = np.mean([h.counts for h in found], axis=0)
            memories += [(s.label, found[0])] if found and found[0].images is not None else []
        notes = [f"Skipped {line}" for line in missing[:3]]
        notes += [f"Skipped {len(missing) - 3} more that cannot be read."] if len(missing) > 3 else []
        if not counts:
            reason = "no run of it has a memory" if not kept else "no memory of its runs can be read"
            return [Group("What memories hold", notes=[f"Absent: {reason}.", *notes])]
        classes = len(next(iter(counts.values())))
        counts = {label: c for label, c in counts.items() if len(c) == classes}
        longest = max(map(width, counts))
        ax = figures.panel(7.4, 0.55 + 0.3 * len(counts), left=0.15 + 0.09 * longest, top=0.06)
        figures.picks(ax, counts)
        alt = "; ".join(f"{label}: {c.min():.0f} to {c.max():.0f} a class" for label, c in counts.items())
        about = f"Memory {sizes[0]}, at the end; mean over {SEEDS} seeds at most."
        made = [Group("Exemplars of each class", [self._picture(ax.figure, "", alt)], [about, *notes], "wide")]
        if memories:
            columns = max(memory.columns for _, memory in memories)
            pictures = [
                Picture(label, image=montage(memory, columns), alt=f"Exemplars that {label} keeps")
                for label, memory in memories
            ]
            rows = ", ".join(str(c) for c in memories[0][1].classes)
            about = f"Memory {sizes[0]}, at the end, one seed; a row for each class, {COLUMNS} of it at most."
            tiled = any({"idc", "acc-dd"} & {*s.words.split()} for s in shown)
            held = (
                " Images are shown as they are stored: one of idc or acc-dd holds several small ones." if tiled else ""
            )
            made.append(Group("What memories hold", pictures, [f"{about} Classes: {rows}.{held}"], "small"))
        return made

    def _held(self, fingerprint: str) -> Held:
        folder = self._folders[fingerprint]
        if folder is None:
            raise InputError(f"{fingerprint}: it was not stored")
        return held(folder, self._classes[fingerprint])

    def _picture(self, figure: Any, title: str, alt: str) -> Picture:
        return Picture(title, self._svg(figure, alt), alt=alt)

    def _svg(self, figure: Figure, alt: str) -> Markup:
        return svg.inline(figure, next(self._names), alt)


def _best(series: Iterable[Series], most: int) -> list[Series]:
    """Choose the best series by final accuracy, in their own order; what was not tested counts as the worst."""
    every = list(series)
    ranked = sorted(every, key=lambda s: -np.nan_to_num(s.level, nan=-1.0))[:most]
    return [s for s in every if any(s is r for r in ranked)]


def _best_labels(series: Iterable[Series]) -> list[str]:
    """Choose the labels of the best series, each by its best size of memory; sorted by name."""
    best: dict[str, float] = {}
    for s in series:
        best[s.label] = max(best.get(s.label, -1.0), float(np.nan_to_num(s.level, nan=-1.0)))
    return sorted(sorted(best, key=lambda label: -best[label])[:LINES])


def _some_sizes(series: Sequence[Series], most: int) -> tuple[list[Size | None], list[str]]:
    """Choose the sizes of memory that get a panel, all or some evenly spread; also return notes on that."""
    sizes = sorted({s.memory for s in series if s.memory is not None})
    if len(sizes) <= most:
        return [*sizes] or [None], []
    chosen = np.linspace(0, len(sizes) - 1, most).round().astype(int)
    return [sizes[i] for i in chosen], [f"{most} of {len(sizes)} sizes of memory."]


def _summary(series: Iterable[Series]) -> str:
    """Write the final numbers in words, for readers who do not see the figure."""
    return "; ".join(f"{s.name} {s.level:.1f} %" for s in itertools.islice(series, LINES))
