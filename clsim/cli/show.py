"""The command ``clsim show``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from clsim.cli.console import in_lines, names_of, out
from clsim.errors import InputError, nearest
from clsim.reporting.names import printable
from clsim.reporting.screen import Screen, plain
from clsim.spec import described, registry
from clsim.spec.described import Description

WIDEST = 100
"""Columns that prose takes at most; longer lines are hard to read."""

INDENT = 8
"""Columns of the words before the facts."""


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name of `clsim list`, or its kind, or the folder of a run.",
            autocompletion=names_of(*described.KINDS),
        ),
    ],
    further: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The name, where its kind is given.",
            autocompletion=names_of(*described.KINDS),
        ),
    ] = None,
) -> None:
    """Show what a name means, with options, needs, cost, paper and an example; or the results of a run.

    A name of several kinds shows all of them, and KIND NAME one. Code of your own is shown too, as in ./mine.py:pick.
    """
    if further is None and Path(name, "spec.json").is_file():
        _show_run(Path(name))
        return
    try:
        found = _found(name, further)
    except InputError as error:
        raise InputError(f"show: {error}") from None
    console = Screen(emoji=False, highlight=False, file=out.file)
    for i, description in enumerate(found):
        if i:
            console.rule(style="dim")
        _print(description, console)


def _found(name: str, further: str | None) -> list[Description]:
    """Describe what is asked for: a name in each of its kinds, or in one."""
    if further is None:
        return _of_any_kind(name)
    kind = described.kind_named(name)
    if registry.taken_apart(further)[1]:
        return _of_any_kind(further)
    try:
        return [described.describe(kind, further)]
    except InputError:
        others = described.kinds_of(further)
        if not others or kind in others:
            raise
        raise InputError(f"{kind}: unknown name {further!r}, found among {' and '.join(others)}") from None


def _of_any_kind(name: str) -> list[Description]:
    """Describe a name in each of its kinds; a combination of selectors part by part."""
    combinator, inner = registry.taken_apart(name)
    if inner:
        parts = [*([combinator] if combinator != "condensed" else []), *(one for one in inner if not one.isdecimal())]
        return list(dict.fromkeys(description for part in parts for description in _of_any_kind(part)))
    if kinds := described.kinds_of(name):
        return [described.describe(kind, name) for kind in kinds]
    if ":" in name:
        raise InputError(_why_not(name))
    try:
        kind = described.kind_named(name)
    except InputError:
        every = [known for one in described.KINDS for known in described.names(one)]
        raise InputError(f"unknown name {name!r}; {nearest(name, every, 'a name of `clsim list`')}") from None
    raise InputError(f"{name!r} is a kind; allowed: clsim show {name} NAME, or clsim list {kind}")


def _why_not(name: str) -> str:
    """Say why code of one's own has no kind: the file or the name is not there, or its parameters are of none."""
    registry.load(name, "code")
    return f"the parameters of {name!r} tell no kind; allowed: clsim show KIND {name}"


def _print(found: Description, console: Console) -> None:
    """Print what it is, prose, options and facts; what people copy is not wrapped."""
    width = min(console.width, WIDEST)
    console.print(Text.assemble((printable(found.name), "bold cyan"), (f"  {_singular(found.kind)}", "dim")))
    console.print(plain(found.title, "bold"), width=width)
    for paragraph in filter(None, found.text.split("\n\n")):
        console.print()
        console.print(_marked(paragraph), width=width)
    if found.options:
        console.print()
        console.print(_options(found), width=width)
    if found.parts:
        console.print()
        console.print(_named(found, console.width))
    if facts := _facts(found):
        console.print()
        console.print(_grid([(Text(word, style="bold"), _marked(text)) for word, text in facts]), width=width)
    console.print()
    where = "File" if found.tables else "Code"
    for word, text in ((where, found.place), ("Try", found.example)):
        if text:
            style = "cyan" if word == "Try" else ""
            console.print(Text.assemble((f"{word:<{INDENT}}", "bold"), (printable(text), style)), soft_wrap=True)
    if found.tables:
        console.print()
        _print_file(found.tables, console)


def _singular(kind: str) -> str:
    """
    >>> _singular("selectors"), _singular("studies")
    ('selector', 'study')
    """
    return kind.removesuffix("ies") + "y" if kind.endswith("ies") else kind.removesuffix("s")


def _grid(rows: list[tuple[Text, Text]], least: int = INDENT - 2) -> Table:
    """Make two columns: a word, and what is said of it."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=least)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _options(found: Description) -> Group:
    """List the options: values and default, and what each means."""
    rows, implied = [], dict(text.split("=", 1) for text in found.implies)
    flag = {"labelling": "--label", "batch": "--batch"}.get(found.options_in.partition(".")[0], "--buffer")
    for option in found.options:
        default = f"default {option.default}" if option.default else "no default: it must be given"
        if other := implied.get(f"{found.options_in}.{option.name}"):
            default += f"; {other} with {flag} {found.name}"
        values = plain(f"{option.kind}; {default}", "dim")
        rows.append((plain(option.name, "cyan"), Text("\n").join([values, _marked(option.says)])))
    key = f"{found.options_in}.NAME=VALUE"
    return Group(Text.assemble(("Options", "bold"), (f"  --set {key}" if found.options_in else "", "dim")), _grid(rows))


def _named(found: Description, width: int) -> Text:
    """List what a file names, a line for each."""
    rows = []
    for kind, name in found.parts:
        title = described.describe(kind, name, whole=False).title
        rows.append([(name, "cyan"), (_singular(kind), "dim"), (title, "")])
    return Text("\n").join([Text("It names", style="bold"), in_lines(rows, width)])


def _facts(found: Description) -> list[tuple[str, str]]:
    """List what is known besides."""
    label = f"it can choose what to label: --label {found.name}" if found.can_label else ""
    batch = f"it can choose the samples of a step: --batch {found.name}" if found.can_batch else ""
    sets = [text for text in found.implies if not text.startswith(f"{found.options_in}.")]
    facts = [("Also", ", ".join(found.aliases)), ("Needs", found.needs), ("Cost", found.cost)]
    facts += [("Sets", ", ".join(sets)), ("Label", label), ("Batch", batch), ("Paper", found.source)]
    return [(word, text) for word, text in facts if text]


def _marked(text: str) -> Text:
    """Style what stands in backticks as code; lines stay, as formulas have them."""
    lines = [re.split("`", printable(line)) for line in text.split("\n")]
    return Text("\n").join(
        Text.assemble(*((part, "cyan" if i % 2 else "") for i, part in enumerate(parts))) for parts in lines
    )


def _print_file(text: str, console: Console) -> None:
    """Print what a TOML file sets, in colours where a person reads it."""
    lines = "\n".join(map(printable, _in_short(text).split("\n")))
    if console.is_terminal:
        console.print(Syntax(lines, "toml", theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        console.print(Text(lines), soft_wrap=True)


def _in_short(text: str) -> str:
    r"""Leave out what is printed above the file already, and all but the first of tables that repeat.

    >>> print(_in_short('title = "A"\n[[row]]\nx = 1\n[[row]]\nx = 2\n[a]\nb = 1\n'))
    [[row]]
    x = 1
    # and 1 more [[row]]
    [a]
    b = 1
    """
    found = dict[str, list[str]]()
    for block in re.split(r"^(?=\[)", _SAID.sub("", text), flags=re.MULTILINE):
        match = re.match(r"\[\[.*\]\]", block)
        found.setdefault(match[0] if match else block, []).append(block)
    parts = []
    for header, (first, *others) in found.items():
        more = f"# and {len(others)} more {header}\n" if others and header.startswith("[[") else "".join(others)
        blank = "\n" * (first.endswith("\n\n") and bool(others))
        parts.append(first.rstrip("\n") + "\n" + more + blank if others else first)
    return "".join(parts).strip()


_SAID = re.compile(r'^(?:title|paper|description) = (?:"""(?:.|\n)*?"""|".*")\n', re.MULTILINE)


def _show_run(folder: Path) -> None:
    from clsim.records.overview import stored
    from clsim.reporting.stored import show_run

    run = stored(folder.resolve())
    if run.record is None and run.state == "half done":
        raise InputError(f"{folder}: holds no record so far; run it to the end of its first experience")
    show_run(run, out)
