"""The user's own pictures, with or without classes: a folder in which each picture has a name.

A picture that lies in the folder itself has no class. One that lies deeper has the class that its first folder names,
as in the data set ``image-folder``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from clsim.data import arrays, cache, decoding, npz
from clsim.errors import InputError
from clsim.records.inquiry import Mark
from clsim.spec.sources import file_digest


def listed(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """List the pictures of a folder, in the order of their names; hidden files and folders are left out.

    Of a folder with ``train`` and ``test`` (or ``val``), the pictures are those of ``train``.

    Returns:
        Name → path, where a name is relative to the folder, with ``/`` between its parts; and name → class.

    Raises:
        InputError: if there is no folder or no picture, or a name is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(f"data.path: no folder {str(folder)!r}; allowed: a folder of pictures")
    divided = (folder / "train").is_dir() and any((folder / part).is_dir() for part in ("test", "val"))
    root = folder / "train" if divided else folder
    paths, classes = {}, {}
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in files:
            path = Path(place, file)
            if file.startswith(".") or path.suffix.lower() not in decoding.IMAGES:
                continue
            name = path.relative_to(folder).as_posix()
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InputError(f"{folder}: the name {name!r} is not UTF-8, allowed: names in UTF-8") from None
            paths[name] = path
            if len(parts := path.relative_to(root).parts) > 1:
                classes[name] = parts[0]
    if not paths:
        raise InputError(f"{folder}: found no picture, allowed: pictures ({', '.join(decoding.IMAGES)})")
    return dict(sorted(paths.items())), classes


def marks(paths: Mapping[str, Path], known: Mapping[str, Mark]) -> dict[str, Mark]:
    """Digest the content of each picture; one whose size and time of change are ``known`` is not read again."""
    found = {}
    for name, path in paths.items():
        stat, before = path.stat(), known.get(name)
        if before is not None and (before.size, before.changed) == (stat.st_size, stat.st_mtime_ns):
            found[name] = before
        else:
            found[name] = Mark(file_digest(str(path.absolute()), "data.path"), stat.st_size, stat.st_mtime_ns)
    return found


def pixels(paths: Iterable[Path], digests: Iterable[str], size: int, root: Path) -> cache.Dataset:
    """Read pictures, scaled and cropped to ``size`` pixels a side, as the training part of a data set without labels.

    They are decoded once and cached by their content.

    Args:
        root: folder of the cache.

    Raises:
        InputError: if a picture cannot be read.
    """
    key = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]

    def made() -> cache.Raw:
        x, y = decoding.images([(path, 0) for path in paths], size)
        return cache.Raw(x, y, x[:1], y[:1], ("",))  # a cache has two parts and classes

    return cache.build(root / "clsim-cache" / f"pictures-{key}-{size}", "pictures", made)


def named_features(given: object) -> tuple[np.ndarray, list[str]]:
    """Read features, float32 (n, d), and a name for each row.

    Args:
        given: an array, the path of a ``.npy`` file, or that of an ``.npz`` file with the array ``x`` and, if the rows
            have names, the array ``files``. Without names, a row is called by its number, from 0.

    Raises:
        InputError: if the arrays are anything else.
    """
    names = None
    if isinstance(given, (str, os.PathLike)) and Path(given).suffix.lower() == ".npz":
        held = npz.arrays(Path(given).expanduser(), str(given), ("x",), ("files",))
        if "x" not in held:
            raise InputError(f"features: {given} has no array 'x', allowed: x, and files with a name for each row")
        given, names = held["x"], held.get("files")
    x = arrays.features(given)
    if names is None:
        return x, [str(row) for row in range(len(x))]
    if names.dtype.kind != "U" or names.shape != (len(x),) or len(set(names.tolist())) != len(x):
        raise InputError(f"features: found files of type {names.dtype}, allowed: {len(x)} texts, no two the same")
    try:
        "".join(names.tolist()).encode()
    except UnicodeEncodeError:
        raise InputError("features: found names that are no Unicode text in files, allowed: text") from None
    return x, names.tolist()


def row_marks(x: np.ndarray, names: Iterable[str]) -> dict[str, Mark]:
    """Digest each row of features."""
    return {
        name: Mark(hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).hexdigest())
        for name, row in zip(names, x, strict=True)
    }
