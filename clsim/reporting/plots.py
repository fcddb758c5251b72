"""Figures of a report as PNG, for papers: accuracy matrices, and accuracy over experiences or a setting."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clsim.errors import InputError
from clsim.records import frame
from clsim.records.atomic import write
from clsim.reporting import figures, report
from clsim.reporting.curves import Series, Size, by_scenario, looks
from clsim.reporting.report import ReportSpec
from clsim.reporting.statistics import half_width

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LARGEST = 12
"""Most heat maps in one figure; a figure of more could not be printed."""


def draw(spec: ReportSpec, records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw curves and matrices for each scenario of a report, one over ``spec.over`` if set; return the files."""
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    made, runs = [], frame.frame(records)
    with matplotlib.rc_context({"text.parse_math": False}):  # a name from a spec is text, not a formula
        for scenario, series in by_scenario(spec, runs, records).items():
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", scenario)
            drawn = {"curves": curves(series, scenario)}
            if spec.over:
                drawn["over"] = over(spec, runs, scenario)
            for start in range(0, len(series), LARGEST):
                suffix = f"-{start // LARGEST + 1}" if len(series) > LARGEST else ""
                drawn[f"matrix{suffix}"] = heatmaps(series[start : start + LARGEST], scenario)
            for kind, figure in drawn.items():
                made.append(folder / f"{name}-{kind}.png")
                _save(figure, made[-1])
    return made


def heatmaps(series: Sequence[Series], title: str) -> Figure:
    """Draw the accuracy matrix of each series, mean over seeds: row = after experience, column = tested on."""
    from matplotlib.figure import Figure

    wide = min(len(series), 3)
    high = -(-len(series) // wide)
    figure = Figure(figsize=(3.6 * wide + 0.8, 3.4 * high + 0.5), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False).ravel()
    for ax, of in zip(axes, series, strict=False):
        figures.heatmap(ax, of.matrices)
        ax.set_title(as_text(of.name), fontsize=9)
    for ax in axes[len(series) :]:
        ax.set_axis_off()
    figure.colorbar(axes[0].collections[0], ax=list(axes), label="accuracy, %", shrink=0.8, aspect=40)
    figure.suptitle(as_text(title), fontsize=11)
    return figure


def curves(series: Sequence[Series], title: str) -> Figure:
    """Draw average accuracy over the experiences seen so far; band: 95 % t interval, from three seeds on.

    There is a panel for each size of memory; series without a memory are in each of them. A series that was tested
    only at the end (joint training) is a horizontal line.
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
                figures.curve(ax, s.accuracy, look[s.label], as_text(s.label))
        ax.set(xlabel="experiences learnt", title="" if size is None else f"memory {size}", ylim=(0, 102))
        ax.grid(alpha=0.3)
        sns.despine(ax=ax)
    axes[0].set_ylabel("average accuracy on them, %")
    drawn = {handle.get_label(): handle for ax in axes for handle in ax.get_legend_handles_labels()[0]}
    figure.legend(drawn.values(), drawn.keys(), fontsize=9, frameon=False, loc="outside right center")
    figure.suptitle(as_text(title), fontsize=11)
    return figure


def over(spec: ReportSpec, runs: pd.DataFrame, scenario: str) -> Figure:
    """Draw final accuracy over the label ``spec.over``, a line for each of the other labels; bar: 95 % t interval.

    The axis is logarithmic where the largest value is five times the smallest or more.

    Raises:
        InputError: if the values of that label are no numbers.
    """
    import seaborn as sns
    from matplotlib.figure import Figure

    names, chosen = report.groups(spec, runs)
    chosen = chosen[chosen["scenario"].astype(str) == scenario]
    rest = [n for n in (*names, *spec.columns) if n not in ("scenario", spec.over)]
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    ax = figure.subplots()
    groups = [(words, part) for words, part in chosen.groupby(rest, dropna=False)] if rest else [((scenario,), chosen)]
    look = looks(" ".join(str(word) for word in words if str(word) != "–") for words, _ in groups)
    for (label, style), (_, part) in zip(look.items(), groups, strict=True):
        by_value = {value: 100 * of["accuracy"].to_numpy(float) for value, of in part.groupby(spec.over)}
        if not all(isinstance(value, Real) for value in by_value):
            raise InputError(f"report: over: {spec.over} has values like {next(iter(by_value))!r}, allowed: numbers")
        y = [float(values.mean()) for values in by_value.values()]
        error = np.nan_to_num([half_width(values.tolist()) for values in by_value.values()])
        line = {"color": style.color, "linestyle": style.dash, "linewidth": 1.4, "capsize": 2}
        ax.errorbar(list(by_value), y, error, marker=style.marker, markersize=4.5, label=as_text(label), **line)
    ticks = sorted(chosen[spec.over].unique())
    if ticks[0] > 0 and ticks[-1] >= 5 * ticks[0]:
        ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(xlabel=spec.over, ylabel="final accuracy, %", title=as_text(scenario))
    ax.grid(alpha=0.3)
    sns.despine(ax=ax)
    figure.legend(fontsize=9, frameon=False, loc="outside right center")
    return figure


def as_text(label: str) -> str:
    """Replace control characters, for which a font has no glyph, by spaces."""
    return "".join(c if c.isprintable() else " " for c in label)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write(path, buffer.getvalue())
