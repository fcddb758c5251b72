"""Where the runs of a study execute: in processes of this machine, on a Ray cluster, or as Slurm jobs.

An engine is told which runs to carry out and reports, one by one, how they ended. All of them call :func:`work`, so
that the records are the same whichever it is. What a run has done so far is read from its folder, not from the engine.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from clsim.errors import InputError, RunBusy, nearest, raised
from clsim.execution.execute import execute
from clsim.records.store import Store
from clsim.spec.resolve import sources
from clsim.spec.run import RunSpec

if TYPE_CHECKING:
    from clsim.training.progress import Progress


@dataclass(frozen=True)
class Job:
    """A run to be carried out, on whatever machine.

    Attributes:
        command: makes this run alone; kept in its record.
        runs: the folder of all runs, absolute.
        data_root: of the data sets, absolute; None = the machine's own.
        place: the working directory, to which paths in the spec are relative.
        scenario: where the spec's scenario comes from: a name or a path; empty = a name, that of the spec.
    """

    spec: RunSpec
    command: str
    runs: str
    data_root: str | None
    place: str
    scenario: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: ``finished``; ``failed``, with its error in its folder; ``busy``: another process runs it; ``lost``:
            whoever worked on it is gone, and it can be taken up from its checkpoint.
        error: why, in one line.
    """

    fingerprint: str
    state: Literal["finished", "failed", "busy", "lost"]
    error: str = ""


class Engine(Protocol):
    """The one small interface."""

    slots: int | None
    """Runs at a time; None if only the cluster knows."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs on; returns at once."""

    def poll(self, seconds: float) -> list[Outcome]:
        """What has ended since the last call; waits for something to end, but not longer than this."""

    def close(self) -> None:
        """Stop everything that still runs."""


@dataclass(frozen=True)
class EngineSpec:
    """Which engine, and what it may use.

    Attributes:
        workers: runs at a time; None = as many as the machine has cores (or GPUs) for.
        gpus_per_run: 0.5 = two runs share a GPU; None = one where there are any, unless ``device`` is ``cpu``.
        threads, device: of each run, as in its spec.
        address: of a Ray cluster; empty starts one on this machine.
        partition: of Slurm.
        cluster: ``slurm``, or ``local``: submitit's executor on this machine.
        minutes: that a Slurm job may take; a run that takes longer goes on in another job.
    """

    name: str = "local"
    workers: int | None = None
    gpus_per_run: float | None = None
    threads: int = 1
    device: str = "auto"
    address: str = ""
    partition: str = ""
    cluster: str = "slurm"
    minutes: int = 240

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise InputError(f"--engine: found {self.name!r}; {nearest(self.name, ENGINES)}")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers: found {self.workers}, allowed: 1 or more")
        share = self.gpus_per_run
        if share is not None and not (0 <= share <= 1 or (share < 1024 and share == int(share))):
            raise InputError(f"--gpus-per-run: found {share}, allowed: a share of one GPU, or a whole number of them")
        if self.cluster not in ("slurm", "local"):
            raise InputError(f"--cluster: found {self.cluster!r}; {nearest(self.cluster, ('slurm', 'local'))}")
        if self.minutes < 1:
            raise InputError(f"--minutes: found {self.minutes}, allowed: 1 or more")


ENGINES = {"local": "", "ray": "ray", "slurm": "submitit"}
"""Name → the package that it needs, an extra of the same name as the engine."""


def create(spec: EngineSpec, root: Path) -> Engine:
    """The engine of a spec, ready for jobs.

    Args:
        root: the folder of all runs.

    Raises:
        InputError: if its package is not installed, or what it talks to is not there.
    """
    package = ENGINES[spec.name]
    try:
        if package:
            importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"--engine {spec.name}: {error}; allowed: after pip install 'clsim[{spec.name}]'") from None
    module: Any = importlib.import_module(f"clsim.execution.engines.{spec.name}")
    return module.create(spec, root)


def work(job: Job, progress: Progress | None = None) -> Outcome:
    """Carry out one run, here and now. Whatever goes wrong in it is written into its folder, and returned."""
    store, spec = Store(Path(job.runs)), job.spec
    watch = None if progress is None else lambda spec: contextlib.nullcontext(progress)
    try:
        _check_sources(spec)
        execute(spec, store, scenario=job.scenario, data_root=job.data_root, watch=watch, command=job.command)
    except RunBusy as error:
        return Outcome(spec.fingerprint, "busy", str(error))
    except (Exception, SystemExit) as error:  # a user's selector may raise anything, and the other runs go on
        line = str(error) if isinstance(error, InputError) or not isinstance(error, Exception) else raised(error)
        return failed(job, line)
    return Outcome(spec.fingerprint, "finished")


def failed(job: Job, error: str) -> Outcome:
    """Write that a run is given up, and why."""
    with contextlib.suppress(OSError):  # on a full disk the error is at least shown
        Store(Path(job.runs)).folder(job.spec).fail(job.spec, error, job.command)
    return Outcome(job.spec.fingerprint, "failed", " ".join(error.split()))


def cores() -> int:
    """That this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _check_sources(spec: RunSpec) -> None:
    """A selector that is edited while a study waits would run under the name of the one before."""
    now = sources(spec.as_dict())
    for name, digest in spec.sources:
        if (name, digest) not in now:
            change = "it or a file that it imports has changed" if name in dict(now) else "is not to be found here"
            raise InputError(f"{name}: {change} since the study was planned; start the study again")
