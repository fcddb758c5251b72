"""``clsim run``."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clsim.cli.console import Runs, err, out
from clsim.errors import InputError
from clsim.version import __version__

if TYPE_CHECKING:
    from clsim.records.store import RunRecord
    from clsim.training.progress import Progress


def run(
    scenario: Annotated[str, typer.Option(help="A name of `clsim list scenarios`, or a TOML file.")] = "split-digits",
    strategy: Annotated[
        str, typer.Option(help="A name of `clsim list strategies`, a TOML file, or avalanche:NAME.")
    ] = "er",
    buffer: Annotated[
        str | None, typer.Option(help="A name of `clsim list buffers`, module:attr, or ./file.py:attr.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Exemplars in memory: a number, or a share of the samples seen, as in 1%.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Labelled samples: a number a class, or a share of each class, as in 5%.")
    ] = None,
    controller: Annotated[
        str | None, typer.Option(help="stability-decay: search the learning rate and the trade-off, task by task.")
    ] = None,
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
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorboard (then: tensorboard --logdir runs), mlflow or wandb: keep a log, too; several times.",
            rich_help_panel="Where",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run anew, even if there is a record.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Run a scenario with a strategy and a buffer; print accuracy, forgetting and cost."""
    from clsim.execution import execute, plan
    from clsim.records.store import Store
    from clsim.spec.resolve import label_share, memory_size, resolve

    if log:
        from clsim.reporting import logs

        logs.check(log)
    if seed and seeds:
        raise InputError("--seed and --seeds: found both, allowed: one of them")
    flags: dict[str, dict[str, Any]] = {"memory": {} if memory is None else memory_size(memory), "training": {}}
    flags["labels"] = {} if labels is None else label_share(labels)
    for table, key, value in (
        ("memory", "buffer", buffer),
        ("training", "device", device),
        ("training", "precision", precision),
        ("training", "threads", threads),
    ):
        if value is not None:
            flags[table][key] = value
    if controller is not None:
        flags["controller"] = {"name": controller}
    specs = [resolve(scenario, strategy, flags=flags, settings=set_ or [], seed=s) for s in seed or range(seeds or 1)]
    records = []
    joint = [plan.joint_run(spec, scenario) for spec in specs if spec.stream.by_difficulty]
    named = {spec.stream.difficulty for spec in specs}  # some may name another run
    todo = [(spec, command) for spec, command in joint if spec.fingerprint in named]
    todo += [(spec, plan.command(scenario, strategy, flags, set_ or [], spec.seed)) for spec in specs]
    for spec, command in todo:
        with contextlib.ExitStack() as stack:
            progress: Progress | None = None
            if not quiet and not as_json:
                from clsim.reporting.terminal import Terminal

                progress = stack.enter_context(Terminal(f"{plan.title(spec)} · seed {spec.seed}", err))
            logging = None
            if log:
                from clsim.training.progress import Quiet

                folder = Store(runs).folder(spec)
                progress = logging = stack.enter_context(logs.Logging(log, spec, folder, progress or Quiet(), _say))
            again = fresh and spec in specs
            record = execute.execute(
                spec, Store(runs), data_root=data_root, fresh=again, progress=progress, command=command
            )
            if logging is not None:
                logging.write(record)
            if spec in specs:
                records.append(record)
    if as_json:
        print(json.dumps([record.data for record in records]))
    elif not quiet:
        _print_records(records)


def _say(line: str) -> None:
    err.print(f"clsim: {line}", markup=False, highlight=False)


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
    other = {record.data["versions"]["clsim"] for record in records} - {__version__}
    if other:
        out.print(f"made by clsim {', '.join(sorted(other))}, this is {__version__}; --fresh runs it anew")
    if any(record.data.get("diverged") for record in records):
        out.print("[red]a loss is not finite: the learning rate is too high, or the data is broken")
