"""Augmentation of whole batches, on the device: no loop over samples, every draw from one generator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.data import siamese
from clsim.data.pixels import blend, grey
from clsim.data.strong import cutout, rand_augment, rand_augment_of
from clsim.data.views import affine, equalize, gamma, jitter, large_crop, small_crop, solarize, wide_crop
from clsim.errors import InputError, nearest

View = Callable[[Tensor, torch.Generator], Tensor]
"""Raw samples and a generator → augmented, normalised float32."""


class Transform:
    """The map of uint8 images (n, c, h, w) or float32 vectors (n, d) to normalised float32. Final.

    Args:
        mean, std: mean and standard deviation, per channel of images scaled to [0, 1], or per dimension of vectors. A
            zero std counts as 1.
        augment: names in :data:`AUGMENTATIONS`, applied in this order in training; those in :data:`NORMALISED` come
            after all others.
        channels_last: whether images come out in channels-last memory format.

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
        centre = torch.tensor(mean, dtype=torch.float32, device=device)
        spread = torch.tensor(std, dtype=torch.float32, device=device)
        scale = torch.where(spread > 0, spread, 1).reciprocal()
        self._vectors = scale, -centre * scale
        self._images = scale.view(-1, 1, 1) / 255, (-centre * scale).view(-1, 1, 1)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._train = self.view(augment, "data.augment")
        self._done = False

    def plain(self, x: Tensor) -> Tensor:
        """Normalise, for evaluation and selection: (x / 255 − mean) / std; vectors without the division by 255."""
        if self._done:
            return x
        if x.ndim == 2:
            scale, shift = self._vectors
            return torch.addcmul(shift, x, scale)
        scale, shift = self._images
        # channels-last only at the end: arithmetic on whole planes is faster
        return torch.addcmul(shift, x.to(torch.float32), scale).contiguous(memory_format=self._format)

    @contextmanager
    def done(self) -> Iterator[None]:
        """Take samples as prepared already inside: :meth:`plain` returns them unchanged."""
        self._done = True
        try:
            yield
        finally:
            self._done = False

    def train(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Augment, then normalise as :meth:`plain` does.

        Raises:
            InputError: if vectors are to be augmented.
        """
        return self._train(x, rng)

    def view(self, names: Sequence[str], where: str) -> View:
        """Make another way to augment: as :meth:`train`, with ``names`` in place of ``data.augment``.

        Args:
            names: names in :data:`AUGMENTATIONS`, applied in this order.
            where: the option that holds these names, for messages.

        Raises:
            InputError: for an unknown augmentation.
        """
        _check(names, where)
        before = [_named(name) for name in names if name not in NORMALISED]
        after = [_named(name) for name in names if name in NORMALISED]

        def view(x: Tensor, rng: torch.Generator) -> Tensor:
            if names and x.ndim == 2:
                raise InputError(f"{where}: found {len(names)} augmentations with vectors, allowed: none")
            for change in before:
                x = change(x, rng)
            x = self.plain(x)
            for change in after:
                x = change(x, rng).contiguous(memory_format=self._format)
            return x

        return view


def crop(x: Tensor, rng: torch.Generator) -> Tensor:
    """Crop a random window of the same size, after zero padding by an eighth of the height (4 pixels of 32).

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
    """Change brightness, contrast and, of colour images, saturation: in this order, each image by factors U(0.6, 1.4).

    They blend the image with black, with its mean grey, and with its own grey version; each is clipped to [0, 255].

    Args:
        x: uint8 (n, c, h, w).
    """
    brightness, contrast, saturation = 0.6 + 0.8 * torch.rand(3, len(x), 1, 1, 1, generator=rng, device=x.device)
    out = x.to(torch.float32).mul(brightness).clamp_(0, 255)
    out = blend(grey(out).mean((2, 3), keepdim=True), out, contrast)
    if x.shape[1] == 3:
        out = blend(grey(out), out, saturation)
    return out.round_().to(x.dtype)


def dsa(x: Tensor, rng: torch.Generator) -> Tensor:
    """Apply one operation of siamese augmentation, drawn anew for each batch, with parameters for each image.

    Nets are trained with this on a condensed set. On a GPU all operations are applied and one result is taken, so that
    nothing waits for the draw.

    Args:
        x: float (n, c, h, w), normalised.

    Source: Zhao & Bilen, Dataset Condensation with Differentiable Siamese Augmentation (ICML 2021).
    """
    return _one_of(siamese.ALL, x, rng)


def dsa_digits(x: Tensor, rng: torch.Generator) -> Tensor:
    """Augment as :func:`dsa` does, without mirroring: for digits and letters."""
    return _one_of(siamese.DIGITS, x, rng)


def _one_of(names: Sequence[str], x: Tensor, rng: torch.Generator) -> Tensor:
    if not len(x):
        return x
    if rng.device.type == "cpu":
        return siamese.draw(names, len(x), rng)(x)
    values = torch.rand(3, len(x), generator=rng, device=rng.device).to(x.dtype)
    chosen = torch.randint(len(names), (1,), generator=rng, device=rng.device)
    return torch.stack([siamese.OPERATIONS[name](x, values) for name in names]).index_select(0, chosen)[0]


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "crop": crop,
    "flip": flip,
    "color": color,
    # for the views of self- and semi-supervised learners
    "large-crop": large_crop,
    "small-crop": small_crop,
    "resized-crop": wide_crop,
    "affine": affine,
    "jitter": jitter,
    "gamma": gamma,
    "solarize": solarize,
    "equalize": equalize,
    "rand-augment": rand_augment,
    "cutout": cutout,
    "dsa": dsa,
    "dsa-digits": dsa_digits,
}
"""Names that ``data.augment`` takes, beside ``rand-augment:N:M`` (:func:`clsim.data.strong.rand_augment_of`)."""

NORMALISED = ("dsa", "dsa-digits")
"""Names of the augmentations that change normalised images, not raw ones."""


_RAND_AUGMENT = re.compile(r"rand-augment:([1-9]\d?):(\d|[12]\d|30)")
"""RandAugment with the number of its operations and their magnitude."""


def _named(name: str) -> Callable[[Tensor, torch.Generator], Tensor]:
    found = _RAND_AUGMENT.fullmatch(name)
    return rand_augment_of(int(found[1]), int(found[2])) if found else AUGMENTATIONS[name]


def _check(names: Sequence[str], where: str) -> None:
    for name in names:
        if _RAND_AUGMENT.fullmatch(name):
            continue
        if name.startswith("rand-augment:"):
            raise InputError(
                f"{where}: found {name!r}, allowed: rand-augment:N:M with N operations, from 1, of magnitude M, from 0 "
                "to 30, as in rand-augment:1:10"
            )
        if name not in AUGMENTATIONS:
            raise InputError(f"{where}: unknown name {name!r}; {nearest(name, AUGMENTATIONS)}")
