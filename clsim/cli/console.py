"""What the commands share: consoles, options, words for counts and times, and names that the shell completes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.text import Text

from clsim.reporting.names import printable
from clsim.reporting.screen import Screen

out = Screen(soft_wrap=True, emoji=False)  # a path such as mine.py:pick: holds no emoji
err = Screen(stderr=True, soft_wrap=True, emoji=False)

Runs = Annotated[Path, typer.Option("--runs", help="Folder that holds all runs.", rich_help_panel="Where")]


def in_lines(rows: Iterable[Sequence[tuple[str, str]]], width: int) -> Text:
    """Put rows of cells into columns: a line for each row, cut with … where it does not fit.

    Args:
        rows: for each cell its text, of which control characters become spaces, and its style.
        width: the columns of the console.

    >>> print(in_lines([[("er", ""), ("Experience replay", "")], [("joint", ""), ("All at once", "")]], 20))
    er     Experience r…
    joint  All at once
    """
    cells = [[(printable(text), style) for text, style in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*([text for text, _ in row] for row in cells), strict=True)]
    lines = []
    for row in cells:
        line = Text()
        for (text, style), wide in zip(row, widths, strict=True):
            line.append(text, style)
            line.append(" " * (wide - cell_len(text) + 2 * (wide > 0)))
        line.rstrip()
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return Text("\n").join(lines)


def names_of(*kinds: str, several: bool = False) -> Callable[[str], list[str]]:
    """Make the function that typer calls to complete a name.

    Args:
        kinds: kinds of names, as ``clsim list`` takes them.
        several: whether names are separated by commas; the last one is completed then.
    """

    def complete(incomplete: str) -> list[str]:
        from clsim.spec.described import names  # for completion only

        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        known = dict.fromkeys(name for kind in kinds for name in names(kind))
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


def words_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Make the function that completes one of a few words."""
    known = tuple(words)

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


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
