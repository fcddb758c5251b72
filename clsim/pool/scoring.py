"""The nets that compute a pool's features and scores: a run's own, or proxies that are trained when first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars


@dataclass(frozen=True)
class History:
    """Training dynamics: the outcome of each sample after each epoch of a proxy's training, in eval mode.

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
    """A trainer of fresh nets on samples; see :class:`clsim.pool.proxy.Trainer`."""

    @property
    def fresh(self) -> Callable[[int], Net]:
        """Makes a net of the run's architecture, with weights drawn from a seed."""

    def train(self, samples: Exemplars) -> tuple[Net, History]:
        """Train a fresh net on the labelled samples; return it with the dynamics of all samples."""


class ScoringNets:
    """The nets that a pool and its parts share; proxies are trained on all labelled samples when first needed. Final.

    Args:
        data: the samples that proxies are trained on.
        net: the net that computes features and scores; None: the first proxy.
        trainer: trains proxies; None: there are none.
        candidates: the nets of the pool beside which these samples stand: the same net scores both, and proxies are
            trained for the candidates alone.
        among: the classes that have logits; None: all that a task has.
    """

    def __init__(
        self,
        data: Exemplars,
        net: Net | None,
        trainer: Trains | None,
        candidates: ScoringNets | None = None,
        among: Sequence[int] | None = None,
    ) -> None:
        self._data, self._trainer, self._candidates, self._among = data, trainer, candidates, among
        self._net = None if net is None else self.restricted(net)
        self._proxies: list[tuple[Net, History]] = []

    @property
    def none(self) -> bool:
        """Whether there is neither a net nor a trainer: the candidates' vectors are their features."""
        return self._net is self._trainer is None if self._candidates is None else self._candidates.none

    def scoring(self) -> Net:
        """Return the net that computes features and scores."""
        if self._candidates is not None:
            return self._candidates.scoring()
        return self.proxy(0)[0] if self._net is None else self._net

    def diverged(self) -> bool:
        """Tell whether a weight of the present nets is not finite."""
        if self._candidates is not None:
            return self._candidates.diverged()
        nets = [net for net, _ in self._proxies] if self._net is None else [self._net]
        return any(not bool(weight.isfinite().all()) for net in nets for weight in net.parameters())

    def fresh(self, seed: int) -> Net:
        """Make an untrained net of the run's architecture."""
        if self._trainer is None:
            raise InputError("pool: nets are asked for, but there are features alone; allowed: a data set")
        return self._trainer.fresh(seed)

    def proxy(self, i: int) -> tuple[Net, History]:
        """Return the ``i``-th proxy and the dynamics of its training."""
        if self.none:
            raise InputError(
                "the selector asks for a net (its logits, gradients or dropout passes), but there are features alone; "
                "allowed: selectors that need features or nothing (`clsim list selectors`), or a data set"
            )
        if self._trainer is None:
            raise InputError("pool: the selector asks for a net trained on the pool, but the pool has no trainer")
        while len(self._proxies) <= i:
            net, history = self._trainer.train(self._data)
            self._proxies.append((self.restricted(net), history))
        return self._proxies[i]

    def restricted(self, net: Net) -> Net:
        """Return a net whose tasks see the known classes alone, where the pool is closed; else the net itself."""
        if self._candidates is not None:
            return self._candidates.restricted(net)
        return net if self._among is None else net.among(self._among)
