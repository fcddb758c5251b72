"""Execution of a study: an engine carries out the runs, lost runs are restarted, failures do not stop the others."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from clsim import notebook
from clsim.data import datasets
from clsim.errors import InputError
from clsim.execution.engines.engine import Engine, EngineSpec, Job, Outcome, create
from clsim.execution.plan import Planned, cell_of, experiences, looked_up
from clsim.records.store import RunFailure, RunRecord, Store
from clsim.spec.cores import processes
from clsim.spec.naming import run_name
from clsim.spec.run import RunSpec

if TYPE_CHECKING:
    import pandas as pd

TRIES = 3
"""Number of lost processes after which a run is given up."""
_LOOK = 2.0
"""Seconds between two checks of runs that another process holds."""


@dataclass(frozen=True)
class RunState:
    """The progress of a run in a study, for display.

    Attributes:
        title: the run in words.
        state: the run's state; ``elsewhere``: another process runs it.
        done, total: number of experiences that are finished, and in all.
        accuracy: average accuracy over the experiences seen so far; None before the first.
        left: expected seconds until its end; None: not known.
        note: the error, or that the run was restarted.
    """

    title: str
    state: Literal["waiting", "running", "elsewhere", "finished", "failed"]
    done: int
    total: int
    accuracy: float | None = None
    left: float | None = None
    note: str = ""


class StudyWatch(Protocol):
    """Display of a study in progress."""

    def show(self, states: Sequence[RunState], left: float | None) -> None:
        """Show the progress; called a few times a second.

        Args:
            states: the state of every run.
            left: expected seconds until the study's end; None: not known.
        """


@dataclass(frozen=True)
class StudyResult:
    """The result of a study.

    Attributes:
        records: the records of its finished runs, in the order of the plan.
        failures: the failures of its other runs.
    """

    records: tuple[RunRecord, ...]
    failures: tuple[RunFailure, ...]

    def __repr__(self) -> str:
        return f"<StudyResult: {len(self.records)} finished, {len(self.failures)} failed>"

    def _repr_html_(self) -> str:
        rows = [
            [
                run_name(record.data["spec"]),
                *(
                    f"{100 * v:.1f} %" if (v := record.metrics.get(m)) is not None else "–"
                    for m in ("accuracy", "forgetting")
                ),
            ]
            for record in self.records
        ]
        notes = [f"failed: {failure.title}: {failure.error}" for failure in self.failures]
        return notebook.grid(repr(self)[1:-1], ("run", "accuracy", "forgetting"), rows, notes)

    def frame(self) -> pd.DataFrame:
        """Return a table with a row for each finished run: labels, spec values as ``table.key``, metrics, costs."""
        from clsim.records.frame import frame

        return frame([record.data for record in self.records])


def carry_out(
    planned: Sequence[Planned],
    store: Store,
    engine_spec: EngineSpec,
    *,
    data_root: str | Path | None = None,
    fresh: bool = False,
    watch: StudyWatch | None = None,
) -> StudyResult:
    """Carry out every unfinished run of a plan on an engine.

    Args:
        planned: the runs of the plan.
        store: the store that holds the records.
        engine_spec: which engine, and its settings.
        data_root: folder of the data sets; None: ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        fresh: whether to run all of them anew; existing records are set aside.
        watch: display of the progress; None: none.
    """
    if fresh:
        for run in planned:
            with store.open(run.spec, fresh=True):
                pass
        planned = [dataclasses.replace(run, finished=False, done=0) for run in planned]
    todo = [run for run in planned if not run.finished]
    given_up: dict[str, RunFailure] = {}
    if todo:
        place, root = str(Path.cwd()), str(store.root.absolute())
        sets = str(datasets.data_root(data_root).absolute())
        jobs = [
            Job(run.spec, run.command, root, sets, place, run.scenario, run.given, group=_group(run, planned))
            for run in todo
        ]
        threads = max(engine_spec.threads, *(run.spec.training.threads for run in todo))
        engine = create(dataclasses.replace(engine_spec, threads=threads), Path(root))
        try:
            given_up = Supervisor(planned, jobs, store, engine).run(watch)
        finally:
            engine.close()
    records = []
    for run in planned:
        record = store.folder(run.spec).record() if run.spec.fingerprint not in given_up else None
        if record is not None:
            records.append(dataclasses.replace(record, read=run.finished))
    return StudyResult(tuple(records), tuple(given_up.values()))


def workers_of(together: bool | str, specs: Sequence[RunSpec]) -> int:
    """Return the number of processes in which seeds are carried out where ``auto`` is asked for; 1: in this one.

    Args:
        together: what the command says.
        specs: the resolved specs, which differ in their seed alone; those of a stack stay in one process.
    """
    if together != "auto" or specs[0].training.seeds:
        return 1
    return processes(len(specs), specs[0].training.threads)


def carry_out_seeds(
    specs: Sequence[RunSpec],
    store: Store,
    commands: Sequence[str],
    workers: int,
    *,
    scenario: str = "",
    data_root: str | Path | None = None,
    fresh: bool = False,
    watch: StudyWatch | None = None,
) -> list[RunRecord]:
    """Carry out specs that differ in their seed alone in processes of this machine, or read their records.

    Args:
        specs: the resolved specs.
        store, data_root, fresh, watch: as for :func:`carry_out`.
        commands: the command that makes each run.
        workers: number of processes.
        scenario: name or path of the scenario.

    Returns:
        The record of each spec, the same as that of :func:`clsim.execution.execute.execute`.

    Raises:
        InputError: if a run fails, after the others have ended.
    """
    runs = [
        Planned(spec, f"{spec.title} · seed {spec.seed}", words, total=experiences(spec), scenario=scenario)
        for spec, words in zip(specs, commands, strict=True)
    ]
    engine = EngineSpec(workers=workers, device=specs[0].training.device)
    planned = [looked_up(run, store) for run in runs]
    result = carry_out(planned, store, engine, data_root=data_root, fresh=fresh, watch=watch)
    for failure in result.failures:
        raise InputError(f"{failure.title}: {failure.error}")
    return list(result.records)


def _group(run: Planned, planned: Sequence[Planned]) -> tuple[RunSpec, ...]:
    """Collect the specs of the seeds that a run advances together with, its own among them; empty if it is alone."""
    if not run.spec.training.seeds:
        return ()
    cell = json.dumps(cell_of(run.spec.as_dict()), sort_keys=True)
    return tuple(o.spec for o in planned if json.dumps(cell_of(o.spec.as_dict()), sort_keys=True) == cell)


class Supervisor:
    """The state of a study that is being carried out. Final."""

    def __init__(self, planned: Sequence[Planned], jobs: Sequence[Job], store: Store, engine: Engine) -> None:
        self._store, self._engine = store, engine
        self._jobs = {job.spec.fingerprint: job for job in jobs}  # those that have not ended
        self._runs = {run.spec.fingerprint: _Run(run, store) for run in planned}
        self._elsewhere: dict[str, Job] = {}
        self._looked = 0.0
        self._failures: dict[str, RunFailure] = {}

    def run(self, watch: StudyWatch | None) -> dict[str, RunFailure]:
        """Wait for the end of every run; return the failures by fingerprint."""
        self._engine.submit(list(self._jobs.values()))
        while self._jobs:
            for outcome in self._engine.poll(0.25):
                self._end(outcome)
            if time.monotonic() - self._looked > _LOOK:
                self._look_elsewhere()
            if watch is not None:
                watch.show(*self._states())
        return self._failures

    def _end(self, outcome: Outcome) -> None:
        fingerprint = outcome.fingerprint
        run, job = self._runs[fingerprint], self._jobs.pop(fingerprint)
        if outcome.state == "busy":
            self._jobs[fingerprint] = self._elsewhere[fingerprint] = job
            run.state, run.note = "elsewhere", outcome.error
        elif outcome.state == "lost" and run.losses + 1 < TRIES:
            self._jobs[fingerprint] = job
            run.losses += 1
            run.wait(f"taken up again: {outcome.error}")
            self._engine.submit([job])
        elif outcome.state == "finished":
            run.state, run.note = "finished", ""
        else:
            again = f", {TRIES} times" if outcome.state == "lost" else ""
            self._give_up(job, outcome.error + again, written=outcome.state == "failed")

    def _give_up(self, job: Job, error: str, *, written: bool) -> None:
        folder, run = self._store.folder(job.spec), self._runs[job.spec.fingerprint]
        with contextlib.suppress(InputError):
            if (record := folder.record()) is not None and record.data["finished"]:  # by another study meanwhile
                run.state, run.note = "finished", ""
                return
        failure = folder.failure() if written else None
        if failure is None:
            failure = RunFailure(job.spec.fingerprint, job.spec.as_dict(), error, job.command, "")
            with contextlib.suppress(OSError):  # on a full disk the failure is at least shown
                failure = folder.fail(job.spec, error, job.command)
        self._failures[job.spec.fingerprint] = failure
        run.state, run.note = "failed", failure.error

    def _look_elsewhere(self) -> None:
        """Submit the runs that other processes held and hold no longer, finished or not."""
        self._looked = time.monotonic()
        for fingerprint, job in list(self._elsewhere.items()):
            if not self._store.folder(job.spec).busy():
                del self._elsewhere[fingerprint]
                self._runs[fingerprint].wait("")
                self._engine.submit([job])  # the engine reads the record if the run is finished

    def _states(self) -> tuple[list[RunState], float | None]:
        for fingerprint in self._jobs:
            self._runs[fingerprint].look()
        states = [run.snapshot() for run in self._runs.values()]
        return states, time_left(states, [run.seconds for run in self._runs.values()], self._engine.slots)


class _Run:
    """A run as seen from its files: its spec is written when it begins, its record after every experience."""

    def __init__(self, planned: Planned, store: Store) -> None:
        self.state: Literal["waiting", "running", "elsewhere", "finished", "failed"] = "waiting"
        self.note = ""
        self.losses = 0
        self._planned, self._folder = planned, store.folder(planned.spec)
        self._done, self._accuracy = planned.done, None if planned.done == 0 else self._read()[1]
        self.wait("")
        if planned.finished:
            self.state = "finished"

    def wait(self, note: str) -> None:
        """Set the state to waiting, before the run begins or is restarted."""
        self.state, self.note = "waiting", note
        self._mark, self._seen = self._time("spec.json"), self._time("record.json")
        self._began = self._row = time.monotonic()
        self._done_before = self._done

    def look(self) -> None:
        """Read from the files whether the run has begun and how far it is."""
        if self.state == "waiting" and self._time("spec.json") != self._mark:
            self.state, self._began = "running", time.monotonic()
        seen = self._time("record.json")
        if seen != self._seen:
            self._seen, self._row = seen, time.monotonic()
            self._done, self._accuracy = self._read()

    @property
    def seconds(self) -> float | None:
        """Expected seconds of the whole run, by what is known so far; None: not known."""
        rows = self._done - self._done_before
        if rows > 0:
            return (self._row - self._began) / rows * self._planned.total
        return self._planned.seconds

    def snapshot(self) -> RunState:
        """Return the state for display."""
        if self.state == "finished" and not self._planned.finished:
            self.look()
        left, expected = None, self.seconds
        if self.state in ("waiting", "running", "elsewhere") and expected is not None:
            begun = self._row if self._done > self._done_before else self._began
            share = 1 - self._done / self._planned.total if self._done > self._done_before else 1.0
            left = max(0.0, expected * share - (time.monotonic() - begun if self.state == "running" else 0))
        total, done = self._planned.total, self._done
        return RunState(self._planned.title, self.state, done, total, self._accuracy, left, self.note)

    def _read(self) -> tuple[int, float | None]:
        try:
            record = self._folder.record()
        except InputError:
            record = None
        return (0, None) if record is None else (len(record.data["cost"]), running_accuracy(record.data))

    def _time(self, name: str) -> int:
        try:
            return (self._folder.path / name).stat().st_mtime_ns
        except OSError:
            return 0


def running_accuracy(record: Mapping[str, Any]) -> float | None:
    """Compute the average accuracy over the experiences seen so far, after the last one that was learnt."""
    rows = [[v for v in row[: i + 1] if v is not None] for i, row in enumerate(record["accuracy"])]
    known = [row for row in rows if row]
    return statistics.fmean(known[-1]) if known else None


def time_left(states: Sequence[RunState], seconds: Sequence[float | None], slots: int | None) -> float | None:
    """Estimate the seconds until a study's end: what is left of its runs, divided by the number of parallel runs.

    Args:
        states: the state of every run.
        seconds: expected seconds of each whole run; the mean of the known ones stands in for the others.
        slots: number of runs at a time; None: as many as run now.

    >>> waits = RunState("", "waiting", 0, 5)
    >>> time_left([RunState("", "running", 1, 5, left=8.0), waits, waits], [10.0, None, None], 2)
    14.0
    """
    known = [s for s in seconds if s is not None]
    open_ = [state for state in states if state.state in ("waiting", "running", "elsewhere")]
    if not open_ or not known:
        return None if open_ else 0.0
    typical = statistics.fmean(known)
    left = [typical * (1 - s.done / s.total) if s.left is None else s.left for s in open_]
    running = sum(state.state == "running" for state in open_)
    return max(sum(left) / max(1, min(slots or running, len(open_))), *left)
