"""Parts of a data set, before they are gathered, and what is done to their images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.exemplars import Exemplars

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


def permutation(order: Tensor) -> Change:
    """Pixels (of all channels) in another order. Source: Goodfellow et al. (2013), permuted MNIST."""
    return lambda x: x.flatten(1)[:, order].view_as(x)


def rotation(degrees: float) -> Change:
    """Images (n, c, h, w) turned counter-clockwise about their centre, bilinear, black outside.

    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory (NeurIPS 2017), MNIST rotations.
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])

    def rotate(x: Tensor) -> Tensor:
        grid = F.affine_grid(turn, [1, *x.shape[1:]], align_corners=False)
        batches = x.split(1000)  # float copies of a whole data set would take gigabytes
        turned = [F.grid_sample(b.float(), grid.expand(len(b), -1, -1, -1), align_corners=False) for b in batches]
        return torch.cat([t.round().clamp(0, 255).to(x.dtype) for t in turned])

    return rotate
