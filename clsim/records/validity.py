"""What makes a record valid: shares are shares, counts are whole, and its metrics are those of its accuracies.

Checksums tell of accidents; what is read here may have been written with intent, and is shown to people.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from clsim.errors import InputError, first_line
from clsim.records.batch_record import batches
from clsim.records.label_record import problem as wrong_labels
from clsim.records.metrics import METRICS, summary
from clsim.records.natures_record import wrong_natures
from clsim.records.schema import (
    Check,
    amount,
    counter,
    either,
    flag,
    listing,
    mapping,
    maybe,
    number,
    share,
    table,
    text,
    whole,
)
from clsim.records.search import ATTEMPT, COST, read_search

FORMAT = 1
"""Format number of records and errors."""

MOST_EXPERIENCES = 100_000
"""Most experiences of a run whose record is read."""

_ROUND_OFF = 1e-6
"""Largest difference between a metric of a record and that of its accuracies."""

_SPEC = table(
    {},
    {
        "scenario": text(),
        "strategy": text(),
        "seed": whole(),
        **dict.fromkeys(
            ("data", "stream", "model", "optimizer", "training", "evaluation", "memory", "labels", "learner"), table({})
        ),
        **dict.fromkeys(("labelling", "batch", "controller", "embedding"), table({})),
        "sources": listing(listing(text(), 2)),
    },
)
"""What a spec has in any version; its fingerprint says the rest."""

_NET = table(
    {
        **dict.fromkeys(("experience", "images", "steps"), counter()),
        "seconds": amount(),
        "loss": number(),
        **dict.fromkeys(("use", "method", "model", "file"), text()),
    }
)
"""What a net took that learnt without labels."""

_FACT = either(maybe(number()), text())
"""A fact of a machine or a version."""

MACHINE = table({}, others=_FACT)
"""What a record says of a machine, by its names there."""

_SEARCH = table({"experience": whole(), "attempts": listing(ATTEMPT)})

_FAILURE = table(
    {
        "format": whole(FORMAT, FORMAT),
        **dict.fromkeys(("fingerprint", "error", "command", "ended"), text()),
        "spec": table({}),
    }
)


def wrong_record(data: Any, fingerprint: str) -> str:
    """Say why this is no record of the run ``fingerprint``; empty if it is one."""
    if not isinstance(data, dict) or data.get("format") != FORMAT or type(data["format"]) is not int:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        return f"found format {found!r:.40}, allowed: {FORMAT}"
    rows = data.get("accuracy")
    size = len(rows) if isinstance(rows, list) else 0
    if size > MOST_EXPERIENCES:
        return f"accuracy: found {size} experiences, allowed: {MOST_EXPERIENCES}"
    if wrong := _record(size)(data, ""):
        return wrong
    if _foreign(data["spec"], data["fingerprint"], fingerprint):
        return "it is not the record of this folder's run (its spec has another fingerprint)"
    if data["finished"] and size and not data["cost"]:
        return "finished: found true without the cost of an experience"
    if wrong := _wrong_searches(data.get("searches", []), size):
        return wrong
    if "labelling" in data and (wrong := wrong_labels(data["labelling"], size, finished=data["finished"])):
        return wrong
    if "natures" in data and (wrong := wrong_natures(data["natures"], size)):
        return wrong
    return _wrong_metrics(data) if size else ""


def _record(size: int) -> Check:
    """Check for a record of ``size`` experiences, whatever its spec."""
    shares = listing(maybe(share()), size)
    matrix = listing(shares, size)
    return table(
        {
            "fingerprint": text(),
            "finished": flag(),
            "spec": _SPEC,
            "accuracy": matrix,
            "initial": shares,
            "classes": listing(listing(whole()), size),
            "cost": listing(COST, most=size),
            "metrics": mapping(maybe(number())),
            "versions": MACHINE,
            "command": text(),
        },
        {
            "test_sizes": listing(whole(1), size),
            "validation": shares,
            "unlabelled": shares,
            "readouts": mapping(matrix),
            "diagnostics": mapping(listing(maybe(number()), size)),
            "crowded": mapping(text()),
            "pretraining": listing(_NET),
            "batches": listing(batches(size)),  # one an experience, or one a label round
            "diverged": flag(),
            "environment": MACHINE,
            "machines": listing(MACHINE, most=10_000),
            "started": text(),
            "ended": text(),
        },
    )


def _wrong_searches(searches: Any, size: int) -> str:
    if not isinstance(searches, list) or len(searches) > size:
        return f"searches: not a list of at most {size}"
    try:
        for search in searches:
            read_search(search, "searches")
    except (InputError, TypeError, RecursionError) as error:
        return first_line(error)
    return listing(_SEARCH)(searches, "searches")


def _wrong_metrics(data: Mapping[str, Any]) -> str:
    """Compare the metrics of a record with those of its accuracies; records of earlier versions weighed otherwise."""
    R, initial = data["accuracy"], data["initial"]
    ways = [summary(R, initial, sizes=sizes) for sizes in (None, data.get("test_sizes"))]
    for name in METRICS:
        if name == "intransigence" or name not in data["metrics"]:  # which is held against another run
            continue
        found, computed = data["metrics"][name], [way[name] for way in ways]
        if not any(_agree(found, one) for one in computed):
            own = computed[-1] if computed[-1] is None else f"{computed[-1]:g}"
            return f"metrics.{name}: found {found}, while its accuracies make it {own}"
    return ""


def _agree(found: float | None, computed: float | None) -> bool:
    if found is None or computed is None:
        return found is computed
    return math.isclose(found, computed, rel_tol=0, abs_tol=_ROUND_OFF)


def wrong_failure(data: Any, fingerprint: str) -> str:
    """Say why this does not tell what stopped the run ``fingerprint``; empty if it does."""
    if wrong := _FAILURE(data, ""):
        return wrong
    return "it is of another run" if _foreign(data["spec"], data["fingerprint"], fingerprint) else ""


def is_spec(data: Any, fingerprint: str) -> bool:
    """Tell whether this is the spec of the run ``fingerprint``, which is its checksum."""
    return isinstance(data, dict) and not _foreign(data, fingerprint, fingerprint)


def _foreign(spec: Any, claimed: str, fingerprint: str) -> bool:
    """Tell whether a spec belongs to another run than ``fingerprint``."""
    text = json.dumps(spec, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16] != fingerprint or claimed != fingerprint
