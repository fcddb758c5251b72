"""Tables for a paper: booktabs, the best in bold, and every character that LaTeX would interpret escaped.

No table is wider than its place in a two-column page: a wide one spans both columns and is scaled down to them.
"""

from __future__ import annotations

import itertools
import re
import string
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from clsim.reporting.cells import BEST, TIED, Key
from clsim.reporting.listing import Line, Listing, Mark, in_short
from clsim.reporting.names import printable, width

PREAMBLE = "% \\usepackage{array,booktabs,graphicx}\n"
"""The packages that tables need, as a comment; all are part of every LaTeX."""

COLUMN = 220.0
"""Widest table that stands in one column, in points: a little less than that of a two-column article."""

WORDY = 34
"""Most characters of an entry that stays on one line; a column with longer ones breaks its lines."""

GAP = 12.0
"""White beside the entries of a column, both sides together, in points."""

TIE = "$^{\\sim}$"

GREEK = {c: unicodedata.name(c).split()[-1].lower().replace("lamda", "lambda") for c in "αβγδεζηθικλμνξπρστφχψω"}

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "`": r"\symbol{96}",
    "[": "{[}",  # \\[ at the start of a row would be a length
    "]": "{]}",
    "*": "{*}",  # and \\* a command of its own
    **{c: f"\\{c}" for c in "{}$&#_%"},
    "–": "--",
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "…": r"\dots{}",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "†": r"$\dagger$",
    "′": "$'$",
    "²": "$^2$",
    "³": "$^3$",
    "°": r"$^{\circ}$",
    "√": r"$\surd$",
    "Σ": r"$\Sigma$",
    "Ω": r"$\Omega$",
    "Δ": r"$\Delta$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    **{c: f"$\\{word}$" for c, word in GREEK.items()},
}
"""Character that LaTeX interprets, or that its own fonts lack → how it is written."""


ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
LETTERS = "ßæÆøØœŒłŁı"
"""With the accents above: the letters that every LaTeX since 2018 takes in UTF-8, in its default font encoding."""


def captioned(listings: Sequence[Listing], name: str) -> list[str]:
    """Write tables one after the other, with the short names in them explained in comments.

    What an earlier caption has said is not said again: the caption names the first table that says it.

    Args:
        name: the beginning of all labels.
    """
    lines: list[str] = []
    said: dict[str, str] = {}
    for listing in listings:
        if not listing.lines:
            lines += [f"% {printable(listing.title)}: {printable(note)}" for note in listing.notes]
            continue
        label = f"{name}-{listing.key or listing.title}"
        like = next((said[note] for note in listing.notes if note in said), "")
        own = [note for note in listing.notes if said.get(note, "") != like or not like]
        said |= {note: label for note in own if note not in said}
        brief, short = in_short(replace(listing, notes=own))
        lines += [*map(comment, short.items()), to_latex(brief, label, like)]
    return lines


def to_latex(listing: Listing, label: str, like: str = "") -> str:
    """Write a table environment with its caption, to be put into a document as it is.

    A table that is too wide for a column of a two-column page is a ``table*``, scaled down where it is wider than the
    page. Long texts in a column are broken into lines.

    Args:
        label: name of the table, which becomes ``tab:…``; all but letters and digits become hyphens.
        like: the label of a table whose caption says how this one is to be read; empty: none.
    """
    kinds, wide = _kinds(listing)
    environment = "table*" if wide else "table"
    lines = [
        f"\\begin{{{environment}}}",
        "  \\centering",
        f"  \\caption{{{_caption(listing, like)}}}",
        f"  \\label{{{reference(label)}}}",
        *(["  \\sbox0{%"] if wide else []),
        f"  \\begin{{tabular}}{{{kinds}}}",
        "    \\toprule",
        *(f"    {line}" for line in _header(listing.names, listing.columns, _room(listing))),
        "    \\midrule",
    ]
    papers = False
    for line in listing.lines:
        if line.source and not papers and line is not listing.lines[0]:
            lines.append("    \\midrule")
        papers = bool(line.source)
        lines.append(f"    {_row(line)}")
    lines += ["    \\bottomrule", "  \\end{tabular}" + "}%" * wide]
    if wide:  # measured by LaTeX itself: what fits is not scaled
        lines.append("  \\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi")
    return "\n".join([*lines, f"\\end{{{environment}}}"]) + "\n"


def reference(label: str) -> str:
    """Make the name by which a document refers to a table.

    >>> reference("survey final accuracy, %")
    'tab:survey-final-accuracy'
    """
    return "tab:" + re.sub("[^A-Za-z0-9]+", "-", label).strip("-")


def _kinds(listing: Listing) -> tuple[str, bool]:
    """Return the kinds of a table's columns, and whether it is too wide for one column of a page."""
    labels = [[line.labels[i] for line in listing.lines] for i in range(len(listing.names))]
    entries = [[line.entries[i] for line in listing.lines] for i in range(len(listing.columns))]
    kinds, total = "", 0.0
    for texts, plain, share in [*((of, "l", 0.3) for of in labels), *((of, "r", 0.2) for of in entries)]:
        wordy = max(map(width, texts), default=0) > WORDY
        kinds += f">{{\\raggedright\\arraybackslash}}p{{{share}\\textwidth}}" if wordy else plain
        total += GAP + (COLUMN if wordy else max(map(points, texts), default=0))
    room = _room(listing)
    heads = [*map(points, listing.names), *(_above(listing.columns, i, room[i]) for i in range(len(listing.columns)))]
    return kinds, max(total, GAP * len(heads) + sum(heads)) > COLUMN


def _room(listing: Listing) -> list[int]:
    """Return how many characters of a heading stand on one line, for each column: about as many as below it."""
    return [max([14, *(width(line.entries[i]) for line in listing.lines)]) for i in range(len(listing.columns))]


def _broken(head: str, room: int) -> list[str]:
    """Break the heading of a column into lines."""
    head = re.sub(" (?=[↑↓]$)", "\u00a0", head)  # an arrow stays with its word
    return textwrap.wrap(head, room, break_long_words=False, break_on_hyphens=False) or [head]


def _above(columns: Sequence[Key], at: int, room: int) -> float:
    """Estimate the width of the headings of a column; one that several columns share is shared out."""
    of = columns[at]
    return max(
        max(map(points, _broken(head, room) if level == len(of) else [head]))
        / (sum(other[:level] == of[:level] for other in columns) if level < len(of) else 1)
        for level, head in enumerate(of, 1)
    )


def points(text: str) -> float:
    """Estimate the width of a text in points, set in LaTeX's font of ten points; rather too wide than too narrow.

    >>> points("62.0 ± 2.5") < points("average rank") < 70
    True
    """
    return sum(next((size for characters, size in SIZES if c in characters), 9.0) for c in text)


SIZES = (
    (string.digits + string.ascii_lowercase.translate(dict.fromkeys(map(ord, "fijlmrtw"))), 6.0),
    ("fijlrtI.,:;'|()[]{}!/ -", 4.0),
    ("mMwW@%&—…", 11.5),
)
"""Characters with their widths in points, bold; others are capitals, or signs."""


def comment(names: tuple[str, str]) -> str:
    """Write a line that LaTeX does not set, with a name and the short one in its place."""
    name, short = map(printable, names)
    return f"% {short} = {name}"


def escaped(text: str) -> str:
    r"""Escape text so that LaTeX sets it as it is; a character that its own fonts lack is named by its code point.

    >>> escaped("50%_\\input{x}")
    '50\\%\\_\\textbackslash{}input\\{x\\}'
    """
    apart = re.sub("(?<=-)(?=-)|(?<=')(?=')", "\0", text.replace("\0", " "))  # two in a row are a dash or a quote
    return "".join("{}" if c == "\0" else SPECIAL.get(c) or _character(c) for c in apart)


def _character(c: str) -> str:
    if c.isascii():
        return c if c.isprintable() else " "
    letter, accents = (parts := unicodedata.normalize("NFD", c))[0], parts[1:]
    known = len(accents) == 1 and accents in ACCENTS and letter.isascii() and ord(c) < 0x180
    if known or c in LETTERS:
        return c
    return f"\\texttt{{U+{ord(c):04X}}}" if c.isprintable() else " "


def _caption(listing: Listing, like: str) -> str:
    """Write the caption: title, notes, marks, and the table that says the rest."""
    parts = [escaped(listing.title[:1].upper() + listing.title[1:]) + "."]
    for note in listing.notes:
        legend = note.startswith(f"{BEST} ")  # the note on the marks; LaTeX has better ones
        parts.append("Bold" + escaped(note[1:]).replace(escaped(TIED), TIE, 1) if legend else escaped(note))
    if any(line.source for line in listing.lines):
        parts.append("$^{\\dagger}$: published, with the number of its source.")
    if like:
        parts.append(f"To be read as Table~\\ref{{{reference(like)}}}.")
    return " ".join(parts)


def _header(names: Sequence[str], columns: Sequence[Key], room: Sequence[int]) -> list[str]:
    """Write a line for each level; neighbours that share all upper levels share a heading with a rule below.

    Args:
        room: characters on a line of the lowest heading of each column; longer ones have several lines.
    """
    depth = len(columns[0]) if columns else 1
    lines = []
    for level in range(depth):
        left = [escaped(name) if level == depth - 1 else "" for name in names]
        heads, rules, at = [], [], len(names) + 1
        for shared, part in itertools.groupby(columns, key=lambda column: column[: level + 1]):
            size = len(list(part))
            if level == depth - 1:
                broken = [escaped(part) for part in _broken(shared[-1], room[at - len(names) - 1])]
                stacked = "\\shortstack[r]{" + " \\\\ ".join(broken) + "}"
                heads += [stacked if len(broken) > 1 else broken[0]] * size
            else:
                heads.append(f"\\multicolumn{{{size}}}{{c}}{{{escaped(shared[-1])}}}")
                rules.append(f"\\cmidrule(lr){{{at}-{at + size - 1}}}")
            at += size
        lines.append(" & ".join([*left, *heads]) + " \\\\")
        lines += [" ".join(rules)] if rules else []
    return lines


def _row(line: Line) -> str:
    labels = [escaped(label) for label in line.own_labels]
    if line.source:
        labels[0] += f"$^{{\\dagger{line.source}}}$"
    return " & ".join([*labels, *(_entry(text, look) for text, look in line.marked)]) + " \\\\"


def _entry(text: str, look: Mark) -> str:
    """Write an entry with its mark; its minus sign is not a hyphen."""
    shown = re.sub(r"(?<![\w.-])-(?=\d)", "$-$", escaped(text))
    return f"\\textbf{{{shown}}}" if look == "best" else shown + (TIE if look == "tied" else "")
