"""The command ``clsim show``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from clsim.cli.console import out
from clsim.errors import InputError, nearest
from clsim.reporting.names import printable
from clsim.spec import described, registry
from clsim.spec.described import Description, Option

WIDEST = 100
"""Columns that prose takes at most; longer lines are hard to read."""


def show(
    name: Annotated[str, typer.Argument(help="A name that `clsim list` shows, or its kind, or the folder of a run.")],
    further: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The name, after its kind.")] = None,
) -> None:
    """Show what a name means, with options, needs, cost, paper and an example; or the results of a run.

    A name of several kinds shows all of them, and KIND NAME one. Code of your own is shown too: ./file.py:attr.
    """
    if further is None and Path(name, "spec.json").is_file():
        _show_run(Path(name))
        return
    for i, found in enumerate(_found(name, further)):
        if i:
            out.print()
        _print(found)


def _found(name: str, further: str | None) -> list[Description]:
    try:
        if further is not None:
            return [described.describe(described.kind_named(name), further)]
        kinds = described.kinds_of(name)
    except InputError as error:
        raise InputError(f"show: {error}") from None
    if not kinds and ":" in name:
        raise InputError(f"show: {name!r}: its parameters do not tell its kind; allowed: clsim show KIND {name}")
    if not kinds:
        every = [known for kind in described.KINDS for known in described.names(kind)]
        raise InputError(f"show: unknown name {name!r}; {nearest(name, every)}")
    return [described.describe(kind, name) for kind in kinds]


def _print(found: Description) -> None:
    console = out
    console.print(Text.assemble((printable(found.name), "bold cyan"), (f" · {found.kind}", "dim")))
    console.print(Text(printable(found.title)))
    for paragraph in filter(None, found.text.split("\n\n")):
        console.print()
        console.print(_marked(paragraph))
    if found.options:
        console.print()
        console.print(Text("Options", style="bold"))
        for option in found.options:
            console.print(f"  {option}", markup=False)
    for word, text in (("Needs", found.needs), ("Cost", found.cost), ("Paper", found.source), ("At", found.place)):
        if text:
            console.print(Text(f"{word}: {printable(text)}"))
    console.print(Text(found.example))
    if found.tables:
        console.print(Text(found.tables))


def _marked(text: str) -> Text:
    return Text(printable(text))


def _show_run(folder: Path) -> None:
    from clsim.records.store import RunFolder
    from clsim.reporting import searches
    from clsim.reporting.finished import show_runs

    record = RunFolder(folder.resolve()).record()
    if record is None:
        raise InputError(f"{folder}: holds no record so far; run it to the end of its first experience")
    show_runs([record.data], out)
    if record.data.get("searches"):
        out.print(searches.trace(record.data))
    if record.data["command"]:
        out.print(record.data["command"], markup=False, highlight=False)
