"""Progress of a run for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clsim.errors import InputError
from clsim.records.search import Search, Trial
from clsim.records.store import Store
from clsim.reporting.bar import bar
from clsim.reporting.screen import Screen
from clsim.spec.run import RunSpec
from clsim.training import progress


@contextmanager
def watched(
    spec: RunSpec, store: Store, console: Console | None, names: Sequence[str], say: Callable[[str], None]
) -> Iterator[progress.Progress]:
    """Show a run while it goes on, and keep logs of it.

    Args:
        console: where it is shown; None shows nothing.
        names: of the logs, as ``--log`` has them.
        say: takes a line for the user, when a log fails.
    """
    with ExitStack() as stack:
        watch: progress.Progress = progress.Quiet()
        if console is not None:
            watch = stack.enter_context(Terminal(f"{spec.title} · seed {spec.seed}", console))
        if names:
            from clsim.reporting.logs import Logging  # with numpy

            watch = stack.enter_context(Logging(names, spec, store.folder(spec), watch, say))
        yield watch


def check_logs(names: Sequence[str]) -> None:
    """Check the names given to ``--log``, before anything runs; see :func:`clsim.reporting.logs.check`."""
    from clsim.reporting import logs  # with numpy

    logs.check(names)


def shown(given: Any) -> Callable[[RunSpec], AbstractContextManager[progress.Progress]] | None:
    """Make what shows the progress of runs from Python; None: nothing is shown.

    Args:
        given: ``progress`` of :func:`clsim.run`.

    Raises:
        InputError: if it is something else.
    """
    if isinstance(given, str) and given != "auto":
        raise InputError(f"progress: found {given!r}, allowed: 'auto', True, False or a Progress")
    if given is None or given is False:
        return None
    if given is not True and given != "auto":
        return lambda spec: nullcontext(given)
    console = Screen(stderr=True, soft_wrap=True, emoji=False)
    at_hand = console.is_jupyter or (console.is_terminal and "ps1" in vars(sys))  # a prompt, no script
    if given == "auto" and not at_hand:
        return None
    return lambda spec: Terminal(f"{spec.title} · seed {spec.seed}", console)


class Terminal:
    """Progress of one run on a console. Final. A context manager; see :class:`clsim.training.progress.Progress`.

    Args:
        title: title of the run.
        console: console to write to: a bar on a terminal or in a notebook, else a line for each experience.
    """

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._bar = bar(console, "speed", "accuracy")
        self._live = not self._bar.disable
        self._task = self._bar.add_task("", total=None, speed="", accuracy="")
        self._started = self._shown = time.perf_counter()
        self._images = self._pending = 0
        self._length = self._position = self._span = 0
        self._open = False  # whether an experience was begun whose row has not come
        self._trained: deque[tuple[int, int, float]] = deque()  # such experiences before it: number, images, seconds

    def __enter__(self) -> Terminal:
        if self._live:
            self._console.print(self._title, markup=False, highlight=False)
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def experience(self, position: int, total: int, images: int) -> None:
        """Begin an experience; the bar spans the whole stream, as if every experience were as long as this one."""
        if self._open:
            self._trained.append(self._so_far())
        self._position, self._length, self._span, self._open = position, total, images, True
        self._started, self._images, self._pending = time.perf_counter(), 0, 0
        self._bar.update(
            self._task,
            description=f"experience {position + 1}/{total}",
            total=images * total,
            completed=images * position,
        )

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        """Move the bar back to where the experience began, and say how many labels there are."""
        what = f"experience {self._position + 1}/{self._length} · round {number}/{rounds} · {labelled:,} labels"
        self._started, self._images, self._pending, self._span = time.perf_counter(), 0, 0, images
        total, completed = images * self._length, images * self._position
        self._bar.update(self._task, description=what, total=total, completed=completed)

    def trial(self, trial: Trial) -> None:
        """Move the bar back to where the experience began."""
        from clsim.reporting import searches  # most runs search nothing

        what = f"experience {self._position + 1}/{self._length} · {searches.trial(trial)}"
        self._pending = 0
        self._bar.update(self._task, description=what, completed=self._span * self._position)

    def step(self, images: int) -> None:
        """Count images; the bar moves a few times a second at most."""
        self._images += images
        self._pending += images
        now = time.perf_counter()
        if now - self._shown > 0.2:
            speed = self._images / (now - self._started)
            self._bar.update(self._task, advance=self._pending, speed=f"{speed:,.0f} images/s")
            self._shown, self._pending = now, 0

    def searched(self, search: Search) -> None:
        """Print the search and what it chose, in three lines."""
        from clsim.reporting import searches

        glance = searches.glance(search, f"experience {self._position + 1}/{self._length}")
        if self._live:
            grid = Table.grid(padding=(0, 2))
            for _ in range(3):
                grid.add_column()
            for heading, label, text in glance:
                grid.add_row(Text(heading, "bold"), label, text)
            self._console.print(grid)
            return
        for heading, label, text in glance:
            line = f"{self._title} · {heading} · {label} {text}" if heading else f"  {label} {text}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _so_far(self) -> tuple[int, int, float]:
        """Return the number of the present experience, from 1, its images so far, and its seconds."""
        return self._position + 1, self._images, time.perf_counter() - self._started

    def row(self, position: int, accuracy: list[float]) -> None:
        """Show the mean accuracy over the experiences seen so far, each of which counts the same here."""
        seen = [a for a in accuracy[: position + 1] if not math.isnan(a)]
        mean = f"mean accuracy {100 * sum(seen) / len(seen):.1f} %" if seen else "not tested"
        self._bar.update(self._task, accuracy=mean)
        if self._trained:
            number, images, seconds = self._trained.popleft()
        else:
            (number, images, seconds), self._open = self._so_far(), False
        if not self._live:
            self._console.print(
                f"{self._title} · experience {number}/{self._length} · {images:,} images in {seconds:.0f} s · {mean}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
