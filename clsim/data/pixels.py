"""Arithmetic on the pixels of whole batches: blends, greys, hues, tables of levels, resized windows."""

from __future__ import annotations

import torch
from torch import Tensor


def blend(base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """base + factor · (x − base), clipped to [0, 255]; ``x`` is overwritten where it may be."""
    return (x - base).mul_(factor).add_(base).clamp_(0, 255)


def grey(x: Tensor) -> Tensor:
    """Luma (n, 1, h, w), ITU-R 601 weights; a grey image is its own."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = x.split(1, dim=1)
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def turned_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Colour images with the hue of each turned, value and saturation as they were.

    With V = max, C = max − min and the hue H in [0, 6), channel n ∈ (5, 3, 1) is V − C · clip(min(k, 4 − k), 0, 1),
    k = (n + H) mod 6, which is the hexagonal model of hue, saturation and value.

    Args:
        x: float32 (n, 3, h, w).
        turn: (n, 1, 1, 1), in turns: 1 is all the way around.
    """
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - least
    red, green, blue = x.split(1, dim=1)
    safe = chroma.clamp_min(1e-12)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    k = (hue + 6 * turn + x.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)).remainder(6)
    return value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


def histogram(x: Tensor) -> Tensor:
    """float32 (n, c, 256): how many pixels of each level a channel has.

    Args:
        x: uint8 (n, c, h, w).
    """
    levels = x.flatten(2).long()
    counts = torch.zeros(*x.shape[:2], 256, device=x.device)
    return counts.scatter_add_(2, levels, torch.ones_like(levels, dtype=torch.float32))


def through(x: Tensor, table: Tensor) -> Tensor:
    """Each pixel replaced by what the table of its image and channel says of its level.

    Args:
        x: uint8 (n, c, h, w).
        table: uint8 (n, c, 256).
    """
    return table.gather(2, x.flatten(2).long()).view_as(x)


def equalized_table(x: Tensor) -> Tensor:
    """uint8 (n, c, 256): the levels of each channel spread so that their histogram is flat; Pillow's arithmetic.

    step = (pixels − those of the highest level) // 255; level → (pixels below it + step // 2) // step; where the step
    is 0, levels stay.
    """
    counts = histogram(x)
    total = counts.cumsum(2)
    highest = 255 - (counts.flip(2) > 0).to(torch.uint8).argmax(2, keepdim=True)
    step = ((total[..., -1:] - counts.gather(2, highest)) / 255).floor_()
    below = total - counts
    spread = ((below + (step / 2).floor()) / step.clamp_min(1)).floor_().clamp_(0, 255)
    return torch.where(step > 0, spread, torch.arange(256.0, device=x.device)).to(torch.uint8)


def stretched_table(x: Tensor) -> Tensor:
    """uint8 (n, c, 256): the levels of each channel stretched to [0, 255]; a flat channel stays."""
    low = x.amin((2, 3)).float()[..., None]
    high = x.amax((2, 3)).float()[..., None]
    levels = torch.arange(256.0, device=x.device)
    stretched = ((levels - low) * 255 / (high - low).clamp_min(1)).clamp(0, 255)
    return torch.where(high > low, stretched.floor(), levels).to(torch.uint8)


def resized_windows(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]
) -> Tensor:
    """A window of each image, resized to ``size`` (height, width), bilinear; shrinking is low-pass filtered.

    Resizing is separable, so it is two products with a matrix of weights an image: rows, then columns.

    Args:
        x: uint8 (n, c, h, w).
        top, left, height, width: of the windows, whole numbers (n,).

    Returns:
        uint8 (n, c, *size).
    """
    rows = _weights(top, height, size[0], x.shape[2])
    columns = _weights(left, width, size[1], x.shape[3])
    out = rows[:, None] @ x.to(torch.float32) @ columns[:, None].transpose(2, 3)
    return out.round_().clamp_(0, 255).to(torch.uint8)


def _weights(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """(n, size, side): the triangle of each target pixel over the source pixels of its window, rows of sum 1."""
    start, length = start.float()[:, None, None], length.float()[:, None, None]
    ratio = length / size
    centre = start + (torch.arange(size, device=start.device)[:, None] + 0.5) * ratio
    source = torch.arange(side, device=start.device).float()
    inside = (source >= start) & (source < start + length)
    weights = (1 - (source + 0.5 - centre).abs() / ratio.clamp_min(1)).clamp_min(0) * inside
    return weights / weights.sum(2, keepdim=True)
