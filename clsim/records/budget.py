"""The accuracy of a run over the number of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clsim.records.label_record import trainings
from clsim.records.metrics import area_under_budget, average, weights


@dataclass(frozen=True)
class Point:
    """The accuracy after one training of a run with label rounds.

    Attributes:
        experience: position of the experience, from 0.
        round: 0 = after the training on the initial set, else the number of the round.
        labels: labels so far, of all experiences together, initial sets included.
        own: labels of this experience among them.
        initial: labels of this experience's initial set.
        accuracy: average accuracy on what was seen so far, as a share; NaN where it was not tested.
    """

    experience: int
    round: int
    labels: int
    own: int
    initial: int
    accuracy: float


def curve(record: Mapping[str, Any]) -> list[Point]:
    """Return the accuracy over the number of labels, a point for each training; empty if nobody asked for labels.

    The accuracies of the experiences seen so far are averaged as in the run's final accuracy.
    """
    sizes, points, before = weights(record), list[Point](), 0
    for entry in trainings(record):
        position, own = entry["experience"], entry["labelled"]
        if points and points[-1].experience != position:
            before = points[-1].labels
        row = np.array(entry["accuracy"][: position + 1], dtype=float)
        initial = record["labelling"]["initial"][position]
        points.append(Point(position, entry["round"], before + own, own, initial, average(row, sizes)))
    return points


def aubc(record: Mapping[str, Any]) -> float | None:
    """Area under the budget curve of a run; None without at least two budgets that were tested."""
    points = curve(record)
    area = area_under_budget([p.labels for p in points], [p.accuracy for p in points])
    return None if math.isnan(area) else area


def best_round(record: Mapping[str, Any]) -> float:
    """Largest accuracy after a training of the last experience: chosen on test data, so no result; NaN if unknown."""
    points = curve(record)
    last = [p.accuracy for p in points if p.experience == points[-1].experience and not math.isnan(p.accuracy)]
    return max(last, default=math.nan)
