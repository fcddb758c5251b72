"""The consoles of clsim: nothing that a terminal would obey passes through them but their own styles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from clsim.reporting.names import printable


def plain(text: str, style: str = "") -> Text:
    """Make a line of text that others have written: it stays one line, and brackets in it are no markup."""
    return Text(printable(text), style)


class Screen(Console):
    """A console that prints text as text. Final.

    Names come from records, files and data of others. Control characters, the escapes of a terminal and marks that turn
    the direction of writing become spaces in everything that is printed; the end of a line is kept.

    >>> Screen(width=40).print("a\\x1b]0;title\\x07b \\u202ec")
    a ]0;titleb  c
    """

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """Yield what is printed, piece by piece; styles and moves of the cursor stand apart from text."""
        for piece in super().render(renderable, options):
            plain = piece.control or piece.text.isprintable() or piece.text == "\n"
            yield piece if plain else piece._replace(text="\n".join(map(printable, piece.text.split("\n"))))

    def say(self, line: str) -> None:
        """Print a line as it is: brackets are no markup, and line breaks in names do not make another line."""
        self.print(printable(line), markup=False, highlight=False, soft_wrap=True)
