"""The local engine: runs in processes of this machine, each with one run at a time.

The processes are kept from run to run, since importing torch takes seconds. A socket connects each of
them to the parent: when the parent ends, for whatever reason, the socket closes, the process ends at once, and the
operating system frees its lock. When a process dies, only its own run is lost, and another process replaces it.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from clsim.errors import InputError
from clsim.execution.engines.engine import EngineSpec, Outcome, Work
from clsim.spec.cores import cores


def create(spec: EngineSpec, root: Path) -> Local:
    """Make an engine with as many processes as cores (or GPUs) allow, unless the spec gives a number."""
    gpus = _gpus() if spec.device in ("auto", "cuda") and spec.gpus_per_run != 0 else []
    share = spec.gpus_per_run or 1
    if spec.gpus_per_run and (share > 1 or not gpus):
        there = f"{len(gpus)} GPU{'s' * (len(gpus) != 1)} that --device {spec.device} may choose from"
        raise InputError(f"--gpus-per-run: found {share:g} with {there}, allowed: 1 at most, and only with a GPU")
    slots = gpus * int(1 / share)  # each GPU once, then each GPU again
    by_machine = len(slots) or max(1, cores() // spec.threads)
    return Local(spec.workers or by_machine, slots)


class Local:
    """The engine of processes on this machine. Final.

    Args:
        slots: number of processes at a time.
        gpus: CUDA's names of the devices, given to the processes in turn; empty = the devices that this process sees.
        share: the cores of each; 0 = an equal part of those that this process may use.
    """

    def __init__(self, slots: int, gpus: Sequence[str] = (), share: int = 0) -> None:
        self.slots: int | None = slots
        self._share = share or max(1, cores() // slots)
        self._gpus = gpus
        self._workers: list[_Worker | None] = [None] * slots
        self._queue: deque[Work] = deque()

    def submit(self, jobs: Sequence[Work]) -> None:
        """Append jobs to the queue."""
        self._queue.extend(jobs)

    def poll(self, seconds: float) -> list[Outcome]:
        """Give jobs to idle processes, and return the outcomes that have come back."""
        outcomes = self._fill()
        busy = {worker.connection: i for i, worker in enumerate(self._workers) if worker and worker.job}
        for connection in wait(list(busy), 0 if outcomes else seconds):
            place = busy[connection]  # type: ignore[index]
            outcomes.append(self._received(place))
        return outcomes + self._fill()

    def close(self) -> None:
        """Close the sockets, which ends the processes."""
        for worker in self._workers:
            if worker is not None:
                worker.connection.close()
        for worker in self._workers:
            if worker is not None:
                worker.end()
        self._workers = [None] * len(self._workers)

    def _fill(self) -> list[Outcome]:
        lost = []
        for place, worker in enumerate(self._workers):
            if not self._queue or (worker and worker.job):
                continue
            if worker is None:
                worker = self._workers[place] = _Worker(self._gpus[place % len(self._gpus)] if self._gpus else None)
            job = self._queue.popleft()
            try:
                worker.give(job.with_cores(self._share))
            except OSError:  # the process died between two runs
                lost.append(self._lost(place, job))
        return lost

    def _received(self, place: int) -> Outcome:
        worker = self._workers[place]
        if worker is None or worker.job is None:
            raise RuntimeError("the process that is asked for an outcome has no job")
        try:
            outcome = worker.connection.recv()
        except (EOFError, OSError):
            return self._lost(place, worker.job)
        worker.job = None
        return outcome

    def _lost(self, place: int, job: Work) -> Outcome:
        worker, self._workers[place] = self._workers[place], None
        return Outcome(job.key, "lost", worker.end() if worker else "")


class _Worker:
    """A process of the engine, and the job that it works on."""

    def __init__(self, gpu: str | None) -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours.detach())
        self.job: Work | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        environment = os.environ | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
        # not multiprocessing: its processes import the user's script again, which must be written for that. The path
        # is set before anything is imported, so that files of the working directory hide no module.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[theirs.fileno()],
                env=environment,
            )

    def give(self, job: Work) -> None:
        self.connection.send(job)
        self.job = job

    def end(self) -> str:
        """Wait until the process is gone; return how it ended, in one line."""
        self.connection.close()
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # stuck where Python cannot interrupt it
            self._process.kill()
            code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        self._errors.close()
        if code < 0:
            return f"its process was stopped by signal {-code} ({signal.strsignal(-code)})"
        return " ".join([f"its process ended with exit code {code}", *said])


def serve(descriptor: int) -> None:
    """Receive jobs through a socket, carry them out and send the outcomes back, until the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the parent decides
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    jobs: queue.SimpleQueue[Work] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                jobs.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)  # at once, also during a run: files are written whole, and locks are freed

    threading.Thread(target=listen, daemon=True).start()
    while True:
        connection.send(jobs.get().carry_out())


def _gpus() -> list[str]:
    """List CUDA's names of the devices that may be used, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return found.split()
