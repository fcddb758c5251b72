"""The log of trackio: what its storage holds is what the record holds, once; nothing is sent, and nothing printed."""

from __future__ import annotations

import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from clsim.execution import execute
from clsim.records.store import RunRecord, Store
from clsim.reporting import logs
from clsim.spec.resolve import resolve
from clsim.training import progress
from tests.reporting.test_logs import SMALL, averages_of, executed


@pytest.fixture
def trackio_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test import trackio anew, since its folder is fixed by its first import, without a user's variables."""
    pytest.importorskip("trackio", reason="trackio is not installed (pip install 'clsim[trackio]')")
    for name in [n for n in os.environ if n.startswith("TRACKIO_")]:
        monkeypatch.delenv(name)
    forget_trackio()
    yield
    forget_trackio()


def forget_trackio() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "trackio"]:
        del sys.modules[name]


def trackio_rows(run: str) -> list[dict[str, Any]]:
    """The rows of a run in the folder of this process, as trackio reads them, in some order; timestamps aside."""
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("clsim", run_id=run)
    plain = [{name: value for name, value in row.items() if name != "timestamp"} for row in rows]
    return sorted(plain, key=lambda row: (row["step"], *row))


def trackio_runs() -> list[tuple[str, str]]:
    """Identity and name of each run in the folder of this process."""
    from trackio.sqlite_storage import SQLiteStorage

    return [(record["id"], record["name"]) for record in SQLiteStorage.get_run_records("clsim")]


def assert_trackio_holds(record: RunRecord) -> None:
    """Each value of the record is there once, to the last bit, and nothing else is."""
    rows, data = trackio_rows(record.data["fingerprint"]), record.data
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                found.setdefault(name, []).append((row["step"], value))
    R, last = record.accuracy.to_numpy(), len(data["accuracy"])
    assert found.pop("accuracy/average") == [(i + 1, pytest.approx(a)) for i, a in enumerate(averages_of(record))]
    assert [step for step, _ in found["forgetting"]] == [*range(2, last + 1)]
    assert found.pop("forgetting")[-1] == (last, pytest.approx(record.metrics["forgetting"]))
    expected = {f"loss/{term}": [*column.dropna().items()] for term, column in record.losses.items()}
    expected |= {f"accuracy/experience_{j + 1}": [(i + 1, R[i, j]) for i in range(j, last)] for j in range(last)}
    for name in data["cost"][0]:
        costs = [(i + 1, cost[name]) for i, cost in enumerate(data["cost"]) if cost[name] is not None]
        expected |= {f"cost/{name}": costs} if costs else {}
    expected |= {f"final/{name}": [(last, value)] for name, value in data["metrics"].items() if value is not None}
    assert found == expected


def test_trackio_holds_what_the_record_holds(tmp_path: Path, trackio_anew: None) -> None:
    said: list[str] = []
    first, second = executed(tmp_path, "trackio", said=said), executed(tmp_path, "trackio", buffer="herding", said=said)
    assert said == []
    runs = [(first, "split-digits er random 20 seed 0"), (second, "split-digits er herding 20 seed 0")]
    assert trackio_runs() == [(record.data["fingerprint"], name) for record, name in runs]
    for record, _ in runs:
        assert_trackio_holds(record)
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    assert (tmp_path / "trackio").samefile(utils.TRACKIO_DIR)
    config = SQLiteStorage.get_run_config("clsim", runs[0][1], run_id=first.data["fingerprint"])
    assert config["memory.capacity"] == 20
    assert config["memory.buffer"] == "random"
    assert config["fingerprint"] == first.data["fingerprint"]
    assert Store(tmp_path).records()[1] == []


def test_trackio_holds_a_run_once(tmp_path: Path, trackio_anew: None) -> None:
    class Stop(progress.Quiet):
        def row(self, position: int, accuracy: list[float]) -> None:
            if position == 2:
                raise KeyboardInterrupt

    spec = resolve("split-digits", "er", flags={"memory": {"buffer": "random", "capacity": 20}}, settings=SMALL)
    store = Store(tmp_path)
    with (
        pytest.raises(KeyboardInterrupt),
        logs.Logging(["trackio"], spec, store.folder(spec), Stop(), print) as logging,
    ):
        execute.execute(spec, store, watch=lambda _: nullcontext(logging))
    half = trackio_rows(spec.fingerprint)
    resumed = executed(tmp_path, "trackio")
    assert_trackio_holds(resumed)
    whole = trackio_rows(spec.fingerprint)
    assert 0 < len(half) < len(whole)
    assert all(row in whole for row in half)
    executed(tmp_path, "trackio")  # nothing runs
    assert trackio_rows(spec.fingerprint) == whole
    assert resumed.folder is not None
    (resumed.folder / "record.json").unlink()
    (resumed.folder / "checkpoint.pt").unlink(missing_ok=True)
    anew = executed(tmp_path, "trackio")  # other seconds
    assert not anew.read
    assert_trackio_holds(anew)
    assert trackio_runs() == [(spec.fingerprint, "split-digits er random 20 seed 0")]


def test_trackio_sends_nothing_and_prints_nothing(
    tmp_path: Path, trackio_anew: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    for name in ("connect", "connect_ex", "bind", "listen", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda *_, name=name: calls.append(name))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: calls.append("getaddrinfo") or [])
    monkeypatch.setattr(webbrowser, "open", lambda *_, **__: calls.append("browser"))
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    remote = {"TRACKIO_SPACE_ID": "a/b", "TRACKIO_BUCKET_ID": "a/c", "TRACKIO_SERVER_URL": "http://127.0.0.1:9/"}
    for name, value in remote.items():
        monkeypatch.setenv(name, value)
    before = threading.enumerate()
    record = executed(tmp_path, "trackio")
    assert_trackio_holds(record)
    assert calls == []
    assert [thread for thread in threading.enumerate() if thread not in before] == []
    assert capfd.readouterr() == ("", "")
    assert {name: value for name, value in os.environ.items() if name.startswith("TRACKIO_")} == remote


def test_trackio_takes_the_folder_of_the_user(
    tmp_path: Path, trackio_anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "mine"))
    assert_trackio_holds(executed(tmp_path / "runs", "trackio"))
    assert (tmp_path / "mine" / "clsim.db").exists()
    assert not (tmp_path / "runs" / "trackio").exists()


@pytest.mark.parametrize("how", ["in the way", "elsewhere", "network", "gone"])
def test_a_failing_log_of_trackio_is_a_line(
    how: str, tmp_path: Path, trackio_anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    if how == "in the way":
        (runs / "trackio").write_text("in the way")
        expected = "FileExistsError"
    elif how == "elsewhere":
        executed(tmp_path / "before", "trackio", buffer="herding")
        expected = f"allowed in this process: {tmp_path / 'before' / 'trackio'}"
    elif how == "network":
        monkeypatch.setenv("TRACKIO_DIR", str(runs / "trackio"))
        from trackio import utils

        monkeypatch.setattr(utils, "is_network_filesystem", lambda _: True)
        expected = "TRACKIO_STORAGE_MODE=sqlite"
    else:

        def gone(*_: object, **__: object) -> None:
            raise OSError("No space\nleft on device")

        monkeypatch.setenv("TRACKIO_DIR", str(runs / "trackio"))
        from trackio.sqlite_storage import SQLiteStorage

        monkeypatch.setattr(SQLiteStorage, "bulk_log", gone)
        expected = "No space left on device"
    said: list[str] = []
    record = executed(runs, "trackio", said=said)
    assert record.data["finished"]
    (line,) = said
    assert line.startswith("--log trackio: raised ")
    assert expected in line
    assert line.endswith("; the run goes on without it")
    assert "\n" not in line
