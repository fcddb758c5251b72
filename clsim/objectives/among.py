"""Among which classes a cross-entropy compares: one choice for all methods."""

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
"""Which classes stand in the softmax of a new sample.

``all`` of the head; those ``seen`` so far; those of the ``experience`` at hand; those of the new samples of the
``batch``. Where a task has some classes only, these are narrowed to them. An exemplar from memory is compared among
``all``, else among the classes seen so far: its own class need not be at hand.
"""


class Classes:
    """The classes at hand and those seen so far, and which of them a sample is compared among. Final.

    The classes of an experience count as seen from its beginning; with ``batch``, which knows of no experiences, a
    class counts as seen once a sample of it came.

    Args:
        setup: the net.
        among: see :data:`Among`.
        where: the option that holds it, for the error message.

    Attributes:
        seen: bool (classes,).
        experience: bool (classes,), those of the experience at hand.

    Raises:
        InputError: if there is no such choice.
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
        """Take note of the classes of labelled samples that are learnt, new and replayed ones."""
        self.seen[y] = True

    def of_new(self, y: Tensor) -> Tensor:
        """bool (classes,): the classes that new samples are compared among.

        Args:
            y: labels of the new samples of the batch.
        """
        if self.among == "batch":
            return torch.zeros_like(self.seen).index_fill_(0, y, True)
        return {"all": torch.ones_like(self.seen), "seen": self.seen, "experience": self.experience}[self.among]

    def of_old(self) -> Tensor:
        """bool (classes,): the classes that exemplars are compared among."""
        return torch.ones_like(self.seen) if self.among == "all" else self.seen

    def rows(self, y: Tensor, new: int) -> Tensor | None:
        """bool (n, classes): those of each sample of a batch, whose classes are seen from here on; None: all.

        Args:
            y: labels of the new samples, then of the replayed ones.
            new: how many are new.
        """
        if self.among == "all":
            return None
        self.see(y)
        fresh, old = self.of_new(y[:new]), self.of_old()
        return torch.cat([fresh.expand(new, -1), old.expand(len(y) - new, -1)])


def members(classes: Sequence[int], like: Tensor) -> Tensor:
    """bool (classes,), as ``like`` is: true at these classes."""
    found = torch.zeros_like(like)
    found[list(classes)] = True
    return found


def narrowed(logits: Tensor, among: Tensor | None) -> Tensor:
    """Logits (n, classes), −inf for the classes that a sample is not compared among.

    Args:
        among: bool, (classes,) or (n, classes); None: all.
    """
    return logits if among is None else logits.masked_fill(~among, -torch.inf)
