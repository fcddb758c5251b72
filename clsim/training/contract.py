"""The contracts of learners and objectives, and what a run gives to them.

Both are abstract bases with defaults, so that a learner's file shows only what differs from them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from clsim.acquisitions.acquisition import Acquisition
from clsim.data.augmentation import Transform
from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.models import optimizers
from clsim.models.aside import Aside
from clsim.models.nets import Net, evaluating
from clsim.models.optimizers import Pace, Plateau
from clsim.models.passes import aside
from clsim.pool.exemplars import Columns, Exemplars, batch_count
from clsim.pool.pool import Cost, Embed, Pool, Selector
from clsim.randomness import Randomness
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience
from clsim.training.epochs import images_of
from clsim.training.graph import Graph, Step
from clsim.training.prepared import Prepared
from clsim.training.workshop import Workshop, autocast

Terms = dict[str, Tensor]
"""The loss of one step: term → scalar tensor."""

Take = Callable[[Step, Exemplars, Exemplars | None], Terms]
"""Takes a step on new and replayed samples."""


class Seat(Protocol):
    """The place of a run among seeds that advance together; see :mod:`clsim.training.together`.

    Attributes:
        away: seconds in which the run waited, apart from its share of the steps that were taken together.
    """

    away: float

    def descend(
        self, net: Net, x: Tensor, precision: Callable[[], AbstractContextManager], terms: Callable[[], Terms]
    ) -> Terms:
        """Add the gradients of a loss to those of the weights, together with the others; return its terms, detached.

        Args:
            net: the net.
            x: the batch, float32 (n, \\*shape).
            precision: makes the context of the pass.
            terms: computes the terms of the loss, which is their sum; it asks the net for the features of ``x`` once.
        """


@dataclass(frozen=True)
class Setup:
    """The parts of a run that its learner works with.

    Attributes:
        spec: the run's spec.
        net: the net, which is trained in place.
        fresh: makes a net of the same architecture, with weights drawn from a seed.
        memory: the exemplars to replay; the loop fills it.
        transform: converts uint8 samples to normalised floats, with or without augmentation.
        randomness: the run's generators.
        cost: the run's counters.
        plateau: how often the learning rate has fallen in this experience; the loop counts.
        pace: how far the schedule of the learning rate has come; the learner counts.
        classes: the labels known so far; the loop adds to them.
        asks: the selector of labels; None: nobody asks for any.
        asks_first: the selector of the initial set, where one chooses it.
        acquisition: the selector of labels, if it keeps a state of its own; its terms join the learner's loss, and its
            module is trained with the net.
        embed: computes the embedding of samples, apart from the learner's features; None: there is none.
        columns: values that samples got once and keep, such as irreducible losses.
        prepared: the inputs that were augmented when the samples of a step were chosen.
        other: makes an irreducible-loss net with weights drawn from a seed; None: none is asked for.
        seat: the run's place among the seeds that advance together; None: it advances alone.
    """

    spec: RunSpec
    net: Net
    fresh: Callable[[int], Net]
    memory: Buffer
    transform: Transform
    randomness: Randomness
    cost: Cost
    plateau: Plateau = field(default_factory=Plateau)
    pace: Pace = field(default_factory=Pace)
    classes: set[int] = field(default_factory=set)
    asks: Selector | None = None
    asks_first: Selector | None = None
    acquisition: Acquisition | None = None
    embed: Embed | None = None
    columns: Columns = field(default_factory=Columns)
    prepared: Prepared = field(default_factory=Prepared)
    other: Callable[[int], Net] | None = None
    seat: Seat | None = None

    @property
    def device(self) -> torch.device:
        """The device of net, memory and stream."""
        return self.net.head.weight.device

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        pace = self.pace
        return optimizers.rate(self.spec.optimizer, pace.step, pace.steps, self.plateau.falls, pace.epoch)

    def batches(self, experience: Experience) -> int:
        """Count the batches of an epoch: as many as its larger part makes, the labelled or the unlabelled one.

        It is the same number for all learners, so that one that learns from labelled samples alone takes as many steps
        as its rivals that learn from all: its epoch is several passes over the labelled part. With ``labelling.epoch``
        ``labelled``, an epoch is a pass over that part, for all learners too. Labels that come during training do not
        change it.
        """
        training, unlabelled = self.spec.drawing, experience.unlabelled
        labelled, others = experience.extent or (len(experience.train), 0 if unlabelled is None else len(unlabelled))
        larger = labelled if self.spec.labelling.epoch == "labelled" else max(labelled, others)
        return batch_count(larger, training.batch_size, training.last_batch)

    def images(self, samples: int, experience: Experience) -> int:
        """Count the new samples that are drawn in an experience out of ``samples`` different ones."""
        return images_of(samples, self.spec.drawing, self.batches(experience))

    def steps(self, experience: Experience) -> int:
        """Count the gradient steps of an experience, if training is not stopped early."""
        training = self.spec.training
        return training.steps or training.epochs * self.epoch(experience)

    def epoch(self, experience: Experience) -> int:
        """Count the gradient steps of an epoch."""
        return self.spec.training.passes * self.batches(experience)

    def pool(
        self,
        samples: Exemplars,
        *,
        labelled: Exemplars | None = None,
        reference: Exemplars | None = None,
        query: Exemplars | None = None,
        private: Exemplars | None = None,
        incoming: Exemplars | None = None,
        learner: Learner | None = None,
    ) -> Pool:
        """Make a pool of samples for a selector, with features and scores of the net (or of a proxy, by the spec).

        Args:
            samples: the candidates.
            labelled: samples that are labelled already, when the selection is what to label next; classes that nobody
                has told then have no logits.
            reference: held-out labelled samples that the selection should serve.
            query, private: samples that the selection should resemble, and samples that it should avoid.
            incoming: the new batch, when the selection is what to replay with it.
            learner: the learner whose features and logits the pool has; None: those of the net that is trained.
        """
        shop = Workshop(self.spec, self.fresh, self.transform, self.precision, self.randomness, self.cost)
        by_proxy = self.spec.proxy.source == "proxy" and incoming is None
        net = None if by_proxy else self.net if learner is None else learner.net
        by_net = by_proxy or learner is None or learner.read_net is not None
        features = None if by_net or learner is None else learner.features
        known, rate = self.classes or None, self.rate
        return shop.pool(
            samples,
            net,
            features=features,
            classes=known,
            labelled=labelled,
            reference=reference,
            query=query,
            private=private,
            incoming=incoming,
            rate=rate,
            closed=labelled is not None,
            embed=self.embed,
            columns=self.columns,
        )

    def aside(self) -> Aside | None:
        """Return what computes the weights' gradients of one pass beside it; see :func:`clsim.models.passes.aside`."""
        return aside(self.net)

    def recorder(self) -> Take | None:
        """Return what records a step and replays it for those that follow; None where each is taken as it is."""
        training = self.spec.training
        if not training.capturable or training.compile == "off" or self.device.type != "cuda":
            return None
        return Graph(self.device, [self.randomness.augment]).step

    def precision(self) -> AbstractContextManager:
        """Return the context of forward passes: autocast for ``bf16``, no effect for ``fp32``."""
        return autocast(self.spec.training.precision, self.device)


def plateau_of(spec: RunSpec) -> Plateau:
    """Make the counter of a run's epochs without a gain."""
    return Plateau(spec.optimizer.patience if spec.optimizer.schedule == "plateau" else 0, spec.training.patience)


Readout = Callable[[Tensor, Tensor], Tensor]
"""A way to predict, as :meth:`Learner.predict`: raw samples and their tasks → a score for each class."""

_WAITING = 64
"""Steps whose terms wait for a place in a column."""


class Losses:
    """The losses of steps, a column a term, on the device until they are fetched. Final.

    A column is one tensor, which doubles when it is full: two small tensors a step, kept between the large ones that a
    step allocates and frees, would leave holes that no later step fits into.
    """

    def __init__(self) -> None:
        self._waiting: list[Terms] = []
        self._columns: dict[str, Tensor] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size + len(self._waiting)

    def append(self, terms: Terms) -> None:
        """Note the terms of one step."""
        self._waiting.append(terms)
        if len(self._waiting) == _WAITING:
            self._place()

    def extend(self, steps: Iterable[Terms]) -> None:
        """Note the terms of several steps."""
        for terms in steps:
            self.append(terms)

    def columns(self) -> dict[str, list[float]]:
        """Fetch the columns from the device, by term, in the order in which the terms came up; NaN without a term."""
        self._place()
        fetched = {name: column[: self._size].tolist() for name, column in self._columns.items()}
        return {name: values + [math.nan] * (self._size - len(values)) for name, values in fetched.items()}

    def _place(self) -> None:
        """Put what waits into the columns."""
        first, end = self._size, self._size + len(self._waiting)
        for name in dict.fromkeys(name for terms in self._waiting for name in terms):
            steps = [i for i, terms in enumerate(self._waiting) if name in terms]
            values = torch.stack([self._waiting[i][name] for i in steps]).detach().float()
            column = self._columns.get(name)
            if column is None or len(column) < end:
                room = values.new_full((max(2 * end, 4096),), math.nan)
                if column is not None:
                    room[: len(column)] = column
                self._columns[name] = column = room
            if len(steps) == end - first:
                column[first:end] = values
            else:
                column[torch.tensor(steps, device=column.device) + first] = values
        self._waiting, self._size = [], end


class Learner(ABC):
    """A method that is trained on a stream. Abstract.

    A learner is built as ``learner(setup, **options)``, by a class or by a function; its options are the keyword
    arguments. Only :meth:`observe` must be written. :meth:`state_dict` and :meth:`load_state_dict` make its runs
    resumable.

    Args:
        setup: the parts of the run: net, memory, transform, generators; kept as ``self.setup``.

    Raises:
        InputError: if the setup's acquisition has terms, and the learner does not take them; or if weights are to be
            averaged, and the learner does not do that.
    """

    takes_terms: ClassVar[bool] = False
    """Whether the terms of an acquisition join the loss of every step, as they do in :class:`clsim.Sgd`."""

    takes_average: ClassVar[bool] = False
    """Whether :meth:`settle` puts the mean of the last weights in their place if ``optimizer.average`` says so."""

    trains_at_end: ClassVar[bool] = False
    """Whether the net is trained at the end of an experience alone, in :meth:`finish`."""

    takes_late_labels: ClassVar[bool] = False
    """Whether it can learn an experience whose labels come during training (``labelling.inject``); :meth:`told`."""

    def __init__(self, setup: Setup) -> None:
        acquisition = setup.acquisition
        if acquisition is not None and acquisition.joins and not self.takes_terms:
            raise InputError(
                f"learner.name: found {setup.spec.learner.name!r} with the acquisition {type(acquisition).__name__}, "
                "whose terms join the loss of every step; allowed: a learner that takes them (sgd, and what descends "
                "on a loss of the whole batch: der, der++, er-ace, ewc, lwf, ...), or an acquisition without terms"
            )
        if setup.spec.optimizer.average and not self.takes_average:
            raise InputError(
                f"optimizer.average: found {setup.spec.optimizer.average:g} with learner {setup.spec.learner.name!r}, "
                "which has nets of its own, or moves or measures weights step by step; allowed: 0, or a learner of "
                "plain descent (sgd, der, der++, er-ace, ewc, lwf, icarl, ...)"
            )
        self.setup = setup

    @property
    def net(self) -> Net:
        """The net that predicts, by default that of the run; it may be read, but not changed."""
        return self.setup.net

    @property
    def steps_together(self) -> bool:
        """Whether its steps are those of one loss, of one pass of the whole batch, so that seeds can share them.

        By default not. It is so where every gradient is one that :class:`clsim.Sgd` computes of an objective with
        :attr:`Objective.one_pass`.
        """
        return False

    def begin(self, experience: Experience) -> None:  # noqa: B027 - most learners have nothing to prepare
        """Prepare for an experience, before its first batch."""

    def told(self, experience: Experience) -> None:  # noqa: B027 - the batches of most learners have the labels
        """Take note that labels have come since the last step, which ``experience`` has; its classes are as before."""

    @abstractmethod
    def observe(self, batch: Exemplars) -> Terms:
        """Take one gradient step on new samples (and a batch from memory).

        Never calls ``.item()``: the terms of the loss are returned detached, on the device, and nothing waits for them.
        """

    def kept(self, samples: Exemplars, progress: float) -> Exemplars:
        """Return those of the samples that the next epoch passes over, with their weights; by default all of them.

        Args:
            samples: the samples that the batches of an experience are made from.
            progress: the share of the training that is done.
        """
        return samples

    def settle(self, experience: Experience) -> None:  # noqa: B027 - most learners go on with the last weights
        """Settle on the weights to go on with, after the last batch of a training: of each round, with label rounds."""

    def finish(self, experience: Experience) -> list[Terms]:
        """End an experience, after the memory was updated; return the terms of the steps taken here, if any."""
        return []

    def incoming(self, experience: Experience) -> Exemplars:
        """Return the samples that the batches of an experience are made from: its labelled part, by default.

        A learner that also learns from samples without a label returns the unlabelled part, and draws its labelled
        samples itself, from ``experience.train`` and memory (:class:`clsim.learners.semi.labelled.Labelled`). The
        memory is offered the labelled part in either case.
        """
        return experience.train

    def remember(self, samples: Exemplars) -> Exemplars:
        """Return the form in which ``samples`` go to memory: unchanged, by default, or with soft labels.

        It is called with each batch after its last step, and with the whole experience at its end.
        """
        return samples

    def features(self, x: Tensor, task: Tensor) -> Tensor:
        """Compute features, float32 (n, width), of raw samples, in eval mode and without augmentation.

        By default these are the features of :attr:`net`. A learner that predicts from other features returns those,
        and fits the net's head to them, since the memory's selector uses these features and the head's logits of them.
        The call changes nothing.
        """
        with evaluating(self.net), torch.no_grad(), self.setup.precision():
            return self.net.features(self.setup.transform.plain(x)).float()

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Compute logits (n, classes) of raw samples, each under its own task, in eval mode.

        By default these are the logits of the head of :attr:`net` on the features. The call changes nothing.
        """
        features = self.features(x, task)
        with torch.no_grad(), self.setup.precision():
            return self.net.logits(features, task)

    @property
    def read_net(self) -> Net | None:
        """The net, if :meth:`features` and :meth:`predict` only read it, so that several threads may call them.

        None where one of them is overridden: it may do more than read.
        """
        own = type(self)
        return self.net if own.features is Learner.features and own.predict is Learner.predict else None

    def pool(
        self,
        samples: Exemplars,
        *,
        labelled: Exemplars | None = None,
        reference: Exemplars | None = None,
        query: Exemplars | None = None,
        private: Exemplars | None = None,
        incoming: Exemplars | None = None,
    ) -> Pool:
        """Make a pool with this learner's features, for the selector of its memory or of labels; see :class:`Setup`."""
        return self.setup.pool(
            samples,
            labelled=labelled,
            reference=reference,
            query=query,
            private=private,
            incoming=incoming,
            learner=self,
        )

    def readouts(self) -> dict[str, Readout]:
        """Return further ways to predict, by name; the record keeps an accuracy matrix of each. By default: none."""
        return {}

    def diagnostics(self) -> dict[str, float]:
        """Return numbers that show the method at work, taken after each experience for the record. By default: none."""
        return {}

    def state_dict(self) -> dict[str, Any] | None:
        """Return the whole state, as tensors and plain values; None, the default: the learner cannot be resumed.

        With ``training.patience`` it is also taken after an epoch, and loaded into the same learner at the end of the
        same experience: what the learner accumulates within an experience is part of it.
        """
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        raise NotImplementedError(f"{type(self).__name__} has a state_dict, but no load_state_dict")


L = TypeVar("L", bound=Learner)


class Around(Learner, Generic[L]):
    """A learner that wraps another one, and passes on every call that it does not define itself. Abstract.

    Args:
        setup: the parts of the run: net, memory, transform, generators.
        inner: the wrapped learner.
    """

    def __init__(self, setup: Setup, inner: L) -> None:
        super().__init__(setup)
        self.inner = inner

    @property
    def steps_together(self) -> bool:
        return self.inner.steps_together

    def begin(self, experience: Experience) -> None:
        self.inner.begin(experience)

    def told(self, experience: Experience) -> None:
        self.inner.told(experience)

    def observe(self, batch: Exemplars) -> Terms:
        return self.inner.observe(batch)

    def kept(self, samples: Exemplars, progress: float) -> Exemplars:
        return self.inner.kept(samples, progress)

    def settle(self, experience: Experience) -> None:
        self.inner.settle(experience)

    def finish(self, experience: Experience) -> list[Terms]:
        return self.inner.finish(experience)

    def incoming(self, experience: Experience) -> Exemplars:
        return self.inner.incoming(experience)

    def remember(self, samples: Exemplars) -> Exemplars:
        return self.inner.remember(samples)

    @property
    def net(self) -> Net:
        return self.inner.net

    @property
    def read_net(self) -> Net | None:
        own = type(self)
        return self.inner.read_net if own.features is Around.features and own.predict is Around.predict else None

    def features(self, x: Tensor, task: Tensor) -> Tensor:
        return self.inner.features(x, task)

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        return self.inner.predict(x, task)

    def readouts(self) -> dict[str, Readout]:
        return self.inner.readouts()

    def diagnostics(self) -> dict[str, float]:
        return self.inner.diagnostics()

    def state_dict(self) -> dict[str, Any] | None:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


@dataclass(frozen=True)
class Batch:
    """A batch for the net: new samples, then replayed ones.

    Attributes:
        x: float32 (n, \\*shape), the samples, augmented and normalised.
        y: int64 (n,), the labels; −1 = unlabelled.
        task: int64 (n,), the task of each sample.
        new: number of new samples, which come first; the others are from memory.
        weight: float32 (n,), the weights in the loss; None: all are equal.
        soft: float32 (n, classes), logits or soft labels from memory, with rows of NaN for samples that have none;
            None: no sample has any.
        among: bool (n, classes), the classes that the cross-entropy of each sample ranges over, among those of its
            task; None: all. See :data:`clsim.objectives.among.Among`.
        absolute: whether the loss is Σ w·l / n; else weights are relative, and it is Σ w·l / Σ w.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    new: int
    weight: Tensor | None = None
    soft: Tensor | None = None
    among: Tensor | None = None
    absolute: bool = False


class Objective(ABC):
    """The loss that a learner minimises, with and without a memory. Abstract.

    A class is built as ``objective(setup)``. Only the call must be written. A loss without state can be a function of
    net and batch instead; see :class:`Stateless`.
    """

    one_pass: ClassVar[bool] = False
    """Whether a call passes the batch through the net's body once, by ``net(batch.x, batch.task)`` or
    ``net.features(batch.x)``, and uses no other output of the body. With ``training.capturable`` a GPU records one call
    and replays it: it then neither counts nor keeps anything of the batch."""

    def begin(self, experience: Experience) -> None:  # noqa: B027 - most objectives have nothing to prepare
        """Prepare for an experience, before its first batch."""

    def told(self, experience: Experience) -> None:  # noqa: B027 - most objectives go by the batches
        """Take note that labels have come during training; see :meth:`Learner.told`."""

    @abstractmethod
    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Compute the terms of the loss of one batch."""

    def finish(self, experience: Experience) -> None:  # noqa: B027 - many objectives have nothing to keep
        """Keep what the next experience needs, after this one was learnt and the memory updated."""

    def remember(self, samples: Exemplars) -> Exemplars:
        """Return the form in which ``samples`` go to memory; see :meth:`Learner.remember`."""
        return samples

    def diagnostics(self) -> dict[str, float]:
        """Return numbers for the record; see :meth:`Learner.diagnostics`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next experience needs, as tensors and plain values; by default nothing.

        It is also taken within an experience; see :meth:`Learner.state_dict`.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - there may be nothing
        """Take over what :meth:`state_dict` returned."""


class Stateless(Objective):
    """Objective of a function of net and batch. Final."""

    def __init__(self, function: Callable[[Net, Batch], Terms]) -> None:
        self._function = function

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Compute the function's terms."""
        return self._function(net, batch)
