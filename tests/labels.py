"""Records of runs with label rounds, made by hand, for the tests of what is shown of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clsim.records import metrics
from clsim.records.store import FORMAT
from clsim.spec.run import RunSpec

Accuracy = Callable[[int, int], float]
"""(experience, labels in it) → accuracy on each experience seen."""


def labelled(
    selector: str,
    seed: int = 0,
    *,
    sizes: Sequence[int] = (10, 10, 10),
    initial: int = 10,
    experiences: int = 1,
    accuracy: Accuracy = lambda p, n: 0.5,
    picks: Callable[[int, int], Sequence[int]] | None = None,
    scenario: str = "active-digits",
    classes: int = 10,
    split: int = -1,
    pool: int = 1000,
    unique: float | None = 1.0,
    **changes: Any,
) -> dict[str, Any]:
    """A record with an initial set and a round for each of ``sizes`` in every experience.

    Args:
        accuracy: of each experience seen, after a training of an experience with so many labels.
        picks: (experience, round) → the rows that are asked for; the label of a row is row % classes.
    """
    spec = json.loads(json.dumps(RunSpec(scenario=scenario, strategy="finetune", seed=seed).as_dict()))
    table = {"selector": selector, "budget": sum(sizes), "rounds": len(sizes), "initial_count": initial, "split": split}
    spec["labelling"] = table
    for name, value in changes.items():
        at, _, key = name.partition("__")
        if key:
            spec[at][key] = value
        else:
            spec[at] = value
    rng = np.random.default_rng([seed, sum(map(ord, selector))])
    rounds, matrix = [], []
    for p in range(experiences):
        free = list(range(pool))
        rng.shuffle(free)
        count = initial
        entries = [(0, "initial", initial)] if initial else []
        entries += [(r, selector, size) for r, size in enumerate(sizes, 1)]
        for r, by, size in entries:
            rows = list(picks(p, r)) if picks and r else [int(free.pop()) for _ in range(size)]
            count += size if r else 0
            row = [round(accuracy(p, count), 6) if q <= p else None for q in range(experiences)]
            rounds.append(
                {
                    "experience": p,
                    "round": r,
                    "by": by,
                    "rows": rows,
                    "labels": [row % classes for row in rows],
                    "labelled": count,
                    "accuracy": row,
                    "select_seconds": 0.1 * r,
                    "train_seconds": 2.0,
                    "peak_bytes": 2**20 * (r + 1),
                    "radius": 3.0 / (r + 1),
                    "distance": 2.0,
                    "unique": unique,
                }
            )
        matrix.append(rounds[-1]["accuracy"])
    fingerprint = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    cost = dict.fromkeys(("steps", "forward_passes", "evaluate_passes"), 10)
    cost |= dict.fromkeys(("train_seconds", "select_seconds", "evaluate_seconds"), 1.0)
    cost |= dict.fromkeys(("peak_bytes", "memory_bytes", "state_bytes", "net_bytes"), 1000)
    return {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "finished": True,
        "spec": spec,
        "test_sizes": [100] * experiences,
        "accuracy": matrix,
        "initial": [None] * experiences,
        "validation": [None] * experiences,
        "classes": [list(range(classes)) for _ in range(experiences)],
        "cost": [cost] * experiences,
        "labelling": {
            "initial": [initial] * experiences,
            "asked": [sum(sizes)] * experiences,
            "validation": [0] * experiences,
            "candidates": [pool] * experiences,
            "rounds": rounds,
        },
        "metrics": metrics.summary(matrix, [None] * experiences, sizes=[100] * experiences),
        "versions": {"clsim": "0.1.0", "code": "x", "torch": "2"},
        "environment": {"device": "cpu", "processor": "p"},
        "command": f"clsim run --label {selector} --seed {seed}",
        "started": "2026-11-27T15:00:00+00:00",
        "ended": "2026-11-27T15:01:00+00:00",
    }


def study(
    gains: dict[str, float] | None = None,
    seeds: int = 5,
    experiences: int = 1,
    **changes: Any,
) -> list[dict[str, Any]]:
    """Arms whose accuracy grows as 1 − e^(−gain · labels), with some noise by seed and by round."""
    made = []
    for arm, gain in (gains or {"random": 0.02, "margin": 0.03, "badge": 0.035}).items():
        for seed in range(seeds):
            noise = np.random.default_rng([seed, 7])

            def accuracy(p: int, n: int, gain: float = gain, noise: Any = noise) -> float:
                return float(np.clip(0.95 * (1 - np.exp(-gain * n)) / (1 + 0.3 * p) + noise.normal(0, 0.01), 0, 1))

            made.append(labelled(arm, seed, accuracy=accuracy, experiences=experiences, **changes))
    return made
