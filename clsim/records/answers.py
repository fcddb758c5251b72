"""An annotator's CSV files: ``file,label``, one row for each answer; an empty label is a skip.

Spreadsheets read and write them: the delimiter may be a comma, a semicolon or a tab, lines may end in CRLF, and a byte
order mark is accepted. A cell that a spreadsheet would take for a formula is written behind an apostrophe, which is
taken off again when it is read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clsim.errors import InputError, first_line
from clsim.records import regular
from clsim.records.atomic import write

HEADER = ("file", "label")

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


@dataclass(frozen=True)
class Answer:
    """One row of a CSV file.

    Attributes:
        file: the name in the column ``file``, as it was typed.
        label: the label; empty: the file is skipped.
        place: where the row stands, for messages.
    """

    file: str
    label: str
    place: str


def read(path: Path) -> list[Answer]:
    """Read the rows of a CSV file; empty lines are left out.

    Raises:
        InputError: if the file cannot be read, is no UTF-8 text, or is no CSV with the columns ``file`` and ``label``.
    """
    return _parsed(_text(path), path)[2]


def question(files: Sequence[str]) -> bytes:
    """Make the content of a CSV file that asks for the labels of ``files``."""
    return _encoded(_lines([HEADER, *((name, "") for name in files)], ",", "\n"))


def append(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Add rows (file, label) at the end of a CSV file, atomically; what it holds stays as it is, byte by byte.

    The file is made if it is not there.

    Raises:
        InputError: if the file is there, but is no such CSV file.
    """
    if not path.exists() or not path.stat().st_size:
        write(path, _encoded(_lines([HEADER, *rows], ",", "\n")))
        return
    text = _text(path)
    fields, delimiter, _ = _parsed(text, path)
    end = "\r\n" if "\r\n" in text else "\n"
    places = {name: at for at, name in enumerate(fields)}
    cells = []
    for row in rows:
        full = [""] * len(fields)
        for name, cell in zip(HEADER, row, strict=True):
            full[places[name]] = cell
        cells.append(full)
    between = "" if text.endswith(("\n", "\r")) else end
    write(path, path.read_bytes() + (between + _lines(cells, delimiter, end)).encode())


def guarded(cell: str) -> str:
    """Put an apostrophe before what a spreadsheet would take for a formula; a number stays as it is.

    >>> guarded("=1+1.png"), guarded("-1"), guarded("a.png"), guarded("'=a")
    ("'=1+1.png", '-1', 'a.png', "''=a")
    """
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def plain(cell: str) -> str:
    """Take off the apostrophe that :func:`guarded` puts before a cell.

    >>> plain("'=1+1.png"), plain("'tis.png"), plain("''=a")
    ('=1+1.png', "'tis.png", "'=a")
    """
    return cell[1:] if cell.startswith("'") and guarded(cell[1:]) == cell else cell


def _text(path: Path) -> str:
    try:
        content = regular.content(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); allowed: a CSV file") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no UTF-8 text; allowed: a CSV file, saved as “CSV UTF-8”") from None


def _parsed(text: str, path: Path) -> tuple[list[str], str, list[Answer]]:
    """Read the names of the columns, the delimiter and the rows."""
    head = next(iter(text.splitlines()), "")
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    fields: list[str] = []
    rows = []
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not fields:
                fields = [cell.strip().lower() for cell in cells]
                if any(fields.count(name) != 1 for name in HEADER):
                    raise InputError(f"{path}: found the first line {head[:60]!r}, allowed: file,label")
            elif not any(cell.strip() for cell in cells):
                continue
            elif len(cells) != len(fields):
                raise InputError(f"{where}: found {len(cells)} cells, allowed: {len(fields)}, as in the first line")
            else:
                label = plain(cells[fields.index("label")].strip())
                check_label(label, where)
                rows.append(Answer(cells[fields.index("file")], label, where))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is no CSV ({error}); allowed: rows file,label") from None
    if not fields:
        raise InputError(f"{path}: is empty, allowed: the first line file,label")
    return fields, delimiter, rows


def check_label(label: object, where: str) -> None:
    """Refuse a label that is no text, or holds line breaks or other control characters."""
    if not isinstance(label, str) or not label.isprintable():
        raise InputError(f"{where}: found the label {label!r:.60}, allowed: text without control characters")


def _lines(rows: Sequence[Sequence[str]], delimiter: str, end: str) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows([guarded(c) for c in row] for row in rows)
    return out.getvalue()


def _encoded(text: str) -> bytes:
    """Encode a new file; with a byte order mark where letters are not ASCII, since a spreadsheet guesses otherwise."""
    return text.encode("utf-8" if text.isascii() else "utf-8-sig")
