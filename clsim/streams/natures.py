"""What samples of a realistic pool are: rare, a copy, an outsider, labelled wrong. For reports alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True)
class Natures:
    """The natures of samples, a row each. They stay with the stream: no selector, learner or module is handed them.

    Attributes:
        truth: int64 (n,), the label in the stream before any noise; −1 of an outsider.
        origin: int64 (n,), the row in the data set's training part, of a moved copy that of its original; −1: the
            sample is of another data set.
        group: int64 (n,), a number of the image in its experience; a copy has that of its original.
        copy: int64 (n,), 0 for an original, else which of its copies it is, from 1.
        rare: bool (n,), whether it is of a class that was made rare.
        outsider: bool (n,), whether it is of no class that counts.
    """

    truth: np.ndarray
    origin: np.ndarray
    group: np.ndarray
    copy: np.ndarray
    rare: np.ndarray
    outsider: np.ndarray

    @staticmethod
    def plain(y: np.ndarray, rows: np.ndarray, first: int) -> Natures:
        """Make the natures of samples of the data set itself, whose groups are counted from ``first``."""
        n = len(y)
        no = np.zeros(n, dtype=bool)
        group = np.arange(first, first + n)
        return Natures(y.astype(np.int64), rows.astype(np.int64), group, np.zeros(n, dtype=np.int64), no, no)

    def of(self, rows: np.ndarray) -> Natures:
        """Take some of the samples; ``rows``: a boolean mask, or positions."""
        return Natures(*(getattr(self, field.name)[rows] for field in fields(self)))

    def marked(self, **columns: np.ndarray) -> Natures:
        """Return the same samples with other columns."""
        return replace(self, **columns)

    def wrong(self, y: np.ndarray) -> np.ndarray:
        """Tell which labels are not the true ones, bool (n,); an outsider has no true label, and none is wrong."""
        return (y != self.truth) & ~self.outsider


def together(parts: Sequence[Natures]) -> Natures:
    """Join natures, one after the other."""
    return Natures(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Natures)))
