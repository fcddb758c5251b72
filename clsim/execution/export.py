"""Export picks, condensed sets and memories as data sets of the Hugging Face library: ``clsim.export(...)``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsim.data import arrays, datasets, exported
from clsim.data.exported import Samples
from clsim.errors import InputError
from clsim.execution.condensed import Condensed
from clsim.execution.select import Picks
from clsim.records.store import RunFolder, RunRecord
from clsim.spec.reader import arguments
from clsim.spec.tables import DataSpec

HELD = {"x": None, **dict.fromkeys(("y", "index", "task"), torch.int64)}
HELD |= dict.fromkeys(("weight", "score", "mass", "soft"), torch.float32)
"""Columns of a memory that are exported, and their types; see :class:`clsim.pool.exemplars.Exemplars`."""

LARGEST = 2**30
"""Bytes, at most, of a file of picks."""


def export(
    what: str | Path | Picks | Condensed | RunRecord,
    out: str | Path,
    *,
    dataset: str = "",
    path: str | Path = "",
    size: int | None = None,
    features: Any = None,
    data_root: str | Path | None = None,
    force: bool = False,
) -> dict[str, int]:
    """Write picks, a condensed set or a run's memory as a folder that ``datasets.load_from_disk`` reads.

    The columns are ``image`` or ``vector``, ``label`` where labels are known, and what else is known of a sample:
    ``index``, its row in the training part of its data set (a number below 0 for a sample that was made), and
    ``weight``, ``task`` and the like.

    Args:
        what: picks of :func:`clsim.select`, a condensed set of :func:`clsim.condense`, the record of a run; or a file
            of picks (``.csv``), of a condensed set (``.npz``), or the folder of a run.
        out: the folder to write, which is not there yet.
        dataset, path, size: the data set that a file of picks was chosen from, as :func:`clsim.select` took it.
        features: the features that a file of picks was chosen from, in place of a data set.
        data_root: folder of the data sets; None: ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        force: whether a data set in ``out`` is replaced.

    Returns:
        The number of samples of each split.

    Raises:
        InputError: if something else was given, or ``out`` is there.
    """
    asked = {"dataset": bool(dataset), "path": bool(str(path)), "size": size, "features": features is not None}
    a_file_of_picks = isinstance(what, (str, Path)) and str(what).endswith(".csv")
    for name, given in asked.items():
        if given and not a_file_of_picks:
            raise InputError(f"{name}: found with {what}, which holds its samples; allowed: with a .csv file of picks")
    root = datasets.data_root(data_root)
    if isinstance(what, Picks):
        splits = {"train": _of_picks(what)}
    elif isinstance(what, Condensed):
        splits = exported.of_npz(io.BytesIO(what.content()), "the condensed set")
    elif isinstance(what, RunRecord) or not str(what).endswith((".csv", ".npz")):
        folder = what.folder if isinstance(what, RunRecord) else Path(what)
        if folder is None:
            raise InputError("export: this run was not stored; allowed: a run with a runs folder")
        splits = {"train": memory(folder, root)}
    elif str(what).endswith(".npz"):
        splits = exported.of_npz(Path(what).expanduser(), str(what))
    else:
        if bool(dataset) == (features is not None):
            raise InputError(f"{what}: found {'both' if dataset else 'neither'} a data set and features, allowed: one")
        spec = DataSpec.of(dataset, str(path), size) if dataset else None
        splits = {"train": picked(Path(what).expanduser(), spec, features, root)}
    exported.write(splits, Path(out).expanduser(), force)
    return {name: len(samples) for name, samples in splits.items()}


def _of_picks(picks: Picks) -> Samples:
    data = picks.pool.data[torch.from_numpy(picks.places).to(picks.pool.data.device)]
    notes = {"index": picks.index} | ({} if picks.weight is None else {"weight": picks.weight})
    return Samples(data.x.cpu().numpy(), data.y.cpu().numpy() if picks.classes else None, picks.classes, notes)


def picked(file: Path, spec: DataSpec | None, features: Any, root: Path) -> Samples:
    """Take the samples of a file of picks out of what they were chosen from.

    Args:
        file: as ``clsim select`` writes it: a CSV with the column ``index``, and maybe ``weight``.
        spec: the data set; None: they were chosen from ``features``.
        features: the features, as :func:`clsim.select` takes them.
        root: folder of the data sets.

    Raises:
        InputError: if the file holds anything else, or names rows that are not there.
    """
    index, weight = _read(file)
    if spec is None:
        x, y, classes = arrays.features(features), None, tuple[str, ...]()
    else:
        data = datasets.load(spec, root, progress=False)
        x, y, classes = data.train_x, data.train_y, data.classes
    if index.max() >= len(x):
        raise InputError(f"{file}: found the row {index.max()}, allowed: 0 to {len(x) - 1}, as its data set has them")
    notes = {"index": index} | ({} if weight is None else {"weight": weight})
    return Samples(np.asarray(x[index]), None if y is None else y[index], classes, notes)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            raise ValueError("no such file" if not file.exists() else "no file, or a very large one")
        with open(file, newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines, strict=True))
        if not rows:
            raise ValueError("no rows")
        index = np.array([_whole(row["index"]) for row in rows], dtype=np.int64)
        if len(np.unique(index)) < len(index):
            raise ValueError("a row twice")
        weight = None
        if "weight" in rows[0]:
            weight = np.array([float(row["weight"]) for row in rows])
            if not (np.abs(weight) <= np.finfo(np.float32).max).all():
                raise ValueError("a weight that is no finite float32 number")
            weight = weight.astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, csv.Error) as error:
        reason = "no column 'index'" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
        allowed = "a CSV file of clsim select, with the column index"
        raise InputError(f"{file}: cannot be read as picks ({reason}), allowed: {allowed}") from None
    return index, weight


def _whole(text: str | None) -> int:
    """Read the number of a row; what else Python takes for a number, as 1_0, is a slip of the pen."""
    if text is None or not (text.isascii() and text.isdecimal()):
        raise ValueError(f"found the row {text!r:.40}")
    return int(text)


def memory(folder: Path, root: Path) -> Samples:
    """Read the memory of a run, as far as the run is, from its checkpoint.

    Args:
        folder: folder of the run.
        root: folder of the data sets, from which the names of classes come where the data set is at hand.

    Raises:
        InputError: if there is no run, it keeps no memory, or its files are damaged.
    """
    run = RunFolder(folder)
    record = run.record() if folder.is_dir() else None
    if record is None:
        raise InputError(f"{folder}: holds no record of a run, allowed: the folder of a run, a .csv or an .npz file")
    state = run.checkpoint()
    held = state.get("memory") if state else None
    columns = held.get("columns", held) if isinstance(held, dict) else {}
    if not columns:
        raise InputError(f"{folder}: this run keeps no memory, allowed: a run with one, as of strategy 'er'")
    found = (
        {} if not isinstance(columns, dict) else {name: columns[name] for name in HELD if columns.get(name) is not None}
    )
    if not _is_memory(found):
        raise InputError(f"{folder}: its memory holds anything but samples and labels; run it again with --fresh")
    notes = {name: tensor.numpy() for name, tensor in found.items()}
    x, y = notes.pop("x"), notes.pop("y")
    wide = max((label for labels in record.data["classes"] for label in labels), default=-1) + 1
    names = _class_names(record.data["spec"], root)
    names = names if len(names) == wide else tuple(map(str, range(wide)))
    if len(y) and not -1 <= y.min() <= y.max() < wide:
        raise InputError(f"{folder}: its memory holds labels from {y.min()} to {y.max()}, allowed: 0 to {wide - 1}")
    return Samples(x, y, names, notes)


def _is_memory(found: Mapping[str, Any]) -> bool:
    """Tell whether columns are those of a memory, each with its type, its dimensions and a row for each sample."""
    if not {"x", "y"} <= found.keys() or not all(isinstance(column, torch.Tensor) for column in found.values()):
        return False
    x = found["x"]
    pictures = x.dtype == torch.uint8 and x.ndim == 4 and x.shape[1] in (1, 3) and 0 not in x.shape[2:]
    vectors = x.dtype == torch.float32 and x.ndim == 2 and x.shape[1] > 0
    of_each = (
        column.dtype == HELD[name] and column.ndim == (2 if name == "soft" else 1) and len(column) == len(x)
        for name, column in found.items()
        if name != "x"
    )
    return (pictures or vectors) and all(of_each)


def _class_names(spec: Mapping[str, Any], root: Path) -> tuple[str, ...]:
    """Name the labels of a stream where they are those of a data set that is at hand; else none."""
    if spec["stream"]["setting"] == "domain":  # labels are counted from zero in each experience
        return ()
    try:
        data = DataSpec(**arguments(DataSpec, spec["data"], "record", "data"))
        return datasets.load(data, root, progress=False, download=False).classes
    except InputError:
        return ()
