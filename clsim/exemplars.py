"""Exemplars: columns of equal length. A memory, a pool, an experience and a batch are all exemplars."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Exemplars:
    """Samples as tensors on one device, one row each.

    Attributes:
        x: uint8 images (n, c, h, w), or float32 vectors (n, d) for streams of embeddings.
        y: int64 (n,), the label; −1 = unlabelled.
        task: int64 (n,), the experience that the sample belongs to.
        key: float32 (n,), U(0, 1), drawn when the sample is first seen. Keeping the largest keys of everything seen
            so far *is* a reservoir (Efraimidis & Spirakis, 2006, with equal weights).
        index: int64 (n,), the sample's row in the data set's training part, so that an exemplar can be traced.
        weight: float32 (n,), its weight in the loss; None: all weigh the same.
        soft: float32 (n, k) soft labels, or None.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    key: Tensor
    index: Tensor
    weight: Tensor | None = None
    soft: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Exemplars:
        """These rows: a slice shares memory, a tensor (int64, or a bool mask) copies."""
        columns = (self.x, self.y, self.task, self.key, self.index, self.weight, self.soft)
        if isinstance(rows, slice) or rows.dtype == torch.bool:
            return Exemplars(*(None if column is None else column[rows] for column in columns))  # type: ignore[arg-type]
        return Exemplars(*(None if column is None else column.index_select(0, rows) for column in columns))  # type: ignore[arg-type]

    def overwrite(self, rows: Tensor, other: Exemplars) -> None:
        """Put ``other`` into these rows, in place."""
        self.x[rows] = other.x
        self.y[rows] = other.y
        self.task[rows] = other.task
        self.key[rows] = other.key
        self.index[rows] = other.index
        if self.weight is not None:
            self.weight[rows] = 1.0 if other.weight is None else other.weight
        if self.soft is not None and other.soft is not None:
            self.soft[rows] = other.soft

    def columns(self) -> dict[str, Tensor]:
        """The columns that are there, by name."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: column for name, column in named.items() if column is not None}

    def with_weight(self, rows: Tensor, weight: Tensor | None) -> Exemplars:
        """The same samples: ``rows`` weigh ``weight`` and the others 1; None: all weigh the same."""
        if weight is None:
            return self if self.weight is None else dataclasses.replace(self, weight=None)
        column = torch.ones(len(self), device=self.device)
        column[rows] = weight.to(column)
        return dataclasses.replace(self, weight=column)

    @property
    def device(self) -> torch.device:
        """Where the columns are."""
        return self.x.device

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored of the samples themselves (images or vectors, and soft labels)."""
        return self.x.nbytes + (0 if self.soft is None else self.soft.nbytes)


def concatenate(parts: Sequence[Exemplars]) -> Exemplars:
    """One after the other. Soft labels are kept if all parts have them."""
    soft = [p.soft for p in parts if p.soft is not None]
    x, y, task, key, index = (
        torch.cat([getattr(p, name) for p in parts]) for name in ("x", "y", "task", "key", "index")
    )
    return Exemplars(x, y, task, key, index, joint_weight(parts), torch.cat(soft) if len(soft) == len(parts) else None)


def joint_weight(parts: Sequence[Exemplars]) -> Tensor | None:
    """The weights of all parts, one after the other; None if no part has any."""
    if all(p.weight is None for p in parts):
        return None
    return torch.cat([torch.ones(len(p), device=p.device) if p.weight is None else p.weight for p in parts])


def batches(samples: Exemplars, size: int, rng: torch.Generator) -> Iterator[Exemplars]:
    """One epoch in an order drawn from ``rng`` (on the CPU).

    The last batch may be short. A single sample left over joins the batch before it, since batch norm needs two.
    """
    shuffled = samples[torch.randperm(len(samples), generator=rng).to(samples.device)]
    last = batch_count(len(samples), size) - 1
    for i in range(last):
        yield shuffled[i * size : (i + 1) * size]
    yield shuffled[last * size :]


def batch_count(n: int, size: int) -> int:
    """How many batches :func:`batches` makes of n samples.

    >>> batch_count(30, 10), batch_count(31, 10), batch_count(32, 10), batch_count(1, 10)
    (3, 3, 4, 1)
    """
    return max((n + size - 1 - (size > 1)) // size, 1)
