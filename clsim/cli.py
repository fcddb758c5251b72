"""The command line: parses and prints, never computes."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import clsim
from clsim import catalog
from clsim.errors import InputError, nearest

if TYPE_CHECKING:
    from clsim.specs import RunSpec
    from clsim.store import RunRecord

app = typer.Typer(
    help="A wind tunnel for continual learners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

Runs = Annotated[Path, typer.Option("--runs", help="Folder of all runs.", rich_help_panel="Where")]


def main() -> None:
    """The console script: one clear line and exit code 2 for a user's mistake, 130 for Ctrl-C."""
    # typer brings a click of its own or takes the installed one; in both, BadParameter < UsageError < ClickException
    click_exception: Any = typer.BadParameter.__mro__[2]
    try:
        code = app(standalone_mode=False)
    except click_exception as error:
        error.show()
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except InputError as error:
        err.print(f"clsim: {error}", markup=False, highlight=False)
        code = 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        err.print(f"clsim: {place}{error.strerror or error}", markup=False, highlight=False)
        code = 2
    if code == 130:  # some versions of typer return it instead of raising
        err.print("clsim: stopped; the same command goes on after the last finished experience")
    sys.exit(code)


@app.command()
def run(
    scenario: Annotated[str, typer.Option(help="A name of `clsim list scenarios`, or a TOML file.")] = "split-digits",
    strategy: Annotated[
        str, typer.Option(help="A name of `clsim list strategies`, a TOML file, or avalanche:NAME.")
    ] = "er",
    buffer: Annotated[
        str | None, typer.Option(help="A name of `clsim list buffers`, module:attr, or ./file.py:attr.")
    ] = None,
    memory: Annotated[int | None, typer.Option(help="Exemplars in memory.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed; may be given several times.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds 0 … N − 1.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="table.key=value: overrides anything; may be given several times.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel="Machine")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.", rich_help_panel="Machine")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch.", rich_help_panel="Machine")] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets; else $CLSIM_DATA, else ~/.cache/clsim.", rich_help_panel="Where"),
    ] = None,
    runs: Runs = Path("runs"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Run anew, even if there is a record.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Run a scenario with a strategy and a buffer; print accuracy, forgetting and cost."""
    from clsim import api
    from clsim.resolve import resolve
    from clsim.store import Store

    if seed and seeds:
        raise InputError("--seed and --seeds: found both, allowed: one of them")
    flags: dict[str, dict[str, Any]] = {"memory": {}, "training": {}}
    for table, key, value in (
        ("memory", "buffer", buffer),
        ("memory", "capacity", memory),
        ("training", "device", device),
        ("training", "precision", precision),
        ("training", "threads", threads),
    ):
        if value is not None:
            flags[table][key] = value
    specs = [resolve(scenario, strategy, flags=flags, settings=set_ or [], seed=s) for s in seed or range(seeds or 1)]
    records = []
    for spec in specs:
        command = _command(spec, scenario, strategy, flags, set_ or [])
        with contextlib.ExitStack() as stack:
            progress = None
            if not quiet and not as_json:
                from clsim.reporting.terminal import Terminal

                progress = stack.enter_context(Terminal(_title(spec), err))
            records.append(
                api.execute(spec, Store(runs), data_root=data_root, fresh=fresh, progress=progress, command=command)
            )
    if as_json:
        print(json.dumps([record.data for record in records]))
    elif not quiet:
        _print_records(records)


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="A name of `clsim list reports`, or a TOML file.")] = "summary",
    format_: Annotated[
        str, typer.Option("--format", help="console, markdown, csv, or runs: CSV with a row a run.")
    ] = "console",
    figures: Annotated[Path | None, typer.Option(help="Also draw the figures, as PNG, into this folder.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Tables over all runs: mean ± interval over seeds, beside published numbers."""
    from clsim.reporting.report import read_report
    from clsim.reporting.show import show as show_report
    from clsim.store import Store

    formats = ("console", "markdown", "csv", "runs")
    if format_ not in formats:
        raise InputError(f"--format: found {format_!r}; {nearest(format_, formats)}")
    spec = read_report(catalog.find_file("reports", name))
    records, problems = Store(runs).records()
    for problem in problems:
        err.print(f"skipped {problem}", markup=False, highlight=False)
    if not records:
        raise InputError(f"{runs}: no finished runs; make some with `clsim run`, or name another folder with --runs")
    show_report(spec, [record.data for record in records], format_, out, figures)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="scenarios, strategies, buffers, datasets, models …")] = None,
) -> None:
    """What there is: names, a line each, and the paper."""
    kinds = [*catalog.FILES, "datasets", *catalog.COMPONENTS]
    if kind is not None and kind not in kinds:
        raise InputError(f"list: unknown kind {kind!r}; {nearest(kind, kinds)}")
    for shown in [kind] if kind else kinds:
        table = Table(title=f"[bold]{shown}", title_justify="left", box=None, pad_edge=False, show_header=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(ratio=1)
        for entry in catalog.entries(shown):
            paper = f" [dim]· {escape(entry.paper)}" if entry.paper else ""
            table.add_row(escape(entry.name), escape(entry.title) + paper)
        Console().print(table, "")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Of anything that `clsim list` shows.")]) -> None:
    """The file behind a name, and where its code is."""
    found = False
    for kind in catalog.FILES:
        if name in catalog.file_names(kind) or name.endswith(".toml"):
            path = catalog.find_file(kind, name)
            out.print(f"[bold]{kind}[/] {escape(str(path))}\n")
            out.print(path.read_text(encoding="utf-8"), markup=False)
            tables = catalog.read_toml(path)
            for component, key in (("learners", "learner"), ("buffers", "memory"), ("models", "model")):
                value = tables.get(key, {}).get("buffer" if key == "memory" else "name", "none")
                if value in catalog.COMPONENTS[component]:
                    out.print(f"{key} {value!r}: {catalog.place(component, value)}", markup=False, highlight=False)
            found = True
            if name.endswith(".toml"):
                return
    for component, known in catalog.COMPONENTS.items():
        if name in known or ":" in name:
            out.print(f"[bold]{component}[/] {escape(name)}: {escape(catalog.place(component, name))}")
            found = True
            if ":" in name:
                return
    if not found:
        every = [entry.name for kind in [*catalog.FILES, *catalog.COMPONENTS] for entry in catalog.entries(kind)]
        raise InputError(f"show: unknown name {name!r}; {nearest(name, every)}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="./file.py:attr, module:attr, or a shipped name.")],
    kind: Annotated[str, typer.Option(help="buffers or learners.")] = "buffers",
) -> None:
    """Does a component of your own keep the contract? Says which promise it breaks."""
    from clsim import checks

    kinds: dict[str, Any] = {"buffers": checks.check_selector, "learners": checks.check_learner}
    if kind not in kinds:
        raise InputError(f"--kind: found {kind!r}; {nearest(kind, kinds)}")
    try:
        kinds[kind](catalog.component(kind, name))
    except checks.CheckFailed as failure:
        raise InputError(f"{name}: {failure}") from failure
    out.print(f"{name}: keeps the contract", markup=False, highlight=False)


@app.command()
def doctor(data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None) -> None:
    """Versions, device, threads, and which data sets are here."""
    from clsim.doctor import findings

    table = Table(box=None, pad_edge=False, show_header=False)
    for label, value in findings(data_root):
        table.add_row(f"[cyan]{escape(label)}", escape(value))
    out.print(table)


def _title(spec: RunSpec) -> str:
    memory = f" · {spec.memory.buffer} {spec.memory.capacity}" if spec.memory.buffer != "none" else ""
    return f"{spec.scenario} · {spec.strategy}{memory} · seed {spec.seed}"


def _command(spec: RunSpec, scenario: str, strategy: str, flags: dict[str, dict[str, Any]], settings: list[str]) -> str:
    """The command that makes exactly this run."""
    words = ["clsim", "run", "--scenario", scenario, "--strategy", strategy]
    for key, value in (*flags["memory"].items(), *flags["training"].items()):
        words += [f"--{'memory' if key == 'capacity' else key}", str(value)]
    for setting in settings:
        words += ["--set", setting]
    return shlex.join([*words, "--seed", str(spec.seed)])


def _print_records(records: list[RunRecord]) -> None:
    from clsim.reporting.show import show_runs

    show_runs([record.data for record in records], out)
    for record in records:
        seconds = [sum(c[f"{part}_seconds"] for c in record.data["cost"]) for part in ("train", "select", "evaluate")]
        out.print(
            f"[dim]seed {record.data['spec']['seed']}: {record.folder} · "
            f"{seconds[0]:.1f} s training, {seconds[1]:.1f} s selection, {seconds[2]:.1f} s evaluation",
            highlight=False,
        )
    other = {record.data["versions"]["clsim"] for record in records} - {clsim.__version__}
    if other:
        out.print(f"made by clsim {', '.join(sorted(other))}, this is {clsim.__version__}; --fresh runs it anew")
    if any(record.data.get("diverged") for record in records):
        out.print("[red]a loss is not finite: the learning rate is too high, or the data is broken")
