"""Data sets as a few arrays each: read once from the source, cached as ``.npy`` files, then memory-mapped.

Parallel runs share the cached pages, and a second start reads neither torchvision nor the source.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from clsim.data import cache, room
from clsim.data.cache import Dataset, Raw
from clsim.errors import DiskError, InputError, nearest
from clsim.records import atomic
from clsim.spec.sources import DATASETS, OWN_DATA, data_digest, is_known
from clsim.spec.tables import DataSpec


def data_root(flag: str | Path | None) -> Path:
    """Find the folder of the data sets: the flag, else ``$CLSIM_DATA``, else ``~/.cache/clsim``."""
    return Path(flag or os.environ.get("CLSIM_DATA") or "~/.cache/clsim").expanduser()


def load(spec: DataSpec, root: Path, *, progress: bool = True, download: bool = True) -> Dataset:
    """Load the data set that a spec names.

    Args:
        root: folder of the sources (in torchvision's layout) and of the cache.
        progress: show the progress of a download, on stderr.
        download: fetch a source that is absent; if false, an absent source is an error.

    Raises:
        InputError: if the data set is unknown, broken, or absent and not fetched; in one line that says what to do.
    """
    if not is_known(spec.dataset):
        raise InputError(f"data.dataset: unknown name {spec.dataset!r}; {nearest(spec.dataset, DATASETS)}")
    if spec.path and spec.dataset not in OWN_DATA:
        raise InputError(f"data.path: found {spec.path!r} with {spec.dataset}, allowed: no path with a named data set")
    if spec.dataset == "image-folder" and not spec.size:
        raise InputError("data.size: found 0 with image-folder, allowed: the side of the images in pixels, as in 32")
    _refuse_unfit(spec)
    dataset = _whole(spec, root, progress, download)
    if spec.features:
        from clsim.data import backbones  # with torch

        where, groups = "data.features", dataset.groups
        dataset = backbones.embedded(dataset, spec.features, spec.weights, root, where=where, download=download)
        dataset = replace(dataset, groups=groups)
    return _fewer(dataset, spec) if spec.per_class or spec.imbalance > 1 or spec.shares else dataset


def _whole(spec: DataSpec, root: Path, progress: bool, download: bool) -> Dataset:
    """Load a data set with all of its samples."""
    folder, name = root / "clsim-cache" / _cached_as(spec), spec.dataset.replace("/", "-")
    dataset = cache.read(folder, name)
    if dataset is None:
        with _root_stays(root, spec, download):
            dataset = cache.build(folder, name, lambda: _made(spec, root, progress, download))
    if spec.sequence:
        dataset = replace(
            dataset, groups=tuple(sum(c.startswith(f"{n} ") for c in dataset.classes) for n in spec.sequence)
        )
    return dataset


def _cached_as(spec: DataSpec) -> str:
    """Name the folder of a data set in the cache."""
    version = [data_digest(spec)[:16]] if spec.dataset in OWN_DATA else list(spec.sequence)
    size = [str(spec.size)] if spec.size else []
    parts = [spec.dataset, spec.config, *spec.splits, *spec.columns]
    if spec.dataset.startswith("hf:") or len(parts) > 2:  # names that are no names of folders, or are too long for one
        version += [hashlib.sha256(json.dumps([*parts, len(spec.splits)]).encode()).hexdigest()[:16]]
    return "-".join([spec.dataset.partition(":")[0], *version, *size])


@contextlib.contextmanager
def _root_stays(root: Path, spec: DataSpec, download: bool) -> Iterator[None]:
    """Let only a download make a folder of data sets that was named and is not there: it may be mistyped.

    Raises:
        InputError: if nothing is downloaded.
    """
    new = not root.exists()
    if new and root != data_root(None) and (not download or spec.dataset in ("digits", *OWN_DATA)):
        raise InputError(f"--data-root: no folder {str(root)!r}; allowed: a folder that is there")
    try:
        yield
    except InputError:
        if new and root.is_dir():
            _without_empty_folders(root)
        raise


def _without_empty_folders(root: Path) -> None:
    """Remove what a download that failed has made: locks and empty folders; files stay."""
    if not any(path.is_file() and path.suffix != ".lock" for path in root.rglob("*")):
        with contextlib.suppress(DiskError):
            atomic.remove_folder(root)


def _refuse_unfit(spec: DataSpec) -> None:
    if not spec.sequence:
        return
    allowed = [name for name in DATASETS if name not in (*OWN_DATA, "sequence")]
    for name in spec.sequence:
        if name not in allowed:
            raise InputError(f"data.sequence: found {name!r}; {nearest(name, allowed)}")
    if not spec.size:
        raise InputError("data.size: found 0 with sequence, allowed: the side that all images get in pixels, as in 32")


def _made(spec: DataSpec, root: Path, progress: bool, download: bool) -> Raw:
    from clsim.data import origins  # with Pillow and torchvision: only where there is no cache

    if spec.sequence:
        return _in_sequence(
            [load(DataSpec(name, size=spec.size), root, progress=progress, download=download) for name in spec.sequence]
        )
    raw = origins.read(spec, root, progress=progress, download=download)
    _refuse_broken(raw, spec)
    if spec.size and raw.train_x.ndim == 2:
        raise InputError(f"data.size: found {spec.size} with vectors, allowed: 0")
    if spec.size:
        images, channels = len(raw.train_x) + len(raw.test_x), raw.train_x.shape[1]
        room.refuse_beyond({"data.size": images * channels * spec.size**2})
    return origins.resized(raw, spec.size) if spec.size else raw


def _refuse_broken(raw: Raw, spec: DataSpec) -> None:
    where, labels = f"{spec.dataset} {spec.path}".strip(), len(raw.classes)
    for part, x, y in (("training", raw.train_x, raw.train_y), ("test", raw.test_x, raw.test_y)):
        if len(x) != len(y):
            raise InputError(f"{where}: {len(x)} samples and {len(y)} labels in the {part} part, allowed: one for each")
        if not len(x):
            raise InputError(f"{where}: the {part} part is empty, allowed: samples of two or more classes")
        if y.min() < 0 or y.max() >= labels:
            raise InputError(f"{where}: {part} labels from {y.min()} to {y.max()}, allowed: 0 to {labels - 1}")
    if labels < 2:
        raise InputError(f"{where}: found a single class {raw.classes[0]!r}, allowed: two or more")
    missing = np.setdiff1d(np.arange(labels), raw.train_y)
    if len(missing):
        name = raw.classes[missing[0]]
        raise InputError(f"{where}: no training sample of class {name!r}, allowed: some of each class")
    if raw.train_x.shape[1:] != raw.test_x.shape[1:]:
        found = f"{raw.train_x.shape[1:]} in training and {raw.test_x.shape[1:]} in test"
        raise InputError(f"{where}: samples of shape {found}, allowed: the same")


def _in_sequence(parts: Sequence[Dataset]) -> Raw:
    """Join data sets, each with classes of its own; grey images get three equal channels if others have colours."""
    channels = max(part.train_x.shape[1] for part in parts)
    first = np.cumsum([0, *(len(part.classes) for part in parts)])

    def joined(side: str) -> tuple[np.ndarray, np.ndarray]:
        x = np.empty(
            (sum(len(getattr(p, f"{side}_x")) for p in parts), channels, *parts[0].train_x.shape[2:]), np.uint8
        )
        filled = 0
        for part in parts:
            images = getattr(part, f"{side}_x")
            x[filled : filled + len(images)] = images  # a single channel is repeated
            filled += len(images)
        return x, np.concatenate([getattr(p, f"{side}_y") + f for p, f in zip(parts, first, strict=False)])

    names = tuple(f"{part.name} {c}" for part in parts for c in part.classes)
    return Raw(*joined("train"), *joined("test"), names)


def long_tail(counts: Sequence[int], imbalance: float) -> list[int]:
    """Count what a long tail leaves of each class: ⌊n·ρ^(−i/(C−1))⌋ of the n samples of class i, at least one.

    Args:
        counts: number of samples of each class before.
        imbalance: ρ, the ratio of the largest to the smallest class if all were of one size before.

    >>> long_tail([500] * 5, 100)
    [500, 158, 50, 15, 5]

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples (CVPR 2019), long-tailed CIFAR; as a
    stream, Liu et al., Long-Tailed Class Incremental Learning (ECCV 2022), ordered and shuffled.
    """
    last = max(len(counts) - 1, 1)
    # 500 · 100^(−1) is 5.000…1 or 4.999…: the nearest multiple of 1e-9 is meant
    kept = [math.floor(round(n * imbalance ** (-i / last), 9)) for i, n in enumerate(counts)]
    return [min(max(k, 1), n) for k, n in zip(kept, counts, strict=True)]


def thinned(y: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Choose which samples are kept where each class keeps a share, bool (n,); of no class less than one.

    The random numbers are those of Python's generator with the seed 4666, one for each sample in order, as in the
    public code of DeepAL+: ``shares`` of 0.1, 0.2 … 1 keep its imbalanced CIFAR-10, image for image.

    Args:
        y: labels, int64 (n,).
        shares: the share of each class that is kept.

    Source: Zhan et al., A Comparative Survey of Deep Active Learning (2022).
    """
    rng = random.Random(4666)
    kept = np.asarray([rng.random() for _ in range(len(y))]) < np.asarray(shares)[y]
    classes, first = np.unique(y, return_index=True)
    kept[first[~np.isin(classes, y[kept])]] = True
    return kept


def _fewer(dataset: Dataset, spec: DataSpec) -> Dataset:
    """Keep the first training samples of each class: at most ``per_class``, and of these a long tail, or a share."""
    if spec.shares and len(spec.shares) != len(dataset.classes):
        found = f"{len(spec.shares)} numbers with {dataset.name}, which has {len(dataset.classes)} classes"
        raise InputError(f"data.shares: found {found}, allowed: one number a class")
    counts = np.bincount(dataset.train_y, minlength=len(dataset.classes)).tolist()
    counts = long_tail([min(n, spec.per_class or n) for n in counts], spec.imbalance)
    rows = np.sort(np.concatenate([np.flatnonzero(dataset.train_y == c)[:n] for c, n in enumerate(counts)]))
    if spec.shares:
        rows = rows[thinned(dataset.train_y[rows], spec.shares)]
    x, y = dataset.train_x[rows], dataset.train_y[rows]
    for array in (x, y):
        array.setflags(write=False)
    return replace(dataset, train_x=x, train_y=y)


def with_classes(dataset: Dataset, wanted: Sequence[str]) -> Dataset:
    """Keep some classes of a data set, numbered from 0 in the order named; mean and deviation stay those of the whole.

    Args:
        wanted: two or more names of classes, or their numbers.

    Raises:
        InputError: for a class that is unknown or named twice, and for fewer than two classes.
    """
    labels: list[int] = []
    for name in map(str.strip, wanted):
        if name in dataset.classes:
            labels.append(dataset.classes.index(name))
        elif name.isdecimal() and int(name) < len(dataset.classes):
            labels.append(int(name))
        else:
            raise InputError(f"classes: found {name!r}; {nearest(name, dataset.classes)}")
    twice = next((c for c in labels if labels.count(c) > 1), None)
    if twice is not None:
        raise InputError(f"classes: found {dataset.classes[twice]!r} twice, allowed: each class once")
    if len(labels) < 2:
        raise InputError(f"classes: found {len(labels)}, allowed: two or more")
    number = np.full(len(dataset.classes), -1)
    number[labels] = np.arange(len(labels))
    arrays = []
    for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)):
        rows = np.flatnonzero(number[y] >= 0)
        arrays += [x[rows], number[y[rows]]]
    for array in arrays:
        array.setflags(write=False)
    train_x, train_y, test_x, test_y = arrays
    names = tuple(dataset.classes[c] for c in labels)
    return replace(dataset, train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y, classes=names, groups=())
