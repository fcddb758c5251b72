"""The Ray engine of the parts of a selection: a task for each, on nodes that share the features and the state."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import ray
from ray.exceptions import RayError, RayTaskError

from clsim.errors import first_line
from clsim.execution.engines.engine import EngineSpec, Outcome, Work
from clsim.execution.engines.ray import connect


def create(spec: EngineSpec, root: Path) -> RayParts:
    """Connect to the cluster of the spec, or start one."""
    connected, share = connect(spec)
    return RayParts(spec.threads, share, spec.workers, leave=connected)


class RayParts:
    """The engine of tasks that leave their result in a folder that all nodes see. Final.

    Args:
        threads: number of CPU threads of each part.
        gpus: number of GPUs of each part, or its share of one GPU.
        slots: number of parts at a time; None = as many as the cluster has room for.
        leave: whether :meth:`close` leaves the connection open, since it existed before.
    """

    def __init__(self, threads: int, gpus: float, slots: int | None, *, leave: bool) -> None:
        self.slots, self._leave = slots, leave
        self._task = ray.remote(carried_out).options(num_cpus=threads, num_gpus=gpus, max_retries=0)
        self._waiting: deque[Work] = deque()
        self._running: dict[ray.ObjectRef, Work] = {}

    def submit(self, jobs: Sequence[Work]) -> None:
        """Append parts to the queue."""
        self._waiting.extend(jobs)
        self._fill()

    def poll(self, seconds: float) -> list[Outcome]:
        """Return the outcomes of tasks that ended, and give the cluster others."""
        done, _ = ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        outcomes = [_outcome(ref, self._running.pop(ref)) for ref in done]
        self._fill()
        return outcomes

    def close(self) -> None:
        """Stop the tasks, and disconnect from the cluster unless the connection existed before."""
        for ref in self._running:
            ray.cancel(ref, force=True)
        if not self._leave:
            ray.shutdown()

    def _fill(self) -> None:
        while self._waiting and (self.slots is None or len(self._running) < self.slots):
            work = self._waiting.popleft()
            self._running[self._task.remote(work)] = work


def carried_out(work: Work) -> Outcome:
    """Carry out a part on a node."""
    return work.carry_out()


def _outcome(ref: ray.ObjectRef, work: Work) -> Outcome:
    try:
        return ray.get(ref)
    except RayTaskError as error:  # not the part's own error, which is returned; for example, no clsim there
        return Outcome(work.key, "failed", first_line(error.cause or error))
    except RayError as error:
        return Outcome(work.key, "lost", f"its worker is gone ({first_line(error)})")
