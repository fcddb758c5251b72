"""Files of tensors and plain values (``.pt``), which may be damaged or hostile: no code runs, and sizes are bounded."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clsim.errors import InputError, first_line
from clsim.records.sealed import check_archive, sealed_archive

FORMAT = 1
"""Format number, in any version of clsim. The states of clsim 0.1.0 that hold no number have format 1."""

LARGEST = 16
"""Bytes that the tensors of a file may have together, in bytes of the file: tensors may share their storage."""

MOST = 2_000_000
"""Most values and containers of a file, those in plain lists of numbers left out."""


def packed(state: Mapping[str, Any]) -> bytes:
    """Return the content of a file with this state, with its checksum."""
    import torch

    buffer = io.BytesIO()
    torch.save({**state, "format": FORMAT}, buffer)
    return sealed_archive(buffer.getvalue())


def read(path: Path) -> tuple[Any, bool]:
    """Read a state onto the CPU; also tell whether it has a checksum, which is right then.

    Raises:
        FileNotFoundError: if there is none.
        Exception: of many kinds, if the file is anything but tensors and plain values.
    """
    import torch

    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise OSError("it is no regular file")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a foreign file is refused in our words
        checked = check_archive(file)
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        packed_ = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed_ or sum(entry.file_size for entry in entries) > size:
            raise ValueError("its parts are larger than the file")
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
    _bounded(state, LARGEST * size)
    return state, checked


def load(path: Path, what: str, owner: tuple[str, str], cure: str) -> dict[str, Any] | None:
    """Read the state of a run, or of a condensed set; None if there is none.

    Args:
        path: the file.
        what: what it is the state of, in a word.
        owner: the key that says whose state it is, and what it must say.
        cure: what to do with a file that cannot be read, for messages.

    Returns:
        The state, with ``checked``: whether the file has a checksum.

    Raises:
        InputError: if it is damaged, of another owner, or of a later format.
    """
    try:
        state, checked = read(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file fails in many ways inside torch.load
        raise InputError(f"{path}: cannot be read ({first_line(error)}); {cure}") from None
    found = None
    if isinstance(state, dict):
        found = state.get("format", 1 if "clsim" in state else None)
    if type(found) is not int or found != FORMAT:
        raise InputError(f"{path}: found format {found!r:.40}, allowed: {FORMAT}; {cure}")
    key, name = owner
    if state.get(key) != name:
        raise InputError(
            f"{path}: found the state of another {what} ({state.get(key)!s:.40}), allowed: {name:.40}; {cure}"
        )
    return {**state, "checked": checked}


def _bounded(state: Any, most: int) -> None:
    """Refuse tensors that are not plain ones in memory, and more values than a state has.

    Raises:
        ValueError: saying what was found.
    """
    import torch

    stack, found, size = [state], 0, 0
    while stack:
        value = stack.pop()
        found += 1
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise ValueError(f"found a tensor that is {value.layout} on {value.device}")
            size += value.numel() * value.element_size()
        elif isinstance(value, dict):
            stack += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            stack += [one for one in value if type(one) not in (int, float, bool, str)]
        if found > MOST or len(stack) > MOST or size > most:
            raise ValueError("it holds more than a state does, for its size")
