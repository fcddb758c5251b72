"""Figures of a report on labels: accuracy over their number, and measures of the picks over rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clsim.reporting.budgets import Arm, mean
from clsim.reporting.cells import Cell
from clsim.reporting.curves import LineStyle
from clsim.reporting.line_ends import shade
from clsim.reporting.statistics import half_width
from clsim.reporting.svg import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Drawn = Sequence[tuple[str, LineStyle, Arm]]
"""The arms of a panel: label, style, runs."""


def over_labels(ax: Axes, arms: Drawn) -> None:
    """Draw mean accuracy over the number of labels; band: 95 % t interval, from three seeds on; grey: initial sets.

    In a stream, labels are summed over experiences, and a line is interrupted where the next experience begins.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for start, end in initial_sets([arm for _, _, arm in arms]):
        ax.axvspan(start, end, color=FAINT, alpha=0.55, linewidth=0, zorder=0)
        ax.axvline(end, color=FAINT, linewidth=1, zorder=0)
    for label, look, arm in reversed(arms):
        style = {"color": look.color, "linestyle": look.dash, "linewidth": 1.4}
        for i, part in enumerate(parts(arm)):
            x, y, half = (np.array(column) for column in zip(*part, strict=True))
            every = max(len(x) // 10, 1)
            name = label if i == 0 else None
            ax.plot(x, y, marker=look.marker, markersize=4, markevery=every, label=name, **style)
            if not np.isnan(half).all():
                shade(ax, x, y - half, y + half, look)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def parts(arm: Arm) -> list[list[tuple[float, float, float]]]:
    """Divide a curve by experience: labels, mean accuracy in percent, half of its interval; where all units have it."""
    units = set(arm.cell.units)
    found: dict[int, list[tuple[float, float, float]]] = {}
    for place in arm.places:
        values = arm.at(place)
        if set(values) == units:
            point = arm.labels(place), mean(list(values.values())), half_width(list(values.values()))
            found.setdefault(place[0], []).append(point)
    return list(found.values())


def initial_sets(arms: Sequence[Arm]) -> list[tuple[float, float]]:
    """Find where the labels of initial sets lie on the axis of all labels, as in most arms."""
    places: dict[int, list[tuple[float, float]]] = {}
    for arm in arms:
        firsts = {p.experience: p for points in arm.curves for p in reversed(points)}
        for experience, first in firsts.items():
            start = arm.labels((experience, 0))
            places.setdefault(experience, []).append((start, start + first.initial))
    most = [max(found, key=found.count) for found in places.values()]
    return sorted((start, end) for start, end in most if end > start)


def over_rounds(ax: Axes, lines: Sequence[tuple[str, LineStyle, Mapping[int, Cell]]]) -> None:
    """Draw means over rounds; band: 95 % t interval, from three seeds on.

    Args:
        lines: label, style, and the cell of each round.
    """
    from matplotlib.ticker import MaxNLocator

    for label, look, cells in reversed(lines):
        known = {number: cell for number, cell in cells.items() if cell.values}
        x, y = list(known), np.array([cell.mean for cell in known.values()])
        half = np.array([cell.half_width for cell in known.values()])
        style = {"color": look.color, "linestyle": look.dash, "linewidth": 1.4}
        ax.plot(x, y, marker=look.marker, markersize=4, markevery=max(len(x) // 10, 1), label=label, **style)
        if len(half) and not np.isnan(half).all():
            shade(ax, x, y - half, y + half, look)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def highest(arms: Sequence[Arm]) -> float:
    """Find the top of an axis of accuracies: 102 where some are above 60 %, else a little above the largest."""
    best = max((y for arm in arms for part in parts(arm) for _, y, _ in part if not math.isnan(y)), default=0.0)
    return 102 if best > 60 else max(1.15 * best, 1)
