"""The commands ``clsim list`` and ``clsim show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clsim.cli.console import out
from clsim.errors import InputError, nearest
from clsim.spec import components, registry
from clsim.spec.options import options_of
from clsim.spec.taxonomy import leaves

WIDE = 120
"""Columns of a terminal that selectors need to stand in a table."""


def list_(
    kind: Annotated[
        str | None, typer.Argument(help="What to list: scenarios, strategies, studies, selectors … (default: all).")
    ] = None,
    taxonomy: Annotated[
        bool, typer.Option("--taxonomy", help="List what can choose labels, by what it goes by.")
    ] = False,
) -> None:
    """List what clsim ships: a line for each name, with its paper."""
    if taxonomy:
        if kind is not None:
            raise InputError(f"list: found {kind!r} with --taxonomy, allowed: one of them")
        _print_taxonomy(Console(emoji=False))
        return
    kinds = [*registry.FILES, "datasets", *components.COMPONENTS]
    if kind is not None and kind not in (*kinds, "buffers"):
        raise InputError(f"list: unknown kind {kind!r}; {nearest(kind, [*kinds, 'buffers'])}")
    console = Console(emoji=False)
    for shown in [kind] if kind else kinds:
        entries = registry.entries(shown)
        if kind is not None and shown in ("selectors", "buffers"):
            _print_selectors(entries, console)
            continue
        marked = "[/] · they read hidden labels, to show what there is to gain" if shown == "bounds" else ""
        table = Table(title=f"[bold]{shown}{marked}", title_justify="left", box=None, pad_edge=False, show_header=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(ratio=1)
        for entry in entries:
            paper = f" [dim]· {escape(entry.paper)}" if entry.paper else ""
            table.add_row(escape(entry.name), escape(_plain(entry.title)) + paper)
        console.print(table, "")


def _print_selectors(entries: list[registry.Entry], console: Console) -> None:
    """Print selectors by family: what each keeps, needs and costs, and its paper; in columns if the console is wide."""
    others: dict[str, list[str]] = {}
    for alias, name in components.ALIASES.items():
        others.setdefault(name, []).append(alias)
    wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False, show_header=wide, header_style="dim")
    table.add_column("", style="cyan", min_width=12, max_width=26)
    table.add_column("keeps" if wide else "", ratio=5)
    for column, ratio in (("", 1), ("needs", 2), ("cost", 3), ("paper", 5)) if wide else ():
        table.add_column(column, style="dim", ratio=ratio)
    families = dict.fromkeys(entry.family for entry in entries)
    for family in families:
        table.add_row(f"[bold white]{escape(family or 'installed')}")
        for entry in (e for e in entries if e.family == family):
            name = escape(", ".join([entry.name, *others.get(entry.name, [])]))
            title, needs, cost, paper = (
                escape(_plain(text)) for text in (entry.title, entry.needs, entry.cost, entry.paper)
            )
            asks = "label" if registry.acquires(entry.name) else ""
            if wide:
                table.add_row(name, title, asks, needs, cost, paper)
                continue
            further = " · ".join(text for text in (asks, f"needs {needs}" if needs else "", cost) if text)
            lines = [title, *(f"[dim]{text}[/]" for text in (further, paper) if text)]
            table.add_row(name, "\n".join(lines))
        table.add_row()
    console.print(table)
    console.print("[dim]label: can choose what to label (--label).[/]")
    console.print("[dim]Inside one another, as in per_class(kcenter):[/]")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(ratio=1)
    for entry in registry.combinators():
        table.add_row(escape(entry.name), escape(_plain(entry.title)))
    console.print(table)


def _print_taxonomy(console: Console) -> None:
    """Print the leaves of the taxonomy under their branches, with the names of each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(ratio=2)
    table.add_column(style="cyan", ratio=3)
    before = ""
    for branch, leaf, names in leaves():
        if branch != before:
            table.add_row(f"[bold]{escape(branch)}")
        table.add_row(f"  {escape(leaf)}", escape(", ".join(names)))
        before = branch
    console.print(table)
    console.print("[dim]Our grouping; a name stands once, where its main idea is. --label NAME asks with it.[/]")


def _plain(text: str) -> str:
    """Remove the marks of docstrings and the full stop."""
    return text.replace("``", "").rstrip(".")


def show(
    name: Annotated[str, typer.Argument(help="A name that `clsim list` shows, or the folder of a run.")],
) -> None:
    """Show the file behind a name and where its code is; or the results of a run and each attempt of its controller."""
    if Path(name, "spec.json").is_file():
        _show_run(Path(name))
        return
    found = False
    for kind in registry.FILES:
        if name in registry.file_names(kind) or name.endswith(".toml"):
            path = registry.find_file(kind, name)
            out.print(f"[bold]{kind}[/] {escape(str(path))}\n")
            out.print(path.read_text(encoding="utf-8"), markup=False)
            tables = registry.read_toml(path)
            for component, key in (("learners", "learner"), ("selectors", "memory"), ("models", "model")):
                table = tables.get(key)  # in a study, `memory` is a list of sizes
                named = table if isinstance(table, dict) else {}
                value = named.get("buffer" if key == "memory" else "name", "none")
                if value in components.COMPONENTS[component]:
                    out.print(f"{key} {value!r}: {registry.place(component, value)}", markup=False, highlight=False)
            found = True
            if name.endswith(".toml"):
                return
    for component, known in components.COMPONENTS.items():
        if name in (*known, *(components.ALIASES if component == "selectors" else ())) or ":" in name:
            out.print(f"[bold]{component}[/] {escape(name)}: {escape(registry.place(component, name))}")
            options = options_of(registry.component(component, name)).values()
            if options:
                out.print(", ".join(str(o.replace(annotation=o.empty)) for o in options), markup=False)
            found = True
            if ":" in name:
                return
    if not found:
        every = [entry.name for kind in [*registry.FILES, *components.COMPONENTS] for entry in registry.entries(kind)]
        raise InputError(f"show: unknown name {name!r}; {nearest(name, every)}")


def _show_run(folder: Path) -> None:
    from clsim.records.overview import stored
    from clsim.reporting.stored import show_run

    run = stored(folder.resolve())
    if run.record is None and run.state == "half done":
        raise InputError(f"{folder}: holds no record so far; run it to the end of its first experience")
    show_run(run, out)
