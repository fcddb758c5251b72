"""Tables and tests as text in rows and columns, ready for any format."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from clsim.reporting.cells import BEST, TIED, Cell, Key, Table, decimals
from clsim.reporting.comparisons import Contest, Ranks
from clsim.reporting.grids import mark
from clsim.reporting.names import IN_TABLES, arms_in_tables, shortened, width

Mark = Literal["", "best", "tied"]

Noted = TypeVar("Noted", bound=Any)
"""A dataclass with a ``title`` and ``notes``."""

SIGNS: dict[Mark, str] = {"": "", "best": BEST, "tied": TIED}
"""What stands behind a number."""

SENTENCE = 34
"""Largest width of a number in a table of numbers, in characters; what is wider is a text."""

MOST_NAMED = 3
"""Most titles that a note on several tables names; of more, their number is said."""

ARROWS = {True: "↑", False: "↓"}
"""Whether higher is better → what stands behind the heading of a metric in a table of several."""

WIDEST = 12
"""Most arms whose wins over each other are shown as a matrix; of more, only the sums are shown."""


@dataclass(frozen=True)
class Line:
    """A row: its labels and its entries.

    Attributes:
        looks: marks of the entries; empty: no entry has one.
        source: number of the paper that the row is from; 0 = ours.
    """

    labels: Sequence[str]
    entries: Sequence[str]
    looks: Sequence[Mark] = ()
    source: int = 0

    @property
    def marked(self) -> list[tuple[str, Mark]]:
        """Entries with their marks."""
        return list(zip(self.entries, self.looks or [""] * len(self.entries), strict=True))

    @property
    def own_labels(self) -> list[str]:
        """Labels without the mark of a paper's row."""
        return [label.removesuffix(f" {mark(self.source)}") if i == 0 else label for i, label in enumerate(self.labels)]


@dataclass(frozen=True)
class Listing:
    """A title, a header, lines and notes.

    Attributes:
        names: headings of the labels, on the left.
        columns: headings of the entries; one text for each level, all of equal depth.
        key: a short name, for references in a document; empty: the title.
    """

    title: str
    names: Sequence[str]
    columns: Sequence[Key]
    lines: Sequence[Line]
    notes: Sequence[str]
    key: str = ""

    @property
    def header(self) -> list[str]:
        """Headings of all columns, one text for each."""
        return [*self.names, *(" · ".join(column) for column in self.columns)]


def gathered(said: Sequence[tuple[str, Sequence[str]]], every: str = "") -> list[str]:
    """Say the notes of several parts once; a note of some of them names these, but those on marks and on sources.

    Args:
        said: title and notes of each part.
        every: stands before the notes of all parts.

    >>> gathered([("accuracy", ["3 seeds."]), ("forgetting", ["3 seeds.", "Of tasks."])])
    ['3 seeds.', 'forgetting: Of tasks.']
    """
    titles: dict[str, list[str]] = {}
    for title, notes in said:
        for note in dict.fromkeys(notes):
            titles.setdefault(note, []).append(title)
    found = []
    for note, of in titles.items():
        some = "; ".join(of) if len(of) <= MOST_NAMED else f"{len(of)} of {len(said)}"
        whose = every if len(of) == len(said) else f"{some}: "
        found.append(note if note.startswith((f"{BEST} ", "published [")) else whose + note)
    return found


def once(parts: Sequence[Noted], every: str) -> tuple[list[Noted], list[str]]:
    """Take the notes that several parts have in common out of them; also return these, to be said once for all.

    Args:
        every: stands before the notes of all parts.
    """
    counts = Counter(note for part in parts for note in dict.fromkeys(part.notes))
    common = [(part.title, [note for note in part.notes if counts[note] > 1]) for part in parts]
    own = [replace(part, notes=[note for note in part.notes if counts[note] == 1]) for part in parts]
    return own, gathered(common, every)


def said_below(parts: Sequence[Listing]) -> list[Listing]:
    """Say the notes that several tables in a row have in common once, below the last of them."""
    own, common = once(parts, f"All {len(parts)} tables: ")
    return [*own[:-1], replace(own[-1], notes=[*own[-1].notes, *common])] if common else own


def of_table(table: Table) -> Listing:
    """List the cells of a table as text; a dash stands where nothing was run."""
    lines = []
    for key, found in table.rows.items():
        here = [found.get(column, Cell()) for column in table.columns]
        looks: list[Mark] = ["best" if cell.best else "tied" if cell.tied else "" for cell in here]
        lines.append(Line(key, [str(cell) for cell in here], looks, table.published.get(key, 0)))
    columns = [column or (table.title,) for column in table.columns]
    return Listing(table.title, table.row_names, columns, lines, table.notes, table.metric if table.directions else "")


def of_contest(contest: Contest) -> Listing:
    """List the pairs of a condition, a line for each."""
    where = ", ".join(f"{name} {value}" for name, value in zip(contest.condition_names, contest.condition, strict=True))
    head = ["seeds", "difference [95 %]", "p", "p, Holm", "p, Wilcoxon–Holm", "won–lost", "seeds needed"]
    head += ["p, Games–Howell"] if contest.unpaired else []
    named, lines = arms_in_tables(contest.arm_names, contest.arms, " · "), []
    for pair in contest.pairs:
        known = math.isfinite(pair.p)
        digits = decimals(*([pair.difference, pair.low, pair.high] if known else [pair.difference]))
        interval = f" [{pair.low:+,.{digits}f}, {pair.high:+,.{digits}f}]" if known else ""
        entries = [
            str(pair.n),
            f"{pair.difference:+,.{digits}f}{interval}" if pair.n else "–",
            *(_p(p) for p in (pair.p, pair.p_holm, pair.p_wilcoxon_holm)),
            f"{pair.wins}–{pair.losses}",
            str(pair.seeds_needed) if pair.seeds_needed else "–",
        ]
        lines.append(
            Line((named[pair.a], named[pair.b]), entries + ([_p(pair.p_games_howell)] if contest.unpaired else []))
        )
    notes = [
        "Difference: mean of a − b over common seeds, with its t interval. Two-sided paired t and signed-rank tests, "
        "corrected over the pairs shown; below six seeds no signed-rank test can reach p < 5 %. Seeds needed: with "
        "which the paired t test finds such a difference at 5 % with a chance of 80 %.",
    ]
    if len(contest.arms) > 2:
        notes.append(
            f"Kruskal–Wallis over {len(contest.arms)} arms: H = {contest.kruskal:.2f}, p {_is(contest.p_kruskal)}."
        )
    if len(contest.pairs) < len(contest.arms) * (len(contest.arms) - 1) // 2:
        notes.append(f"{len(contest.arms)} arms: each is compared with the best only.")
    return Listing(
        f"{contest.title}: paired tests{f' ({where})' if where else ''}", ("a", "b"), [(h,) for h in head], lines, notes
    )


def of_ranks(ranks: Ranks) -> Listing:
    """List average ranks, groups of arms that cannot be told apart, and wins over each other."""
    size = len(ranks.arms)
    head = ["average rank", "group", "won", "lost"]
    head += [f"won over {i}" for i in range(1, size + 1)] if size <= WIDEST else []
    named, lines = arms_in_tables(ranks.arm_names, [*ranks.arms, *ranks.left_out], " · "), []
    for i, arm in enumerate(ranks.arms):
        lost = sum(ranks.wins[j][i] for j in range(size))
        letters = "".join(_letter(n) for n, (first, last) in enumerate(_groups(ranks)) if first <= i <= last)
        entries = [f"{ranks.average[i]:.2f}", letters, str(sum(ranks.wins[i])), str(lost)]
        entries += ["·" if i == j else str(ranks.wins[i][j]) for j in range(size)] if size <= WIDEST else []
        lines.append(Line((str(i + 1), named[arm]), entries))
    names = ranks.condition_names
    blocks = "seeds of the one condition" if names == ("seed",) else f"conditions ({', '.join(names)})"
    notes = [
        f"Friedman over {len(ranks.conditions)} {blocks}: "
        f"χ² = {ranks.statistic:.2f}, p {_is(ranks.p)}. Arms that share a letter cannot be told apart at 5 % (Nemenyi: "
        f"critical difference {ranks.critical_difference:.2f}). Won, lost: comparisons of means in a condition."
    ]
    scenarios = [condition[names.index("scenario")] for condition in ranks.conditions if "scenario" in names]
    if len(set(scenarios)) < len(scenarios):
        notes.append("Conditions of one scenario share its data: they are no independent blocks, and p is too small.")
    if ranks.left_out:
        notes.append(
            f"Left out, as they lack some of the conditions: {'; '.join(named[arm] for arm in ranks.left_out)}."
        )
    return Listing(f"{ranks.title}: ranks", ("#", " · ".join(ranks.arm_names)), [(h,) for h in head], lines, notes)


def in_short(listing: Listing, most: int = IN_TABLES) -> tuple[Listing, dict[str, str]]:
    """Shorten the labels and headings of a listing; also return name → short name, for those that were shortened."""
    labels = [label for line in listing.lines for label in line.labels]
    labels += [label for column in listing.columns for label in column if not label.endswith((*ARROWS.values(),))]
    short = {name: text for name, text in shortened(labels, most).items() if name != text}

    def said(text: str) -> str:
        for name in sorted(short, key=len, reverse=True):
            text = text.replace(name, short[name])
        return text

    lines = [replace(line, labels=[short.get(label, label) for label in line.labels]) for line in listing.lines]
    columns = [tuple(short.get(label, label) for label in column) for column in listing.columns]
    made = replace(listing, lines=lines, columns=columns, title=said(listing.title), notes=[*map(said, listing.notes)])
    return made, short


def fitting(shown: Listing, room: int) -> list[Listing]:
    """Divide a table of numbers that is wider than a terminal into tables below each other, with the same labels.

    Args:
        room: the width of the terminal, in characters.
    """
    labels = sum(
        3 + max(map(width, [name, *of])) for name, of in _columns(shown.names, [o.labels for o in shown.lines])
    )
    entries = _columns([" · ".join(column) for column in shown.columns], [line.entries for line in shown.lines])
    needed = [5 + max(map(width, [*head.split(), *of])) for head, of in entries]
    parts: list[list[int]] = [[]]
    for i, size in enumerate(needed):
        if parts[-1] and labels + sum(needed[j] for j in parts[-1]) + size + 1 > room:
            parts.append([])
        parts[-1].append(i)
    if len(parts) == 1 or labels > room * 0.6 or max(needed) > SENTENCE:  # texts are folded instead
        return [shown]
    return [_some(shown, part, "" if i == 0 else ", continued") for i, part in enumerate(parts)]


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, list[str]]]:
    return [(head, [row[i] for row in rows]) for i, head in enumerate(heads)]


def _some(shown: Listing, kept: Sequence[int], ending: str) -> Listing:
    """Keep some columns of a table."""
    lines = [
        replace(
            line, entries=[line.entries[i] for i in kept], looks=[line.looks[i] for i in kept] if line.looks else ()
        )
        for line in shown.lines
    ]
    return replace(shown, title=shown.title + ending, columns=[shown.columns[i] for i in kept], lines=lines)


def _groups(ranks: Ranks) -> list[tuple[int, int]]:
    """Return the bars of the diagram, and a bar for each arm that none covers."""
    alone = [(i, i) for i in range(len(ranks.arms)) if not any(a <= i <= b for a, b in ranks.bars)]
    return sorted([*ranks.bars, *alone])


def _letter(number: int) -> str:
    letters = string.ascii_lowercase
    return letters[number] if number < len(letters) else f"({number + 1})"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _is(value: float) -> str:
    text = _p(value)
    return text if text.startswith("<") else f"= {text}"
