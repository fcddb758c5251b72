"""Where the runs of a study execute: in processes of this machine or in this one, on a Ray cluster, or as Slurm jobs.

An engine takes jobs and reports, one by one, how they ended. All engines call :func:`work`, so that the records do not
depend on the engine. The progress of a run is read from its folder, not from the engine.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from clsim.errors import InputError, RunBusy, nearest, raised
from clsim.execution.execute import execute, execute_all
from clsim.execution.given import with_sources
from clsim.records.store import Store
from clsim.spec.own_code import sources
from clsim.spec.run import NAMED, Given, RunSpec

if TYPE_CHECKING:
    from clsim.training.progress import Progress


@dataclass(frozen=True)
class Job:
    """A run that an engine carries out, on any machine.

    Attributes:
        spec: the spec of the run.
        command: the command that makes this run alone; it is kept in the run's record.
        runs: absolute path of the folder of all runs.
        data_root: absolute path of the data folder; None = the default folder of the machine that carries out the run.
        place: the working directory; paths in the spec are relative to it.
        scenario: name or path of the spec's scenario; empty = the name in the spec.
        given: objects in place of those that the spec names, which only the engine ``here`` can carry out.
        cores: the CPU cores that belong to the run; 0 = all that its process may use.
        group: the specs of all seeds that advance together, its own among them; whichever job comes first carries out
            all of them. Empty: the run is alone.
    """

    spec: RunSpec
    command: str
    runs: str
    data_root: str | None
    place: str
    scenario: str = ""
    given: Given = NAMED
    cores: int = 0
    group: tuple[RunSpec, ...] = ()

    @property
    def key(self) -> str:
        """The fingerprint of the run."""
        return self.spec.fingerprint

    def with_cores(self, count: int) -> Job:
        """Return the same run, with the cores that belong to it."""
        return replace(self, cores=count)

    def carry_out(self) -> Outcome:
        """Carry out the run in this process; see :func:`work`."""
        return work(self)


@dataclass(frozen=True)
class Outcome:
    """How a run, or another piece of work, ended.

    Attributes:
        fingerprint: the fingerprint of the run; the key of another piece of work.
        state: ``finished``; ``failed``: its error is in its folder; ``busy``: another process carries it out; ``lost``:
            its process or machine is gone, and the run can be resumed from its checkpoint.
        error: the reason, in one line; empty for a finished run.
    """

    fingerprint: str
    state: Literal["finished", "failed", "busy", "lost"]
    error: str = ""


class Work(Protocol):
    """What the engines of this machine carry out, in any process of it: a run of a study, a part of a selection."""

    @property
    def key(self) -> str:
        """What its outcome is known by."""

    def with_cores(self, count: int) -> Work:
        """Return the same work, with the cores that belong to it."""

    def carry_out(self) -> Outcome:
        """Carry it out in this process; an error is returned, not raised."""


class Engine(Protocol):
    """Where runs are carried out: what each engine offers to a study."""

    slots: int | None
    """Number of runs at a time; None if only the cluster knows it."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Accept jobs, and return at once."""

    def poll(self, seconds: float) -> list[Outcome]:
        """Return the outcomes since the last call; wait for the first one, but at most for ``seconds``."""

    def close(self) -> None:
        """Stop everything that still runs."""


@dataclass(frozen=True)
class EngineSpec:
    """Which engine carries out the runs, and what it may use.

    Attributes:
        name: a name of :data:`ENGINES`.
        workers: number of runs at a time; None = as many as the machine has cores (or GPUs) for.
        gpus_per_run: number of GPUs of each run; 0.5 = two runs share a GPU; None = one if there are any, unless
            ``device`` is ``cpu`` (with Slurm: none).
        threads: least number of CPU threads that a run is given; that of its spec, if it is larger.
        device: device of each run, as in its spec.
        address: address of a Ray cluster; empty = start one on this machine.
        partition: the partition of Slurm; empty = its default.
        cluster: ``slurm``, or ``local`` for submitit's executor on this machine.
        minutes: time limit of a Slurm job, in minutes; a run that takes longer continues in another job.
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
        if self.name == "here" and self.workers not in (None, 1):
            raise InputError(f"--workers: found {self.workers} with --engine here, allowed: 1; other engines take more")
        if self.cluster not in ("slurm", "local"):
            raise InputError(f"--cluster: found {self.cluster!r}; {nearest(self.cluster, ('slurm', 'local'))}")
        if self.minutes < 1:
            raise InputError(f"--minutes: found {self.minutes}, allowed: 1 or more")


ENGINES = {"local": "", "here": "", "ray": "ray", "slurm": "submitit"}
"""Name of an engine → the package that it needs, which clsim's extra of the engine's name installs."""


def create(spec: EngineSpec, root: Path, of: Literal["runs", "parts"] = "runs") -> Any:
    """Make the engine of a spec, ready for jobs.

    Args:
        spec: the engine's spec.
        root: the folder of all runs, or of the state of a selection.
        of: what it is for: ``runs`` of a study, whose :class:`Engine` is returned, or ``parts`` of a selection, where
            its ``submit`` takes :class:`Work`.

    Raises:
        InputError: if the engine's package is not installed, or its cluster or GPUs are not there.
    """
    package = ENGINES[spec.name]
    try:
        if package:
            importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"--engine {spec.name}: {error}; allowed: after pip install 'clsim[{spec.name}]'") from None
    name = "ray_parts" if spec.name == "ray" and of == "parts" else spec.name
    module: Any = importlib.import_module(f"clsim.execution.engines.{name}")
    return module.create(spec, root)


def work(job: Job, progress: Progress | None = None) -> Outcome:
    """Carry out one run in this process; an error is written into the run's folder and returned, not raised."""
    store, spec = Store(Path(job.runs)), job.spec
    watch = None if progress is None else lambda spec: contextlib.nullcontext(progress)
    try:
        _check_sources(spec, job.given)
        how: dict[str, Any] = {"scenario": job.scenario, "data_root": job.data_root, "given": job.given}
        how |= {"watch": watch, "cores": job.cores}
        if job.group and not _is_finished(store, spec):
            execute_all(job.group, store, [job.command] * len(job.group), **how)
        else:
            execute(spec, store, command=job.command, **how)
    except RunBusy as error:
        return Outcome(spec.fingerprint, "busy", str(error))
    except (Exception, SystemExit) as error:  # a user's selector may raise anything, and the other runs go on
        if job.group and _is_finished(store, spec):  # it is another seed that failed
            return Outcome(spec.fingerprint, "finished")
        line = str(error) if isinstance(error, InputError) or not isinstance(error, Exception) else raised(error)
        return failed(job, line)
    return Outcome(spec.fingerprint, "finished")


def _is_finished(store: Store, spec: RunSpec) -> bool:
    record = store.folder(spec).record()
    return record is not None and bool(record.data["finished"])


def failed(job: Job, error: str) -> Outcome:
    """Write into a run's folder that the run failed, and why; return that outcome."""
    with contextlib.suppress(OSError):  # on a full disk the error is at least shown
        Store(Path(job.runs)).folder(job.spec).fail(job.spec, error, job.command)
    return Outcome(job.spec.fingerprint, "failed", " ".join(error.split()))


def _check_sources(spec: RunSpec, given: Given) -> None:
    """Refuse a run whose user files changed since the study was planned: its fingerprint stands for the old ones."""
    now = [*sources(spec.as_dict()), *with_sources(spec, given).sources] if given else sources(spec.as_dict())
    for name, digest in spec.sources:
        if (name, digest) not in now:
            change = "it or a file that it imports has changed" if name in dict(now) else "cannot be found here"
            raise InputError(f"{name}: {change} since the study was planned; start the study again")
