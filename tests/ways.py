"""Records of runs that were tested on the way, made by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tests.labels import labelled


def walked(
    name: str,
    seed: int,
    curves: Sequence[tuple[Sequence[int], Sequence[int], Sequence[float], Sequence[float]]],
    *,
    net: dict[str, Any] | None = None,
    learnt: float | None = 0.5,
    wrong: float | None = 0.25,
    pool: str = "",
    setting: str = "domain",
    **changes: Any,
) -> dict[str, Any]:
    """A run whose batches ``name`` chose; of each experience steps, candidates, seconds and accuracies of its tests.

    Args:
        net: what the irreducible-loss net of each experience took.
        changes: values of the spec, as ``table__key``.
    """
    record = labelled("none", seed, experiences=len(curves), sizes=(), scenario="split-digits", **changes)
    del record["labelling"]
    spec = record["spec"]
    spec["labelling"] = {"selector": "none"}
    spec["stream"] |= {"setting": setting}
    spec["batch"] = {"selector": name, "share": 0.1}
    if pool:
        spec["pool"] = [{"name": pool, "options": {}}]
    entries, matrix = [], []
    for p, (steps, candidates, seconds, accuracy) in enumerate(curves):
        rows = [[value] * (p + 1) for value in accuracy]
        curve = {"steps": steps, "candidates": candidates, "seconds": seconds, "accuracy": rows}
        entry = {"experience": p, "steps": steps[-1], "candidates": candidates[-1], "trained": 10, "learnt": learnt}
        entry |= {"different": None if name == "none" else 9, "passes": 0, "seconds": 0.0, "curve": curve}
        entry |= {"wrong": wrong} if name != "none" else {}
        entries.append(entry | ({"irreducible": net} if net else {}))
        matrix.append([*rows[-1], *[None] * (len(curves) - p - 1)])
    cost = record["cost"][0] | {"forward_passes": 77, "evaluate_passes": 7}
    record |= {"batches": entries, "accuracy": matrix, "cost": [cost] * len(curves)}
    fingerprint = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    return record | {"fingerprint": fingerprint, "command": f"clsim run --batch {name} --seed {seed}"}


NET = {
    "source": "halves",
    "nets": 2,
    "samples": [40, 50],
    "kept_back": [4, 6],
    "epochs": [2, 2],
    "best_epoch": [1, 1],
    "steps": [7, 8],
    "loss": [0.1, 0.1],
    "passes": 900,
    "seconds": 30.0,
}
"""Two nets: 100 images, 15 steps, 900 samples passed forward, 30 seconds."""


def small(seeds: int = 3) -> list[dict[str, Any]]:
    """Four arms of one experience, the same for every seed but that ``loss`` reaches random's best once only.

    Random is best (60 %) at 20 steps, 200 candidates, 2 s. All have 20 steps, and 210 candidates.
    """
    made = []
    for seed in range(seeds):
        made.append(walked("random", seed, [([10, 20, 30], [100, 200, 300], [1, 2, 3], [0.4, 0.6, 0.5])]))
        made.append(walked("rho-loss", seed, [([10, 20], [110, 210], [5, 6], [0.6, 0.8])], net=NET, learnt=0.125))
        made.append(walked("none", seed, [([10, 40], [100, 400], [0.5, 2.0], [0.3, 0.9])], learnt=None))
        late = 0.7 if seed == 0 else 0.2
        made.append(walked("loss", seed, [([10, 20], [120, 220], [7, 8], [0.1, late])], wrong=0.75))
    return made


def stream() -> list[dict[str, Any]]:
    """Two experiences of different length; in the second one, rho-loss does not reach random's best."""
    made = []
    for seed in range(3):
        first = ([10, 20], [100, 200], [1, 2], [0.5, 0.7])
        made.append(walked("random", seed, [first, ([5, 10, 15], [50, 100, 150], [3, 4, 5], [0.3, 0.6, 0.5])]))
        first = ([10, 20], [100, 200], [2, 4], [0.8, 0.9])
        made.append(walked("rho-loss", seed, [first, ([5, 10], [50, 100], [6, 8], [0.2, 0.4])], net=NET))
    return made
