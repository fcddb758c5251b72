"""What is no regular file is refused at once: a pipe, a device without end, a folder, a file too large."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clsim.records import regular


def test_a_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert regular.content(tmp_path / "file") == regular.content(tmp_path / "link", most=3) == b"abc"


def test_what_never_ends_is_not_begun(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match="it is no regular file"):
            regular.content(tmp_path / name)
    with pytest.raises(OSError, match="it is a folder"):
        regular.content(tmp_path)
    with pytest.raises(FileNotFoundError):
        regular.content(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"abc")
    with pytest.raises(ValueError, match="it has 3 bytes, allowed: 2"):
        regular.content(tmp_path / "file", most=2)
