"""The contract of acquisitions: selectors that keep a state of their own from one label round to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection


@dataclass(frozen=True)
class Step:
    """A gradient step of the learner after its forward pass, as an acquisition sees it.

    Rows are samples: first the new ones, then those from memory. All of them have a label.

    Attributes:
        x: float32 (n, \\*shape), the net's inputs, augmented and normalised.
        y: int64 (n,), the labels.
        new: number of new samples, which come first.
        weight: float32 (n,), the weights in the learner's loss; None: all are equal.
        maps: the outputs of the net's taps for x (:attr:`clsim.models.nets.Net.taps`), with their gradient.
        features: (n, width), the input of the net's head, with its gradient.
        losses: float32 (n,), the cross-entropy of each sample, without gradient.
        progress: share of the round's steps that have been taken, from 0 to below 1.
        net: the learner's net, in training mode; a term may pass further inputs through it.
        task: int64 (n,), the task of each sample.
        views: the augmented, normalised inputs of samples without a label, float32 (b, \\*shape), drawn anew for each
            step: of :attr:`Acquisition.view_batch` samples, as many views as :attr:`Acquisition.views` asks for. Empty
            where it asks for none, or all samples of the experience are labelled.
        view_task: int64 (b,), the task of each sample of the views.
        labelled, unlabelled: the numbers of samples of the experience that this training has a label of, and that it
            has none of.
    """

    x: Tensor
    y: Tensor
    new: int
    weight: Tensor | None
    maps: tuple[Tensor, ...]
    features: Tensor
    losses: Tensor
    progress: float
    net: Net
    task: Tensor
    views: tuple[Tensor, ...]
    view_task: Tensor
    labelled: int = 0
    unlabelled: int = 0


class Acquisition(ABC):
    """A selector with a state: a module that is trained, or thresholds that follow the stream. Abstract.

    An acquisition is built as ``acquisition(net, rng, **options)``; its options are the keyword arguments. Only the
    call must be written. An experience is trained on several times. For each training the run calls :meth:`begin`, and
    :meth:`terms` in every gradient step of the learner; after each but the last :meth:`next_choice`, :meth:`fit` and
    the acquisition itself, which chooses what is labelled before the next training. Where an experience has no initial
    set, there is also a choice before its first training. In one pass (``labelling.update = "batch"``) there are terms
    and choices alone.

    Args:
        net: the net that is trained, to be read for shapes, classes and device.
        rng: generator of first weights, on the CPU; nothing draws from it after the constructor.

    Attributes:
        bound: whether it reads hidden labels, which :meth:`reads` tells it; a record and every table say so.
    """

    module: nn.Module = nn.Sequential()
    """What is trained with the learner's net, by the same optimizer and at the same rate; by default nothing.

    The learner saves it with its own state: where rounds start from scratch, it goes back with the net. What else an
    acquisition keeps goes on from round to round, and from one experience to the next.
    """

    bound: ClassVar[bool] = False

    views: int = 0
    """Number of augmented views of a batch of samples without a label that :attr:`Step.views` shall hold."""

    view_batch: int = 0
    """Number of samples without a label of which a step has views; 0: ``training.batch_size``."""

    augment: tuple[str, ...] = ()
    """Names of the augmentations of the views, in order; empty: those of ``data.augment``."""

    def begin(self, number: int, rounds: int) -> None:  # noqa: B027 - most have nothing to prepare
        """Learn that training ``number`` of ``rounds`` of an experience begins, counted from 0."""

    def next_choice(self, number: int, choices: int) -> None:  # noqa: B027 - most choose alike in all rounds
        """Learn that choice ``number`` of ``choices`` of an experience comes, counted from 0, before ``fit``."""

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Compute terms that join the learner's loss of a step, each a scalar; by default none.

        The names are those of the record's losses; a name that the learner uses itself is refused. An acquisition that
        overrides this method needs a learner that adds terms to each of its steps.
        """
        return {}

    def fit(self, pool: Pool, rng: torch.Generator) -> None:  # noqa: B027 - many train nothing beside the learner
        """Train what stands beside the learner, before each choice. ``pool`` is that of the choice."""

    def pseudo_labels(self, pool: Pool) -> tuple[Tensor, Tensor]:
        """Label candidates that the net is sure of, for the next training alone; by default none.

        The run asks after each choice that follows a training of the experience. What was asked for, and what is
        labelled as a class that nobody has told in the experience, is dropped. The others are trained on once as if
        they were labelled; they stay candidates, count as no labels, and are never offered to the memory.

        Args:
            pool: that of the choice.

        Returns:
            int64 (m,), different rows of ``pool``, and int64 (m,), their labels.
        """
        none = torch.empty(0, dtype=torch.int64, device=pool.data.device)
        return none, none

    def reads(self, truth: Tensor, test: Exemplars) -> None:  # noqa: B027 - nobody but a bound is told
        """Learn what is hidden, before each call of a bound; see :class:`clsim.acquisitions.bounds.Bound`."""

    @abstractmethod
    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to ``budget`` rows of ``pool``, best first."""

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, as tensors and plain values; by default that of :attr:`module`."""
        return {"module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.module.load_state_dict(state["module"])

    @property
    def joins(self) -> bool:
        """Whether the acquisition has terms: whether it overrides :meth:`terms`."""
        return type(self).terms is not Acquisition.terms

    @property
    def guesses(self) -> bool:
        """Whether the acquisition labels candidates itself: whether it overrides :meth:`pseudo_labels`."""
        return type(self).pseudo_labels is not Acquisition.pseudo_labels
