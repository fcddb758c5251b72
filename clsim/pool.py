"""The pool a selector chooses from, and the selection that it returns.

A selector is a function ``(pool, budget, *, rng) -> Selection``. The pool gives it what it asks for: nothing is
computed until then, and everything only once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.exemplars import Exemplars
from clsim.models import Net, evaluating


@dataclass
class Cost:
    """What a run has spent; shared by the loop, the learner and every pool.

    Attributes:
        steps: optimizer steps.
        forward_passes: samples passed forward through the net (training, selection and evaluation together).
        train_seconds: in the learner. Selection and evaluation are counted apart.
    """

    steps: int = 0
    forward_passes: int = 0
    train_seconds: float = 0.0
    select_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    peak_bytes: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Selection:
    """Rows of a pool.

    Attributes:
        index: int64 (m,), best first, no row twice; m = min(budget, n).
        weight: float32 (m,) for the replay loss, or None for equal weights.
    """

    index: Tensor
    weight: Tensor | None = None


class Selector(Protocol):
    """Chooses ``min(budget, len(pool))`` rows, best first. All randomness comes from ``rng`` (a CPU generator)."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Of ``pool``."""


class Pool:
    """Candidates, and what a net says of them. Final.

    Args:
        data: the candidates.
        net: the learner's net; it is left as it was found, in its mode too.
        prepare: uint8 or vectors → the normalised input of the net, without augmentation.
        precision: makes the context of forward passes (autocast, or nothing).
        batch_size: samples a forward pass.
        cost: counters to add the forward passes to.
    """

    def __init__(
        self,
        data: Exemplars,
        net: Net,
        prepare: Callable[[Tensor], Tensor],
        *,
        precision: Callable[[], AbstractContextManager] = nullcontext,
        batch_size: int = 500,
        cost: Cost | None = None,
    ) -> None:
        self.data = data
        self.cost = Cost() if cost is None else cost
        self._net = net
        self._prepare = prepare
        self._precision = precision
        self._batch_size = batch_size
        self._outputs: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Tensor) -> Pool:
        """A part of the pool; what is computed already is sliced, not computed again."""
        part = Pool(
            self.data[rows],
            self._net,
            self._prepare,
            precision=self._precision,
            batch_size=self._batch_size,
            cost=self.cost,
        )
        if self._outputs is not None:
            features, logits = self._outputs
            part._outputs = features[rows], logits[rows]
        return part

    @property
    def features(self) -> Tensor:
        """float32 (n, width), the penultimate layer in eval mode."""
        return self._forward()[0]

    @property
    def logits(self) -> Tensor:
        """float32 (n, classes); −inf where a sample's task does not have the class."""
        return self._forward()[1]

    @property
    def probabilities(self) -> Tensor:
        """float32 (n, classes), softmax of the logits."""
        return self.logits.softmax(1)

    @property
    def losses(self) -> Tensor:
        """float32 (n,), cross-entropy of each sample; NaN where it is unlabelled."""
        labelled = self.data.y >= 0
        losses = F.cross_entropy(self.logits, self.data.y.clamp_min(0), reduction="none")
        return losses.where(labelled, torch.nan)

    def _forward(self) -> tuple[Tensor, Tensor]:
        """One pass over the pool for features and logits together."""
        if self._outputs is None:
            features, logits = [], []
            with evaluating(self._net), torch.no_grad(), self._precision():
                for start in range(0, max(len(self), 1), self._batch_size):
                    rows = slice(start, start + self._batch_size)
                    out = self._net.features(self._prepare(self.data.x[rows])).float()
                    features.append(out)
                    logits.append(self._net.logits(out, self.data.task[rows]))
            self.cost.forward_passes += len(self)
            self._outputs = torch.cat(features), torch.cat(logits)
        return self._outputs
