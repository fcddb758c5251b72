"""The one place that writes, renames and deletes files.

A file holds all that was written into it, or what it held before, whatever stops the process, the machine or the disk.
It is on the disk before the name is, and the name is on the disk before the next step. What the disk refuses is a
:class:`clsim.errors.DiskError`; what was written before stands.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clsim.errors import DiskError, DiskWarning

_LONGEST = 100
"""Characters of a file's name that the name of its temporary file repeats."""


class Writer:
    """A file that is being written. Final."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, content: bytes) -> int:
        """Write all of ``content``; return its length."""
        left = memoryview(content).cast("B")
        while left:  # the system may take a part of it
            taken = os.write(self._descriptor, left)
            if not taken:
                raise OSError(errno.EIO, "nothing was written")
            left = left[taken:]
        return len(content)


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: it holds all of ``content``, or what it held before.

    Raises:
        DiskError: if the disk refuses it.
    """
    with writing(path) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Open a file to be written piece by piece, atomically: it takes its place at the end, if nothing is raised.

    Raises:
        DiskError: if the disk refuses it.
    """
    # a name that no other process, thread or machine draws
    temporary = path.with_name(f"{_beginning(path.name)}{secrets.token_hex(8)}")
    with _refused(path, "written"):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            try:
                yield Writer(descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    with _refused(path, "synced"):  # it is there, and whole, but a power cut may take it
        _sync(path.parent)


def create(path: Path, content: bytes) -> None:
    """Write a file that is not there.

    Raises:
        FileExistsError: if it is there, even if it came a moment ago.
        DiskError: if the disk refuses it.
    """
    try:
        with _refused(path, "written"):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # nobody else has the name now
    except DiskError as error:
        if error.errno == errno.EEXIST:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        raise
    try:
        write(path, content)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def replace(source: Path, target: Path) -> None:
    """Rename a file or a folder within a folder, over what has that name.

    Raises:
        FileNotFoundError: if there is no source.
        DiskError: if the disk refuses it.
    """
    try:
        os.replace(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DiskError.of(source, "renamed", error) from None
    with _refused(target, "synced"):
        _sync(target.parent)


def remove(path: Path) -> None:
    """Delete a file, if it is there.

    Raises:
        DiskError: if the disk refuses it.
    """
    with _refused(path, "removed"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        _sync(path.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder with all that is in it, or a file, if it is there; links are deleted, not followed.

    It loses its name first: what is left if the process is killed is no folder of that name.

    Raises:
        DiskError: if the disk refuses it.
    """
    going = path.with_name(f"{_beginning(path.name)}{secrets.token_hex(8)}")
    with _refused(path, "removed"):
        try:
            os.replace(path, going)
        except FileNotFoundError:
            return
        _sync(path.parent)
        if going.is_dir() and not going.is_symlink():
            shutil.rmtree(going)
        else:
            os.unlink(going)


def replace_folder(source: Path, target: Path) -> None:
    """Rename a folder over another one, which is deleted once the new one stands in its place, and else stays.

    A process that is killed between two renames leaves the old one whole, under a hidden name beside the new one.

    Raises:
        DiskError: if the disk refuses it.
    """
    going = target.with_name(f"{_beginning(target.name)}{secrets.token_hex(8)}")
    with _refused(target, "replaced"):
        os.replace(target, going)
        try:
            os.replace(source, target)
        except BaseException:
            os.replace(going, target)
            raise
        _sync(target.parent)
        shutil.rmtree(going)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if they are not there.

    Raises:
        DiskError: if the disk refuses it, or something else has its name.
    """
    missing = []
    for place in (path, *path.parents):
        if place.is_dir():
            break
        missing.append(place)
    for place in reversed(missing):
        with _refused(place, "made"):
            try:
                os.mkdir(place)
            except FileExistsError:
                if not place.is_dir():
                    raise
            _sync(place.parent)


def tidy(folder: Path, names: Iterable[str]) -> None:
    """Delete the temporary files that killed processes left, of files that nobody else writes now.

    What the disk refuses to delete stays: nothing reads it.

    Args:
        folder: the folder.
        names: names of files, or of folders, whose lock the caller holds.
    """
    beginnings = tuple(map(_beginning, names))
    try:
        found = [name for name in os.listdir(folder) if name.startswith(beginnings)]
    except OSError:
        return
    for name in found:
        place = folder / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(place)


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock, which the system lets go of when the process ends.

    Args:
        path: the file of the lock.
        timeout: seconds to wait for it; below 0: as long as it takes.

    Raises:
        filelock.Timeout: if another process holds it all that time.
        DiskError: if the file cannot be written, or its file system has no locks.
    """
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        raise DiskError.of(path, "locked", error) from None
    try:
        yield
    finally:
        lock.release()


def warn_unkept(path: Path, error: DiskError, what: str) -> None:
    """Warn that something which can be made again could not be kept, and that the run goes on.

    Args:
        path: where it would have been.
        error: what the disk said.
        what: what follows, in words.
    """
    warnings.warn(f"{path}: cannot be kept ({error.reason}); the run goes on, but {what}", DiskWarning, stacklevel=3)


def _beginning(name: str) -> str:
    """Return how the names of temporary files of a file begin, those of earlier versions included."""
    return f".{name[:_LONGEST]}."


@contextmanager
def _refused(path: Path, done: str) -> Iterator[None]:
    """Turn what the system says into a line that names the file, and what could not be done to it."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise DiskError.of(path, done, error) from None


_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What file systems answer that cannot sync a folder."""


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk, where its file system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):  # a folder that may be written, but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)
