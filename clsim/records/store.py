"""The store: ``runs/<fingerprint>/`` holds one run. Everything is written atomically, under a lock.

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
import hashlib
import io
import json
import os
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from clsim import notebook
from clsim.errors import InputError, RunBusy
from clsim.records import atomic
from clsim.records.atomic import write
from clsim.records.label_record import problem
from clsim.records.natures_record import wrong_natures
from clsim.records.search import read_search
from clsim.spec.naming import run_name
from clsim.spec.run import RunSpec

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Format number of records and errors."""

NAME = "[0-9a-f]{16}"
"""Pattern of the name of a run's folder, which is its fingerprint."""

FILES = ("spec.json", "record.json", "error.json", "record.previous.json", "checkpoint.pt", "losses.npz", "lock")
"""Files that tell a run's folder from another one."""

WRITTEN = ("spec.json", "checkpoint.pt", "search.json", "rounds.pt", "losses.npz", "record.json")
"""Files that are written by the process that holds the lock, and by no other."""

CHECKPOINT = 1
"""Format number of checkpoints, in any version of clsim. Those of clsim 0.1.0 that hold no number have format 1."""


@dataclass(frozen=True)
class RunRecord:
    """What a run found.

    Attributes:
        data: the record as it stands in ``record.json``.
        folder: where the run is kept; None if it was not stored.
        read: whether it was read, and the run was not carried out again.
    """

    data: Mapping[str, Any]
    folder: Path | None = None
    read: bool = False

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
        return f"read, not run: {run_name(spec)}, made {made or 'at an unknown time'}; --fresh runs it again"

    @property
    def metrics(self) -> dict[str, float | None]:
        """Each metric of :mod:`clsim.records.metrics` by name; None where it is not defined."""
        return dict(self.data["metrics"])

    @property
    def losses(self) -> pd.DataFrame:
        """The loss of every step, a column a term."""
        import numpy as np
        import pandas as pd

        if self.folder is None:
            raise InputError("losses: this run was not stored; allowed: a run with a runs folder")
        with np.load(self.folder / "losses.npz", allow_pickle=False) as arrays:
            return pd.DataFrame({name: arrays[name] for name in arrays.files}).rename_axis(index="step")


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
            InputError: if it is half done, by a version of clsim that would give it other numbers.
        """
        folder = self.root / spec.fingerprint
        try:
            atomic.make_folder(folder)
            with atomic.locked(folder / "lock", timeout=0):
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

    def record(self) -> RunRecord | None:
        """The record, or None if there is none so far.

        Raises:
            InputError: if it is damaged, or not the record of this folder.
        """
        path = self.path / "record.json"
        try:
            data = _json(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read ({_line(error)}); run it again with --fresh") from None
        problem = _problem(data, self.path.name)
        if problem:
            raise InputError(f"{path}: {problem}; run it again with --fresh")
        return RunRecord(data, self.path)

    def spec(self) -> dict[str, Any]:
        """The spec of a run that has no record so far.

        Raises:
            InputError: if there is none, it is damaged, or it is not that of this folder.
        """
        path = self.path / "spec.json"
        try:
            data = _json(path)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: cannot be read ({_line(error)})") from None
        if not isinstance(data, dict) or _foreign(data, self.path.name, self.path.name):
            raise InputError(f"{path}: it is not the spec of this folder's run")
        return data

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

    def save_rounds(self, state: Mapping[str, Any]) -> None:
        """Write the label rounds of an experience that is not finished."""
        self._write_state("rounds.pt", state)

    def _write_state(self, name: str, state: Mapping[str, Any]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save({**state, "format": CHECKPOINT, "fingerprint": self.path.name}, buffer)
        write(self.path / name, buffer.getvalue())

    def _state(self, name: str) -> dict[str, Any] | None:
        import torch

        path = self.path / name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a foreign file is refused below, in our words
                state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged file fails in many ways inside torch.load
            raise InputError(f"{path}: cannot be read ({_line(error)}); run it again with --fresh") from None
        found = checkpoint_format(state)
        if found != CHECKPOINT:
            raise InputError(f"{path}: found format {found!r}, allowed: {CHECKPOINT}; run it again with --fresh")
        if state.get("fingerprint") != self.path.name:
            raise InputError(
                f"{path}: found a checkpoint of run {state.get('fingerprint')}, allowed: one of {self.path.name}; "
                "run it again with --fresh"
            )
        return state

    def save(self, record: Mapping[str, Any], losses: Mapping[str, Any], state: Mapping[str, Any] | None) -> RunRecord:
        """Write what a finished experience leaves.

        The checkpoint comes first, since the others follow from it, and the record last: a run whose record says that
        it is finished has all its files, and nothing of what is only for a run that is not.

        Args:
            record: the record.
            losses: the losses of all steps, by term.
            state: the checkpoint; None: the one that is there stays.
        """
        import numpy as np

        if state is not None:
            self._write_state("checkpoint.pt", state)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **losses)
        write(self.path / "losses.npz", buffer.getvalue())
        for name in ("search.json", "rounds.pt", *(["error.json"] if record["finished"] else [])):
            atomic.remove(self.path / name)
        write(self.path / "record.json", json.dumps(record, indent=1, allow_nan=False).encode())
        return RunRecord(record, self.path)

    def fail(self, spec: RunSpec, error: str, command: str) -> RunFailure:
        """Write why the run was given up; what it has done so far stays."""
        ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
        failure = RunFailure(spec.fingerprint, spec.as_dict(), " ".join(error.split()), command, ended)
        atomic.make_folder(self.path)
        write(
            self.path / "error.json", json.dumps({"format": FORMAT, **dataclasses.asdict(failure)}, indent=1).encode()
        )
        return failure

    def _finished(self) -> bool:
        try:
            return (record := self.record()) is not None and record.data["finished"]
        except InputError:  # it is damaged
            return False

    def failure(self) -> RunFailure | None:
        """Read why the run was given up; None if it was not, was finished since, or the file cannot be read."""
        try:
            data = _json(self.path / "error.json")
            finished = (record := self.record()) is not None and record.data["finished"]
        except (
            OSError,
            ValueError,
            RecursionError,
        ):  # among them InputError; the next study tries it again, whatever it was
            return None
        names = [field.name for field in dataclasses.fields(RunFailure)]
        if finished or not isinstance(data, dict) or data.get("format") != FORMAT or {*names} - {*data}:
            return None
        texts = all(isinstance(data[name], str) for name in names if name != "spec")
        if not texts or _foreign(data["spec"], data["fingerprint"], self.path.name):
            return None
        return RunFailure(**{name: data[name] for name in names})

    def busy(self) -> bool:
        """Whether a process holds the lock now."""
        if not (self.path / "lock").exists():  # looking makes no file
            return False
        try:
            with atomic.locked(self.path / "lock", timeout=0):
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


def _json(path: Path) -> Any:
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
        raise OSError("it is no regular file")
    return json.loads(path.read_text(encoding="utf-8"))


def checkpoint_format(state: Any) -> Any:
    """The format of a state as it was loaded; None if it is none of clsim's."""
    if not isinstance(state, dict):
        return None
    return state.get("format", 1 if "clsim" in state else None)


def _problem(data: Any, fingerprint: str) -> str:
    """Why this is no record of the run ``fingerprint``; empty if it is one."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        return f"found format {found!r}, allowed: {FORMAT}"
    kinds = {
        "fingerprint": str,
        "finished": bool,
        "spec": dict,
        "accuracy": list,
        "initial": list,
        "classes": list,
        "cost": list,
        "metrics": dict,
        "versions": dict,
        "command": str,
    }
    for key, kind in kinds.items():
        if not isinstance(data.get(key), kind):
            return f"{key}: found {type(data.get(key)).__name__}, allowed: {kind.__name__}"
    size = len(data["accuracy"])
    readouts = data.get("readouts", {})
    matrices = [data["accuracy"], *(readouts.values() if isinstance(readouts, dict) else [readouts])]
    diagnostics = data.get("diagnostics", {})
    rows = [data["initial"], data.get("unlabelled", data["initial"])]
    rows += list(diagnostics.values()) if isinstance(diagnostics, dict) else [diagnostics]
    rows += [row for m in matrices for row in (m if isinstance(m, list) and len(m) == size else [None])]
    if not all(isinstance(row, list) and len(row) == size and all(map(_number, row)) for row in rows):
        return "accuracy: not a square matrix of numbers"
    sizes = data.get("test_sizes", [1] * size)
    if not isinstance(sizes, list) or len(sizes) != size or not all(type(n) is int and n > 0 for n in sizes):
        return "test_sizes: not a whole number above 0 for each experience"
    if not all(map(_number, data["metrics"].values())):
        return "metrics: found something that is no number"
    if not all(isinstance(c, dict) and all(map(_number, c.values())) for c in data["cost"]):
        return "cost: found something that is no number"
    try:
        for search in data.get("searches", ()):
            read_search(search, "searches")
    except (InputError, TypeError) as error:
        return _line(error)
    nets = data.get("pretraining", [])
    if not isinstance(nets, list) or not all(isinstance(one, dict) and _net(one) for one in nets):
        return "pretraining: not what nets took that learnt without labels"
    if wrong := _batches_problem(data.get("batches", []), size):
        return wrong
    if "labelling" in data and (wrong := problem(data["labelling"], size, finished=data["finished"])):
        return wrong
    if "natures" in data and (wrong := wrong_natures(data["natures"], size)):
        return wrong
    if _foreign(data["spec"], data["fingerprint"], fingerprint):
        return "it is not the record of this folder's run (its spec has another fingerprint)"
    return ""


def _foreign(spec: Any, claimed: str, fingerprint: str) -> bool:
    """Whether a spec belongs to another run than ``fingerprint``."""
    text = json.dumps(spec, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16] != fingerprint or claimed != fingerprint


def _net(entry: dict[str, Any]) -> bool:
    """Whether an entry says what a net took that learnt without labels."""
    numbers, words = ("experience", "images", "steps", "seconds", "loss"), ("use", "method", "model", "file")
    return all(type(entry.get(key)) in (int, float) for key in numbers) and all(
        isinstance(entry.get(key), str) for key in words
    )


def _batches_problem(entries: Any, experiences: int) -> str:
    """Why this is not what a record says of batches; empty if it is."""
    whole, maybe = ("experience", "steps", "candidates", "trained", "passes"), ("different", "learnt", "seconds")
    for entry in entries if isinstance(entries, list) else [None]:
        if not isinstance(entry, dict) or not all(type(entry.get(key)) is int and entry[key] >= 0 for key in whole):
            return f"batches: not whole numbers from 0: {', '.join(whole)}"
        if entry["experience"] >= experiences or not all(key in entry and _number(entry[key]) for key in maybe):
            return f"batches: not an experience of the run with numbers: {', '.join(maybe)}"
        curve = entry.get("curve", {"steps": [], "candidates": [], "seconds": [], "accuracy": []})
        if not isinstance(curve, dict) or not all(isinstance(column, list) for column in curve.values()):
            return "batches.curve: not lists of equal length"
        if {*curve} != {"steps", "candidates", "seconds", "accuracy"} or len({*map(len, curve.values())}) > 1:
            return "batches.curve: not lists of equal length: steps, candidates, seconds, accuracy"
        rows = [value for row in curve["accuracy"] for value in (row if isinstance(row, list) else ["no list"])]
        if not all(map(_number, [*curve["steps"], *curve["candidates"], *curve["seconds"], *rows])):
            return "batches.curve: found something that is no number"
        if not all(_number(entry.get(key)) for key in ("wrong", "copies")):
            return "batches: not a share: wrong, copies"
        if not isinstance(entry.get("irreducible", {}), dict):
            return "batches.irreducible: not what an irreducible-loss net took"
    return ""


def _number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < float("inf"))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _line(error: BaseException) -> str:
    """The first line of an error, for a message of one line."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
