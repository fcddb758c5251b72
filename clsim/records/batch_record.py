"""What a record says of the samples that steps were taken on, where they were chosen out of candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clsim.records.schema import Check, amount, listing, maybe, share, table, whole

Entries = Sequence[Mapping[str, Any]]
"""The part of a record on batches, an entry an experience; see :meth:`clsim.training.course.Course.end`."""


def candidates(entries: Entries) -> float | None:
    """Candidates: new samples that were drawn for the steps, in all experiences together."""
    return sum(entry["candidates"] for entry in entries)


def wrong_trained(entries: Entries) -> float | None:
    """Samples of steps with a wrong label, as a share of them, each as often as it was learnt.

    None where the wrong ones are not known, as without a realistic pool.

    >>> wrong_trained([{"trained": 10, "wrong": 0.25}, {"trained": 30, "wrong": 0.05}])
    0.1
    """
    return _mean(entries, "wrong")


def learnt_before(entries: Entries) -> float | None:
    """Samples of steps that the net predicted right before it learnt them, as a share of them."""
    return _mean(entries, "learnt")


def columns(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Sum up the batches of a run: the values of :data:`COLUMNS`, None where the record does not hold them.

    >>> columns({}) == dict.fromkeys(COLUMNS)
    True
    """
    entries = record.get("batches")
    return {name: function(entries) if entries else None for name, function in COLUMNS.items()}


COLUMNS: Mapping[str, Callable[[Entries], float | None]] = {
    "candidates": candidates,
    "wrong_trained": wrong_trained,
    "learnt_before": learnt_before,
}
"""What the table of runs has of chosen batches, by name: a function of the part of a record on batches."""


def _mean(entries: Entries, key: str) -> float | None:
    """The mean over the samples of all entries; None if one of them does not know it."""
    known = [entry for entry in entries if entry["trained"]]
    if not known or any(entry.get(key) is None for entry in known):
        return None
    mean: float = sum(entry[key] * entry["trained"] for entry in known) / sum(entry["trained"] for entry in known)
    return mean


def batches(experiences: int) -> Check:
    """Check for an entry of a record on batches, of a run of so many experiences."""
    return table(
        {
            "experience": whole(0, experiences - 1),
            **dict.fromkeys(("steps", "candidates", "trained", "passes"), whole()),
            "different": maybe(whole()),
            "learnt": maybe(share()),
            "seconds": maybe(amount()),
        },
        {"curve": _curve, "irreducible": table({}), **dict.fromkeys(("wrong", "copies"), maybe(share()))},
    )


def _curve(value: Any, where: str) -> str:
    columns = {"steps": listing(whole()), "candidates": listing(whole()), "seconds": listing(maybe(amount()))}
    columns["accuracy"] = listing(listing(maybe(share())))
    if wrong := table(columns)(value, where):
        return wrong
    equal = len({len(value[name]) for name in columns}) == 1 and value.keys() == columns.keys()
    return "" if equal else f"{where}: not lists of equal length: {', '.join(columns)}"
