"""The consoles that the commands print to, and the words for counts and times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console(soft_wrap=True, emoji=False)  # a path such as mine.py:pick: holds no emoji
err = Console(stderr=True, soft_wrap=True, emoji=False)

Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds all runs.", rich_help_panel="Where")]


def count(runs: int) -> str:
    """
    >>> count(1), count(24)
    ('1 run', '24 runs')
    """
    return f"{runs} run{'s' * (runs != 1)}"


def duration(seconds: float) -> str:
    """
    >>> duration(8), duration(200), duration(9000)
    ('8 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
