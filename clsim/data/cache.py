"""The cache of data sets: for each a folder with four ``.npy`` files and a ``meta.json``, complete or absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsim.errors import DiskError, InputError
from clsim.records import atomic, regular

FORMAT = 1
ARRAYS = ("train_x", "train_y", "test_x", "test_y")


@dataclass(frozen=True)
class Dataset:
    """Training and test part of a data set. The arrays are read-only.

    Attributes:
        train_x: uint8 (n, c, h, w), or float32 (n, d) for vectors.
        train_y: int64 (n,), 0 … classes − 1.
        test_x, test_y: the same for the test part.
        classes: names of the classes; the position is the label.
        mean, std: mean and standard deviation of the training part, per channel of images scaled to [0, 1], or per
            dimension of vectors.
        groups: number of classes of each data set in a sequence of them, in order; empty for a single data set.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Raw:
    """The arrays of :class:`Dataset` as a source delivers them, with nothing computed yet."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]


def read(folder: Path, name: str) -> Dataset | None:
    """Read the cached data set, memory-mapped; None if it is absent or damaged, so that it is made again."""
    try:
        for one in ("meta.json", *(f"{a}.npy" for a in ARRAYS)):
            regular.check(folder / one)
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        arrays = {a: np.load(folder / f"{a}.npy", mmap_mode="r", allow_pickle=False) for a in ARRAYS}
        mean, std = (tuple(float(v) for v in meta[key]) for key in ("mean", "std"))
        dataset = Dataset(name, **arrays, classes=tuple(map(str, meta["classes"])), mean=mean, std=std)
        return (
            dataset if meta["format"] == FORMAT and meta["arrays"] == _described(arrays) and _sound(dataset) else None
        )
    except Exception:  # a broken file fails in many ways; whatever it is, the cache is made again
        return None


def build(folder: Path, name: str, make: Callable[[], Raw]) -> Dataset:
    """Make the cache, unless another process did while this one waited.

    Of each data set, one process at a time fetches and writes; the others wait for it instead of downloading it too.
    Where the disk refuses the cache, a warning says so, and the data set is that in memory.

    Raises:
        InputError: if there is no folder of data sets, and none can be made; and whatever ``make`` raises.
    """
    raw: Raw | None = None
    try:
        _make_root(folder.parent)
        with atomic.locked(folder.parent / f".{name}.lock"):
            dataset = read(folder, name)
            if dataset is None:
                raw = make()
                _write(raw, folder)
                dataset = read(folder, name)
    except DiskError as error:
        raw = raw or make()
        dataset = _in_memory(raw, name)
        atomic.warn_unkept(folder, error, "each run reads the data set anew until it can be")
    if dataset is None:
        raise InputError(f"{folder}: what was just written cannot be read; allowed: a folder that keeps files")
    return dataset


def _make_root(folder: Path) -> None:
    try:
        atomic.make_folder(folder)
    except DiskError as error:
        if folder.parent.is_dir():  # of the data, which is there
            raise
        raise InputError(
            f"{folder}: cannot be written ({error.reason}); allowed: a folder that you may write to and with space "
            "left, named by --data-root or CLSIM_DATA"
        ) from None


def moments(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of images scaled to [0, 1], or per dimension of vectors.

    The deviation of constant values is exactly 0, without the round-off of a mean.

    >>> moments(np.full((3, 1, 2, 2), 51, dtype=np.uint8))
    ([0.2], [0.0])
    """
    if x.ndim == 2:
        varies = x.min(0) != x.max(0)
        return x.mean(0, dtype=np.float64).tolist(), np.where(varies, x.std(0, dtype=np.float64), 0).tolist()
    levels = np.arange(256) / 255
    counts = np.stack([np.bincount(x[:, c].ravel(), minlength=256) for c in range(x.shape[1])])
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ levels
    variance = np.maximum(share @ levels**2 - mean**2, 0)
    return mean.tolist(), np.where((counts > 0).sum(1) > 1, np.sqrt(variance), 0).tolist()


def _described(arrays: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    return {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}


def _sound(dataset: Dataset) -> bool:
    """Whether the arrays are what :class:`Dataset` promises."""
    kind = ("uint8", 4) if dataset.train_x.ndim == 4 else ("float32", 2)
    return all(
        (str(x.dtype), x.ndim) == kind
        and x.shape[1:] == dataset.train_x.shape[1:]
        and (str(y.dtype), y.shape) == ("int64", (len(x),))
        and 0 <= y.min() <= y.max() < len(dataset.classes)
        for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y))
    ) and all(len(m) == dataset.train_x.shape[1] and np.isfinite(m).all() for m in (dataset.mean, dataset.std))


def _write(raw: Raw, folder: Path) -> None:
    """Write into a folder beside, then rename it: a reader finds a whole cache or none. The caller holds the lock."""
    arrays = _arrays(raw)
    mean, std = moments(arrays["train_x"])
    meta = {
        "format": FORMAT,
        "classes": list(raw.classes),
        "mean": mean,
        "std": std,
        "arrays": _described(arrays),
    }
    fresh, damaged = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "damaged"))
    atomic.tidy(folder.parent, [folder.name])  # left by a process that was killed
    try:
        atomic.make_folder(fresh)
        for name, array in arrays.items():
            with atomic.writing(fresh / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
        atomic.write(fresh / "meta.json", json.dumps(meta).encode())
        if folder.exists():
            atomic.replace(folder, damaged)
        atomic.replace(fresh, folder)
    finally:
        atomic.tidy(folder.parent, [folder.name])


def _arrays(raw: Raw) -> dict[str, np.ndarray]:
    return {a: np.ascontiguousarray(getattr(raw, a)) for a in ARRAYS}


def _in_memory(raw: Raw, name: str) -> Dataset:
    """Return the data set as :func:`read` would, of the arrays themselves."""
    train_x, train_y, test_x, test_y = _arrays(raw).values()
    for array in (train_x, train_y, test_x, test_y):
        array.setflags(write=False)
    mean, std = map(tuple, moments(train_x))
    return Dataset(name, train_x, train_y, test_x, test_y, tuple(map(str, raw.classes)), mean, std)
