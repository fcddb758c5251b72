"""The engine of this process: one run after the other, for components that no other process can find."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from clsim.execution.engines.engine import EngineSpec, Outcome, Work


def create(spec: EngineSpec, root: Path) -> Here:
    """Make the engine."""
    return Here()


class Here:
    """The engine of this process. Final."""

    slots: int | None = 1

    def __init__(self) -> None:
        self._queue: deque[Work] = deque()

    def submit(self, jobs: Sequence[Work]) -> None:
        """Append jobs to the queue."""
        self._queue.extend(jobs)

    def poll(self, seconds: float) -> list[Outcome]:
        """Carry out the next job to its end, and return its outcome."""
        return [self._queue.popleft().carry_out()] if self._queue else []

    def close(self) -> None:
        """Forget the jobs that have not begun."""
        self._queue.clear()
