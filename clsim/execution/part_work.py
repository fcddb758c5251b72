"""A choice in parts, carried out: the parts on an engine, each kept in a folder, so that what is killed goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout

from clsim.data.shards import shards
from clsim.errors import InputError, first_line, raised
from clsim.execution import parts
from clsim.execution.engines.engine import EngineSpec, Outcome, create
from clsim.execution.parts import Chosen, Plan
from clsim.pool.pool import Pool
from clsim.records import atomic, regular
from clsim.version import __version__

TRIES = 3
"""Number of lost processes after which a part is given up."""

Progress = Callable[[int, int], None]
"""Is told the number of parts that are done, and of all."""


@dataclass(frozen=True)
class Found:
    """What a choice in parts gives.

    Attributes:
        rows: int64 (m,), the picks, best first.
        pool: the picks and a uniform sample of the other rows.
        certificate: what holds of the picks, in words.
    """

    rows: np.ndarray
    pool: Pool
    certificate: str


@dataclass(frozen=True)
class Part:
    """A part of a choice as a piece of work for an engine, in any process that sees the files."""

    plan: Plan
    number: int
    folder: str

    @property
    def key(self) -> str:
        """The name of the part."""
        return f"part {self.number}"

    @property
    def file(self) -> Path:
        """Where the part's picks are kept."""
        return Path(self.folder, f"part-{self.number:06d}.json")

    def with_cores(self, count: int) -> Part:
        """Return the part itself: it takes the threads of its plan, and no more cores."""
        return self

    def carry_out(self) -> Outcome:
        """Choose from the part and keep its picks; a part that is kept is only held against the features."""
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(self.plan.threads)
            if not self.file.exists():
                write(self.file, parts.first_round(self.plan, self.number))
            elif read(self.file, self.plan).digest != parts.digest(self.plan, self.number):
                raise changed(self.folder, f"the features of {self.key}")
        except Exception as error:  # of any kind: the other side can only be told
            line = str(error) if isinstance(error, InputError) else f"{self.key}: {raised(error)}"
            return Outcome(self.key, "failed", line)
        finally:
            torch.set_num_threads(threads)
        return Outcome(self.key, "finished")


def choose(
    plan: Plan, folder: Path | None, engine: EngineSpec, progress: Progress | None = None, *, measured: int = 50_000
) -> Found:
    """Choose in parts, on an engine; the picks depend neither on the engine nor on the order of the parts.

    Args:
        plan: what is chosen.
        folder: where the picks of parts are kept, to go on after a kill; None: nowhere that stays. It is left there,
            for the caller to remove when the picks are safe.
        engine: where the parts are carried out.
        progress: is told how far the choice is.
        measured: number of drawn rows in the pool of the result.

    Raises:
        InputError: if the choice cannot be made in parts, the folder belongs to another, the features have changed, or
            a part fails.
        DiskError: if the disk refuses a file.
    """
    parts.check(plan)
    if engine.name == "slurm":
        raise InputError("--engine: found slurm with parts, allowed: here, local, ray")
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _refuse_foreign(folder)  # before anything is put into it
        atomic.make_folder(folder)
        try:
            stack.enter_context(atomic.locked(folder / "lock", 0))
        except Timeout:
            raise InputError(f"{folder}: another process chooses there, allowed: one at a time") from None
        _claim(folder, plan)
        stack.callback(_tidy, folder)
        work = [Part(plan, number, str(folder.absolute())) for number in range(plan.parts)]
        _carry_out(work, engine, folder, progress)
        firsts = [read(part.file, plan) for part in work]
        threads = torch.get_num_threads()
        torch.set_num_threads(plan.threads)
        stack.callback(torch.set_num_threads, threads)
        last = parts.second_round(plan, firsts)
        return Found(last.rows, parts.sample(plan, last.rows, measured), parts.certificate(plan, firsts, last))


def write(file: Path, found: Chosen) -> None:
    """Keep the picks of a part, with a checksum."""
    content = {"rows": found.rows.tolist(), "measure": found.measure, "digest": found.digest}
    text = json.dumps(content)
    atomic.write(file, json.dumps({"checksum": _sum(text), "content": text}).encode())


def read(file: Path, plan: Plan) -> Chosen:
    """Read the picks of a part.

    Raises:
        InputError: if the file is damaged.
    """
    try:
        kept = json.loads(regular.content(file))
        if _sum(kept["content"]) != kept["checksum"]:
            raise ValueError("its checksum is wrong")
        content = json.loads(kept["content"])
        rows = np.array(content["rows"], dtype=np.int64).reshape(-1)
        if len(rows) > plan.budget or len(np.unique(rows)) < len(rows):
            raise ValueError("its rows are none of this choice")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(plan.shards):
            raise ValueError("its rows are not those of the features")
        return Chosen(rows, float(content["measure"]), str(content["digest"]))
    except Exception as error:  # it may hold anything
        raise InputError(f"{file}: damaged ({first_line(error)}); allowed: delete it to choose again") from None


def changed(folder: str | Path, what: str) -> InputError:
    """Make the error for a folder whose parts were chosen from something else."""
    return InputError(
        f"{folder}: {what} changed since; allowed: as before, or begin anew: --force, or delete the folder"
    )


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that is somebody else's."""
    if folder.is_symlink():
        raise InputError(f"{folder}: is a link, allowed: a folder, or another --out")
    left = sorted(path.name for path in folder.iterdir() if path.name != "lock") if folder.is_dir() else []
    if left and not (folder / "plan.json").exists():
        raise InputError(f"{folder}: holds {left[0]!r}, and no choice in parts; allowed: another --out")


def _claim(folder: Path, plan: Plan) -> None:
    """Write into the folder what is chosen; refuse one that holds another choice."""
    file, mine = folder / "plan.json", _described(plan)
    if not file.exists():
        atomic.write(file, json.dumps(mine, indent=1).encode())
        return
    atomic.tidy(folder, [f"part-{number:06d}.json" for number in range(plan.parts)])
    try:
        kept = json.loads(regular.content(file))
        other = [name for name in mine if kept[name] != mine[name]]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise InputError(f"{file}: damaged ({first_line(error)}); allowed: delete {folder} to begin anew") from None
    if other:
        raise changed(
            folder, f"{other[0]} of what is chosen there (there {kept[other[0]]!s:.80}, now {mine[other[0]]!s:.80})"
        )


def _tidy(folder: Path) -> None:
    """Remove the folder if no part was chosen, so that a command that was refused stands in no other's way."""
    if not any(folder.glob("part-*.json")):
        atomic.remove_folder(folder)


def _described(plan: Plan) -> dict[str, Any]:
    fields = {f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.name != "shards"}
    fields["options"] = dict(plan.options)
    fields |= {"files": list(plan.shards.files), "counts": list(plan.shards.counts), "width": plan.shards.width}
    return json.loads(json.dumps(fields | {"clsim": __version__}))


def _carry_out(work: list[Part], spec: EngineSpec, folder: Path, progress: Progress | None) -> None:
    left, tries = {part.key: part for part in work}, dict.fromkeys((part.key for part in work), 1)
    engine = create(spec, folder, "parts")
    try:
        engine.submit(work)
        while left:
            for outcome in engine.poll(0.25):
                key = outcome.fingerprint
                if outcome.state == "lost" and tries[key] < TRIES:
                    tries[key] += 1
                    engine.submit([left[key]])
                    continue
                if outcome.state != "finished":
                    times = f", {TRIES} times" if outcome.state == "lost" else ""
                    raise InputError(f"{key}: {outcome.error}{times}" if times else outcome.error)
                if not left[key].file.exists():
                    raise InputError(f"{key}: its node does not see {folder}; allowed: a folder that all nodes share")
                del left[key]
                if progress is not None:
                    progress(len(work) - len(left), len(work))
    finally:
        engine.close()


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def engine_of(name: str, plan: Plan, workers: int | None, address: str) -> EngineSpec:
    """Make the spec of the engine that carries out the parts; empty: ``here``."""
    name, device = name or "here", "cpu" if plan.device == "cpu" else "cuda"
    if address and name != "ray":
        raise InputError(f"--address: found with --engine {name}, allowed: with --engine ray")
    return EngineSpec(name, workers, threads=plan.threads, device=device, address=address)


def words(plan: Plan) -> str:
    """Say what is chosen from."""
    kind, n, d = "logits" if plan.logits else "features", len(plan.shards), plan.shards.width
    return f"{n:,} × {d} {kind} in {plan.parts} part{'s' * (plan.parts != 1)}"


def plan_of(
    features: Any,
    selector: str,
    options: dict[str, Any],
    budget: int | None,
    fraction: float | None,
    count: int | None,
    *,
    logits: bool,
    seed: int,
    device: str,
    threads: int | None,
) -> Plan:
    """Make the plan of a choice; arguments as for :func:`clsim.execution.select.select`.

    Args:
        features: the path of features, or of logits.
        count: number of parts; None: what suits their size.
    """
    found = shards(features, "logits" if logits else "features")
    wanted = max(round((fraction or 0) * len(found)), 1) if budget is None else min(budget, len(found))
    number = parts.parts_for(found, wanted) if count is None else count
    return Plan(found, logits, selector, tuple(sorted(options.items())), wanted, number, seed, device, threads or 1)
