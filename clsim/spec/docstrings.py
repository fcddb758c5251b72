"""Docstrings as what they say: a title, prose, a line for each parameter; and needs, cost and source of a component."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring, in plain text: code stands in single backticks.

    Attributes:
        title: the first paragraph, without marks and without its full stop.
        text: the prose after it: paragraphs, with an empty line between them; formulas keep their lines.
        args: the line of each parameter or attribute by its name.
        needs: what a selector asks of its pool, or an acquisition of its learner.
        cost: what it costs in time and memory.
        source: the paper.
    """

    title: str = ""
    text: str = ""
    args: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    cost: str = ""
    source: str = ""


def parsed(text: str | None) -> Docstring:
    r"""Take a docstring apart.

    >>> said = parsed("Keep ``b``.\n\nIn order.\n\nArgs:\n    last: whether\n        the last.\n\nNeeds: labels.")
    >>> said.title, said.text, said.args, said.needs
    ('Keep b', 'In order.', {'last': 'whether the last.'}, 'labels')
    """
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))
    title = _line(paragraphs[0]).replace("`", "").rstrip(".")
    prose, args, said = list[str](), dict[str, str](), dict[str, str]()
    for paragraph in paragraphs[1:]:
        first = paragraph.partition("\n")[0]
        if first in _LISTS:
            args |= _args(paragraph) if first in _NAMED else {}
        elif _SAYS.match(paragraph):
            said |= {key: _line(value) for key, value in _SAYS.findall(paragraph)}
        elif not paragraph.lstrip().startswith(">>>"):
            prose.append(_plain(paragraph) if paragraph[0] == " " else _line(paragraph))
    prose = [one for one in prose if one not in _MARKS]
    for mark in _MARKS:
        title = title.removesuffix(f". {mark.rstrip('.')}")
    return Docstring(
        title,
        "\n\n".join(prose),
        args,
        said.get("Needs", "").rstrip("."),
        said.get("Cost", "").rstrip("."),
        said.get("Source", "").rstrip("."),
    )


_NAMED = ("Args:", "Attributes:")
_LISTS = (*_NAMED, "Raises:", "Returns:", "Yields:")
_MARKS = ("Final.", "Abstract.")
"""What the house says of classes, and users need not read."""
_SAYS = re.compile(r"^(Needs|Cost|Source): (.*?)(?=\n(?:Needs|Cost|Source): |\Z)", re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"^    (\S[^:\n]*): (.*?)(?=^    \S|\Z)", re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r":\w+:`[~.]?([^`]+)`")


def _args(paragraph: str) -> dict[str, str]:
    """Read the lines of parameters; two that share a line have it both."""
    return {name: _line(says) for names, says in _ENTRY.findall(paragraph) for name in re.split(r",\s*", names.strip())}


def _line(text: str) -> str:
    return " ".join(_plain(text).split())


def _plain(text: str) -> str:
    """Replace the marks of reStructuredText.

    >>> _plain("``a`` of :func:`b.c`, (n, \\\\*shape)")
    '`a` of `b.c`, (n, *shape)'
    """
    return _ROLE.sub(r"`\1`", text).replace("``", "`").replace("\\*", "*")
