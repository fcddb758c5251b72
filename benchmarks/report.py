"""`clsim report` over 1,000 finished runs, each form in a process of its own, as a person would call it.

The records are made up: random accuracies in valid records of a grid of scenarios × buffers × memories × seeds.

    python -m benchmarks.report [--runs 1000] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clsim.records.metrics import summary
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec

SCENARIOS = ("split-cifar100", "split-cifar100-class", "split-cifar10", "split-mnist", "permuted-mnist")
BUFFERS = ("random", "class-balanced", "herding", "kcenter", *(f"./mine.py:selector_{i}" for i in range(16)))
MEMORIES = (500, 2000)


def specs(runs: int) -> Iterator[RunSpec]:
    """Make the specs of a grid, seed by seed."""
    made = 0
    for seed in range(-(-runs // (len(SCENARIOS) * len(BUFFERS) * len(MEMORIES)))):
        for scenario in SCENARIOS:
            for memory in MEMORIES:
                base = resolve(scenario, "er", flags={"memory": {"capacity": memory}}, seed=seed)
                for buffer in BUFFERS:
                    if made == runs:
                        return
                    yield dataclasses.replace(base, memory=dataclasses.replace(base.memory, buffer=buffer))
                    made += 1


def record(spec: RunSpec, rng: np.random.Generator) -> dict[str, Any]:
    """Make up the record that a run of ``spec`` could have left."""
    size = spec.stream.experiences
    better = 0.01 * (BUFFERS.index(spec.memory.buffer) % 5) if spec.memory.buffer in BUFFERS else 0.0
    matrix = np.clip(rng.normal(0.7 + better, 0.05, (size, size)) - 0.01 * np.arange(size)[:, None], 0, 1)
    matrix[np.triu_indices(size, 1)] = np.nan
    accuracy = [[None if v != v else float(v) for v in row] for row in matrix]
    cost = {"steps": 250, "forward_passes": 5000, "peak_bytes": 5 * 10**8, "memory_bytes": 3072 * spec.memory.capacity}
    seconds = rng.gamma(10, 1, (size, 3))
    return {
        "format": 1,
        "fingerprint": spec.fingerprint,
        "finished": True,
        "spec": spec.as_dict(),
        "accuracy": accuracy,
        "initial": [None] * size,
        "validation": [None] * size,
        "classes": [[2 * i, 2 * i + 1] for i in range(size)],
        "cost": [
            {**cost, "train_seconds": float(a), "select_seconds": float(b), "evaluate_seconds": float(c)}
            for a, b, c in seconds
        ],
        "metrics": summary(accuracy, [None] * size),
        "diverged": False,
        "versions": {"clsim": "0.1.0", "torch": "2.4.0", "avalanche": "0.6.0", "python": "3.11.0"},
        "environment": {"device": "cpu", "threads": 1, "system": "Linux"},
        "command": f"clsim run --scenario {spec.scenario} --strategy er --buffer {spec.memory.buffer} "
        f"--memory {spec.memory.capacity} --seed {spec.seed}",
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T01:00:00+00:00",
    }


def make(folder: Path, runs: int) -> None:
    """Make a store of ``runs`` finished runs, and two broken folders."""
    rng = np.random.default_rng(0)
    for spec in specs(runs):
        place = folder / spec.fingerprint
        place.mkdir(parents=True, exist_ok=True)
        (place / "record.json").write_text(json.dumps(record(spec, rng), indent=1), encoding="utf-8")
    for name, text in (("0" * 16, "{"), ("f" * 16, "[]")):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "record.json").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="make the records here, and keep them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        make(folder, given.runs)
        for arguments in (
            ["summary"],
            ["forgetting", "--format", "latex"],
            ["accuracy", "--format", "markdown"],
            ["selectors", "--tests"],
            ["summary", "--format", "runs"],
            ["summary", "--format", "html", "--out", str(Path(temporary) / "report.html")],
        ):
            seconds = []
            for _ in range(given.rounds):
                started = time.perf_counter()
                code = "from clsim.cli.main import main; main()"
                command = [sys.executable, "-c", code, "report", *arguments, "--runs", str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                seconds.append(time.perf_counter() - started)
            shown = " ".join(arguments[:3])
            if done.returncode:
                print(f"report {shown:<32} failed: {done.stderr.strip().splitlines()[-1]}")
                continue
            size = len(done.stdout.encode())
            print(
                f"report {shown:<32} {given.runs} runs: {statistics.median(seconds):5.2f} s, {size / 1e3:,.0f} kB out"
            )


if __name__ == "__main__":
    main()
