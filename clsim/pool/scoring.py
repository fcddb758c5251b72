"""The nets whose features and scores a pool gives: a run's own, or proxies that are trained when first needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars


@dataclass(frozen=True)
class History:
    """Training dynamics: how each sample fared after each epoch of a proxy's training, in eval mode.

    Attributes:
        correct: bool (epochs, n); false where a sample is unlabelled.
        losses: float32 (epochs, n), cross-entropy; NaN where unlabelled.
        errors: float32 (epochs, n), ‖p − y‖₂; NaN where unlabelled.
    """

    correct: Bool[Tensor, "epochs n"]
    losses: Float[Tensor, "epochs n"]
    errors: Float[Tensor, "epochs n"]

    def __getitem__(self, rows: Tensor | slice) -> History:
        return History(self.correct[:, rows], self.losses[:, rows], self.errors[:, rows])


@runtime_checkable
class Trains(Protocol):
    """Trains a fresh net on samples; see :class:`clsim.pool.proxy.Trainer`."""

    @property
    def fresh(self) -> Callable[[int], Net]:
        """A net of the run's architecture, with weights drawn from a seed."""

    def train(self, samples: Exemplars) -> tuple[Net, History]:
        """On the labelled ones."""


class ScoringNets:
    """The nets that a pool and its parts share, trained on all that is labelled when first needed. Final.

    Args:
        candidates: the nets of a pool that this one's samples stand beside: the same net scores both, and proxies are
            trained for the candidates alone.
    """

    def __init__(
        self, data: Exemplars, net: Net | None, trainer: Trains | None, candidates: ScoringNets | None = None
    ) -> None:
        self._data, self._net, self._trainer, self._candidates = data, net, trainer, candidates
        self._proxies: list[tuple[Net, History]] = []

    @property
    def none(self) -> bool:
        """The candidates' vectors are their features, and that is all there is."""
        return self._net is self._trainer is None if self._candidates is None else self._candidates.none

    def scoring(self) -> Net:
        """The net behind features and scores."""
        if self._candidates is not None:
            return self._candidates.scoring()
        return self.proxy(0)[0] if self._net is None else self._net

    def diverged(self) -> bool:
        """Whether a weight of those that are there is not finite."""
        if self._candidates is not None:
            return self._candidates.diverged()
        nets = [net for net, _ in self._proxies] if self._net is None else [self._net]
        return any(not bool(weight.isfinite().all()) for net in nets for weight in net.parameters())

    def fresh(self, seed: int) -> Net:
        """A net of the run's architecture, untrained."""
        if self._trainer is None:
            raise InputError("pool: nets are asked for, but there are features alone; allowed: a data set")
        return self._trainer.fresh(seed)

    def proxy(self, i: int) -> tuple[Net, History]:
        """The ``i``-th proxy, and how training it went."""
        if self.none:
            raise InputError(
                "the selector asks for a net (its logits, gradients or dropout passes), but there are features alone; "
                "allowed: selectors that need features or nothing (`clsim list selectors`), or a data set"
            )
        if self._trainer is None:
            raise InputError("pool: the selector asks for a net trained on the pool, but the pool has no trainer")
        while len(self._proxies) <= i:
            self._proxies.append(self._trainer.train(self._data))
        return self._proxies[i]
