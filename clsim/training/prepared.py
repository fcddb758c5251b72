"""Inputs that were augmented before the step that learns them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from clsim.data.augmentation import Transform


class Prepared:
    """The augmented inputs of the samples that a step was chosen to learn. Final.

    The candidates of a step are augmented once: what a selector scored is what the step is taken on.
    """

    def __init__(self) -> None:
        self._raw: Tensor | None = None
        self._inputs: Tensor | None = None
        self._taken = False

    @contextmanager
    def held(self, raw: Tensor, inputs: Tensor) -> Iterator[None]:
        """Let ``inputs`` be the augmented form of ``raw`` inside; the first step that learns them takes it."""
        self._raw, self._inputs, self._taken = raw, inputs, False
        try:
            yield
        finally:
            self._raw = self._inputs = None

    def taken(self) -> bool:
        """Tell whether a step has asked for what is held."""
        return self._taken

    def train(self, new: Tensor, old: Tensor | None, transform: Transform, rng: torch.Generator) -> Tensor:
        """Augment new and replayed samples together, or the latter alone where the former are held.

        Args:
            new: (n, \\*shape), raw new samples.
            old: (m, \\*shape), raw replayed samples; None: there are none.
            transform: augments and normalises.
            rng: draws the augmentation.

        Returns:
            float32 (n + m, \\*shape).
        """
        if new is self._raw and self._inputs is not None:
            inputs, self._taken = self._inputs, True
            return inputs if old is None else torch.cat([inputs, transform.train(old, rng)])
        return transform.train(new if old is None else torch.cat([new, old]), rng)
