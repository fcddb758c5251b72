"""``search.json`` in a run's folder: what an unfinished search has found so far, so that it can be resumed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clsim.errors import InputError, first_line
from clsim.records import sealed
from clsim.records.atomic import write
from clsim.records.schema import amount, counter, listing, maybe, number, share, table
from clsim.spec.reader import Options, arguments

FORMAT = 1
"""Format number of ``search.json``."""


@dataclass(frozen=True)
class Trace:
    """What a search has found so far.

    Attributes:
        fingerprint: fingerprint of the run.
        done: number of experiences finished before the search.
        format: format of the file; one by clsim 0.1.0 holds the version in its place, as ``clsim``, and has format 1.
    """

    fingerprint: str
    done: int
    attempts: tuple[Attempt, ...]
    format: int = FORMAT
    clsim: str = ""


def save(folder: Path, done: int, attempts: Sequence[Attempt]) -> None:
    """Write the attempts so far of the search after ``done`` experiences, atomically."""
    trace = Trace(folder.name, done, tuple(attempts))
    write(folder / "search.json", sealed.sealed(dataclasses.asdict(trace)))


def load(folder: Path, done: int) -> tuple[Attempt, ...]:
    """Read the attempts of an interrupted search after ``done`` experiences; none if the file is of another search.

    An attempt whose model would have been kept is left out: its accuracy is known, but its model is lost.

    Raises:
        InputError: if the file is damaged, or of a later format.
    """
    path = folder / "search.json"
    try:
        data, _ = sealed.read(path)
        trace = Trace(**arguments(Trace, data, "trace", ""))
        if wrong := _NUMBERS({"attempts": data["attempts"]}, ""):
            raise ValueError(wrong)
    except FileNotFoundError:
        return ()
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); run it again with --fresh") from None
    if trace.format != FORMAT:
        raise InputError(f"{path}: found format {trace.format}, allowed: {FORMAT}; run it again with --fresh")
    if (trace.fingerprint, trace.done) != (folder.name, done):
        return ()
    return tuple(attempt for attempt in trace.attempts if not attempt.final)


COST = table(
    {},
    dict.fromkeys(("train_seconds", "select_seconds", "evaluate_seconds"), maybe(amount())),
    others=maybe(counter()),
)
"""The counters of an experience, or of an attempt: seconds, and whole numbers."""

ATTEMPT = table({"accuracy": share(), "lr": number(0), "needed": number(0), "cost": COST})
"""The numbers of an attempt of a search, whose shape is checked elsewhere."""

_NUMBERS = table({"attempts": listing(ATTEMPT)})


_ROUND_OFF = 1e-9
"""Tolerance of (1 − margin) · A*: two shares of the same n samples are at least 1/n apart."""


Phase = Literal["plasticity", "stability", "once"]


Decision = Literal["best so far", "no better", "accepted", "decayed", "last", "kept"]


Values = dict[str, float]
"""Stability hyper-parameters by name: H."""


@dataclass(frozen=True)
class Trial:
    """A training of the experience, from where the experience before ended.

    Attributes:
        phase: fine-tuning (``plasticity``), the method in search of its trade-off (``stability``), or ``once``.
        lr: learning rate.
        values: H; empty in fine-tuning.
        needed: validation accuracy to exceed (``plasticity``: the best so far) or to reach.
        last: whether its model is kept, whatever its accuracy.
    """

    phase: Phase
    lr: float
    values: Values
    needed: float
    last: bool = False

    def decision(self, accuracy: float) -> Decision:
        """What follows from the validation accuracy."""
        if self.phase == "plasticity":
            return "best so far" if accuracy > self.needed else "no better"
        if self.phase == "once":
            return "kept"
        if accuracy >= self.needed - _ROUND_OFF:
            return "accepted"
        return "last" if self.last else "decayed"


@dataclass(frozen=True)
class Attempt:
    """What became of a trial.

    Attributes:
        phase, lr, values, needed: as in the trial.
        accuracy: accuracy on the experience's own validation part.
        decision: what followed.
        cost: cost of this attempt alone; see :class:`clsim.pool.pool.Cost`.
    """

    phase: Phase
    lr: float
    values: Options
    needed: float
    accuracy: float
    decision: Decision
    cost: Options

    @property
    def final(self) -> bool:
        """Whether its model is the one that the search ends with."""
        return self.decision in ("accepted", "last", "kept")

    @property
    def seconds(self) -> float:
        """Seconds of training and selection."""
        return self.cost.get("train_seconds", 0) + self.cost.get("select_seconds", 0)


@dataclass(frozen=True)
class Search:
    """The trace of one experience.

    Attributes:
        experience: its position in the stream.
        attempts: in order; the last one's model was kept.
    """

    experience: int
    attempts: tuple[Attempt, ...]

    def __post_init__(self) -> None:
        if not self.attempts or not self.kept.final:
            raise InputError("attempts: the last one is none that a search ends with")

    @property
    def kept(self) -> Attempt:
        """The attempt whose model the run goes on with."""
        return self.attempts[-1]

    @property
    def best(self) -> float:
        """A*: the best validation accuracy of fine-tuning."""
        return max((a.accuracy for a in self.attempts if a.phase == "plasticity"), default=math.nan)

    @property
    def seconds(self) -> float:
        """Seconds of the whole search."""
        return sum(attempt.seconds for attempt in self.attempts)


def read_search(data: Any, where: str) -> Search:
    """A search as a record has it.

    Raises:
        InputError: naming ``where``, and what is wrong.
    """
    return Search(**arguments(Search, data, where, ""))
