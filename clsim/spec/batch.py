"""The tables ``[batch]`` and ``[irreducible]`` of a spec: who chooses the samples of a step, and by which net."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from clsim.errors import InputError, at_least
from clsim.spec.reader import Options
from clsim.spec.tables import OptimizerSpec


@dataclass(frozen=True)
class BatchSpec:
    """Which of the samples that are drawn for a gradient step it is taken on.

    Each step draws candidates among the new samples, and is taken on those that the selector chooses. Schedules count
    gradient steps; an epoch is a pass over the candidates, whoever chooses. The memory is offered every candidate once,
    chosen or not, and which exemplars are replayed is the affair of ``memory.retrieval``.

    Attributes:
        selector: a selector that needs one forward pass of the candidates (``clsim list selectors`` marks them), a name
            of ``clsim list pruners``, ``module:attr`` or ``./file.py:attr``; ``none``: a step is taken on all that is
            drawn. Weights that a selector gives are not used.
        options: keyword arguments of the selector.
        share: n_b / n_B, the part of the candidates that is chosen. ``training.batch_size`` stays n_b, and n_B is
            n_b / share, rounded. A short last batch keeps its share, and at least one sample of it is chosen.
        mode: mode of the net while it scores the candidates. ``eval``: its batch norm uses and keeps the running
            statistics, and nothing drops out. ``train``: batch norm uses the statistics of the candidates, and the
            running statistics move, as in the code of RHO-LOSS.
    """

    selector: str = "none"
    options: Options = field(default_factory=dict)
    share: float = 0.1
    mode: Literal["eval", "train"] = "eval"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"batch.share: found {self.share:g}, allowed: a share above 0, up to 1")

    @property
    def chooses(self) -> bool:
        """Whether a step is taken on less than what is drawn for it."""
        return self.selector != "none" and not self.prunes

    @property
    def prunes(self) -> bool:
        """Whether an epoch passes over less than all samples."""
        return self.selector in PRUNERS

    def drawn(self, size: int) -> int:
        """Compute n_B, the number of candidates of a step that is taken on ``size`` samples.

        >>> BatchSpec("rho-loss").drawn(32), BatchSpec("rho-loss", share=0.3).drawn(10), BatchSpec().drawn(32)
        (320, 33, 32)
        """
        return max(round(size / self.share), size) if self.chooses else size

    def picked(self, size: int, candidates: int) -> int:
        """Compute how many of the candidates of a batch are chosen, at least one.

        Args:
            size: number of samples of a whole step, n_b.
            candidates: number of candidates, n_B or fewer; or one more, where a single one joined the batch.

        >>> spec = BatchSpec("rho-loss")
        >>> [spec.picked(32, n) for n in (320, 321, 40, 39, 5)]
        [32, 32, 4, 3, 1]
        """
        return max(size * min(candidates, self.drawn(size)) // self.drawn(size), 1)


PRUNERS = ("info-batch",)
"""Names of ``batch.selector`` that leave samples out of whole epochs."""


@dataclass(frozen=True)
class IrreducibleSpec:
    """The irreducible-loss net, whose loss of a sample says how much of it cannot be learnt from other samples.

    It is fresh in each experience, trained before the first step, in each round where labels are asked for, and scores
    each labelled sample once, in eval mode and without augmentation. It is trained where a selector of the run needs
    irreducible losses (``rho-loss``, ``low-irreducible-loss``), and nowhere else.

    Attributes:
        source: what it is trained on. ``held-out``: the experience's held-out share (``stream.validation``).
            ``halves``: two nets, each trained on a half of the experience's training samples, balanced by class, and
            scoring the other half. ``auto``: ``held-out`` where there is a share, else ``halves``.
        memory: whether it is also trained on the labelled exemplars in memory, so that it knows the classes that the
            learner replays.
        model: the net, a name of ``clsim list models``; ``same``: the run's own. The paper also takes a smaller one.
        options: keyword arguments of the model.
        epochs: passes over its training samples at most.
        patience: it stops after this number of epochs in a row without a lower loss on what is kept back; 0: never.
        kept_back: share of its training samples that it is not trained on, stratified by class, at least one sample.
            The net of the epoch with the lowest loss on them scores. (The paper's code takes the test set.)
        batch_size: samples in a step. 0: a twentieth of the samples, but from 32 to 320, the paper's.
        lr: learning rate of AdamW.
        weight_decay: weight decay of AdamW; the paper's is PyTorch's default.
        seed: seed of weights and draws; −1: the seed of the run.
    """

    source: Literal["auto", "held-out", "halves"] = "auto"
    memory: bool = True
    model: str = "same"
    options: Options = field(default_factory=dict)
    epochs: int = 100
    patience: int = 5
    kept_back: float = 0.1
    batch_size: int = 0
    lr: float = 0.001
    weight_decay: float = 0.01
    seed: int = -1

    def __post_init__(self) -> None:
        at_least(1, "irreducible.", epochs=self.epochs)
        at_least(0, "irreducible.", patience=self.patience, batch_size=self.batch_size, weight_decay=self.weight_decay)
        at_least(-1, "irreducible.", seed=self.seed)
        if not 0 < self.lr < math.inf:
            raise InputError(f"irreducible.lr: found {self.lr:g}, allowed: a finite number above 0")
        if not 0 < self.kept_back < 1:
            raise InputError(f"irreducible.kept_back: found {self.kept_back:g}, allowed: a share between 0 and 1")

    def batch(self, samples: int) -> int:
        """Compute the number of samples in a step.

        >>> [IrreducibleSpec().batch(n) for n in (200, 2000, 20000)]
        [32, 100, 320]
        """
        return self.batch_size or min(max(samples // 20, 32), 320)

    @property
    def optimizer(self) -> OptimizerSpec:
        """The optimizer as a table of a spec."""
        return OptimizerSpec("adamw", lr=self.lr, weight_decay=self.weight_decay)
