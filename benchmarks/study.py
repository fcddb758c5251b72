"""A study of 24 runs on the local engine: two processes against one.

Both fill a folder of their own, one after the other. The ratio of their times is printed once without the start of the
processes (each imports torch and Avalanche, which matters little in long runs) and once with it. Beside it stands the
speed-up of bare loops, which share nothing, at that moment: on a busy machine it is below 2, and no study can do
better.

    python -m benchmarks.study [--workers 2] [--epochs 40] [--rounds 1]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from clsim.execution import plan
from clsim.execution.engines.engine import EngineSpec
from clsim.execution.study import RunState, carry_out
from clsim.records.store import Store

RUNS = {"buffer": ["random", "herding", "kcenter"], "memory": [20, 50], "seeds": 4}


class Begins:
    """An observer that notes when the first run begins to train."""

    def __init__(self) -> None:
        self.at: float | None = None

    def show(self, states: Sequence[RunState], left: float | None) -> None:
        if self.at is None and any(state.state == "running" for state in states):
            self.at = time.perf_counter()


def seconds(workers: int, epochs: int) -> tuple[float, float]:
    """Measure the whole study, and the part from the beginning of its first run."""
    with tempfile.TemporaryDirectory() as folder:
        store, begins = Store(Path(folder)), Begins()
        planned = plan.plan(plan.read({**RUNS, "set": {"training.epochs": epochs}}, "benchmark"), store)
        started = time.perf_counter()
        result = carry_out(planned, store, EngineSpec(workers=workers), watch=begins)
        ended = time.perf_counter()
    if len(result.records) != 24:
        raise SystemExit(f"only {len(result.records)} of 24 runs finished")
    return ended - started, ended - (begins.at or started)


def bare(processes: int) -> float:
    """Measure, in seconds, equal loops in ``processes`` processes."""
    code = "n = 0\nwhile n < 60_000_000: n += 1"
    started = time.perf_counter()
    loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    for loop in loops:
        loop.wait()
    return time.perf_counter() - started


def cpu() -> float:
    """Seconds that all processes which have ended spent on a core."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--epochs", type=int, default=40)
    arguments.add_argument("--rounds", type=int, default=1)
    given = arguments.parse_args()
    ratios: list[list[float]] = []
    for _ in range(given.rounds):
        times, used = [], []
        for workers in (1, given.workers):
            before = cpu()
            times.append((*seconds(workers, given.epochs), bare(workers) / workers))
            used.append(cpu() - before)
        one, many = times
        ratios.append([a / b for a, b in zip(one, many, strict=True)])
        print(f"24 runs of {given.epochs} epochs: {one[0]:.1f} s with 1 process, {many[0]:.1f} s with {given.workers}")
        print(f"  on the cores: {used[0]:.1f} s and {used[1]:.1f} s, the bare loops included")
    whole, running, loops = (statistics.median(values) for values in zip(*ratios, strict=True))
    print(f"speed-up: {running:.2f} from the first run on, {whole:.2f} with the start of the processes")
    print(f"bare loops: {loops:.2f}")


if __name__ == "__main__":
    main()
