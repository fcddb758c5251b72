"""Exemplars: columns of equal length. A memory, a pool, an experience and a batch are all exemplars."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
        weight: float32 (n,), its weight in the replay loss.
        soft: float32 (n, k) soft labels, or None.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    key: Tensor
    index: Tensor
    weight: Tensor
    soft: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Exemplars:
        return Exemplars(
            self.x[rows],
            self.y[rows],
            self.task[rows],
            self.key[rows],
            self.index[rows],
            self.weight[rows],
            None if self.soft is None else self.soft[rows],
        )

    def columns(self) -> dict[str, Tensor]:
        """The columns by name, ``soft`` only where there is one."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: column for name, column in named.items() if column is not None}

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
    x, y, task, key, index, weight = (
        torch.cat([getattr(p, name) for p in parts]) for name in ("x", "y", "task", "key", "index", "weight")
    )
    return Exemplars(x, y, task, key, index, weight, torch.cat(soft) if len(soft) == len(parts) else None)
