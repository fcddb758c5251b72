"""What a record says of a realistic pool: how much of what was asked for, trained on and kept is of which nature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COUNTED = ("all", "rare", "outsider", "copy", "unique", "wrong")
"""The counts of samples by nature; see :func:`clsim.training.record.record_of`."""

COLUMNS = ("rare_found", "outsiders_asked", "unique_share", "wrong_in_memory", "accuracy_rare")
"""The columns that the table of runs has of natures, in order; empty in a run with a clean pool."""


def columns(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Sum up the natures of a run: the values of :data:`COLUMNS`, None where the record does not hold them.

    ``rare_found``: samples of rare classes that were asked for in rounds, in all experiences together, without initial
    sets. ``outsiders_asked``: the same of outsiders. ``unique_share``: different images among all that were asked for,
    initial sets included, as a share of these. ``wrong_in_memory``: exemplars with a wrong label at the end.
    ``accuracy_rare``: accuracy on the test samples of rare classes at the end.

    >>> columns({}) == dict.fromkeys(COLUMNS)
    True
    """
    found: dict[str, float | None] = dict.fromkeys(COLUMNS)
    natures = record.get("natures")
    if not natures:
        return found
    asked = [entry for entry in natures["rounds"] if entry["round"]]
    if natures["rounds"]:
        last = {entry["experience"]: entry["unique_so_far"] for entry in natures["rounds"]}
        total = sum(entry["all"] for entry in natures["rounds"])
        found["rare_found"] = sum(entry["rare"] for entry in asked) if natures["rare_classes"] else None
        found["outsiders_asked"] = sum(entry["outsider"] for entry in asked)
        found["unique_share"] = sum(last.values()) / total if total else None
    if natures["memory"]:
        found["wrong_in_memory"] = natures["memory"][-1]["wrong"]
    if natures["accuracy_rare"]:
        found["accuracy_rare"] = natures["accuracy_rare"][-1]
    return found


def wrong_natures(natures: Any, experiences: int) -> str:
    """Why this cannot be the part of a record on natures; empty if it can.

    Args:
        natures: what the record holds as ``natures``.
        experiences: number of experiences of the run.
    """
    if not isinstance(natures, Mapping):
        return f"natures: found {type(natures).__name__}, allowed: a table"
    for key in ("rare_classes", "outsider_classes"):
        if not isinstance(natures.get(key), list) or not all(map(_whole, natures[key])):
            return f"natures.{key}: not a list of whole numbers from 0"
    for key in ("pool", "rounds", "trained", "memory"):
        entries = natures.get(key)
        further = [] if key == "pool" else ["experience"]
        further += ["round", "unique_so_far"] if key == "rounds" else []
        if not isinstance(entries, list) or not all(_counts(entry, further) for entry in entries):
            return f"natures.{key}: not a list of counts by nature"
        if key != "pool" and any(entry["experience"] >= experiences for entry in entries):
            return f"natures.{key}: an experience that is not there; there are {experiences}"
    shares = natures.get("accuracy_rare")
    if not isinstance(shares, list) or len(shares) > experiences or not all(map(_share, shares)):
        return "natures.accuracy_rare: not a share from 0 to 1, or nothing, for each experience"
    return ""


def _counts(entry: Any, further: Sequence[str]) -> bool:
    return isinstance(entry, Mapping) and all(_whole(entry.get(key)) for key in (*COUNTED, *further))


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _share(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)
