"""Time that a command takes beyond its work, against the time that ``import torch`` takes.

Of a run, its work is what its record counts: the seconds of training, selection and evaluation. The division of the
stream is kept before anything is timed, and each run has another seed and a folder of its own. With ten images a class
there is next to nothing to train. Seconds of the clock, and of the processor (user and system) since other processes
slow the clock; medians. The work is counted by the clock alone, so that only with ten images a class can it be taken
from the processor's seconds.

python -m benchmarks.startup [--times 5]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

RUN = ["-m", "clsim", "run", "--scenario", "split-digits", "--quiet"]
FEW = ["--set", "data.per_class=10"]
PARTS = ("train", "select", "evaluate")
AIM = 1.3


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--times", type=int, default=5, help="times that each is done")
    times = arguments.parse_args().times
    with TemporaryDirectory() as folder:
        ready = Path(folder, "runs")
        for command in ([*RUN, "--runs", str(ready)], [*RUN, *FEW, "--runs", str(ready)]):
            seconds(command)  # keeps the division
        rows: dict[str, list[tuple[float, float]]] = {}
        for seed in range(1, times + 1):  # in turn, so that all have the same neighbours
            for name, command in (
                ("import torch", ["-c", "import torch"]),
                ("clsim list", ["-m", "clsim", "list"]),
                ("clsim report", ["-m", "clsim", "report", "summary", "--runs", str(ready)]),
            ):
                rows.setdefault(name, []).append(seconds(command))
            for name, more in (("run", []), ("run, 10 a class", FEW)):
                runs = Path(folder, f"{name} {seed}")
                clock, processor = seconds([*RUN, *more, "--seed", str(seed), "--runs", str(runs)])
                work = worked(runs)
                rows.setdefault(name, []).append((clock - work, processor - work))
    torch = medians(rows["import torch"])
    print(f"{'':16}{'clock, s':>10}{'ratio':>7}{'processor, s':>14}{'ratio':>7}")
    for name, found in rows.items():
        clock, processor = medians(found)
        line = f"{name:16}{clock:10.2f}{clock / torch[0]:7.2f}"
        print(line if name == "run" else f"{line}{processor:14.2f}{processor / torch[1]:7.2f}")
    print(f"aim: a run beyond its work at most {AIM} times import torch")


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Run Python; return the seconds of the clock, and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def worked(runs: Path) -> float:
    """Return the seconds of work that the one record of a folder counts."""
    (path,) = runs.glob("*/record.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    return sum(cost[f"{part}_seconds"] for cost in record["cost"] for part in PARTS)


def medians(rows: list[tuple[float, float]]) -> tuple[float, float]:
    clock, processor = map(statistics.median, zip(*rows, strict=True))
    return clock, processor


if __name__ == "__main__":
    main()
