"""The consoles that the commands print to, and the words for counts and times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clsim.cli.completion import names_of

out = Console(soft_wrap=True, emoji=False)  # a path such as mine.py:pick: holds no emoji
err = Console(stderr=True, soft_wrap=True, emoji=False)

Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds all runs.", rich_help_panel="Where")]

Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="Also show this metric: ./file.py:attr, module:attr, or a shipped name; may be repeated.",
        autocompletion=names_of("metrics"),
    ),
]


def count(number: int, what: str = "run") -> str:
    """
    >>> count(1), count(24), count(5, "experience")
    ('1 run', '24 runs', '5 experiences')
    """
    return f"{number} {what}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """
    >>> duration(8), duration(200), duration(9000)
    ('8 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
