"""The Slurm engine: runs as an array of Slurm jobs, through submitit. The cluster's nodes share the folder of runs.

If runs share a GPU, all runs of one GPU are in one job and run at the same time.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit

from clsim.errors import InputError
from clsim.execution.engines.engine import EngineSpec, Job, Outcome, work
from clsim.execution.engines.local import Local
from clsim.spec.cores import cores


def create(spec: EngineSpec, root: Path) -> Slurm:
    """Make an engine whose jobs have the resources that the spec asks for."""
    if spec.cluster == "slurm" and shutil.which("sbatch") is None:
        raise InputError("--engine slurm: found no sbatch here, allowed: on a machine with Slurm, or --cluster local")
    share = spec.gpus_per_run or 0
    together = int(1 / share) if 0 < share < 1 else 1
    executor = submitit.AutoExecutor(root / "slurm", cluster=spec.cluster, slurm_max_num_timeout=100)
    executor.update_parameters(
        name="clsim",
        timeout_min=spec.minutes,
        cpus_per_task=spec.threads * together,
        gpus_per_node=math.ceil(share) if spec.cluster == "slurm" else None,
    )
    if spec.partition:
        executor.update_parameters(slurm_partition=spec.partition)
    jobs = spec.workers and max(1, spec.workers // together)
    if spec.cluster == "local":  # submitit would start all jobs at once
        jobs = jobs or max(1, cores() // (spec.threads * together))
    elif jobs:
        executor.update_parameters(slurm_array_parallelism=jobs)
    return Slurm(executor, together, jobs, queue=spec.cluster == "local")


class Slurm:
    """The engine of Slurm jobs. Final.

    Args:
        executor: submitit's executor, with its parameters set.
        together: number of runs in one job.
        jobs: number of jobs at a time; None = as many as the cluster allows.
        queue: whether the engine itself holds jobs back, since there is no scheduler.
    """

    def __init__(self, executor: submitit.AutoExecutor, together: int, jobs: int | None, *, queue: bool) -> None:
        self.slots = jobs and jobs * together
        self._executor, self._together = executor, together
        self._at_a_time = jobs if queue else None
        self._waiting: list[list[Job]] = []
        self._running: dict[submitit.Job[Any], list[Job]] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit the jobs as one array."""
        jobs = [replace(job, cores=job.spec.training.threads) for job in jobs]  # those that a job of Slurm's asks for
        self._waiting += [jobs[i : i + self._together] for i in range(0, len(jobs), self._together)]
        self._fill()

    def poll(self, seconds: float) -> list[Outcome]:
        """Ask submitit about each job, and return the outcomes of those that ended; if none has, wait."""
        done = [job for job in self._running if job.done()]
        if not done:
            time.sleep(seconds)
        outcomes = [outcome for job in done for outcome in self._outcomes(job, self._running.pop(job))]
        self._fill()
        return outcomes

    def close(self) -> None:
        """Cancel the jobs that wait or run."""
        for job in self._running:
            job.cancel(check=False)

    def _fill(self) -> None:
        room = len(self._waiting) if self._at_a_time is None else self._at_a_time - len(self._running)
        chosen, self._waiting = self._waiting[:room], self._waiting[room:]
        if chosen:
            self._running |= dict(zip(self._executor.map_array(Task(), chosen), chosen, strict=True))

    def _outcomes(self, job: submitit.Job[Any], runs: list[Job]) -> list[Outcome]:
        error = job.exception()
        if error is None:
            return job.result()
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return [Outcome(run.spec.fingerprint, "lost", f"its job is gone ({line})") for run in runs]


class Task:
    """The work of one job: its runs, at the same time if there are several; after a time-out, the next job resumes."""

    def __call__(self, jobs: list[Job]) -> list[Outcome]:
        """Carry out the runs, and return their outcomes."""
        if len(jobs) == 1:
            return [work(jobs[0])]
        engine, outcomes = Local(len(jobs), share=jobs[0].cores), list[Outcome]()
        try:
            engine.submit(jobs)
            while len(outcomes) < len(jobs):
                outcomes += engine.poll(1)
        finally:
            engine.close()
        return outcomes

    def checkpoint(self, jobs: list[Job]) -> submitit.helpers.DelayedSubmission:
        """Submit the runs again, when submitit says that the time is over; they resume from their own checkpoints."""
        return submitit.helpers.DelayedSubmission(self, jobs)
