"""What the commands share: consoles, options, words for counts and times, and names that the shell completes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console(soft_wrap=True, emoji=False)  # a path such as mine.py:pick: holds no emoji
err = Console(stderr=True, soft_wrap=True, emoji=False)

Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds all runs.", rich_help_panel="Where")]


def names_of(*kinds: str, several: bool = False) -> Callable[[str], list[str]]:
    """Make the function that typer calls to complete a name.

    Args:
        kinds: kinds of names, as ``clsim list`` takes them, or ``metrics``.
        several: whether names are separated by commas; the last one is completed then.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        known = dict.fromkeys(name for kind in kinds for name in _names(kind))
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


def words_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Make the function that completes one of a few words."""
    known = tuple(words)

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def _names(kind: str) -> list[str]:
    from clsim.spec import registry

    if kind == "datasets":
        from clsim.spec.sources import DATASETS

        return list(DATASETS)
    if kind == "metrics":
        from clsim.records.metrics import ALL

        return [*ALL, *registry.component_names(kind)]
    return registry.file_names(kind) if kind in registry.FILES else registry.component_names(kind)


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
