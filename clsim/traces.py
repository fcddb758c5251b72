"""``search.json`` in a run's folder: what a search that goes on has found so far, so that it can be taken up again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import clsim
from clsim.errors import InputError
from clsim.store import write
from clsim.strict import arguments
from clsim.tradeoff import Attempt


@dataclass(frozen=True)
class Trace:
    """Of which run, by which version, after how many experiences, and what was found."""

    fingerprint: str
    clsim: str
    done: int
    attempts: tuple[Attempt, ...]


def save(folder: Path, done: int, attempts: Sequence[Attempt]) -> None:
    """Write what the search after so many experiences has found so far, atomically."""
    trace = Trace(folder.name, clsim.__version__, done, tuple(attempts))
    write(folder / "search.json", json.dumps(dataclasses.asdict(trace), indent=1, allow_nan=False).encode())


def load(folder: Path, done: int) -> tuple[Attempt, ...]:
    """What the search after so many experiences found before it was cut short; of another one, nothing.

    An attempt whose model would have been kept is left out: its accuracy is known, but its model is lost.

    Raises:
        InputError: if the file is damaged.
    """
    path = folder / "search.json"
    try:
        trace = Trace(**arguments(Trace, json.loads(path.read_text(encoding="utf-8")), "trace", ""))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run it again with --fresh") from None
    if (trace.fingerprint, trace.clsim, trace.done) != (folder.name, clsim.__version__, done):
        return ()
    return tuple(attempt for attempt in trace.attempts if not attempt.final)
