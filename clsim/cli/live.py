"""The progress of a study: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich import live
from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clsim.errors import duration
from clsim.execution.study import RunState

_STYLES = {"running": "bold", "finished": "green", "failed": "red", "elsewhere": "yellow", "waiting": "dim"}
_STARTING = "starting workers"
_QUIET = 10.0
"""Seconds between two plain lines on the same run."""


class Live:
    """Show the progress of a study. Final. A context manager; see :class:`clsim.execution.study.StudyWatch`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = live.Live(console=console, transient=True, refresh_per_second=4)
        self._began = time.monotonic()
        self._said: dict[int, tuple[str, int, float]] = {}
        self._began_one = False

    def __enter__(self) -> Live:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, states: Sequence[RunState], left: float | None) -> None:
        """Show the states of all runs; the table lists running ones first, as far as the window has room."""
        self._began_one |= any(state.state in ("running", "elsewhere") for state in states)
        if self._console.is_terminal:
            self._live.update(self._table(states, left))
        else:
            self._say(states, left)

    def _table(self, states: Sequence[RunState], left: float | None) -> Group:
        order = ("running", "elsewhere", "failed", "waiting", "finished")
        shown = sorted(states, key=lambda state: order.index(state.state))[: max(3, self._console.size.height - 4)]
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("run", ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column("state", no_wrap=True)
        table.add_column("", ratio=1, min_width=8)
        table.add_column("experience", justify="right", no_wrap=True)
        table.add_column("accuracy", justify="right", no_wrap=True)
        table.add_column("left", justify="right", no_wrap=True)
        for state in shown:
            style = _STYLES[state.state]
            note = f" · {state.note}" if state.note else ""
            table.add_row(
                Text(state.title + note, style=style),
                Text(state.state, style=style),
                ProgressBar(total=state.total, completed=state.done),
                f"{state.done}/{state.total}",
                _percent(state.accuracy),
                duration(state.left) if state.left is not None and state.state == "running" else "",
            )
        return Group(Text(self._headline(states, left)), table)

    def _headline(self, states: Sequence[RunState], left: float | None) -> str:
        counts = Counter(state.state for state in states)
        parts = [f"{counts['finished']} of {len(states)} runs finished"]
        parts += [f"{counts[name]} {name}" for name in ("failed", "running", "elsewhere", "waiting") if counts[name]]
        if counts["waiting"] and not self._began_one:  # they import torch, which takes seconds
            parts.append(_STARTING)
        parts.append(f"{duration(time.monotonic() - self._began)} so far")
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def _say(self, states: Sequence[RunState], left: float | None) -> None:
        """Print a line when a run ends or is resumed, and from time to time an experience of a long run."""
        now, ended = time.monotonic(), sum(state.state in ("finished", "failed") for state in states)
        if not self._said:
            self._said = {i: (_key(state), state.done, now) for i, state in enumerate(states)}
            if any(state.state == "waiting" for state in states):
                self._console.print(_STARTING, highlight=False)
        for i, state in enumerate(states):
            key, done, when = self._said[i]
            progressed = key == _key(state) and state.done != done and now - when > _QUIET
            if _key(state) == key and not progressed:
                continue
            self._said[i] = (_key(state), state.done, now)
            if state.state in ("waiting", "running") and not progressed and not state.note:
                continue
            words = [f"[{ended}/{len(states)}] {state.title}", state.note or state.state]
            if state.accuracy is not None:
                words.append(f"experience {state.done}/{state.total} · accuracy {_percent(state.accuracy)}")
            if left:
                words.append(f"about {duration(left)} left")
            self._console.print(" · ".join(words), markup=False, highlight=False, soft_wrap=True)


def _key(state: RunState) -> str:
    return f"{state.state} {state.note}"


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.1f} %"
