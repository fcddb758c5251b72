"""The exceptions that a user's mistake and a disk's refusal raise, and the wording that messages share."""

from __future__ import annotations

import difflib
import math
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """An error in what the user gave: one clear line, exit code 2, no traceback.

    The message says where, what was found, and what is allowed.
    """


class Diverged(InputError):
    """A choice by a net whose training has diverged; a search judges such an attempt and goes on."""


class RunBusy(InputError):
    """Another process holds the lock of this run."""


class DiskError(InputError, OSError):
    """The disk refused an operation: full, not to be written, broken. What was recorded before stands.

    Attributes:
        reason: why, in the system's words.
    """

    reason = ""

    @classmethod
    def of(cls, path: Path, done: str, error: Exception) -> DiskError:
        """Say which file could not be written, renamed, removed, made or locked, and why.

        >>> print(DiskError.of(Path("runs/lock"), "locked", OSError(28, "No space left on device")))
        runs/lock: cannot be locked (No space left on device); nothing recorded is lost: try again once it can be
        """
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        reason = " ".join(reason.split())
        made = cls(f"{path}: cannot be {done} ({reason}); nothing recorded is lost: try again once it can be")
        made.reason = reason
        made.errno = error.errno if isinstance(error, OSError) else None
        return made


class DiskWarning(UserWarning):
    """The disk refused to keep what a run can make again: it goes on without."""


def raised(error: Exception) -> str:
    """Describe in one line what a user's own code raised, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}: {text} ({frame.filename}:{frame.lineno})"


def duration(seconds: float) -> str:
    """
    >>> duration(8.4), duration(200), duration(9000)
    ('8 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def first_line(error: BaseException) -> str:
    """Return the first line of an error, for a message of one line."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text.splitlines()[0])[:120]


@contextmanager
def in_one_line(name: str, why: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turn whatever a component raises, which may be a user's own, into one line that names it.

    Args:
        name: the component's name, for messages.
        why: makes a likely reason, with which the line ends.

    Raises:
        InputError: in the place of every other error.
    """
    try:
        yield
    except InputError as error:
        begun = name.split()[0]  # an error may name the option itself
        kind = Diverged if isinstance(error, Diverged) else InputError
        raise kind(f"{name}: {str(error).removeprefix(f'{begun}: ')}") from error
    except Exception as error:
        raise InputError(f"{name}: {raised(error)}{why()}") from error


def at_least(least: float, where: str = "", **values: float) -> None:
    """Refuse numbers below a bound, and what is not finite.

    Args:
        least: the lowest number that is allowed.
        where: what stands before each name in the message, as in ``"training."`` or ``"ewc: "``.
        values: the numbers, by their names.

    Raises:
        InputError: naming the first number that is refused.

    >>> at_least(1, "training.", epochs=5, batch_size=0)
    Traceback (most recent call last):
    clsim.errors.InputError: training.batch_size: found 0, allowed: 1 or more
    """
    for name, value in values.items():
        if not least <= value < math.inf:
            raise InputError(f"{where}{name}: found {value:g}, allowed: {least:g} or more")


def nearest(name: str, allowed: Iterable[str], of: str = "") -> str:
    """Suggest the allowed name nearest to the unknown ``name``, and list the allowed names (24 of them at most).

    Args:
        name: what was found.
        allowed: the allowed names.
        of: what the allowed names are, to be said in place of a list that would help nobody.

    >>> nearest("kcentre", ["random", "herding", "kcenter"])
    "did you mean 'kcenter'? (allowed: herding, kcenter, random)"
    >>> nearest("x", ["b", "a"])
    'allowed: a, b'
    """
    names = sorted(set(allowed))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = of or ", ".join(names) if of or len(names) <= 24 else f"{', '.join(names[:24])}, … ({len(names)} in all)"
    return f"did you mean {close[0]!r}? (allowed: {listed})" if close else f"allowed: {listed}"
