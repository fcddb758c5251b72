"""Evaluation beside training: the same record as without, after any interruption, and a twin that leaves nothing."""

from __future__ import annotations

import errno
import io
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from clsim.errors import InputError
from clsim.execution.execute import execute
from clsim.records.store import RunFolder, RunRecord, Store
from clsim.reporting.terminal import Terminal
from clsim.spec.resolve import resolve
from clsim.training import evaluations
from clsim.training import twin as twin_module
from clsim.training.twin import Twin
from tests.killing import Killed, Writes

SMALL = ["stream.experiences=5", "data.per_class=10", "model.name=convnet3", "model.options.width=4"]


def recorded(folder: Path, cores: int, *settings: str, strategy: str = "er") -> RunRecord:
    spec = resolve("split-digits", strategy, settings=[*SMALL, *settings])
    return execute(spec, Store(folder), cores=cores)


def numbers(record: RunRecord) -> dict[str, Any]:
    """A record without its times and memory."""
    costs = [
        {k: v for k, v in cost.items() if "seconds" not in k and k != "peak_bytes"} for cost in record.data["cost"]
    ]
    batches = [{k: v for k, v in part.items() if k != "seconds"} for part in record.data.get("batches", [])]
    other = {k: v for k, v in record.data.items() if k not in ("started", "ended", "cost", "batches")}
    return {**other, "cost": costs, "batches": batches}


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> list[Twin[Any]]:
    """The twins that runs make."""
    made: list[Twin[Any]] = []

    def twin(work: Callable[[], Any]) -> Twin[Any]:
        made.append(Twin(work))
        return made[-1]

    monkeypatch.setattr(evaluations, "Twin", twin)
    return made


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("er", []),
        ("er", ["evaluation.every=2", "stream.validation=0.2", "evaluation.rows=all"]),
        ("icarl", []),
        ("joint", []),
        ("pseudo-label", ["labels.per_class=2"]),
        ("er", ["batch.selector=loss"]),
    ],
)
def test_the_record_is_that_of_a_run_that_waits(
    tmp_path: Path, twins: list[Twin[Any]], strategy: str, settings: list[str]
) -> None:
    waits = numbers(recorded(tmp_path / "one", 1, *settings, strategy=strategy))
    assert not twins
    assert numbers(recorded(tmp_path / "two", 2, *settings, strategy=strategy)) == waits
    assert len(twins) == (0 if strategy == "joint" else 4)


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("saves", [1, 2, 3])
def test_a_run_that_was_stopped_while_a_twin_evaluated_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: int, first: int
) -> None:
    whole = numbers(recorded(tmp_path / "whole", 1))
    save, count = RunFolder.save, [0]

    def stopping(self: RunFolder, record: Any, *rest: Any) -> RunRecord:
        found = save(self, record, *rest)
        count[0] += 1
        if count[0] == saves:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            recorded(tmp_path / "stopped", first)
    gone_on = numbers(recorded(tmp_path / "stopped", 3 - first))
    assert gone_on == whole


@pytest.mark.slow
def test_a_run_that_ends_at_any_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes(monkeypatch)
    whole = numbers(recorded(tmp_path / "whole", 2))
    count = writes.moves
    assert count > 10
    for number in range(1, count + 1):
        writes.stop_at(number)
        with pytest.raises(Killed):
            recorded(tmp_path / str(number), 2)
        writes.stop_at(0)
        assert numbers(recorded(tmp_path / str(number), 2)) == whole


def test_a_record_tells_of_no_experience_that_is_not_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twins: list[Twin[Any]]
) -> None:
    save, told = RunFolder.save, []

    def noted(self: RunFolder, record: Mapping[str, Any], *rest: Any) -> RunRecord:
        filled = [row for row in record["accuracy"] if any(share is not None for share in row)]
        assert len(record["cost"]) == len(filled)
        assert all(cost["evaluate_passes"] and cost["evaluate_seconds"] for cost in record["cost"])
        told.append(len(filled))
        return save(self, record, *rest)

    monkeypatch.setattr(RunFolder, "save", noted)
    recorded(tmp_path, 2)
    assert told == [0, 1, 2, 3, 5]
    assert len(twins) == 4


@pytest.mark.parametrize("settings", [["labelling.selector=random", "labelling.budget=8"], ["data.imbalance=2"]])
def test_what_further_numbers_depend_on_is_waited_for(
    tmp_path: Path, twins: list[Twin[Any]], settings: list[str]
) -> None:
    recorded(tmp_path, 2, *settings)
    assert bool(twins) == ("imbalance" in settings[0])


def test_a_twin_has_what_there_was_and_changes_nothing() -> None:
    seen = [1]

    def work() -> tuple[list[int], int]:
        time.sleep(0.2)
        seen.append(0)
        return seen, os.getpid()

    twin = Twin(work)
    seen.append(2)
    found, process = twin.result()
    assert found == [1, 0]
    assert process != os.getpid()
    assert seen == [1, 2]


@pytest.mark.usefixtures("patient")
def test_a_twin_holds_no_file_of_the_process(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        twin = Twin(lambda: (os.listdir("/proc/self/fd"), os.getpriority(os.PRIO_PROCESS, 0)))
        (held, priority), here = twin.result(), os.getpriority(os.PRIO_PROCESS, 0)
        assert str(file.fileno()) not in held
        assert len(held) == 5  # three standard ones, its pipe, and the folder that it listed
        assert priority > here


class Refusing:
    def work(self) -> None:
        raise ValueError("no such thing")


def test_the_error_of_a_twin_is_that_of_the_process() -> None:
    with pytest.raises(InputError, match=r"^evaluation: no such thing$"):
        Twin(lambda: Refusing().work()).result()


def test_a_twin_that_was_ended_is_told() -> None:
    twin = Twin(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(InputError, match=r"beside training ended with -9, .*the same command goes on"):
        twin.result()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may keep all cores busy: no twin is given up for it."""
    monkeypatch.setattr(twin_module, "LEAST", -1.0)


@pytest.mark.usefixtures("patient")
def test_a_twin_takes_only_what_nobody_else_wants() -> None:
    assert Twin(lambda: os.sched_getscheduler(0)).result() == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def busy() -> str:
    """Work for a twentieth of a second of a processor's time; tell how the process is scheduled."""
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    return "idle" if os.sched_getscheduler(0) == os.SCHED_IDLE else "usual"


def test_a_twin_that_other_programs_leave_no_core_is_replaced_while_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On one core, beside a process that never rests, an idle process would take a quarter of a minute for it."""
    monkeypatch.setattr(twin_module, "LOOK", 0.2)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        made = Twin(busy)
        time.sleep(0.5)  # the other one has begun
        assert made.result() == "usual"
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, cores)


@pytest.mark.usefixtures("patient")
def test_a_twin_that_works_or_sleeps_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_module, "LOOK", 0.005)
    assert Twin(busy).result() == "idle"
    monkeypatch.setattr(twin_module, "LEAST", 2.0)  # more than a core has: only what sleeps is not starved

    def sleeps() -> int:
        time.sleep(0.5)
        return os.sched_getscheduler(0)

    assert any(Twin(sleeps).result() == os.SCHED_IDLE for _ in range(5))  # before and after, it may wait for a core
    assert Twin(busy).result() == "usual"


def children() -> list[int]:
    """The processes that this one has forked, in their order."""
    return [child.pid for child in sorted(psutil.Process().children(), key=psutil.Process.create_time)]


@pytest.mark.usefixtures("patient")
def test_no_process_of_a_twin_is_left() -> None:
    before = children()
    twins = [Twin(busy), Twin(busy), Twin(busy)]
    made = [child for child in children() if child not in before]
    assert len(made) == 6
    assert twins[0].result() == "idle"
    twins[1].stop()
    os.kill(max(made), signal.SIGKILL)  # the last one's reserve, which is not needed
    assert twins[2].result() == "idle"
    assert children() == before


@pytest.mark.parametrize("fine", [0, 1])
def test_a_run_evaluates_itself_where_no_process_is_left(
    fine: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the twin is refused or its reserve; what was begun is ended."""
    fork, begun, refused, before = os.fork, [0], [0], children()

    def refusing() -> int:
        if begun[0] == fine:
            begun[0], refused[0] = 0, refused[0] + 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        begun[0] += 1
        return fork()

    whole = numbers(recorded(tmp_path / "whole", 1))
    monkeypatch.setattr(os, "fork", refusing)
    held = os.listdir("/proc/self/fd")
    assert numbers(recorded(tmp_path / "refused", 2)) == whole
    assert refused == [4]
    assert os.listdir("/proc/self/fd") == held
    assert children() == before


def test_a_reserve_ends_with_the_process() -> None:
    code = "import os, psutil, time; from clsim.training.twin import Twin; t = Twin(lambda: time.sleep(1)); "
    code += "print(*(child.pid for child in psutil.Process().children()), flush=True); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left = [*map(int, done.stdout.split())]
    assert len(left) == 2
    for _ in range(300):
        if all(map(has_ended, left)):
            return
        time.sleep(0.1)
    pytest.fail("it is still there")


def has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_twin_that_is_waited_for_can_be_stopped() -> None:
    twin, process = Twin(lambda: time.sleep(100)), os.getpid()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            twin.result()
    finally:
        signal.signal(signal.SIGALRM, before)
    twin.stop()
    twin.stop()  # what has ended is left alone
    assert os.getpid() == process


def test_an_error_of_a_run_ends_its_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> None:
        time.sleep(100)

    def failing(*_: Any) -> None:
        raise ZeroDivisionError

    fork, made = os.fork, []

    def forked() -> int:
        made.append(fork())
        return made[-1]

    monkeypatch.setattr(os, "fork", forked)
    monkeypatch.setattr(evaluations, "evaluated", slow)
    monkeypatch.setattr(RunFolder, "save", failing)
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        recorded(tmp_path, 2)
    assert time.monotonic() - started < 60
    assert len(made) == 2  # the twin, and its reserve
    for process in made:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_the_line_of_an_experience_names_it_when_its_accuracy_comes_late() -> None:
    text = io.StringIO()
    with Terminal("a run", Console(file=text, width=200)) as shown:
        for number, images in enumerate((5, 7, 9)):
            shown.experience(number, 3, images)
            shown.step(images)
            if number:
                shown.row(number - 1, [number / 10, math.nan, math.nan])
        shown.row(2, [0.9, 0.9, 0.9])
    lines = text.getvalue().splitlines()
    assert [line.split(" · ")[1:3] for line in lines] == [
        ["experience 1/3", "5 images in 0 s"],
        ["experience 2/3", "7 images in 0 s"],
        ["experience 3/3", "9 images in 0 s"],
    ]
    assert [line.rsplit(" ", 2)[1] for line in lines] == ["10.0", "20.0", "90.0"]
