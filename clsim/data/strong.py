"""The strong view of FixMatch: RandAugment, then cutout. Batched, with an operation and a magnitude for each image."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.data.pixels import blend, equalized_table, grey, only, stretched_table, through

OPERATIONS = (
    *("identity", "auto-contrast", "equalize", "posterize", "solarize"),  # tables of levels
    *("brightness", "color", "contrast", "sharpness"),  # blends with another image
    *("rotate", "shear-x", "shear-y", "translate-x", "translate-y"),  # affine maps
)
"""The operations that RandAugment draws from."""


def rand_augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Apply two operations out of :data:`OPERATIONS`, one after the other, drawn for each image with their magnitudes.

    Rotation by up to 30°, shear by up to 0.3, translation by up to 0.3 of the side (mid-grey outside), blends by
    U(0.05, 0.95), posterisation to 4 to 8 bits, solarisation from a level U(0, 256).

    Source: Cubuk et al., RandAugment (NeurIPS 2020), with the ranges of Sohn et al., FixMatch (NeurIPS 2020), table 12.
    """
    for _ in range(2 if len(x) else 0):
        drawn = torch.randint(len(OPERATIONS), (len(x),), generator=rng, device=x.device)
        x = apply(x, drawn, torch.rand(len(x), generator=rng, device=x.device))
    return x


def rand_augment_of(operations: int, magnitude: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Make RandAugment with N operations of one magnitude M, out of 30.

    N operations are drawn for each image, one after the other. With s = M / 30: rotation by ±30° · s, shear by
    ±0.3 · s, translation by ±0.3 · s of the side, blends by 1 ± 0.9 · s, 8 − round(4 · s) bits, solarisation from
    256 · (1 − s); signs are drawn for each image. That M = 30 is the whole range is recalled of re-implementations.
    Operations and ranges are those of :func:`rand_augment`, whose magnitudes are drawn.

    Args:
        operations: the number N of operations.
        magnitude: the magnitude M, from 0 to 30.

    Source: Cubuk et al., RandAugment: Practical Automated Data Augmentation with a Reduced Search Space (NeurIPS 2020).
    """

    def changed(x: Tensor, rng: torch.Generator) -> Tensor:
        for _ in range(operations if len(x) else 0):
            drawn = torch.randint(len(OPERATIONS), (len(x),), generator=rng, device=x.device)
            sign = torch.randint(2, (len(x),), generator=rng, device=x.device) * 2 - 1
            x = apply(x, drawn, _share(drawn, magnitude / 30, sign))
        return x

    return changed


def _share(operation: Tensor, strength: float, sign: Tensor) -> Tensor:
    """Find the magnitude at which :func:`apply` changes each image by a strength in [0, 1], up or down by its sign."""
    share = (1 + strength * sign) / 2
    share = torch.where(_among(operation, *OPERATIONS[5:9]), (0.95 + 0.9 * strength * sign) / 0.9, share)
    share = torch.where(_among(operation, "posterize"), (4.5 - round(4 * strength)) / 5, share)
    return torch.where(_among(operation, "solarize"), 1 - strength, share)


def apply(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Apply one operation to each image.

    There is one look-up for all images that drew a table of levels, one blend for all that drew a blend, and one
    resampling for all that drew an affine map.

    Args:
        x: uint8 (n, c, h, w).
        operation: int64 (n,), positions in :data:`OPERATIONS`.
        magnitude: float32 (n,) in [0, 1]; for blends above 1, too, which go beyond the image itself.
    """
    x = only(_among(operation, *OPERATIONS[1:5]), _looked_up, x, operation, magnitude)
    x = only(_among(operation, *OPERATIONS[5:9]), _blended, x, operation, magnitude)
    return only(_among(operation, *OPERATIONS[9:]), _moved, x, operation, magnitude)


def cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    """Put a mid-grey square at a random place, its side U(0, ½) of the image's, clipped at the border.

    Source: DeVries & Taylor, Improved Regularization of Convolutional Neural Networks with Cutout (2017).
    """
    n, _, h, w = x.shape
    u = torch.rand(3, n, 1, generator=rng, device=x.device)
    half = u[0] * min(h, w) / 4
    rows = (torch.arange(h, device=x.device) + 0.5 - u[1] * h).abs() < half
    columns = (torch.arange(w, device=x.device) + 0.5 - u[2] * w).abs() < half
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return x.masked_fill(hole, 128)


def _among(operation: Tensor, *names: str) -> Tensor:
    """Find the images that drew one of these operations, neighbours in :data:`OPERATIONS`: bool (n,)."""
    places = [OPERATIONS.index(name) for name in names]
    return (operation >= places[0]) & (operation <= places[-1])


def _looked_up(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    levels = torch.arange(256, device=x.device)
    bits = 8 - (4 + (5 * magnitude).long().clamp_max(4)).view(-1, 1, 1)
    solarized = torch.where(levels >= (256 * magnitude).view(-1, 1, 1), 255 - levels, levels)
    table = torch.where(_among(operation, "posterize").view(-1, 1, 1), levels >> bits << bits, solarized)
    table = table.to(torch.uint8).expand(len(x), x.shape[1], 256)
    table = only(_among(operation, "auto-contrast"), lambda _, some: stretched_table(some), table, x)
    return through(x, only(_among(operation, "equalize"), lambda _, some: equalized_table(some), table, x))


def _blended(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    pixels = x.to(torch.float32)
    base = torch.zeros_like(pixels)
    base = only(_among(operation, "color"), lambda _, some: grey(some).expand_as(some), base, pixels)
    base = only(_among(operation, "contrast"), _mean_grey, base, pixels)
    base = only(_among(operation, "sharpness"), lambda _, some: _smooth(some), base, pixels)
    return blend(base, pixels, (0.05 + 0.9 * magnitude).view(-1, 1, 1, 1)).round_().to(torch.uint8)


def _mean_grey(_: Tensor, pixels: Tensor) -> Tensor:
    return grey(pixels).mean((2, 3), keepdim=True).expand_as(pixels)


def _smooth(pixels: Tensor) -> Tensor:
    """Smooth with a 3 × 3 kernel of ones with 5 in the middle, divided by 13; the border stays as it is."""
    c = pixels.shape[1]
    kernel = pixels.new_ones(3, 3)
    kernel[1, 1] = 5
    inner = F.conv2d(pixels, (kernel / 13).expand(c, 1, 3, 3), groups=c)
    out = pixels.clone()
    out[:, :, 1:-1, 1:-1] = inner.round_()
    return out


def _moved(x: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Resample each image bilinearly under its own affine map, about its centre."""
    h, w = x.shape[2:]
    signed = 2 * magnitude - 1
    angle = torch.where(_among(operation, "rotate"), math.radians(30) * signed, 0)
    shear_x, shear_y = (torch.where(_among(operation, f"shear-{axis}"), 0.3 * signed, 0) for axis in "xy")
    shift_x, shift_y = (torch.where(_among(operation, f"translate-{axis}"), 0.6 * signed, 0) for axis in "xy")
    cos, sin = angle.cos(), angle.sin()
    # from target coordinates in [−1, 1] to those of the source, in which pixels need not be square
    first = torch.stack([cos, (shear_x - sin) * (h / w), shift_x], 1)
    second = torch.stack([(shear_y + sin) * (w / h), cos, shift_y], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), [len(x), 1, h, w], align_corners=False)
    out = F.grid_sample(x.to(torch.float32) - 128, grid, mode="bilinear", align_corners=False) + 128
    return out.round_().clamp_(0, 255).to(torch.uint8)
