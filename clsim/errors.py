"""The one exception that a user's mistake raises, and the wording that messages share."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable


class InputError(ValueError):
    """An error in what the user gave: one clear line, exit code 2, no traceback.

    The message says where, what was found, and what is allowed.
    """


class RunBusy(InputError):
    """Another process holds the lock of this run."""


def raised(error: Exception) -> str:
    """Describe in one line what a user's own code raised, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}: {text} ({frame.filename}:{frame.lineno})"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Suggest the allowed name nearest to the unknown ``name``, and list the allowed names (24 of them at most).

    >>> nearest("kcentre", ["random", "herding", "kcenter"])
    "did you mean 'kcenter'? (allowed: herding, kcenter, random)"
    >>> nearest("x", ["b", "a"])
    'allowed: a, b'
    """
    names = sorted(set(allowed))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = ", ".join(names) if len(names) <= 24 else f"{', '.join(names[:24])}, … ({len(names)} in all)"
    return f"did you mean {close[0]!r}? (allowed: {listed})" if close else f"allowed: {listed}"
