"""Data sets of the Hugging Face library ``datasets``: in its own local format, or of its hub.

What is read may be hostile. No loading script is run (the library has none since version 4), no pickle is read, no link
is followed, and a picture is opened only where its bytes are in the data set, or in a file that was downloaded with it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from clsim.data import decoding, npz, room
from clsim.errors import InputError, first_line, nearest
from clsim.spec.hub import HUB
from clsim.spec.tables import DataSpec

FOLDER = "huggingface"
"""Folder of what is downloaded from the hub, in the folder of the data sets."""

LARGEST_STATE = 2**24
"""Bytes, at most, of a file that says which other files a data set has."""

BATCH = 256
"""Rows that are read at a time."""

TURNED = (5, 6, 7, 8)
"""Orientations of EXIF that exchange height and width."""

Part = tuple[np.ndarray, np.ndarray]
"""Samples and labels: uint8 (n, c, h, w) or float32 (n, d), and int64 (n,)."""


def library() -> Any:
    """Import the library.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        allowed = "allowed: after pip install 'clsim[hf]'"
        raise InputError(f"hf: Hugging Face's datasets cannot be imported ({first_line(error)}); {allowed}") from None
    return datasets


def saved(folder: Path) -> dict[str, Any]:
    """Open a folder as the library's ``save_to_disk`` writes it: name of each split → its data set.

    A folder without splits is one that is called ``train``.

    Raises:
        InputError: if the folder is anything else, or leads out of itself.
    """
    hf, where = library(), f"hf:{folder}"
    _refuse_strange(folder, where)
    try:
        found = hf.load_from_disk(str(folder.absolute()))
        splits = dict(found) if isinstance(found, hf.DatasetDict) else {"train": found}
        for split in splits.values():
            split.data.validate(full=True)
    except Exception as error:  # a broken folder fails in many ways
        raise InputError(
            f"{where}: cannot be read ({first_line(error)}); allowed: a folder as save_to_disk of datasets writes it"
        ) from None
    return splits


def _refuse_strange(folder: Path, where: str) -> None:
    """Refuse links, pipes, and files that name others outside of the folder."""
    if not folder.is_dir():
        raise InputError(f"{where}: is no folder, allowed: a folder as save_to_disk of datasets writes it")
    if "::" in str(folder):  # which the library takes for a chain of file systems
        raise InputError(f"{where}: found '::' in the path, allowed: a path without it")
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = os.lstat(Path(place, name)).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise InputError(f"{where}: {name!r} is a link, a pipe or a device, allowed: folders and files")
    named = _named(folder / "dataset_dict.json", where, lambda held: held["splits"])
    if named is None and not (folder / "state.json").is_file():
        raise InputError(
            f"{where}: holds neither dataset_dict.json nor state.json, allowed: a folder as save_to_disk of datasets "
            "writes it; pictures in a folder for each class are data.dataset = 'image-folder'"
        )
    for part in [folder] if named is None else [folder / name for name in named]:
        for key in ("_data_files", "_indices_data_files"):
            _named(part / "state.json", where, lambda held, key=key: [f["filename"] for f in held.get(key) or []])


def _named(file: Path, where: str, names: Any) -> list[str] | None:
    """Read the names of a folder's files or folders from a JSON file; None if there is no such file.

    Raises:
        InputError: if they cannot be read, or one of them is no mere name.
    """
    if not file.is_file():
        return None
    try:
        if file.stat().st_size > LARGEST_STATE:
            raise ValueError(f"more than {LARGEST_STATE >> 20} MiB")
        found = names(json.loads(file.read_text(encoding="utf-8")))
        for name in found:
            if not isinstance(name, str) or name in ("", ".", "..") or any(c in name for c in "/\\\0"):
                raise ValueError(f"it names {str(name)!r:.80}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        allowed = "names of files and folders in it"
        raise InputError(f"{where}: {file.name} cannot be read ({first_line(error)}), allowed: {allowed}") from None
    return list(found)


def fetched(spec: DataSpec, root: Path, download: bool) -> dict[str, Any]:
    """Open a data set of the hub, which is downloaded first: name of each split → its data set.

    Args:
        spec: names it.
        root: folder of the data sets.
        download: whether the network may be used; if not, that is an error.

    Raises:
        InputError: if its name could also be that of a folder, or of a builder of the library.
        Exception: of many kinds, where the hub or the network refuses.
    """
    hf, named = library(), HUB.fullmatch(spec.dataset)
    name, revision = (named["name"], named["revision"]) if named else (spec.dataset, None)
    if Path(name).exists():  # the library would read that, with a builder that it guesses
        raise InputError(f"{spec.dataset}: {name!r} is here, too; allowed: hf:./{name}, or another working directory")
    if not download:
        raise FileNotFoundError
    from huggingface_hub import HfApi

    about = HfApi().dataset_info(name, revision=revision)
    if "/" not in about.id:  # else the library's own builders (csv, pandas) would read the working directory
        raise InputError(f"{spec.dataset}: found a data set without an owner, allowed: hf:OWNER/NAME")
    found = hf.load_dataset(about.id, spec.config or None, revision=about.sha, cache_dir=str(root / FOLDER))
    return dict(found)


def parts(
    splits: Mapping[str, Any], spec: DataSpec, where: str, downloads: Path | None
) -> tuple[list[Part], tuple[str, ...]]:
    """Read samples and labels of the training and the test part; of the only part, where there is one split.

    Args:
        splits: name → data set of the library.
        spec: says which splits and columns, and the size of pictures; 0: they have one size.
        where: name of the data set, for messages.
        downloads: the folder in which pictures may be files of their own; None: nowhere.

    Returns:
        The parts, with labels 0 … classes − 1, and the names of the classes.

    Raises:
        InputError: if there are no such splits or columns, or they hold anything else.
    """
    names = _chosen(spec.splits, splits, where)
    of_each = [_columns(spec.columns, splits[name].features, f"{where}, split {name!r}") for name in names]
    x, y = of_each[0]
    if any(one != (x, y) for one in of_each):
        found = f"found columns {list(of_each[0])} in {names[0]!r} and {list(of_each[1])} in {names[1]!r}"
        raise InputError(f"{where}: {found}, allowed: the same in both, named by data.columns")
    found_y, classes = _labels([splits[name] for name in names], y, f"{where}, column {y!r}")
    spots = [f"{where}, split {name!r}, column {x!r}" for name in names]
    if isinstance(splits[names[0]].features[x], library().Image):
        found_x = _pictures([splits[name] for name in names], x, spots, spec.size, downloads)
    else:
        found_x = [_vectors(splits[name], x, spot) for name, spot in zip(names, spots, strict=True)]
    return list(zip(found_x, found_y, strict=True)), classes


def _chosen(wanted: Sequence[str], splits: Mapping[str, Any], where: str) -> list[str]:
    """Name the splits to read: the training part, and the test part if there is one."""
    if wanted:
        for name in wanted:
            if name not in splits:
                raise InputError(f"data.splits: found {name!r} with {where}; {nearest(name, splits)}")
        return list(wanted)
    if len(splits) == 1:
        return list(splits)
    tests = [name for name in ("test", "validation", "valid", "val", "dev") if name in splits]
    if "train" not in splits or not tests:
        raise InputError(f"{where}: found the splits {', '.join(splits)}, allowed: two of them, named by data.splits")
    return ["train", tests[0]]


def _columns(wanted: Sequence[str], features: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Name the column of the samples and that of the labels."""
    hf = library()
    if wanted:
        for name in wanted:
            if name not in features:
                raise InputError(f"data.columns: found {name!r} with {where}; {nearest(name, features)}")
        return wanted[0], wanted[1]
    pictures = [name for name, kind in features.items() if isinstance(kind, hf.Image)]
    samples = pictures or [name for name, kind in features.items() if _is_vector(kind)]
    labels = [name for name, kind in features.items() if isinstance(kind, hf.ClassLabel)]
    labels = labels or [name for name in ("label", "labels") if name in features]
    for what, found, allowed in (
        ("pictures (Image) or vectors (lists of floats)", samples, "the first"),
        ("labels (ClassLabel)", labels, "the second"),
    ):
        if len(found) != 1:
            several = f"{len(found)} columns" if found else "no column"
            listed = ", ".join(found or features) or "none"
            raise InputError(f"{where}: {several} of {what} ({listed}), allowed: one, {allowed} name of data.columns")
    return samples[0], labels[0]


def _is_vector(kind: Any) -> bool:
    """Whether a type is that of lists of floats."""
    hf = library()
    inner = kind.feature if isinstance(kind, (hf.Sequence, hf.LargeList)) else None
    return isinstance(inner, hf.Value) and inner.dtype.startswith("float")


def _labels(parts: Sequence[Any], column: str, where: str) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Read labels, int64 (n,) for each part, and the names of the classes.

    Whole numbers and texts that are no ClassLabel are classes in their order.
    """
    hf, kinds = library(), [part.features[column] for part in parts]
    if isinstance(kinds[0], hf.ClassLabel):
        if any(not isinstance(kind, hf.ClassLabel) or kind.names != kinds[0].names for kind in kinds):
            raise InputError(f"{where}: found other classes in the second split, allowed: the same in both")
        rows = [_values(part, column) for part in parts]
        if any(value is None or value < 0 for values in rows for value in values):
            raise InputError(f"{where}: found samples without a label, allowed: a label for each; see data.splits")
        return [np.asarray(values, dtype=np.int64) for values in rows], tuple(kinds[0].names)
    rows = [_values(part, column) for part in parts]
    if not all(type(value) in (int, str) for values in rows for value in values):
        raise InputError(f"{where}: has type {kinds[0]}, allowed: ClassLabel, or whole numbers or texts in each row")
    names = sorted({value for values in rows for value in values}, key=lambda v: (isinstance(v, str), v))
    number = {name: i for i, name in enumerate(names)}
    return [np.asarray([number[v] for v in values], dtype=np.int64) for values in rows], tuple(map(str, names))


def _values(part: Any, column: str) -> list[Any]:
    return [value for rows in _batches(part, column) for value in rows]


def _batches(part: Any, column: str) -> Iterator[list[Any]]:
    """Yield the values of a column as Python has them, some rows at a time; nothing is decoded."""
    plain = part.with_format(None).select_columns([column])
    for start in range(0, len(plain), BATCH):
        yield plain[start : start + BATCH][column]


def _vectors(part: Any, column: str, where: str) -> np.ndarray:
    if not _is_vector(part.features[column]):
        found = part.features[column]
        raise InputError(f"{where}: has type {found}, allowed: Image, or lists of floats of one length")
    out: np.ndarray | None = None
    done = 0
    for rows in _batches(part, column):
        try:
            block = np.asarray(rows, dtype=np.float32)
            if out is None:
                room.refuse_beyond({where: 4 * len(part) * block.shape[1]})
                out = np.empty((len(part), block.shape[1]), dtype=np.float32)
            out[done : done + len(block)] = block
        except (ValueError, TypeError, IndexError):
            raise InputError(
                f"{where}: found rows of unequal length or none, allowed: as many numbers in each"
            ) from None
        done += len(block)
    return npz.samples(np.empty((0, 1), np.float32) if out is None else out, where, "the column")


def _pictures(
    parts: Sequence[Any], column: str, spots: Sequence[str], size: int, downloads: Path | None
) -> list[np.ndarray]:
    """Decode pictures: uint8 (n, c, h, w) for each part, with one channel if all of them are grey, else three.

    Those of one size keep it unless ``size`` says another one.
    """
    stored = [part.cast_column(column, library().Image(decode=False)) for part in parts]
    grey, shape = True, (size, size) if size else None
    for part, spot in zip(stored, spots, strict=True):
        for row, content in _contents(part, column, spot, downloads):
            with decoding.opened(content, f"{spot}, row {row}") as image:
                grey = grey and image.mode in decoding.GREY
                turned = image.getexif().get(0x0112) in TURNED
                found = (image.width, image.height) if turned else (image.height, image.width)
            if not size and found != (shape or found):
                both = f"{found[0]} × {found[1]} in row {row} of {spot}, {shape[0]} × {shape[1]} before"  # type: ignore[index]
                raise InputError(f"data.size: found 0 with pictures of several sizes ({both}), allowed: their side")
            shape = shape or found
    high, wide = shape or (1, 1)
    channels = 1 if grey else 3
    room.refuse_beyond({"data.size": sum(map(len, stored)) * channels * high * wide})
    out = [np.empty((len(part), channels, high, wide), dtype=np.uint8) for part in stored]
    for part, into, spot in zip(stored, out, spots, strict=True):
        for row, content in _contents(part, column, spot, downloads):
            with decoding.opened(content, f"{spot}, row {row}") as image:
                plain = ImageOps.exif_transpose(image).convert("L" if grey else "RGB")
                into[row] = decoding.fitted(plain, size) if size else decoding.channels_first(plain)
    return out


def _contents(part: Any, column: str, where: str, downloads: Path | None) -> Iterator[tuple[int, bytes | Path]]:
    """Yield the number of each row, and the bytes of its picture, or the file that was downloaded with the data set.

    Raises:
        InputError: if a row has no picture, or names a file elsewhere: it may be any file of this machine.
    """
    row = 0
    for values in _batches(part, column):
        for value in values:
            held = value if isinstance(value, dict) else {}
            content, path = held.get("bytes"), held.get("path")
            if content is None and path and downloads is not None:
                content = Path(path).resolve()
                if downloads.resolve() not in content.parents:
                    content = None
            if content is None:
                found = f"names {path!r:.80}" if path else "is empty"
                raise InputError(f"{where}: row {row} {found}, allowed: pictures whose bytes are in the data set")
            yield row, content
            row += 1
