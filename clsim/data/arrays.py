"""The user's own arrays in ``.npy`` files: features made elsewhere, and their labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from clsim.errors import InputError

BLOCK = 1 << 16  # rows checked at a time


def features(given: Any, where: str = "features") -> np.ndarray:
    """Read features: float32 (n, d), all finite.

    float32 files are memory-mapped and not copied: pages are read when they are needed. Other floats are converted.

    Args:
        given: the path of a ``.npy`` file, or an array (or a tensor on the CPU).
        where: name of the argument, for messages.

    Raises:
        InputError: if the array cannot be read, has another shape or type, or is not finite.
    """
    array, name = array_of(given, where)
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise InputError(f"{name}: found {_kind(array)}, allowed: float32 or float64 (n, d), a row for each sample")
    out = array
    if array.dtype != np.float32 or not array.dtype.isnative:
        out = np.empty(array.shape, dtype=np.float32)
    for start in range(0, len(array), BLOCK):
        rows = slice(start, start + BLOCK)
        if out is not array:
            with np.errstate(over="ignore"):  # infinite values are found below
                out[rows] = array[rows]
        finite = np.isfinite(out[rows]).all(1)
        if not finite.all():
            row = start + int(finite.argmin())
            raise InputError(f"{name}: row {row} holds NaN or infinite values, allowed: finite float32 numbers")
    return out


def labels(given: Any, n: int, where: str = "labels") -> np.ndarray:
    """Read labels: int64 (n,), −1 = unlabelled.

    Args:
        given: the path of a ``.npy`` file, or an array, a list or a tensor on the CPU.
        n: number of labels that there must be.
        where: name of the argument, for messages.

    Raises:
        InputError: if the array cannot be read, has another shape or type, or holds no valid labels.
    """
    array, name = array_of(given, where)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{name}: found {_kind(array)}, allowed: whole numbers (n,)")
    if len(array) != n:
        raise InputError(f"{name}: found {len(array)} labels of {n} samples, allowed: one for each")
    if array.min() < -1 or array.max() >= 2**63:
        raise InputError(f"{name}: found {array.min()} to {array.max()}, allowed: 0 to 2^63 − 1, or −1 for no label")
    return array.astype(np.int64)


def array_of(given: Any, where: str) -> tuple[np.ndarray, str]:
    """Open an array, which is memory-mapped if it is a file, unchecked; also return how messages name it.

    Raises:
        InputError: if there is no such file, or it is no ``.npy`` file.
    """
    if not isinstance(given, (str, os.PathLike)):
        return np.asarray(given), where
    path = Path(given).expanduser()
    if path.is_dir():
        raise InputError(
            f"{where}: {str(given)!r} is a folder, allowed: a .npy file; with parts, a folder of them, too"
        )
    if not path.is_file():
        raise InputError(f"{where}: no file {str(given)!r}; allowed: a .npy file, as numpy.save writes it")
    try:
        # copy-on-write: nothing is copied, as nothing is written, and torch accepts it as a writable array
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # header, size, pickle, memory: a broken file fails in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(f"{where}: {path} cannot be read as .npy ({reason})") from None
    if not isinstance(array, np.ndarray):  # np.load opens archives too
        raise InputError(f"{where}: {path} is an archive of arrays, allowed: a .npy file with one array")
    return np.asarray(array), f"{where}: {path}"


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
