"""The Ray engine: runs as tasks of a Ray cluster, an existing one or one that is started on this machine.

On a node that shares the study's folder of runs, a task works in that folder, as a local process would. On other nodes
the run's files are copied: existing files are sent with the task, and after each experience they come back through a
queue.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clsim.errors import InputError, RunBusy
from clsim.execution.engines.engine import EngineSpec, Job, Outcome, failed, work
from clsim.records import atomic
from clsim.records.search import Search, Trial
from clsim.records.store import RunFolder, Store
from clsim.spec.cores import cores
from clsim.spec.own_code import user_files

FILES = ("spec.json", "checkpoint.pt", "search.json", "rounds.pt", "losses.npz", "error.json", "record.json")
"""Files of a run's folder in the order of writing: the record comes last."""

Files = Mapping[str, bytes]


def create(spec: EngineSpec, root: Path) -> Ray:
    """Connect to the cluster of the spec, or start one; an existing connection of this process is kept and used."""
    connected, share = connect(spec)
    return Ray(root, spec.threads, share, spec.workers, leave=connected)


def connect(spec: EngineSpec) -> tuple[bool, float]:
    """Connect to the cluster of the spec, or start one; an existing connection of this process is kept and used.

    Returns:
        Whether the connection existed before, and the number of GPUs, or the share of one, of each piece of work.

    Raises:
        InputError: if the cluster cannot be reached, or has fewer GPUs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study sends no statistics of its use
    connected = ray.is_initialized()
    if not connected:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if spec.address:
                ray.init(address=spec.address, **quiet)
            else:
                ray.init(address="local", num_cpus=_cpus(spec), include_dashboard=False, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            where = f"--address: cannot reach a Ray cluster at {spec.address!r}" if spec.address else "--engine ray"
            raise InputError(f"{where}: {line} (a cluster with a token: set RAY_AUTH_MODE=token)") from None
    there = ray.cluster_resources().get("GPU", 0)
    share = spec.gpus_per_run if spec.gpus_per_run is not None else float(there > 0 and spec.device != "cpu")
    if share > there:
        raise InputError(f"--gpus-per-run: found {share:g}, but the cluster has {there:g} GPUs")
    return connected, share


class Ray:
    """The engine of tasks on a Ray cluster. Final.

    Args:
        root: the folder of all runs.
        threads: number of CPU threads of each run.
        gpus: number of GPUs of each run, or its share of one GPU.
        slots: number of runs at a time; None = as many as the cluster has room for.
        leave: whether :meth:`close` leaves the connection open, since it existed before.
        shared: whether every node shares the folder of runs; None = find out on each node.
    """

    def __init__(
        self,
        root: Path,
        threads: int,
        gpus: float,
        slots: int | None = None,
        *,
        leave: bool = False,
        shared: bool | None = None,
    ) -> None:
        self.slots = slots
        self._leave, self._root, self._threads = leave, root, threads
        atomic.make_folder(root)
        self._marker = root / f".study-{uuid.uuid4().hex}"
        if shared is not False:
            atomic.write(self._marker, b"")
        self._queue = None if _everywhere(self._marker) else Queue(actor_options={"num_cpus": 0})
        self._task = ray.remote(_task).options(num_cpus=threads, num_gpus=gpus, max_retries=0)
        self._waiting: list[Job] = []
        self._running: dict[ray.ObjectRef, Job] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """Send as many jobs to the cluster as may run at a time; the others wait."""
        self._waiting.extend(jobs)
        self._fill()

    def poll(self, seconds: float) -> list[Outcome]:
        """Return the outcomes of tasks that ended, and write the files that running tasks have sent."""
        self._fill()
        done, _ = ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        outcomes = [self._outcome(ref, self._running.pop(ref)) for ref in done]
        if self._queue is not None:
            for job, files in self._queue.get_nowait_batch(self._queue.qsize()):
                self._receive(job, files)
        self._fill()
        return outcomes

    def close(self) -> None:
        """Stop the tasks, and disconnect from the cluster unless the connection existed before."""
        for ref in self._running:
            ray.cancel(ref, force=True)
        if self._queue is not None:
            self._queue.shutdown(force=True)
        atomic.remove(self._marker)
        if not self._leave:
            ray.shutdown()

    def _fill(self) -> None:
        while self._waiting and (self.slots is None or len(self._running) < self.slots):
            job = replace(self._waiting.pop(0), cores=self._threads)
            files = {} if self._queue is None else _files(Store(self._root).folder(job.spec).path)
            own = {} if self._queue is None else _user_files(job)
            self._running[self._task.remote(job, str(self._marker), files, own, self._queue)] = job

    def _outcome(self, ref: ray.ObjectRef, job: Job) -> Outcome:
        try:
            outcome, files = ray.get(ref)
        except RayTaskError as error:  # not the run's own error, which is returned; for example, no clsim there
            return failed(job, str(error.cause or error))
        except RayError as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Outcome(job.spec.fingerprint, "lost", f"its worker is gone ({line})")
        if files and not self._receive(job, files):
            return Outcome(job.spec.fingerprint, "busy", "another process runs it on this machine")
        return outcome

    def _receive(self, job: Job, files: Files) -> bool:
        """Write a run folder that came from another machine, unless the same run goes on here."""
        try:
            with Store(self._root).open(job.spec) as folder:
                _write(folder.path, files)
        except RunBusy:
            return False
        return True


class _Post:
    """A :class:`clsim.training.progress.Progress` that sends a run's files to this machine after each experience."""

    def __init__(self, job: Job, folder: RunFolder, queue: Queue) -> None:
        self._job, self._folder, self._queue = job, folder, queue

    def experience(self, position: int, total: int, images: int) -> None:
        """Do nothing: the files have not changed."""

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        """Send the files, which hold the label rounds so far."""
        self._queue.put((self._job, _files(self._folder.path)))

    def trial(self, trial: Trial) -> None:
        """Send the files, which hold the results of earlier trials."""
        self._queue.put((self._job, _files(self._folder.path)))

    def step(self, images: int) -> None:
        """Do nothing: the files have not changed."""

    def searched(self, search: Search) -> None:
        """Do nothing: the result is sent with the experience."""

    def row(self, position: int, accuracy: list[float]) -> None:
        """Send the files, which hold a new state."""
        self._queue.put((self._job, _files(self._folder.path)))


def _task(job: Job, marker: str, files: Files, own: Files, queue: Queue | None) -> tuple[Outcome, Files]:
    """Carry out a job on a node; also return the run's files if the node does not share the folder of runs."""
    if Path(marker).is_file():
        os.chdir(job.place)
        return work(job), {}
    with tempfile.TemporaryDirectory() as place:
        for name, content in own.items():
            atomic.make_folder(Path(place, name).parent)
            atomic.write(Path(place, name), content)
        os.chdir(place)
        there = job.data_root if job.data_root and Path(job.data_root).is_dir() else None
        here = replace(job, runs=str(Path(place, "runs")), place=place, data_root=there)
        folder = Store(Path(here.runs)).folder(job.spec)
        _write(folder.path, files)
        try:
            outcome = work(here, None if queue is None else _Post(job, folder, queue))
            return outcome, _files(folder.path)
        finally:
            os.chdir("/")


def _is_file(path: str) -> bool:
    return Path(path).is_file()


def _everywhere(marker: Path) -> bool:
    """Whether every node of the cluster sees a file of this machine."""
    look = ray.remote(_is_file)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    at = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
    return all(ray.get([look.options(num_cpus=0, scheduling_strategy=a).remote(str(marker)) for a in at]))


def _cpus(spec: EngineSpec) -> int:
    return spec.threads * (spec.workers or max(1, cores() // spec.threads))


def _files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}


def _write(folder: Path, files: Files) -> None:
    atomic.make_folder(folder)
    going = ("search.json", "rounds.pt", *(["error.json"] if "record.json" in files else []))
    for name in FILES:
        if name in files:
            atomic.write(folder / name, files[name])
        elif name in going:  # gone there, too
            atomic.remove(folder / name)


def _user_files(job: Job) -> dict[str, bytes]:
    """Read the user's own files of code that the spec needs and that lie inside the working directory."""
    place = Path(job.place).resolve()
    paths = [path.resolve() for path in user_files(job.spec)]
    return {str(p.relative_to(place)): p.read_bytes() for p in paths if p.is_relative_to(place)}
