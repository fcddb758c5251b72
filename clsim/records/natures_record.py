"""What a record says of a realistic pool: how much of what was asked for, trained on and kept is of which nature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

COUNTED = ("all", "rare", "outsider", "copy", "unique", "wrong")
"""The counts of samples by nature; see :func:`clsim.training.record.record_of`."""


def rare_found(natures: Mapping[str, Any]) -> float | None:
    """Rare samples found: samples of rare classes that were asked for in rounds, without initial sets.

    Those of all experiences together; None where no class is rare.

    >>> rounds = [{"round": 0, "rare": 2}, {"round": 1, "rare": 5}, {"round": 2, "rare": 4}]
    >>> rare_found({"rare_classes": [3], "rounds": rounds})
    9
    """
    asked = natures["rounds"] and natures["rare_classes"]
    return sum(entry["rare"] for entry in natures["rounds"] if entry["round"]) if asked else None


def outsiders_asked(natures: Mapping[str, Any]) -> float | None:
    """Outsiders asked for in rounds, without initial sets: samples that are of no class that counts.

    Those of all experiences together; None where nobody asked for labels.
    """
    return sum(entry["outsider"] for entry in natures["rounds"] if entry["round"]) if natures["rounds"] else None


def unique_share(natures: Mapping[str, Any]) -> float | None:
    """Unique images among all that were asked for, as a share of these, initial sets included.

    Images count once in each experience. None where nobody asked for labels.
    """
    last = {entry["experience"]: entry["unique_so_far"] for entry in natures["rounds"]}
    total = sum(entry["all"] for entry in natures["rounds"])
    return sum(last.values()) / total if total else None


def wrong_in_memory(natures: Mapping[str, Any]) -> float | None:
    """Wrong labels in memory: exemplars with a wrong label, after the last experience; None where nothing is kept."""
    last = natures["memory"][-1] if natures["memory"] else {"all": 0}
    return last["wrong"] if last["all"] else None


def accuracy_rare(natures: Mapping[str, Any]) -> float | None:
    """Accuracy of rare classes: on their test samples, after the last experience; None where there are none."""
    return natures["accuracy_rare"][-1] if natures["accuracy_rare"] else None


def columns(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Sum up the natures of a run: the values of :data:`COLUMNS`, None where the record does not hold them.

    >>> columns({}) == dict.fromkeys(COLUMNS)
    True
    """
    natures = record.get("natures")
    return {name: function(natures) if natures else None for name, function in COLUMNS.items()}


COLUMNS: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "rare_found": rare_found,
    "outsiders_asked": outsiders_asked,
    "unique_share": unique_share,
    "wrong_in_memory": wrong_in_memory,
    "accuracy_rare": accuracy_rare,
}
"""What tables have of natures, by name: a function of the part of a record on natures."""


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
