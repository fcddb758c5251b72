"""``losses.npz``: the loss of every step, a column a term, in an archive that may be damaged or hostile."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.errors import InputError, first_line
from clsim.records.sealed import check_archive, sealed_archive

if TYPE_CHECKING:
    import numpy as np

LARGEST = 2**30
"""Most bytes that the columns of a file may declare together."""

MOST = 1000
"""Most columns of a file."""


def packed(losses: Mapping[str, Any]) -> bytes:
    """Return the content of a file with these columns, with its checksum."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **losses)
    return sealed_archive(buffer.getvalue())


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the columns; no more is read than they may declare, and nothing that is pickled.

    Raises:
        InputError: in one line, if the file is anything but such columns.
    """
    try:
        with path.open("rb") as file:
            check_archive(file)
            with zipfile.ZipFile(file) as archive:
                return _columns(archive)
    except Exception as error:  # a damaged archive fails in many ways
        raise InputError(f"{path}: cannot be read ({first_line(error)}); run it again with --fresh") from None


def _columns(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    import numpy as np

    entries = archive.infolist()
    declared = sum(entry.file_size for entry in entries)
    if len(entries) > MOST or declared > LARGEST:
        raise ValueError(f"it declares {len(entries)} columns of {declared:,} bytes, allowed: {MOST} of {LARGEST:,}")
    columns = dict[str, np.ndarray]()
    for entry in entries:
        with archive.open(entry) as content:
            version = np.lib.format.read_magic(content)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = header(content)
            rest = content.read()
        if kind.kind != "f" or len(shape) != 1 or len(rest) != shape[0] * kind.itemsize:
            raise ValueError(f"{entry.filename!r:.40} is no column of numbers")
        columns[entry.filename.removesuffix(".npy")] = np.frombuffer(rest, dtype=kind)
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError("its columns have different lengths")
    return columns
