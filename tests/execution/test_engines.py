"""Engines: the same records from each of them, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import clsim
from clsim.execution import plan
from clsim.execution.engines.engine import EngineSpec, Job, Outcome, create, work
from clsim.execution.engines.local import Local
from clsim.execution.study import RunState, StudyResult, Supervisor
from clsim.records.store import Store
from tests.killing import interruptible

SETTINGS = {"data.per_class": 20, "stream.experiences": 5}
GRID: dict[str, Any] = {"strategy": ["er", "finetune"], "memory": 20, "settings": SETTINGS}

DEADLY = """
import os, signal
from pathlib import Path
from clsim.selectors.random import random

def pick(pool, budget, *, rng):
    \"\"\"Random; kills its own process at the second experience, unless {marker} is there.\"\"\"
    if pool.data.y.unique().numel() > 3 and not Path({marker!r}).exists():
        {stays}
        os.kill(os.getpid(), signal.SIGKILL)
    return random(pool, budget, rng=rng)
"""


@pytest.fixture(autouse=True)
def _path(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = str(Path(clsim.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]))


def deadly(marker: Path, *, once: bool = True) -> str:
    """A selector of one's own that dies, and how it is called."""
    stays = f"Path({str(marker)!r}).touch()" if once else "pass"
    Path("deadly.py").write_text(DEADLY.format(marker=str(marker), stays=stays))
    return "./deadly.py:pick"


def contents(result: StudyResult) -> dict[str, Any]:
    """All of each record that does not tell the time, and the losses bit for bit."""
    assert result.failures == ()
    found = {}
    for record in result.records:
        assert record.folder is not None
        assert not (record.folder / "error.json").exists()
        kept = {
            k: record.data[k] for k in ("finished", "spec", "accuracy", "initial", "validation", "metrics", "command")
        }
        kept["steps"] = [c["steps"] for c in record.data["cost"]]
        with np.load(record.folder / "losses.npz") as losses:
            kept["losses"] = {name: losses[name].tobytes() for name in losses}
        found[record.data["fingerprint"]] = kept
    return found


class Watching:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.notes: set[str] = set()
        self.done: set[tuple[str, int]] = set()

    def show(self, states: Sequence[RunState], left: float | None) -> None:
        self.notes |= {state.note for state in states}
        self.done |= {(state.title, state.done) for state in states}


def whole(buffers: list[str], marker: Path) -> dict[str, Any]:
    """The study in this very process, and nothing that kills."""
    marker.touch()
    store = Store(Path("whole"))
    for run in plan.plan(plan.read(tables(buffers), "test"), store):
        outcome = work(Job(run.spec, run.command, str(store.root), None, "."))
        assert outcome == Outcome(run.spec.fingerprint, "finished")
    marker.unlink()
    found = clsim.study(buffer=buffers, **GRID, runs="whole")
    return contents(found)


def tables(buffers: list[str]) -> dict[str, Any]:
    named = {key: value for key, value in GRID.items() if key != "settings"}
    return {**named, "set": SETTINGS, "buffer": buffers}


def test_a_killed_process_is_replaced_and_its_run_goes_on(tmp_path: Path) -> None:
    marker, buffers = tmp_path / "marker", [deadly(tmp_path / "marker"), "random"]
    expected = whole(buffers, marker)
    watching, before = Watching(), set(psutil.Process().children())
    killed = clsim.study(buffer=buffers, **GRID, runs="killed", workers=2, watch=watching)
    assert marker.exists()
    assert "taken up again: its process was stopped by signal 9 (Killed)" in watching.notes
    assert contents(killed) == expected
    assert len(expected) == 3
    assert set(psutil.Process().children()) <= before


@pytest.mark.slow
def test_what_is_always_killed_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    buffers = [deadly(tmp_path / "never", once=False), "random"]
    found = clsim.study(buffer=buffers, **GRID, workers=1)
    assert len(found.records) == 2
    (failure,) = found.failures
    assert failure.error == "its process was stopped by signal 9 (Killed), 3 times"
    assert Store(Path("runs")).failures() == [failure]
    unfinished = Store(Path("runs")).folder(plan.plan(plan.read(tables(buffers), "test"), Store(Path("runs")))[0].spec)
    record = unfinished.record()
    assert record is not None
    assert len(record.data["cost"]) == 1  # what it had is still there


def test_a_selector_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    buffer = deadly(tmp_path / "marker")
    (run, *_) = plan.plan(plan.read(tables([buffer]), "test"), Store(Path("runs")))
    Path("deadly.py").write_text("def pick(): ...\n")
    outcome = work(Job(run.spec, run.command, "runs", None, "."))
    assert outcome.state == "failed"
    assert outcome.error.startswith("./deadly.py:pick: it or a file that it imports has changed since the stu")
    Path("deadly.py").unlink()
    assert "cannot be found here" in work(Job(run.spec, run.command, "runs", None, ".")).error


@pytest.mark.parametrize(
    ("visible", "share", "expected"), [("0,1", None, 2), ("0,1", 0.5, 4), ("", None, 3), ("-1", 0, 3)]
)
def test_gpus_are_slots(
    visible: str, share: float | None, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("clsim.execution.engines.local.cores", lambda: 3)
    engine = create(EngineSpec(gpus_per_run=share), tmp_path)
    assert engine.slots == expected
    assert create(EngineSpec(device="cpu", threads=2), tmp_path).slots == 1


def test_a_process_that_cannot_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/nowhere"])
    engine = Local(1)
    run = plan.plan(plan.read(tables(["random"]), "test"), Store(Path("runs")))[0]
    engine.submit([Job(run.spec, run.command, "runs", None, ".")])
    outcomes: list[Outcome] = []
    while not outcomes:
        outcomes = engine.poll(1)
    engine.close()
    assert outcomes[0].state == "lost"
    assert "exit code 1" in outcomes[0].error
    assert "Error" in outcomes[0].error  # the last line of its traceback


@pytest.mark.slow
def test_kill_9_of_the_parent_loses_and_repeats_nothing() -> None:
    words = ["study", "--buffer", "random,herding", "--memory", "20", "--seeds", "4", "--set", "training.epochs=20"]
    command = [sys.executable, "-c", "from clsim.cli.main import main; main()", *words, "--quiet"]
    expected = subprocess.run([*command, "--runs", "whole", "--workers", "1"], check=True)
    parent = subprocess.Popen([*command, "--workers", "2"])
    while len(finished := Store(Path("runs")).records()[0]) < 3:
        assert parent.poll() is None
        time.sleep(0.05)
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    kept = {r.folder: (r.folder / "record.json").stat().st_mtime_ns for r in finished if r.folder}
    expected = subprocess.run([*command, "--workers", "2"])
    assert expected.returncode == 0
    assert {folder: (folder / "record.json").stat().st_mtime_ns for folder in kept} == kept
    records = [{r.data["fingerprint"]: r.data for r in Store(Path(root)).records()[0]} for root in ("whole", "runs")]
    assert len(records[0]) == 8
    for key in ("accuracy", "initial", "metrics", "spec"):
        assert {f: r[key] for f, r in records[0].items()} == {f: r[key] for f, r in records[1].items()}


@pytest.mark.slow
def test_ctrl_c_ends_everything_and_the_same_command_goes_on() -> None:
    words = ["study", "--memory", "20", "--seeds", "3", "--set", "training.epochs=20", "--workers", "1"]
    command = [sys.executable, "-c", "from clsim.cli.main import main; main()", *words]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible)
    while not list(Path("runs").glob("*/record.json")):
        assert parent.poll() is None
        time.sleep(0.05)
    workers = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGINT)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 130
    assert said.endswith("clsim: stopped; the same command goes on after the last finished experience\n")
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    assert subprocess.run([*command, "--quiet"]).returncode == 0


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray cluster as `ray start --head` makes it, with a token of its own; it knows nothing of this process."""
    pytest.importorskip("ray", reason="needs clsim[ray]")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script, before = str(Path(sys.executable).parent / "ray"), {p.pid for p in psutil.process_iter()}
    start = [script, "start", "--head", "--port", port, "--num-cpus", "2", "--include-dashboard", "false"]
    subprocess.run([*start, "--node-ip-address", "127.0.0.1"], check=True, capture_output=True, cwd="/")
    started = [p for p in psutil.process_iter() if p.pid not in before and port in " ".join(p.cmdline())]
    try:
        yield f"127.0.0.1:{port}"
    finally:
        for process in started:  # not `ray stop`, which ends everybody's
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(started, timeout=3)[1]:
            process.kill()


def on_ray(address: str, runs: str, shared: str) -> None:
    """In a process of its own, as the token is read when Ray is imported: the study, and what was seen of it."""
    import ray

    from clsim.execution.engines.ray import Ray

    watching, store = Watching(), Store(Path(runs).absolute())
    buffers = ["./deadly.py:pick", "random"]
    if shared == "shared":
        clsim.study(buffer=buffers, **GRID, runs=runs, engine=EngineSpec("ray", address=address), watch=watching)
    else:  # as on a machine that shares no file with this one: files go and come with the tasks
        ray.init(address=address, log_to_driver=False)
        engine = Ray(store.root, 1, 0, shared=False)
        planned = plan.plan(plan.read(tables(buffers), "test"), store)
        jobs = [Job(run.spec, run.command, str(store.root), None, str(Path.cwd())) for run in planned]
        try:
            Supervisor(planned, jobs, store, engine).run(watching)
        finally:
            engine.close()
    print(json.dumps([sorted(watching.notes), sorted({done for _, done in watching.done})]))


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_records_though_a_worker_is_killed(cluster: str, tmp_path: Path) -> None:
    marker, buffers = tmp_path / "marker", [deadly(tmp_path / "marker"), "random"]
    expected = whole(buffers, marker)
    for mode in ("shared", "shipped"):
        code = f"from tests.execution.test_engines import on_ray; on_ray({cluster!r}, {mode!r}, {mode!r})"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        notes, progress = json.loads(done.stdout.splitlines()[-1])
        assert marker.exists()
        marker.unlink()
        assert any("taken up again: its worker is gone" in note for note in notes), notes
        assert {0, 5} < set(progress)  # it was seen while it went on
        assert contents(clsim.study(buffer=buffers, **GRID, runs=mode)) == expected
        assert [p.name for p in Path(mode).iterdir() if p.name.startswith(".study")] == []


@pytest.mark.slow
def test_a_ray_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs clsim[ray]")
    found = clsim.study(buffer="random", **GRID, runs="own", engine="ray", workers=1)
    assert contents(found) == whole(["random"], tmp_path / "marker")


@pytest.mark.slow
@pytest.mark.parametrize("share", [None, 0.5])
def test_submitit_gives_the_same_records_though_a_job_is_killed(share: float | None, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs clsim[slurm]")
    marker, buffers = tmp_path / "marker", [deadly(tmp_path / "marker"), "random"]
    expected = whole(buffers, marker)
    watching = Watching()
    spec = EngineSpec("slurm", workers=2, cluster="local", gpus_per_run=share)
    found = clsim.study(buffer=buffers, **GRID, runs="slurm", engine=spec, watch=watching)
    assert marker.exists()
    assert any("taken up again" in note for note in watching.notes)
    assert contents(found) == expected


def test_slurm_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs clsim[slurm]")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        clsim.InputError, match="found no sbatch here, allowed: on a machine with Slurm, or --cluster local"
    ):
        create(EngineSpec("slurm"), tmp_path)


def test_a_ray_cluster_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs clsim[ray]")

    def refuses(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    monkeypatch.setattr(ray, "init", refuses)
    with pytest.raises(clsim.InputError, match=r"--address: cannot reach a Ray cluster at 'auto': Could not find any"):
        create(EngineSpec("ray", address="auto"), tmp_path)


def test_records_tell_the_same_command() -> None:
    """The record of a study's run holds the command that makes it alone."""
    found = clsim.study(buffer="random", memory=20, settings=SETTINGS, workers=1)
    words = ["clsim", "run", "--scenario", "split-digits", "--strategy", "er", "--buffer", "random", "--memory", "20"]
    command = json.loads((Path("runs") / found.records[0].data["fingerprint"] / "record.json").read_text())["command"]
    assert command.split()[: len(words)] == words
