"""The store: ``runs/<fingerprint>/`` holds one run. Everything is written atomically, under a lock, with a checksum.

spec.json        the resolved spec, written first
checkpoint.pt    after every experience: all that the next one needs (tensors and plain values only)
search.json      what a controller's search in the experience after that has found; gone at its end
rounds.pt        the label rounds of the experience after that, as far as they have come; gone at its end
losses.npz       the loss of every step, a column a term
record.json      accuracy matrix, metrics, cost, versions; ``finished`` once it is: the last file that is written
error.json       what stopped the run, if something did; gone once it is finished
lock             held by the process that runs it; the system lets go of it if that process dies
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from clsim import notebook
from clsim.errors import InputError, RunBusy, first_line
from clsim.records import atomic, losses_file, sealed, states, validity
from clsim.records.atomic import write
from clsim.records.doubts import DIVERGED, LATER, UNCHECKED, doubts
from clsim.spec.naming import run_name
from clsim.spec.run import RunSpec

if TYPE_CHECKING:
    import pandas as pd

FORMAT = validity.FORMAT
"""Format number of records and errors."""

SEALED = ("record.json", "checkpoint.pt", "rounds.pt", "losses.npz", "search.json", "error.json")
"""Files that hold their checksum; that of the spec is the name of the folder."""

NAME = "[0-9a-f]{16}"
"""Pattern of the name of a run's folder, which is its fingerprint."""

FILES = ("spec.json", "record.json", "error.json", "record.previous.json", "checkpoint.pt", "losses.npz", "lock")
"""Files that tell a run's folder from another one."""

WRITTEN = ("spec.json", "checkpoint.pt", "search.json", "rounds.pt", "losses.npz", "record.json")
"""Files that are written by the process that holds the lock, and by no other."""


@dataclass(frozen=True)
class RunRecord:
    """What a run found.

    Attributes:
        data: the record as it stands in ``record.json``.
        folder: where the run is kept; None if it was not stored.
        read: whether it was read, and the run was not carried out again.
        checked: whether it had a checksum, as all records have but those of earlier versions.
    """

    data: Mapping[str, Any]
    folder: Path | None = None
    read: bool = False
    checked: bool = True

    def __repr__(self) -> str:
        numbers = [f"{name} {value} %" for name, value in self._shown.items() if name in ("accuracy", "forgetting")]
        state = [] if self.data["finished"] else ["not finished"]
        return f"<RunRecord {run_name(self.data['spec'])}: {', '.join([*numbers, *state])}>"

    def _repr_html_(self) -> str:
        size = len(self.data["accuracy"])
        rows = [[i + 1, *map(_percent, row)] for i, row in enumerate(self.data["accuracy"])]
        header = ["accuracy, %: after ↓, tested on →", *range(1, size + 1)]
        facts: dict[str, object] = {f"{name.replace('_', ' ')}, %": value for name, value in self._shown.items()}
        facts |= {"ended": self.data.get("ended"), "folder": self.folder}
        return notebook.facts(run_name(self.data["spec"]), facts) + notebook.grid("", header, rows)

    @property
    def _shown(self) -> dict[str, str]:
        """The metrics that the run has, in percent."""
        return {name: _percent(value) for name, value in self.data["metrics"].items() if value is not None}

    @property
    def accuracy(self) -> pd.DataFrame:
        """The accuracy matrix R: row i = after experience i, column j = tested on experience j; NaN = not tested."""
        import pandas as pd

        size = range(len(self.data["accuracy"]))
        frame = pd.DataFrame(self.data["accuracy"], index=size, columns=size, dtype=float)
        return frame.rename_axis(index="after", columns="tested on")

    @property
    def line(self) -> str:
        """A line for people about a record that was read: which run it is of, and when that was made."""
        spec, made = self.data["spec"], str(self.data.get("ended", "")).replace("T", " ").replace("+00:00", " UTC")
        said = "".join(f", {one}" for one in self.doubts if one in (UNCHECKED, DIVERGED, LATER))
        return f"read, not run: {run_name(spec)}, made {made or 'at an unknown time'}{said}; --fresh runs it again"

    @property
    def doubts(self) -> list[str]:
        """What a reader of the record should know, in a few words each; empty if there is nothing."""
        return doubts(self.data, checked=self.checked)

    @property
    def metrics(self) -> dict[str, float | None]:
        """Each metric of :mod:`clsim.records.metrics` by name; None where it is not defined."""
        return dict(self.data["metrics"])

    @property
    def losses(self) -> pd.DataFrame:
        """The loss of every step, a column a term."""
        import pandas as pd

        if self.folder is None:
            raise InputError("losses: this run was not stored; allowed: a run with a runs folder")
        return pd.DataFrame(losses_file.read(RunFolder(self.folder).file("losses.npz"))).rename_axis(index="step")


@dataclass(frozen=True)
class RunFailure:
    """A run that could not be finished.

    Attributes:
        spec: as in a record.
        error: why, in one line.
        command: the command that tries this run again.
        ended: when, in UTC.
    """

    fingerprint: str
    spec: Mapping[str, Any]
    error: str
    command: str
    ended: str

    @property
    def title(self) -> str:
        """The run in a few words, whatever its spec holds."""
        return f"{run_name(self.spec)} · {self.fingerprint}".removeprefix(" · ")


class Store:
    """All runs of a folder. Final."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def open(self, spec: RunSpec, *, fresh: bool = False) -> Iterator[RunFolder]:
        """Open the folder of one run, locked.

        Args:
            fresh: forget the checkpoint; an existing record is kept as ``record.previous.json``.

        Raises:
            RunBusy: if another process runs it now.
            InputError: if it is half done, by a version of clsim that would give it other numbers; or if it is a link.
        """
        folder = self.root / spec.fingerprint
        lock = RunFolder(folder).file("lock")
        try:
            atomic.make_folder(folder)
            with atomic.locked(lock, timeout=0):
                atomic.tidy(folder, WRITTEN)
                run = RunFolder(folder)
                if fresh:
                    run.forget()
                self._refuse_revised(spec, run, fresh)
                write(folder / "spec.json", json.dumps(spec.as_dict(), indent=1).encode())
                yield run
        except Timeout:
            raise RunBusy(f"{folder}: another process is running this; wait for it, or stop it") from None

    def _refuse_revised(self, spec: RunSpec, run: RunFolder, fresh: bool) -> None:
        """Refuse a run that an earlier version has begun, with other numbers; if ``fresh``, forget that one."""
        for name in () if (run.path / "checkpoint.pt").exists() else spec.earlier:
            old = self.root / name / "checkpoint.pt"
            if not old.exists() or ((record := RunFolder(old.parent).record()) and record.data["finished"]):
                continue
            if not fresh:
                revised = ", ".join(spec.as_dict()["revisions"])
                raise InputError(
                    f"{old}: found a checkpoint from before the revision of its selector ({revised}), which changes "
                    f"the numbers; allowed: one of {run.path.name}; run it again with --fresh"
                )
            atomic.remove(old)

    def folder(self, spec: RunSpec) -> RunFolder:
        """Where one run is, or would be; to read only."""
        return RunFolder(self.root / spec.fingerprint)

    def records(self) -> tuple[list[RunRecord], list[str]]:
        """All finished records, and a line for each folder that holds none that can be read."""
        found, problems = [], []
        for folder in self.folders():
            try:
                record = RunFolder(folder).record()
            except InputError as error:
                problems.append(str(error))
            else:
                if record is not None and record.data["finished"]:
                    found.append(record)
        return found, problems

    def failures(self) -> list[RunFailure]:
        """The runs that were given up and have not been finished since."""
        found = (RunFolder(folder).failure() for folder in self.folders())
        return [failure for failure in found if failure is not None]

    def folders(self) -> list[Path]:
        """Everything that has the name of a run's folder, whatever it holds."""
        return sorted(p for p in self.root.glob("*") if re.fullmatch(NAME, p.name))

    def remove(self, folder: Path) -> None:
        """Remove a run, its logs included. What a link in it points to stays.

        Raises:
            RunBusy: if another process runs it now.
            InputError: if the folder is a link, lies elsewhere, or holds no run.
        """
        refusal = self.keeps(folder)
        if refusal:
            raise InputError(f"{folder}: {refusal}")
        try:
            with atomic.locked(folder / "lock", timeout=0):
                atomic.remove_folder(folder)
        except Timeout:
            raise RunBusy(f"{folder}: another process is running this; wait for it, or stop it") from None

    def keeps(self, folder: Path) -> str:
        """Why a folder is never removed; empty if it is a run of this store."""
        if folder.is_symlink():
            return "is a link, which is not followed; allowed: a folder of runs itself"
        inside = folder.parent.resolve() == self.root.resolve()
        if not inside or not re.fullmatch(NAME, folder.name) or not folder.is_dir():
            return f"is no folder of a run in {self.root}; allowed: a name of `clsim runs`"
        if not any((folder / name).is_file() for name in FILES):
            return f"holds no run; allowed: a folder with {', '.join(FILES[:2])} or the like"
        return ""


class RunFolder:
    """The files of one run. Final."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> Path:
        """Find a file of the run.

        Raises:
            InputError: if the folder or the file is a link: it may lead anywhere.
        """
        for place in (self.path, self.path / name):
            if place.is_symlink():
                raise InputError(f"{place}: is a link, which is not followed; allowed: a folder of runs itself")
        return self.path / name

    def record(self) -> RunRecord | None:
        """The record, or None if there is none so far.

        Raises:
            InputError: if it is damaged, or not the record of this folder.
        """
        path = self.file("record.json")
        try:
            data, checked = sealed.read(path)
            wrong = validity.wrong_record(data, self.path.name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read ({first_line(error)}); run it again with --fresh") from None
        if wrong:
            raise InputError(f"{path}: {wrong}; run it again with --fresh")
        return RunRecord(data, self.path, checked=checked)

    def spec(self) -> dict[str, Any]:
        """The spec of a run that has no record so far.

        Raises:
            InputError: if there is none, it is damaged, or it is not that of this folder.
        """
        path = self.file("spec.json")
        try:
            data, _ = sealed.read(path)
            right = validity.is_spec(data, self.path.name)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read ({first_line(error)})") from None
        if not right:
            raise InputError(f"{path}: it is not the spec of this folder's run")
        found: dict[str, Any] = data
        return found

    def bytes(self) -> int:
        """The bytes of all files of the run; those that a link points to do not count."""
        found = (os.lstat(Path(place, name)) for place, _, names in os.walk(self.path) for name in names)
        return sum(file.st_size for file in found)

    def checkpoint(self) -> dict[str, Any] | None:
        """The state after the last finished experience, or None.

        Raises:
            InputError: if the file is damaged, of another run, or of a later format.
        """
        return self._state("checkpoint.pt")

    def rounds(self) -> dict[str, Any] | None:
        """The label rounds of an experience that is not finished, or None.

        Raises:
            InputError: as :meth:`checkpoint`; or if they are no rounds.
        """
        state = self._state("rounds.pt")
        kinds = {"position": int, "entries": list, "cost": dict}
        for key, kind in kinds.items() if state is not None else ():
            if type(state.get(key)) is not kind:  # type: ignore[union-attr]
                raise InputError(
                    f"{self.path / 'rounds.pt'}: {key}: allowed: {kind.__name__}; run it again with --fresh"
                )
        return state

    def audit(self, names: Sequence[str] = SEALED) -> tuple[list[str], list[str]]:
        """Look at the checksums of files, those of ``names`` that there are.

        Returns:
            The names of the files without one, as earlier versions wrote them; and a line for each damaged file.
        """
        unchecked, damaged = [], []
        for name in names:
            try:
                if not sealed.is_checked(self.file(name)):
                    unchecked.append(name)
            except FileNotFoundError:
                continue
            except Exception as error:  # a damaged file fails in many ways
                damaged.append(f"{name}: {first_line(error)}; --fresh runs it again")
        return unchecked, damaged

    def save_rounds(self, state: Mapping[str, Any]) -> None:
        """Write the label rounds of an experience that is not finished."""
        self._write_state("rounds.pt", state)

    def _write_state(self, name: str, state: Mapping[str, Any]) -> None:
        write(self.path / name, states.packed({**state, "fingerprint": self.path.name}))

    def _state(self, name: str) -> dict[str, Any] | None:
        return states.load(self.file(name), "run", ("fingerprint", self.path.name), "run it again with --fresh")

    def save(self, record: Mapping[str, Any], losses: Mapping[str, Any], state: Mapping[str, Any] | None) -> RunRecord:
        """Write what a finished experience leaves.

        The checkpoint comes first, since the others follow from it, and the record last: a run whose record says that
        it is finished has all its files, and nothing of what is only for a run that is not.

        Args:
            record: the record.
            losses: the losses of all steps, by term.
            state: the checkpoint; None: the one that is there stays.
        """
        if state is not None:
            self._write_state("checkpoint.pt", state)
        write(self.path / "losses.npz", losses_file.packed(losses))
        for name in ("search.json", "rounds.pt", *(["error.json"] if record["finished"] else [])):
            atomic.remove(self.path / name)
        write(self.path / "record.json", sealed.sealed(record))
        return RunRecord(record, self.path)

    def fail(self, spec: RunSpec, error: str, command: str) -> RunFailure:
        """Write why the run was given up; what it has done so far stays. A run that is finished has no such file."""
        ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
        failure = RunFailure(spec.fingerprint, spec.as_dict(), " ".join(error.split()), command, ended)
        if not self._finished():
            atomic.make_folder(self.path)
            write(self.path / "error.json", sealed.sealed({"format": FORMAT, **dataclasses.asdict(failure)}))
        return failure

    def _finished(self) -> bool:
        try:
            return (record := self.record()) is not None and record.data["finished"]
        except InputError:  # it is damaged
            return False

    def failure(self) -> RunFailure | None:
        """Read why the run was given up; None if it was not, was finished since, or the file cannot be read."""
        try:
            data, _ = sealed.read(self.file("error.json"))
            finished = (record := self.record()) is not None and record.data["finished"]
            wrong = validity.wrong_failure(data, self.path.name)
        except (OSError, ValueError, RecursionError):
            return None  # among them InputError; the next study tries it again, whatever it was
        if finished or wrong:
            return None
        return RunFailure(**{field.name: data[field.name] for field in dataclasses.fields(RunFailure)})

    def busy(self) -> bool:
        """Whether a process holds the lock now."""
        lock = self.path / "lock"
        if lock.is_symlink() or not lock.exists():  # looking makes no file
            return False
        try:
            with atomic.locked(lock, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # no folder so far
            return False

    def forget(self) -> None:
        """Delete checkpoint, search and rounds; an existing record is set aside, not deleted.

        A record that is not finished does not take the place of one that was set aside before.
        """
        record, previous = self.path / "record.json", self.path / "record.previous.json"
        if record.exists():
            atomic.remove(record) if previous.exists() and not self._finished() else atomic.replace(record, previous)
        for name in ("checkpoint.pt", "search.json", "rounds.pt"):
            atomic.remove(self.path / name)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
