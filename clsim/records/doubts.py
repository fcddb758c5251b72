"""What a reader of a run should know of it: that it is unchecked, diverged, or was made in the future or in parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

UNCHECKED = "unchecked (written before files had checksums)"
"""What is said of a file without a checksum."""

DIVERGED = "diverged (a loss is not finite)"
"""What is said of a run whose numbers are those of a net that broke down."""

LATER = "dated in the future by this machine's clock"
"""What is said of a run whose dates have not come yet."""

SEVERAL = "made on several machines or versions (`clsim runs show` says which)"
"""What is said of runs that went on elsewhere."""

_SLACK = timedelta(minutes=10)
"""How far the clocks of two machines may be apart."""


def doubts(record: Mapping[str, Any], *, checked: bool) -> list[str]:
    """List what a reader of a record should know, in a few words each; empty if there is nothing."""
    machines = record.get("machines", [])
    several = f"made on {len(machines)} machines or versions: {changes(machines)}" if len(machines) > 1 else ""
    late = any(is_later(record.get(key)) for key in ("started", "ended"))
    diverged = [DIVERGED] if record.get("diverged") else []
    return [*([] if checked else [UNCHECKED]), *diverged, *([LATER] if late else []), *([several] if several else [])]


def overall(records: Iterable[tuple[Mapping[str, Any], bool]]) -> list[str]:
    """Say what a reader of several records should know, a line for each kind of doubt.

    Args:
        records: each with whether it had a checksum.

    >>> overall([({"fingerprint": "a"}, False), ({"fingerprint": "b"}, True)])
    ['1 of 2 runs: unchecked (written before files had checksums): a']
    """
    found, total = dict[str, list[str]](), 0
    for record, checked in records:
        total += 1
        for doubt in doubts(record, checked=checked):
            kind = doubt if doubt in (UNCHECKED, DIVERGED, LATER) else SEVERAL
            found.setdefault(kind, []).append(str(record["fingerprint"]))
    return [
        f"{len(names)} of {total} runs: {kind}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        for kind, names in found.items()
    ]


def is_later(text: object) -> bool:
    """Tell whether a time of a record lies in the future.

    >>> is_later("2026-11-27T10:00:00+00:00"), is_later("9999-01-01T00:00:00+00:00"), is_later("")
    (False, True, False)
    """
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return False
    return when.replace(tzinfo=when.tzinfo or timezone.utc) > datetime.now(timezone.utc) + _SLACK


def changes(machines: Sequence[Mapping[str, Any]]) -> str:
    """Say in which facts machines differ, each with its values in their order.

    >>> changes([{"torch": "2.4", "threads": 1}, {"torch": "2.5", "threads": 1}])
    'torch 2.4, then 2.5'
    """
    names = dict.fromkeys(name for machine in machines for name in machine)
    known = [name for name in names if all(name in machine for machine in machines)]  # earlier versions kept fewer
    told = {name: [str(machine[name]) for machine in machines] for name in known}
    return "; ".join(f"{name} {', then '.join(values)}" for name, values in told.items() if len({*values}) > 1)
