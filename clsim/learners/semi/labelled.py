"""The labelled samples that a semi-supervised learner draws from, a batch at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.objectives.among import Among, Classes
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.streams.stream import Experience
from clsim.training.contract import Setup


class Labelled:
    """The labelled part of an experience, and what memory holds of earlier ones. Final.

    Samples of the past are taken from memory at the beginning of the experience; those that memory takes in later are
    in ``current`` already. All draws use ``setup.randomness.memory``. Only the first draw of an experience waits for
    the device.

    Args:
        setup: memory and generators.
        name: The name of the learner, for messages.
        among: The choice of classes that unlabelled samples are compared among.

    Attributes:
        classes: The classes of the current experience, and those seen so far.
    """

    def __init__(self, setup: Setup, name: str, among: Among = "seen") -> None:
        if not setup.spec.partly_labelled:
            raise InputError(
                f"learner: {name} learns from unlabelled samples, but all of this stream are labelled; "
                "allowed: a scenario with a table [labels], or --labels 5%, or --label NAME"
            )
        self._setup = setup
        self.classes = Classes(setup, among)
        self.current: Exemplars | None = None
        self.past: Exemplars | None = None
        self._groups: dict[str, tuple[Exemplars, Tensor, Tensor]] = {}

    def begin(self, experience: Experience) -> None:
        """Take the labelled part of ``experience``, and the exemplars of memory that have a label."""
        self.classes.begin(experience)
        self.current, memory = experience.train, self._setup.memory.exemplars
        self.past = None
        if memory is not None:
            memory = dataclasses.replace(memory[memory.y >= 0], weight=None, soft=None, score=None)
            self.past = memory if len(memory) else None
        self._groups = {}

    def told(self, experience: Experience) -> None:
        """Take the labelled part of ``experience`` anew, which labels have come to."""
        self.current, self._groups = experience.train, {}

    @property
    def now(self) -> int:
        """The number of labelled samples in the current experience."""
        return len(self._now())

    def everything(self) -> Exemplars:
        """Return the current labelled samples, then those of the past.

        Raises:
            InputError: before the first experience.
        """
        return concatenate([part for part in (self.current, self.past) if part is not None])

    def batch(self, size: int, *, past: bool = True) -> Exemplars:
        """Draw ``size`` labelled samples, each equally likely; where there are fewer, some are drawn again.

        Args:
            size: The number of samples to draw.
            past: Whether exemplars from memory are drawn too, and not the current experience's samples alone.
        """
        source = self.everything() if past else self._now()
        drawn = torch.randperm(len(source), generator=self._setup.randomness.memory)
        return source[drawn[torch.arange(size) % len(source)].to(source.device)]

    def support(self, per_class: int, *, of: str = "all") -> Exemplars | None:
        """Draw ``per_class`` labelled samples of each class, class after class; None if there are no samples.

        A class that has fewer gives all that it has, and then some of them again.

        Args:
            per_class: The number of samples of each class.
            of: The source: ``current`` (the experience's labelled part alone), ``past`` (memory alone), or ``all``: the
                classes of both; a class that occurs in both draws from both.
        """
        sources = {"current": (self.current,), "past": (self.past,), "all": (self.current, self.past)}[of]
        parts = [part for part in sources if part is not None]
        if not parts:
            return None
        source, first, count = self._grouped(parts, of)
        # a random order within each class; a class gives its first samples, and begins again if it has too few
        keys = torch.rand(len(source), generator=self._setup.randomness.memory).to(source.device)
        order = (source.y + keys.double()).argsort()
        turns = torch.arange(per_class, device=source.device)
        rows = first[:, None] + turns.remainder(count[:, None])
        return source[order[rows.flatten()]]

    def _now(self) -> Exemplars:
        if self.current is None:
            raise InputError("labelled samples: asked for before the first experience began")
        return self.current

    def _grouped(self, parts: Sequence[Exemplars], of: str) -> tuple[Exemplars, Tensor, Tensor]:
        """Return the samples, and the start and size of each class in their order by class; once an experience."""
        if of not in self._groups:
            source = concatenate(parts)
            count = source.y.unique(return_counts=True)[1]
            self._groups[of] = source, count.cumsum(0) - count, count
        return self._groups[of]
