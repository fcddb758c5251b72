"""Short names of arms and of other labels, for figures and tables: names that differ stay different."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace

from clsim.reporting.cells import Key
from clsim.reporting.listing import Listing

IN_FIGURES, IN_TABLES = 28, 32
"""Largest width of a name in a figure and in a table, in characters."""


def arms(names: Sequence[str], keys: Iterable[Key], most: int = IN_FIGURES) -> dict[Key, str]:
    """Name each arm by what differs between the arms.

    Args:
        names: the columns that the labels of an arm are from; a number is shown with the last word of its column.
        keys: the labels of each arm.
        most: largest width of a name.

    >>> arms(("strategy", "buffer", "training.epochs"), [("er", "random", "2"), ("er", "./my/own.py:net2", "2")])
    {('er', 'random', '2'): 'random', ('er', './my/own.py:net2', '2'): './my/own.py:net2'}
    """
    every = list(dict.fromkeys(keys))
    told = [i for i in range(len(names)) if len({key[i] for key in every}) > 1]
    if not told:  # a single arm, or none
        told = [i for i in range(len(names)) if any(key[i] != "–" for key in every)][:1]
    found: dict[Key, str] = {}
    for dash in ({"–"}, set[str]()):  # without dashes, if two arms are still told apart
        words = {key: [_word(names[i], key[i]) for i in told if key[i] not in dash] for key in every}
        found = {key: " ".join(of) or "–" for key, of in words.items()}
        if len(set(found.values())) == len(every):
            break
    short = shortened(found.values(), most)
    return {key: short[name] for key, name in found.items()}


def _word(name: str, value: str) -> str:
    """Write a setting that is no word by itself with the name of its key."""
    plain = re.fullmatch(r"[-+.\deE%\s]+|True|False|\[.*\]|\{.*\}", value)
    return f"{name.rpartition('.')[2]} {value}" if "." in name and plain else value


def shortened(names: Iterable[str], most: int) -> dict[str, str]:
    """Shorten the names that are wider than ``most``: without folders, then around that in which they differ.

    >>> shortened(["er", "./a/very/long/path/to/mine.py:net", "./a/very/long/path/to/mine.py:other"], 16)["er"]
    'er'
    >>> list(shortened(["./a/very/long/path/to/mine.py:net", "./a/very/long/path/to/mine.py:other"], 16).values())
    ['mine.py:net', 'mine.py:other']
    """
    every = list(dict.fromkeys(names))
    found = {name: name for name in every if width(name) <= most}
    left = [name for name in every if name not in found]
    for ways in (_without_folders, _around_the_difference):
        cut = dict(zip(left, ways(left, most), strict=True))
        taken = [*found.values(), *cut.values()]
        fits = {name: text for name, text in cut.items() if width(text) <= most and taken.count(text) == 1}
        found |= fits
        left = [name for name in left if name not in fits]
    taken_names, number = set(found.values()), 0
    for name in left:
        text = ""
        while not text or text in taken_names:
            number += 1
            text = f"{_elided(_without_folders([name], most)[0], max(most - len(str(number)) - 2, 1))} #{number}"
        found[name] = text
        taken_names.add(text)
    return {name: found[name] for name in every}


def width(text: str) -> int:
    """Count the columns that a text takes; East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _without_folders(names: Sequence[str], most: int) -> list[str]:
    return [re.sub(r"[^\s()=,]*/(?=[^/])", "", name) for name in names]


def _around_the_difference(names: Sequence[str], most: int) -> list[str]:
    """Leave out the middle, or, where that would leave what all have in common, the beginning and the end."""
    bare = _without_folders(names, most)
    middles = [_elided(name, most) for name in bare]
    if len(set(middles)) == len(set(bare)):
        return middles
    first, last = _common(bare), _common([name[::-1] for name in bare])
    parts = [name[max(first - 4, 0) : max(len(name) - last, first) + 4] for name in bare]
    return [_elided(f"…{part}…", most) for part in parts]


def _common(names: Sequence[str]) -> int:
    """Count the characters that all names begin with."""
    return sum(1 for _ in itertools.takewhile(lambda found: len(set(found)) == 1, zip(*names, strict=False)))


def _elided(text: str, most: int) -> str:
    """Cut the middle out of a text that is wider than ``most``."""
    if width(text) <= most:
        return text
    head, tail = "", ""
    for c in text:
        if width(head + c) > most // 3:
            break
        head += c
    for c in reversed(text):
        if width(head + c + tail) > most - 1:
            break
        tail = c + tail
    return f"{head}…{tail}"


def in_short(listing: Listing, most: int = IN_TABLES) -> tuple[Listing, dict[str, str]]:
    """Shorten the labels and headings of a listing; also return name → short name, for those that were shortened."""
    labels = [label for line in listing.lines for label in line.labels]
    labels += [label for column in listing.columns for label in column]
    short = {name: text for name, text in shortened(labels, most).items() if name != text}

    def said(text: str) -> str:
        for name in sorted(short, key=len, reverse=True):
            text = text.replace(name, short[name])
        return text

    lines = [replace(line, labels=[short.get(label, label) for label in line.labels]) for line in listing.lines]
    columns = [tuple(short.get(label, label) for label in column) for column in listing.columns]
    made = replace(listing, lines=lines, columns=columns, title=said(listing.title), notes=[*map(said, listing.notes)])
    return made, short
