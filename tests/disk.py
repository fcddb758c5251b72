"""A disk that counts what is done to the files under a folder, and dies or refuses at one of these operations.

The operations are those of the system, not of clsim: what any library opens, locks, writes, syncs, renames or deletes
there is counted. Deaths leave what a killed process leaves: half of what was being written, and no cleaning up.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.killing import Killed

SHORT = -1
"""In place of an error's number: the system writes a part of what it is given."""

PATCHED = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir")
"""The functions of :mod:`os` that the disk stands before."""

GROWING = ("open", "write", "sync", "mkdir", "replace")
"""Operations that a full disk refuses, or one that is not to be written."""

CHANGING = ("write", "replace", "unlink", "mkdir", "rmdir", "sync folder")
"""Operations before which, and in the middle of which, a death leaves another state than the operation before did."""


class Disk:
    """Stands between this process and the files under a folder. Final.

    Attributes:
        seen: the operations since the last call of :meth:`heal`, :meth:`die_at` or :meth:`fail_at`: what, and where.
        hit: the operation that died or failed; empty: none did.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *roots: Path, reads: bool = False) -> None:
        self._roots = [os.path.realpath(root) for root in roots]
        self._real = {name: vars(os)[name] for name in PATCHED}
        self._open = builtins.open
        self.seen: list[tuple[str, str]] = []
        self.hit = ""
        self._at, self._error, self._dead, self._lasts = 0, 0, False, False
        self._only: tuple[str, ...] | None = None
        for name in self._real:
            patch.setattr(os, name, self._counted(name))
        if reads:
            for place in (builtins, io):
                patch.setattr(place, "open", self._opened)

    def heal(self) -> None:
        """Let all go well."""
        self.seen, self.hit, self._at, self._dead = [], "", 0, False

    def die_at(self, number: int, only: tuple[str, ...] | None = None) -> None:
        """Let the process die at operation ``number``; count only some kinds of operations if they are named."""
        self.heal()
        self._at, self._error, self._only = number, 0, only

    def fail_at(self, number: int, error: int, *, lasts: bool = False) -> None:
        """Refuse operation ``number``; if it ``lasts``, all that take room after it, too, until the disk is healed."""
        self.heal()
        self._at, self._error, self._only, self._lasts = number, error, None, lasts

    def _inside(self, place: Any, folder: int | None) -> str:
        """The path of an operation, below its root; empty if it is elsewhere."""
        if isinstance(place, int):
            try:
                path = os.readlink(f"/proc/self/fd/{place}")
            except OSError:
                return ""
        else:
            path = os.path.abspath(os.fspath(place))
            if folder is not None:
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fspath(place))
        path = path if isinstance(path, str) else os.fsdecode(path)
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        return next((path for root in self._roots if path == root or path.startswith(f"{root}/")), "")

    def _counts(self, what: str, path: str) -> int:
        """Count an operation; return the number of the error that it ends with, 0 for none."""
        if self._dead:
            raise Killed  # the dead do nothing, not even clean up
        if self._only is not None and what not in self._only:
            return 0
        self.seen.append((what, path))
        number = len(self.seen)
        if self._at and self._error and self._lasts and number > self._at and what in GROWING:
            return errno.ENOSPC if self._error == SHORT else self._error  # no disk goes on to take parts
        if self._at and number == self._at:
            self.hit = f"{what} {path}"
            if not self._error:
                self._dead = what != "write"
                if self._dead:
                    raise Killed
                return SHORT
            return self._error
        return 0

    def _counted(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def act(place: Any, *arguments: Any, **named: Any) -> Any:
            path = self._inside(place, named.get("dir_fd", named.get("src_dir_fd")))
            if not path:
                return real(place, *arguments, **named)
            what = name
            if name == "fsync":
                what = "sync folder" if os.path.isdir(path) else "sync"
            elif name == "open" and os.path.isdir(path):
                what = "open folder"
            elif name == "open" and not arguments[0] & (os.O_WRONLY | os.O_RDWR):
                what = "read"
            error = self._counts(what, path)
            if error == SHORT and name == "write":
                done = real(place, bytes(arguments[0])[: len(arguments[0]) // 2])
                if not self._error:
                    self._dead = True
                    raise Killed
                return done
            if error > 0:
                raise OSError(error, os.strerror(error), path)
            return real(place, *arguments, **named)

        return act

    def _opened(self, file: Any, *arguments: Any, **named: Any) -> Any:
        path = "" if isinstance(file, int) else self._inside(file, None)
        mode = str(arguments[0] if arguments else named.get("mode", "r"))
        error = self._counts("open" if {*mode} & {*"wax+"} else "read", path) if path else 0
        if error > 0:
            raise OSError(error, os.strerror(error), path)
        return self._open(file, *arguments, **named)
