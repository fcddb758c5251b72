"""Learners: what trains on an experience. The contract, and what a learner is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from clsim.data.augmentation import Transform
from clsim.memory.buffer import Buffer
from clsim.models.nets import Net
from clsim.models.optimizers import Plateau
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool
from clsim.pool.proxy import Trainer
from clsim.randomness import Randomness
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience


@dataclass(frozen=True)
class Setup:
    """What a run hands to its learner.

    Attributes:
        net: to be trained in place; the buffer's selector reads it.
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

    def pool(
        self, samples: Exemplars, *, reference: Exemplars | None = None, incoming: Exemplars | None = None
    ) -> Pool:
        """The samples, with what the net (or a proxy, where the spec says so) says of them, for a selector."""
        spec, randomness = self.spec, self.randomness
        trainer = Trainer(
            spec.proxy,
            self.fresh,
            self.transform,
            self.precision,
            randomness.proxy,
            randomness.proxy_augment,
            self.cost,
        )
        return Pool(
            samples,
            None if spec.proxy.source == "proxy" and incoming is None else self.net,
            self.transform.plain,
            precision=self.precision,
            cost=self.cost,
            trainer=trainer,
            classes=self.classes or None,
            reference=reference,
            incoming=incoming,
        )

    def precision(self) -> AbstractContextManager:
        """The context of forward passes: autocast for ``bf16``, nothing for ``fp32``."""
        if self.spec.training.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


class Learner(Protocol):
    """Built as ``learner(setup, **options)``, by a class or by a function; its options are the keyword arguments.

    The terms that it returns are detached, on the device: nothing waits for them.
    """

    def begin(self, experience: Experience) -> None:
        """Before the first batch of an experience."""

    def observe(self, batch: Exemplars) -> Terms:
        """One gradient step on new samples (and a batch from memory). Never calls ``.item()``."""

    def finish(self, experience: Experience) -> list[Terms]:
        """After the memory was updated. Returns the steps that it took itself, if any."""

    def remember(self, samples: Exemplars) -> Exemplars:
        """What of samples goes to memory: as they are, or with soft labels.

        Called with each batch after its last step, and with the whole experience at its end.
        """

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits (n, classes) of raw samples, in eval mode; changes nothing."""

    def state_dict(self) -> dict[str, Any] | None:
        """All of it, as tensors and plain values; None if the learner cannot be resumed."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""


@runtime_checkable
class SemiSupervised(Protocol):
    """A learner that also learns from samples without a label says, beside the rest, what its batches are of.

    Batches come in epochs over what :meth:`incoming` returns, as a rule the unlabelled part; the learner draws its
    labelled samples itself, from ``experience.train`` and memory; see :class:`clsim.learners.semi.labelled.Labelled`.
    Memory is offered the labelled part in either case.
    """

    def incoming(self, experience: Experience) -> Exemplars:
        """What the batches of an experience are of."""


def incoming(learner: Learner, experience: Experience) -> Exemplars:
    """What the batches of an experience are of: the labelled part, unless the learner says otherwise."""
    return learner.incoming(experience) if isinstance(learner, SemiSupervised) else experience.train


@runtime_checkable
class SeveralReadouts(Protocol):
    """A learner that can predict in further ways; each has an accuracy matrix of its own in the record."""

    def readouts(self) -> dict[str, Readout]:
        """Further ways to predict, by name; none while there is nothing to predict from."""


@runtime_checkable
class OwnFeatures(Protocol):
    """A learner whose predictions are not made of the features of ``setup.net`` says what they are made of."""

    def features(self, x: Tensor) -> Tensor:
        """float32 (n, width) of raw samples, in eval mode and without augmentation; changes nothing."""


Readout = Callable[[Tensor, Tensor], Tensor]
"""As :meth:`Learner.predict`: raw samples and their tasks → a score for each class."""


@dataclass(frozen=True)
class Batch:
    """New samples, then replayed ones, ready for the net.

    Attributes:
        x: float32 (n, \\*shape), augmented and normalised.
        y: int64 (n,); −1 = unlabelled.
        task: int64 (n,).
        new: the first so many rows are new; the rest comes from memory.
        weight: float32 (n,); None: all weigh the same.
        soft: float32 (n, classes), what memory holds beside the label (logits, or soft labels); NaN rows where there is
            none; or None.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    new: int
    weight: Tensor | None = None
    soft: Tensor | None = None


Terms = dict[str, Tensor]
"""The loss of one step, by term: scalar tensors."""


class Objective(Protocol):
    """Built as ``objective(setup, **options)``; works with and without a memory."""

    def begin(self, experience: Experience) -> None:
        """Before the first batch of an experience."""

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """The terms of the loss of one batch."""

    def finish(self, experience: Experience) -> None:
        """After the experience was learnt and the memory updated."""

    def remember(self, samples: Exemplars) -> Exemplars:
        """What of samples goes to memory: as they are, or with soft labels.

        Called with each batch after its last step, and with the whole experience at its end.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that the next experience needs, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""


class Stateless:
    """A function as an objective. Final."""

    def __init__(self, function: Callable[[Net, Batch], Terms]) -> None:
        self._function = function

    def begin(self, experience: Experience) -> None:
        """Nothing to prepare."""

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """The function's terms."""
        return self._function(net, batch)

    def finish(self, experience: Experience) -> None:
        """Nothing to keep."""

    def remember(self, samples: Exemplars) -> Exemplars:
        """As they are."""
        return samples

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""
