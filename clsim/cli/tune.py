"""The command ``clsim tune``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clsim.cli.console import Runs, err, names_of, out

if TYPE_CHECKING:
    from clsim.execution.tune import Tried, TuneSpec

_SEARCH, _MACHINE, _WHERE = "Search", "Machine", "Where"


def tune(
    scenario: Annotated[
        str,
        typer.Option(help="A name of `clsim list scenarios`, or a TOML file.", autocompletion=names_of("scenarios")),
    ] = "split-digits",
    strategy: Annotated[
        str,
        typer.Option(help="A name of `clsim list strategies`, or a TOML file.", autocompletion=names_of("strategies")),
    ] = "er",
    trials: Annotated[
        int, typer.Option(help="Trials, the method's own settings among them.", rich_help_panel=_SEARCH)
    ] = 20,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="table.key=LOW..HIGH, with :log behind it for rates, or table.key=VALUE,VALUE …: what is searched; "
            "may be given several times (default: learning rate, weight decay, and the learner's own options that are "
            "numbers with a fraction).",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    experiences: Annotated[
        int,
        typer.Option(help="Experiences of a trial, the first ones of the stream; 0: all.", rich_help_panel=_SEARCH),
    ] = 3,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of each experience that a trial holds out and is measured on (default: the scenario's, else "
            "0.1).",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="First seed of the trials, and that of the search.", rich_help_panel=_SEARCH)
    ] = 0,
    trial_seeds: Annotated[
        int, typer.Option(help="Seeds of each trial, whose mean counts.", rich_help_panel=_SEARCH)
    ] = 1,
    test_seeds: Annotated[
        int,
        typer.Option(
            help="Seeds on which default and winner are tested: those behind the seeds of the trials; 0: no test.",
            rich_help_panel=_SEARCH,
        ),
    ] = 5,
    buffer: Annotated[
        str | None,
        typer.Option(help="As for `clsim run`.", autocompletion=names_of("selectors", "condensers")),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="As for `clsim run`.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="table.key=value: set any key, in trials and tests; may be given several times."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or auto.", rich_help_panel=_MACHINE)] = None,
    threads: Annotated[
        str | None, typer.Option(help="Threads that torch uses: a number, or auto.", rich_help_panel=_MACHINE)
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets (default: $CLSIM_DATA, or ~/.cache/clsim).", rich_help_panel=_WHERE),
    ] = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is searched and which trials are finished; run nothing.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run anew, even if there are records.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print trials, tests and cost as JSON.")] = False,
) -> None:
    """Search hyper-parameters without test data, on the first experiences; then test default and winner."""
    from clsim.execution.tune import TuneSpec, asked_axis, known, require_optuna, searched
    from clsim.execution.tune import tune as carry_out
    from clsim.records.store import Store
    from clsim.reporting import tuning
    from clsim.spec.flags import tables_of

    require_optuna()
    flags = tables_of(buffer=buffer, memory=memory, device=device, precision=precision, threads=threads)
    spec = TuneSpec(
        scenario=scenario,
        strategy=strategy,
        flags=flags,
        settings=tuple(set_ or ()),
        axes=tuple(asked_axis(text) for text in search or ()),
        trials=trials,
        experiences=experiences,
        validation=validation,
        seed=seed,
        seeds=trial_seeds,
        test_seeds=test_seeds,
    )
    store, silent = Store(runs), quiet or as_json
    if dry_run:
        done = known(spec, store)
        lines = tuning.plan_lines(spec, searched(spec)[0], done)
        if as_json:
            print(json.dumps({"plan": lines, "finished": len(done)}))
        for line in () if as_json else lines:
            out.say(line)
        return
    how: dict[str, Any] = {"data_root": data_root, "fresh": fresh}
    if not silent:
        how["tried"] = _Lines(spec)
        if err.is_terminal:
            from clsim.reporting.terminal import watched

            how["watch"] = partial(watched, store=store, console=err, names=[], say=err.say)
    found = carry_out(spec, store, **how)
    if as_json:
        print(json.dumps(tuning.as_json(found)))
    elif not quiet:
        from clsim.reporting.show import show_listings

        tested = tuning.compared(found)
        show_listings([tuning.trials(found), *([] if tested is None else [tested])], out)
        for line in tuning.cost_lines(found):
            out.say(line)
        if found.winner.command:
            out.say(f"Go on with the winner: {found.winner.command}")


class _Lines:
    """A line for each trial that is done. Final."""

    def __init__(self, spec: TuneSpec) -> None:
        self._spec, self._best = spec, -1.0

    def __call__(self, found: Tried) -> None:
        """Print the line."""
        from clsim.reporting.tuning import settings

        values = settings(found.values, dict.fromkeys(found.values))
        words = f"trial {found.number}/{self._spec.trials - 1} · {values or 'default'}: "
        if found.refused:
            err.say(f"{words}refused: {found.refused}")
            return
        self._best = max(self._best, found.value)
        if found.diverged:
            err.say(f"{words}a loss is not finite")
            return
        read = all(record.read for record in found.records)
        note = f", as trial {found.repeated}" if found.repeated is not None else ", read" if read else ""
        err.say(f"{words}{100 * found.value:.2f} % of held-out samples (best {100 * self._best:.2f} %){note}")
