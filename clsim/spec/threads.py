"""The cores that a run may use, and the number of threads that ``auto`` stands for."""

from __future__ import annotations

import os

from clsim.errors import InputError

AUTO = "auto"
"""The value of ``training.threads`` that stands for :func:`cores_of_one`."""


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


def threads_of(text: int | str, where: str = "--threads") -> int | str:
    """Read a number of threads, or ``auto``, as a command line has it.

    Raises:
        InputError: if it is neither.

    >>> threads_of("2"), threads_of("auto")
    (2, 'auto')
    """
    if text == AUTO or isinstance(text, int):
        return text
    if not (text.isascii() and text.lstrip("-").isdecimal()):
        raise InputError(f"{where}: found {text!r}, allowed: a whole number from 1, or auto")
    return int(text)
