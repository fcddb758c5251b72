"""The contracts of learners and objectives, and what a run hands to them.

Both are abstract bases: what most leave as it is has a default, so that a file shows only what differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from clsim.data.augmentation import Transform
from clsim.memory.buffer import Buffer
from clsim.models.nets import Net, evaluating
from clsim.models.optimizers import Plateau
from clsim.pool.exemplars import Exemplars, batch_count
from clsim.pool.pool import Cost, Pool
from clsim.randomness import Randomness
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience
from clsim.training.workshop import Workshop, autocast


@dataclass(frozen=True)
class Setup:
    """What a run hands to its learner.

    Attributes:
        net: to be trained in place.
        fresh: a net of the same architecture, with weights drawn from a seed.
        memory: to replay from; the loop fills it.
        transform: uint8 → normalised float, with or without augmentation.
        plateau: how often the learning rate has fallen in this experience; the loop keeps count.
        classes: the labels known so far; the loop adds to them.
    """

    spec: RunSpec
    net: Net
    fresh: Callable[[int], Net]
    memory: Buffer
    transform: Transform
    randomness: Randomness
    cost: Cost
    plateau: Plateau = field(default_factory=Plateau)
    classes: set[int] = field(default_factory=set)

    @property
    def device(self) -> torch.device:
        """Where net, memory and stream are."""
        return self.net.head.weight.device

    def steps(self, samples: Exemplars) -> int:
        """Gradient steps of an experience whose batches are of ``samples``, if training is not stopped before."""
        training = self.spec.training
        batches = batch_count(len(samples), training.batch_size, training.last_batch)
        return training.steps or training.epochs * training.passes * batches

    def pool(
        self,
        samples: Exemplars,
        *,
        reference: Exemplars | None = None,
        incoming: Exemplars | None = None,
        learner: Learner | None = None,
    ) -> Pool:
        """The samples, with what the net (or a proxy, where the spec says so) says of them, for a selector.

        Args:
            reference: held-out labelled samples that the choice should serve.
            incoming: the new batch, when the choice is what to replay with it.
            learner: whose features and logits they are; None: those of the net that is trained.
        """
        shop = Workshop(self.spec, self.fresh, self.transform, self.precision, self.randomness, self.cost)
        by_proxy = self.spec.proxy.source == "proxy" and incoming is None
        net = None if by_proxy else self.net if learner is None else learner.net
        features = None if by_proxy or learner is None else learner.features
        known = self.classes or None
        return shop.pool(samples, net, features=features, classes=known, reference=reference, incoming=incoming)

    def precision(self) -> AbstractContextManager:
        """The context of forward passes: autocast for ``bf16``, nothing for ``fp32``."""
        return autocast(self.spec.training.precision, self.device)


Terms = dict[str, Tensor]
"""The loss of one step, by term: scalar tensors."""

Readout = Callable[[Tensor, Tensor], Tensor]
"""As :meth:`Learner.predict`: raw samples and their tasks → a score for each class."""


class Learner(ABC):
    """What trains on a stream. Abstract.

    A learner is built as ``learner(setup, **options)``, by a class or by a function; its options are the keyword
    arguments. Only :meth:`observe` must be written; a learner with a state of its own, beside the net's weights,
    writes :meth:`state_dict` and :meth:`load_state_dict` so that its runs can be resumed.

    Args:
        setup: net, memory, transform, generators; kept as ``self.setup``.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    @property
    def net(self) -> Net:
        """The net that predicts: that of the run, by default; to be read, never changed."""
        return self.setup.net

    def begin(self, experience: Experience) -> None:  # noqa: B027 - most learners have nothing to prepare
        """Prepare for an experience, before its first batch."""

    @abstractmethod
    def observe(self, batch: Exemplars) -> Terms:
        """Take one gradient step on new samples (and a batch from memory).

        Never calls ``.item()``: the terms of the loss are returned detached, on the device, and nothing waits for them.
        """

    def finish(self, experience: Experience) -> list[Terms]:
        """End an experience, after the memory was updated. Returns the steps that were taken here, if any."""
        return []

    def incoming(self, experience: Experience) -> Exemplars:
        """What the batches of an experience are of: its labelled part, by default.

        A learner that also learns from samples without a label returns the unlabelled part, and draws its labelled
        samples itself, from ``experience.train`` and memory (:class:`clsim.learners.semi.labelled.Labelled`). Memory
        is offered the labelled part in either case.
        """
        return experience.train

    def remember(self, samples: Exemplars) -> Exemplars:
        """What of ``samples`` goes to memory: as they are, by default, or with soft labels.

        Called with each batch after its last step, and with the whole experience at its end.
        """
        return samples

    def features(self, x: Tensor, task: Tensor) -> Tensor:
        """Features, float32 (n, width), of raw samples, in eval mode and without augmentation; changes nothing.

        Those of :attr:`net`, by default. A learner whose predictions are made of others returns these, and fits the
        net's head to them: a selector that fills the memory chooses by these features, and the logits that the head
        makes of them.
        """
        with evaluating(self.net), torch.no_grad(), self.setup.precision():
            return self.net.features(self.setup.transform.plain(x)).float()

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits (n, classes) of raw samples, each under its own task, in eval mode; changes nothing.

        What the head of :attr:`net` makes of the features, by default.
        """
        features = self.features(x, task)
        with torch.no_grad(), self.setup.precision():
            return self.net.logits(features, task)

    def pool(
        self, samples: Exemplars, *, reference: Exemplars | None = None, incoming: Exemplars | None = None
    ) -> Pool:
        """The samples as this learner sees them, for the selector that fills its memory; see :meth:`Setup.pool`."""
        return self.setup.pool(samples, reference=reference, incoming=incoming, learner=self)

    def readouts(self) -> dict[str, Readout]:
        """Further ways to predict, by name, each with an accuracy matrix of its own in the record; none, by default."""
        return {}

    def state_dict(self) -> dict[str, Any] | None:
        """The whole state, as tensors and plain values; None, the default, if the learner cannot be resumed."""
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        raise NotImplementedError(f"{type(self).__name__} has a state_dict, but no load_state_dict")


L = TypeVar("L", bound=Learner)


class Around(Learner, Generic[L]):
    """A learner around another one: what it does not say itself is the inner one's. Abstract.

    Args:
        setup: net, memory, transform, generators.
        inner: the learner that it is made of.
    """

    def __init__(self, setup: Setup, inner: L) -> None:
        super().__init__(setup)
        self.inner = inner

    def begin(self, experience: Experience) -> None:
        self.inner.begin(experience)

    def observe(self, batch: Exemplars) -> Terms:
        return self.inner.observe(batch)

    def finish(self, experience: Experience) -> list[Terms]:
        return self.inner.finish(experience)

    def incoming(self, experience: Experience) -> Exemplars:
        return self.inner.incoming(experience)

    def remember(self, samples: Exemplars) -> Exemplars:
        return self.inner.remember(samples)

    @property
    def net(self) -> Net:
        return self.inner.net

    def features(self, x: Tensor, task: Tensor) -> Tensor:
        return self.inner.features(x, task)

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        return self.inner.predict(x, task)

    def readouts(self) -> dict[str, Readout]:
        return self.inner.readouts()

    def state_dict(self) -> dict[str, Any] | None:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


@dataclass(frozen=True)
class Batch:
    """New samples, then replayed ones, ready for the net.

    Attributes:
        x: float32 (n, \\*shape), augmented and normalised.
        y: int64 (n,); −1 = unlabelled.
        task: int64 (n,).
        new: how many rows are new: the first ones; the others come from memory.
        weight: float32 (n,); None: all weigh the same.
        soft: float32 (n, classes), what memory holds beside the label (logits, or soft labels); NaN rows where there is
            none; or None.
        among: bool (n, classes), the classes that the cross-entropy of each sample ranges over, of those that its task
            has; None: all. See :data:`clsim.objectives.among.Among`.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    new: int
    weight: Tensor | None = None
    soft: Tensor | None = None
    among: Tensor | None = None


class Objective(ABC):
    """What a learner minimises, with and without a memory. Abstract.

    A class is built as ``objective(setup)``. Only the call must be written. A loss that has no state is a function of
    net and batch; see :class:`Stateless`.
    """

    def begin(self, experience: Experience) -> None:  # noqa: B027 - most objectives have nothing to prepare
        """Prepare for an experience, before its first batch."""

    @abstractmethod
    def __call__(self, net: Net, batch: Batch) -> Terms:
        """The terms of the loss of one batch."""

    def finish(self, experience: Experience) -> None:  # noqa: B027 - many objectives have nothing to keep
        """Keep what the next experience needs, after this one was learnt and the memory updated."""

    def remember(self, samples: Exemplars) -> Exemplars:
        """What of ``samples`` goes to memory; see :meth:`Learner.remember`."""
        return samples

    def state_dict(self) -> dict[str, Any]:
        """All that the next experience needs, as tensors and plain values; nothing, by default."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - there may be nothing
        """Take over what :meth:`state_dict` returned."""


class Stateless(Objective):
    """A function of net and batch as an objective. Final."""

    def __init__(self, function: Callable[[Net, Batch], Terms]) -> None:
        self._function = function

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """The function's terms."""
        return self._function(net, batch)
