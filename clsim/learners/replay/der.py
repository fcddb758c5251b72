"""DER and DER++: exemplars are replayed with the logits that they were stored with."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from clsim.learners.sgd import Sgd
from clsim.objectives.among import Among
from clsim.objectives.dark_experience import Dark
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.training.contract import Around, Setup, Terms


def der(setup: Setup, *, alpha: float = 0.3, among: Among = "all") -> Sgd:
    """Dark experience replay: L = CE(new) + α · MSE(logits, stored logits) on a batch from memory.

    Labels of exemplars are not used. The method is made for a memory that every batch updates; see
    :class:`~clsim.objectives.dark_experience.Dark`.

    Args:
        alpha: The weight α of the distance to the stored logits.
        among: which classes the cross-entropy of a new sample ranges over; see :class:`clsim.learners.sgd.Sgd`.

    Source: Buzzega et al., Dark Experience for General Continual Learning (NeurIPS 2020), DER.
    """
    return Sgd(setup, objective=Dark(setup, alpha=alpha), among=among)


class DerPlusPlus(Around[Sgd]):
    """DER with labels: L = CE(new) + α · MSE on a batch from memory + β · CE on another batch from memory. Final.

    The two batches are drawn independently, ``memory.batch_size`` exemplars each. Without a memory it is fine-tuning.

    Args:
        setup: net, memory, transform, generators.
        alpha: The weight α of the distance to the stored logits.
        beta: The weight β of the exemplars' labels.
        among: which classes the cross-entropy of a new sample ranges over; see :class:`clsim.learners.sgd.Sgd`.

    Source: Buzzega et al., Dark Experience for General Continual Learning (NeurIPS 2020), DER++.
    """

    takes_terms: ClassVar[bool] = True
    takes_average: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, alpha: float = 0.1, beta: float = 0.5, among: Among = "all") -> None:
        super().__init__(setup, Sgd(setup, objective=Dark(setup, alpha=alpha, beta=beta), among=among))

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step on new samples and two batches from memory."""
        memory, pool = self.setup.memory, self.setup.pool
        by_logits, by_label = memory.sample(batch, pool).exemplars, memory.sample(batch, pool).exemplars
        if by_logits is None or by_label is None:
            return self.inner.step(batch, None)
        return self.inner.step(batch, concatenate([by_logits, dataclasses.replace(by_label, soft=None)]))
