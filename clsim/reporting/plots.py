"""Figures of a report as PDF, SVG and PNG: accuracy matrices, and accuracy over experiences or a setting."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Container, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clsim.errors import InputError
from clsim.records import frame
from clsim.records.atomic import make_folder, write
from clsim.reporting import figures, line_ends, names, report, svg
from clsim.reporting.cells import label_of
from clsim.reporting.curves import LineStyle, Series, Size, by_scenario, looks, mean
from clsim.reporting.names import shortened
from clsim.reporting.report import ReportSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LARGEST = 12
"""Most heat maps in one figure; a figure of more could not be printed."""

HIGH = 3.0
"""Height of a panel of curves in inches, about: so many names have room beside it."""

FORMS = {"pdf": ("CreationDate", "Creator", "Producer"), "svg": ("Creator", "Date", "Format", "Type"), "png": ()}
"""Formats of figures, by the endings of their files → what a file does not say, as it changes with time or version."""

LONGEST = 44
"""Largest width of a figure's title, in characters."""


def draw(spec: ReportSpec, records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw the figures of a report into a folder; return the files."""
    return saved(lambda: drawn(spec, records), folder)


def saved(make: Callable[[], Mapping[str, Figure]], folder: Path) -> list[Path]:
    """Draw figures in the style of papers, and save each under its name in a folder; return the files.

    Each is there as PDF, SVG and PNG. The same records give the same bytes.
    """
    make_folder(folder)
    made = []
    with svg.style({**svg.PLAIN, "pdf.fonttype": 42, "svg.hashsalt": "clsim"}):  # letters that publishers accept
        for name, figure in make().items():
            for kind in FORMS:
                made.append(folder / f"{name}.{kind}")
                save(figure, made[-1])
    return made


def drawn(spec: ReportSpec, records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Draw curves and matrices for each scenario of a report, one over ``spec.over`` if set: name of a file → figure.

    An arm has the same style in all of them.
    """
    runs = frame.frame(records, spec.own)
    scenarios = by_scenario(spec, runs, records)
    lines = over_lines(spec, runs) if spec.over else {}
    look = looks(
        (s.label for series in scenarios.values() for s in series),
        (label for of_scenario in lines.values() for label in of_scenario),
    )
    short = shortened(scenarios, LONGEST)
    found: dict[str, Figure] = {}
    for scenario, series in scenarios.items():
        title = short[scenario]
        name = stem(title, found, "curves")
        found[f"{name}-curves"] = curves(series, title, look)
        if spec.over:
            found[f"{name}-over"] = over(lines[scenario], spec.over, title, look)
        for start in range(0, len(series), LARGEST):
            suffix = f"-{start // LARGEST + 1}" if len(series) > LARGEST else ""
            found[f"{name}-matrix{suffix}"] = heatmaps(series[start : start + LARGEST], title)
    return found


def stem(title: str, taken: Container[str], ending: str) -> str:
    """Make the beginning of a file's name out of a title; with the ending, it is none of those taken."""
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.") or "scenario"
    while f"{made}-{ending}" in taken:
        made += "-2"
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
        ax.set_title(of.name, fontsize=9)
    for ax in axes[len(series) :]:
        ax.set_axis_off()
    figure.colorbar(axes[0].collections[0], ax=list(axes), label="accuracy, %", shrink=0.8, aspect=40)
    figure.suptitle(title, fontsize=11)
    return figure


def curves(series: Sequence[Series], title: str, look: Mapping[str, LineStyle]) -> Figure:
    """Draw average accuracy over the experiences seen so far; band: 95 % t interval, from three seeds on.

    There is a panel for each size of memory; series without a memory are in each of them. A series that was tested
    only at the end (joint training) is a horizontal line.
    """
    import seaborn as sns

    sizes: list[Size | None] = [*sorted({s.memory for s in series if s.memory is not None})] or [None]
    labels = list(dict.fromkeys(s.label for s in series))
    wide = min(len(sizes), 3)
    height = 3.9 * -(-len(sizes) // wide) + 0.3
    named = len(sizes) == 1 and line_ends.room(labels, HIGH) > 0
    figure = beside_names(4.6, height, labels) if named else beside_legend(4.6 * wide, height, labels, look)
    axes = figure.subplots(-(-len(sizes) // wide), wide, squeeze=False, sharey=True).ravel()
    for ax, size in zip(axes, sizes, strict=False):
        for s in series:
            if s.memory in (size, None):
                figures.curve(ax, s.accuracy, look[s.label], s.label)
        heading = "" if size is None else f"memory {size}"
        ax.set(xlabel="experiences learnt", ylabel="accuracy on all learnt so far, %", title=heading, ylim=(0, 102))
        ax.label_outer(remove_inner_ticks=True)
        ax.set_xlabel("experiences learnt")
        ax.grid(alpha=0.3)
        sns.despine(ax=ax)
    for ax in axes[len(sizes) :]:
        ax.set_axis_off()
    if named:
        last = ((s, float(mean(s.accuracy, 0)[-1])) for s in series)
        ends = [(s.label, look[s.label].color, float(s.accuracy.shape[1]), y) for s, y in last if np.isfinite(y)]
        line_ends.named(axes[0], ends, HIGH)
    figure.suptitle(title, fontsize=11)
    return figure


def beside_names(width: float, height: float, labels: Sequence[str], high: float = HIGH) -> Figure:
    """Make a figure with room for names at the ends of lines, at the right of the last axes; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width + line_ends.room(labels, high), height), layout="constrained")


def beside_legend(width: float, height: float, labels: Sequence[str], look: Mapping[str, LineStyle]) -> Figure:
    """Make a figure with room for a legend of lines at its right, outside of all axes; sizes in inches."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    room = 0.8 + 0.09 * max(map(names.width, labels))
    figure = Figure(figsize=(width + room, max(height, 0.22 * len(labels) + 0.6)), layout="constrained")
    handles = [
        Line2D([], [], color=of.color, linestyle=of.dash, marker=of.marker, markersize=4.5, linewidth=1.4)
        for of in (look[label] for label in labels)
    ]
    figure.legend(handles, labels, fontsize=9, frameon=False, loc="outside right center", handlelength=3)
    return figure


def over_lines(spec: ReportSpec, runs: pd.DataFrame) -> dict[str, dict[str, dict[float, list[float]]]]:
    """Group final accuracy for figures over the label ``spec.over``: scenario → arm → its value → percent, by seed.

    Raises:
        InputError: if the values of that label are no numbers.
    """
    columns, chosen = report.groups(spec, runs)
    rest = [n for n in (*columns, *spec.columns) if n not in ("scenario", spec.over)]
    keys = [tuple(map(label_of, key)) for key in chosen[rest].itertuples(index=False, name=None)]
    short = names.arms(rest, keys)
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    cells = zip(chosen["scenario"].astype(str), keys, chosen[spec.over], chosen["accuracy"].astype(float), strict=True)
    for scenario, key, value, accuracy in cells:
        if not isinstance(value, Real):
            raise InputError(f"report: over: {spec.over} has values like {value!r}, allowed: numbers")
        line = found.setdefault(scenario, {}).setdefault(short[key], {})
        line.setdefault(float(value), []).append(100 * accuracy)
    return found


def over(
    lines: Mapping[str, Mapping[float, Sequence[float]]], name: str, title: str, look: Mapping[str, LineStyle]
) -> Figure:
    """Draw final accuracy over a setting, a line for each arm; bar: 95 % t interval.

    The axis is logarithmic where the largest value is five times the smallest or more.

    Args:
        lines: arm → value of the setting → accuracy of each run in percent.
        name: the setting, as a column of :func:`clsim.records.frame.frame`.
        title: title of the figure.
        look: the style of each arm.
    """
    import seaborn as sns

    figure = beside_legend(5.2, 4.2, sorted(lines), look)
    ax = figure.subplots()
    figures.over_setting(ax, lines, look)
    ax.set(xlabel=in_words(name), ylabel="final accuracy, %", title=title)
    ax.grid(alpha=0.3)
    sns.despine(ax=ax)
    return figure


def in_words(name: str) -> str:
    """Name a setting on an axis.

    >>> in_words("memory"), in_words("memory.batch_size"), in_words("labels.per_class")
    ('exemplars in memory', 'batch size (memory)', 'per class (labels)')
    """
    table, _, key = name.rpartition(".")
    known = {"memory": "exemplars in memory"}
    return known.get(name) or (key.replace("_", " ") + (f" ({table.replace('.', ' ')})" if table else ""))


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the ending of its path names, without the date."""
    buffer, kind = io.BytesIO(), path.suffix.removeprefix(".")
    figure.savefig(buffer, format=kind, dpi=150, metadata=dict.fromkeys(FORMS[kind]))
    write(path, buffer.getvalue())
