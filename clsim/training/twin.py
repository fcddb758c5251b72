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
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

from clsim.errors import InputError, first_line
from clsim.models.nets import Net
from clsim.models.passes import can_share, on_cores, spare

T = TypeVar("T")


def can_twin(net: Net) -> bool:
    """Tell whether a twin can and should pass samples through a net: a core is left, and the passes take a while."""
    alone = threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and alone and spare() > 1 and can_share(net)


class Twin(Generic[T]):
    """What a forked twin of this process computes while this one goes on. Final.

    It has a copy of all memory, one core, and a lower priority; files and sockets other than its own pipe are closed in
    it, among them the lock of a run's folder.

    Args:
        work: returns what is wanted, which can be pickled; what else it does stays in the twin.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, none of which the twin needs
            self._process = os.fork()
        if not self._process:
            _be_a_twin(work, writer)
        os.close(writer)
        self._pipe = os.fdopen(reader, "rb")

    def result(self) -> T:
        """Wait for the twin, and return what it found.

        Raises:
            InputError: if it was ended, or its work failed.
        """
        with self._pipe:
            data = self._pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        self._process = 0
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
        if not self._process:
            return
        self._pipe.close()
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._process = 0


def _be_a_twin(work: Callable[[], object], writer: int) -> NoReturn:
    """Do the work of a twin, and end; nothing of the other process's own is ended, flushed or said."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.closerange(3, writer)
        os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
        os.nice(10)
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
