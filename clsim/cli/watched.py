"""The line that shows how far a choice is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from clsim.pool.pool import Cost


@contextlib.contextmanager
def watched(cost: Cost, console: Console, said: Callable[[], str] = lambda: "") -> Any:
    """Show, on a terminal, a line with the progress of proxies and selection.

    Args:
        cost: the counters.
        console: where the line is shown.
        said: says how far the choice is otherwise; empty: the line counts samples.
    """
    if not console.is_terminal:
        yield
        return
    started = time.perf_counter()

    def line() -> Text:
        proxy = f"training a proxy: {cost.proxy_steps:,} steps · " if cost.proxy_steps else ""
        done = said() or f"{cost.forward_passes:,} samples passed"
        return Text(f"{proxy}{done} · {time.perf_counter() - started:.0f} s", "dim")

    with Live(get_renderable=line, console=console, transient=True, refresh_per_second=4):
        yield
