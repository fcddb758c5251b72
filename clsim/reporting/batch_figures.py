"""Figures of a report on batches: accuracy over gradient steps, over candidates, and over seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clsim.reporting import svg
from clsim.reporting.batches import Arm
from clsim.reporting.cells import with_values
from clsim.reporting.curves import LineStyle
from clsim.reporting.figures import short
from clsim.reporting.names import width
from clsim.reporting.statistics import half_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"steps": "gradient steps", "candidates": "candidates", "all_seconds": "seconds, irreducible-loss nets included"}
"""What accuracy is drawn over: axis of :data:`clsim.records.step_curve.AXES` → its heading."""

LONGEST, LINE = 22, 0.135
"""Largest width of a name that is written beside its line, in characters; and the height of one, in inches."""


@dataclass(frozen=True)
class Stretch:
    """The curve of an arm in one experience, where all of its runs were tested.

    Attributes:
        taken: axis → mean over runs of what was taken since the run began, (n,).
        accuracy: mean accuracy in percent, (n,).
        half: half of its 95 % t interval, (n,); NaN below three seeds.
    """

    taken: Mapping[str, np.ndarray]
    accuracy: np.ndarray
    half: np.ndarray


def stretches(arm: Arm) -> list[Stretch]:
    """Average the curves of an arm at equal numbers of steps; between two tests of a run, on a straight line."""
    before, made = dict.fromkeys(AXES, 0.0), []
    for position in sorted(set.intersection(*({*of} for of in arm.ways))):
        ways = [of[position] for of in arm.ways]
        steps = [way.taken["steps"] for way in ways]
        places = np.unique(np.concatenate(steps))
        places = places[(places >= max(own[0] for own in steps)) & (places <= min(own[-1] for own in steps))]
        if len(places):
            values = np.stack([100 * np.interp(places, own, w.accuracy) for own, w in zip(steps, ways, strict=True)])
            samples = [with_values(arm.cell, column).sample for column in values.T]
            taken = {
                axis: before[axis]
                + np.mean([np.interp(places, own, w.taken[axis]) for own, w in zip(steps, ways, strict=True)], axis=0)
                for axis in AXES
            }
            accuracy = np.array([math.fsum(sample) / len(sample) if sample else math.nan for sample in samples])
            made.append(Stretch(taken, accuracy, np.array([half_width(sample) for sample in samples])))
        for axis in AXES:
            before[axis] += float(np.mean([way.end(axis) for way in ways]))
    return made


def over(ax: Axes, axis: str, lines: Sequence[tuple[str, LineStyle, Sequence[Stretch]]], *, high: float = 0.0) -> None:
    """Draw mean accuracy over an axis of :data:`AXES`; band: 95 % t interval, from three seeds on.

    A line is interrupted where the next experience begins. The axis is logarithmic where the longest line is five times
    the shortest or more. Lines that end below half of the best accuracy are written at the
    lower edge, so that the others can be told apart.

    Args:
        lines: name, style and curve of each arm.
        high: the height of the panel in inches; each name is written beside it, at the end of its line. 0: none is.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    ends = []
    for name, look, parts in reversed(lines):
        style = {"color": look.color, "linestyle": look.dash, "linewidth": 1.4}
        for i, part in enumerate(parts):
            x, every = part.taken[axis], max(len(part.accuracy) // 8, 1)
            ax.plot(
                x, part.accuracy, marker=look.marker, markersize=4, markevery=every, label=None if i else name, **style
            )
            if not np.isnan(part.half).all():
                ends_of = part.accuracy - part.half, part.accuracy + part.half
                ax.fill_between(x, *ends_of, color=look.color, alpha=0.14, linewidth=0)
        ends.append((name, look.color, float(parts[-1].taken[axis][-1]), float(parts[-1].accuracy[-1])))
    reached = [x for *_, x, _ in ends]
    if max(reached) >= 5 * min(reached):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    else:
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    ax.set_xlabel(AXES[axis])
    kept = _cut(ax, ends, [parts for *_, parts in lines])
    if high:
        _named(ax, kept, high)


End = tuple[str, str, float, float]
"""Name and colour of a line, and the point where it ends."""


def _cut(ax: Axes, ends: Sequence[End], lines: Sequence[Sequence[Stretch]]) -> list[End]:
    """Set the range of accuracies to that of the lines that end above half of the best; return the ends of these.

    The others are written at the lower edge.
    """
    best = max(y for *_, y in ends)
    kept = [end for end in ends if end[3] >= best / 2]
    if len(kept) == len(ends):
        return kept
    shown = [part.accuracy for parts in lines if parts[-1].accuracy[-1] >= best / 2 for part in parts]
    low, high = min(float(np.nanmin(of)) for of in shown), max(float(np.nanmax(of)) for of in shown)
    margin = max(0.06 * (high - low), 0.5)
    ax.set_ylim(max(low - 3 * margin, 0), high + margin)
    text = ", ".join(f"{name} {y:.1f} %" for name, _, _, y in reversed(ends) if y < best / 2)
    ax.text(0.98, 0.02, f"↓ {text}", ha="right", va="bottom", fontsize=8, color=svg.INK, transform=ax.transAxes)
    return kept


def room(names: Sequence[str], height: float) -> float:
    """Return the inches that names need beside a panel; 0 where they are too long, or too many for its height."""
    longest = max(map(width, names))
    return 0.0 if longest > LONGEST or len(names) * LINE > height else 0.4 + 0.075 * longest


def _named(ax: Axes, ends: Sequence[End], high: float) -> None:
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
