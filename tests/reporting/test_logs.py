"""Logs: what a tool is told is what the record holds, a run does not notice, and a failing log is a line."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from clsim.cli import main
from clsim.errors import InputError
from clsim.execution import execute
from clsim.records.store import RunRecord, Store
from clsim.reporting import logs
from clsim.spec.resolve import resolve
from clsim.training import progress

SMALL = ["data.per_class=20", "training.epochs=1"]


def executed(
    folder: Path, *names: str, buffer: str = "random", said: list[str] | None = None, settings: Sequence[str] = ()
) -> RunRecord:
    flags = {"memory": {"buffer": buffer, "capacity": 20}}
    spec = resolve("split-digits", "er", flags=flags, settings=[*SMALL, *settings])
    store = Store(folder)
    say = (said if said is not None else []).append
    with logs.Logging(names, spec, store.folder(spec), progress.Quiet(), say) as logging:
        return execute.execute(spec, store, watch=lambda _: nullcontext(logging))


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "logs" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


class Recorder:
    """A log that remembers, and fails when told to."""

    calls: list[tuple[list[logs.Point], list[logs.Point], dict[str, float]]]
    fails = ""

    def __init__(self, spec: Any, folder: Any) -> None:
        type(self).calls = []
        if self.fails == "begin":
            raise OSError("no\nroom")

    def write(self, steps: Sequence[logs.Point], experiences: Sequence[logs.Point], final: dict[str, float]) -> None:
        self.calls.append((list(steps), list(experiences), final))
        if self.fails == "write" and len(self.calls) == 2:
            raise RuntimeError("gone")

    def close(self) -> None:
        if self.fails == "close":
            raise RuntimeError("late")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setitem(logs.TOOLS, "tensorboard", ("tensorboard", Recorder))
    monkeypatch.setattr(Recorder, "fails", "")
    return Recorder


def without_times(record: RunRecord) -> dict[str, Any]:
    data = {k: v for k, v in record.data.items() if k not in ("started", "ended", "command", "cost")}
    data["cost"] = [
        {k: v for k, v in c.items() if "seconds" not in k and k != "peak_bytes"} for c in record.data["cost"]
    ]
    return data


def averages_of(record: RunRecord) -> list[float]:
    """The share of the test samples of all classes seen that is right, after each experience."""
    R, sizes = record.accuracy.to_numpy(), np.array(record.data["test_sizes"])
    return [float((R[i] * sizes)[: i + 1].sum() / sizes[: i + 1].sum()) for i in range(len(R))]


def test_a_log_changes_no_number(tmp_path: Path) -> None:
    plain, logged = executed(tmp_path / "a"), executed(tmp_path / "b", "tensorboard")
    assert without_times(plain) == without_times(logged)
    assert plain.losses.equals(logged.losses)
    assert plain.folder is not None
    assert not (plain.folder / "logs").exists()


def test_tensorboard_holds_what_the_record_holds(tmp_path: Path) -> None:
    record = executed(tmp_path, "tensorboard")
    assert record.folder is not None
    found = scalars(record.folder)
    for term, column in record.losses.items():
        np.testing.assert_allclose([v for _, v in found[f"loss/{term}"]], column.dropna(), rtol=1e-6)
        assert [step for step, _ in found[f"loss/{term}"]] == column.dropna().index.tolist()
    R = record.accuracy.to_numpy()
    average = averages_of(record)
    np.testing.assert_allclose(found["accuracy/average"], list(zip(range(1, 6), average, strict=True)), rtol=1e-6)
    np.testing.assert_allclose([v for _, v in found["accuracy/experience_2"]], R[1:, 1], rtol=1e-6)
    assert found["forgetting"][-1][1] == pytest.approx(record.metrics["forgetting"], rel=1e-6)
    assert [v for _, v in found["cost/forward_passes"]] == [c["forward_passes"] for c in record.data["cost"]]
    assert found["final/accuracy"] == [(5, pytest.approx(record.metrics["accuracy"], rel=1e-6))]


def test_an_experience_that_was_not_tested_is_logged_with_its_cost(tmp_path: Path, recorder: type[Recorder]) -> None:
    executed(tmp_path, "tensorboard", settings=["evaluation.every=3"])
    points = [point for _, experiences, _ in recorder.calls for point in experiences]
    assert [number for number, _ in points] == [1, 2, 3, 4, 5]
    assert ["accuracy/average" in values for _, values in points] == [False, False, True, False, True]
    assert all("cost/steps" in values for _, values in points)


def test_each_thing_is_told_once(tmp_path: Path, recorder: type[Recorder]) -> None:
    record = executed(tmp_path, "tensorboard")
    assert [len(experiences) for _, experiences, _ in recorder.calls] == [1] * 5
    assert [n for steps, _, _ in recorder.calls for n, _ in steps] == list(range(len(record.losses)))
    assert [bool(final) for *_, final in recorder.calls] == [False] * 4 + [True]


def test_a_finished_run_is_logged_whole(tmp_path: Path) -> None:
    first = executed(tmp_path, "tensorboard")
    assert first.folder is not None
    during = scalars(first.folder)
    executed(tmp_path, "tensorboard")  # nothing runs; what was written before is not shown twice
    assert scalars(first.folder) == during


def test_an_interrupted_run_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(progress.Quiet):
        def row(self, position: int, accuracy: list[float]) -> None:
            if position == 2:
                raise KeyboardInterrupt

    spec = resolve("split-digits", "er", flags={"memory": {"buffer": "random", "capacity": 20}}, settings=SMALL)
    store = Store(tmp_path / "a")
    with (
        pytest.raises(KeyboardInterrupt),
        logs.Logging(["tensorboard"], spec, store.folder(spec), Stop(), print) as logging,
    ):
        execute.execute(spec, store, watch=lambda _: nullcontext(logging))
    resumed, whole = executed(tmp_path / "a", "tensorboard"), executed(tmp_path / "b", "tensorboard")
    assert resumed.folder is not None
    assert whole.folder is not None
    a, b = scalars(resumed.folder), scalars(whole.folder)
    assert {k: v for k, v in a.items() if "seconds" not in k and "peak" not in k} == {
        k: v for k, v in b.items() if "seconds" not in k and "peak" not in k
    }


@pytest.mark.parametrize(("when", "told"), [("begin", 0), ("write", 2), ("close", 5)])
def test_a_failing_log_is_a_line_and_the_run_goes_on(
    when: str, told: int, tmp_path: Path, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "fails", when)
    said: list[str] = []
    record = executed(tmp_path, "tensorboard", said=said)
    assert record.data["finished"]
    assert len(recorder.calls) == told
    assert len(said) == 1
    assert said[0].startswith("--log tensorboard: raised ")
    assert "the run goes on without it" in said[0]
    assert "\n" not in said[0]


def test_names_are_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"--log: found 'tensorbord'; did you mean 'tensorboard'\?"):
        logs.check(["tensorbord"])
    monkeypatch.setitem(logs.TOOLS, "mlflow", ("no_such_package", logs.MLflow))
    with pytest.raises(
        InputError, match=r"--log mlflow: no_such_package is not installed; pip install 'clsim\[mlflow\]'"
    ):
        logs.check(["mlflow"])


def test_the_flag(tmp_path: Path) -> None:
    sets = [word for setting in SMALL for word in ("--set", setting)]
    words = ["run", "--runs", str(tmp_path), "--seeds", "2", "--quiet", "--log", "tensorboard", *sets]
    result = CliRunner().invoke(main.app, words)
    assert result.exit_code == 0, result.output
    folders = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        assert scalars(folder)["final/accuracy"]
    assert not Store(tmp_path).records()[1]


def test_mlflow_holds_what_the_record_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed (pip install 'clsim[mlflow]')")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said: list[str] = []
    record = executed(tmp_path, "mlflow", said=said)
    assert said == []
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("clsim").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["clsim.fingerprint"] == record.data["fingerprint"]
    assert run.data.params["memory.capacity"] == "20"
    assert run.data.metrics["final/accuracy"] == record.metrics["accuracy"]
    for term, column in record.losses.items():
        history = client.get_metric_history(run.info.run_id, f"loss/{term}")
        assert {m.step: m.value for m in history} == column.dropna().to_dict()
    assert Store(tmp_path).records()[1] == []


def test_wandb_stays_offline_and_holds_what_the_record_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (pip install 'clsim[wandb]')")
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    said: list[str] = []
    record = executed(tmp_path, "wandb", said=said)
    assert said == []
    assert record.folder is not None
    (file,) = (record.folder / "logs").glob("wandb/offline-run-*/run-*.wandb")
    assert record.data["fingerprint"] in file.name
    until = time.monotonic() + 20  # a process of wandb's own writes it, a moment later
    rows = wandb_rows(file)
    while len([row for row in rows if "experience" in row]) < 5 and time.monotonic() < until:
        time.sleep(0.1)
        rows = wandb_rows(file)
    steps = {int(row["step"]): row for row in rows if "step" in row}
    for term, column in record.losses.items():
        assert {
            s: row[f"loss/{term}"] for s, row in steps.items() if f"loss/{term}" in row
        } == column.dropna().to_dict()
    averages = [row["accuracy/average"] for row in rows if "experience" in row]
    assert averages == pytest.approx(averages_of(record))


def wandb_rows(file: Path) -> list[dict[str, float]]:
    """The history of an offline run: LevelDB's log of protocol buffers, in blocks of 32 KiB, after 7 bytes."""
    import json

    from wandb.proto import wandb_internal_pb2

    content, place, parts, rows = file.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            message = wandb_internal_pb2.Record()
            message.ParseFromString(parts)
            parts = b""
            if message.HasField("history"):
                rows.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in message.history.item})
    return rows
