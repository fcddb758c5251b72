"""What is verified: the paper's setting, three seeds or more, the published number inside our interval or exceeded.

A setting is the paper's only where the published row names a command for it (``command`` in the report's TOML file),
and our runs have that command's spec. Where a machine cannot tell, nothing is verified.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import typer

from clsim.cli.run import run as run_command
from clsim.errors import InputError
from clsim.records.metrics import ALL
from clsim.reporting.cells import Cell, Key
from clsim.reporting.published import Agreement, agreement
from clsim.reporting.report import Published
from clsim.reporting.statistics import FEWEST
from clsim.spec.flags import leaves, tables_of
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec

MACHINE = ("training.device", "training.threads")
"""Keys that say where a run was made, not what it is."""

FLAGS = ("buffer", "memory", "labels", "label", "label_budget", "label_rounds", "controller")
FLAGS += ("batch", "batch_share", "embedding", "pool", "device", "precision", "threads")


@dataclass(frozen=True)
class Runs:
    """The runs of one cell of ours.

    Attributes:
        commands: command of each run.
        codes: recorded state of clsim's code of each run; None where it was not recorded.
    """

    commands: tuple[str, ...] = ()
    codes: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A published number beside ours.

    Attributes:
        published: the row of the paper.
        metric: the metric, or ``over_labels``.
        label: labels of our row and column; empty without a run.
        cell: our values.
        agreement: how the published number lies to our interval; empty without a run.
        against: why the number is not verified, one reason each; empty: it is verified.
        code: states of the code of our runs.
        study: name of the CSV that our runs are from; empty without a run.
    """

    published: Published
    metric: str
    label: Key = ()
    cell: Cell = dataclasses.field(default_factory=Cell)
    agreement: Agreement | Literal[""] = ""
    against: tuple[str, ...] = ("not run",)
    code: tuple[str, ...] = ()
    study: str = ""

    @property
    def verified(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.against

    @property
    def method(self) -> Key:
        """What the paper's row compares: strategy, selector of labels, buffer."""
        return tuple(
            str(self.published.at[name]) for name in ("strategy", "label", "buffer") if name in self.published.at
        )


def judge(published: Published, metric: str, label: Key, cell: Cell, runs: Runs) -> Verdict:
    """Judge one number of a published row by the runs of one cell."""
    found = agreement(cell, float(published.percent[metric][0]), higher=metric in ALL and ALL[metric].higher_is_better)
    against = [*setting(published, runs)]
    if len(cell.sample) < FEWEST:
        against.append(f"{len(cell.sample)} seed{'s' * (len(cell.sample) != 1)}, {FEWEST} needed")
    elif found not in ("inside our interval", "exceeded"):
        against.append("the published number is better than our interval")
    codes = tuple(sorted({code for code in runs.codes if code}))
    return Verdict(published, metric, label, cell, found, tuple(against), codes)


def setting(published: Published, runs: Runs) -> Iterator[str]:
    """Yield what keeps our runs from being in the paper's setting, as far as a machine can tell."""
    if not published.command:
        yield "the report names no command of the paper's setting"
    elif changed := sorted({line for command in runs.commands for line in changes(published.command, command)}):
        yield "changed: " + ", ".join(changed)
    if not runs.commands:
        yield "the command of our runs is not recorded"
    if not runs.codes or None in runs.codes:
        yield "made before commits were recorded"


def changes(paper: str, ours: str) -> list[str]:
    """List the keys in which the spec of our command differs from that of the paper's, with both values."""
    try:
        wanted, found = (_values(spec_of(command)) for command in (paper, ours))
    except InputError as error:
        return [f"the command cannot be read ({error})"]
    keys = dict.fromkeys([*wanted, *found])
    return [
        f"{key} {found.get(key, '–')} instead of {wanted.get(key, '–')}"
        for key in keys
        if key not in MACHINE and found.get(key) != wanted.get(key)
    ]


def spec_of(command: str) -> RunSpec:
    """Resolve the command of a single run, read as ``clsim run`` reads it.

    Raises:
        InputError: if it is no such command, or a name or a value is not allowed.
    """
    words = shlex.split(command)
    if words[:2] != ["clsim", "run"]:
        raise InputError(f"found {command!r}, allowed: clsim run …")
    app = typer.Typer(add_completion=False)
    app.command()(run_command)
    try:
        given: Mapping[str, Any] = typer.main.get_command(app).make_context("run", words[2:]).params
    except typer.BadParameter.__mro__[2] as error:  # click's ClickException, of whichever click typer has
        raise InputError(f"{command!r}: {error}") from None
    flags = tables_of(**{name: given[name] for name in FLAGS})
    seed = (given["seed"] or [0])[0]
    return resolve(given["scenario"], given["strategy"], flags=flags, settings=given["set_"] or [], seed=seed)


def _values(spec: RunSpec) -> dict[str, Any]:
    """Return every value of a spec but the seed, by its full key."""
    found = leaves(dataclasses.asdict(spec))
    return {key: value for key, value in found.items() if key != "seed"}


def methods(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    """Count the methods of which a published row is verified in all of its numbers, and all that have such a row."""
    every = {verdict.method for verdict in verdicts}
    rows: dict[tuple[int, str, Key], list[Verdict]] = {}
    for verdict in verdicts:
        rows.setdefault((id(verdict.published), verdict.study, verdict.label), []).append(verdict)
    whole = {
        of[0].method
        for of in rows.values()
        if all(v.verified for v in of) and {v.metric for v in of} >= {*of[0].published.percent} and not _curve(of[0])
    }
    return len(whole), len(every)


def _curve(verdict: Verdict) -> bool:
    """Whether the paper's row has numbers over labels, which the CSVs do not hold."""
    return bool(verdict.published.over_labels)
