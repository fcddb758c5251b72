"""GDumb: training on the memory alone, at the end of each experience."""

from __future__ import annotations

import itertools

from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Setup, Terms


class Gdumb(Around[Sgd]):
    """After each experience, train the net from its first weights on the memory alone. Final.

    With a class-balanced memory it is GDumb, a baseline for any method with the same memory; with another buffer it
    measures that selector's coreset. Source: Prabhu, Torr & Dokania, GDumb: A Simple Approach that Questions Our
    Progress in Continual Learning (ECCV 2020). Their CutMix is left out.

    Args:
        setup: net, memory, transform, generators.
        epochs: Epochs over the memory. On a partly labelled stream they do not count: there are as many steps as in an
            experience of any other learner.
        batch_size: Exemplars in each step.
    """

    def __init__(self, setup: Setup, *, epochs: int = 30, batch_size: int = 16) -> None:
        super().__init__(setup, Sgd(setup))
        self._epochs = epochs
        self._batch_size = batch_size
        self._first = {name: value.clone() for name, value in setup.net.state_dict().items()}

    def observe(self, batch: Exemplars) -> Terms:
        """Learn nothing from the stream itself."""
        return {}

    def finish(self, experience: Experience) -> list[Terms]:
        """Train from the first weights on everything in memory."""
        exemplars = self.setup.memory.exemplars
        if exemplars is None:
            return []
        self.inner.net.load_state_dict(self._first)
        self.inner = Sgd(self.setup)
        size, order = self._batch_size, self.setup.randomness.order
        steps = batch_count(len(exemplars), size) * self._epochs
        if self.setup.spec.labels.partial:  # as many as its rivals, who learn from the unlabelled part too
            steps = self.setup.steps(experience)
        self.inner.schedule(steps)
        passes = itertools.chain.from_iterable(batches(exemplars, size, order) for _ in itertools.count())
        return [self.inner.step(batch, None) for batch in itertools.islice(passes, steps)]
