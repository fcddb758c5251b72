"""Figures of a report, as PNG: accuracy matrices, and accuracy over experiences. Readable in print and by everybody."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clsim.reporting import report
from clsim.reporting.report import ReportSpec
from clsim.reporting.statistics import half_width
from clsim.store import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Groups = Mapping[str, np.ndarray]
"""Label of a group of runs → their accuracy matrices in percent, (seeds, T, T), NaN = not tested."""

LARGEST = 12
"""Groups in one figure; more could not be told apart."""


def draw(spec: ReportSpec, records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Both figures for each scenario of a report. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for scenario, groups, panels in _by_scenario(spec, records):
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", scenario)
        figures = {"curves": curves(panels, scenario)}
        for start in range(0, len(groups), LARGEST):
            part = dict(list(groups.items())[start : start + LARGEST])
            suffix = f"-{start // LARGEST + 1}" if len(groups) > LARGEST else ""
            figures[f"matrix{suffix}"] = heatmaps(part, scenario)
        for kind, figure in figures.items():
            made.append(folder / f"{name}-{kind}.png")
            _save(figure, made[-1])
    return made


def heatmaps(groups: Groups, title: str) -> Figure:
    """The accuracy matrix of each group, mean over seeds: row = after experience, column = tested on."""
    import seaborn as sns
    from matplotlib.figure import Figure

    wide = min(len(groups), 3)
    high = -(-len(groups) // wide)
    size = max(matrices.shape[1] for matrices in groups.values())
    ticks = [str(i) if size <= 10 or i % 5 == 0 else "" for i in range(1, size + 1)]
    figure = Figure(figsize=(3.6 * wide + 0.8, 3.4 * high + 0.5), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False).ravel()
    for ax, (label, matrices) in zip(axes, groups.items(), strict=False):
        sns.heatmap(
            _mean(matrices, 0),
            ax=ax,
            vmin=0,
            vmax=100,
            cmap="viridis",
            square=True,
            annot=size <= 10,
            fmt=".0f",
            annot_kws={"fontsize": 8},
            cbar=False,
            xticklabels=ticks,
            yticklabels=ticks,
        )
        ax.set_title(_text(label), fontsize=9)
        ax.set_xlabel("tested on experience")
        ax.set_ylabel("after experience")
        ax.tick_params(length=0, labelrotation=0)
    for ax in axes[len(groups) :]:
        ax.set_axis_off()
    figure.colorbar(axes[0].collections[0], ax=list(axes), label="accuracy, %", shrink=0.8)
    figure.suptitle(_text(title), fontsize=11)
    return figure


def curves(panels: Mapping[str, Groups], title: str) -> Figure:
    """Average accuracy over the experiences seen so far; band = 95 % t interval over three seeds or more.

    A panel a size of memory. A group that was tested only at the end (joint training) is a horizontal line.
    """
    import seaborn as sns
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(label for groups in panels.values() for label in groups))
    looks = dict(zip(names, zip(sns.color_palette("colorblind", len(names)), _lines(), strict=False), strict=True))
    figure = Figure(figsize=(4.6 * len(panels) + 2.2, 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (name, groups) in zip(axes, panels.items(), strict=True):
        for label, matrices in groups.items():
            color, (style, marker) = looks[label]
            _curve(ax, matrices, _text(label), color, style, marker)
        ax.set(xlabel="experiences learnt", title=_text(name), ylim=(0, 100))
        ax.grid(alpha=0.3)
        sns.despine(ax=ax)
    axes[0].set_ylabel("average accuracy on them, %")
    drawn = {handle.get_label(): handle for ax in axes for handle in ax.get_legend_handles_labels()[0]}
    figure.legend(drawn.values(), drawn.keys(), fontsize=9, frameon=False, loc="outside right center")
    figure.suptitle(_text(title), fontsize=11)
    return figure


def _lines() -> Iterator[tuple[str, str]]:
    """Line styles and markers, so that no two lines differ by colour alone."""
    return ((("-", "--", "-.", ":")[i // 4 % 4], "os^DvPX<>p"[i % 10]) for i in itertools.count())


def _curve(ax: Axes, matrices: np.ndarray, label: str, color: Any, style: str, marker: str) -> None:
    size = matrices.shape[1]
    seen = np.stack([_mean(matrices[:, t, : t + 1], 1) for t in range(size)], axis=1)
    mean = _mean(seen, 0)
    if np.isnan(mean[:-1]).all() and size > 1:
        ax.axhline(mean[-1], color=color, linestyle=(0, (6, 2)), linewidth=1.4, label=label)
        return
    x, every = np.arange(1, size + 1), max(size // 10, 1)
    ax.plot(x, mean, style, color=color, marker=marker, markersize=4, markevery=every, label=label)
    band = np.asarray([half_width(seen[:, t].tolist()) for t in range(size)])
    ax.fill_between(x, mean - band, mean + band, color=color, alpha=0.12, linewidth=0)
    ax.set_xticks(x if size <= 10 else x[4::5])


def _by_scenario(
    spec: ReportSpec, records: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]]:
    """The runs of a report, grouped as its tables group them; and again by size of memory, those without in each."""
    runs = report.frame(records)
    row_names, chosen = report.groups(spec, runs)
    names = [n for n in (*row_names, *spec.columns) if n not in ("scenario", "memory")]
    matrix = {r["fingerprint"]: 100 * np.asarray(r["accuracy"], dtype=float) for r in records}
    for scenario, of_scenario in chosen.groupby("scenario"):
        sizes = sorted({m for m in of_scenario["memory"] if m != "–"}) or ["–"]
        groups: dict[str, np.ndarray] = {}
        panels: dict[str, dict[str, np.ndarray]] = {f"memory {m}" if m != "–" else "": {} for m in sizes}
        for keys, part in of_scenario.groupby([*names, "memory"], dropna=False):
            *words, memory = [str(v) for v in keys]
            label = " ".join(word for word in words if word != "–")
            matrices = np.stack([matrix[f] for f in part["fingerprint"]])
            groups[label if memory == "–" else f"{label} {memory}"] = matrices
            for name, panel in panels.items():
                if memory == "–" or name == f"memory {memory}":
                    panel[label] = matrices
        yield str(scenario), groups, panels


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what was tested; NaN, without a warning, where nothing was."""
    tested = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(tested, values, 0).sum(axis) / np.where(tested.any(axis), tested.sum(axis), np.nan)


def _text(label: str) -> str:
    """A name from a spec is text, not a formula."""
    return "".join(c if c.isprintable() else " " for c in label).replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write(path, buffer.getvalue())
