"""Arithmetic on the pixels of whole batches: blends, greys, hues, tables of levels, resized windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def only(chosen: Tensor, change: Callable[..., Tensor], x: Tensor, *columns: Tensor) -> Tensor:
    """Replace the chosen rows of ``x`` by those of ``change(x, *columns)``, in which no row depends on another.

    A CPU computes the chosen rows alone. A GPU computes all rows and drops the others, since counting the chosen ones
    would mean to wait for it.

    Args:
        chosen: bool (n,).
        columns: further arguments of ``change``, n rows each.
    """
    if x.device.type != "cpu":
        return torch.where(chosen.view(-1, *[1] * (x.ndim - 1)), change(x, *columns), x)
    rows = chosen.nonzero().flatten()
    if not len(rows):
        return x
    return x.index_copy(0, rows, change(*(part.index_select(0, rows) for part in (x, *columns))))


def blend(base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """Compute base + factor · (x − base), clipped to [0, 255]."""
    return (x - base).mul_(factor).add_(base).clamp_(0, 255)


def grey(x: Tensor) -> Tensor:
    """Compute the luma (n, 1, h, w), ITU-R 601 weights; a grey image is its own luma."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = x.split(1, dim=1)
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def turned_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of each colour image; value and saturation stay.

    With V = max, C = max − min and the hue H in [0, 6), channel n ∈ (5, 3, 1) is V − C · clip(min(k, 4 − k), 0, 1),
    k = (n + H) mod 6, which is the hexagonal model of hue, saturation and value.

    Args:
        x: float32 (n, 3, h, w).
        turn: angle for each image, (n, 1, 1, 1), in full turns.
    """
    red, green, blue = x.split(1, dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # selected by a weight of 0 or 1, which is exact: many times faster than torch.where over pixels
    hue = torch.lerp(chroma.mul(4).add_(red).sub_(green), chroma.mul(2).add_(blue).sub_(red), _equal(value, green))
    hue = torch.lerp(hue, green - blue, _equal(value, red)).div_(chroma.clamp_min(1e-12)).add_(6 * turn)
    out = torch.empty_like(x)
    for shift, channel in zip((3.0, 1.0, -1.0), out.split(1, dim=1), strict=True):
        # clip(min(k, 4 − k), 0, 1) = clip(2 − |k − 2|, 0, 1), where k − 2 = shift + H may be taken from −3 to 3
        away = hue + shift
        away.sub_((away / 6).round_(), alpha=6).abs_()
        torch.sub(value, chroma * (2 - away).clamp_(0, 1), out=channel)
    return out


def _equal(a: Tensor, b: Tensor) -> Tensor:
    """Compare: 1.0 where ``a`` equals ``b``, 0.0 elsewhere."""
    return torch.eq(a, b, out=torch.empty_like(a))


def histogram(x: Tensor) -> Tensor:
    """Count the pixels of each level in each channel: float32 (n, c, 256).

    Args:
        x: uint8 (n, c, h, w).
    """
    levels = x.flatten(2).long()
    counts = torch.zeros(*x.shape[:2], 256, device=x.device)
    return counts.scatter_add_(2, levels, torch.ones_like(levels, dtype=torch.float32))


def through(x: Tensor, table: Tensor) -> Tensor:
    """Replace each pixel's level by its entry in the table of the image and channel.

    Args:
        x: uint8 (n, c, h, w).
        table: uint8 (n, c, 256).
    """
    return table.gather(2, x.flatten(2).long()).view_as(x)


def equalized_table(x: Tensor) -> Tensor:
    """Make the table, uint8 (n, c, 256), that flattens the histogram of each channel; Pillow's arithmetic.

    step = (pixels − pixels of the highest level) // 255; level → (pixels below it + step // 2) // step; where the
    step is 0, levels stay.
    """
    counts = histogram(x)
    total = counts.cumsum(2)
    highest = 255 - (counts.flip(2) > 0).to(torch.uint8).argmax(2, keepdim=True)
    step = ((total[..., -1:] - counts.gather(2, highest)) / 255).floor_()
    below = total - counts
    spread = ((below + (step / 2).floor()) / step.clamp_min(1)).floor_().clamp_(0, 255)
    return torch.where(step > 0, spread, torch.arange(256.0, device=x.device)).to(torch.uint8)


def stretched_table(x: Tensor) -> Tensor:
    """Make the table, uint8 (n, c, 256), that stretches the levels of each channel to [0, 255]; a flat one stays."""
    low = x.amin((2, 3)).float()[..., None]
    high = x.amax((2, 3)).float()[..., None]
    levels = torch.arange(256.0, device=x.device)
    stretched = ((levels - low) * 255 / (high - low).clamp_min(1)).clamp(0, 255)
    return torch.where(high > low, stretched.floor(), levels).to(torch.uint8)


def resized_windows(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]
) -> Tensor:
    """Resize a window of each image to ``size`` (height, width), bilinear; shrinking is low-pass filtered.

    Resizing is separable, so it is two products with a matrix of weights for each image: rows, then columns. All
    channels are in one product, side by side.

    Args:
        x: uint8 (n, c, h, w).
        top, left, height, width: place and size of each window in pixels, whole numbers (n,).

    Returns:
        uint8 (n, c, *size).
    """
    n, c, h, w = x.shape
    rows = _weights(top, height, size[0], h)
    columns = _weights(left, width, size[1], w)
    lines = torch.empty(n, h, c, w, device=x.device).copy_(x.transpose(1, 2))
    lines = (rows @ lines.view(n, h, c * w)).view(n, size[0] * c, w) @ columns.transpose(1, 2)
    out = torch.empty(n, c, *size, dtype=torch.uint8, device=x.device)
    # weights are positive and their sum is 1: no level below 0 or, rounded, above 255
    return out.copy_(lines.round_().view(n, size[0], c, size[1]).transpose(1, 2))


def _weights(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """Weights (n, size, side): a triangle over the source pixels of the window for each target pixel, rows of sum 1."""
    start, length = start.float()[:, None, None], length.float()[:, None, None]
    ratio = length / size
    centre = start + (torch.arange(size, device=start.device)[:, None] + 0.5) * ratio
    source = torch.arange(side, device=start.device).float()
    inside = (source >= start) & (source < start + length)
    weights = (source + 0.5 - centre).abs_().div_(-ratio.clamp_min(1)).add_(1).clamp_min_(0).mul_(inside)
    return weights.div_(weights.sum(2, keepdim=True))
