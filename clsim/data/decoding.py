"""Pictures in files or in bytes, which may be broken or hostile: formats and sizes are bounded, and no code runs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from clsim.data import room
from clsim.errors import InputError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # others may start programs (EPS) whatever the suffix
GREY = ("1", "L", "LA")
"""Modes of Pillow that have no colours."""


@contextmanager
def opened(source: Path | bytes, where: str) -> Iterator[Image.Image]:
    """Open a picture, whose pixels are read when they are asked for.

    Args:
        source: the file, or its content.
        where: name of the picture, for messages.

    Raises:
        InputError: if it cannot be read, has another format, more than 8 bits a channel, or more pixels than Pillow
            takes to be safe (about 89 million); also for what is raised while it is open.
    """
    try:
        if isinstance(source, Path) and not source.is_file():  # whoever opens a pipe waits for its other end
            raise ValueError("found a folder, a pipe or nothing, allowed: a file")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                if image.mode.startswith(("I", "F")):  # Pillow would clip them to white
                    raise ValueError(f"mode {image.mode}, allowed: 8 bits a channel")
                yield image
    except InputError:
        raise
    except Exception as error:  # decoders fail in ways of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{where}: cannot be read as an image ({reason})") from None


def images(files: Sequence[tuple[Path, int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read image files: uint8 (n, 3, size, size), and labels, int64 (n,)."""
    room.refuse_beyond({"data.size": 3 * len(files) * size**2})
    x = np.empty((len(files), 3, size, size), dtype=np.uint8)
    for i, (path, _) in enumerate(files):
        with opened(path, str(path)) as image:
            x[i] = fitted(image.convert("RGB"), size)
    return x, np.asarray([label for _, label in files], dtype=np.int64)


def fitted(image: Image.Image, size: int) -> np.ndarray:
    """Scale the shorter side to ``size``, crop to the centre; (c, size, size)."""
    return channels_first(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def channels_first(image: Image.Image) -> np.ndarray:
    """Return the pixels of a grey or a colour picture, uint8 (c, h, w)."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
