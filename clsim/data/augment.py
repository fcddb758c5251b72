"""Augmentation of whole batches, on the device: no loop over samples, every draw from one generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError, nearest


class Transform:
    """uint8 images (n, c, h, w) or float32 vectors (n, d) → normalised float32. Final.

    Args:
        mean, std: per channel of images scaled to [0, 1], or per dimension of vectors. A zero std counts as 1.
        augment: names of :data:`AUGMENTATIONS`, applied in this order in training.
        channels_last: memory format of the images that come out.

    Raises:
        InputError: for an unknown augmentation.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Sequence[str],
        *,
        device: torch.device,
        channels_last: bool,
    ) -> None:
        for name in augment:
            if name not in AUGMENTATIONS:
                raise InputError(f"data.augment: unknown name {name!r}; {nearest(name, AUGMENTATIONS)}")
        centre = torch.tensor(mean, dtype=torch.float32, device=device)
        spread = torch.tensor(std, dtype=torch.float32, device=device)
        scale = torch.where(spread > 0, spread, 1).reciprocal()
        self._vectors = scale, -centre * scale
        self._images = scale.view(-1, 1, 1) / 255, (-centre * scale).view(-1, 1, 1)
        self._augment: list[Callable[[Tensor, torch.Generator], Tensor]] = [AUGMENTATIONS[name] for name in augment]
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def plain(self, x: Tensor) -> Tensor:
        """For evaluation and selection: (x / 255 − mean) / std, vectors without the division by 255."""
        if x.ndim == 2:
            scale, shift = self._vectors
            return torch.addcmul(shift, x, scale)
        scale, shift = self._images
        # channels-last only at the end: arithmetic on whole planes is faster
        return torch.addcmul(shift, x.to(torch.float32), scale).contiguous(memory_format=self._format)

    def train(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Augmented, then as :meth:`plain`.

        Raises:
            InputError: if vectors are to be augmented.
        """
        if self._augment and x.ndim == 2:
            raise InputError(f"data.augment: found {len(self._augment)} augmentations with vectors, allowed: none")
        for change in self._augment:
            x = change(x, rng)
        return self.plain(x)


def crop(x: Tensor, rng: torch.Generator) -> Tensor:
    """A random window of the same size after zero padding by an eighth of the height (4 pixels of 32).

    Args:
        x: (n, c, h, w), uint8 or float.
    """
    n, _, h, w = x.shape
    margin = max(h // 8, 1)
    top, left = torch.randint(2 * margin + 1, (2, n), generator=rng, device=x.device)
    # every window is a view of the padded image; only the chosen ones are copied: (n, c, top, left, h, w)
    windows = F.pad(x, (margin,) * 4).unfold(2, h, 1).unfold(3, w, 1)
    return windows.permute(0, 2, 3, 1, 4, 5)[torch.arange(n, device=x.device), top, left]


def flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability ½."""
    n = len(x)
    mirrored = torch.rand(n, generator=rng, device=x.device) < 0.5
    # whole images copied from either half: several times faster than torch.where over pixels
    return torch.cat((x, x.flip(3))).index_select(0, torch.arange(n, device=x.device) + n * mirrored)


def color(x: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness, contrast and (of colour images) saturation, each by a factor U(0.6, 1.4) an image, in this order.

    Each blends the image with black, with its mean grey, or with its own grey version, and is clipped to [0, 255].

    Args:
        x: uint8 (n, c, h, w).
    """
    brightness, contrast, saturation = 0.6 + 0.8 * torch.rand(3, len(x), 1, 1, 1, generator=rng, device=x.device)
    out = x.to(torch.float32).mul(brightness).clamp_(0, 255)
    out = _blend(_grey(out).mean((2, 3), keepdim=True), out, contrast)
    if x.shape[1] == 3:
        out = _blend(_grey(out), out, saturation)
    return out.round_().to(x.dtype)


def _blend(base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """base + factor · (x − base), clipped to [0, 255]."""
    return (x - base).mul_(factor).add_(base).clamp_(0, 255)


def _grey(x: Tensor) -> Tensor:
    """Luma (n, 1, h, w), ITU-R 601 weights; a grey image is its own."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = x.split(1, dim=1)
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {"crop": crop, "flip": flip, "color": color}
"""Names that ``data.augment`` takes."""
