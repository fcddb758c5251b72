"""What was picked in each label round: its classes, its spread, and the share that random selection picks, too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clsim.records.label_record import trainings
from clsim.reporting.budgets import Arm, mean

MEASURES = {
    "entropy": "class entropy",
    "imbalance": "largest / smallest",
    "missing": "classes missing",
    "unique": "unique, %",
    "radius": "radius",
    "distance": "distance",
    "random": "as random, %",
    "chance": "by chance, %",
    "select_seconds": "selection, s",
    "train_seconds": "training, s",
    "peak_mib": "peak, MiB",
}
"""The headings of measures of the picks, by name."""


@dataclass(frozen=True)
class Picks:
    """What a run asked for in one experience, up to one round.

    Attributes:
        experience, round: the experience from 0, and the round from 1.
        rows: data-set rows in the order in which they were asked for, since the experience began.
        labels: the answers.
        entry: the training that followed, as it stands in the record.
    """

    experience: int
    round: int
    rows: tuple[int, ...]
    labels: tuple[int, ...]
    entry: Mapping[str, Any]


def picks(record: Mapping[str, Any]) -> list[Picks]:
    """List the picks of a run, experience by experience, round by round; initial sets are none."""
    made = list[Picks]()
    for entry in trainings(record):
        if entry["round"]:
            before = made[-1] if made and made[-1].experience == entry["experience"] else None
            rows, labels = (before.rows, before.labels) if before else ((), ())
            place = entry["experience"], entry["round"]
            made.append(Picks(*place, rows + tuple(entry["rows"]), labels + tuple(entry["labels"]), entry))
    return made


def entropy(labels: Iterable[int], classes: Sequence[int]) -> float:
    """Entropy of the picks over the classes, divided by its largest value, log C: 1 = balanced, 0 = one class alone.

    NaN without a pick of these classes, or with a single class.

    >>> entropy([0, 0, 1, 1], [0, 1]), entropy([0, 0], [0, 1])
    (1.0, 0.0)
    """
    counts = np.array([n for n in _counts(labels, classes) if n], dtype=float)
    if not len(counts) or len(classes) < 2:
        return math.nan
    shares = counts / counts.sum()
    return float(abs((shares * np.log(shares)).sum()) / math.log(len(classes)))


def imbalance(labels: Iterable[int], classes: Sequence[int]) -> float:
    """Picks of the most frequent class, divided by those of the rarest; infinite if a class has none.

    >>> imbalance([0, 0, 0, 1], [0, 1])
    3.0
    """
    counts = _counts(labels, classes)
    if not any(counts):
        return math.nan
    return max(counts) / min(counts) if min(counts) else math.inf


def missing(labels: Iterable[int], classes: Sequence[int]) -> int:
    """Count the classes without a pick."""
    return _counts(labels, classes).count(0)


def shared(rows: Iterable[int], others: Iterable[int]) -> float:
    """Share of the rows that are among the others; NaN without rows.

    >>> shared([1, 2, 3, 4], [4, 9])
    0.25
    """
    own = {*rows}
    return len(own & {*others}) / len(own) if own else math.nan


def measured(record: Mapping[str, Any], random: Mapping[str, Any] | None) -> dict[int, dict[str, float]]:
    """Measure the picks of a run: round → name in :data:`MEASURES` → value, the mean over experiences.

    Classes and overlap are of all picks of an experience up to the round, the rest is of the round.

    Args:
        record: a record with label rounds.
        random: the record of the run with the same seed whose labels were asked for at random; None: there is none.
    """
    theirs = {(p.experience, p.round): p.rows for p in picks(random)} if random else {}
    drawn = record["spec"]["labelling"].get("candidates")  # of one seed, all choose from the same: by no mere chance
    pools = [] if drawn else record["labelling"].get("candidates", [])
    found: dict[int, list[dict[str, float]]] = {}
    for of in picks(record):
        classes, entry = record["classes"][of.experience], of.entry
        others = theirs.get((of.experience, of.round))
        pool = pools[of.experience] if of.experience < len(pools) else 0
        found.setdefault(of.round, []).append(
            {
                "entropy": entropy(of.labels, classes),
                "imbalance": imbalance(of.labels, classes),
                "missing": missing(of.labels, classes),
                "unique": 100 * _known(entry["unique"]),
                "radius": _known(entry["radius"]),
                "distance": _known(entry["distance"]),
                "random": math.nan if others is None else 100 * shared(of.rows, others),
                "chance": 100 * len({*others}) / pool if others and pool else math.nan,
                "select_seconds": entry["select_seconds"],
                "train_seconds": entry["train_seconds"],
                "peak_mib": entry["peak_bytes"] / 2**20,
            }
        )
    return {
        number: {name: mean([v for one in of if not math.isnan(v := one[name])]) for name in MEASURES}
        for number, of in found.items()
    }


def partners(arm: Arm, random: Arm | None) -> list[Mapping[str, Any] | None]:
    """Find the random run with the same seed and initial set as each run of an arm; None for random's own."""
    if random is None or random is arm:
        return [None] * len(arm.records)
    known = dict(zip(_seeds(random), random.records, strict=True))
    return [known.get(seeds) for seeds in _seeds(arm)]


def of_classes(record: Mapping[str, Any], classes: int) -> np.ndarray:
    """Count the labels that a run asked for of each class, (classes,)."""
    answers = [label for entry in trainings(record) if entry["round"] for label in entry["labels"]]
    return np.array(_counts(answers, range(classes)))


def _counts(labels: Iterable[int], classes: Iterable[int]) -> list[int]:
    found = Counter(labels)
    return [found[c] for c in classes]


def _known(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _seeds(arm: Arm) -> list[tuple[int, int]]:
    return list(zip(arm.cell.seeds, arm.cell.splits, strict=True))
