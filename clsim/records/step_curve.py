"""The accuracy of a run over gradient steps, candidates and seconds, experience by experience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clsim.records.metrics import average, weights

AXES = ("steps", "candidates", "seconds", "all_seconds")
"""What an accuracy can be held against; ``all_seconds`` are seconds with those of irreducible-loss nets."""


@dataclass(frozen=True)
class Way:
    """The way of a run through an experience, as far as it was tested on it.

    With label rounds, the trainings of all rounds follow one another.

    Attributes:
        experience: position of the experience, from 0.
        taken: axis → what was taken at each test since the experience began, rising, (n,); of :data:`AXES`.
        accuracy: average accuracy on what was seen so far at each test, as a share, (n,).
    """

    experience: int
    taken: Mapping[str, np.ndarray]
    accuracy: np.ndarray

    def end(self, axis: str) -> float:
        """What the whole experience took."""
        return float(self.taken[axis][-1])

    def at(self, axis: str, place: float) -> float:
        """Read the accuracy off, between two tests on a straight line; NaN beyond the first and the last."""
        return float(np.interp(place, self.taken[axis], self.accuracy, left=np.nan, right=np.nan))

    def to(self, axis: str, level: float) -> tuple[float, bool]:
        """What was taken at the first test with an accuracy of ``level`` or more, and whether there is one.

        Without one, it is what the whole experience took.
        """
        found = np.flatnonzero(self.accuracy >= level)
        return float(self.taken[axis][found[0] if len(found) else -1]), len(found) > 0


def ways(record: Mapping[str, Any]) -> dict[int, Way]:
    """Return the way through each experience by its position; those without a test on the way are left out.

    The accuracies on the experiences seen so far are averaged as in the run's final accuracy.

    >>> curve = {"steps": [2, 3], "candidates": [20, 30], "seconds": [0.1, 0.2], "accuracy": [[0.5], [0.75]]}
    >>> way = ways({"batches": [{"experience": 0, "curve": curve}]})[0]
    >>> way.at("steps", 2.5), way.to("steps", 0.6), way.to("candidates", 0.9)
    (0.625, (3.0, True), (30.0, False))
    """
    sizes, parts = weights(record), dict[int, list[Mapping[str, Any]]]()
    for entry in record.get("batches") or ():
        if (curve := entry.get("curve")) and curve["steps"]:
            parts.setdefault(entry["experience"], []).append(entry)
    found = {}
    for position, entries in parts.items():
        before = dict.fromkeys(AXES, 0.0)
        taken: dict[str, list[np.ndarray]] = {axis: [] for axis in AXES}
        for entry in entries:
            curve = entry["curve"]
            before["all_seconds"] += entry.get("irreducible", {}).get("seconds", 0.0)
            for axis in AXES:
                own = np.asarray(curve["seconds" if axis == "all_seconds" else axis], dtype=float)
                taken[axis].append(before[axis] + own)
                before[axis] += own[-1]
        rows = [np.array(row, dtype=float) for entry in entries for row in entry["curve"]["accuracy"]]
        accuracy = np.array([average(row, sizes) for row in rows])
        found[position] = Way(position, {axis: np.concatenate(of) for axis, of in taken.items()}, accuracy)
    return found
