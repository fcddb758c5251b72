"""The command ``clsim reproduce``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from clsim.cli.console import Runs, err, words_of
from clsim.errors import InputError

_MACHINE, _WHERE = "Machine", "Where"


def _papers(incomplete: str) -> list[str]:
    from clsim.reporting.papers import every_paper  # for completion only

    return [name for name in every_paper()[0] if name.startswith(incomplete)]


def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A paper (without one, all are listed), or the file of a report with a table [paper].",
            autocompletion=_papers,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="small (default): a quarter of an hour of two cores at most; published: the paper's.",
            autocompletion=words_of(["small", "published"]),
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Runs at a time (default: as the machine allows).", rich_help_panel=_MACHINE)
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets (default: $CLSIM_DATA, or ~/.cache/clsim).", rich_help_panel=_WHERE),
    ] = None,
    runs: Runs = Path("runs"),
    folder: Annotated[
        Path, typer.Option("--out", help="Folder that gets the page of results.", rich_help_panel=_WHERE)
    ] = Path("reproduced"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and run nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run anew, even if there is a record.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list, or the verdicts, as JSON.")] = False,
) -> None:
    """Reproduce a paper: make its runs, judge its claims, write a page of results; without a name, list the papers."""
    from clsim.cli import paper_list, verdicts
    from clsim.execution.engines.engine import EngineSpec
    from clsim.execution.study import carry_out
    from clsim.records.store import Store
    from clsim.reporting import reproduction
    from clsim.reporting.papers import find_paper

    store = Store(runs)
    if name is None:
        if size is not None or dry_run:
            found = "--dry-run" if dry_run else f"--size {size}"
            raise InputError(
                f"reproduce: found {found} without a paper, allowed: with one that `clsim reproduce` lists"
            )
        paper_list.show_list(store, as_json=as_json)
        return
    paper, wanted = find_paper(name), size or "small"
    of_size = paper.size(wanted, f"reproduce {name}")
    reproduction.check(paper, of_size, None if quiet else err.say)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out: {str(folder)!r} is a file, allowed: a folder")
    planned = reproduction.planned(of_size, store, {} if device is None else {"device": device})
    if not quiet and (dry_run or not as_json):
        paper_list.show_plan(paper, of_size, planned, as_json=as_json)
    if dry_run:
        return
    with contextlib.ExitStack() as stack:
        watch = None
        if not (quiet or as_json) and (fresh or not all(run.finished for run in planned)):
            from clsim.cli.live import Live

            watch = stack.enter_context(Live(err))
        engine = EngineSpec("local", workers, device=device or "auto")
        result = carry_out(planned, store, engine, data_root=data_root, fresh=fresh, watch=watch)
    verdicts.show_verdicts(name, paper, wanted, result, folder, "quiet" if quiet else "json" if as_json else "console")
    if result.failures:
        raise typer.Exit(1)
