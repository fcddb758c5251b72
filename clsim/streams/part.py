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
        rows: int64, those of this part.
        y: int64, their labels in the stream.
        change: what is done to the images (a permutation, a rotation); None leaves them.
    """

    x: np.ndarray
    rows: np.ndarray
    y: np.ndarray
    change: Change | None = None

    def of(self, rows: np.ndarray) -> Part:
        """Some of it: a mask, or positions."""
        return replace(self, rows=self.rows[rows], y=self.y[rows])

    def gather(self, task: int, device: torch.device, keys: Tensor) -> Exemplars:
        """As tensors on ``device``."""
        x = torch.from_numpy(self.x[self.rows])
        n = len(self.rows)
        return Exemplars(
            x=(x if self.change is None else self.change(x)).to(device),
            y=torch.from_numpy(self.y.astype(np.int64)).to(device),
            task=torch.full((n,), task, device=device),
            key=keys.to(device),
            index=torch.from_numpy(self.rows.astype(np.int64)).to(device),
        )
