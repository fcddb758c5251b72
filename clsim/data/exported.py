"""Samples as a data set of the Hugging Face library ``datasets``: what ``clsim export`` writes."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
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

WRITTEN = re.compile(r"(dataset_dict|dataset_info|state)\.json|data-\d{5}-of-\d{5}\.arrow")
"""Names of the files that the library writes."""


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
        classes = _names(held["classes"], where)
        positions = np.concatenate([y for _, y in parts.values()])
        if len(values) and values[-1] >= len(classes):
            raise InputError(
                f"{where}: found the label {values[-1]}, allowed: 0 to {len(classes) - 1}, as in 'classes'"
            )
    ends = np.cumsum([len(y) for _, y in parts.values()])[:-1]
    labels = np.split(positions, ends)
    return {split: Samples(x, y, classes) for (split, (x, _)), y in zip(parts.items(), labels, strict=True)}


def _names(array: np.ndarray, where: str) -> tuple[str, ...]:
    """Read the names of classes, which are texts or whole numbers."""
    if array.dtype.kind not in "Uiu" or array.ndim != 1:
        found = f"{array.dtype} of shape {array.shape}"
        raise InputError(f"{where}: found 'classes' {found}, allowed: texts (n,), a name for each label")
    return tuple(map(str, array.tolist()))


def _refuse_classes(classes: Sequence[str]) -> None:
    """Refuse names that the library's labels cannot have."""
    for name, times in Counter(classes).items():
        if times > 1:
            raise InputError(f"export: found {times} classes {name!r:.80}, allowed: names of which no two are equal")
        if any(0xD800 <= ord(c) < 0xE000 for c in name):
            raise InputError(f"export: found the class {name!r:.80}, allowed: text without halves of characters")


def write(splits: Mapping[str, Samples], folder: Path, force: bool = False) -> None:
    """Write a folder that the library's ``load_from_disk`` reads, whole or not at all.

    The columns are ``image`` (as PNG, which changes no pixel) or ``vector``, ``label`` if there are labels, and the
    notes. A single split ``train`` is a ``Dataset``, several are a ``DatasetDict``.

    Args:
        splits: the name of each split → its samples.
        folder: the folder.
        force: whether a data set of the library that is there already is replaced; anything else never is, nor a
            folder that holds anything else besides.

    Raises:
        InputError: if something is there already, it cannot be there, or there are no samples.
        DiskError: if the disk refuses it.
    """
    hf = hugging_face.library()
    _refuse_place(folder, force)
    if not all(map(len, splits.values())):
        raise InputError(f"export: found no samples in {' and '.join(n for n, s in splits.items() if not len(s))}")
    for samples in splits.values():
        _refuse_classes(samples.classes)
    made = {name: _dataset(hf, samples) for name, samples in splits.items()}
    data = made["train"] if len(made) == 1 else hf.DatasetDict(made)
    partial = _partial(folder)
    atomic.remove_folder(partial)  # left by a process that was killed
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its bar
            data.save_to_disk(str(partial.absolute()))
        (atomic.replace_folder if folder.exists() else atomic.replace)(partial, folder)
    except DiskError:
        raise
    except OSError as error:
        raise DiskError.of(folder, "written", error) from None
    finally:
        atomic.remove_folder(partial)


def _partial(folder: Path) -> Path:
    """Name the folder that is written before it takes its place."""
    return folder.with_name(f".{folder.name}.partial")


def _refuse_place(folder: Path, force: bool) -> None:
    """Refuse a folder that cannot be written, or that holds anything which nobody can make again."""
    if folder.name in ("", ".."):  # it has no name that another one can take
        raise InputError(f"--out: found {str(folder)!r}, allowed: the name of a folder")
    if "::" in str(folder.absolute()):  # which the library takes for a chain of file systems
        raise InputError(f"--out: found '::' in {str(folder)!r}, allowed: a path without it")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"--out: no folder {str(folder.parent)!r}; allowed: a name in a folder that is there")
    if folder.is_symlink():
        raise InputError(f"--out: {str(folder)!r} is a link, allowed: the folder itself, or another name")
    partial = _partial(folder)
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise InputError(f"--out: {str(partial)!r} is in the way, allowed: another name, or delete that first")
    if not folder.exists():
        return
    if not (force and any((folder / name).is_file() for name in MARKS)):
        allowed = "another name, or --force to replace a folder of a data set"
        raise InputError(f"--out: {str(folder)!r} is there already; allowed: {allowed}")
    for place, folders, files in os.walk(folder):
        within = Path(place).relative_to(folder)
        for name in (*files, *(one for one in folders if Path(place, one).is_symlink())):
            if len(within.parts) > 1 or not WRITTEN.fullmatch(name):
                found = f"holds {str(within / name)!r}, which is no part of a data set"
                raise InputError(f"--out: {str(folder)!r} {found}; allowed: another name, or a folder without it")


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
