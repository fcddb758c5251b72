"""The contents of a memory at the end of a run, read from its checkpoint: classes, and the images themselves.

A checkpoint may be missing, damaged or hostile. It is read as tensors and plain values only, everything in it is
checked, and a run whose memory cannot be read is named and left out.
"""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clsim.errors import InputError
from clsim.records.sealed import is_checked

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_FILE = 2**30
"""Largest checkpoint that is opened for a picture, in bytes."""

ROWS, COLUMNS, SIDE = 10, 10, 32
"""Most classes and most exemplars of each in a montage; the longer side of an exemplar there, in pixels."""


@dataclass(frozen=True)
class Held:
    """The contents of a memory.

    Attributes:
        counts: number of exemplars of each class, (classes,).
        labels: the class of each exemplar that can be shown, (n,).
        images: uint8 (n, h, w, c) with one channel or three; None for a stream of vectors.
    """

    counts: np.ndarray
    labels: np.ndarray
    images: np.ndarray | None

    @property
    def classes(self) -> list[int]:
        """Classes of the exemplars that are shown; each is a row of a montage."""
        return [int(c) for c in np.unique(self.labels)]

    @property
    def columns(self) -> int:
        """Number of exemplars in the longest row of a montage."""
        return int(np.unique(self.labels, return_counts=True)[1].max(initial=1))


def held(folder: Path, classes: int) -> Held:
    """Read the memory of a finished run.

    Args:
        folder: folder of the run.
        classes: number of classes of its stream, in all.

    Raises:
        InputError: in one line that says why the memory cannot be read.
    """
    path = folder / "checkpoint.pt"
    if not path.is_file():
        raise InputError(f"{_where(path)}: there is none")
    import torch

    columns = _memory(path)
    x, y = columns.get("x"), columns.get("y")

    if not isinstance(y, torch.Tensor) or y.layout != torch.strided or y.ndim != 1 or y.dtype != torch.int64:
        raise InputError(f"{_where(path)}: memory.y: allowed: a column of int64")
    if y.numel() > 10**7 or (y.numel() and not 0 <= int(y.min()) <= int(y.max()) < classes):
        raise InputError(f"{_where(path)}: memory.y: found a label that the stream does not have")
    counts = torch.bincount(y, minlength=classes).numpy()
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided or len(x) != len(y):
        raise InputError(f"{_where(path)}: memory.x: allowed: as many rows as labels")
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3) or max(x.shape[2:]) > 1024:
        return Held(counts, y.numpy(), None)
    rows = torch.from_numpy(_shown(y.numpy()))
    return Held(counts, y[rows].numpy(), x[rows].permute(0, 2, 3, 1).contiguous().numpy())


def _memory(path: Path) -> dict[str, Any]:
    """Read the memory's columns, whichever version of clsim wrote them; the rest of the file is mapped, not read."""
    import torch

    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{_where(path)}: larger than {LARGEST_FILE >> 20} MiB")
        is_checked(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in many ways inside torch.load
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"{_where(path)}: cannot be read ({line})") from None
    memory = state.get("memory") if isinstance(state, dict) else None
    if isinstance(memory, dict):
        memory = memory.get("columns", memory)  # earlier versions of clsim kept nothing but the columns
    if not isinstance(memory, dict) or not memory or state.get("fingerprint") != path.parent.name:
        raise InputError(f"{_where(path)}: holds no memory of this run")
    return memory


def _where(path: Path) -> str:
    """Name a file by its run's folder alone: readers of a page need not see where the owner keeps it."""
    return f"{path.parent.name}/{path.name}"


def _shown(labels: np.ndarray) -> np.ndarray:
    """Choose the exemplars that a montage shows: classes evenly spread, the first exemplars of each."""
    present = np.unique(labels)
    chosen = present[np.linspace(0, len(present) - 1, min(ROWS, len(present))).round().astype(int)]
    rows = [np.flatnonzero(labels == c)[:COLUMNS] for c in chosen]
    return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)


def montage(memory: Held, columns: int) -> str:
    """Draw the exemplars of a memory of images, a row for each class, and return the ``data:`` address of the drawing.

    Args:
        memory: a memory that has images.
        columns: width in exemplars; the same for all memories that are to be shown at one scale.
    """
    from PIL import Image

    if memory.images is None:
        raise ValueError("this memory holds no images")
    height, width = memory.images.shape[1:3]
    scale = max(height, width) / SIDE
    size = (max(round(width / scale), 1), max(round(height / scale), 1))
    grey = memory.images.shape[3] == 1
    tile = (size[0] + 1, size[1] + 1)
    sheet = Image.new("RGBA", (columns * tile[0], max(len(memory.classes), 1) * tile[1]))
    for row, label in enumerate(memory.classes):
        for column, pixels in enumerate(memory.images[memory.labels == label][:columns]):
            exemplar = Image.fromarray(pixels[..., 0] if grey else pixels)
            way = Image.Resampling.NEAREST if scale < 1 else Image.Resampling.LANCZOS
            sheet.paste(exemplar.resize(size, way), (column * tile[0], row * tile[1]))
    return _address(sheet)


def _address(sheet: Image) -> str:
    """Encode as lossless WebP if that is small, else as lossy: photographs do not compress well."""
    for options in ({"lossless": True, "quality": 80}, {"quality": 80, "alpha_quality": 60}):
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", **options)
        if buffer.tell() <= 48 << 10:
            break
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
