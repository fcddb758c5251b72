"""The memory that is free, and the refusal of what does not fit into it, before it is built."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clsim.errors import InputError

if TYPE_CHECKING:
    import torch

_CGROUP, _PROC = Path("/sys/fs/cgroup"), Path("/proc")


def available(cgroup: Path = _CGROUP, proc: Path = _PROC) -> int:
    """Return the bytes of memory that this process may still take: of the machine, its control group, its own limit.

    Args:
        cgroup: where control groups are mounted.
        proc: where the system tells of itself.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if (free := _line(proc / "meminfo", "MemAvailable:")) is not None:
        found.append(1024 * free)
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        most, now = _number(cgroup / limit), _number(cgroup / used)
        if most is not None and now is not None:
            cache = _line(cgroup / stat, "inactive_file") or 0  # given back when it is needed
            found.append(most - now + min(cache, now))
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        found.append(most - 1024 * (_line(proc / "self" / "status", "VmSize:") or 0))
    return max(min(found), 0)


def free_on(device: torch.device) -> int:
    """Return the bytes of memory that are free on a device."""
    if device.type != "cuda":
        return available()
    import torch

    return torch.cuda.mem_get_info(device)[0]


def refuse_beyond(parts: Mapping[str, float], free: int | None = None) -> None:
    """Refuse what needs more memory than there is.

    Args:
        parts: what needs memory, as the key that says its size → bytes.
        free: the bytes that are there; None: :func:`available`.

    Raises:
        InputError: naming both numbers, and the key that asks for most.

    >>> refuse_beyond({"data.size": 2e15, "memory.capacity": 1e6}, 8 * 10**9)
    Traceback (most recent call last):
    clsim.errors.InputError: data.size: about 2,000 TB of memory are needed, and 8 GB are free; allowed: a smaller value
    """
    free = available() if free is None else free
    total = sum(parts.values())
    if total > free:
        key = max(parts, key=parts.__getitem__)
        raise InputError(
            f"{key}: about {in_words(total)} of memory are needed, and {in_words(free)} are free; "
            "allowed: a smaller value"
        )


def in_words(size: float) -> str:
    """Write a number of bytes.

    >>> in_words(2.5e9), in_words(4e15), in_words(1000)
    ('2.5 GB', '4,000 TB', '0.001 MB')
    """
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= 1e18:
            return f"{size / one:.1e} {unit}"
        if size >= one or unit == "MB":
            return f"{size / one:,.0f} {unit}" if size >= 100 * one else f"{size / one:.3g} {unit}"
    return ""


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn the failure of an allocation, which no estimate foresaw, into one line.

    Raises:
        InputError: saying how much was asked for, if that is known.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if not isinstance(error, MemoryError) and not any(sign in text for sign in _SIGNS):
            raise
        asked = f" ({text[:120]})" if text else ""
        raise InputError(
            f"memory: the run needs more than there is{asked}, with {in_words(available())} free now; allowed: smaller "
            "batches, a smaller model, memory or data set, or fewer nets"
        ) from error


_SIGNS = ("not enough memory", "out of memory", "can't allocate memory", "Storage size calculation overflowed")
"""What torch says when an allocation fails."""


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None


def _line(path: Path, name: str) -> int | None:
    """Read the number behind a name that begins a line."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(name) and len(line.split()) > 1]
    return int(found[0]) if found and found[0].isdecimal() else None
