"""What lines share in every figure: bands that can be told apart, and names at the ends where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clsim.reporting import svg
from clsim.reporting.curves import LineStyle
from clsim.reporting.names import width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST, LINE = 22, 0.135
"""Largest width of a name that is written beside its line, in characters; and the height of one, in inches."""

End = tuple[str, str, float, float]
"""Name and colour of a line, and the point where it ends."""


def shade(ax: Axes, x: Sequence[float] | np.ndarray, low: np.ndarray, high: np.ndarray, look: LineStyle) -> None:
    """Draw a band: a faint area with a thin edge in the dash of its line, so that bands on each other stay apart."""
    ax.fill_between(x, low, high, color=look.color, alpha=0.1, linewidth=0, zorder=1)
    for edge in (low, high):
        ax.plot(x, edge, color=look.color, alpha=0.55, linewidth=0.6, linestyle=look.dash, zorder=1.5)


def room(names: Sequence[str], height: float) -> float:
    """Return the inches that names need beside a panel; 0 where they are too long, or too many for its height."""
    longest = max(map(width, names))
    return 0.0 if longest > LONGEST or len(names) * LINE > height else 0.4 + 0.075 * longest


def named(ax: Axes, ends: Sequence[End], high: float) -> None:
    """Write each name beside a panel of ``high`` inches at the height of its line's end, apart from the others."""
    low, top = ax.get_ylim()
    ordered = sorted(ends, key=lambda end: end[3])
    at = spread([(y - low) / (top - low) for *_, y in ordered], LINE / high)
    for (name, color, x, y), place in zip(ordered, at, strict=True):
        ax.annotate(
            name,
            (x, y),
            (1.04, place),
            textcoords="axes fraction",
            color=svg.INK,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.7, "shrinkA": 1, "shrinkB": 2},
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move rising places apart to a distance of ``gap`` at least, within 0 and 1, each as little as it takes.

    >>> [round(place, 2) for place in spread([0.5, 0.5, 0.9], 0.2)], spread([0.9, 1.0], 0.25)
    ([0.4, 0.6, 0.9], [0.75, 1.0])
    """
    groups: list[list[float]] = []  # of places that touch: the sum of what each would have as the first one, and count
    for i, place in enumerate(places):
        groups.append([place - i * gap, 1.0])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1] = [groups[-1][0] + total, groups[-1][1] + count]
    firsts = [total / count for total, count in groups for _ in range(int(count))]
    most = 1 - gap * (len(places) - 1)
    return [min(max(first, 0.0), max(most, 0.0)) + i * gap for i, first in enumerate(firsts)]
