"""The runs of a folder, each with a name, how far it is, and what it found: for lists, and to find one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from clsim.errors import InputError
from clsim.records.doubts import UNCHECKED
from clsim.records.metrics import summary, weights
from clsim.records.store import RunFolder, RunRecord, Store
from clsim.spec.naming import run_name, run_names
from clsim.spec.run import USUAL

State = Literal["finished", "half done", "failed", "busy", "broken"]


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies in its folder.

    Attributes:
        folder: the folder, whose name is the fingerprint.
        state: ``finished``; ``half done``: it goes on when it is run again; ``failed``: an error stopped it; ``busy``:
            a process runs it now; ``broken``: it cannot be read.
        name: what people call it; unique among the runs of its folder.
        spec: the spec as it stands in its files; empty if it cannot be read.
        done, total: number of experiences that are finished, and in all.
        ended: when it last wrote something, in UTC, as in ``2026-11-27T10:00:00+00:00``; empty if that is not known.
        reason: why it failed, or why it cannot be read.
        record: the record, of a half-done run as far as it is; None if there is none.
        command: the command that makes it; empty if that is not known.
    """

    folder: Path
    state: State
    name: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    done: int = 0
    total: int = 0
    ended: str = ""
    reason: str = ""
    record: RunRecord | None = None
    command: str = ""

    @property
    def fingerprint(self) -> str:
        """The 16 hexadecimal digits that tell the run from all others."""
        return self.folder.name

    @property
    def progress(self) -> str:
        """The state in words, with the experiences that are finished: ``half done 2/5``."""
        shown = self.state in ("half done", "busy", "failed") and self.total
        return f"{self.state} {self.done}/{self.total}" if shown else self.state

    @property
    def seconds(self) -> float | None:
        """Seconds of training, selection and evaluation so far; None without a record."""
        return None if self.record is None else seconds_of(self.record.data)

    def doubts(self) -> list[str]:
        """List what a reader should know: of the checksums of its files, its dates, and the machines that made it."""
        unchecked, damaged = RunFolder(self.folder).audit()
        said = [f"{', '.join(unchecked)}: {UNCHECKED}"] if unchecked else []
        return said + damaged + ([one for one in self.record.doubts if one != UNCHECKED] if self.record else [])

    def metric(self, name: str) -> float | None:
        """Compute a metric of the accuracy matrix; None before the run is finished, or where it is not defined."""
        if self.record is None or self.state != "finished" or not self.record.data["accuracy"]:
            return None
        data = self.record.data
        return summary(data["accuracy"], data["initial"], sizes=weights(data))[name]


def overview(store: Store) -> list[StoredRun]:
    """List all runs of a store, the latest last.

    What cannot be read is among them, with the reason.
    """
    found = [stored(folder) for folder in store.folders()]
    names = run_names({run.fingerprint: run.spec for run in found if run.spec}, USUAL)
    named = [replace(run, name=names.get(run.fingerprint, run.name)) for run in found]
    return sorted(named, key=lambda run: (run.ended, run.fingerprint))


def seconds_of(record: Mapping[str, Any]) -> float:
    """Return the seconds that a run has worked so far."""
    return sum(c.get(f"{part}_seconds") or 0 for c in record["cost"] for part in ("train", "select", "evaluate"))


def matching(runs: Sequence[StoredRun], text: str, *, parts: bool = True) -> list[StoredRun]:
    """Find the runs that a text names: a name, a fingerprint or its beginning, a folder, or else a part of a name.

    Args:
        parts: whether a part of a name is enough.
    """
    given, place = " ".join(text.split()), Path(text).absolute()
    ways: list[Callable[[StoredRun], bool]] = [
        lambda run: given in (run.name, run.fingerprint),
        lambda run: run.folder.absolute() == place,
        lambda run: bool(re.fullmatch("[0-9a-f]+", given)) and run.fingerprint.startswith(given),
    ]
    if parts and given:
        ways.append(lambda run: given.casefold() in run.name.casefold())
    return next((found for way in ways if (found := [run for run in runs if way(run)])), [])


def stored(folder: Path) -> StoredRun:
    """Look at one folder; what cannot be read is ``broken``, with the reason."""
    run = RunFolder(folder)
    try:
        record, failure = run.record(), run.failure()
        spec = record.data["spec"] if record else failure.spec if failure else run.spec()
        name, total = run_name(spec), _experiences(spec)
    except (InputError, OSError, *_OTHER_SHAPES) as error:
        reason = (
            str(error).removeprefix(f"{folder}/")
            if isinstance(error, InputError)
            else f"its spec cannot be read ({type(error).__name__})"
        )
        return StoredRun(folder, "broken", folder.name, ended=_written(folder), reason=reason)
    finished = record is not None and record.data["finished"]
    state: State = "finished" if finished else "busy" if run.busy() else "failed" if failure else "half done"
    ended = failure.ended if failure else str(record.data.get("ended", "")) if record else ""
    return StoredRun(
        folder,
        state,
        name,
        spec,
        len(record.data["cost"]) if record else 0,
        total,
        ended or _written(folder),
        failure.error if failure and state == "failed" else "",
        record,
        failure.command if failure else record.data["command"] if record else "",
    )


_OTHER_SHAPES = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""What a spec raises that another program has written."""


def _experiences(spec: Mapping[str, Any]) -> int:
    """Count the experiences that a run trains on."""
    stream = spec["stream"]
    return 1 if stream["presentation"] == "joint" else int(stream.get("length") or stream["experiences"])


def _written(folder: Path) -> str:
    """When a run began, by its files; empty if that is not known."""
    for path in (folder / "spec.json", folder):
        try:
            when = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
        except (OSError, OverflowError, ValueError):
            continue
        return when.isoformat(timespec="seconds")
    return ""
