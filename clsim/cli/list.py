"""The command ``clsim list``."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from clsim.errors import InputError
from clsim.reporting.names import printable
from clsim.spec import described
from clsim.spec.described import Description
from clsim.spec.taxonomy import leaves

WIDE = 120
"""Columns of a terminal that ``--long`` needs for a table."""

NOTES = {
    "bounds": "they read hidden labels, to show what there is to gain",
    "combinators": "selectors of selectors, as in per_class(kcenter)",
    "selectors": "label: can choose what to label",
    "tables": "of a spec: --set TABLE.KEY=VALUE",
}
"""What stands beside the heading of a kind."""


def list_(
    kind: Annotated[
        str | None, typer.Argument(help="What to list: scenarios, selectors, metrics … (default: all).")
    ] = None,
    long: Annotated[bool, typer.Option("--long", help="Also show what each needs, its cost and its paper.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known of each, as JSON.")] = False,
    taxonomy: Annotated[
        bool, typer.Option("--taxonomy", help="List what can choose labels, by what it goes by.")
    ] = False,
) -> None:
    """List all that has a name: a line for each; `clsim show NAME` says more."""
    console = Console(emoji=False, highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to fit into
        console = Console(file=console.file, emoji=False, highlight=False, width=1000)
    if taxonomy:
        if kind is not None or long or as_json:
            found = kind if kind is not None else "--long" if long else "--json"
            raise InputError(f"list: found {found!r} with --taxonomy, allowed: one of them")
        _print_taxonomy(console)
        return
    try:
        named = None if kind is None else described.kind_named(kind)
    except InputError as error:
        raise InputError(f"list: {error}") from None
    kinds = described.KINDS if named is None else ("selectors", "condensers") if named == "buffers" else (named,)
    found = {
        one: [described.describe(one, name, whole=as_json) for name in described.names(one)] for one in kinds
    }
    if as_json:
        every = [dataclasses.asdict(entry) for entries in found.values() for entry in entries]
        print(json.dumps(every, indent=1, ensure_ascii=False))
        return
    for one, entries in found.items():
        note = f" · {NOTES[one]}" if one in NOTES else ""
        console.print(Text.assemble((one, "bold"), (note, "dim")))
        console.print(_long(entries, console) if long else _short(entries, console.width))
        console.print()


def _short(entries: list[Description], width: int) -> Text:
    """Make a line for each name, cut where it does not fit."""
    names = [printable(entry.name) for entry in entries]
    widest = max(map(cell_len, names), default=0)
    marks = any(entry.kind == "selectors" for entry in entries)
    lines = []
    for name, entry in zip(names, entries, strict=True):
        mark = ("label  " if entry.can_label else " " * 7) if marks else ""
        between = " " * (widest - cell_len(name) + 2)
        line = Text.assemble((name, "cyan"), between, (mark, "dim"), printable(entry.title))
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return Text("\n").join(lines)


def _long(entries: list[Description], console: Console) -> RenderableType:
    """Make a row for each name, by family: what it is, needs and costs, and its paper; columns if there is room."""
    wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False, show_header=wide, header_style="dim")
    table.add_column("", style="cyan", min_width=12, max_width=26)
    table.add_column("", ratio=5)
    for column, ratio in (("", 1), ("needs", 2), ("cost", 3), ("paper", 5)) if wide else ():
        table.add_column(column, style="dim", ratio=ratio)
    family = ""
    for entry in entries:
        if entry.family != family:
            family = entry.family
            table.add_row(Text(printable(family or "installed"), style="bold white"))
        name = Text(printable(", ".join([entry.name, *entry.aliases])))
        label = "label" if entry.can_label else ""
        further = [label, entry.needs, entry.cost, entry.source]
        if wide:
            table.add_row(name, *(Text(printable(text)) for text in (entry.title, *further)))
            continue
        lines = " · ".join(text for text in (label, f"needs {entry.needs}" if entry.needs else "", entry.cost) if text)
        below = [Text(printable(text), style="dim") for text in (lines, entry.source) if text]
        table.add_row(name, Group(Text(printable(entry.title)), *below))
    return table


def _print_taxonomy(console: Console) -> None:
    """Print the leaves of the taxonomy under their branches, with the names of each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(ratio=2)
    table.add_column(style="cyan", ratio=3)
    before = ""
    for branch, leaf, names in leaves():
        if branch != before:
            table.add_row(Text(branch, style="bold"))
        table.add_row(Text(f"  {leaf}"), Text(", ".join(names)))
        before = branch
    console.print(table)
    console.print("[dim]Our grouping; a name stands once, where its main idea is. --label NAME asks with it.[/]")
