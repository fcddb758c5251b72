"""The evaluations of a run: at the end of each experience, or beside the training of the next one on another core."""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from clsim.streams.stream import Experience, Stream
from clsim.training.contract import Learner, Setup
from clsim.training.evaluation import Outcome, measured, readouts, share_correct
from clsim.training.twin import Twin, can_twin

HEAD = "accuracy"
"""The name, among ways to predict, of the learner's own, whose accuracy is that of the run."""


@dataclass(frozen=True)
class Evaluated:
    """What the evaluation after an experience found. Final.

    Attributes:
        number: which experience of the run it was, from 0.
        position: its position in the stream.
        due: whether accuracy was to be measured.
        outcomes: the outcome of each way to predict; the learner's own alone, and NaN, where it was not.
        unlabelled: share of the experience's unlabelled samples predicted right; NaN: there are none.
        validation: accuracy on its validation part; NaN: there is none.
        passes: samples passed forward.
        seconds: time that it took.
    """

    number: int
    position: int
    due: bool
    outcomes: dict[str, Outcome]
    unlabelled: float
    validation: float
    passes: int
    seconds: float


def evaluated(learner: Learner, setup: Setup, stream: Stream, experience: Experience, number: int) -> Evaluated:
    """Evaluate a learner after an experience; the setup's counters stay as they are.

    Args:
        learner, setup: the learner and its setup.
        stream: the stream.
        experience: the experience that the learner was trained on last.
        number: which experience of the run it is, from 0.
    """
    spec, cost, position = setup.spec, setup.cost, experience.position
    before, seen = dataclasses.replace(cost), position + 1
    extent = len(stream) if spec.evaluation.rows == "all" else seen
    found, due = {HEAD: Outcome([math.nan] * len(stream), "")}, spec.evaluation.due(number + 1, len(stream.schedule))
    if due:
        found = measured({HEAD: learner.predict}, stream, extent, seen, spec, cost, learner.read_net)
        found |= measured(readouts(learner, setup, stream, position), stream, extent, seen, spec, cost)
    unlabelled = validation = math.nan
    if experience.unlabelled is not None:
        hidden = dataclasses.replace(experience.unlabelled, y=stream.truth(position))
        hidden = hidden[hidden.y >= 0]  # foreign samples have no class
        if len(hidden):
            unlabelled = share_correct(learner, hidden, spec, cost)
    if experience.validation is not None and len(experience.validation):
        validation = share_correct(learner, experience.validation, spec, cost)
    passes = cost.forward_passes - before.forward_passes
    seconds = cost.evaluate_seconds - before.evaluate_seconds
    vars(cost).update(vars(before))
    return Evaluated(number, position, due, found, unlabelled, validation, passes, seconds)


class Evaluations:
    """The evaluations of a run, in their order. Final.

    Args:
        stream: the run's stream.
        beside: whether they may be made beside the training of the next experience: nothing but the record reads them.
    """

    def __init__(self, stream: Stream, *, beside: bool) -> None:
        self._stream, self._beside = stream, beside
        self._twin: Twin[Evaluated] | None = None

    def __enter__(self) -> Evaluations:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._twin is not None:
            self._twin.stop()

    @property
    def waiting(self) -> bool:
        """Whether what the last evaluation finds is not known yet."""
        return self._twin is not None

    def make(self, learner: Learner, setup: Setup, experience: Experience, number: int) -> list[Evaluated]:
        """Evaluate after an experience; the arguments are those of :func:`evaluated`.

        Returns:
            What is known by now: what the evaluation after the experience before found, if it was not known, and what
            this one finds, unless a twin makes it.

        Raises:
            InputError: if the twin that evaluated after the experience before was ended.
        """

        def evaluate() -> Evaluated:
            return evaluated(learner, setup, self._stream, experience, number)

        found = [] if self._twin is None else [self._twin.result()]
        last = number + 1 == len(self._stream.schedule)
        self._twin = None
        if self._beside and not last and can_twin(setup.net):
            with suppress(OSError):  # no process, or no memory, is left for it: then training waits
                self._twin = Twin(evaluate)
        return found if self._twin is not None else [*found, evaluate()]
