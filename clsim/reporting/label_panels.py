"""The figures of a report on labels, for its page: curves, measures of the picks, the picks themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clsim.reporting import figures, svg
from clsim.reporting.budget_figures import highest, over_labels, over_rounds
from clsim.reporting.curves import Series
from clsim.reporting.gallery import Exhibit, Group, Picture
from clsim.reporting.names import width
from clsim.reporting.picked import MEASURES, of_classes
from clsim.reporting.report import ReportSpec
from clsim.reporting.scenes import Scenes, albums, sizes_of

if TYPE_CHECKING:
    import pandas as pd

    from clsim.reporting.cells import Table

ROUNDS = ("entropy", "random", "radius", "select_seconds")
"""Measures of the picks that have a panel."""

PANELS, ROWS = 4, 12
"""Most sizes of memory with a panel of curves, and most series that a figure's description names."""


def with_labels(
    spec: ReportSpec,
    runs: pd.DataFrame,
    records: Sequence[Mapping[str, Any]],
    further: Sequence[Table],
    exhibits: Sequence[Exhibit],
) -> list[Exhibit]:
    """Put the figures on labels before those that every report has; of a single experience, only these and memories.

    Args:
        runs, records, further: as in :class:`Scenes`.
        exhibits: the figures of each scenario so far.
    """
    if not spec.labelling:
        return [*exhibits]
    with svg.style(svg.STYLE):
        scenes = Scenes(spec, runs, records, further)
        names = (f"l{i}" for i in itertools.count())
        made = []
        for exhibit in exhibits:
            series = scenes.series(exhibit.scenario, [label for label, *_ in exhibit.legend])
            if not series:
                made.append(exhibit)
                continue
            groups = [
                _curves(scenes, series, names),
                _measures(scenes, series, names),
                _classes(scenes, series, names),
                _first_picks(scenes, series),
            ]
            others = list(exhibit.groups)
            if all(s.matrices.shape[1] == 1 for s in series) and all(s.memory is None for s in series):
                others = [group for group in others if group.title.startswith("Accuracy against")]
            made.append(replace(exhibit, groups=[*groups, *others]))
        return made


def _curves(scenes: Scenes, series: Sequence[Series], names: Iterator[str]) -> Group:
    pictures = []
    top = highest([arm for _, _, arm in scenes.drawn(series)])
    for size in sizes_of(series)[:PANELS]:
        shown = [s for s in series if s.memory in (size, None)]
        ax = figures.panel(6.4, 3.6)
        over_labels(ax, scenes.drawn(shown))
        many = any(s.matrices.shape[1] > 1 for s in shown)
        ax.set(xlabel="labels, of all experiences" if many else "labels", ylim=(0, top))
        ax.set_title("average accuracy on what was seen, %", loc="left")
        ax.grid(axis="y", linewidth=0.6)
        head = f"memory {size}" if size is not None else ""
        alt = f"Accuracy over labels{', ' + head if head else ''}: " + _summary(shown)
        pictures.append(_picture(ax.figure, names, alt, head))
    notes = ["Grey: initial sets, which nobody chose. Mean over seeds; band: 95 % t interval, from three seeds on."]
    drawn = scenes.drawn(series)
    notes += [f"{label} is a bound: it reads hidden labels." for label, _, arm in drawn if arm.cell.bound]
    if len(sizes_of(series)) > PANELS:
        notes.append(f"{PANELS} of {len(sizes_of(series))} sizes of memory.")
    return Group("Accuracy over the number of labels", pictures, notes, "wide")


def _measures(scenes: Scenes, series: Sequence[Series], names: Iterator[str]) -> Group:
    size = sizes_of(series)[0]
    shown = [s for s in series if s.memory in (size, None)]
    pictures = []
    for name in ROUNDS:
        lines = scenes.over_rounds(shown, name)
        if not lines:
            continue
        ax = figures.panel(3.3, 2.4)
        over_rounds(ax, lines)
        ax.set(xlabel="round", ylim=(0, None))
        ax.set_title(MEASURES[name], loc="left")
        ax.grid(axis="y", linewidth=0.6)
        alt = f"{MEASURES[name]}, last round: " + ", ".join(
            f"{label} {cells[max(cells)].mean:.3g}" for label, _, cells in lines
        )
        pictures.append(_picture(ax.figure, names, alt))
    notes = ["Class entropy and overlap: all picks up to the round; the rest: the picks of the round."]
    notes += [f"Memory {size}."] if size is not None else []
    return Group("What was picked, round by round", pictures, notes)


def _classes(scenes: Scenes, series: Sequence[Series], names: Iterator[str]) -> Group:
    counts: dict[str, np.ndarray] = {}
    widest = max(c for _, _, arm in scenes.drawn(series) for r in arm.records for own in r["classes"] for c in own)
    for s, (_, _, arm) in zip(series, scenes.drawn(series), strict=True):
        counts[s.name] = np.mean([of_classes(record, widest + 1) for record in arm.records], axis=0)
    ax = figures.panel(7.4, 0.55 + 0.3 * len(counts), left=0.15 + 0.09 * max(map(width, counts)), top=0.06)
    figures.picks(ax, counts)
    ax.set(xlabel="class (in the cells: labels asked for)" if widest < 12 else "class")
    for bar in ax.figure.axes[1:]:
        bar.set_ylabel("labels asked for")
    alt = "; ".join(f"{label}: {c.min():.0f} to {c.max():.0f} a class" for label, c in counts.items())
    picture = _picture(ax.figure, names, alt)
    return Group("Labels of each class", [picture], ["All rounds, without initial sets; mean over seeds."], "wide")


def _first_picks(scenes: Scenes, series: Sequence[Series]) -> Group:
    found, notes = albums(scenes.drawn(series))
    pictures = [Picture(label, image=of.address, alt=f"The first picks of {label}") for label, of in found.items()]
    return Group("The first picks", pictures, notes, "rows")


def _picture(figure: Any, names: Iterator[str], alt: str, title: str = "") -> Picture:
    return Picture(title, svg.inline(figure, next(names), alt), alt=alt)


def _summary(series: Sequence[Series]) -> str:
    return "; ".join(f"{s.name} {s.level:.1f} % at the end" for s in series[:ROWS])
