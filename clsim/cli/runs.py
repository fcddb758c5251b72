"""The commands ``clsim runs``, ``clsim runs show``, ``clsim runs rm`` and ``clsim runs gc``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from clsim.cli.console import Runs, count, err, out, words_of
from clsim.errors import InputError
from clsim.reporting.screen import Screen

if TYPE_CHECKING:
    from clsim.records.overview import StoredRun
    from clsim.records.store import Store

Yes = Annotated[bool, typer.Option("--yes", help="Remove without asking.")]


class _ListFirst(TyperGroup):
    """Without the name of a command, the list is meant: ``clsim runs --failed``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        return super().parse_args(ctx, ["list", *args] if given else args)


app = typer.Typer(name="runs", cls=_ListFirst, add_completion=False, help="List, show and remove the runs of a folder.")


@app.command("list")
def list_(
    scenario: Annotated[list[str] | None, typer.Option(help="Only runs of this scenario.")] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="Only runs of this strategy.")] = None,
    buffer: Annotated[list[str] | None, typer.Option(help="Only runs with this buffer.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only runs whose labels this selector asked for.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only runs of this seed.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="table.key=value: only runs with this value; several values of one key are alternatives."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only runs that an error stopped.")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Only runs that are not finished, failed ones included.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="console (default), or parquet: a row for each finished run, with every column.",
            autocompletion=words_of(["console", "parquet"]),
        ),
    ] = "console",
    out_: Annotated[Path | None, typer.Option("--out", help="File to write (default: runs.parquet).")] = None,
) -> None:
    """List the runs of a folder, the latest last; every filter may be given several times."""
    from clsim.reporting import stored
    from clsim.spec.registry import canonical

    if format_ not in ("console", "parquet"):
        raise InputError(f"--format: found {format_!r}, allowed: console, parquet")
    if format_ == "console" and out_ is not None:
        raise InputError(f"--out: found {out_} with --format console, allowed: with --format parquet")
    if format_ == "parquet" and as_json:
        raise InputError("--json: found with --format parquet, allowed: one of them")
    if out_ is not None and out_.is_dir():
        raise InputError(f"--out: {out_} is a folder, allowed: a file")
    columns: dict[str, list[Any]] = {"scenario": scenario or [], "strategy": strategy or [], "seed": [*(seed or [])]}
    columns |= {
        name: [canonical(text) for text in given or []] for name, given in (("buffer", buffer), ("label", label))
    }
    for key, value in map(_pair, where or []):
        columns.setdefault(key, []).append(value)
    _, every = _found(runs)
    shown = stored.chosen(every, {column: values for column, values in columns.items() if values})
    if failed or unfinished:
        states = ("failed",) if failed else ("half done", "failed", "busy", "broken")
        shown = [run for run in shown if run.state in states]
    if format_ == "parquet":
        _write(
            [run.record.data for run in shown if run.record is not None and run.state == "finished"],
            out_ or Path("runs.parquet"),
        )
        return
    if as_json:
        print(json.dumps([stored.as_json(run) for run in shown]))
        return
    if not shown:
        _say(f"{runs}: none of {count(len(every))} fits" if every else f"{runs}: no runs; make some with `clsim run`")
        return
    _print(shown)
    if len(shown) < len(every):
        _say(f"{len(shown)} of {count(len(every))}")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run: its name or a part of it, its id or the beginning, its folder.")],
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Show a run: accuracy matrix, metrics, cost, settings of its own, versions, the command that makes it."""
    from clsim.records.overview import stored as at
    from clsim.reporting import stored

    folder = Path(run)
    found = at(folder.resolve()) if (folder / "spec.json").is_file() else _one(run, _found(runs)[1])
    if not as_json:
        stored.show_run(found, out)
    elif found.record is None:
        raise InputError(f"{found.folder}: holds no record that can be read; allowed with --json: a run that has one")
    else:
        print(json.dumps(dict(found.record.data)))


@app.command()
def rm(
    run: Annotated[list[str], typer.Argument(help="Runs: their names, their ids or the beginning, their folders.")],
    yes: Yes = False,
    runs: Runs = Path("runs"),
) -> None:
    """Remove runs from a folder; a run that a process is busy with stays."""
    store, every = _found(runs)
    gone = [_one(text, every, parts=False) for text in run]
    gone = list({found.fingerprint: found for found in gone}.values())
    for found in gone:
        if found.state == "busy":
            raise InputError(f"{found.folder}: another process is running this; wait for it, or stop it")
        if refusal := store.keeps(found.folder):
            raise InputError(f"{found.folder}: {refusal}")
    _remove(gone, store, yes)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Yes = False,
    runs: Runs = Path("runs"),
) -> None:
    """Remove failed and half-done runs; finished ones, those that a process is busy with and broken folders stay."""
    store, every = _found(runs)
    gone = [run for run in every if run.state in ("failed", "half done") and not store.keeps(run.folder)]
    if not gone:
        _say(f"{runs}: no failed and no half-done runs")
        return
    _remove(gone, store, yes, dry_run=dry_run)


def _write(records: Sequence[Any], path: Path) -> None:
    """Write the records as Parquet."""
    from clsim.records.atomic import write
    from clsim.reporting.formats import records_to_parquet

    if not records:
        raise InputError("--format parquet: none of the runs is finished; allowed: at least one")
    write(path, records_to_parquet(records))
    err.say(f"wrote {path}")


def _found(runs: Path) -> tuple[Store, list[StoredRun]]:
    from clsim.records.overview import overview
    from clsim.records.store import Store

    if not runs.is_dir():
        raise InputError(f"--runs: no folder {str(runs)!r}; make runs with `clsim run`, or name another folder")
    store = Store(runs)
    return store, overview(store)


def _one(text: str, runs: Sequence[StoredRun], *, parts: bool = True) -> StoredRun:
    """Find the run that a text names; if there are several, print them and refuse."""
    from clsim.records.overview import matching

    found = matching(runs, text, parts=parts)
    if len(found) == 1:
        return found[0]
    if found:
        _print(found)
        raise InputError(f"{text!r} names {count(len(found))}; allowed: one, by its id or its whole name")
    raise InputError(f"no run {text!r}; allowed: the name, the id or the folder of one that `clsim runs` lists")


def _remove(gone: Sequence[StoredRun], store: Store, yes: bool, *, dry_run: bool = False) -> None:
    from clsim.records.store import RunFolder

    sizes = {run.fingerprint: RunFolder(run.folder).bytes() for run in gone}
    _print(gone)
    what = f"{count(len(gone))}, {sum(sizes.values()):,} bytes"
    if dry_run:
        _say(f"would remove {what}")
        return
    if not yes and not typer.confirm(f"Remove {what}?", err=True):
        _say("nothing was removed")
        raise typer.Exit(1)
    for run in gone:
        store.remove(run.folder)
    _say(f"removed {what}")


def _pair(text: str) -> tuple[str, Any]:
    from clsim.spec.flags import parsed

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--where: found {text!r}, allowed: key=value, as in memory=50 or optimizer.lr=0.1")
    return key.strip(), parsed(value)


def _print(runs: Sequence[StoredRun]) -> None:
    from clsim.reporting.stored import table

    console = Screen(emoji=False)
    if not console.is_terminal:  # a file or a pipe has no width to fit into
        console = Screen(width=1000, emoji=False)
    console.print(table(runs, console.width))


def _say(line: str) -> None:
    err.say(f"clsim: {line}")
