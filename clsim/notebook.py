"""What a notebook shows of things in hand: small tables in HTML, in which every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def facts(title: str, values: Mapping[str, object]) -> str:
    """Write a title, and a row for each value with its name; None is left out.

    >>> facts("<b>", {"n": 2, "m": None})
    '<div><strong>&lt;b&gt;</strong><table><tr><th style="text-align:left">n</th><td>2</td></tr></table></div>'
    """
    shown = {name: value for name, value in values.items() if value is not None}
    rows = (f'<tr><th style="text-align:left">{_text(name)}</th>{_cell(value)}</tr>' for name, value in shown.items())
    return f"<div><strong>{_text(title)}</strong><table>{''.join(rows)}</table></div>"


def grid(title: str, header: Sequence[object], rows: Iterable[Sequence[object]], notes: Sequence[str] = ()) -> str:
    """Write a title, a table with a header, and notes below it.

    >>> grid("", ["a"], [["<1"]])
    '<div><table><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;1</td></tr></tbody></table></div>'
    """
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    below = "".join(f"<div><small>{_text(note)}</small></div>" for note in notes)
    return f"<div>{f'<strong>{_text(title)}</strong>' if title else ''}{table}{below}</div>"


def _cell(value: object) -> str:
    return f"<td>{_text(value)}</td>"


def _text(value: object) -> str:
    return escape("".join(c if c.isprintable() else " " for c in str(value)))
