"""The strong view of FixMatch: RandAugment, then cutout. Batched: an operation and a magnitude an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.data.pixels import blend, equalized_table, grey, stretched_table, through

OPERATIONS = (
    *("identity", "auto-contrast", "equalize", "posterize", "solarize"),  # tables of levels
    *("brightness", "color", "contrast", "sharpness"),  # blends with another image
    *("rotate", "shear-x", "shear-y", "translate-x", "translate-y"),  # affine maps
)
"""What RandAugment draws from."""


def rand_augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Two operations out of :data:`OPERATIONS`, drawn for each image with magnitudes of its own, one after the other.

    Rotation by up to 30°, shear by up to 0.3, translation by up to 0.3 of the side (mid-grey outside), blends by
    U(0.05, 0.95), 4 to 8 bits, solarisation from a level U(0, 256).

    Source: Cubuk et al., RandAugment (NeurIPS 2020), with the ranges of Sohn et al., FixMatch (NeurIPS 2020), table 12.
    """
    for _ in range(2 if len(x) else 0):
        drawn = torch.randint(len(OPERATIONS), (len(x),), generator=rng, device=x.device)
        x = apply(x, drawn, torch.rand(len(x), generator=rng, device=x.device))
    return x


def apply(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """One operation an image.

    All tables of levels are one look-up, all blends one blend, all affine maps one resampling; an image that has
    another operation passes through each unchanged.

    Args:
        x: uint8 (n, c, h, w).
        operation: int64 (n,), positions in :data:`OPERATIONS`.
        magnitude: float32 (n,) in [0, 1].
    """
    which = {name: operation == i for i, name in enumerate(OPERATIONS)}
    out = through(x, _tables(x, which, magnitude))
    blended = which["brightness"] | which["color"] | which["contrast"] | which["sharpness"]
    out = torch.where(blended.view(-1, 1, 1, 1), _blends(x, which, magnitude), out)
    moved = operation >= OPERATIONS.index("rotate")
    return torch.where(moved.view(-1, 1, 1, 1), _moved(x, which, magnitude), out)


def cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    """A mid-grey square of a side U(0, ½) of the image's, anywhere; what lies beyond the border is lost.

    Source: DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout (2017).
    """
    n, _, h, w = x.shape
    u = torch.rand(3, n, 1, generator=rng, device=x.device)
    half = u[0] * min(h, w) / 4
    rows = (torch.arange(h, device=x.device) + 0.5 - u[1] * h).abs() < half
    columns = (torch.arange(w, device=x.device) + 0.5 - u[2] * w).abs() < half
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return x.masked_fill(hole, 128)


def _tables(x: Tensor, which: dict[str, Tensor], magnitude: Tensor) -> Tensor:
    levels = torch.arange(256, device=x.device).expand(len(x), 1, 256)
    bits = 4 + (5 * magnitude).long().clamp_max(4).view(-1, 1, 1)
    threshold = (256 * magnitude).view(-1, 1, 1)
    table = torch.where(which["posterize"].view(-1, 1, 1), levels >> (8 - bits) << (8 - bits), levels)
    table = torch.where(which["solarize"].view(-1, 1, 1) & (levels >= threshold), 255 - levels, table)
    table = table.to(torch.uint8).expand(len(x), x.shape[1], 256)
    table = torch.where(which["auto-contrast"].view(-1, 1, 1), stretched_table(x), table)
    return torch.where(which["equalize"].view(-1, 1, 1), equalized_table(x), table)


def _blends(x: Tensor, which: dict[str, Tensor], magnitude: Tensor) -> Tensor:
    pixels = x.to(torch.float32)
    luma = grey(pixels)
    base = torch.zeros_like(pixels)
    base = torch.where(which["color"].view(-1, 1, 1, 1), luma, base)
    base = torch.where(which["contrast"].view(-1, 1, 1, 1), luma.mean((2, 3), keepdim=True), base)
    base = torch.where(which["sharpness"].view(-1, 1, 1, 1), _smooth(pixels), base)
    return blend(base, pixels, (0.05 + 0.9 * magnitude).view(-1, 1, 1, 1)).round_().to(torch.uint8)


def _smooth(pixels: Tensor) -> Tensor:
    """3 × 3 smoothing with 5 in the middle of ones, out of 13; the border as it is."""
    c = pixels.shape[1]
    kernel = pixels.new_ones(3, 3)
    kernel[1, 1] = 5
    inner = F.conv2d(pixels, (kernel / 13).expand(c, 1, 3, 3), groups=c)
    out = pixels.clone()
    out[:, :, 1:-1, 1:-1] = inner.round_()
    return out


def _moved(x: Tensor, which: dict[str, Tensor], magnitude: Tensor) -> Tensor:
    """Each image resampled bilinearly under its own affine map, about its centre."""
    h, w = x.shape[2:]
    signed = 2 * magnitude - 1
    angle = torch.where(which["rotate"], math.radians(30) * signed, 0)
    shear_x, shear_y = (torch.where(which[f"shear-{axis}"], 0.3 * signed, 0) for axis in "xy")
    shift_x, shift_y = (torch.where(which[f"translate-{axis}"], 0.6 * signed, 0) for axis in "xy")
    cos, sin = angle.cos(), angle.sin()
    # of target coordinates in [−1, 1] to those of the source; pixels need not be square in these
    first = torch.stack([cos, (shear_x - sin) * (h / w), shift_x], 1)
    second = torch.stack([(shear_y + sin) * (w / h), cos, shift_y], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), [len(x), 1, h, w], align_corners=False)
    out = F.grid_sample(x.to(torch.float32) - 128, grid, mode="bilinear", align_corners=False) + 128
    return out.round_().clamp_(0, 255).to(torch.uint8)
