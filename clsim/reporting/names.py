"""Short names of arms and of other labels, for figures and tables: names that differ stay different."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clsim.reporting.cells import Key

IN_FIGURES, IN_TABLES = 28, 40
"""Largest width of a name in a figure and in a table, in characters."""


def arms(names: Sequence[str], keys: Iterable[Key], most: int = IN_FIGURES) -> dict[Key, str]:
    """Name each arm by what differs between the arms.

    Of the settings (columns such as ``training.epochs``), those that tell no more arms apart are left out, and so is
    the value that most arms have.

    Args:
        names: the columns that the labels of an arm are from.
        keys: the labels of each arm.
        most: largest width of a name.

    >>> arms(("strategy", "buffer", "training.epochs"), [("er", "random", "2"), ("er", "./own.py:net2", "2")])
    {('er', 'random', '2'): 'random', ('er', './own.py:net2', '2'): './own.py:net2'}
    >>> arms(("label", "buffer"), [("badge", "random"), ("random", "badge")])
    {('badge', 'random'): 'label badge buffer random', ('random', 'badge'): 'label random buffer badge'}
    >>> arms(("strategy", "training.epochs"), [("er", "2"), ("er", "9"), ("gem", "2")])
    {('er', '2'): 'er', ('er', '9'): 'er epochs 9', ('gem', '2'): 'gem'}
    """
    every = list(dict.fromkeys(keys))
    columns = dict(enumerate(zip(*every, strict=True)))
    told = [i for i, name in enumerate(names) if not _is_setting(name) and len({*columns.get(i, ())}) > 1]
    for i, name in enumerate(names):
        if _is_setting(name) and _apart(every, [*told, i]) > _apart(every, told):
            told.append(i)
    if not told:  # a single arm, or none
        told = [i for i, values in columns.items() if {*values} != {"–"}][:1]
    usual = {i: Counter(columns[i]).most_common(1)[0][0] for i in told if _is_setting(names[i])}
    both = {"label", "buffer"} <= {names[i] for i in told}  # which of two selectors does what

    def joined(key: Key, *, whole: bool, bare: bool) -> str:
        """Write the labels of an arm; without dashes and usual values unless ``whole``, without folders if ``bare``."""
        kept = [i for i in told if whole or key[i] not in ("–", usual.get(i))]
        words = [_word(names[i], key[i], named=both) for i in kept]
        return " ".join(map(_bare, words) if bare else words) or "–"

    found: dict[Key, str] = {}
    for whole, bare in itertools.product((False, True), repeat=2):
        this = {key: joined(key, whole=whole, bare=bare) for key in every}
        if len(set(this.values())) == len(every):
            found = found or this
            if all(width(name) <= most for name in this.values()) or bare:
                found = this
                break
    found = found or {key: " · ".join(key) for key in every}
    short = shortened(found.values(), most)
    return {key: short[name] for key, name in found.items()}


def arms_in_tables(names: Sequence[str], keys: Iterable[Key], between: str) -> dict[Key, str]:
    """Name each arm by all of its labels, or as :func:`arms` does if that is too wide for a column."""
    every = list(dict.fromkeys(keys))
    both = {"label", "buffer"} <= {name for i, name in enumerate(names) if any(key[i] != "–" for key in every)}

    def word(name: str, value: str) -> str:
        return f"{name} {value}" if both and name in ("label", "buffer") else value

    joined = {
        key: between.join(word(*pair) for pair in zip(names, key, strict=True) if pair[1] != "–") for key in every
    }
    if len(set(joined.values())) < len(every) or "" in joined.values():
        joined = {key: between.join(key) for key in every}
    return joined if all(width(name) <= IN_TABLES for name in joined.values()) else arms(names, every, IN_TABLES)


def _is_setting(name: str) -> bool:
    return ("." in name and name != "batch.selector") or name in ("sources", "revisions")


def _apart(keys: Sequence[Key], told: Sequence[int]) -> int:
    """Count the arms that some of their labels tell apart."""
    return len({tuple(key[i] for i in told) for key in keys})


def _word(name: str, value: str, *, named: bool) -> str:
    """Write a setting that is no word by itself with the name of its key; if ``named``, a selector, too."""
    if named and name in ("label", "buffer") and value != "–":
        return f"{name} {value}"
    plain = re.fullmatch(r"[-+.\deE%\s]+|True|False|\[.*\]|\{.*\}", value)
    return f"{name.rpartition('.')[2]} {value}" if _is_setting(name) and plain else value


def shortened(names: Iterable[str], most: int) -> dict[str, str]:
    """Shorten the names that are wider than ``most``: without folders, then around that in which they differ.

    Control characters, for which a font has no glyph and which a terminal would obey, become spaces.

    >>> shortened(["er", "./a/very/long/path/to/mine.py:net", "./a/very/long/path/to/mine.py:other"], 16)["er"]
    'er'
    >>> list(shortened(["./a/very/long/path/to/mine.py:net", "./a/very/long/path/to/mine.py:other"], 16).values())
    ['mine.py:net', 'mine.py:other']
    """
    every = list(dict.fromkeys(names))
    found = {name: name for name in every if width(name) <= most and name.isprintable()}
    left = [name for name in every if name not in found]
    for way in (_as_they_are, _without_folders, _with_short_words, _around_the_difference):
        cut = dict(zip(left, way([*map(printable, left)], most), strict=True))
        counts = Counter([*found.values(), *cut.values()])
        fits = {name: text for name, text in cut.items() if width(text) <= most and counts[text] == 1}
        found |= fits
        left = [name for name in left if name not in fits]
    taken, number = set(found.values()), 0
    for name in left:
        text = ""
        while not text or text in taken:
            number += 1
            text = f"{_elided(_bare(printable(name)), max(most - len(str(number)) - 2, 1))} #{number}"
        found[name] = text
        taken.add(text)
    return {name: found[name] for name in every}


def printable(text: str) -> str:
    """Replace control characters, line breaks among them, by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def width(text: str) -> int:
    """Count the columns that a text takes; East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _bare(name: str) -> str:
    """Leave out the folders of paths; those of a path that begins as one may hold spaces."""
    name = re.sub(r"(?:^|(?<=[\s(=,]))\.{0,2}/(?:[^()=,]*/)?(?=[^/])", "", name)
    return re.sub(r"[^\s()=,]*/(?=[^/])", "", name)


def _as_they_are(names: Sequence[str], most: int) -> list[str]:
    return [*names]


def _without_folders(names: Sequence[str], most: int) -> list[str]:
    return [_bare(name) for name in names]


def _with_short_words(names: Sequence[str], most: int) -> list[str]:
    """Cut the middle out of every long word."""
    return [re.sub(r"[^\s()=,:]+", lambda word: _elided(word[0], max(most // 3, 8)), _bare(name)) for name in names]


def _around_the_difference(names: Sequence[str], most: int) -> list[str]:
    """Cut the middle out, or, of names that this would make equal, what they have in common."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_elided(_bare(name), most), []).append(_bare(name))
    made = []
    for name in names:
        text, group = _elided(_bare(name), most), alike[_elided(_bare(name), most)]
        if len(group) > 1:
            bare = _bare(name)
            start = max(_common(group) - 4, 0)
            end = max(len(bare) - _common([other[::-1] for other in group]), start) + 4
            text = _elided("…" * (start > 0) + bare[start:end] + "…" * (end < len(bare)), most)
        made.append(text)
    return made


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
