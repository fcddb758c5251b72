"""Augmentations for the views of self- and semi-supervised learning: whole batches, a draw for each image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.data.pixels import blend, equalized_table, grey, only, resized_windows, through, turned_hue

RATIO = (3 / 4, 4 / 3)
"""Least and largest ratio of width to height of a random window."""


def large_crop(x: Tensor, rng: torch.Generator) -> Tensor:
    """Crop a random window of 75 to 100 % of the area, resized to the image's size: the large views of NNCSL."""
    return resized_crop(x, rng, size=(x.shape[2], x.shape[3]), scale=(0.75, 1.0))


def wide_crop(x: Tensor, rng: torch.Generator) -> Tensor:
    """Crop a random window of 20 to 100 % of the area, resized to the image's size: a view of self-supervised nets."""
    return resized_crop(x, rng, size=(x.shape[2], x.shape[3]), scale=(0.2, 1.0))


def small_crop(x: Tensor, rng: torch.Generator) -> Tensor:
    """Crop a random window of 30 to 75 % of the area, resized to 18/32 of the sides: the small views of NNCSL."""
    return resized_crop(x, rng, size=(small_side(x.shape[2]), small_side(x.shape[3])), scale=(0.3, 0.75))


def small_side(side: int) -> int:
    """Compute the side of small views: 18 pixels of 32."""
    return round(side * 18 / 32)


def resized_crop(x: Tensor, rng: torch.Generator, *, size: tuple[int, int], scale: tuple[float, float]) -> Tensor:
    """Crop a random window of each image, and resize it to ``size`` (height, width).

    Its area is U(scale) of the image's, the ratio of its sides log-uniform in [3/4, 4/3]: the first of ten draws that
    fits, else the largest window in the middle whose ratio is allowed, as in torchvision.

    Source: Szegedy et al., Going Deeper with Convolutions (CVPR 2015).
    """
    n, _, h, w = x.shape
    u = torch.rand(4, n, 10, generator=rng, device=x.device)
    area = h * w * (scale[0] + (scale[1] - scale[0]) * u[0])
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = (low + (high - low) * u[1]).exp()
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (width > 0) & (width <= w) & (height > 0) & (height <= h)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    some = fits.any(1)
    widest, tallest = (min(w, round(h * RATIO[1])), min(h, round(w / RATIO[0])))
    width = torch.where(some, width.gather(1, first)[:, 0], float(widest))
    height = torch.where(some, height.gather(1, first)[:, 0], float(tallest))
    top = torch.where(some, (u[2, :, 0] * (h - height + 1)).floor(), ((h - height) / 2).floor())
    left = torch.where(some, (u[3, :, 0] * (w - width + 1)).floor(), ((w - width) / 2).floor())
    return resized_windows(x, top, left, height, width, size)


def jitter(x: Tensor, rng: torch.Generator) -> Tensor:
    """With probability 0.8, change brightness, contrast, saturation by U(0.6, 1.4) × and hue by U(−0.1, 0.1) turns.

    The order is fixed; torchvision draws one. Grey images have neither saturation nor hue.
    """
    u = torch.rand(5, len(x), 1, 1, 1, generator=rng, device=x.device)
    return only(u[4].flatten() < 0.8, _jittered, x, *(0.6 + 0.8 * u[:3]), 0.2 * u[3] - 0.1)


def _jittered(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    out = x.to(torch.float32).mul_(brightness).clamp_(0, 255)
    out = blend(grey(out).mean((2, 3), keepdim=True), out, contrast)
    if x.shape[1] == 3:
        out = blend(grey(out), out, saturation)
        out = turned_hue(out, turn)
    return out.round_().to(x.dtype)


def affine(x: Tensor, rng: torch.Generator) -> Tensor:
    """Turn by up to 15°, scale by up to 20 %, shear by up to 0.15 and shift by up to 15 % of the side; black outside.

    All four are uniform, drawn for each image, and of the map from the new pixels to the old ones, about the centre;
    bilinear. The place, the size and the outline of a centred thing change, and no large part of it is cut off.
    """
    if not len(x):
        return x
    h, w = x.shape[2:]
    u = 2 * torch.rand(5, len(x), generator=rng, device=x.device) - 1
    angle, scale = math.radians(15) * u[0], 1 + 0.2 * u[1]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # from target coordinates in [−1, 1] to those of the source, in which pixels need not be square
    first = torch.stack([cos, (0.15 * u[2] - sin) * (h / w), 0.3 * u[3]], 1)
    second = torch.stack([sin * (w / h), cos, 0.3 * u[4]], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), [len(x), 1, h, w], align_corners=False)
    out = F.grid_sample(x.to(torch.float32), grid, mode="bilinear", align_corners=False)
    return out.round_().clamp_(0, 255).to(torch.uint8)


def gamma(x: Tensor, rng: torch.Generator) -> Tensor:
    """Replace each level v of an image by 255·c·(v / 255)^γ, log γ ~ U(−0.7, 0.7) and c ~ U(0.4, 1)."""
    u = torch.rand(2, len(x), 1, 1, 1, generator=rng, device=x.device)
    out = (x.to(torch.float32) / 255).pow_((1.4 * u[0] - 0.7).exp())
    return out.mul_(255 * (0.4 + 0.6 * u[1])).round_().to(x.dtype)


def solarize(x: Tensor, rng: torch.Generator) -> Tensor:
    """With probability 0.2, invert the pixels from level v on, v ~ U(0, 256) for each image.

    Source: the code of PAWS and of NNCSL; their papers name no threshold.
    """
    u = torch.rand(2, len(x), 1, 1, 1, generator=rng, device=x.device)
    return only(u[0].flatten() < 0.2, _solarized, x, 256 * u[1])


def _solarized(x: Tensor, level: Tensor) -> Tensor:
    return torch.where(x >= level, 255 - x, x)


def equalize(x: Tensor, rng: torch.Generator) -> Tensor:
    """With probability 0.2, spread the levels of each channel so that their histogram is flat."""
    return only(torch.rand(len(x), generator=rng, device=x.device) < 0.2, _equalized, x)


def _equalized(x: Tensor) -> Tensor:
    return through(x, equalized_table(x))
