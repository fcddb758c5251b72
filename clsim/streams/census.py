"""Counts of what the samples of a realistic pool are: of the pool, of what was asked for, of what a memory keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from clsim.pool.exemplars import Exemplars
from clsim.streams.natures import Natures, together
from clsim.streams.stream import Stream


class Census:
    """The natures of a stream's samples, counted for the record. Final.

    Each count is a table: ``all`` samples; those that are ``rare``, an ``outsider`` or a ``copy`` (of an image that is
    in the same experience); ``unique`` images; and ``wrong`` labels, those told that are not the true ones.

    Args:
        stream: the stream, with a realistic pool.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._parts = stream, stream.parts or ()
        known = [(part.index, part.known) for part in (*self._parts, *stream.aside)]
        self._natures = together([natures for _, natures in known])
        numbers = np.concatenate([index for index, _ in known])
        self._at = np.full(int(numbers.max(initial=-1)) + 1, -1)
        self._at[numbers] = np.arange(len(numbers))

    @property
    def pool(self) -> list[dict[str, int]]:
        """The counts of each experience's pool, what is held out included; ``query``: samples set aside."""
        aside = self._stream.aside
        return [{**counted(part.known, part.y), "query": len(aside[i].rows)} for i, part in enumerate(self._parts)]

    def asked(self, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Count what was asked for in each entry of the label rounds, with ``unique_so_far`` of the experience."""
        found, so_far = list[dict[str, Any]](), dict[int, set[int]]()
        for entry in entries:
            position = entry["experience"]
            places = np.asarray(entry["places"], dtype=np.int64)
            natures, told = self._parts[position].known.of(places), self._stream.oracle.labels(position)[places]
            seen = so_far.setdefault(position, set())
            seen |= set(natures.group.tolist())
            counts = counted(natures, told)
            found.append({"experience": position, "round": entry["round"], **counts, "unique_so_far": len(seen)})
        return found

    def of(self, samples: Exemplars | None) -> dict[str, int]:
        """Count samples that a run holds, such as those of its memory; what is of no sample of the pool is left out."""
        if samples is None:
            return counted(self._natures.of(np.empty(0, dtype=np.int64)), np.empty(0, dtype=np.int64))
        return counted(*self._found(samples.index, samples.y))

    def trained(self, index: Tensor, y: Tensor) -> dict[str, float | None]:
        """Tell the shares of the samples of steps, each as often as it was learnt, that are of a nature.

        Args:
            index, y: int64 (n,), the numbers of the samples and the labels that they were learnt with.

        Returns:
            ``wrong``: the share with a wrong label; ``copies``: that of copies of another image. None: there are no
            such steps, or the pool has no copies.
        """
        counts = counted(*self._found(index, y))
        total, copied = counts["all"], bool((self._natures.copy > 0).any())
        return {
            "wrong": counts["wrong"] / total if total else None,
            "copies": counts["copy"] / total if total and copied else None,
        }

    def _found(self, index: Tensor, y: Tensor) -> tuple[Natures, np.ndarray]:
        """The natures of those numbers that the pool has, and their labels."""
        numbers, labels = index.cpu().numpy(), y.cpu().numpy()
        there = (numbers >= 0) & (numbers < len(self._at))
        at = self._at[numbers[there]]
        return self._natures.of(at[at >= 0]), labels[there][at >= 0]


def counted(natures: Natures, y: np.ndarray) -> dict[str, int]:
    """Count the natures of samples.

    Args:
        y: int64 (n,), their labels as they were told.
    """
    return {
        "all": len(y),
        "rare": int(natures.rare.sum()),
        "outsider": int(natures.outsider.sum()),
        "copy": int((natures.copy > 0).sum()),
        "unique": len(np.unique(natures.group)),
        "wrong": int(natures.wrong(y).sum()),
    }
