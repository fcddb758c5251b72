"""The figures of a report on batches as PDF, SVG and PNG, for papers: accuracy over steps, candidates and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.records import frame
from clsim.reporting import line_ends
from clsim.reporting.batch_figures import AXES, over
from clsim.reporting.batch_panels import Lines, Shown
from clsim.reporting.names import shortened
from clsim.reporting.plots import HIGH, LONGEST, beside_legend, beside_names, saved, stem
from clsim.reporting.report import ReportSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(spec: ReportSpec, records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw the figures on batches of a report into a folder; return the files."""
    return saved(lambda: drawn(spec, records), folder)


def drawn(spec: ReportSpec, records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Draw accuracy over steps, candidates and seconds for each condition of a report: name of a file → figure."""
    shown = Shown(spec, frame.frame(records, spec.own), records)
    short = shortened(shown.conditions, LONGEST)
    found: dict[str, Figure] = {}
    for title, (lines, note) in shown.conditions.items():
        if lines:
            name = stem(short[title], found, "batches")
            found[f"{name}-batches"] = _three(lines, short[title], note)
    return found


def _three(lines: Lines, title: str, note: str) -> Figure:
    import seaborn as sns

    names = [name for name, *_ in lines]
    named = line_ends.room(names, HIGH) > 0
    if named:
        figure = beside_names(4.2 * len(AXES), 3.9, names)
    else:
        figure = beside_legend(4.2 * len(AXES), 3.9, names, {name: of for name, of, _ in lines})
    for ax, axis in zip(figure.subplots(1, len(AXES), sharey=True), AXES, strict=True):
        over(ax, axis, lines, high=HIGH if named and axis == [*AXES][-1] else 0.0)  # a line ends equally high in all
        ax.grid(alpha=0.3)
        sns.despine(ax=ax)
    figure.axes[0].set_ylabel("average accuracy on what was seen, %")
    figure.suptitle(f"{title}. {note}" if note else title, fontsize=11)
    return figure
