"""Tables for a paper: booktabs, the best in bold, and every character that LaTeX would interpret escaped."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence

from clsim.reporting.cells import BEST, TIED, Key
from clsim.reporting.listing import Line, Listing, Mark

PREAMBLE = "% \\usepackage{booktabs}\n"

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
    **{c: f"$\\{word}$" for c, word in GREEK.items()},
}
"""Character that LaTeX interprets, or that its own fonts lack → how it is written."""


ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
LETTERS = "ßæÆøØœŒłŁı"
"""With the accents above: the letters that every LaTeX since 2018 takes in UTF-8, in its default font encoding."""


def to_latex(listing: Listing, label: str) -> str:
    """Write a table environment with its caption, to be put into a document as it is.

    Args:
        label: name of the table, which becomes ``tab:…``; all but letters and digits become hyphens.
    """
    lines = [
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_caption(listing)}}}",
        f"  \\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', label).strip('-')}}}",
        f"  \\begin{{tabular}}{{{'l' * len(listing.names)}{'r' * len(listing.columns)}}}",
        "    \\toprule",
        *(f"    {line}" for line in _header(listing.names, listing.columns)),
        "    \\midrule",
    ]
    papers = False
    for line in listing.lines:
        if line.source and not papers and line is not listing.lines[0]:
            lines.append("    \\midrule")
        papers = bool(line.source)
        lines.append(f"    {_row(line)}")
    return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}"]) + "\n"


def comment(names: tuple[str, str]) -> str:
    """Write a line that LaTeX does not set, with a name and the short one in its place."""
    name, short = ("".join(c if c.isprintable() else " " for c in text) for text in names)
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


def _caption(listing: Listing) -> str:
    """Write the caption: title, notes, marks."""
    parts = [escaped(listing.title[:1].upper() + listing.title[1:]) + "."]
    for note in listing.notes:
        legend = note.startswith(f"{BEST} ")  # the note on the marks; LaTeX has better ones
        parts.append("Bold" + escaped(note[1:]).replace(escaped(TIED), TIE, 1) if legend else escaped(note))
    if any(line.source for line in listing.lines):
        parts.append("$^{\\dagger}$: published, with the number of its source.")
    return " ".join(parts)


def _header(names: Sequence[str], columns: Sequence[Key]) -> list[str]:
    """Write a line for each level; neighbours that share all upper levels share a heading with a rule below."""
    depth = len(columns[0]) if columns else 1
    lines = []
    for level in range(depth):
        left = [escaped(name) if level == depth - 1 else "" for name in names]
        heads, rules, at = [], [], len(names) + 1
        for shared, part in itertools.groupby(columns, key=lambda column: column[: level + 1]):
            size = len(list(part))
            if level == depth - 1:
                heads += [escaped(shared[-1])] * size
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
    shown = re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped(text))
    return f"\\textbf{{{shown}}}" if look == "best" else shown + (TIE if look == "tied" else "")
