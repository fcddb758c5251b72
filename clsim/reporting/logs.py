"""Logs of runs in TensorBoard, MLflow, Weights & Biases and trackio; off unless asked for.

A log is written from the run's own record and losses, whenever an experience is done: it changes no number, and is the
same whether the run went through, was resumed, or was finished long ago. A log that fails is dropped with a line; the
run goes on.

loss/TERM                   of every optimizer step, against the step
accuracy/average            over the experiences seen so far, against their number; accuracy/experience_N of each
forgetting                  so far, as :func:`clsim.records.metrics.forgetting` has it
cost/NAME                   of the experience: see :data:`clsim.records.frame.COSTS`
final/METRIC                once the run is finished
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from clsim.errors import InputError, nearest, raised
from clsim.records import metrics
from clsim.records.atomic import make_folder
from clsim.records.search import Search, Trial
from clsim.records.store import RunFolder, RunRecord
from clsim.spec.run import RunSpec
from clsim.training.progress import Progress

Point = tuple[int, dict[str, float]]
"""A place on the axis (a step, or a number of experiences), and the values there by name."""


class Log(Protocol):
    """A log of one run, in one tool."""

    def write(self, steps: Sequence[Point], experiences: Sequence[Point], final: dict[str, float]) -> None:
        """Write what is new since the last call."""

    def close(self) -> None:
        """End the log."""


class TensorBoard:
    """Event files in ``runs/<fingerprint>/logs/tensorboard``; see them with ``tensorboard --logdir runs``. Final."""

    def __init__(self, spec: RunSpec, folder: RunFolder) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # what an interrupted run has written before is written again, and shown once
        self._writer = SummaryWriter(str(folder.path / "logs" / "tensorboard"), purge_step=0)
        self._writer.add_text("spec", f"```json\n{json.dumps(spec.as_dict(), indent=1)}\n```", 0)

    def write(self, steps: Sequence[Point], experiences: Sequence[Point], final: dict[str, float]) -> None:
        """Write each value as a scalar."""
        last = max((number for number, _ in experiences), default=0)
        for number, values in (*steps, *experiences, (last, final)):
            for name, value in values.items():
                self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run of the experiment ``clsim`` in $MLFLOW_TRACKING_URI, or else in the folder ``runs/mlruns``. Final."""

    def __init__(self, spec: RunSpec, folder: RunFolder) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a log sends nothing by itself
        import mlflow
        from mlflow.entities import Metric, Param

        self._metric: Any = Metric
        place = os.environ.get("MLFLOW_TRACKING_URI") or (folder.path.parent / "mlruns").resolve().as_uri()
        if place.startswith("file:"):  # every version can still use a folder, but newer ones have to be told
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = mlflow.MlflowClient(tracking_uri=place)
        experiment = self._client.get_experiment_by_name("clsim")
        number = experiment.experiment_id if experiment else self._client.create_experiment("clsim")
        tags = {"mlflow.runName": _title(spec), "clsim.fingerprint": spec.fingerprint}
        self._run = self._client.create_run(number, tags=tags).info.run_id
        params = [Param(key, str(value)[:500]) for key, value in _flat(spec.as_dict()).items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(self._run, params=params[start : start + 100])

    def write(self, steps: Sequence[Point], experiences: Sequence[Point], final: dict[str, float]) -> None:
        """Write each value as a metric, in the largest batches that MLflow takes."""
        now = int(time.time() * 1000)
        last = max((number for number, _ in experiences), default=0)
        found = [
            self._metric(name, value, now, number)
            for number, values in (*steps, *experiences, (last, final))
            for name, value in values.items()
        ]
        for start in range(0, len(found), 1000):
            self._client.log_batch(self._run, metrics=found[start : start + 1000])

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


class WandB:
    """A run of the project ``clsim``, in ``runs/<fingerprint>/logs``. Final.

    Nothing is sent unless $WANDB_MODE says so; ``wandb sync`` uploads it later. The run's id is its fingerprint.
    """

    def __init__(self, spec: RunSpec, folder: RunFolder) -> None:
        import wandb

        place = folder.path / "logs"
        make_folder(place)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "clsim"),
            id=spec.fingerprint,
            name=_title(spec),
            config=spec.as_dict(),
            dir=str(place),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
        )
        for pattern, axis in (("loss/*", "step"), ("accuracy/*", "experience"), ("cost/*", "experience")):
            self._run.define_metric(pattern, step_metric=axis)
        self._run.define_metric("forgetting", step_metric="experience")

    def write(self, steps: Sequence[Point], experiences: Sequence[Point], final: dict[str, float]) -> None:
        """Write a row for each step and each experience; final values go into the summary."""
        for axis, points in (("step", steps), ("experience", experiences)):
            for number, values in points:
                self._run.log({axis: number, **values})
        self._run.summary.update(final)

    def close(self) -> None:
        """End the run; a process of wandb's own may still write for a moment."""
        self._run.finish()


class Trackio:
    """A run of the project ``clsim`` in $TRACKIO_DIR, or else in the folder ``runs/trackio``. Final.

    The run's id is its fingerprint, and what was logged of the run before is replaced. Rows go to trackio's storage:
    its ``init`` would ask a hub for the user's name, print, measure the machine, and keep quiet about what fails.
    """

    def __init__(self, spec: RunSpec, folder: RunFolder) -> None:
        place = Path(os.environ.get("TRACKIO_DIR") or folder.path.parent / "trackio")
        self._storage = _storage_of_trackio(place.resolve())
        self._name, self._id = _title(spec), spec.fingerprint
        self._config = {**_flat(spec.as_dict()), "fingerprint": spec.fingerprint}
        self._storage.delete_run("clsim", self._name, run_id=self._id)

    def write(self, steps: Sequence[Point], experiences: Sequence[Point], final: dict[str, float]) -> None:
        """Write a row for each step, each experience and the final values, in one transaction."""
        last = max((number for number, _ in experiences), default=0)
        rows = [
            (f"{self._id}/{axis}/{number}", number, values)
            for axis, points in (("step", steps), ("experience", experiences), ("final", [(last, final)]))
            for number, values in points
            if values
        ]
        self._storage.bulk_log(
            "clsim",
            self._name,
            [values for *_, values in rows],
            steps=[number for _, number, _ in rows],
            log_ids=[row for row, *_ in rows],  # of two rows of one name, storage keeps one
            run_id=self._id,
            config=self._config,
        )

    def close(self) -> None:
        """Do nothing: no file is open between two calls."""


TOOLS: dict[str, tuple[str, Callable[[RunSpec, RunFolder], Log]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "mlflow": ("mlflow", MLflow),
    "wandb": ("wandb", WandB),
    "trackio": ("trackio", Trackio),
}
"""Name for ``--log`` → the package that it needs, and the log."""


def check(names: Sequence[str]) -> None:
    """Check the names given to ``--log``, before anything runs.

    Raises:
        InputError: for a name that is unknown, or whose package is not installed.
    """
    for name in names:
        if name not in TOOLS:
            raise InputError(f"--log: found {name!r}; {nearest(name, TOOLS)}")
        if importlib.util.find_spec(TOOLS[name][0]) is None:
            raise InputError(f"--log {name}: {TOOLS[name][0]} is not installed; pip install 'clsim[{name}]'")


class Logging:
    """A progress that keeps logs of a run, and passes all calls on to another progress. Final. A context manager.

    Args:
        names: names in :data:`TOOLS`.
        spec: spec of the run.
        folder: folder of the run.
        progress: the progress that calls are passed on to.
        say: takes a line for the user when a log fails.
    """

    def __init__(
        self, names: Sequence[str], spec: RunSpec, folder: RunFolder, progress: Progress, say: Callable[[str], None]
    ) -> None:
        self._names, self._spec, self._folder = dict.fromkeys(names), spec, folder
        self._progress, self._say = progress, say
        self._logs: dict[str, Log] = {}
        self._steps = self._rows = 0
        self._finished = False

    def __enter__(self) -> Logging:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._write()  # of a run that was finished before
        for name, log in list(self._logs.items()):
            self._guarded(name, log.close)

    def experience(self, position: int, total: int, images: int) -> None:
        """Pass the call on."""
        self._progress.experience(position, total, images)

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        """Pass the call on."""
        self._progress.asked(number, rounds, labelled, images)

    def trial(self, trial: Trial) -> None:
        """Pass the call on."""
        self._progress.trial(trial)

    def step(self, images: int) -> None:
        """Pass the call on."""
        self._progress.step(images)

    def searched(self, search: Search) -> None:
        """Pass the call on."""
        self._progress.searched(search)

    def row(self, position: int, accuracy: list[float]) -> None:
        """Pass the call on, then log what the experience left in the run's folder."""
        self._progress.row(position, accuracy)
        self._write()

    def _write(self) -> None:
        """Log what has not been logged of the record."""
        record = None if self._finished or not self._names else self._folder.record()
        if record is None:
            return
        steps, experiences = list(_steps(record, self._steps)), list(_experiences(record, self._rows))
        self._steps += len(steps)
        self._rows += len(experiences)
        self._finished = record.data["finished"]
        summary = record.data["metrics"] if self._finished else {}
        final = {f"final/{name}": value for name, value in summary.items() if value is not None}
        for name in list(self._names):
            if name not in self._logs:
                self._guarded(name, lambda name=name: self._begin(name))  # type: ignore[misc]
            if name in self._logs:
                log = self._logs[name]
                self._guarded(name, lambda log=log: log.write(steps, experiences, final))  # type: ignore[misc]

    def _begin(self, name: str) -> None:
        self._logs[name] = TOOLS[name][1](self._spec, self._folder)

    def _guarded(self, name: str, act: Callable[[], None]) -> None:
        """Call a tool; if that fails, drop its log and say so, since the run is to go on."""
        try:
            act()
        except Exception as error:
            self._names.pop(name, None)
            self._logs.pop(name, None)
            self._say(f"--log {name}: {raised(error)}; the run goes on without it")


def _steps(record: RunRecord, first: int) -> Iterator[Point]:
    """Yield the losses from step ``first`` on; NaN, which means a step without the term, is left out."""
    losses = record.losses
    for step, values in zip(range(first, len(losses)), losses.to_numpy()[first:].tolist(), strict=True):
        yield step, {f"loss/{name}": v for name, v in zip(losses.columns, values, strict=True) if not math.isnan(v)}


def _experiences(record: RunRecord, first: int) -> Iterator[Point]:
    """Yield the values after each experience, from the one of number ``first`` that was trained on."""
    R, costs = np.asarray(record.data["accuracy"], dtype=float), record.data["cost"]
    trained = [i for i in range(len(R)) if not np.isnan(R[i]).all()]
    if len(trained) != len(costs):  # not all were tested (evaluation.every)
        trained = [*range(len(costs))]
    for i, cost in list(zip(trained, costs, strict=True))[first:]:
        seen = {j: float(R[i, j]) for j in range(i + 1) if not np.isnan(R[i, j])}
        sizes = metrics.weights(record.data)
        values = {f"accuracy/experience_{j + 1}": accuracy for j, accuracy in seen.items()}
        if seen:
            counted = None if sizes is None else [sizes[j] for j in seen]
            values["accuracy/average"] = metrics.average(np.array([*seen.values()]), counted)
        if i and not np.isnan(so_far := metrics.forgetting(R[: i + 1, : i + 1])):
            values["forgetting"] = so_far
        yield i + 1, values | {f"cost/{n}": float(v) for n, v in cost.items() if v is not None}


def _storage_of_trackio(place: Path) -> Any:
    """Return the class with which trackio reads and writes its databases in the folder ``place``; make the database.

    Raises:
        InputError: if trackio has another folder in this process, or if this one is on a network file system.
    """
    names = ("TRACKIO_DIR", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["TRACKIO_DIR"] = str(place)  # read once, when trackio is imported
    try:
        from trackio import utils
        from trackio.sqlite_storage import SQLiteStorage

        if utils.TRACKIO_DIR.resolve() != place:
            raise InputError(f"TRACKIO_DIR: found {place}, allowed in this process: {utils.TRACKIO_DIR}, as before")
        mode = os.environ.get("TRACKIO_STORAGE_MODE", "").strip().lower()
        if mode != "sqlite" and utils.is_network_filesystem(place):  # trackio itself writes no database there
            raise InputError(
                f"TRACKIO_DIR: found {place}, on a network file system, where two writers damage a database; allowed: "
                "a folder of this machine, or TRACKIO_STORAGE_MODE=sqlite where one process writes at a time"
            )
        SQLiteStorage.init_db("clsim")  # the first call fetches what the other two names say, so that they are gone
        return SQLiteStorage
    finally:
        del os.environ["TRACKIO_DIR"]
        os.environ.update(before)


def _title(spec: RunSpec) -> str:
    memory = f" {spec.memory.buffer} {spec.memory.size}" if spec.memory.buffer != "none" else ""
    return f"{spec.scenario} {spec.strategy}{memory} seed {spec.seed}"


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tables.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out
