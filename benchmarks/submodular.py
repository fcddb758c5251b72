"""Facility location beside apricot and submodlib, and its time and peak memory on a million samples.

The contestants take turns in one process on the same clustered features (float32, width 512). Printed are the ratios of
their wall-clock times, the objective that their picks reach, and processor time, which other work on the machine
disturbs less. Peak memory is measured in a process of its own.

    python -m benchmarks.submodular [--n 10000] [--budget 1000] [--rounds 3] [--threads 2] [--skip-million]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool
from clsim.selectors.similarity import cosine
from clsim.selectors.submodular import facility_location


def clustered(n: int, width: int) -> Tensor:
    """Make features around 200 centres, none of them negative, as after a ReLU."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(200, width, generator=rng)
    x = torch.randn(n, width, generator=rng).mul_(0.7)
    for start in range(0, n, 65536):
        part = x[start : start + 65536]
        part += centres[torch.randint(200, (len(part),), generator=rng)]
    return x.relu_()


def pool_of(x: Tensor) -> Pool:
    """Make a pool whose features are ``x`` itself, as ``clsim select --features`` makes it."""
    none = torch.zeros(len(x), dtype=torch.int64)
    return Pool(Exemplars(x, none, none, torch.zeros(len(x)), none), None, lambda x: x)


def ours(x: Tensor, budget: int, **options: Any) -> Tensor:
    return facility_location(pool_of(x), budget, rng=torch.Generator().manual_seed(0), **options).index


def apricots(x: Tensor, budget: int) -> Tensor:
    """apricot, lazy, from features by their cosine: without negative ones an affine map of ours, so the same picks."""
    from apricot import FacilityLocationSelection

    chooser = FacilityLocationSelection(budget, metric="cosine", optimizer="lazy")
    return torch.from_numpy(np.asarray(chooser.fit(x.numpy()).ranking)).long()


def apricots_given(x: Tensor, budget: int) -> Tensor:
    """apricot, lazy, from similarities made by us, so that the optimisers alone differ."""
    from apricot import FacilityLocationSelection

    chooser = FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy")
    return torch.from_numpy(np.asarray(chooser.fit(cosine(x).matrix().numpy()).ranking)).long()


def submodlibs(x: Tensor, budget: int) -> Tensor:
    """submodlib, lazy, from features by their cosine."""
    from submodlib import FacilityLocationFunction

    function = FacilityLocationFunction(n=len(x), mode="dense", data=x.numpy(), metric="cosine", separate_rep=False)
    return _maximised(function, budget)


def submodlibs_given(x: Tensor, budget: int) -> Tensor:
    """submodlib, lazy, from similarities made by us."""
    from submodlib import FacilityLocationFunction

    s = cosine(x).matrix().numpy()
    return _maximised(FacilityLocationFunction(n=len(x), mode="dense", sijs=s, separate_rep=False), budget)


def _maximised(function: Any, budget: int) -> Tensor:
    picked = function.maximize(budget=budget, optimizer="LazyGreedy", show_progress=False)
    return torch.tensor([row for row, _ in picked])


def worth(x: Tensor, index: Tensor) -> float:
    """Compute the objective, Σ_i max_{j∈A} s_ij, in blocks."""
    samples, chosen = cosine(x), cosine(x)[index]
    parts = [samples[i : i + 2048].similarity(chosen).amax(1).double().sum() for i in range(0, len(x), 2048)]
    return float(torch.stack(parts).sum())


def beyond(n: int, width: int, budget: int, threads: int, queue: multiprocessing.Queue) -> None:
    """Measure in a process of its own: seconds, bytes before and at the peak, objective against random picks."""
    torch.set_num_threads(threads)
    ours(clustered(64, width), 4)
    x = clustered(n, width)
    pool = pool_of(x)
    before = _memory("VmRSS")
    started = time.perf_counter()
    index = facility_location(pool, budget, rng=torch.Generator().manual_seed(0)).index
    seconds = time.perf_counter() - started
    peak = _memory("VmHWM")
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(1))[:budget]
    queue.put((seconds, before, peak, worth(x, index) / worth(x, drawn)))


def _memory(field: str) -> int:
    """Read the memory of this process in bytes: VmRSS now, VmHWM at its peak so far (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def apart(n: int, width: int, budget: int, threads: int) -> tuple[float, int, int, float]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=beyond, args=(n, width, budget, threads, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each contestant that uses them")
    parser.add_argument("--skip-million", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    x = clustered(arguments.n, 512)
    contestants: dict[str, Callable[[Tensor, int], Tensor]] = {
        "clsim": ours,
        "apricot": apricots,
        "apricot, given s": apricots_given,
        "submodlib": submodlibs,
        "submodlib, given s": submodlibs_given,
    }
    for run in contestants.values():
        run(x[:300], 10)  # compiled and warm
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    values = {}
    for done in range(arguments.rounds):
        for name, run in contestants.items():
            if done and name.startswith("submodlib"):
                continue  # once is enough for the slowest
            torch.set_num_threads(arguments.threads)  # apricot's numba changes it
            started = time.process_time(), time.perf_counter()
            index = run(x, arguments.budget)
            seconds[name].append(time.process_time() - started[0])
            wall[name].append(time.perf_counter() - started[1])
            values[name] = worth(x, index)
    print(f"facility location, {arguments.n:,} × 512, {arguments.budget} picks")
    best = statistics.median(wall["clsim"])
    for name, times in wall.items():
        median = statistics.median(times)
        ratio, value = median / best, values[name] / values["clsim"]
        busy = f"(processor {statistics.median(seconds[name]):.2f} s)"
        print(f"  {name:<18} {median:7.2f} s  {ratio:6.1f} ×  {busy}  objective {value:.5f}  ({len(times)} rounds)")
    _, before, peak, _ = apart(arguments.n, 512, arguments.budget, arguments.threads)
    print(f"  clsim's peak memory beyond the pool's: {(peak - before) / 2**30:.2f} GiB")
    if not arguments.skip_million:
        taken, before, peak, gain = apart(1_000_000, 128, 1000, arguments.threads)
        features = 1_000_000 * 128 * 4
        print("facility location, 1,000,000 × 128, 1000 picks, sparse, 10,000 clients")
        print(f"  {taken:.0f} s, {gain:.3f} × the objective of random picks")
        print(f"  the process's peak: {peak / features:.2f} × the features; before: {before / features:.2f} ×")


if __name__ == "__main__":
    main()
