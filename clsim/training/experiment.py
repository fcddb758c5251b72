"""What a run does with its learner, for the loop, the controller and the label rounds alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from clsim.pool.exemplars import Exemplars, concatenate
from clsim.pool.pool import Cost
from clsim.spec.run import NAMED, Given, RunSpec
from clsim.streams.stream import Experience, Stream
from clsim.training import experience as one
from clsim.training.assemble import assemble
from clsim.training.contract import Learner, Setup, Terms
from clsim.training.embeddings import Embeddings
from clsim.training.evaluation import Outcome, measured
from clsim.training.progress import Progress


class Experiment:
    """The steps of a run: make a learner, train it on an experience, end the experience, measure it. Final.

    Args:
        spec: the resolved spec.
        stream: the stream of the spec.
        progress: display of the progress.
        given: objects in place of those that the spec names.
        kept: folder of nets that learnt without labels; None: none is kept.

    Attributes:
        cost: the counters that all parts of the run share.
    """

    def __init__(
        self, spec: RunSpec, stream: Stream, progress: Progress, given: Given = NAMED, kept: Path | None = None
    ) -> None:
        self.spec, self.stream, self.progress, self.cost = spec, stream, progress, Cost()
        self._given = given
        self._embeddings = Embeddings(spec, stream, kept, True if given else None)

    def assemble(self, spec: RunSpec | None = None) -> tuple[Setup, Learner]:
        """Make a fresh setup and learner of the spec, or of another one."""
        made = self._embeddings
        started = None if self.spec.model.start == "none" else made.starting
        return assemble(spec or self.spec, self.stream, self.cost, self._given, started=started, embed=made.embed)

    def embed(self, position: int) -> list[dict[str, Any]]:
        """Learn without labels what an experience needs; see :meth:`clsim.training.embeddings.Embeddings.begin`."""
        return self._embeddings.begin(position)

    def learn(self, experience: Experience, setup: Setup, learner: Learner) -> list[Terms]:
        """Train on an experience and end it; return the losses of the steps."""
        return self.fit(experience, setup, learner) + self.end(experience, setup, learner)

    def fit(
        self,
        experience: Experience,
        setup: Setup,
        learner: Learner,
        *,
        offers: bool = True,
        guessed: Exemplars | None = None,
        waiting: Tensor | None = None,
    ) -> list[Terms]:
        """Train on an experience, without its end; see :func:`clsim.training.experience.fit`.

        Args:
            experience, setup, learner, offers, waiting: as there.
            guessed: samples whose label nobody told, which are trained on beside the labelled ones; None: there are
                none.
        """
        setup.classes.update(self.stream.labels_seen(experience.position), setup.memory.begun)
        shares, index = self._shares(experience, setup), None
        if guessed is not None:
            experience = replace(experience, train=concatenate([experience.train, guessed]))
            index = guessed.index
        return one.fit(experience, setup, learner, shares, self.progress, offers=offers, guessed=index, waiting=waiting)

    def end(self, experience: Experience, setup: Setup, learner: Learner) -> list[Terms]:
        """End an experience; one of which nobody asked for a label was not begun."""
        if self.spec.labelling.asks and not len(experience.train):
            return []
        return one.conclude(experience, setup, learner, self._shares(experience, setup))

    def measure(self, learner: Learner, position: int) -> Outcome:
        """Measure accuracy on each experience up to ``position``, between two rounds; NaN for the others."""
        passed, seen = self.cost.forward_passes, position + 1
        found = measured({"": learner.predict}, self.stream, seen, seen, self.spec, self.cost)[""]
        self.cost.evaluate_passes += self.cost.forward_passes - passed
        return found

    def images(self, samples: int, experience: Experience, setup: Setup) -> int:
        """Count the samples that are trained on, out of ``samples`` different ones, each as often as it occurs."""
        return one.images_of(samples, self.spec.training, setup.batches(experience))

    @contextmanager
    def training(self) -> Iterator[None]:
        """Add the time that is spent in the context to the training seconds, without that of selection."""
        started, selected = time.perf_counter(), self.cost.select_seconds
        yield
        self.cost.train_seconds += time.perf_counter() - started - (self.cost.select_seconds - selected)

    def _shares(self, experience: Experience, setup: Setup) -> int:
        return self.stream.shares(experience.position, self.spec.memory.counted, setup.memory.known)
