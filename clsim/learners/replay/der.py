"""DER and DER++: exemplars are replayed with the logits that they were stored with."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from clsim.learners.sgd import Sgd
from clsim.objectives.dark_experience import Dark
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.streams.stream import Experience
from clsim.training.contract import Setup, Terms


def der(setup: Setup, *, alpha: float = 0.3) -> Sgd:
    """Dark experience replay: L = CE(new) + α · MSE(logits, stored logits) on a batch from memory.

    Labels of exemplars are not used. Made for a memory that every batch updates; see :class:`Dark`.

    Args:
        alpha: weight of the distance.

    Source: Buzzega et al., Dark Experience for General Continual Learning (NeurIPS 2020), DER.
    """
    return Sgd(setup, objective=Dark(setup, alpha=alpha))


class DerPlusPlus:
    """DER with labels: L = CE(new) + α · MSE on a batch from memory + β · CE on another batch from memory. Final.

    The two batches are drawn independently, ``memory.batch_size`` exemplars each. Without a memory it is fine-tuning.

    Args:
        setup: net, memory, transform, generators.
        alpha: weight of the distance to the stored logits.
        beta: weight of the labels.

    Source: Buzzega et al., Dark Experience for General Continual Learning (NeurIPS 2020), DER++.
    """

    def __init__(self, setup: Setup, *, alpha: float = 0.1, beta: float = 0.5) -> None:
        self._setup = setup
        self._objective = Dark(setup, alpha=alpha, beta=beta)
        self._sgd = Sgd(setup, objective=self._objective)

    def begin(self, experience: Experience) -> None:
        """A fresh schedule."""
        self._sgd.begin(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """One step on new samples and two batches from memory."""
        memory, pool = self._setup.memory, self._setup.pool
        by_logits, by_label = memory.sample(batch, pool).exemplars, memory.sample(batch, pool).exemplars
        if by_logits is None or by_label is None:
            return self._sgd.step(batch, None)
        return self._sgd.step(batch, concatenate([by_logits, dataclasses.replace(by_label, soft=None)]))

    def finish(self, experience: Experience) -> list[Terms]:
        """Nothing beyond what memory keeps."""
        return self._sgd.finish(experience)

    def remember(self, samples: Exemplars) -> Exemplars:
        """With their logits."""
        return self._sgd.remember(samples)

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits of raw samples."""
        return self._sgd.predict(x, task)

    def state_dict(self) -> dict[str, Any]:
        """Net and optimizer; the logits are memory's."""
        return self._sgd.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._sgd.load_state_dict(state)
