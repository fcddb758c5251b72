"""The oracle: the only part of a run that knows which label a sample has, and that says so only when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clsim.errors import InputError
from clsim.randomness import generator


@dataclass(frozen=True)
class Question:
    """Samples whose labels were asked for at once.

    Attributes:
        position: the position of their experience.
        round: the round of asking, from 1; 0 for the initial set.
        by: who asked: the name of a selector, or ``initial``.
        rows: int64 (n,), the places of the samples among the training samples of the experience, in order of picking.
    """

    position: int
    round: int
    by: str
    rows: np.ndarray


OUTSIDER = -1
"""What is told of a sample that is of none of the classes. It costs as much as any other answer, and is never wrong."""


class Oracle:
    """Reveals labels when it is asked, and keeps who asked for what. Final.

    Args:
        y: int64 (n_i,), the labels of each experience's training samples.
        names: the label of each class of an experience, which a wrong answer is drawn from.
        seed: the seed of wrong answers; the same sample always gets the same answer.
        noise: the share of samples whose label is told wrong.
        initial: int64 (m_i,), the initial set of each experience, as places among its samples; None: there is none.

    Attributes:
        asked: the questions so far.
        initial: the initial sets, which are not revealed by themselves.
    """

    def __init__(
        self,
        y: Sequence[np.ndarray],
        names: Sequence[Sequence[int]],
        seed: int,
        noise: float = 0.0,
        initial: Sequence[np.ndarray] | None = None,
    ) -> None:
        self._truth = [labels.astype(np.int64) for labels in y]
        told = zip(self._truth, names, strict=True)
        self._answers = [_answers(labels, classes, seed, i, noise) for i, (labels, classes) in enumerate(told)]
        self._revealed = [np.zeros(len(labels), dtype=bool) for labels in y]
        self.initial = [np.empty(0, dtype=np.int64) for _ in y] if initial is None else list(initial)
        self.asked: list[Question] = []

    def tell(self, position: int, rows: np.ndarray, by: str, number: int = 0) -> np.ndarray:
        """Reveal the labels of samples, int64 (n,), and note the question.

        Args:
            position: the position of the experience.
            rows: int64 (n,), different places of samples whose labels were not revealed before.
            by: who asks.
            number: the number of the round.

        Raises:
            InputError: if a label was revealed before, is asked for twice, or there is no such sample.
        """
        known = self._revealed[position]
        rows = np.asarray(rows, dtype=np.int64)
        outside = bool(len(rows)) and not 0 <= rows.min() <= rows.max() < len(known)
        if outside or len(np.unique(rows)) < len(rows) or known[rows].any():
            raise InputError(
                f"labelling: {by} asks in experience {position + 1} for a label that is known, asks twice, or for a "
                f"sample that is not there; allowed: {int((~known).sum())} unlabelled samples, each once"
            )
        known[rows] = True
        self.asked.append(Question(position, number, by, rows))
        return self._answers[position][rows]

    def revealed(self, position: int) -> np.ndarray:
        """Return bool (n,): which samples of an experience are labelled; a copy."""
        return self._revealed[position].copy()

    def labels(self, position: int) -> np.ndarray:
        """Return int64 (n,): the answers so far in an experience; −1 where nobody asked."""
        return np.where(self._revealed[position], self._answers[position], -1)

    def classes(self, position: int) -> set[int]:
        """Collect the labels that were revealed in one experience."""
        return set(self._answers[position][self._revealed[position]].tolist()) - {OUTSIDER}

    def truth(self, position: int, rows: np.ndarray) -> np.ndarray:
        """Return true labels, int64 (n,), without a question: for bounds, which are marked, and never for others."""
        return self._truth[position][rows]


def _answers(y: np.ndarray, classes: Sequence[int], seed: int, position: int, noise: float) -> np.ndarray:
    """Compute what is told of each sample: its label or, in a share of the samples, another class at random.

    Of a sample of none of the classes that is told, whatever the noise.
    """
    if not noise or len(classes) < 2:
        return y
    rng, order = generator(seed, f"oracle {position}"), np.asarray(sorted(classes))
    wrong = (torch.rand(len(y), generator=rng) < noise).numpy()
    step = torch.randint(1, len(order), (len(y),), generator=rng).numpy()
    return np.where(wrong & (y != OUTSIDER), order[(np.searchsorted(order, y) + step) % len(order)], y)
