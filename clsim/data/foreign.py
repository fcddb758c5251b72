"""Images of another data set, in the size and the channels of the stream's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clsim.data.datasets import load
from clsim.data.pixels import grey
from clsim.errors import InputError, nearest
from clsim.spec.sources import DATASETS, OWN_DATA
from clsim.spec.tables import DataSpec

WHERE = "labels.foreign"


def images(
    name: str,
    shape: Sequence[int],
    own: DataSpec,
    root: Path,
    *,
    where: str = WHERE,
    progress: bool = True,
    download: bool = True,
) -> np.ndarray:
    """Load the training images of a data set, scaled so that the shorter side fits, cropped to the centre.

    Args:
        name: a data set that ``clsim list datasets`` shows.
        shape: shape of the stream's samples, (c, h, w).
        own: the stream's data set.
        root: folder of the data sets.
        where: the key that names the data set, for messages.
        progress: whether a download shows its progress.
        download: whether it may be downloaded.

    Returns:
        uint8 (n, c, h, w) with the stream's h and w, in the channels that the data set has; see :func:`in_channels`.

    Raises:
        InputError: if the data set is unknown, the stream's own or not to be had, or the stream has no square images.
    """
    allowed = [known for known in DATASETS if known not in (*OWN_DATA, "sequence")]
    if name not in allowed:
        raise InputError(f"{where}: found {name!r}; {nearest(name, allowed)}")
    if name in (own.dataset, *own.sequence):
        raise InputError(f"{where}: found {name!r}, which the stream is made of; allowed: another data set")
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(f"{where}: found {name!r} with samples of shape {tuple(shape)}, allowed: square images")
    dataset = load(DataSpec(name), root, progress=progress, download=download)
    if dataset.train_x.shape[2:] != tuple(shape[1:]):
        dataset = load(DataSpec(name, size=shape[1]), root, progress=progress, download=download)
    return dataset.train_x


def fitted(
    name: str, where: str, *, shape: Sequence[int], own: DataSpec, root: Path, progress: bool = True
) -> np.ndarray:
    """Load the training images of a data set, as :func:`images` does, in the channels of the stream's samples too.

    Args:
        name: a data set that ``clsim list datasets`` shows.
        where: the key that names the data set, for messages.
        shape, own, root, progress: as for :func:`images`.
    """
    found = images(name, shape, own, root, where=where, progress=progress)
    return in_channels(torch.from_numpy(found), shape[0]).numpy()


def in_channels(x: Tensor, channels: int) -> Tensor:
    """Convert uint8 images (n, 1 or 3, h, w) to ``channels`` channels: colours become their luma, grey is repeated.

    >>> red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    >>> in_channels(red, 1).flatten().tolist(), in_channels(in_channels(red, 1), 3).flatten().tolist()
    ([60], [60, 60, 60])
    """
    if x.shape[1] == channels:
        return x
    if channels == 1:
        return torch.cat([grey(part.float()).round().to(x.dtype) for part in x.split(1000)])
    return x.expand(-1, channels, -1, -1).contiguous()
