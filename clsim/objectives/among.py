"""The choice, shared by all methods, of the classes that a cross-entropy ranges over."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.streams.stream import Experience
from clsim.training.contract import Setup

Among = Literal["all", "seen", "experience", "batch"]
"""The classes in the softmax of a new sample.

``all``: all classes of the head. ``seen``: the classes seen so far. ``experience``: the classes of the current
experience. ``batch``: the classes of the new samples of the batch. Where a task has only some classes, these are
narrowed to them. An exemplar is compared among all classes with ``all``, and otherwise among the classes seen so far,
since its own class need not be in the current experience.
"""


class Classes:
    """The classes of the current experience, those seen so far, and those that a sample is compared among. Final.

    The classes of an experience count as seen from its beginning. With ``batch``, which does not use the experiences,
    a class counts as seen once a sample of it has been learnt from.

    Args:
        setup: the net.
        among: The choice of classes; see :data:`Among`.
        where: The option that holds this choice, for the error message.

    Attributes:
        seen: The classes seen so far, bool (classes,).
        experience: The classes of the current experience, bool (classes,).

    Raises:
        InputError: if ``among`` is not one of the choices.
    """

    def __init__(self, setup: Setup, among: Among, where: str = "learner.options.among") -> None:
        if among not in typing.get_args(Among):
            raise InputError(f"{where}: found {among!r}, allowed: {', '.join(typing.get_args(Among))}")
        self.among = among
        self.seen = torch.zeros(setup.net.visible.shape[1], dtype=torch.bool, device=setup.device)
        self.experience = torch.zeros_like(self.seen)

    def begin(self, experience: Experience) -> None:
        """Take note of the classes of ``experience``."""
        self.experience = members(experience.classes, self.seen)
        if self.among != "batch":
            self.seen = self.seen | self.experience

    def see(self, y: Tensor) -> None:
        """Count the classes of labelled samples that are learnt from, new or replayed, as seen."""
        self.seen.index_fill_(0, y, True)  # an assignment would copy its value from the host

    def of_new(self, y: Tensor) -> Tensor:
        """Return the classes that new samples are compared among, bool (classes,).

        Args:
            y: The labels of the new samples of the batch.
        """
        if self.among == "batch":
            return torch.zeros_like(self.seen).index_fill_(0, y, True)
        return {"all": torch.ones_like(self.seen), "seen": self.seen, "experience": self.experience}[self.among]

    def of_old(self) -> Tensor:
        """Return the classes that exemplars are compared among, bool (classes,)."""
        return torch.ones_like(self.seen) if self.among == "all" else self.seen

    def rows(self, y: Tensor, new: int) -> Tensor | None:
        """Return the classes that each sample of a batch is compared among, bool (n, classes); None stands for all.

        The classes of the batch count as seen from here on.

        Args:
            y: The labels of the new samples, then of the replayed ones.
            new: The number of new samples.
        """
        if self.among == "all":
            return None
        self.see(y)
        fresh, old = self.of_new(y[:new]), self.of_old()
        return torch.cat([fresh.expand(new, -1), old.expand(len(y) - new, -1)])


def members(classes: Sequence[int], like: Tensor) -> Tensor:
    """Return a mask of the shape of ``like``, bool (classes,), that is true at ``classes``."""
    found = torch.zeros_like(like)
    found[list(classes)] = True
    return found


def of_seen(logits: Tensor, seen: Tensor, visible: Tensor) -> Tensor:
    """Return logits (n, classes) to predict by, −inf for classes not seen yet, unless a task has no others.

    Args:
        seen: The classes seen so far, bool (classes,).
        visible: The classes that the task of each sample has, bool (n, classes).
    """
    known = (visible & seen).any(1, keepdim=True)
    return torch.where(known, logits.masked_fill(~seen, -torch.inf), logits)


def narrowed(logits: Tensor, among: Tensor | None) -> Tensor:
    """Return logits (n, classes) with −inf for the classes that a sample is not compared among.

    Args:
        among: The classes that are compared, bool (classes,) or (n, classes); None stands for all.
    """
    return logits if among is None else logits.masked_fill(~among, -torch.inf)
