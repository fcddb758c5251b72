"""The table ``[labels]``: what of a stream is labelled, and what the rest is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clsim.errors import InputError


@dataclass(frozen=True)
class LabelsSpec:
    """How many training samples are labelled; the others are learnt from without their label. All zero: every one.

    Give one of ``fraction``, ``per_class`` and ``count``.

    Unlabelled samples need not be of the classes that are being learnt. With ``unlabelled = "stream"`` they are of past
    and future classes too; with ``foreign`` some are of no class of the stream at all, as in an open world. Foreign
    samples have no true label, and no metric counts them; a method that guesses does not know which they are.

    Attributes:
        fraction: share of each class, rounded.
        per_class: labelled samples a class (of each experience, where experiences repeat the classes).
        count: labelled samples in all, divided evenly over the classes.
        include_labelled: whether the unlabelled part also holds the labelled images, without their labels.
        unlabelled: where the unlabelled samples of an experience come from: its ``own`` classes, or those of the whole
            ``stream``, dealt evenly at random over the experiences.
        foreign: a data set of ``clsim list datasets`` whose training images join the unlabelled part, in the size and
            the channels of the stream's.
        foreign_share: how many of them for each training sample of the experience; each is in one experience alone.
    """

    fraction: float = 0.0
    per_class: int = 0
    count: int = 0
    include_labelled: bool = True
    unlabelled: Literal["own", "stream"] = "own"
    foreign: str = ""
    foreign_share: float = 1.0

    def __post_init__(self) -> None:
        for name, found in (("per_class", self.per_class), ("count", self.count)):
            if found < 0:
                raise InputError(f"labels.{name}: found {found}, allowed: 0 or more")
        if not 0 <= self.fraction <= 1:
            raise InputError(f"labels.fraction: found {self.fraction}, allowed: a share from 0 to 1")
        if sum(map(bool, (self.fraction, self.per_class, self.count))) > 1:
            raise InputError("labels: found several of fraction, per_class and count, allowed: one of them")
        if not 0 < self.foreign_share < math.inf:
            raise InputError(f"labels.foreign_share: found {self.foreign_share}, allowed: a finite number above 0")
        if self.foreign and not self.partial:
            raise InputError(
                f"labels.foreign: found {self.foreign!r} where all samples are labelled; "
                "allowed: with fraction, per_class or count, or --labels 5%"
            )
        if not self.foreign and self.foreign_share != 1:
            raise InputError(f"labels.foreign_share: found {self.foreign_share} without labels.foreign, allowed: 1")

    @property
    def partial(self) -> bool:
        """Whether there is an unlabelled part."""
        return bool(self.fraction or self.per_class or self.count)
