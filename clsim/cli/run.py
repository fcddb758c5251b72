"""The command ``clsim run``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clsim.cli.console import Metrics, Runs, err, names_of, out, words_of
from clsim.errors import InputError


def run(
    scenario: Annotated[
        str,
        typer.Option(help="A name of `clsim list scenarios`, or a TOML file.", autocompletion=names_of("scenarios")),
    ] = "split-digits",
    strategy: Annotated[
        str,
        typer.Option(
            help="A name of `clsim list strategies`, a TOML file, or avalanche:NAME.",
            autocompletion=names_of("strategies"),
        ),
    ] = "er",
    buffer: Annotated[
        str | None,
        typer.Option(
            help="A name of `clsim list buffers`, module:attr, or ./file.py:attr.",
            autocompletion=names_of("selectors", "condensers"),
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Exemplars in memory: a number, in all (a class or a task where the scenario's memory.per counts "
            "these), or a share of the seen samples, as in 1%."
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Labelled samples: a number per class, or a share of each class, as in 5%.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Who asks for labels: a selector or an acquisition, by name, or none; --labels begin.",
            autocompletion=names_of("acquisitions", "selectors", "bounds"),
        ),
    ] = None,
    label_budget: Annotated[
        str | None, typer.Option(help="Labels asked for in an experience: a number, or a share of its samples.")
    ] = None,
    label_rounds: Annotated[int | None, typer.Option(help="Rounds in which they are asked for.")] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            help="Who chooses the samples of each step out of candidates: a selector that `clsim list selectors` marks "
            "with +, or info-batch.",
            autocompletion=names_of("selectors", "pruners"),
        ),
    ] = None,
    batch_share: Annotated[float | None, typer.Option(help="Share of the candidates that it chooses.")] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            help="Features for selectors that choose by an embedding: rotation, simclr, barlow, or ./FILE.npz.",
            autocompletion=words_of(["rotation", "simclr", "barlow", "none"]),
        ),
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            help="A realistic pool: NAME of `clsim list pools` or NAME:number, as in noise:0.2, module:attr, or "
            "./file.py:attr; may be given several times, in order.",
            autocompletion=names_of("pools"),
        ),
    ] = None,
    controller: Annotated[
        str | None,
        typer.Option(
            help="stability-decay: search the learning rate and the trade-off, task by task.",
            autocompletion=words_of(["stability-decay", "none"]),
        ),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed; may be given several times.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds 0 … N − 1.")] = None,
    together: Annotated[
        str,
        typer.Option(
            help="Let the seeds advance in one step, their nets as a stack: may pay on a GPU. auto: the fastest of "
            "that, a process for each core, and one after another.",
            autocompletion=words_of(["auto", "yes", "no"]),
            metavar="[auto]",
        ),
    ] = "no",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="table.key=value: set any key of the spec; may be given several times."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel="Machine")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, bf16 or auto.", rich_help_panel="Machine", autocompletion=words_of(["fp32", "bf16", "auto"])
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Threads that torch uses: a number, or auto.", rich_help_panel="Machine")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data sets (default: $CLSIM_DATA, or ~/.cache/clsim).", rich_help_panel="Where"
        ),
    ] = None,
    runs: Runs = Path("runs"),
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Also keep a log: tensorboard (then: tensorboard --logdir runs), mlflow, wandb or trackio; may be "
            "repeated.",
            rich_help_panel="Where",
            autocompletion=words_of(["tensorboard", "mlflow", "wandb", "trackio"]),
        ),
    ] = None,
    metric: Metrics = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Run nothing: print the spec, where each value comes from, and the record."),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run anew, even if there is a record.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Run a scenario with a strategy and a buffer; print accuracy, forgetting and cost."""
    from clsim.records.own_metrics import metrics_named, of_record
    from clsim.records.store import Store
    from clsim.spec.flags import command, count_of_seeds, tables_of, together_of
    from clsim.spec.resolve import announcements, resolved

    if log:
        from clsim.reporting.terminal import check_logs

        check_logs(log)
    if seed and seeds:
        raise InputError("--seed and --seeds: found both, allowed: one of them")
    machine: dict[str, Any] = {"device": device, "precision": precision, "threads": threads}
    asking: dict[str, Any] = {"label": label, "label_budget": label_budget, "label_rounds": label_rounds}
    asking |= {"batch": batch, "batch_share": batch_share, "embedding": embedding, "pool": pool}
    asking |= {"labels": labels, "controller": controller, "together": together_of(together)}
    flags = tables_of(buffer=buffer, memory=memory, **asking, **machine)
    metrics = metrics_named(metric or ())
    settings, store, shown = set_ or [], Store(runs), None if quiet or as_json else err
    wanted = seed or list(range(count_of_seeds(seeds or 1, "--seeds")))
    found = [resolved(scenario, strategy, flags=flags, settings=settings, seed=s, seeds=wanted) for s in wanted]
    words_of = (scenario, strategy, flags, settings)
    commands = [command(*words_of, one.spec.seed, one.spec.training.seeds) for one in found]
    if dry_run:
        from clsim.cli.dry_run import Draft, explain

        drafts = [Draft(one, words, scenario) for one, words in zip(found, commands, strict=True)]
        explain(drafts, store, as_json=as_json)
        return
    if log and found[0].spec.training.seeds:
        raise InputError("--log: found with seeds that advance together, allowed: without --together")
    from clsim.cli.seeds import carried_out

    specs = [one.spec for one in found]
    if not quiet:
        for line in dict.fromkeys(line for spec in specs for line in announcements(spec)):
            _say(line)
    records = carried_out(
        specs,
        store,
        commands,
        together=together,
        scenario=scenario,
        data_root=data_root,
        fresh=fresh,
        console=shown,
        logs=log or [],
        say=None if quiet or as_json else _say,
        tell=_say,
    )
    if as_json:
        further = [{name: of_record(name, one, record.data) for name, one in metrics.items()} for record in records]
        print(json.dumps([_with(record.data, found) for record, found in zip(records, further, strict=True)]))
    elif not quiet:
        from clsim.reporting.finished import show_finished

        show_finished(records, out, metrics)


def _with(record: Mapping[str, Any], metrics: Mapping[str, float | None]) -> dict[str, Any]:
    """Return a record with further metrics among its own; only what is printed has them."""
    return {**record, "metrics": {**record["metrics"], **metrics}}


def _say(line: str) -> None:
    err.say(f"clsim: {line}")
