"""The command ``clsim list``."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from clsim.cli.console import in_lines, words_of
from clsim.errors import InputError
from clsim.reporting.screen import Screen, plain
from clsim.spec import described
from clsim.spec.described import Description
from clsim.spec.taxonomy import leaves

WIDE = 120
"""Columns of a terminal that ``--long`` needs for a table."""

NOTES = {
    "bounds": "they read hidden labels, to show what there is to gain",
    "combinators": "selectors of selectors, as in per_class(kcenter)",
    "pruners": "they leave samples out of whole epochs (--batch)",
    "selectors": "* can choose what to label (--label), + a batch (--batch)",
    "tables": "of a spec: --set TABLE.KEY=VALUE",
}
"""What stands beside the heading of a kind."""


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"What to list (default: all): {', '.join(described.KINDS)}.",
            autocompletion=words_of(described.KINDS),
        ),
    ] = None,
    long: Annotated[bool, typer.Option("--long", help="Also show what each needs, its cost and its paper.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all that is known of each, as JSON.")] = False,
    taxonomy: Annotated[
        bool, typer.Option("--taxonomy", help="List what can choose labels, by what it goes by.")
    ] = False,
) -> None:
    """List all that has a name: a line for each; `clsim show NAME` says more."""
    console = Screen(emoji=False, highlight=False)
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
    every = [_described(one, name, as_json) for one in kinds for name in described.names(one)]
    if as_json:
        print(json.dumps(list(map(dataclasses.asdict, every)), indent=1))
        return
    room = console.width if console.is_terminal else sys.maxsize  # a file or a pipe has no width to fit into
    for one in kinds:
        entries = [entry for entry in every if entry.kind == one]
        note = f"· {NOTES[one]}" if one in NOTES else ""
        note = note.replace("*", "label:").replace("+", "batch:") if long else note
        console.print(in_lines([[(one, "bold"), (note, "dim")]], room), soft_wrap=True)
        console.print(_long(entries, console.width) if long else _short(entries, room), soft_wrap=not long)
        console.print()


def _described(kind: str, name: str, whole: bool) -> Description:
    """Describe a name; one that cannot be read hides no other, and says why."""
    try:
        return described.describe(kind, name, whole=whole)
    except InputError as error:
        return Description(kind, name, f"cannot be read: {error}")


def _short(entries: list[Description], width: int) -> Text:
    """Make a line for each name."""
    marked = any(entry.kind == "selectors" for entry in entries)
    rows = []
    for entry in entries:
        mark = [("*" * entry.can_label + "+" * entry.can_batch, "")] if marked else []
        rows.append([(entry.name, "cyan"), *mark, (entry.title, "")])
    return in_lines(rows, width)


def _long(entries: list[Description], width: int) -> RenderableType:
    """Make a row for each name, by family: what it is, needs and costs, and its paper; columns if there is room."""
    wide = width >= WIDE
    table = Table(box=None, pad_edge=False, show_header=wide, header_style="dim")
    table.add_column("", style="cyan", min_width=12, max_width=26)
    table.add_column("", ratio=5)
    for column, ratio in (("", 1), ("needs", 2), ("cost", 3), ("paper", 5)) if wide else ():
        table.add_column(column, style="dim", ratio=ratio)
    family = ""
    for entry in entries:
        if entry.family != family:
            family = entry.family
            table.add_row(plain(family or "installed", "bold white"))
        name = plain(", ".join([entry.name, *entry.aliases]))
        label = " ".join(["label"] * entry.can_label + ["batch"] * entry.can_batch)
        further = [label, entry.needs, entry.cost, entry.source]
        if wide:
            table.add_row(name, *(plain(text) for text in (entry.title, *further)))
            continue
        lines = " · ".join(text for text in (label, f"needs {entry.needs}" if entry.needs else "", entry.cost) if text)
        below = [plain(text, "dim") for text in (lines, entry.source) if text]
        table.add_row(name, Group(plain(entry.title), *below))
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
