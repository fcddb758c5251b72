"""What a controller tried and what it chose, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from clsim.reporting.formats import plain
from clsim.tradeoff import Attempt, Search, Trial, read_search

_MARKS = {
    "best so far": ("", ""),
    "no better": ("", "dim"),
    "accepted": (" ✓", "green"),
    "decayed": (" ✗", "red"),
    "last": (" ✗ kept: no decay is left", "yellow"),
    "kept": (" ✓", "green"),
}
"""What stands behind an attempt's accuracy, and its look."""


def searches(record: Mapping[str, Any]) -> list[Search]:
    """Those of a record, which may have none."""
    return [read_search(found, "searches") for found in record.get("searches", ())]


def trial(tried: Trial | Attempt) -> str:
    """What is trained, in a few words."""
    return f"{_trained(tried)} · lr {tried.lr:g}"


def glance(search: Search, heading: str) -> list[tuple[str, str, Text]]:
    """A search in three lines: the rates, what is needed, and the trade-offs until one reached it.

    Args:
        heading: says which experience.
    """
    rates = [a for a in search.attempts if a.phase == "plasticity"]
    others = [a for a in search.attempts if a.phase != "plasticity"]
    tried = [
        Text(f"{a.lr:g}: {_percent(a.accuracy)}{' ←' if best else ''}", "bold" if best else "dim")
        for a, best in ((a, a is _best(search)) for a in rates)
    ]
    found = [(heading, "fine-tuning at lr", _joined(tried))]
    if search.kept.phase == "once":
        return [*found, ("", "trained once", Text(f"{trial(search.kept)}: {_percent(search.kept.accuracy)}", "bold"))]
    found.append(("", "must reach", Text(_percent(search.kept.needed))))
    tried = [Text(f"{_numbers(a)}: {_percent(a.accuracy)}{_MARKS[a.decision][0]}", _look(a)) for a in others]
    return [*found, ("", ", ".join(map(plain, search.kept.values)), _joined(tried))]


def summary(found: Sequence[Search]) -> Table:
    """A row an experience: what was chosen, and what it took. Accuracies are those of the validation part."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in ("task", "lr", "fine-tuned", "needed"):
        table.add_column(name, justify="right")
    names = list(dict.fromkeys(name for search in found for name in search.kept.values))
    for name in names:
        table.add_column(Text(plain(name)), justify="right")
    for name in ("reached", "tried", "seconds"):
        table.add_column(name, justify="right")
    for search in found:
        kept = search.kept
        first = next(a for a in search.attempts if a.phase != "plasticity")
        moved = [_moved(first.values.get(name), kept.values.get(name)) for name in names]
        reached = Text(_percent(kept.accuracy) + _MARKS[kept.decision][0][:2], _look(kept))
        table.add_row(
            str(search.experience + 1),
            f"{kept.lr:g}",
            _percent(search.best),
            _percent(kept.needed) if kept.phase == "stability" else "–",
            *moved,
            reached,
            str(len(search.attempts)),
            f"{search.seconds:.1f}",
        )
    return table


def trace(found: Sequence[Search]) -> Table:
    """Every attempt of every experience."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("task", justify="right")
    table.add_column("trained", no_wrap=True)
    for name in ("lr", "reached", "needed"):
        table.add_column(name, justify="right")
    table.add_column("decision", no_wrap=True)
    for name in ("steps", "seconds"):
        table.add_column(name, justify="right")
    for search in found:
        for a in search.attempts:
            table.add_row(
                str(search.experience + 1),
                Text(plain(_trained(a))),
                f"{a.lr:g}",
                _percent(a.accuracy),
                _percent(a.needed) if a.phase == "stability" else "",
                Text(_said(a, search), style=_look(a)),
                f"{a.cost.get('steps', 0):,}",
                f"{a.seconds:.1f}",
            )
        table.add_section()
    return table


def _best(search: Search) -> Attempt | None:
    """The fine-tuning whose rate was taken."""
    return next((a for a in search.attempts if a.phase == "plasticity" and a.accuracy == search.best), None)


def _said(attempt: Attempt, search: Search) -> str:
    if attempt.phase == "plasticity":
        return "best" if attempt is _best(search) else ""
    return attempt.decision


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _numbers(attempt: Attempt) -> str:
    return ", ".join(f"{value:g}" for value in attempt.values.values())


def _trained(tried: Trial | Attempt) -> str:
    if tried.phase == "plasticity":
        return "fine-tuning"
    return ", ".join(f"{name} {value:g}" for name, value in tried.values.items()) or "the method"


def _moved(first: float | None, kept: float | None) -> str:
    if first is None or kept is None:
        return "–"
    return f"{kept:g}" if first == kept else f"{first:g} → {kept:g}"


def _look(attempt: Attempt) -> str:
    style = _MARKS[attempt.decision][1]
    return f"bold {style}" if attempt.final else style


def _joined(parts: Sequence[Text]) -> Text:
    return Text(" · ", style="dim").join(parts)
