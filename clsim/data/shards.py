"""Features that lie on the disk, in one file or a folder of files, and are read a few rows at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsim.data import arrays
from clsim.errors import InputError, first_line
from clsim.records import regular

READ = 2**24
"""Most bytes that are read at once, 16 MiB."""


@dataclass(frozen=True)
class Shards:
    """Rows of features in files, as if the files stood one below the other. Nothing is kept open.

    Attributes:
        files: absolute paths, in order.
        counts: number of rows of each file.
        width: number of features of each row.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    width: int

    def __len__(self) -> int:
        return sum(self.counts)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Read rows: float32 (m, width), all finite.

        Args:
            rows: int64 (m,), ascending.

        Raises:
            InputError: if a file is gone or has another shape than before, or a row is not finite.
        """
        out = np.empty((len(rows), self.width), dtype=np.float32)
        start = 0
        for file, count in zip(self.files, self.counts, strict=True):
            first, last = np.searchsorted(rows, [start, start + count])
            if first < last:
                self._fill(out[first:last], file, count, rows[first:last] - start)
            start += count
        return out

    def _fill(self, out: np.ndarray, file: str, count: int, rows: np.ndarray) -> None:
        parquet = file.endswith(".parquet")
        at = 0
        for block in (
            _parquet_rows(file, count, self.width, rows) if parquet else _npy_rows(file, count, self.width, rows)
        ):
            into = out[at : at + len(block)]
            with np.errstate(over="ignore"):  # infinite values are found below
                into[:] = block
            finite = np.isfinite(into).all(1)
            if not finite.all():
                row = int(rows[at + int(finite.argmin())])
                raise InputError(f"features: {file}: row {row} holds NaN or infinite values, allowed: finite numbers")
            at += len(block)


def shards(given: Any, where: str = "features") -> Shards:
    """Find the files of features, and read their shapes.

    Args:
        given: the path of a ``.npy`` file, or of a folder with ``.npy`` files, or with ``.parquet`` files. Files of a
            folder are sorted by name, numbers in names by value; where every name ends in a number, none may be
            missing.
        where: name of the argument, for messages.

    Raises:
        InputError: if there are no files, one is missing, or one has another type or width.
    """
    if not isinstance(given, (str, Path)):
        raise InputError(f"{where}: found an array in memory, allowed: the path of a .npy file or of a folder of files")
    place = Path(given).expanduser().absolute()
    files = _files(place, where) if place.is_dir() else [place]
    shapes = [_shape(file, where) for file in files]
    for file, (_, width) in zip(files, shapes, strict=True):
        if width != shapes[0][1]:
            raise InputError(f"{where}: {file} has {width} features a row, allowed: {shapes[0][1]}, as in {files[0]}")
    return Shards(tuple(map(str, files)), tuple(count for count, _ in shapes), shapes[0][1])


def _files(folder: Path, where: str) -> list[Path]:
    kinds = {suffix: sorted(folder.glob(f"*{suffix}"), key=_in_order) for suffix in (".npy", ".parquet")}
    found = [files for files in kinds.values() if files]
    if len(found) != 1:
        what = "both .npy and .parquet files" if found else "no .npy or .parquet files"
        raise InputError(f"{where}: {folder} holds {what}, allowed: files of one kind, with the same columns")
    files = found[0]
    ends = [re.search(r"(\d+)(?:-of-(\d+))?$", file.stem) for file in files]
    numbers = [int(end[1]) for end in ends if end]
    if len(numbers) == len(files):
        named = {int(end[2]) for end in ends if end and end[2]}
        expected = range(numbers[0], numbers[0] + max([len(files), numbers[-1] - numbers[0] + 1, *named]))
        if missing := sorted(set(expected) - set(numbers)):
            raise InputError(f"{where}: {folder} has no file with number {missing[0]}; allowed: all files of a set")
    return files


def _in_order(file: Path) -> list[tuple[int, str]]:
    """Sort ``x-2`` before ``x-10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.stem) if part]


def _shape(file: Path, where: str) -> tuple[int, int]:
    if file.suffix == ".parquet":
        return _parquet_shape(file, where)
    array, name = arrays.array_of(file, where)
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        found = f"{array.dtype} of shape {array.shape}"
        raise InputError(f"{name}: found {found}, allowed: floats (n, d), a row for each sample")
    return array.shape[0], array.shape[1]


def _npy_rows(file: str, count: int, width: int, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield these rows of a memory-mapped file, at most :data:`READ` bytes at a time."""
    if _shape(Path(file), "features") != (count, width):
        raise InputError(f"features: {file} has another shape than at the start; allowed: the same file")
    array, _ = arrays.array_of(file, "features")
    step = max(READ // (array.itemsize * width), 1)
    for some in np.split(rows, range(step, len(rows), step)):
        together = some[-1] - some[0] + 1 == len(some)
        yield array[some[0] : some[-1] + 1] if together else array[some]


def _parquet(file: str | Path, where: str) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{where}: {file} needs pyarrow; allowed: after pip install pyarrow, or .npy files") from None
    with _readable(file, where):
        regular.check(Path(file))
        return parquet.ParquetFile(file)


@contextmanager
def _readable(file: str | Path, where: str) -> Iterator[None]:
    """Turn what the library says of a broken file, when it opens it or reads a page, into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a broken file fails in many ways
        raise InputError(f"{where}: {file} cannot be read as .parquet ({first_line(error)})") from None


def _parquet_shape(file: Path, where: str) -> tuple[int, int]:
    """Read the shape: a column of floats for each feature, or one column of lists of equal length."""
    opened = _parquet(file, where)
    from pyarrow import types

    kinds, rows = [field.type for field in opened.schema_arrow], opened.metadata.num_rows
    if rows and kinds and all(map(types.is_floating, kinds)):
        return rows, len(kinds)
    if rows and len(kinds) == 1 and _nested(kinds[0]) and types.is_floating(kinds[0].value_type):
        with _readable(file, where):
            if width := len(next(opened.iter_batches(batch_size=1)).column(0).flatten()):
                return rows, width
    raise InputError(f"{where}: {file} has {rows} rows of {', '.join(map(str, kinds[:3]))}; allowed: columns of floats")


def _parquet_rows(file: str, count: int, width: int, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield these rows, reading whole batches of the groups of rows that hold any."""
    with _readable(file, "features"):
        yield from _parquet_blocks(file, count, width, rows)


def _parquet_blocks(file: str, count: int, width: int, rows: np.ndarray) -> Iterator[np.ndarray]:
    opened, start = _parquet(file, "features"), 0
    if opened.metadata.num_rows != count:
        raise InputError(f"features: {file} has another shape than at the start; allowed: the same file")
    for group in range(opened.num_row_groups):
        stop = start + opened.metadata.row_group(group).num_rows
        here = rows[slice(*np.searchsorted(rows, [start, stop]))] - start
        at = 0
        for batch in opened.iter_batches(max(READ // (4 * width), 1), [group]) if len(here) else ():
            wanted = here[slice(*np.searchsorted(here, [at, at + len(batch)]))] - at
            if len(wanted):
                yield _matrix(batch, width, file)[wanted]
            at += len(batch)
        start = stop


def _matrix(batch: Any, width: int, file: str) -> np.ndarray:
    """Write out rows, (m, width); a value that is missing is NaN."""
    if not _nested(batch.schema.field(0).type):
        return np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns], 1)
    if not all(length == width for length in batch.column(0).value_lengths().to_pylist()):
        raise InputError(f"features: {file} has rows of unequal length, allowed: {width} features in each")
    return batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(len(batch), width)


def _nested(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
