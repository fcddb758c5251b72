"""The figures of a report on batches, for its page: a panel each for steps, candidates and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clsim.reporting import figures, svg
from clsim.reporting.batch_figures import AXES, Stretch, over, stretches
from clsim.reporting.batches import Arm, Field, fields
from clsim.reporting.cells import Key, condition_names
from clsim.reporting.curves import LineStyle, Series, by_scenario, looks
from clsim.reporting.gallery import Exhibit, Group, Picture
from clsim.reporting.label_panels import with_labels
from clsim.reporting.line_ends import room
from clsim.reporting.report import ReportSpec, groups

if TYPE_CHECKING:
    import pandas as pd

    from clsim.reporting.cells import Table

LINES, CONDITIONS = 12, 6
"""Most arms in a figure, and most conditions with figures."""

WIDTH, HEIGHT = 4.4, 3.2
"""Width and height of a panel in inches, without the names beside it."""

Lines = list[tuple[str, LineStyle, Sequence[Stretch]]]

ABOUT = "Mean over seeds; band: 95 % t interval, from three seeds on."


class Shown:
    """What the figures of a report on batches are drawn from, condition by condition. Final.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
    """

    def __init__(self, spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> None:
        every = fields(spec, runs, records) if spec.batches else []
        self._looks = _looks(every, by_scenario(spec, runs, records)) if every else {}
        self.words = {
            arm.name: " ".join(label for label in arm.key if label != "–") for field in every for arm in field.arms
        }
        names = condition_names(spec, groups(spec, runs)[0])
        titles = _titles(names, [field.condition for field in every])
        self.conditions = {title: self._lines(field) for title, field in zip(titles[:CONDITIONS], every, strict=False)}
        self.left_out = max(len(every) - CONDITIONS, 0)

    def _lines(self, field: Field) -> tuple[Lines, str]:
        """Return the curves of the best arms, and a note if some are left out."""
        every = [(arm, parts) for arm in field.arms if (parts := stretches(arm))]
        best = sorted(every, key=lambda one: -_level(one[0]))[:LINES]
        lines: Lines = [(arm.name, self._looks[arm.name], parts) for arm, parts in every if (arm, parts) in best]
        return lines, f"The {LINES} best of {len(every)}, by final accuracy." if len(every) > LINES else ""


def _looks(every: Sequence[Field], scenarios: Mapping[str, Sequence[Series]]) -> dict[str, LineStyle]:
    """Choose the style of each arm: that of its runs in the other figures, unless two arms would look alike there."""
    other = looks(s.label for series in scenarios.values() for s in series)
    of_run = {run: other[s.label] for series in scenarios.values() for s in series for run in s.fingerprints}
    found = {arm.name: of_run.get(arm.cell.runs[0]) for field in every for arm in field.arms}
    if None in found.values() or len(set(found.values())) < len(found):
        return looks(arm.name for field in every for arm in field.arms)
    return {name: look for name, look in found.items() if look is not None}


def _titles(names: Key, conditions: Sequence[Key]) -> list[str]:
    """Name conditions by their scenario, and by what differs between them.

    >>> _titles(("strategy", "scenario", "pool"), [("er", "digits", "–"), ("er", "digits", "noise")])
    ['digits, no pool', 'digits, pool noise']
    """
    told = [i for i, name in enumerate(names) if name != "scenario" and len({of[i] for of in conditions}) > 1]
    scenario = [i for i, name in enumerate(names) if name == "scenario"]
    return [
        ", ".join([*(of[i] for i in scenario), *(_label(names[i], of[i]) for i in told)]) or "Batches"
        for of in conditions
    ]


def _label(name: str, value: str) -> str:
    return f"no {name}" if value == "–" else f"{name} {value}"


def _level(arm: Arm) -> float:
    """The mean final accuracy of an arm."""
    return float(np.nan_to_num(np.mean([float(row["accuracy"]) for row in arm.rows]), nan=-1.0))


def with_curves(
    spec: ReportSpec,
    runs: pd.DataFrame,
    records: Sequence[Mapping[str, Any]],
    further: Sequence[Table],
    exhibits: Sequence[Exhibit],
) -> list[Exhibit]:
    """Put the figures on labels, and on batches, before those that every report has.

    Args:
        runs, records, further, exhibits: as in :func:`clsim.reporting.label_panels.with_labels`.
    """
    return with_batches(spec, runs, records, with_labels(spec, runs, records, further, exhibits))


def with_batches(
    spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]], exhibits: Sequence[Exhibit]
) -> list[Exhibit]:
    """Put the figures on batches before those that every report has; of a single experience, only these.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
        exhibits: the figures of each scenario so far.
    """
    with svg.style(svg.STYLE):
        shown = Shown(spec, runs, records)
        made = []
        for i, (title, (lines, note)) in enumerate(shown.conditions.items()):
            pictures = [_picture(lines, axis, f"b{i}-{axis.replace('_', '-')}") for axis in AXES] if lines else []
            notes = [ABOUT, "Between two tests on a straight line; over seconds, a point is the mean of both."]
            if shown.left_out and i == CONDITIONS - 1:
                notes.append(f"{shown.left_out} more conditions have tables alone.")
            legend = [(name, shown.words[name], figures.swatch(look)) for name, look, _ in lines]
            group = Group("Accuracy over steps, candidates and seconds", pictures, notes, "wide")
            made.append(Exhibit(title, [group], legend, note))
    if not made:
        return [*exhibits]
    several = {record["spec"]["scenario"] for record in records if len(record["accuracy"]) > 1}
    kept = [exhibit for exhibit in exhibits if any(exhibit.scenario.startswith(name) for name in several)]
    return [*made, *kept]


def _picture(lines: Lines, axis: str, name: str) -> Picture:
    beside = room([label for label, *_ in lines], HEIGHT - 0.7)
    ax = figures.panel(WIDTH + beside, HEIGHT)
    box = ax.get_position()
    ax.set_position((box.x0, box.y0, box.width - beside / (WIDTH + beside), box.height))
    over(ax, axis, lines, high=box.height * HEIGHT if beside else 0.0)
    ax.set_title("average accuracy on what was seen, %", loc="left")
    ax.grid(axis="y", linewidth=0.6)
    ends = ((label, float(parts[-1].accuracy[-1]), float(parts[-1].taken[axis][-1])) for label, _, parts in lines)
    alt = f"Accuracy over {AXES[axis]}: " + "; ".join(
        f"{label} {level:.1f} % after {figures.short(round(x, 1))}" for label, level, x in ends
    )
    figure: Any = ax.figure
    return Picture("", svg.inline(figure, name, alt), alt=alt)
