"""Which samples of a data set belong to which experience, where its classes are divided.

Avalanche divides them. What it found is kept as plain indices beside the cached data: Avalanche takes seconds to
import, and reads the labels one by one.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsim.compat import import_torchvision
from clsim.data.cache import Dataset
from clsim.errors import DiskError
from clsim.records import atomic, regular

FORMAT = 1


@dataclass(frozen=True)
class Division:
    """The division of a data set's classes, and so of its samples, into experiences.

    Attributes:
        homes: the experience of each class, int64 (classes,).
        train: rows of the training part, int64 (n,): those of the first experience, then those of the second, and so
            on, in Avalanche's order.
        test: the same for the test part.
    """

    homes: np.ndarray
    train: np.ndarray
    test: np.ndarray

    @property
    def classes(self) -> list[tuple[int, ...]]:
        """The classes of each experience."""
        return [tuple(np.flatnonzero(self.homes == i).tolist()) for i in range(int(self.homes.max()) + 1)]

    def parted(self, rows: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        """Part the rows of one part of the data set by experience.

        Args:
            rows: :attr:`train` or :attr:`test`.
            y: the labels of that part of the data set.
        """
        counts = np.bincount(self.homes[y], minlength=int(self.homes.max()) + 1)
        return np.split(rows, np.cumsum(counts)[:-1])


def divide(
    dataset: Dataset, order: Sequence[int], experiences: int, sizes: Mapping[int, int], folder: Path | None
) -> Division:
    """Divide a data set as Avalanche does, or read how it was divided before.

    A division that was made by another version of Avalanche, of other labels or with other arguments, and one whose
    file is damaged, is made anew. Where the disk refuses it, a warning says so, and the division is not kept.

    Args:
        dataset: the data set; each of its classes has a training and a test sample.
        order: its classes, in the order in which they are dealt out.
        experiences: number of experiences.
        sizes: number of classes of single experiences; the other experiences share the other classes evenly.
        folder: folder of the divisions; None: nothing is read or kept.
    """
    if folder is None:
        return _avalanches(dataset, order, experiences, sizes)
    asked = {"order": list(order), "experiences": experiences, "sizes": sorted(map(list, sizes.items()))}
    labels = [_digest(y) for y in (dataset.train_y, dataset.test_y)]
    name = hashlib.sha256(json.dumps([labels, asked]).encode()).hexdigest()[:16]
    path = folder / f"{dataset.name}-{name}.npz"
    about = {"format": FORMAT, "avalanche": version("avalanche-lib"), "labels": labels, **asked}
    division = read(path, dataset, about)
    if division is None:
        division = _avalanches(dataset, order, experiences, sizes)
        try:
            atomic.make_folder(folder)
            atomic.write(path, _packed(division, about))
        except DiskError as error:
            atomic.warn_unkept(path, error, "each run divides the data set anew until it can be")
    return division


def read(path: Path, dataset: Dataset, about: Mapping[str, Any]) -> Division | None:
    """Read a division that was kept; None if it is absent, damaged, or not the one asked for.

    Args:
        path: the file.
        dataset: the data set that is divided.
        about: all that decides the division, as the file has to repeat it.
    """
    try:
        regular.check(path)
        with np.load(path, allow_pickle=False) as arrays:
            division = Division(arrays["homes"], arrays["train"], arrays["test"])
            said = json.loads(arrays["about"].tobytes())
    except Exception:  # zip, zlib, header, pickle, JSON, memory: a broken file fails in many ways
        return None
    asked = {**about, "digest": _digest(*_arrays(division))}
    return division if said == asked and _sound(division, dataset, about["order"], about["experiences"]) else None


def _sound(division: Division, dataset: Dataset, order: Sequence[int], experiences: int) -> bool:
    """Whether classes are dealt out in their order, and each sample is in one experience, that of its class."""
    homes, sizes = division.homes, (len(dataset.classes), len(dataset.train_y), len(dataset.test_y))
    for array, size in zip(_arrays(division), sizes, strict=True):
        if array.dtype != np.int64 or array.shape != (size,) or array.min() < 0 or array.max() >= size:
            return False
    counts = np.bincount(homes)
    if len(counts) != experiences or counts.min() == 0 or (np.diff(homes[list(order)]) < 0).any():
        return False
    sides = ((division.train, dataset.train_y), (division.test, dataset.test_y))
    return all(
        np.bincount(rows, minlength=len(y)).max() == 1 and (np.diff(homes[y[rows]]) >= 0).all() for rows, y in sides
    )


def _avalanches(dataset: Dataset, order: Sequence[int], experiences: int, sizes: Mapping[int, int]) -> Division:
    import_torchvision()
    from avalanche.benchmarks import nc_benchmark

    benchmark = nc_benchmark(
        _Labels(dataset.train_y),
        _Labels(dataset.test_y),
        n_experiences=experiences,
        task_labels=False,  # the same division with them
        shuffle=False,
        fixed_class_order=list(order),
        per_exp_classes=dict(sizes) or None,
    )
    homes = np.empty(len(order), dtype=np.int64)
    for i, classes in enumerate(benchmark.original_classes_in_exp):
        homes[list(classes)] = i
    assigned = (benchmark.train_exps_patterns_assignment, benchmark.test_exps_patterns_assignment)
    train, test = (np.concatenate([np.asarray(rows, dtype=np.int64) for rows in side]) for side in assigned)
    return Division(homes, train, test)


def _packed(division: Division, about: Mapping[str, Any]) -> bytes:
    words = json.dumps({**about, "digest": _digest(*_arrays(division))}).encode()
    said, file = np.frombuffer(words, dtype=np.uint8), io.BytesIO()
    np.savez_compressed(file, about=said, homes=division.homes, train=division.train, test=division.test)
    return file.getvalue()


def _arrays(division: Division) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return division.homes, division.train, division.test


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _Labels(torch.utils.data.Dataset):
    """The labels of a data set, all that Avalanche needs to divide it."""

    def __init__(self, y: np.ndarray) -> None:
        self.targets = y.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[int, int]:
        return row, self.targets[row]
