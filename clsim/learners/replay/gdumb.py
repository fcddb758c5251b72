"""GDumb: learn nothing from the stream but what is in memory at its end."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.streams.stream import Experience
from clsim.training.contract import Setup, Terms


class Gdumb:
    """After each experience, train the net from its first weights on the memory alone. Final.

    With a class-balanced memory it is GDumb, and a bound for any method with the same memory; with another buffer it
    is that selector's coreset study. Source: Prabhu, Torr & Dokania, GDumb: A Simple Approach that Questions Our
    Progress in Continual Learning (ECCV 2020). Their CutMix is left out.

    Args:
        setup: net, memory, transform, generators.
        epochs: over the memory.
        batch_size: exemplars a step.
    """

    def __init__(self, setup: Setup, *, epochs: int = 30, batch_size: int = 16) -> None:
        self._setup = setup
        self._epochs = epochs
        self._batch_size = batch_size
        self._first = {name: value.clone() for name, value in setup.net.state_dict().items()}
        self._sgd = Sgd(setup)

    def begin(self, experience: Experience) -> None:
        """Nothing to prepare."""

    def observe(self, batch: Exemplars) -> Terms:
        """Nothing is learnt from the stream itself."""
        return {}

    def finish(self, experience: Experience) -> list[Terms]:
        """Train from the first weights on everything in memory."""
        exemplars = self._setup.memory.exemplars
        if exemplars is None:
            return []
        self._sgd.net.load_state_dict(self._first)
        self._sgd = Sgd(self._setup)
        self._sgd.schedule(batch_count(len(exemplars), self._batch_size) * self._epochs)
        losses = []
        for _ in range(self._epochs):
            for batch in batches(exemplars, self._batch_size, self._setup.randomness.order):
                losses.append(self._sgd.step(batch, None))
        return losses

    def remember(self, samples: Exemplars) -> Exemplars:
        """As they are."""
        return samples

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits of raw samples."""
        return self._sgd.predict(x, task)

    def state_dict(self) -> dict[str, Any]:
        """The net as last trained; the first weights follow from the seed."""
        return self._sgd.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._sgd.load_state_dict(state)
