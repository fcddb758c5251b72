"""What a record says of the samples that steps were taken on, where they were chosen out of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = ("candidates", "wrong_trained", "learnt_before")
"""The columns that the table of runs has of chosen batches, in order; empty in a run that chose none."""


def columns(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Sum up the batches of a run: the values of :data:`COLUMNS`, None where the record does not hold them.

    ``candidates``: new samples that were drawn for the steps. ``wrong_trained``: share of the samples of steps, each as
    often as it was learnt, with a wrong label; of a realistic pool alone. ``learnt_before``: share of them that the net
    predicted right before it learnt them.

    >>> entry = {"candidates": 320, "learnt": 0.5, "wrong": 0.25}
    >>> columns({"batches": [entry | {"trained": 10}, entry | {"trained": 30, "learnt": 0.9}]})
    {'candidates': 640, 'wrong_trained': 0.25, 'learnt_before': 0.8}
    >>> columns({}) == dict.fromkeys(COLUMNS)
    True
    """
    found: dict[str, float | None] = dict.fromkeys(COLUMNS)
    if entries := record.get("batches"):
        found["candidates"] = sum(entry["candidates"] for entry in entries)
        found["wrong_trained"] = _mean(entries, "wrong")
        found["learnt_before"] = _mean(entries, "learnt")
    return found


def _mean(entries: list[Mapping[str, Any]], key: str) -> float | None:
    """The mean over the samples of all entries; None if one of them does not know it."""
    known = [entry for entry in entries if entry["trained"]]
    if not known or any(entry.get(key) is None for entry in known):
        return None
    mean: float = sum(entry[key] * entry["trained"] for entry in known) / sum(entry["trained"] for entry in known)
    return mean
