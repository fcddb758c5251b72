"""What the training of an experience takes, step by step, and how accuracy grows on the way."""

from __future__ import annotations

import time
from typing import Any

import torch

from clsim.pool.pool import Cost
from clsim.spec.run import RunSpec
from clsim.streams.census import Census
from clsim.streams.stream import Stream
from clsim.training.batch_choice import Choosing
from clsim.training.contract import Learner
from clsim.training.evaluation import Outcome, measured


class Course:
    """The count of one training: steps, candidates, what was chosen, and the accuracies on the way. Final.

    A test on the way takes no part in the training: nothing is drawn from its generators, batch norm's statistics stay,
    and its time is not counted.

    Args:
        learner: the learner.
        stream: the stream, whose test samples count.
        spec, cost: the run's spec and counters.
        position: the position of the experience.
    """

    def __init__(self, learner: Learner, stream: Stream, spec: RunSpec, cost: Cost, position: int) -> None:
        self._learner, self._stream, self._spec, self._cost = learner, stream, spec, cost
        self._position = position
        self._steps = self._candidates = 0
        self._started, self._tested = time.perf_counter(), cost.evaluate_seconds
        self._curve: dict[str, list[Any]] = {"steps": [], "candidates": [], "seconds": [], "accuracy": []}

    def step(self, drawn: int) -> None:
        """Count a batch of ``drawn`` new samples, candidates included, and test if it is time."""
        every, before = self._spec.evaluation.steps, self._steps
        self._steps += self._spec.training.passes
        self._candidates += drawn
        if every and self._steps // every > before // every:
            self._test()

    def end(self) -> dict[str, Any]:
        """End the training; return an entry of the record, ``curve`` with ``evaluation.steps`` alone.

        Where labels are asked for, each round has an entry of its own, with its ``round``; the records of earlier
        versions hold that of the last one alone, without it.

        ``steps`` counts gradient steps, ``candidates`` the new samples that were drawn for them, ``trained`` those that
        steps were taken on, ``different`` how many of these are different samples, ``learnt`` the share of them that
        the net predicted right before it learnt them, ``passes`` candidates passed forward in the choice, and
        ``seconds`` its time. Where samples were chosen in a realistic pool, ``wrong`` is the share of ``trained`` with
        a wrong label, and ``copies`` that of copies, None if the pool has none: for reports alone.

        ``curve`` holds, after some steps, the accuracy on each experience seen so far, with the steps, candidates and
        seconds that it took.
        """
        every = self._spec.evaluation.steps
        if every and self._steps and self._curve["steps"][-1:] != [self._steps]:
            self._test()
        found: dict[str, Any] = {"experience": self._position, "steps": self._steps, "candidates": self._candidates}
        found |= {"trained": self._candidates * self._spec.training.passes, "different": None, "learnt": None}
        found |= {"passes": 0, "seconds": 0.0}
        if isinstance(self._learner, Choosing):
            found |= self._learner.counts()
            if self._stream.parts is not None:
                found |= Census(self._stream).trained(self._learner.taken.index, self._learner.taken.y)
        return found | ({"curve": self._curve} if every else {})

    def _test(self) -> None:
        cost = self._cost
        if self._stream.device.type == "cuda":
            torch.cuda.synchronize(self._stream.device)  # what is queued belongs to the training
        seconds = time.perf_counter() - self._started - (cost.evaluate_seconds - self._tested)
        row = measure(self._learner, self._stream, self._position, self._spec, cost).row
        values = (self._steps, self._candidates, seconds, row[: self._position + 1])
        for name, value in zip(self._curve, values, strict=True):
            self._curve[name].append(value)


def measure(learner: Learner, stream: Stream, position: int, spec: RunSpec, cost: Cost) -> Outcome:
    """Measure accuracy on each experience up to ``position``, before its end; NaN for the others."""
    passed, seen = cost.forward_passes, position + 1
    found = measured({"": learner.predict}, stream, seen, seen, spec, cost, learner.read_net)[""]
    cost.evaluate_passes += cost.forward_passes - passed
    return found
