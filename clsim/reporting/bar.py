"""The bar that shows progress on a terminal or in a notebook."""

from __future__ import annotations

from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def bar(console: Console, *fields: str) -> Progress:
    """Make a bar that disappears at its end, and that only a terminal shows, or a notebook that has ipywidgets.

    Args:
        console: The console to write to.
        fields: The names of the texts between the bar and the time that is left; each task gives them.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        *(TextColumn(f"{{task.fields[{field}]}}", markup=False) for field in fields),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        expand=True,
        disable=not (console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)),
    )
