"""Panels of figures, an axes each: curves, heat maps, accuracy against memory and cost, ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from clsim.reporting import svg
from clsim.reporting.curves import LineStyle, Series, band, mean
from clsim.reporting.line_ends import shade
from clsim.reporting.names import width
from clsim.reporting.statistics import half_width
from clsim.reporting.svg import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (4.1, 2.9)
"""Width and height of a panel in inches: legible without scaling in a column of a paper and on a telephone."""


def panel(
    width: float = SIZE[0], height: float = SIZE[1], left: float = 0.42, bottom: float = 0.45, top: float = 0.24
) -> Axes:
    """Make the axes of a figure with one panel.

    All sizes and margins are in inches; a layout solver would take longer than the drawing.
    """
    import seaborn as sns
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    ax = figure.subplots()
    figure.subplots_adjust(left / width, bottom / height, 1 - 0.12 / width, 1 - top / height)
    sns.despine(ax=ax)
    return ax


def curve(ax: Axes, values: np.ndarray, look: LineStyle, label: str) -> None:
    """Draw the mean over seeds of (seeds, T) values over experiences; band: 95 % t interval, from three seeds on."""
    size, line = values.shape[1], mean(values, 0)
    x, every = np.arange(1, size + 1), max(size // 10, 1)
    style = {"color": look.color, "linestyle": look.dash, "linewidth": 1.4}
    if size > 1 and np.isnan(line[:-1]).all():  # tested at the end only
        ax.axhline(line[-1], label=label, **style)
        return
    ax.plot(x, line, marker=look.marker, markersize=4, markevery=every, label=label, **style)
    half = band(values)
    if not np.isnan(half).all():
        shade(ax, x, line - half, line + half, look)
    ax.set_xticks(x if size <= 10 else x[4::5])


def heatmap(ax: Axes, matrices: np.ndarray) -> None:
    """Draw the mean over seeds of accuracy matrices in percent: row = after experience, column = tested on.

    Experiences that were still to come are blank, also where they were tested.
    """
    import seaborn as sns

    size = matrices.shape[1]
    seen = np.tri(size, dtype=bool)
    ticks = [i for i in range(1, size + 1) if size <= 10 or i % 5 == 0]
    sns.heatmap(
        np.where(seen, mean(matrices, 0), np.nan),
        ax=ax,
        vmin=0,
        vmax=100,
        cmap="viridis",
        square=True,
        annot=size <= 10,
        fmt=".0f",
        annot_kws={"fontsize": 8},
        cbar=False,
        xticklabels=False,
        yticklabels=False,
        rasterized=True,
    )
    ax.set_xticks([i - 0.5 for i in ticks], [str(i) for i in ticks])
    ax.set_yticks([i - 0.5 for i in ticks], [str(i) for i in ticks])
    ax.set(xlabel="tested on experience", ylabel="after experience")
    ax.tick_params(length=0, labelrotation=0)


def over_memory(ax: Axes, series: Sequence[Series], looks: Mapping[str, LineStyle]) -> None:
    """Draw final accuracy against the size of memory, on a logarithmic axis; a series without a memory is a level line.

    The axis spans the series with a memory: a level far from them is written at the edge, so that they can be told
    apart.
    """
    ends, every = [], sorted({s.amount for s in series if s.memory is not None})
    kept = [label for label in looks if any(s.label == label and s.memory is not None for s in series)]
    for i, label in enumerate(kept):
        group = [s for s in series if s.label == label and s.memory is not None]
        x, y = dodged([s.amount for s in group], every, i, len(kept), log=True), np.asarray([s.level for s in group])
        error = np.nan_to_num([half_width(s.final) for s in group])
        ends += [*(y - error), *(y + error)]
        look = looks[label]
        style = {"color": look.color, "linestyle": look.dash, "linewidth": 1.4}
        ax.errorbar(x, y, error, marker=look.marker, markersize=4.5, capsize=2, **style)
    ax.set_xscale("log")
    margin = max(0.06 * (max(ends) - min(ends)), 0.5)
    low, high = min(ends) - margin, max(ends) + margin
    far = []
    for s in series:
        if s.memory is None and s.label in looks:
            level, look = s.level, looks[s.label]
            near = low - (high - low) < level < high + (high - low)
            low, high = (min(low, level - margin), max(high, level + margin)) if near else (low, high)
            if near:
                ax.axhline(level, color=look.color, linestyle=look.dash, linewidth=1.4)
            else:
                far.append((level < low, f"{s.label} {level:.1f} %"))
    ax.set_ylim(low, high)
    for below, arrow, edge, align in ((True, "↓", 0.02, "bottom"), (False, "↑", 0.98, "top")):
        if texts := [text for is_below, text in far if is_below == below]:
            text = "\n".join(f"{arrow} {text}" for text in texts)
            ax.text(0.98, edge, text, transform=ax.transAxes, ha="right", va=align, fontsize=8)


def over_setting(
    ax: Axes, lines: Mapping[str, Mapping[float, Sequence[float]]], looks: Mapping[str, LineStyle]
) -> None:
    """Draw means over a setting, a line for each arm; bar: 95 % t interval.

    The axis is logarithmic where the largest value is five times the smallest or more.

    Args:
        lines: arm → value of the setting → accuracy of each run in percent.
        looks: the style of each arm.
    """
    ticks = sorted({value for line in lines.values() for value in line})
    log = ticks[0] > 0 and ticks[-1] >= 5 * ticks[0]
    for i, label in enumerate(sorted(lines)):
        by_value, style = dict(sorted(lines[label].items())), looks[label]
        x = dodged(list(by_value), ticks, i, len(lines), log=log)
        y = [float(np.mean(values)) for values in by_value.values()]
        error = np.nan_to_num([half_width(values) for values in by_value.values()])
        line = {"color": style.color, "linestyle": style.dash, "linewidth": 1.4, "capsize": 2}
        ax.errorbar(x, y, error, marker=style.marker, markersize=4.5, label=label, **line)
    if log:
        ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def dodged(x: Sequence[float], every: Sequence[float], i: int, lines: int, *, log: bool) -> list[float]:
    """Move the points of a line a little to the side, so that the error bars of several lines do not cover each other.

    Args:
        x: the line's values.
        every: the values of all lines, sorted.
        i: number of the line, from 0.
        lines: number of lines, which share a third of the smallest distance between two values.
        log: whether the axis is logarithmic, and distances are ratios.

    >>> dodged([10, 20], [10, 20, 40], 1, 2, log=False)
    [10.8..., 20.8...]
    """
    scale = np.log(every) if log else np.asarray(every, dtype=float)
    gap = float(np.diff(scale).min()) if len(scale) > 1 else 0.0
    shift = gap / 3 * ((i + 0.5) / lines - 0.5)
    return [float(value * np.exp(shift) if log else value + shift) for value in x]


def against_cost(
    ax: Axes, points: Sequence[tuple[float, float, str, LineStyle]], bounds: Sequence[tuple[float, float, LineStyle]]
) -> None:
    """Draw accuracy against cost, and the Pareto front.

    Args:
        points: cost, accuracy, text to write beside the point if it is on the front, style.
        bounds: cost, accuracy, style of runs that see several experiences at once: they are not on the front.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    best = front([(cost, accuracy) for cost, accuracy, _, _ in points])
    if best:
        ax.step(*zip(*best, strict=True), where="post", color=INK, linewidth=0.9, alpha=0.5, zorder=1)
    for cost, accuracy, _, look in points:
        face = look.color if (cost, accuracy) in best else "none"
        ax.plot(cost, accuracy, look.marker, color=look.color, markerfacecolor=face, markersize=6, zorder=2)
    for cost, accuracy, look in bounds:
        ax.plot(cost, accuracy, look.marker, color=look.color, markerfacecolor="none", markersize=6, alpha=0.6)
    costs = [point[0] for point in points] + [bound[0] for bound in bounds]
    if min(costs) > 0 and max(costs) > 5 * min(costs):
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(costs) < 300 * min(costs) else (1,)))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.minorticks_off()
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    ax.margins(x=0.1, y=0.1)
    ax.autoscale_view()  # positions are computed below
    written: list[tuple[float, float]] = []
    for cost, accuracy, text, _ in sorted(points, key=lambda point: -point[1]):
        x, y = ax.transAxes.inverted().transform(ax.transData.transform((cost, accuracy)))
        if (cost, accuracy) in best and all(abs(x - u) > 0.14 or abs(y - v) > 0.08 for u, v in written):
            ax.annotate(text, (cost, accuracy), (-4, 4), textcoords="offset points", fontsize=8, ha="right")
            written.append((x, y))


def short(value: float) -> str:
    """Write a number of any size for an axis.

    >>> short(0.25), short(20), short(15_000), short(2e6), short(3e9)
    ('0.25', '20', '15k', '2M', '3G')
    """
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Find the points (cost, gain) that no other beats in both, by rising cost.

    >>> front([(1, 5), (2, 4), (3, 7), (1, 6), (3, 8)])
    [(1, 6), (3, 8)]
    """
    best: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or gain > best[-1][1]:
            best.append((cost, gain))
    return best


def picks(ax: Axes, shares: Mapping[str, np.ndarray]) -> None:
    """Draw the number of exemplars of each class in memory at the end, a row for each selector.

    Args:
        shares: label of a selector → exemplars of each class, mean over seeds, (classes,).
    """
    import seaborn as sns

    counts = np.stack(list(shares.values()))
    classes = counts.shape[1]
    sns.heatmap(
        counts,
        ax=ax,
        cmap="cividis",
        vmin=0,
        annot=classes <= 12,
        fmt=".0f",
        annot_kws={"fontsize": 8},
        cbar=classes > 12,
        xticklabels=[str(c) if classes <= 12 or c % 10 == 0 else "" for c in range(classes)],
        yticklabels=list(shares),
        cbar_kws={"label": "exemplars"},
        rasterized=True,
    )
    ax.set(xlabel="class (in the cells: exemplars in memory)" if classes <= 12 else "class")
    ax.tick_params(length=0, labelrotation=0)


def swatch(look: LineStyle) -> Markup:
    """Write the style in a legend's entry as SVG; by hand, as a page has many of them and a figure takes longer."""
    from matplotlib.markers import MarkerStyle

    marker = MarkerStyle(look.marker)
    path = marker.get_path().transformed(marker.get_transform())
    outline = np.concatenate([np.asarray(polygon, dtype=float) for polygon in path.to_polygons()])
    points = [f"{20 + 6.5 * x:.1f},{7 - 6.5 * y:.1f}" for x, y in outline.tolist()]
    dashes = [1.4 * d for d in look.dash[1]] if isinstance(look.dash, tuple) else []
    return Markup(
        '<svg viewBox="0 0 40 14" width="40" height="14" aria-hidden="true"><path d="M1 7H39" fill="none" '
        'stroke="{0}" stroke-width="1.9" stroke-dasharray="{1}"/><polygon points="{2}" fill="{0}"/></svg>'
    ).format(svg.themed(look.color), " ".join(f"{d:.2f}" for d in dashes) or "none", " ".join(points))


def scale() -> Figure:
    """Draw the colour scale of accuracy, 0 to 100 %."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6, 0.42))
    ax = figure.add_axes((0.06, 0.62, 0.88, 0.3))
    figure.colorbar(ScalarMappable(Normalize(0, 100), "viridis"), cax=ax, orientation="horizontal")
    ax.tick_params(labelsize=8, length=2)
    return figure


def ranking(names: Sequence[str], average: Sequence[float], bars: Sequence[tuple[int, int]], distance: float) -> Figure:
    """Draw a critical-difference diagram: average ranks on a line, and a bar over arms that cannot be told apart.

    Args:
        names: names of the arms, the best rank first.
        average: average ranks of the arms.
        bars: first and last arm of each bar.
        distance: the critical difference of average ranks.

    Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 2006), figure 1.
    """
    from matplotlib.figure import Figure

    arms, left = len(names), (len(names) + 1) // 2
    below = 0.14 * len(bars) + 0.16  # inches from the axis to the first name
    height = 0.75 + below + 0.2 * left
    side = max(2.3, 0.35 + 0.085 * (max(map(width, names)) + 6))  # inches beside the axis, for a name and its rank
    start, end, top = side, side + 2.6, 0.62
    figure = Figure(figsize=(end + side, height))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, end + side), ylim=(height, 0))
    ax.set_axis_off()

    def x(rank: float) -> float:
        return start + (end - start) * (rank - 1) / (arms - 1)

    ax.plot([start, end], [top, top], color=INK, linewidth=1)
    for tick in range(1, arms + 1):
        ax.plot([x(tick)] * 2, [top - 0.06, top], color=INK, linewidth=0.8)
        ax.text(x(tick), top - 0.1, str(tick), ha="center", va="bottom", fontsize=8.5)
    reach = min(start + (end - start) * distance / (arms - 1), end + side - 0.1)
    ax.plot([start, reach], [0.2, 0.2], color=INK, linewidth=1.6)
    ax.text(start - 0.08, 0.2, f"critical difference {distance:.2f}", ha="right", va="center", fontsize=8.5)
    for i, (name, rank) in enumerate(zip(names, average, strict=True)):
        y = top + below + 0.2 * (i if i < left else arms - 1 - i)
        side, edge, align = (-1.0, start - 0.1, "right") if i < left else (1.0, end + 0.1, "left")
        ax.plot([x(rank), x(rank), edge], [top, y, y], color=INK, linewidth=0.7)
        ax.text(edge + side * 0.05, y, f"{name}\u2002{rank:.2f}", ha=align, va="center", fontsize=8.5)
    for i, (first, last) in enumerate(bars):
        y = top + 0.13 * (i + 1)
        ends = [x(average[first]) - 0.03, x(average[last]) + 0.03]
        ax.plot(ends, [y, y], color=INK, linewidth=3, solid_capstyle="butt")
    return figure
