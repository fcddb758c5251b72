"""Figures of a report, as PNG: accuracy matrices, and accuracy over experiences. Readable in print and by everybody."""

from __future__ import annotations

import io
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
    from matplotlib.figure import Figure

Groups = Mapping[str, np.ndarray]
"""Label of a group of runs → their accuracy matrices in percent, (seeds, T, T), NaN = not tested."""

LARGEST = 12
"""Groups in one figure; more could not be told apart."""


def draw(spec: ReportSpec, records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Both figures for each scenario of a report. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for scenario, groups in _by_scenario(spec, records):
        for start in range(0, len(groups), LARGEST):
            part = dict(list(groups.items())[start : start + LARGEST])
            suffix = f"-{start // LARGEST + 1}" if len(groups) > LARGEST else ""
            for kind, figure in (("matrix", heatmaps(part, scenario)), ("curves", curves(part, scenario))):
                path = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', scenario)}-{kind}{suffix}.png"
                _save(figure, path)
                made.append(path)
    return made


def heatmaps(groups: Groups, title: str) -> Figure:
    """The accuracy matrix of each group, mean over seeds: row = after experience, column = tested on."""
    import seaborn as sns
    from matplotlib.figure import Figure

    wide = min(len(groups), 3)
    high = -(-len(groups) // wide)
    size = max(matrices.shape[1] for matrices in groups.values())
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
            xticklabels=range(1, size + 1)
            if size <= 10
            else [str(i) if i % 5 == 0 else "" for i in range(1, size + 1)],
            yticklabels=range(1, size + 1)
            if size <= 10
            else [str(i) if i % 5 == 0 else "" for i in range(1, size + 1)],
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


def curves(groups: Groups, title: str) -> Figure:
    """Average accuracy over the experiences seen so far; band = 95 % t interval over three seeds or more.

    A group that was tested only at the end (joint training) is a horizontal line.
    """
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    ax = figure.subplots()
    colors = sns.color_palette("colorblind", len(groups))
    styles, markers = ("-", "--", "-.", ":"), "os^DvPX<>p"
    for i, (label, matrices) in enumerate(groups.items()):
        size = matrices.shape[1]
        seen = np.stack([_mean(matrices[:, t, : t + 1], 1) for t in range(size)], axis=1)
        mean = _mean(seen, 0)
        if np.isnan(mean[:-1]).all() and size > 1:
            ax.axhline(mean[-1], color=colors[i], linestyle=(0, (6, 2)), linewidth=1.4, label=_text(label))
            continue
        x = np.arange(1, size + 1)
        style, marker = styles[i // 4 % 4], markers[i % len(markers)]
        ax.plot(
            x,
            mean,
            style,
            color=colors[i],
            marker=marker,
            markersize=4,
            markevery=max(size // 10, 1),
            label=_text(label),
        )
        band = np.asarray([half_width(seen[:, t].tolist()) for t in range(size)])
        ax.fill_between(x, mean - band, mean + band, color=colors[i], alpha=0.15, linewidth=0)
    ax.set(xlabel="experiences learnt", ylabel="average accuracy on them, %", title=_text(title))
    ax.set_ylim(0, 100)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    sns.despine(ax=ax)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _by_scenario(spec: ReportSpec, records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The runs of a report, grouped as its tables group them."""
    runs = report.frame(records)
    row_names, chosen = report.groups(spec, runs)
    names = [n for n in (*row_names, *spec.columns) if n != "scenario"]
    matrix = {r["fingerprint"]: 100 * np.asarray(r["accuracy"], dtype=float) for r in records}
    for scenario, of_scenario in chosen.groupby("scenario"):
        grouped = {
            " ".join(str(v) for v in label if str(v) != "–"): np.stack([matrix[f] for f in part["fingerprint"]])
            for label, part in of_scenario.groupby(names, dropna=False)
        }
        yield str(scenario), grouped


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what was tested; NaN, without a warning, where nothing was."""
    tested = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(tested, values, 0).sum(axis) / np.where(tested.any(axis), tested.sum(axis), np.nan)


def _text(label: str) -> str:
    """A name from a spec is text, not a formula."""
    return label.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write(path, buffer.getvalue())
