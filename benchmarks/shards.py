"""Choices in parts: seconds, memory beyond the mapped file, and the objective beside that of the whole.

It writes a file of N × 128 clustered features into a folder, unless it is there, and chooses from it, each time in a
process of its own, with one thread. The memory is the largest growth of what that process holds of its own
(``RssAnon``), read every 10 ms: pages of mapped files are not in it.

    python -m benchmarks.shards FOLDER [--n 200000] [--selector kcenter] [--budget 1000] [--parts 7] [--whole]

For 10 million rows (5 GB), without the whole:

    python -m benchmarks.shards FOLDER --n 10000000 --selector kcenter
    python -m benchmarks.shards FOLDER --n 10000000 --selector facility-location --clients 2000
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import clsim
from clsim.data.shards import READ, Shards, shards
from clsim.execution.parts import drawn
from clsim.selectors.distances import squared_distances
from clsim.selectors.submodular import mean_service

WIDTH, CLUSTERS = 128, 2000


def made(folder: Path, n: int) -> Path:
    """Write the file, a block at a time."""
    file = folder / f"features-{n}x{WIDTH}.npy"
    if not file.exists():
        rng = np.random.default_rng(0)
        centres = 2 * rng.normal(size=(CLUSTERS, WIDTH)).astype(np.float32)
        x = np.lib.format.open_memmap(file, "w+", np.float32, (n, WIDTH))
        for start in range(0, n, READ // 512):
            m = min(READ // 512, n - start)
            x[start : start + m] = centres[rng.zipf(1.3, m) % CLUSTERS] + rng.standard_normal((m, WIDTH), np.float32)
        x.flush()
    return file


class Memory:
    """Watches what this process holds of its own, until it is left. ``growth``: bytes."""

    def __enter__(self) -> Memory:
        self.growth, self._before, self._over = 0, anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.growth = max(self.growth, anonymous() - self._before)


def anonymous() -> int:
    """Read the memory of this process that no file backs, in bytes; 0 if the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def radius(found: Shards, picks: np.ndarray) -> float:
    """Compute the largest distance of any row to the nearest pick, a block at a time."""
    centres, largest = torch.from_numpy(found.take(np.sort(picks))), 0.0
    mean = centres.mean(0)
    for start in range(0, len(found), 4096):
        rows = torch.from_numpy(found.take(np.arange(start, min(start + 4096, len(found)))))
        largest = max(largest, float(squared_distances(rows - mean, centres - mean).amin(1).max()))
    return math.sqrt(largest)


def objective(selector: str, found: Shards, picks: np.ndarray) -> float:
    """Compute the k-center radius, or the mean similarity of fresh rows to the best pick."""
    if selector == "kcenter":
        return radius(found, picks)
    fresh = drawn(len(found), min(20_000, len(found)), torch.Generator().manual_seed(1))
    return mean_service(torch.from_numpy(found.take(fresh)), torch.from_numpy(found.take(np.sort(picks))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--selector", default="kcenter", choices=("kcenter", "facility-location"))
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--parts", type=int, nargs="*", default=[])
    parser.add_argument("--clients", type=int)
    parser.add_argument("--whole", action="store_true")
    given = parser.parse_args()
    file = made(given.folder, given.n)
    ways: list[dict[str, Any]] = [{"parts": parts} for parts in given.parts] or [{"engine": "here"}]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        for way in [*ways, *([{}] if given.whole else [])]:
            print(processes.apply(measured, (given, file, way)), flush=True)


def measured(given: argparse.Namespace, file: Path, way: dict[str, Any]) -> str:
    """Choose in one way, and say what it took and gave."""
    torch.set_num_threads(1)
    options: dict[str, Any] = {"clients": given.clients} if given.clients else {}
    started = time.process_time()
    with Memory() as memory:
        picks = clsim.select(given.selector, features=file, budget=given.budget, options=options, threads=1, **way)
    seconds = time.process_time() - started
    value = objective(given.selector, shards(file), picks.index)
    return (
        f"{picks.source:40} {seconds:7.1f} s of the processor  {memory.growth / 2**20:5.0f} MiB beyond the map  "
        f"objective {value:.4f}  {picks.certificate}"
    )


if __name__ == "__main__":
    main()
