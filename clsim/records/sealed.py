"""Checksums of files: against accident, not against intent. What a file holds is checked where it is read.

A JSON file has its checksum under the key ``checksum``: the SHA-256 of all else that it holds, whatever its layout. An
archive (``.pt``, ``.npz``: both are zip files) has it in its comment: the SHA-256 of all bytes before. A file without a
checksum is one of an earlier version; it is read, and said to be unchecked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

KEY = "checksum"
"""The key of a JSON file's checksum."""

WRONG = "its checksum is wrong: it was damaged, or changed by hand"
"""What is said of a file that is not what was written."""

LARGEST = 2**28
"""Most bytes of a JSON file that is read."""

_END = b"PK\x05\x06"
_COMMENT = re.compile(rb"clsim sha256 ([0-9a-f]{64})")
_BYTES = 22
"""Bytes of the record at the end of a zip file, without its comment."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def sealed(data: Mapping[str, Any]) -> bytes:
    """Return the content of a JSON file, with its checksum.

    >>> unsealed(sealed({"a": [1, 2.5]}))
    ({'a': [1, 2.5]}, True)
    """
    plain = json.loads(json.dumps(data, allow_nan=False))
    return json.dumps({**plain, KEY: _digest(plain)}, indent=1, allow_nan=False).encode()


def unsealed(content: bytes) -> tuple[Any, bool]:
    """Read the content of a JSON file, without its checksum; also tell whether it has one.

    Raises:
        ValueError: if the checksum is wrong, or if the content is not JSON, or holds what JSON does not have.
        RecursionError: if it is nested too deep.
    """
    data = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    if _SURROGATE.search(content):
        json.dumps(data, ensure_ascii=False).encode()  # half a character cannot be printed
    if not isinstance(data, dict) or KEY not in data:
        return data, False
    said = data.pop(KEY)
    if said != _digest(data):
        raise ValueError(WRONG)
    return data, True


def read(path: Path) -> tuple[Any, bool]:
    """Read a JSON file as :func:`unsealed` does.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it cannot be read, or is no regular file.
        ValueError, RecursionError: as there; or if it is too large.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever, and a link may lead anywhere
        raise OSError("it is a link, which is not followed" if path.is_symlink() else "it is no regular file")
    if found.st_size > LARGEST:
        raise ValueError(f"it has {found.st_size:,} bytes, allowed: {LARGEST:,}")
    return unsealed(path.read_bytes())


def sealed_archive(content: bytes) -> bytes:
    """Return the content of a zip file without a comment, with its checksum as the comment."""
    if content[-_BYTES:-18] != _END:
        raise ValueError("found no zip file without a comment")
    said = b"clsim sha256 " + hashlib.sha256(content[:-2]).hexdigest().encode()
    return content[:-2] + struct.pack("<H", len(said)) + said


def check_archive(file: BinaryIO) -> bool:
    """Tell whether an open zip file has a checksum, which is right then; the file stands at its beginning afterwards.

    Raises:
        ValueError: if the checksum is wrong, or if it is no regular file.
        zipfile.BadZipFile: if it is no zip file.
    """
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    file.seek(max(0, found.st_size - 512))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _BYTES:
        raise zipfile.BadZipFile("it is cut short, or no archive")
    comment, declared = tail[at + _BYTES :], struct.unpack_from("<H", tail, at + 20)[0]
    if not comment and not declared:
        file.seek(0)
        return False
    match = _COMMENT.fullmatch(comment)
    if match is None or declared != len(comment):
        raise ValueError(WRONG)
    left, digest = found.st_size - len(comment) - 2, hashlib.sha256()
    file.seek(0)
    while left and (part := file.read(min(left, 2**20))):
        digest.update(part)
        left -= len(part)
    if digest.hexdigest().encode() != match[1]:
        raise ValueError(WRONG)
    file.seek(0)
    return True


def is_checked(path: Path) -> bool:
    """Tell whether a file has a checksum, which is right then.

    Raises:
        FileNotFoundError: if there is none.
        OSError, ValueError, RecursionError, zipfile.BadZipFile: if it cannot be read, or if its checksum is wrong.
    """
    if path.suffix == ".json":
        return read(path)[1]
    if not path.is_file() and path.exists():
        raise OSError("it is no regular file")
    with path.open("rb") as file:
        return check_archive(file)


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"found {constant}, which JSON does not have")
