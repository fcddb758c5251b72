"""Figures of a report on labels as PDF, SVG and PNG: accuracy over the number of labels, and the first picks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clsim.records import frame
from clsim.reporting import batch_plots, line_ends, plots
from clsim.reporting.budget_figures import highest, over_labels, parts
from clsim.reporting.names import shortened
from clsim.reporting.picture import sheet
from clsim.reporting.plots import HIGH, LONGEST, beside_legend, beside_names, saved, stem
from clsim.reporting.report import ReportSpec
from clsim.reporting.scenes import Scenes, albums, sizes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(spec: ReportSpec, records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw the figures on labels of a report into a folder; return the files. Without label rounds there are none."""
    return saved(lambda: drawn(spec, records), folder)


def draw_all(spec: ReportSpec, records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw all figures of a report into a folder, those on labels and batches if it asks for them; return the files."""
    made = plots.draw(spec, records, folder) + (draw(spec, records, folder) if spec.labelling else [])
    return made + (batch_plots.draw(spec, records, folder) if spec.batches else [])


def drawn(spec: ReportSpec, records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Draw curves over labels and the first picks for each scenario of a report: name of a file → figure."""
    scenes = Scenes(spec, frame.frame(records, spec.own), records, ())
    short = shortened(scenes.scenarios, LONGEST)
    found: dict[str, Figure] = {}
    for scenario in scenes.scenarios:
        if scenes.series(scenario):
            title = short[scenario]
            name = stem(title, found, "labels")
            found[f"{name}-labels"] = _curves(scenes, scenario, title)
            pictures, notes = albums(scenes.drawn(scenes.series(scenario)))
            pictures = {arm: of for arm, of in pictures.items() if of.images.shape == _like(pictures).shape}
            if pictures:
                x = np.concatenate([of.images for of in pictures.values()]).transpose(0, 3, 1, 2)
                y = np.repeat(np.arange(len(pictures)), [len(of.images) for of in pictures.values()])
                found[f"{name}-picks"] = sheet(x, y, [*pictures], title, notes[0], counted="")
    return found


def _like(pictures: Mapping[str, Any]) -> np.ndarray:
    return next(iter(pictures.values())).images


def _curves(scenes: Scenes, scenario: str, title: str) -> Figure:
    """Draw accuracy over labels, a panel for each size of memory."""
    import seaborn as sns

    series = scenes.series(scenario)
    sizes = sizes_of(series)
    labels = list(dict.fromkeys(s.label for s in series))
    wide = min(len(sizes), 3)
    high = -(-len(sizes) // wide)
    named = len(sizes) == 1 and line_ends.room(labels, HIGH) > 0
    figure = (
        beside_names(4.6, 3.9 * high + 0.3, labels)
        if named
        else beside_legend(4.6 * wide, 3.9 * high + 0.3, labels, scenes.looks)
    )
    axes = figure.subplots(high, wide, squeeze=False, sharey=True).ravel()
    top = highest([arm for _, _, arm in scenes.drawn(series)])
    for ax, size in zip(axes, sizes, strict=False):
        over_labels(ax, scenes.drawn([s for s in series if s.memory in (size, None)]))
        many = any(s.matrices.shape[1] > 1 for s in series)
        x = f"labels{', of all experiences' if many else ''} (grey: initial set{'s' if many else ''})"
        heading = "" if size is None else f"memory {size}"
        ax.set(xlabel=x, ylabel="accuracy on what was seen so far, %", title=heading, ylim=(0, top))
        ax.grid(alpha=0.3)
        sns.despine(ax=ax)
    for ax in axes[len(sizes) :]:
        ax.set_axis_off()
    if named:
        last = [(label, look.color, parts(arm)[-1][-1]) for label, look, arm in scenes.drawn(series) if parts(arm)]
        line_ends.named(axes[0], [(label, color, x, y) for label, color, (x, y, _) in last if np.isfinite(y)], HIGH)
    figure.suptitle(title, fontsize=11)
    return figure
