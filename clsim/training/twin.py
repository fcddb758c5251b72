"""A forked twin of the process, which computes something while the process goes on.

It has everything as it was when it began, and shares its memory until one of the two writes: what it finds is what this
process would have found there and then.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from clsim.errors import InputError, first_line
from clsim.models.nets import Net
from clsim.models.passes import can_share, on_cores, spare

LOOK = 1.0
"""Seconds between two looks at a twin that is waited for."""

LOOKS = 3
"""The number of looks in a row after which a twin that gets no core is given up."""

LEAST = 0.1
"""The least share of a core that a twin should have, while it is waited for."""

T = TypeVar("T")


def can_twin(net: Net) -> bool:
    """Tell whether a twin can and should pass samples through a net: a core is left, and the passes take a while."""
    alone = threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and alone and spare() > 1 and can_share(net)


class Twin(Generic[T]):
    """What a forked twin of this process computes while this one goes on. Final.

    It has a copy of all memory, and one core that nobody else wants (Linux's ``SCHED_IDLE``): a process that is merely
    nicer keeps the gradients of this one's weights waiting, some milliseconds at a time. Where other programs leave it
    no core while this process waits for it, a second fork, which waits asleep, does its work with a usual share. Files
    and sockets other than their own pipes are closed in both, among them the lock of a run's folder.

    Args:
        work: returns what is wanted, which can be pickled; what else it does stays in the twin.

    Raises:
        OSError: if the system has no process, or no memory, left for it.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._twin = _Fork(work, idle=True)
        try:
            self._reserve = _Fork(work, idle=False)
        except OSError:
            self._twin.stop()
            raise

    def result(self) -> T:
        """Wait for the twin, and return what it found.

        Raises:
            InputError: if it was ended, or its work failed.
        """
        if not self._twin.comes():
            self._twin.stop()
            self._twin, self._reserve = self._reserve, self._twin
            self._twin.begin()
        status, data = self._twin.ended()
        self._reserve.stop()
        if status:
            raise InputError(
                f"evaluation: the process that tests beside training ended with {status}, before it was done; the same "
                "command goes on, and with OMP_NUM_THREADS=1 there is no such process"
            )
        fine, found = pickle.loads(data)
        if not fine:
            raise InputError(f"evaluation: {found}")
        return found

    def stop(self) -> None:
        """End the twin, if it has not ended: nobody will ask for what it finds."""
        self._twin.stop()
        self._reserve.stop()


class _Fork:
    """A forked process, and the pipes to it.

    Args:
        work: what it does.
        idle: whether it begins at once, on a core that nobody else wants; else it begins when it is told, if ever.
    """

    def __init__(self, work: Callable[[], object], *, idle: bool) -> None:
        reader, writer = os.pipe()
        waits, tells = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, none of which the twin needs
            try:
                self._process = os.fork()
            except OSError:
                for end in (reader, writer, waits, tells):
                    os.close(end)
                raise
        if not self._process:
            _be_a_twin(work, writer, None if idle else waits)
        os.close(writer)
        os.close(waits)
        self._pipe, self._tells = os.fdopen(reader, "rb"), os.fdopen(tells, "wb")

    def begin(self) -> None:
        """Tell it to begin."""
        with suppress(BrokenPipeError), self._tells:  # of one that was ended, its exit code tells
            self._tells.write(b"!")

    def comes(self) -> bool:
        """Wait until there is something of what it found, or its end; tell whether there is: else it gets no core."""
        starved, before, began = 0, self._look()[1], time.monotonic()
        while not connection.wait([self._pipe.fileno()], timeout=LOOK):
            (ready, worked), now = self._look(), time.monotonic()
            starved = starved + 1 if ready and worked - before < LEAST * (now - began) else 0
            before, began = worked, now
            if starved == LOOKS:
                return False
        return True

    def _look(self) -> tuple[bool, float]:
        """Tell whether it works or could work, and the seconds that it has worked (Linux)."""
        found = Path(f"/proc/{self._process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return found[0] == "R", (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")

    def ended(self) -> tuple[int, bytes]:
        """Wait for its end; return its exit code, and what it found."""
        with self._pipe:
            data = self._pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        self._process = 0
        self._tells.close()
        return status, data

    def stop(self) -> None:
        """End it, if it has not ended."""
        if not self._process:
            return
        self._pipe.close()
        self._tells.close()
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._process = 0


def _be_a_twin(work: Callable[[], object], writer: int, waits: int | None) -> NoReturn:
    """Do the work of a twin, and end; nothing of the other process's own is ended, flushed or said.

    Args:
        work: returns what is wanted.
        writer: where what it found is written.
        waits: where it is told to begin; None: it begins at once, on a core that nobody else wants.
    """
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        kept = sorted({2, writer, writer if waits is None else waits, os.sysconf("SC_OPEN_MAX")})
        for i in range(1, len(kept)):
            os.closerange(kept[i - 1] + 1, kept[i])
        os.nice(10)
        if waits is None:
            with suppress(OSError):  # not every kernel, or container, knows it
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        if waits is None or os.read(waits, 1):  # else the other process has ended
            try:
                with on_cores(1):
                    answer = True, work()
            except Exception as error:
                answer = False, first_line(error)
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(answer, pipe)
            status = 0
    finally:
        os._exit(status)
