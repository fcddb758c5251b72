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

    None where the wrong ones are not known, as without a realistic pool. Where steps were taken on all that was drawn,
    it is the share of the training samples: each of them is drawn equally often.

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
    entries = _known(record)
    return {name: function(entries) if entries else None for name, function in COLUMNS.items()}


COLUMNS: Mapping[str, Callable[[Entries], float | None]] = {
    "candidates": candidates,
    "wrong_trained": wrong_trained,
    "learnt_before": learnt_before,
}
"""What the table of runs has of chosen batches, by name: a function of the part of a record on batches."""


def nets(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Sum up what irreducible-loss nets took: the values of :data:`NETS`, None where there was none.

    ``irreducible_images`` are the images that they were trained on, those kept back included; in an experience with
    label rounds, those of its last round.

    >>> took = {"samples": [90, 90], "kept_back": [10, 10], "steps": [6, 6], "passes": 1300, "seconds": 0.5}
    >>> nets({"batches": [{"experience": 0, "irreducible": took}]})["irreducible_images"]
    200
    """
    found = [(e["experience"], e["irreducible"]) for e in record.get("batches") or () if e.get("irreducible")]
    if not found:
        return dict.fromkeys(NETS)
    images = {position: sum(took["samples"]) + sum(took["kept_back"]) for position, took in found}
    counted: dict[str, float | None] = {"irreducible_images": sum(images.values())}
    for key, total in (("steps", sum), ("passes", int), ("seconds", float)):
        counted[f"irreducible_{key}"] = sum(total(took[key]) for _, took in found)
    return counted


NETS = ("irreducible_images", "irreducible_steps", "irreducible_passes", "irreducible_seconds")
"""What irreducible-loss nets took, by the names that tables have for it."""


def _known(record: Mapping[str, Any]) -> Entries:
    """Return the entries on batches; where nobody chose, with the share of wrong labels in what was trained on."""
    entries = record.get("batches") or []
    trained = {counts["experience"]: counts for counts in record.get("natures", {}).get("trained", ())}
    if not trained or record.get("labelling"):
        return entries
    made = []
    for entry in entries:
        counts = trained.get(entry["experience"], {"all": 0})
        drawn = entry.get("different") is None and entry.get("wrong") is None and counts["all"]
        made.append({**entry, "wrong": counts["wrong"] / counts["all"]} if drawn else entry)
    return made


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
        {
            "round": whole(),
            "curve": _curve,
            "irreducible": _NETS_TOOK,
            **dict.fromkeys(("wrong", "copies"), maybe(share())),
        },
    )


_NETS_TOOK = table(
    {
        **dict.fromkeys(("samples", "kept_back", "steps"), listing(whole())),
        "passes": whole(),
        "seconds": amount(),
    }
)
"""What the irreducible-loss nets of an entry took, a number a net."""


def _curve(value: Any, where: str) -> str:
    columns = {"steps": listing(whole()), "candidates": listing(whole()), "seconds": listing(maybe(amount()))}
    columns["accuracy"] = listing(listing(maybe(share())))
    if wrong := table(columns)(value, where):
        return wrong
    equal = len({len(value[name]) for name in columns}) == 1 and value.keys() == columns.keys()
    return "" if equal else f"{where}: not lists of equal length: {', '.join(columns)}"
