"""How ``clsim run`` carries out its seeds: here, one after another or as a stack, or in processes side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from clsim.cli.live import Live
from clsim.execution.execute import execute_all
from clsim.execution.study import carry_out_seeds, workers_of
from clsim.records.store import RunRecord, Store
from clsim.reporting.terminal import watched
from clsim.spec.run import RunSpec


def carried_out(
    specs: Sequence[RunSpec],
    store: Store,
    commands: Sequence[str],
    *,
    together: bool | str,
    scenario: str,
    data_root: Path | None,
    fresh: bool,
    console: Console | None,
    logs: Sequence[str],
    say: Callable[[str], None] | None,
    tell: Callable[[str], None],
) -> list[RunRecord]:
    """Carry out the seeds of a command in the way that it asks for, or read their records.

    Args:
        specs, store, commands, scenario, data_root, fresh: as for :func:`clsim.execution.execute.execute_all`.
        together: what the command says; with ``auto``, seeds go to processes if there are cores for them and no logs.
        console: where progress is shown; None: nowhere.
        logs: names of logs, as ``--log`` has them.
        say: takes a line about each record that is read; None: nobody is told.
        tell: takes a line when a log fails.
    """
    how: dict[str, Any] = {"scenario": scenario, "data_root": data_root, "fresh": fresh}
    workers = 1 if logs else workers_of(together, specs)
    if workers == 1:
        watch = partial(watched, store=store, console=console, names=logs, say=tell)
        return execute_all(specs, store, commands, **how, watch=watch if console or logs else None, say=say)
    if console is None:
        records = carry_out_seeds(specs, store, commands, workers, **how)
    else:
        with Live(console) as live:
            records = carry_out_seeds(specs, store, commands, workers, **how, watch=live)
    for record in records:
        if say is not None and record.read:
            say(record.line)
    return records
