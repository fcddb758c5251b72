"""Parts of a data set, before they are gathered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clsim.pool.exemplars import Exemplars

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """The samples of one experience before they are gathered.

    Attributes:
        x: the whole data set's array (uint8 images or float32 vectors), shared by all parts.
        rows: positions of this part's samples in ``x``, int64 (n,).
        y: labels of these samples in the stream, int64 (n,).
        change: what is done to the samples (a permutation, a rotation); None leaves them as they are.
    """

    x: np.ndarray
    rows: np.ndarray
    y: np.ndarray
    change: Change | None = None

    def of(self, rows: np.ndarray) -> Part:
        """Take some of the samples.

        Args:
            rows: a boolean mask, or positions.
        """
        return replace(self, rows=self.rows[rows], y=self.y[rows])

    def gather(self, task: int, device: torch.device, keys: Tensor) -> Exemplars:
        """Copy the samples to tensors on ``device``.

        Args:
            task: the number that all samples get as their task.
            keys: the random key of each sample, (n,).
        """
        x = torch.from_numpy(self.x[self.rows])
        n = len(self.rows)
        return Exemplars(
            x=(x if self.change is None else self.change(x)).to(device),
            y=torch.from_numpy(self.y.astype(np.int64)).to(device),
            task=torch.full((n,), task, device=device),
            key=keys.to(device),
            index=torch.from_numpy(self.rows.astype(np.int64)).to(device),
        )
