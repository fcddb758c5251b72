"""What a record says of labels: who asked for which, and the accuracy after each training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

COUNTS = ("initial", "asked", "validation")
"""Numbers of labels that a record holds for each experience."""

INITIAL = "initial"
"""Who asked for the labels of an initial set."""


def trainings(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the trainings of a record, in order; none if nobody asked for labels."""
    return list(record.get("labelling", {}).get("rounds", ()))


def counted(record: Mapping[str, Any], kind: str) -> int | None:
    """Count the labels of one of :data:`COUNTS` over all experiences; None if the record does not hold them."""
    counts = record.get("labelling", {}).get(kind)
    return None if counts is None else sum(counts)


def labels_known(record: Mapping[str, Any]) -> str:
    """Say how many labels a run may know, in words that are equal where the numbers are: ``all``, ``100``, ``5 %``.

    What a selector may ask for counts, whether it asks for it or not; what is held out does not.
    """
    spec, classes = record["spec"], record["classes"]
    asks, given = spec.get("labelling", {}), spec.get("labels", {})
    if asks.get("selector", "none") != "none":
        first = counted(record, "initial") or 0
        if share := asks.get("fraction", 0):
            return f"{first} and {100 * share:g} %"
        return str(first + asks.get("budget", 0) * len(classes))
    if share := given.get("fraction", 0):
        return f"{100 * share:g} %" if share < 1 else "all"
    return str(given.get("per_class", 0) * sum(map(len, classes)) or given.get("count", 0) or "all")


def problem(labelling: Any, experiences: int, *, finished: bool) -> str:
    """Why this cannot be the part of a record on labels; empty if it can.

    Args:
        labelling: what the record holds as ``labelling``.
        experiences: number of experiences of the run.
        finished: whether the run is finished; else trailing experiences may be missing.
    """
    if not isinstance(labelling, Mapping):
        return f"labelling: found {type(labelling).__name__}, allowed: a table"
    for kind in COUNTS:
        counts = labelling.get(kind)
        if (
            not isinstance(counts, list)
            or not all(map(_whole, counts))
            or len(counts) > experiences
            or (finished and len(counts) < experiences)
        ):
            return f"labelling.{kind}: not a whole number from 0 for each of {experiences} experiences"
    pools = labelling.get("candidates", [])
    if not isinstance(pools, list) or not all(_whole(n) for n in pools):
        return "labelling.candidates: not a whole number from 0 for each experience"
    found = labelling.get("rounds")
    if not isinstance(found, list):
        return f"labelling.rounds: found {type(found).__name__}, allowed: a list"
    last = (-1, -1, 0)
    for i, entry in enumerate(found):
        where = f"labelling.rounds[{i}]"
        if not isinstance(entry, Mapping):
            return f"{where}: found {type(entry).__name__}, allowed: a table"
        if text := _entry_problem(entry, min(experiences, len(labelling["initial"]))):
            return f"{where}.{text}"
        here = (entry["experience"], entry["round"], entry["labelled"])
        if here[:2] <= last[:2] or (here[0] == last[0] and here[2] < last[2]):
            return f"{where}: not in order after the training before it"
        last = here
    return ""


def _entry_problem(entry: Mapping[str, Any], experiences: int) -> str:
    """Why this is no training of a record on labels, beginning with the key; empty if it is one."""
    position = entry.get("experience")
    if not _whole(position) or position >= experiences:
        return f"experience: found {_brief(position)}, allowed: a whole number from 0 to {experiences - 1}"
    for key in ("round", "labelled"):
        if not _whole(entry.get(key)):
            return f"{key}: found {_brief(entry.get(key))}, allowed: a whole number from 0"
    if not isinstance(entry.get("by"), str):
        return f"by: found {_brief(entry.get('by'))}, allowed: text"
    rows, labels = entry.get("rows"), entry.get("labels")
    if not isinstance(rows, list) or not all(_whole(row, -1) for row in rows):
        return "rows: not a list of whole numbers from 0, or -1 for what is of another data set"
    if not isinstance(labels, list) or not all(_whole(n, -1) for n in labels) or len(labels) != len(rows):
        return "labels: not a whole number from -1 for each of the rows"
    accuracy = entry.get("accuracy")
    if not isinstance(accuracy, list) or len(accuracy) <= position or not all(_share(v) for v in accuracy):
        return "accuracy: not a share from 0 to 1, or nothing, for each experience"
    for key in ("select_seconds", "train_seconds", "peak_bytes"):
        if not _amount(entry.get(key)):
            return f"{key}: found {_brief(entry.get(key))}, allowed: a number from 0"
    for key in ("radius", "distance"):
        if entry.get(key) is not None and not _amount(entry.get(key)):
            return f"{key}: found {_brief(entry.get(key))}, allowed: a number from 0, or nothing"
    guessed, right = entry.get("guessed", 0), entry.get("guessed_right", 0)
    if not _whole(guessed) or not _whole(right) or right > guessed:
        return "guessed_right: not a whole number from 0 to that of guessed"
    return "" if _share(entry.get("unique")) else "unique: not a share from 0 to 1, or nothing"


def _whole(value: Any, least: int = 0) -> TypeGuard[int]:
    return type(value) is int and least <= value < 2**63


def _amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 2**63


def _share(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)


def _brief(value: Any) -> str:
    return repr(value)[:40]
