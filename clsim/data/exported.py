"""Samples as a data set of the Hugging Face library ``datasets``: what ``clsim export`` writes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from clsim.data import hugging_face, npz
from clsim.errors import DiskError, InputError
from clsim.records import atomic

MARKS = ("dataset_info.json", "dataset_dict.json")
"""Files that tell a folder of such a data set from another one."""


@dataclass(frozen=True)
class Samples:
    """A part of a data set that is written.

    Attributes:
        x: uint8 (n, c, h, w) with one channel or three, or float (n, d).
        y: whole numbers (n,), the labels; −1 = unlabelled; None: there are none.
        classes: names of the labels.
        notes: further columns by name, (n,) or (n, k).
    """

    x: np.ndarray
    y: np.ndarray | None
    classes: tuple[str, ...] = ()
    notes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)


def of_npz(file: Path | BinaryIO, where: str) -> dict[str, Samples]:
    """Read a condensed set, or another ``.npz`` that is a data set: name of each split → its samples.

    Args:
        where: name of the file, for messages.

    Raises:
        InputError: if the file holds anything else.
    """
    held = npz.arrays(file, where, npz.ARRAYS, ("classes",))
    names = (
        {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")} if "x_train" in held else {"train": ("x", "y")}
    )
    parts = {split: npz.part(held[x], held[y], where, (x, y)) for split, (x, y) in names.items()}
    values, positions = np.unique(np.concatenate([y for _, y in parts.values()]), return_inverse=True)
    classes = tuple(map(str, values.tolist()))
    if "classes" in held:
        classes = tuple(map(str, held["classes"].ravel().tolist()))
        positions = np.concatenate([y for _, y in parts.values()])
        if len(values) and values[-1] >= len(classes):
            raise InputError(
                f"{where}: found the label {values[-1]}, allowed: 0 to {len(classes) - 1}, as in 'classes'"
            )
    ends = np.cumsum([len(y) for _, y in parts.values()])[:-1]
    labels = np.split(positions, ends)
    return {split: Samples(x, y, classes) for (split, (x, _)), y in zip(parts.items(), labels, strict=True)}


def write(splits: Mapping[str, Samples], folder: Path, force: bool = False) -> None:
    """Write a folder that the library's ``load_from_disk`` reads, whole or not at all.

    The columns are ``image`` (as PNG, which changes no pixel) or ``vector``, ``label`` if there are labels, and the
    notes. A single split ``train`` is a ``Dataset``, several are a ``DatasetDict``.

    Args:
        splits: the name of each split → its samples.
        folder: the folder.
        force: whether a data set of the library that is there already is replaced; anything else never is.

    Raises:
        InputError: if something is there already, or there are no samples.
        DiskError: if the disk refuses it.
    """
    hf = hugging_face.library()
    if folder.exists() and not (force and any((folder / name).is_file() for name in MARKS)):
        allowed = "another name, or --force to replace a folder of a data set"
        raise InputError(f"--out: {str(folder)!r} is there already; allowed: {allowed}")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"--out: no folder {str(folder.parent)!r}; allowed: a name in a folder that is there")
    if not all(map(len, splits.values())):
        raise InputError(f"export: found no samples in {' and '.join(n for n, s in splits.items() if not len(s))}")
    made = {name: _dataset(hf, samples) for name, samples in splits.items()}
    data = made["train"] if len(made) == 1 else hf.DatasetDict(made)
    partial = folder.with_name(f".{folder.name}.partial")
    atomic.remove_folder(partial)  # left by a process that was killed
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its bar
            data.save_to_disk(str(partial.absolute()))
        if folder.exists():
            atomic.remove_folder(folder)
        atomic.replace(partial, folder)
    except DiskError:
        raise
    except OSError as error:
        raise DiskError.of(folder, "written", error) from None
    finally:
        atomic.remove_folder(partial)


def _dataset(hf: Any, samples: Samples) -> Any:
    """Make the library's data set in memory."""
    x, kinds, columns = samples.x, dict[str, Any](), dict[str, Any]()
    if x.ndim == 4:
        kinds["image"], columns["image"] = hf.Image(), [{"bytes": _png(one), "path": None} for one in x]
    else:
        kinds["vector"], columns["vector"] = hf.List(hf.Value("float32"), length=x.shape[1]), x.astype(np.float32)
    if samples.y is not None:
        kinds["label"], columns["label"] = hf.ClassLabel(names=list(samples.classes)), samples.y.tolist()
    for name, values in samples.notes.items():
        kind = hf.Value("int64" if values.dtype.kind in "iu" else "float32")
        kinds[name] = kind if values.ndim == 1 else hf.List(kind, length=values.shape[1])
        columns[name] = values
    return hf.Dataset.from_dict(columns, features=hf.Features(kinds))


def _png(image: np.ndarray) -> bytes:
    """Encode uint8 (c, h, w)."""
    content = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))).save(
        content, "PNG"
    )
    return content.getvalue()
