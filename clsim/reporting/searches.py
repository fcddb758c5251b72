"""What a controller tried and what it chose, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    what = "fine-tuning" if tried.phase == "plasticity" else _values(tried.values)
    return f"{what} · lr {tried.lr:g}" if what else f"lr {tried.lr:g}"


def lines(search: Search, heading: str) -> Iterator[Text]:
    """A search at a glance: the rates, what is needed, and the trade-offs until one reached it.

    Args:
        heading: says which experience.
    """
    margin = Text(" " * len(heading))
    rates = [a for a in search.attempts if a.phase == "plasticity"]
    others = [a for a in search.attempts if a.phase != "plasticity"]
    best = next(i for i, a in enumerate(rates) if a.accuracy == search.best)
    tried = []
    for i, a in enumerate(rates):
        mark = " ←" if i == best else ""
        tried.append(Text(f"{a.lr:g}: {_percent(a.accuracy)}{mark}", style="bold" if i == best else "dim"))
    yield Text.assemble((heading, "bold"), "  fine-tuning at lr   ", _joined(tried))
    kept = search.kept
    if kept.phase == "once":
        yield Text.assemble(margin, "  trained once        ", (trial(kept), "bold"), f": {_percent(kept.accuracy)}")
        return
    yield Text.assemble(margin, f"  must reach          {_percent(kept.needed)}")
    names = ", ".join(map(plain, kept.values))
    tried = [Text(f"{_numbers(a)}: {_percent(a.accuracy)}{_MARKS[a.decision][0]}", _look(a)) for a in others]
    yield Text.assemble(margin, f"  {names:<18}  ", _joined(tried))


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
    for name, side in (("task", "right"), ("trained", "left"), ("validation, %", "right"), ("needed, %", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    table.add_column("decision")
    for name in ("steps", "forward passes", "seconds"):
        table.add_column(name, justify="right")
    for search in found:
        for a in search.attempts:
            table.add_row(
                str(search.experience + 1),
                Text(plain(trial(a))),
                f"{100 * a.accuracy:.1f}",
                f"{100 * a.needed:.1f}" if a.phase == "stability" else "",
                Text(a.decision, style=_look(a)),
                *(f"{a.cost.get(name, 0):,}" for name in ("steps", "forward_passes")),
                f"{a.seconds:.1f}",
            )
        table.add_section()
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _numbers(attempt: Attempt) -> str:
    return ", ".join(f"{value:g}" for value in attempt.values.values())


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _moved(first: float | None, kept: float | None) -> str:
    if first is None or kept is None:
        return "–"
    return f"{kept:g}" if first == kept else f"{first:g} → {kept:g}"


def _look(attempt: Attempt) -> str:
    style = _MARKS[attempt.decision][1]
    return f"bold {style}" if attempt.final else style


def _joined(parts: Sequence[Text]) -> Text:
    return Text(" · ", style="dim").join(parts)
