"""Reading files that anybody may have put there: what is no regular file, or a very large one, is refused."""

from __future__ import annotations

import stat
from pathlib import Path

LARGEST = 2**30
"""Most bytes of a text that is read."""


def check(path: Path, most: float = float("inf")) -> None:
    """Refuse what cannot be read as a file; links are followed.

    Raises:
        FileNotFoundError: if there is no file.
        OSError: if it is a folder, a pipe or a device: reading a pipe waits, and some devices never end.
        ValueError: if it has more bytes than ``most``.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError("it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    if found.st_size > most:
        raise ValueError(f"it has {found.st_size:,} bytes, allowed: {most:,}")


def content(path: Path, most: float = LARGEST) -> bytes:
    """Read the bytes of a file, as :func:`check` allows."""
    check(path, most)
    return path.read_bytes()
