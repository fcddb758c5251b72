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
from clsim.training.beside import Beside
from clsim.training.contract import Learner, Losses, Seat, Setup, Terms
from clsim.training.course import Course, measure
from clsim.training.progress import Progress


class Experiment:
    """The steps of a run: make a learner, train it on an experience, end the experience, measure it. Final.

    Args:
        spec: the resolved spec.
        stream: the stream of the spec.
        progress: display of the progress.
        given: objects in place of those that the spec names.
        kept: folder of nets that learnt without labels; None: none is kept.
        seat: the run's place among the seeds that advance together; None: it advances alone.

    Attributes:
        cost: the counters that all parts of the run share.
        own_code: whether code or objects of the user's take part, whose state may have any form.
    """

    def __init__(
        self,
        spec: RunSpec,
        stream: Stream,
        progress: Progress,
        given: Given = NAMED,
        kept: Path | None = None,
        seat: Seat | None = None,
    ) -> None:
        self.spec, self.stream, self.progress, self.cost = spec, stream, progress, Cost()
        self._given, self._seat = given, seat
        self.own_code = bool(spec.sources) or bool(given)
        self._beside = Beside(spec, stream, kept, bool(given))
        self._courses: dict[int, list[dict[str, Any]]] = {}

    def assemble(self, spec: RunSpec | None = None) -> tuple[Setup, Learner]:
        """Make a fresh setup and learner of the spec, or of another one."""
        made = self._beside.embeddings
        started = None if self.spec.model.start == "none" else made.starting
        parts: dict[str, Any] = {"started": started, "embed": made.embed, "seat": self._seat}
        return assemble(spec or self.spec, self.stream, self.cost, self._given, **parts)

    def embed(self, position: int) -> list[dict[str, Any]]:
        """Learn without labels what an experience needs; see :meth:`clsim.training.embeddings.Embeddings.begin`."""
        return self._beside.embeddings.begin(position)

    def course(self, position: int) -> list[dict[str, Any]]:
        """Return what the training of an experience took: an entry, or one a label round, in their order.

        They are those of :meth:`clsim.training.course.Course.end`, with ``round`` where labels are asked for. Of a
        controller's search, it is the last training. The list is empty where neither batches are chosen, nor
        irreducible losses read, nor tests made on the way.
        """
        spec = self.spec
        kept = spec.batch.selector != "none" or self._beside.trains_irreducible or spec.evaluation.steps
        return self._courses.get(position, []) if kept else []

    def went_on(self, position: int, entries: list[dict[str, Any]]) -> None:
        """Take over what earlier label rounds of an experience took, of before the run was interrupted."""
        self._courses[position] = [*entries]

    def learn(self, experience: Experience, setup: Setup, learner: Learner) -> Losses:
        """Train on an experience and end it; return the losses of the steps."""
        losses = self.fit(experience, setup, learner)
        losses.extend(self.end(experience, setup, learner))
        return losses

    def fit(
        self,
        experience: Experience,
        setup: Setup,
        learner: Learner,
        *,
        offers: bool = True,
        guessed: Exemplars | None = None,
        waiting: Tensor | None = None,
        number: int | None = None,
    ) -> Losses:
        """Train on an experience, without its end; see :func:`clsim.training.experience.fit`.

        Args:
            experience, setup, learner, offers, waiting: as there.
            number: the label round whose training it is; None: labels are not asked for.
            guessed: samples whose label nobody told, which are trained on beside the labelled ones; None: there are
                none.
        """
        setup.classes.update(self.stream.labels_seen(experience.position), setup.memory.begun)
        shares, index = self._shares(experience, setup), None
        if guessed is not None:
            experience = replace(experience, train=concatenate([experience.train, guessed]))
            index = guessed.index
        again = number is not None and bool(self._courses.get(experience.position))
        scored = self._beside.score(experience, setup, again=again)
        course = Course(learner, self.stream, self.spec, self.cost, experience.position)
        losses = one.fit(
            experience,
            setup,
            learner,
            shares,
            self.progress,
            offers=offers,
            guessed=index,
            waiting=waiting,
            after=course.step,
        )
        entry = course.end() | scored
        if number is None:
            self._courses[experience.position] = [entry]
        else:
            self._courses.setdefault(experience.position, []).append(entry | {"round": number})
        return losses

    def end(self, experience: Experience, setup: Setup, learner: Learner) -> list[Terms]:
        """End an experience; one of which nobody asked for a label was not begun."""
        if self.spec.labelling.asks and not len(experience.train):
            return []
        return one.conclude(experience, setup, learner, self._shares(experience, setup))

    def measure(self, learner: Learner, position: int) -> tuple[list[float], float]:
        """Measure accuracy between two rounds: on each experience up to ``position``, else NaN, and on rare classes."""
        found = measure(learner, self.stream, position, self.spec, self.cost)
        return found.row, found.rare

    def images(self, samples: int, experience: Experience, setup: Setup) -> int:
        """Count the samples that are trained on, out of ``samples`` different ones, each as often as it occurs."""
        return setup.images(samples, experience)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Add the time that is spent in the context to the training seconds, without that of what is counted apart.

        These are selection, evaluation, irreducible-loss nets, and the work of other seeds.
        """
        started, apart = time.perf_counter(), self._apart()
        yield
        self.cost.train_seconds += time.perf_counter() - started - (self._apart() - apart)

    def _apart(self) -> float:
        away = 0.0 if self._seat is None else self._seat.away
        return self.cost.select_seconds + self.cost.evaluate_seconds + self._beside.seconds + away

    def _shares(self, experience: Experience, setup: Setup) -> int:
        return self.stream.shares(experience.position, self.spec.memory.counted, setup.memory.known)
