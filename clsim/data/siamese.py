"""Differentiable siamese augmentation of normalised images: the same on both sides when two batches are compared.

One operation is drawn once and then applied to as many batches as wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError, nearest


@dataclass(frozen=True)
class Draw:
    """One operation with its parameters, drawn and frozen. Final.

    Attributes:
        operation: a name in :data:`OPERATIONS`; empty: leave the images as they are.
        values: float64 (3, m), U(0, 1); m = 1 if all images share the parameters, else one column for each image.
    """

    operation: str
    values: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Augment images; gradients flow to them.

        Args:
            x: float (n, c, h, w), normalised: a pixel that an operation leaves empty is 0, the mean of the data.

        Raises:
            InputError: for vectors, or another number of images than the parameters were drawn for.
        """
        if not self.operation:
            return x
        if x.ndim != 4:
            raise InputError(
                f"siamese augmentation: found inputs of shape {tuple(x.shape)}, allowed: images (n, c, h, w)"
            )
        if self.values.shape[1] not in (1, len(x)):
            drawn = self.values.shape[1]
            raise InputError(
                f"siamese augmentation: found {len(x)} images, allowed: {drawn}, for which parameters were drawn"
            )
        return OPERATIONS[self.operation](x, self.values.to(x.device, x.dtype))


def draw(names: Sequence[str], n: int | None, rng: torch.Generator) -> Draw:
    """Draw one of the named operations, all equally likely, and its parameters.

    Args:
        names: names in :data:`OPERATIONS`, such as :data:`ALL` or :data:`DIGITS`; empty: images stay as they are.
        n: number of images, which get parameters each; None: one set that all images of all batches share.
        rng: a generator on the CPU, so that the choice of an operation waits for no device.

    Source: Zhao & Bilen, Dataset Condensation with Differentiable Siamese Augmentation (ICML 2021).

    Raises:
        InputError: for an unknown operation.

    >>> from clsim.randomness import generator
    >>> frozen = draw(["flip"], None, generator(1, "augment"))
    >>> frozen(torch.arange(4.0).view(1, 1, 2, 2)).flatten().tolist()
    [1.0, 0.0, 3.0, 2.0]
    """
    for name in names:
        if name not in OPERATIONS:
            raise InputError(f"siamese augmentation: unknown operation {name!r}; {nearest(name, OPERATIONS)}")
    values = torch.rand(3, 1 if n is None else n, generator=rng, dtype=torch.float64, device=rng.device)
    if not names:
        return Draw("", values)
    return Draw(names[int(torch.randint(len(names), (), generator=rng, device=rng.device))], values)


def color(x: Tensor, values: Tensor) -> Tensor:
    """Change brightness by + U(−½, ½), then saturation by × U(0, 2), then contrast by × U(½, 3⁄2).

    Saturation is about the mean of the channels, contrast about the mean of the image.
    """
    brightness, saturation, contrast = values[:, :, None, None, None]
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (0.5 + contrast)


def crop(x: Tensor, values: Tensor) -> Tensor:
    """Shift by whole pixels, uniform up to an eighth of each side in either direction; zeros fill the gap."""
    height, width = x.shape[2:]
    rows, inside_rows = _shifted(height, values[0])
    columns, inside_columns = _shifted(width, values[1])
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    if len(rows) == 1:
        return x.index_select(2, rows[0]).index_select(3, columns[0]) * inside
    place = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    return x.flatten(2).gather(2, place[:, None].expand(-1, x.shape[1], -1)).view_as(x) * inside


def cutout(x: Tensor, values: Tensor) -> Tensor:
    """Set a rectangle of half the height and width to zero, its centre uniform in the image, clipped at the border."""
    height, width = x.shape[2:]
    hidden = _hidden(height, values[0])[:, None, :, None] & _hidden(width, values[1])[:, None, None, :]
    return x * ~hidden


def flip(x: Tensor, values: Tensor) -> Tensor:
    """Mirror left to right with probability ½."""
    return torch.where(values[0, :, None, None, None] < 0.5, x.flip(3), x)


def scale(x: Tensor, values: Tensor) -> Tensor:
    """Stretch the height and the width, each by its own factor U(1⁄1.2, 1.2), bilinearly."""
    factor = 1 / 1.2 + (1.2 - 1 / 1.2) * values[:2]
    return _resampled(x, factor[0], torch.zeros_like(factor[0]), torch.zeros_like(factor[0]), factor[1])


def rotate(x: Tensor, values: Tensor) -> Tensor:
    """Turn about the centre by U(−15°, 15°), bilinearly."""
    angle = (2 * values[0] - 1) * math.radians(15)
    return _resampled(x, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}
"""Name → operation on images, float (n, c, h, w), and U(0, 1) of shape (3, n or 1); it returns images."""

ALL = tuple(OPERATIONS)
"""The operations of the paper's strategy."""

DIGITS = tuple(name for name in OPERATIONS if name != "flip")
"""The operations for digits and letters, whose mirror images mean something else."""


def _shifted(side: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """Find where each pixel of a side comes from, (m, side), and whether that is inside."""
    most = int(side * 0.125 + 0.5)
    source = torch.arange(side, device=value.device) + ((2 * most + 1) * value[:, None]).long() - most
    return source.clamp(0, side - 1), (source >= 0) & (source < side)


def _hidden(side: int, value: Tensor) -> Tensor:
    """Bool (m, side): the pixels that a cutout of half the side covers."""
    length = int(side * 0.5 + 0.5)
    start = ((side + 1 - length % 2) * value[:, None]).long() - length // 2
    place = torch.arange(side, device=value.device)
    return (place >= start) & (place < start + length)


def _resampled(x: Tensor, xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Tensor:
    """Read each output pixel (u, v) at (xx·u + xy·v, yx·u + yy·v), coordinates in [−1, 1]²; zero outside."""
    zero = torch.zeros_like(xx)
    matrix = torch.stack([torch.stack([xx, xy, zero], 1), torch.stack([yx, yy, zero], 1)], 1)
    grid = F.affine_grid(matrix.expand(len(x), -1, -1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
