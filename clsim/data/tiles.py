"""Several small images (tiles) in the place of one: factor² times as many images in the same bytes.

Source: Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization (ICML 2022), multi-formation.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError


def apart(x: Tensor, factor: int) -> Tensor:
    """Take the tiles of each image apart, and scale them up bilinearly to its size; differentiable.

    Args:
        x: (n, c, h, w), uint8 or float; the sides are multiples of ``factor``.

    Returns:
        (n·factor², c, h, w): the tiles of the first image, row by row, then those of the second. uint8 stays uint8.

    >>> import torch
    >>> apart(torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2), 2)[:, 0, 0, 0].tolist()
    [0, 1, 2, 3]
    """
    if factor == 1:
        return x
    n, c, h, w = x.shape
    check(h, w, factor)
    small = x.reshape(n, c, factor, h // factor, factor, w // factor).permute(0, 2, 4, 1, 3, 5)
    small = small.reshape(n * factor**2, c, h // factor, w // factor)
    if not x.is_floating_point():
        return F.interpolate(small.float(), (h, w), mode="bilinear").round_().clamp_(0, 255).to(x.dtype)
    return F.interpolate(small, (h, w), mode="bilinear")


def together(x: Tensor, factor: int) -> Tensor:
    """Put images together as tiles, (n·factor², c, h, w) → (n, c, h, w): the inverse of :func:`apart` but for scaling.

    Args:
        x: float images; each is scaled down by the mean of factor × factor pixels.
    """
    if factor == 1:
        return x
    n, c, h, w = x.shape
    check(h, w, factor)
    small = F.avg_pool2d(x, factor).view(n // factor**2, factor, factor, c, h // factor, w // factor)
    return small.permute(0, 3, 1, 4, 2, 5).reshape(n // factor**2, c, h, w)


def check(h: int, w: int, factor: int) -> None:
    """Refuse a size of images that ``factor`` does not divide.

    Raises:
        InputError: if a side is no multiple of ``factor``.
    """
    if factor < 1 or h % factor or w % factor:
        allowed = ", ".join(str(f) for f in range(1, min(h, w) // 2 + 1) if not h % f and not w % f)
        raise InputError(f"factor: found {factor} with images of {h} × {w} pixels, allowed: {allowed}")
