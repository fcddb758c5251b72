"""What a script of many measurements needs: rows, a limit of seconds for each section, and a clock that waits."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch


@dataclass(frozen=True)
class Row:
    """A figure, or why there is none.

    Attributes:
        what: what was measured.
        value: the figure; None: there is none, and the note says why.
        unit: its unit.
        note: what else is to be known.
    """

    what: str
    value: float | None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """Where and how large a measurement is.

    Attributes:
        device: the device.
        tiny: whether sizes are the smallest that still take every line.
        npz: a file of images for the sections that learn something; empty: none was given.
    """

    device: torch.device
    tiny: bool = False
    npz: str = ""

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU, which works on while Python goes on."""
        return self.device.type == "cuda"

    def now(self) -> float:
        """Read the clock in seconds, once the device has done what it was given."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        """Measure the seconds of some work."""
        started = self.now()
        work()
        return self.now() - started


Measure = Callable[[], Row]
"""Takes one measurement."""

Section = Callable[[Setting], Iterator[tuple[str, Measure]]]
"""Names measurements one by one; each is taken before the next is named."""


class Over(BaseException):
    """The seconds of a section are over; no `except Exception` on the way takes it for a mistake."""


def rows(section: Section, setting: Setting, seconds: float) -> Iterator[Row]:
    """Take the measurements of a section until its seconds are over; what is left has rows that say so.

    A measurement that fails is a row, too: a machine that is lent for minutes is to show all it can.
    """
    ends, over = time.monotonic() + seconds, f"skipped: the {seconds:.0f} s of the section are over"
    try:
        for what, measure in section(setting):
            left = ends - time.monotonic()
            if left <= 0:
                yield Row(what, None, note=over)
                continue
            try:
                with limited(left):
                    row = measure()
                yield row
            except Over:
                yield Row(what, None, note=over)
            except Exception as error:
                yield Row(what, None, note=f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    except Exception as error:
        yield Row("the section itself", None, note=f"failed: {type(error).__name__}: {error}")


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`Over` in the block after some seconds, between two steps of Python (main thread, Unix)."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Over

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def taken(sections: Mapping[str, tuple[float, Section]], setting: Setting, total: float) -> Iterator[tuple[str, Row]]:
    """Take the sections one after the other, each within its seconds, all within the total.

    What a section leaves over goes to those after it.
    """
    ends = time.monotonic() + total
    planned = sum(seconds for seconds, _ in sections.values())
    for name, (seconds, section) in sections.items():
        planned -= seconds
        spare = max(ends - time.monotonic() - planned - seconds, 0.0)
        for row in rows(section, setting, max(min(seconds + spare, ends - time.monotonic()), 0.0)):
            yield name, row


def write(path: Path, head: str, found: Sequence[tuple[str, Row]]) -> None:
    """Write rows as a CSV, below a line that says where they come from."""
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {head}\n")
        writer = csv.writer(file)
        writer.writerow(["section", "what", "value", "unit", "note"])
        for section, row in found:
            writer.writerow([section, row.what, "" if row.value is None else f"{row.value:.4g}", row.unit, row.note])
