"""Runs that are killed half way, and what it takes to say that another one ended as they would have."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.records.store import RunRecord
from tests.helpers import assert_same

# children of a server that has imported all of it (Avalanche takes seconds), in place of fresh interpreters
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["clsim.training.loop", "clsim.interop.avalanche"])


class Killed(BaseException):
    """What ends a run at a write, in place of a signal."""


class Writes:
    """Counts the files that are put in their place, and ends the run at one of them.

    Attributes:
        moves: number of files so far.
        limit: the one that ends the run; 0: none does.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moves = self.limit = 0
        self._replace = os.replace
        monkeypatch.setattr(os, "replace", self._counted)

    def stop_at(self, limit: int) -> None:
        """Count anew, and end the run at file ``limit``."""
        self.moves, self.limit = 0, limit

    def _counted(self, source: Any, target: Any) -> None:
        self.moves += 1
        if self.moves == self.limit:
            raise Killed
        self._replace(source, target)


def interruptible() -> None:
    """Let Ctrl-C reach a child process; shells let what they start in the background ignore it, and so its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def exit_code_of(target: Callable[..., None], *arguments: Any) -> int | None:
    """What a function ends with in a process of its own; the number of the signal that kills it, negative."""
    process = PROCESSES.Process(target=entered, args=(Path.cwd(), dict(os.environ), target, arguments))
    process.start()
    process.join()
    return process.exitcode


def entered(folder: Path, environment: dict[str, str], target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Call ``target`` where the test stands: the server was started elsewhere."""
    os.chdir(folder)
    os.environ.update(environment)
    target(*arguments)


def die(move: int, arguments: dict[str, Any]) -> None:
    """Carry a run out, and kill its process when it replaces a file for the ``move``-th time."""
    replace, moves = os.replace, 0

    def dies(source: Any, target: Any) -> None:
        nonlocal moves
        moves += 1
        if moves == move:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = dies  # type: ignore[assignment]
    clsim.run(**arguments)


def killed(move: int, arguments: dict[str, Any], whole: RunRecord) -> Path:
    """The folder of a run in a process of its own that is killed; ``whole`` is the same run elsewhere."""
    assert exit_code_of(die, move, arguments) == -signal.SIGKILL
    assert whole.folder is not None
    return Path(arguments["runs"]) / whole.folder.name


def assert_same_end(resumed: RunRecord, whole: RunRecord) -> None:
    """Accuracies, losses, weights, memory, generators and steps, bit for bit."""
    assert resumed.accuracy.equals(whole.accuracy)
    folders = [record.folder for record in (whole, resumed) if record.folder is not None]
    with np.load(folders[0] / "losses.npz") as first, np.load(folders[1] / "losses.npz") as second:
        assert {name: first[name].tobytes() for name in first} == {name: second[name].tobytes() for name in second}
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in folders]
    for part in ("learner", "memory", "randomness"):
        assert_same(states[0][part], states[1][part])
    steps = [[c["steps"] for c in record.data["cost"]] for record in (whole, resumed)]
    assert steps[0] == steps[1]
