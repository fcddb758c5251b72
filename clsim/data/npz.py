"""The user's own ``.npz`` files: data sets, and sets that a memory begins with. Everything in them is checked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clsim.data import tiles
from clsim.errors import InputError, nearest
from clsim.records import regular

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def arrays(file: Path | BinaryIO, where: str, wanted: Sequence[str], more: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read arrays of an ``.npz`` by name; ``x`` and ``y`` instead, if it has these and not all that are wanted.

    Args:
        where: name of the file, for messages.
        wanted: names of the arrays that must be there.
        more: names of further arrays, which may be missing.

    Raises:
        InputError: if the file cannot be read, or a wanted array is missing.
    """
    try:
        if isinstance(file, Path):
            regular.check(file)
        with np.load(file, allow_pickle=False) as opened:
            found = opened.files
            if {"x", "y"} <= set(found) and not set(wanted) <= set(found):
                wanted = ("x", "y")
            held = {name: opened[name] for name in (*wanted, *more) if name in found}
    except Exception as error:  # zip, zlib, header, pickle, memory: a broken file fails in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{where}: cannot be read as .npz ({reason})") from None
    for name in wanted:
        if name not in held:
            meant = "".join(f"; did you mean {n!r}?" for n in get_close_matches(name, set(found) - set(wanted), n=1))
            listed = ", ".join(found[:12]) or "none"
            raise InputError(
                f"{where}: no array {name!r}{meant} (found: {listed}; allowed: {', '.join(wanted)}, or x, y)"
            )
    return held


def part(x: np.ndarray, y: np.ndarray, where: str, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Check samples and labels: uint8 (n, c, h, w) or float32 (n, d), and int64 (n,) from 0.

    Args:
        where: name of the file, for messages.
        names: names of the two arrays, for messages.

    Raises:
        InputError: if the arrays are anything else.
    """
    x, y = samples(x, where, names[0]), _labels(y, where, names[1])
    if len(x) != len(y):
        raise InputError(f"{where}: {names[0]} has {len(x)} samples and {len(y)} labels, allowed: a label for each")
    return x, y


def embedding(path: Path, rows: int | None) -> np.ndarray:
    """Read an embedding: float32 (n, d), a row for each training image of a data set, in its order.

    Args:
        path: the file, with one array, or with one that is called ``embedding``.
        rows: the number of training images; None: not known, so that no file is allowed.

    Raises:
        InputError: if the file cannot be read, or holds anything else.
    """
    where, wanted = str(path), "embedding"
    try:
        regular.check(path.expanduser())
        with np.load(path.expanduser(), allow_pickle=False) as opened:
            wanted = opened.files[0] if len(opened.files) == 1 else wanted
    except Exception as error:  # a broken file fails in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"embedding.name: {where}: cannot be read as .npz ({reason})") from None
    found = arrays(path.expanduser(), where, [wanted])[wanted]
    if not np.issubdtype(found.dtype, np.floating) or found.ndim != 2 or not found.shape[1]:
        raise InputError(
            f"embedding.name: {where}: {wanted} has type {found.dtype} and shape {found.shape}, allowed: float (n, d)"
        )
    if rows is None or len(found) != rows:
        allowed = "a data set, whose rows are known" if rows is None else f"{rows}, one for each training image"
        raise InputError(f"embedding.name: {where}: {wanted} has {len(found)} rows, allowed: {allowed}")
    return samples(found, where, wanted)


def samples(x: np.ndarray, where: str, name: str) -> np.ndarray:
    """Check samples: uint8 images, returned as (n, c, h, w) whatever their layout, or finite float32 (n, d)."""
    if np.issubdtype(x.dtype, np.floating) and x.ndim == 2 and x.shape[1]:
        with np.errstate(over="ignore"):  # infinite values are found below
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise InputError(f"{where}: {name} holds NaN or infinite values, allowed: finite float32 numbers")
        return x
    if x.dtype == np.uint8 and 0 not in x.shape[1:]:
        if x.ndim == 3:
            return x[:, None]
        if x.ndim == 4 and x.shape[1] in (1, 3):
            return x
        if x.ndim == 4 and x.shape[3] in (1, 3):
            return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    raise InputError(
        f"{where}: {name} has type {x.dtype} and shape {x.shape}, "
        "allowed: uint8 (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels, or float (n, d)"
    )


def _labels(y: np.ndarray, where: str, name: str) -> np.ndarray:
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"{where}: {name} has type {y.dtype} and shape {y.shape}, allowed: whole numbers (n,)")
    if len(y) and (y.min() < 0 or y.max() >= 2**63):  # −1, "unlabelled" elsewhere, would become a class
        raise InputError(f"{where}: {name} has labels from {y.min()} to {y.max()}, allowed: 0 to 2^63 − 1")
    return y.astype(np.int64)


def condensed(content: bytes, where: str, factor: int, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read a set as ``clsim condense`` writes it, or any x_train and y_train, or x and y, in the form a memory stores.

    Args:
        content: bytes of the file.
        where: name of the file, for messages.
        factor: each image of the memory holds factor × factor small ones. With 1, a set of tiles is read as the images
            that it decodes to.
        classes: names of the data set's classes. Labels are positions in these, or in the file's array ``classes`` if
            it has one.

    Returns:
        Images or vectors, as :func:`part` returns them, and labels, each a position in ``classes``.

    Raises:
        InputError: if the file holds anything else.
    """
    more = ("x_stored", "factor", "classes")
    found = arrays(io.BytesIO(content), where, ("x_train", "y_train"), more)
    names = ("x_train", "y_train") if "x_train" in found else ("x", "y")
    x, y = part(found[names[0]], found[names[1]], where, names)
    if not len(x):
        raise InputError(f"{where}: {names[0]} is empty, allowed: one sample or more")
    theirs = list(map(str, found["classes"].ravel())) if "classes" in found else list(classes)
    if y.max() >= len(theirs):
        labels = f"{names[1]} has labels from {y.min()} to {y.max()}"
        raise InputError(f"{where}: {labels}, allowed: 0 to {len(theirs) - 1}")
    for label in np.unique(y).tolist():
        if theirs[label] not in classes:
            raise InputError(f"{where}: found class {theirs[label]!r}; {nearest(theirs[label], classes)}")
    y = np.array([classes.index(theirs[label]) for label in y.tolist()])
    if factor == 1:
        return x, y
    own = found.get("factor", np.array(1))
    if own.shape != () or not np.issubdtype(own.dtype, np.integer) or int(own) != factor or "x_stored" not in found:
        told = f"{factor} × {factor} small images in each"
        raise InputError(f"{where}: found no x_stored with {told}, as this memory holds them; allowed: a set with it")
    parts, stored = factor**2, samples(found["x_stored"], where, "x_stored")
    if stored.shape[1:] != x.shape[1:] or stored.ndim != 4 or len(stored) * parts != len(x):
        raise InputError(f"{where}: x_stored has shape {stored.shape}, allowed: {(len(x) // parts, *x.shape[1:])}")
    high, wide = stored.shape[2:]
    tiles.check(high, wide, factor)
    grouped = y.reshape(-1, parts)
    if (grouped != grouped[:, :1]).any():
        raise InputError(f"{where}: {names[1]} differs within an image of x_stored, allowed: one class in each")
    return stored, grouped[:, 0].copy()
