"""The runs behind a page's numbers, packed: a value that many runs share is there once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clsim.records.frame import COSTS
from clsim.records.metrics import ALL, METRICS, Metric
from clsim.reporting import searches
from clsim.spec.naming import run_name


def packed(
    records: Sequence[Mapping[str, Any]],
    rows: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Metric] | None = None,
) -> dict[str, Any]:
    """Pack all that the page shows of each run, for JSON.

    Args:
        records: records of the report's runs, in the order in which cells count them.
        rows: fingerprint → the run's row of :func:`clsim.records.frame.frame`.
        own: the metrics of the user's, by the names of their columns there.

    Returns:
        ``shared``: a list of values, which the runs name by their number in it; ``runs``: a dict for each run, in which
        ``spec`` maps each key to the number of its value, and ``versions`` and ``environment`` are such numbers.
        Accuracies are whole ten-thousandths, null = not tested.
    """
    numbers: dict[str, int] = {}

    def shared(value: Any) -> int:
        return numbers.setdefault(json.dumps(value, sort_keys=True), len(numbers))

    known = {**ALL, **(own or {})}
    metrics = [
        name for name in known if name in METRICS or any(_rounded(row[name], 6) is not None for row in rows.values())
    ]
    runs = []
    for record in records:
        row = rows[record["fingerprint"]]
        runs.append(
            {
                "id": record["fingerprint"],
                "name": run_name(record["spec"]),
                "seed": record["spec"]["seed"],
                "metrics": [_rounded(row[name], 6) for name in metrics],
                "cost": [_rounded(row[name], 4) for name in COSTS],
                "accuracy": [[None if v is None else round(1e4 * v) for v in values] for values in record["accuracy"]],
                "spec": {key: shared(value) for key, value in record["spec"].items() if key != "seed"},
                "versions": shared(record["versions"]),
                "environment": shared(record.get("environment", {})),
                **({"searches": searches.rows(record)} if record.get("searches") else {}),
                "command": record["command"],
                "when": [str(record.get("started", "")), str(record.get("ended", ""))],
            }
        )
    return {
        "runs": runs,
        "searches": list(searches.ROW),
        "shared": [json.loads(text) for text in numbers],
        "metrics": [known[name].label for name in metrics],
        "percent": [known[name].percent for name in metrics],
        "costs": list(COSTS.values()),
    }


def commands(lines: Iterable[str]) -> list[str]:
    """List the commands of all runs; those that differ in the seed alone become one.

    >>> commands(["clsim run --strategy er --seed 1", "clsim run --strategy er --seed 0", "", "clsim study x.toml"])
    ['clsim run --strategy er --seed 0 --seed 1', 'clsim study x.toml']
    """
    seeds: dict[str, set[int]] = {}
    for line in filter(None, lines):
        command, seed = re.fullmatch(r"(.*?)(?: --seed (\d+))?", line, re.DOTALL).groups()  # type: ignore[union-attr]
        found = seeds.setdefault(command, set())
        if seed is not None:
            found.add(int(seed))
    return [" ".join([command, *(f"--seed {s}" for s in sorted(found))]) for command, found in sorted(seeds.items())]


def _rounded(value: Any, digits: int) -> float | None:
    return None if value is None or value != value else round(float(value), digits)
