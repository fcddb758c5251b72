"""Every data set is a few arrays: read once from its source, cached as ``.npy`` files, memory-mapped from then on.

Parallel runs share the cached pages, and a second start reads neither torchvision nor the source.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clsim.errors import InputError, nearest
from clsim.specs import DataSpec

FORMAT = 1
ARRAYS = ("train_x", "train_y", "test_x", "test_y")


@dataclass(frozen=True)
class Dataset:
    """Training and test part of a data set. The arrays are read-only.

    Attributes:
        train_x: uint8 (n, c, h, w), or float32 (n, d) for vectors.
        train_y: int64 (n,), 0 … classes − 1.
        test_x, test_y: likewise.
        classes: names; the position is the label.
        mean, std: per channel of images scaled to [0, 1], or per dimension of vectors; of the training part.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Raw:
    """What a source delivers: the arrays of :class:`Dataset`, nothing computed yet."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]


DATASETS: dict[str, tuple[str, str]] = {
    "digits": ("8 × 8 grey digits, 10 classes, bundled with scikit-learn", "Alpaydin & Kaynak, UCI (1998)"),
    "mnist": ("28 × 28 grey digits, 10 classes", "LeCun et al. (1998)"),
    "fashion-mnist": ("28 × 28 grey clothes, 10 classes", "Xiao, Rasul & Vollgraf (2017)"),
    "kmnist": ("28 × 28 grey Japanese characters, 10 classes", "Clanuwat et al. (2018)"),
    "cifar10": ("32 × 32 colour photographs, 10 classes", "Krizhevsky (2009)"),
    "cifar100": ("32 × 32 colour photographs, 100 classes", "Krizhevsky (2009)"),
    "svhn": ("32 × 32 colour house numbers, 10 classes", "Netzer et al. (2011)"),
    "tiny-imagenet": ("64 × 64 colour photographs, 200 classes", "Le & Yang (2015)"),
    "image-folder": ("your folder of class folders: set data.path and data.size", ""),
    "npz": ("your arrays x_train, y_train, x_test, y_test: uint8 images or float vectors; set data.path", ""),
}
"""Name → a line, and where it comes from."""


def data_root(flag: str | Path | None) -> Path:
    """Where data sets are: the flag, else ``$CLSIM_DATA``, else ``~/.cache/clsim``."""
    return Path(flag or os.environ.get("CLSIM_DATA") or "~/.cache/clsim").expanduser()


def load(spec: DataSpec, root: Path, *, progress: bool = True) -> Dataset:
    """The data set that a spec names.

    Args:
        root: of the sources (in torchvision's layout) and of the cache.
        progress: show the progress of a download.

    Raises:
        InputError: if it is unknown, not here and not to be had, or broken; in one line that says what to do.
    """
    if spec.dataset not in DATASETS:
        raise InputError(f"data.dataset: unknown name {spec.dataset!r}; {nearest(spec.dataset, DATASETS)}")
    own = spec.dataset in ("image-folder", "npz")
    if own != bool(spec.path):
        allowed = "the path of your data" if own else "no path with a named data set"
        raise InputError(f"data.path: found {spec.path!r} with {spec.dataset}, allowed: {allowed}")
    key = "-".join([spec.dataset, *([digest(spec)] if own else []), *([str(spec.size)] if spec.size else [])])
    folder = root / "clsim-cache" / key
    dataset = _cached(folder, spec.dataset)
    if dataset is None:
        from clsim.data import sources

        raw = sources.read(spec, root, progress)
        _refuse_broken(raw, spec)
        if spec.size and raw.train_x.ndim == 4:
            raw = sources.resized(raw, spec.size)
        _write(raw, folder)
        dataset = _cached(folder, spec.dataset)
    if dataset is None:
        raise InputError(
            f"{folder}: the cache that was just written cannot be read; allowed: a folder that keeps files"
        )
    return _first_of_each_class(dataset, spec.per_class) if spec.per_class else dataset


def digest(spec: DataSpec) -> str:
    """Of the user's own data, for the fingerprint of a run; empty for a named data set.

    The content of an ``npz``; names, sizes and times of the files of an ``image-folder``.
    """
    if spec.dataset not in ("image-folder", "npz"):
        return ""
    path, sha = Path(spec.path).expanduser(), hashlib.sha256()
    if spec.dataset == "npz":
        if not path.is_file():
            raise InputError(
                f"data.path: no file {str(path)!r}; allowed: an .npz with x_train, y_train, x_test, y_test"
            )
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                sha.update(block)
    else:
        if not path.is_dir():
            raise InputError(f"data.path: no folder {str(path)!r}; allowed: a folder of class folders")
        for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
            stat = file_path.stat()
            sha.update(f"{file_path.relative_to(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return sha.hexdigest()[:16]


def _cached(folder: Path, name: str) -> Dataset | None:
    """The cached data set, memory-mapped; None if there is none, or it is damaged: then it is made again."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        arrays = {a: np.load(folder / f"{a}.npy", mmap_mode="r", allow_pickle=False) for a in ARRAYS}
        described = {a: [str(array.dtype), list(array.shape)] for a, array in arrays.items()}
        if meta["format"] != FORMAT or meta["arrays"] != described:
            return None
        mean, std = (tuple(float(v) for v in meta[key]) for key in ("mean", "std"))
        return Dataset(name, **arrays, classes=tuple(map(str, meta["classes"])), mean=mean, std=std)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _write(raw: Raw, folder: Path) -> None:
    """Into a folder of its own, then renamed: whoever comes second finds a whole cache or writes the same."""
    arrays = {a: np.ascontiguousarray(getattr(raw, a)) for a in ARRAYS}
    mean, std = moments(arrays["train_x"])
    meta = {
        "format": FORMAT,
        "classes": list(raw.classes),
        "mean": mean,
        "std": std,
        "arrays": {a: [str(array.dtype), list(array.shape)] for a, array in arrays.items()},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        if _cached(folder, "") is None:  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
    except OSError:
        if _cached(folder, "") is None:
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def moments(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of images scaled to [0, 1], or per dimension of vectors."""
    if x.ndim == 2:
        return x.mean(0, dtype=np.float64).tolist(), x.std(0, dtype=np.float64).tolist()
    levels = np.arange(256) / 255
    counts = np.stack([np.bincount(x[:, c].ravel(), minlength=256) for c in range(x.shape[1])])
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ levels
    variance = share @ levels**2 - mean**2
    return mean.tolist(), np.sqrt(np.maximum(variance, 0)).tolist()


def _refuse_broken(raw: Raw, spec: DataSpec) -> None:
    where = f"{spec.dataset} {spec.path}".strip()
    for part in ("train", "test"):
        x, y = getattr(raw, f"{part}_x"), getattr(raw, f"{part}_y")
        if len(x) != len(y):
            raise InputError(f"{where}: {len(x)} samples and {len(y)} labels in the {part} part, allowed: as many")
        if not len(x):
            raise InputError(f"{where}: the {part} part is empty")
    missing = sorted(set(range(len(raw.classes))) - set(np.unique(raw.train_y).tolist()))
    if missing or len(raw.classes) < 2:
        found = f"no training sample of class {raw.classes[missing[0]]!r}" if missing else "a single class"
        raise InputError(f"{where}: found {found}, allowed: two or more classes, each with training samples")
    if raw.train_x.shape[1:] != raw.test_x.shape[1:]:
        raise InputError(f"{where}: shapes {raw.train_x.shape[1:]} and {raw.test_x.shape[1:]}, allowed: the same")


def _first_of_each_class(dataset: Dataset, count: int) -> Dataset:
    rows = np.sort(np.concatenate([np.flatnonzero(dataset.train_y == c)[:count] for c in range(len(dataset.classes))]))
    return replace(dataset, train_x=dataset.train_x[rows], train_y=dataset.train_y[rows])


def every_fifth(y: np.ndarray) -> np.ndarray:
    """A test part for data that has none: every fifth sample of each class. bool (n,)."""
    chosen = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        chosen[np.flatnonzero(y == label)[4::5]] = True
    return chosen


def split(x: np.ndarray, y: np.ndarray, classes: Sequence[str]) -> Raw:
    """Divide data that has no test part of its own."""
    test = every_fifth(y)
    return Raw(x[~test], y[~test], x[test], y[test], tuple(classes))
