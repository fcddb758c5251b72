"""Each operation on files fails in turn, after the manner of SQLite's tests: one line, nothing lost, and on it goes.

A command is carried out on a disk that refuses one operation, each of them once. Then the disk is well, and the same
command ends as it would have on a disk that had been well all along.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsim.errors import DiskError
from clsim.records import atomic
from tests.commands import clsim
from tests.disk import SHORT, Disk
from tests.execution.test_every_write import files, lasting

pytestmark = pytest.mark.filterwarnings("ignore")

STEP = 29
"""Of so many operations one fails, if not all are asked for."""

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EINTR, SHORT)
TINY = [
    word
    for setting in ("data.per_class=6", "training.epochs=1", "stream.experiences=2", "evaluation.rows=seen")
    for word in ("--set", setting)
]
RUN = ["run", *TINY, "--memory", "12", "--quiet", "--runs", "work/runs", "--data-root", "work/data"]


@dataclass
class Fault:
    """A command that is put to the test.

    Attributes:
        words: the command; it works in the folder ``work``.
        before: commands on a disk that is well, whose files the folder holds then.
        found: what the command leaves, without what differs from one time to the next.
        allowed: exit codes while the disk refuses something.
    """

    words: list[str]
    before: list[list[str]] = field(default_factory=list)
    found: Callable[[], Any] = lambda: runs("work/runs")
    allowed: tuple[int, ...] = (0, 2)


def runs(root: str) -> dict[str, Any]:
    """The records and losses of all runs, and the names of all their files."""
    found = {}
    for folder in sorted(p for p in Path(root).iterdir() if not p.name.startswith(".")):
        record = json.loads((folder / "record.json").read_text())
        with np.load(folder / "losses.npz") as losses:
            found[folder.name] = lasting(record), {n: losses[n].tobytes() for n in losses}, files(folder)
    return found


def written(*names: str) -> Callable[[], dict[str, bytes]]:
    """The bytes of files in ``work``."""
    return lambda: {name: Path("work", name).read_bytes() for name in names}


def condensed() -> Any:
    with np.load("work/set.npz") as arrays:
        rows = [line.split(",") for line in Path("work/rows.csv").read_text().splitlines()]
        seconds = rows[0].index("seconds")
        kept = [row[:seconds] + row[seconds + 1 :] for row in rows]
        return {name: arrays[name].tobytes() for name in arrays}, kept, Path("work/set.png").read_bytes()


SELECT = ["select", "--dataset", "digits", "--selector", "random", "--budget", "5", "--data-root", "work/data"]
CONDENSE = ["condense", "--dataset", "digits", "--per-class", "6", "--ipc", "1", "--method", "dm", "--nets", "0"]
CONDENSE += ["--option", "iterations=2", "--model-option", "width=4", "--every", "0", "--threads", "1"]
THREE = [[*RUN, "--seed", f"{seed}"] for seed in range(3)]
REPORT = ["report", "--runs", "work/runs"]
FAULTS: dict[str, Fault] = {
    "run": Fault(RUN),
    "run, rounds": Fault([*RUN, "--label", "margin", "--label-budget", "8", "--label-rounds", "2"]),
    "run, fresh": Fault([*RUN, "--fresh"], [RUN]),
    "run, embedding": Fault(
        [*RUN, "--label", "typiclust", "--label-budget", "8", "--embedding", "rotation", "--set", "embedding.epochs=1"]
    ),
    "study": Fault(
        ["study", "--engine", "here", "--strategy", "er,finetune", *RUN[1:]], [[*RUN, "--seed", "0"]], allowed=(0, 1, 2)
    ),
    "report, markdown": Fault([*REPORT, "--format", "markdown", "--out", "work/r/r.md"], THREE, written("r/r.md")),
    "report, csv": Fault([*REPORT, "--format", "csv", "--out", "work/r.csv"], THREE, written("r.csv")),
    "report, runs": Fault([*REPORT, "--format", "runs", "--out", "work/r.csv"], THREE, written("r.csv")),
    "report, latex": Fault([*REPORT, "--format", "latex", "--out", "work/r.tex"], THREE, written("r.tex")),
    "report, html": Fault([*REPORT, "--format", "html", "--out", "work/r.html"], THREE, written("r.html")),
    "report, figures": Fault(
        [*REPORT, "--figures", "work/figures"],
        THREE,
        written("figures/split-digits-curves.png", "figures/split-digits-matrix.png"),
    ),
    "condense": Fault(
        [*CONDENSE, "--out", "work/set.npz", "--csv", "work/rows.csv", "--data-root", "work/data"], found=condensed
    ),
    "select": Fault(
        [*SELECT, "--out", "work/picks.csv", "--picture", "work/picks.png"],
        found=written("picks.csv", "picks.png"),
    ),
    "annotate": Fault(
        [
            *("select", "--features", "x.npy", "--selector", "kcenter", "--budget", "2", "--out", "work/ask.csv"),
            *("--labelled", "work/labels.csv"),
        ],
        found=written("ask.csv", "labels.state.json"),
    ),
}


@pytest.fixture
def disk(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A working directory whose folder ``work`` is on that disk."""
    monkeypatch.setenv("MPLCONFIGDIR", str(workplace / "matplotlib"))
    np.save("x.npy", np.arange(12, dtype=np.float32).reshape(6, 2))
    Path("work/data").mkdir(parents=True)
    return Disk(monkeypatch, workplace / "work", reads=True)


class Tried:
    """The figures of a command: operations, and what became of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __str__(self) -> str:
        return ", ".join(f"{number} {what}" for what, number in sorted(self.counts.items()))


def tried(
    fault: Fault, disk: Disk, capsys: pytest.CaptureFixture[str], *, step: int, every: bool, lasts: bool = False
) -> Tried:
    """Let every ``step``-th operation fail, with ``every`` error or with the errors in turn."""
    found, stopped = Tried(), Path("prepared")
    for words in fault.before:
        assert clsim(*words) == 0
    shutil.copytree("work", stopped)
    disk.heal()
    assert clsim(*fault.words) == 0
    operations, expected = list(disk.seen), fault.found()
    kept = {p.relative_to(stopped): p.read_bytes() for p in stopped.rglob("record.json")}
    for number in range(1, len(operations) + 1, step):
        turn = (number - 1) // step
        for error in ERRORS if every else [ERRORS[turn % len(ERRORS)]]:
            if error == SHORT and operations[number - 1][0] != "write":
                if every:
                    continue
                error = ERRORS[0]
            disk.heal()
            shutil.rmtree("work")
            shutil.copytree(stopped, "work")
            disk.fail_at(number, error, lasts=lasts)
            capsys.readouterr()
            code = clsim(*fault.words)
            said, hit = capsys.readouterr().err, disk.hit
            disk.heal()
            where = (
                f"operation {number}, {hit}, error {errno.errorcode.get(error, 'short')}: exit {code}, said {said!r}"
            )
            found.counts["operations"] += 1
            assert code in fault.allowed, where
            assert "Traceback" not in said, where
            if code:
                assert sum(line.startswith("clsim: ") for line in said.splitlines()) == 1, where
                assert "Errno" not in said, where
            for path, content in kept.items():  # what was recorded is there, at its place or set aside
                places = [Path("work", path), Path("work", path).with_name("record.previous.json")]
                assert any(place.exists() and place.read_bytes() == content for place in places), where
            if code == 0:
                found.counts["gone on without"] += 1
            again = clsim(*fault.words)
            after = capsys.readouterr().err
            if again == 2 and "is there already" in after and (code == 0 or "cannot be synced" in said):
                again = 0  # it had ended, and what it wrote is there
            assert again == 0, f"{where}; then {after!r}"
            assert fault.found() == expected, where
            if code:
                found.counts["stopped in a line"] += 1
            found.counts["recovered"] += 1
    return found


def test_a_disk_that_takes_a_part_gets_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:3]))
    atomic.write(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_disk_that_takes_nothing_ends_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, content: 0)
    with pytest.raises(DiskError, match="nothing was written"):
        atomic.write(tmp_path / "file", b"content")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["run", "condense"])
def test_some_operations_fail(name: str, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    found = tried(FAULTS[name], disk, capsys, step=15, every=False)
    assert found.counts["recovered"] == found.counts["operations"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("lasts", [False, True], ids=["", "from then on"])
@pytest.mark.parametrize("name", FAULTS)
def test_every_so_many_operations_one_fails(
    name: str, lasts: bool, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tried(FAULTS[name], disk, capsys, step=STEP, every=False, lasts=lasts)
    assert found.counts["recovered"] == found.counts["operations"] > 0


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("lasts", [False, True], ids=["", "from then on"])
@pytest.mark.parametrize("name", FAULTS)
def test_each_operation_fails(name: str, lasts: bool, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    """With the errors in turn; with each of them if ``CLSIM_FAULTS`` is ``all``."""
    found = tried(FAULTS[name], disk, capsys, step=1, every=os.environ.get("CLSIM_FAULTS") == "all", lasts=lasts)
    assert found.counts["recovered"] == found.counts["operations"]
    with capsys.disabled():
        print(f"\n{name}{', from then on' * lasts}: {found}")
