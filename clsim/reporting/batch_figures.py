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
from clsim.reporting.line_ends import End, named, shade
from clsim.reporting.statistics import half_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"steps": "gradient steps", "candidates": "candidates", "all_seconds": "seconds, irreducible-loss nets included"}
"""What accuracy is drawn over: axis of :data:`clsim.records.step_curve.AXES` → its heading."""


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
                shade(ax, x, part.accuracy - part.half, part.accuracy + part.half, look)
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
        named(ax, kept, high)


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
