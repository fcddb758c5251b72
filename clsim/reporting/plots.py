"""Figures of a report as PNG, for papers: accuracy matrices, and accuracy over experiences."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.reporting import figures, report
from clsim.reporting.report import ReportSpec
from clsim.reporting.series import Series, Size, by_scenario, looks
from clsim.store import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 12
"""Heat maps in one figure; a figure of more could not be printed."""


def draw(spec: ReportSpec, records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Both figures for each scenario of a report. Returns the files."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with matplotlib.rc_context({"text.parse_math": False}):  # a name from a spec is text, not a formula
        for scenario, series in by_scenario(spec, report.frame(records), records).items():
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", scenario)
            drawn = {"curves": curves(series, scenario)}
            for start in range(0, len(series), LARGEST):
                suffix = f"-{start // LARGEST + 1}" if len(series) > LARGEST else ""
                drawn[f"matrix{suffix}"] = heatmaps(series[start : start + LARGEST], scenario)
            for kind, figure in drawn.items():
                made.append(folder / f"{name}-{kind}.png")
                _save(figure, made[-1])
    return made


def heatmaps(series: Sequence[Series], title: str) -> Figure:
    """The accuracy matrix of each, mean over seeds: row = after experience, column = tested on."""
    from matplotlib.figure import Figure

    wide = min(len(series), 3)
    high = -(-len(series) // wide)
    figure = Figure(figsize=(3.6 * wide + 0.8, 3.4 * high + 0.5), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False).ravel()
    for ax, of in zip(axes, series, strict=False):
        figures.heatmap(ax, of.matrices)
        ax.set_title(_text(of.name), fontsize=9)
    for ax in axes[len(series) :]:
        ax.set_axis_off()
    figure.colorbar(axes[0].collections[0], ax=list(axes), label="accuracy, %", shrink=0.8, aspect=40)
    figure.suptitle(_text(title), fontsize=11)
    return figure


def curves(series: Sequence[Series], title: str) -> Figure:
    """Average accuracy over the experiences seen so far; band = 95 % t interval over three seeds or more.

    A panel a size of memory, with those that have none in each. What was tested only at the end (joint training) is a
    horizontal line.
    """
    import seaborn as sns
    from matplotlib.figure import Figure

    sizes: list[Size | None] = [*sorted({s.memory for s in series if s.memory is not None})] or [None]
    look = looks(s.label for s in series)
    figure = Figure(figsize=(4.6 * len(sizes) + 2.2, 4.2), layout="constrained")
    axes = figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0]
    for ax, size in zip(axes, sizes, strict=True):
        for s in series:
            if s.memory in (size, None):
                figures.curve(ax, s.accuracy, look[s.label], _text(s.label))
        ax.set(xlabel="experiences learnt", title="" if size is None else f"memory {size}", ylim=(0, 102))
        ax.grid(alpha=0.3)
        sns.despine(ax=ax)
    axes[0].set_ylabel("average accuracy on them, %")
    drawn = {handle.get_label(): handle for ax in axes for handle in ax.get_legend_handles_labels()[0]}
    figure.legend(drawn.values(), drawn.keys(), fontsize=9, frameon=False, loc="outside right center")
    figure.suptitle(_text(title), fontsize=11)
    return figure


def _text(label: str) -> str:
    """One line, for a font that has no glyph for control characters."""
    return "".join(c if c.isprintable() else " " for c in label)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write(path, buffer.getvalue())
