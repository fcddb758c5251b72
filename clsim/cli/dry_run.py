"""What ``clsim run --dry-run`` prints: the resolved spec with where each value comes from, and how far each run is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from clsim.cli.console import count, out
from clsim.errors import InputError
from clsim.execution.plan import check_names, experiences
from clsim.records.store import Store
from clsim.reporting.names import printable
from clsim.reporting.screen import Screen, plain
from clsim.spec.flags import as_text
from clsim.spec.layers import Value, explained
from clsim.spec.resolve import Resolved, prerequisites, remarks
from clsim.spec.run import RunSpec


@dataclass(frozen=True)
class Draft:
    """A run that is explained, not carried out.

    Attributes:
        found: its spec and the layers of it.
        command: the command that carries it out.
        scenario: name or path of its scenario.
    """

    found: Resolved
    command: str
    scenario: str


def explain(drafts: Sequence[Draft], store: Store, *, as_json: bool = False) -> None:
    """Print the values of the first run, and the record of each; nothing is run, written or downloaded.

    Args:
        drafts: runs that differ in their seed alone.
        store: the store that holds their records.
        as_json: whether to print all of each run as JSON instead.

    Raises:
        InputError: if a spec names a component that is not there.
    """
    for draft in drafts:
        check_names(draft.found.spec)
    if as_json:
        print(json.dumps([_plain(draft, store) for draft in drafts]))
        return
    first = drafts[0].found
    # a pipe has no width to fit into
    console = Screen(emoji=False) if out.is_terminal else Screen(emoji=False, width=1000, soft_wrap=True)
    console.print(plain(first.spec.title, "bold"), "")
    values = explained(first.spec, first.layers)
    console.print(_given([value for value in values if value.given]), "")
    console.print(_defaults([value for value in values if not value.given]), "")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("seed", justify="right")
    table.add_column("fingerprint", no_wrap=True)
    table.add_column("record", overflow="fold")
    for draft in drafts:
        for seed, spec, why in _runs(draft):
            table.add_row(seed, spec.fingerprint, plain(why + _record(spec, store)[1]))
    console.print(table)
    for line in dict.fromkeys(line for draft in drafts for line in remarks(draft.found.spec)):
        console.print(plain(f"note: {line}", "yellow"))


def _given(values: Sequence[Value]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("set", style="cyan", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for value in values:
        below, whose = value.over or (value.value, "")
        over = f", over {_text(below)} of {whose}" if below != value.value else ""
        origin = plain(value.origin).append(printable(over), style="dim")
        table.add_row(Text(value.key), plain(_text(value.value)), origin)
    return table


def _defaults(values: Sequence[Value]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("default", no_wrap=True)
    table.add_column("--set TABLE.KEY=VALUE gives another value")
    tables: dict[str, list[str]] = {}
    for value in values:
        name, _, key = value.key.partition(".")
        tables.setdefault(name, []).append(f"{key} {_text(value.value)}")
    for name, texts in tables.items():
        table.add_row(Text(name, style="dim"), plain(" · ".join(texts), "dim"))
    return table


def _text(value: object) -> str:
    """Write a value as ``--set`` takes it; what is empty is shown as such."""
    return as_text(value) if value != "" else '""'


def _runs(draft: Draft) -> Iterator[tuple[str, RunSpec, str]]:
    """Yield the runs that a run needs first and the run itself: seed, spec, and what it is for."""
    spec = draft.found.spec
    for first in prerequisites(spec, draft.scenario):
        yield "", first.spec, f"{first.spec.strategy}, needed first: "
    yield str(spec.seed), spec, ""


def _record(spec: RunSpec, store: Store) -> tuple[str, str]:
    """Tell how far a run is: in a word, and in words for people."""
    folder = store.folder(spec)
    try:
        record = folder.record()
    except InputError as error:
        return "damaged", f"damaged: {error}"
    where = f"{folder.path}"
    if record is not None and record.data["finished"]:
        return "finished", f"finished, {where}; the run prints it, --fresh runs it again"
    failure = folder.failure()
    failed = f"; it failed: {failure.error}" if failure else ""
    done = 0 if record is None else len(record.data["cost"])
    if done or (folder.path / "spec.json").exists():
        total = f"{done} of {count(experiences(spec), 'experience')} done"
        return "half done", f"half done, {where}: {total}{failed or '; the run goes on from there'}"
    return "none", f"none so far: {count(experiences(spec), 'experience')} to do"


def _plain(draft: Draft, store: Store) -> dict[str, Any]:
    spec = draft.found.spec
    values = explained(spec, draft.found.layers)
    return {
        "title": spec.title,
        "seed": spec.seed,
        "fingerprint": spec.fingerprint,
        "record": _record(spec, store)[0],
        "folder": str(store.folder(spec).path),
        "experiences": experiences(spec),
        "values": {v.key: {"value": v.value, "from": v.origin, "given": v.given} for v in values},
        "needs": [first.command for first in prerequisites(spec, draft.scenario)],
        "remarks": remarks(spec),
        "command": draft.command,
    }
