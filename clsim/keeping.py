"""The tables of a spec that say what is kept: the memory, and the proxies behind its selectors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from clsim.errors import InputError
from clsim.strict import Options, at_least


@dataclass(frozen=True)
class MemorySpec:
    """What may be kept of the past, and what of it is replayed.

    Attributes:
        buffer: a name of ``clsim list selectors``, ``module:attr``, ``./file.py:attr``, or a combinator such as
            ``per_class(…)`` around one; ``none`` keeps nothing.
        capacity: exemplars in all, a class or a task (see ``per``).
        per: ``total``, ``class`` or ``task``: what the capacity counts.
        fraction: the capacity as a share of the training samples seen so far, instead; 0: ``capacity`` counts.
        batch_size: exemplars replayed with each batch of new samples.
        update: select after every ``batch`` or after every ``experience``.
        options: keyword arguments of the selector.
        retrieval: which exemplars to replay: ``random``, or a selector, such as ``mir``.
        candidates: exemplars drawn at random for the retrieval to choose from; 0: all.
        retrieval_options: keyword arguments of the retrieval.
        unlabelled: whether the selector is also offered unlabelled samples, under the label that the learner predicts.
        confidence: the lowest softmax score of such a prediction.
        shrink: what becomes of a condensed class whose share of the memory shrinks: ``drop``: its first images stay;
            ``condense``: the condenser runs again for the smaller share, with the images that the class had in the
            place of real ones, and begins with some of these where it would begin with noise. The buffer ``dm`` implies
            ``condense`` (unless the capacity counts classes: no share shrinks then): 5 × 2 classes at 16 × 16 pixels,
            gdumb, memory 50, 4 seeds, it ended at 74.2 instead of 72.0 % on Fashion-MNIST and at 32.0 instead of 28.1 %
            on CIFAR-10. The others imply ``drop``: in as few steps as a stream can wait for, each condensation by
            ``dsa`` cost accuracy (scikit-learn's 8 × 8 digits, 3 seeds: 16.9 instead of 34.0 %). ``condense`` makes the
            whole memory anew after each experience, which takes its time.
        start: an ``.npz`` that the memory holds before the first experience, as ``clsim condense`` writes one (or any
            x_train and y_train, whose labels count the classes of the data set from 0). It is replayed from the first
            batch on, classes that the stream has not come to included: what was known before the stream. From then on
            it is as if chosen earlier: a selector chooses among it and what is new, a condenser makes only classes that
            memory does not hold. It must fit into the capacity; where that counts classes (or tasks), those of the set
            count as seen.
    """

    buffer: str = "none"
    capacity: int = 500
    per: Literal["total", "class", "task"] = "total"
    fraction: float = 0.0
    batch_size: int = 10
    update: Literal["batch", "experience"] = "experience"
    options: Options = field(default_factory=dict)
    retrieval: str = "random"
    candidates: int = 50
    retrieval_options: Options = field(default_factory=dict)
    unlabelled: bool = False
    confidence: float = 0.0
    shrink: Literal["drop", "condense"] = "drop"
    start: str = ""

    def __post_init__(self) -> None:
        at_least(self, "memory", capacity=1, batch_size=1, candidates=0)
        if self.start and (self.buffer == "none" or self.fraction):
            found = "memory.fraction" if self.fraction else "memory.buffer = 'none'"
            raise InputError(f"memory.start: found {self.start!r} with {found}, allowed: a memory with a capacity")
        if not 0 <= self.fraction <= 1:
            raise InputError(f"memory.fraction: found {self.fraction}, allowed: a share from 0 to 1")
        if self.fraction and self.per != "total":
            raise InputError(f"memory.fraction: found with per = {self.per!r}, allowed: per = 'total'")

    @property
    def size(self) -> str:
        """In words: ``500``, ``20 a class``, ``1 %``."""
        exemplars = f"{self.capacity}" if self.per == "total" else f"{self.capacity} a {self.per}"
        return f"{100 * self.fraction:.4g} %" if self.fraction else exemplars


@dataclass(frozen=True)
class ProxySpec:
    """Fresh nets trained on a selector's candidates, for selectors that ask for one (or a committee), and for coresets.

    SGD with Nesterov momentum and a cosine schedule, the run's architecture and augmentation. The defaults are those
    of DeepCore (Guo et al., 2022): 10 epochs.

    Attributes:
        source: whose features and scores selectors see: the ``learner``'s, or a ``proxy``'s.
        epochs: of each proxy.
    """

    source: Literal["learner", "proxy"] = "learner"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        at_least(self, "proxy", epochs=1, batch_size=1, weight_decay=0)
        if not 0 < self.lr < math.inf:
            raise InputError(f"proxy.lr: found {self.lr}, allowed: a finite number above 0")
        if not 0 < self.momentum < 1:
            raise InputError(f"proxy.momentum: found {self.momentum}, allowed: above 0 and below 1")
