"""The cores that a process, and a run in it, may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def cores_of_one() -> int:
    """Return the number of cores of a single run: those of the process, or fewer by ``OMP_NUM_THREADS``."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores(), int(said)) if said.isdecimal() and int(said) else cores()


def processes(runs: int, threads: int) -> int:
    """Return how many processes the cores have room for, at most one for each run; at least 1.

    Args:
        runs: number of runs.
        threads: threads of torch of each; below 1 counts as 1.
    """
    return max(1, min(runs, cores_of_one() // max(1, threads)))
