"""The command ``clsim study``."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from clsim.cli.console import Metrics, Runs, count, err, names_of, out
from clsim.errors import InputError, duration
from clsim.reporting.screen import plain

if TYPE_CHECKING:
    from clsim.execution.plan import Planned
    from clsim.execution.study import StudyResult

_GRID, _ENGINE, _MACHINE, _WHERE = "Grid", "Engine", "Machine", "Where"


def _several(text: str, *kinds: str) -> Any:
    complete = names_of(*kinds, several=True) if kinds else None
    return typer.Option(help=text, rich_help_panel=_GRID, autocompletion=complete)


def study(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A name in ./studies or of `clsim list studies`, or a path; options override the file.",
            autocompletion=names_of("studies"),
        ),
    ] = None,
    scenario: Annotated[
        list[str] | None, _several("Scenarios: names or files, separated by commas.", "scenarios")
    ] = None,
    strategy: Annotated[
        list[str] | None, _several("Strategies: names or files, separated by commas.", "strategies")
    ] = None,
    buffer: Annotated[
        list[str] | None, _several("Buffers of the strategies that keep a memory.", "selectors", "condensers")
    ] = None,
    memory: Annotated[list[str] | None, _several("Exemplars in memory, as in 20,50 or 1%,5%.")] = None,
    label: Annotated[
        list[str] | None,
        _several("Who asks for labels: selectors or acquisitions.", "acquisitions", "selectors", "bounds"),
    ] = None,
    batch: Annotated[
        list[str] | None, _several("Who chooses the samples of each step: selectors.", "selectors", "pruners")
    ] = None,
    pool: Annotated[
        list[str] | None,
        _several("Pools: transforms, several joined by +, as in none,rare,noise:0.2+redundant.", "pools"),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds 0 … N − 1.", rich_help_panel=_GRID)] = None,
    seed: Annotated[list[str] | None, _several("Single seeds, as in 3,5.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="table.key=VALUE,VALUE …: an axis of the grid. Write lists in brackets, and text with a comma in "
            "quotes. May be given several times.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Where the runs are executed: local, here, ray or slurm.", rich_help_panel=_ENGINE)
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(help="Runs at a time (default: as the machine allows).", rich_help_panel=_ENGINE)
    ] = None,
    gpus_per_run: Annotated[
        float | None, typer.Option(help="GPUs per run; with 0.5, two runs share a GPU.", rich_help_panel=_ENGINE)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="ray: cluster address, auto or host:port (default: start one here).", rich_help_panel=_ENGINE
        ),
    ] = None,
    partition: Annotated[
        str | None, typer.Option(help="slurm: partition of the jobs.", rich_help_panel=_ENGINE)
    ] = None,
    minutes: Annotated[int | None, typer.Option(help="slurm: time limit of a job.", rich_help_panel=_ENGINE)] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="slurm: slurm, or local: submitit runs the jobs on this machine.", rich_help_panel=_ENGINE),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or auto.", rich_help_panel=_MACHINE)] = None,
    threads: Annotated[
        str | None,
        typer.Option(help="Threads that torch uses per run: a number, or auto.", rich_help_panel=_MACHINE),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets (default: $CLSIM_DATA, or ~/.cache/clsim).", rich_help_panel=_WHERE),
    ] = None,
    runs: Runs = Path("runs"),
    metric: Metrics = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and run nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run anew, even if there is a record.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print records and failures as JSON.")] = False,
) -> None:
    """Run a grid of scenarios, strategies, buffers, memories and seeds; finished runs are not repeated."""
    from clsim.execution import plan
    from clsim.execution.engines.engine import EngineSpec
    from clsim.execution.study import carry_out
    from clsim.records.own_metrics import metrics_named
    from clsim.records.store import Store

    axes = {"--scenario": scenario, "--strategy": strategy, "--buffer": buffer, "--label": label}
    axes |= {"--batch": batch, "--pool": pool}
    tables: dict[str, Any] = {key[2:]: _values(given, key) for key, given in axes.items() if given}
    if memory:
        tables["memory"] = _values(memory, "--memory")
    if seed and seeds is not None:
        raise InputError("--seed and --seeds: found both, allowed: one of them")
    if seed or seeds is not None:
        tables["seeds"] = _numbers(seed, "--seed") if seed else seeds
    if set_:
        tables["set"] = plan.axes(set_)
    spec = plan.read(tables, "command line", plan.find_study(name) if name else None)
    training = {k: v for k, v in (("device", device), ("precision", precision), ("threads", threads)) if v is not None}
    options = {"address": address, "partition": partition, "minutes": minutes, "cluster": cluster}
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    _check_engine(engine, given)
    engine_spec = EngineSpec(engine, workers, gpus_per_run, device=device or "auto", **given)

    metrics_named(metric or ())  # a misspelt one is refused before the runs
    store = Store(runs)
    planned = plan.plan(spec, store, training)
    if fresh or not all(run.finished for run in planned):
        planned = plan.with_expected_seconds(planned, store)
    if dry_run:
        _print_json_plan(planned) if as_json else _print_plan(planned, engine_spec, in_full=True)
        return
    silent = quiet or as_json
    if not quiet:
        for line in plan.remarks_on(planned):
            err.say(f"clsim: {line}")
    with contextlib.ExitStack() as stack:
        watch = None
        if not silent and (fresh or not all(run.finished for run in planned)):
            from clsim.cli.live import Live

            _print_plan(planned, engine_spec)
            watch = stack.enter_context(Live(err))
        result = carry_out(planned, store, engine_spec, data_root=data_root, fresh=fresh, watch=watch)
    if as_json:
        failures = [vars(failure) for failure in result.failures]
        print(json.dumps({"records": [record.data for record in result.records], "failures": failures}))
    elif not quiet:
        print_read(result)
        _print_result(result, spec.title, runs, metric or ())
    if result.failures:
        print_failures(result)
        raise typer.Exit(1)


def _values(given: Sequence[str], flag: str) -> list[str]:
    from clsim.execution.plan import split

    return [value for text in given for value in split(text, flag)]


def _numbers(given: Sequence[str], flag: str) -> list[int]:
    try:
        return [int(value) for value in _values(given, flag)]
    except ValueError:
        raise InputError(f"{flag}: found {','.join(given)!r}, allowed: whole numbers, as in 20,50") from None


def _check_engine(engine: str, given: dict[str, Any]) -> None:
    """Refuse an option that belongs to another engine."""
    for option in given:
        owner = "ray" if option == "address" else "slurm"
        if engine != owner:
            raise InputError(f"--{option}: found with --engine {engine}, allowed: with --engine {owner}")


def _print_plan(planned: Sequence[Planned], engine: Any, *, in_full: bool = False) -> None:
    """Print the plan in a line; ``in_full``: also a row for each combination, over all seeds."""
    todo = [run for run in planned if not run.finished]
    known = [run.seconds for run in todo if run.seconds is not None]
    begun = sum(run.done > 0 for run in todo)
    if in_full:
        table = Table(box=None, pad_edge=False)
        for label in ("run", "seeds", "finished", "to do", "expected"):
            table.add_column(label, justify="left" if label == "run" else "right")
        cells: dict[str, list[Planned]] = {}
        for run in planned:
            cells.setdefault(run.title.rpartition(" · seed")[0], []).append(run)
        for title, runs in cells.items():
            left = [run for run in runs if not run.finished]
            seconds = [run.seconds for run in left if run.seconds is not None]
            expected = "–" if not left else duration(sum(seconds)) if len(seconds) == len(left) else "unknown"
            numbers = [str(len(runs)), str(len(runs) - len(left)), str(len(left)), expected]
            table.add_row(plain(title), *numbers)
        out.print(table)
    console = out if in_full else err
    line = f"{count(len(planned))}: {len(planned) - len(todo)} finished, {len(todo)} to do"
    line += f" ({begun} of them begun)" if begun else ""
    if todo and len(known) == len(todo):
        line += f"; about {duration(sum(known))} of work, by earlier records"
    elif known:
        line += f"; about {duration(sum(known))} of work for {len(known)} of them, unknown for the others"
    elif todo:
        line += "; expected time unknown, as there is no record of the like"
    console.say(line)


def _print_json_plan(planned: Sequence[Planned]) -> None:
    runs = [
        {
            "fingerprint": run.spec.fingerprint,
            "title": run.title,
            "command": run.command,
            "finished": run.finished,
            "done": run.done,
            "experiences": run.total,
            "seconds": run.seconds,
        }
        for run in planned
    ]
    print(json.dumps(runs))


def _print_result(result: StudyResult, title: str, runs: Path, metrics: Sequence[str]) -> None:
    from clsim.reporting.show import show_summary

    if result.records:
        show_summary([record.data for record in result.records], title, out, metrics)
        where = [] if runs == Path("runs") else ["--runs", str(runs)]
        words = shlex.join(["clsim", "report", "summary", *(w for m in metrics for w in ("--metric", m)), *where])
        out.print(plain(f"{count(len(result.records))}; go on with: {words}", "dim"))
    diverged = sum(bool(record.data.get("diverged")) for record in result.records)
    if diverged:
        out.print(
            f"[red]in {count(diverged)} a loss is not finite: the learning rate is too high, or the data is broken"
        )


def print_read(result: StudyResult) -> None:
    """Say how many records were read in place of runs, and when they were made."""
    made = sorted(str(record.data.get("ended", "")) for record in result.records if record.read)
    if made:
        first, last = (time.replace("T", " ").replace("+00:00", " UTC") for time in (made[0], made[-1]))
        when = first if first == last else f"{first} to {last}"
        line = f"clsim: read, not run: {count(len(made))}, made {when}; --fresh runs them again"
        err.say(line)


def print_failures(result: StudyResult) -> None:
    """Print each error once, with the number of runs that it stopped and a command that shows it."""
    counts = Counter(failure.error for failure in result.failures)
    first = {failure.error: failure for failure in reversed(result.failures)}
    for error, number in counts.items():
        err.say(f"clsim: {count(number)} failed: {error}")
        err.say(f"  {first[error].command}")
