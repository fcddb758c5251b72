"""The contract of acquisitions: selectors that keep a state of their own from one label round to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection


class Acquisition(ABC):
    """A selector with a state: a module that is trained, or thresholds that follow the stream. Abstract.

    An acquisition is built as ``acquisition(net, rng, **options)``; its options are the keyword arguments. Only the
    call must be written. In each label round the run calls, in this order: :meth:`begin`; :meth:`terms` in every
    gradient step of the learner; :meth:`fit`; and the acquisition itself.

    Args:
        net: the net that is trained, to be read for shapes, classes and device.
        rng: generator of first weights, on the CPU.

    Attributes:
        bound: whether it reads hidden labels, which :meth:`reads` tells it; a record and every table say so.
    """

    bound: ClassVar[bool] = False

    def begin(self, number: int, rounds: int) -> None:  # noqa: B027 - most have nothing to prepare
        """Learn that round ``number`` of ``rounds`` of an experience begins, counted from 0, before its training."""

    def terms(self, net: Net, labelled: Exemplars, progress: float) -> dict[str, Tensor]:
        """Compute terms that join the learner's loss of a step; by default none.

        Args:
            net: the net that is trained, after its forward pass on ``labelled``.
            labelled: the samples of the step.
            progress: the share of the round's steps that have been taken, from 0 to below 1.
        """
        return {}

    def fit(self, pool: Pool, rng: torch.Generator) -> None:  # noqa: B027 - many train nothing beside the learner
        """Train what stands beside the learner, once a round, before the choice. ``pool`` is that of the choice."""

    def reads(self, truth: Tensor, test: Exemplars) -> None:  # noqa: B027 - nobody but a bound is told
        """Learn what is hidden, before each call of a bound; see :class:`clsim.acquisitions.bounds.Bound`."""

    @abstractmethod
    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to ``budget`` rows of ``pool``, best first."""

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, as tensors and plain values; by default nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - there may be nothing
        """Take over what :meth:`state_dict` returned."""
