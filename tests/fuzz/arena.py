"""Where inputs are carried out: a workplace with runs and data, a forked child with limits, and what it must leave."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from os import _exit as leave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clsim.cli import main
from tests.fuzz import prepared
from tests.fuzz.case import Case, edit, rename
from tests.fuzz.verdict import Ended, code_run, digests, escapes, faults_of, lost, replaced

PATIENCE = 20.0
"""Seconds of the processor, or without it, after Ctrl-C in which a command must end."""

MEMORY, DISK = 3 << 30, 64 << 20
"""Bytes that a command may take in memory beyond what is there already, and of a file that it writes."""

SMALL = ("--scenario", "split-digits", "--set", "data.per_class=10", "--set", "stream.experiences=2")
SMALL += ("--set", "training.epochs=1", "--runs", "runs", "--quiet")
"""A run of a tenth of a second; without a memory's size."""

RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "done": ("", ("--memory", "10")),
    "other": ("", ("--memory", "10", "--strategy", "gdumb", "--seed", "1")),
    "half": ("checkpoint.pt", ("--memory", "10", "--seed", "2")),
    "asking": ("rounds.pt", ("--strategy", "finetune", "--label", "entropy", "--label-budget", "8")),
    "searching": ("search.json", ("--strategy", "ewc", "--controller", "stability-decay")),
    "fisher": ("checkpoint.pt", ("--strategy", "ewc", "--seed", "3")),
}
"""Name → the file after which the run is stopped (empty: it is finished), and its words."""

RUNS["asking"] = (RUNS["asking"][0], (*RUNS["asking"][1], "--label-rounds", "2", "--set", "labelling.initial_count=4"))

LIBRARIES = ("home/.avalanche/", "home/.cache/matplotlib/")
"""What Avalanche and matplotlib write into a home that does not have it, whoever imports them."""


class Arena:
    """A workplace to copy for each input. Final. A context manager: it lies in a folder of its own.

    Args:
        limit: seconds after which a command is told to stop.
    """

    def __init__(self, limit: float = 6.0) -> None:
        self._limit = limit
        base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
        self._base = Path(tempfile.mkdtemp(prefix="clsim-fuzz-", dir=base)).resolve()
        self._template, self._box = self._base / "template", self._base / "box"
        self.names: dict[str, str] = {}
        self._environment = {
            "CLSIM_DATA": "data",
            "COLUMNS": "120",
            "FUZZ_MARK": str(self._base / "mark"),
            "HOME": str(self._box / "home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(self._base / "modules"), str(Path(__file__).parents[2])]),
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
        }

    def __enter__(self) -> Arena:
        (self._base / "modules").mkdir()
        (self._base / "modules" / "canary_module.py").write_text(CANARY)
        (self._template / "data").mkdir(parents=True)
        make_data(self._template)
        warm(self._base / "hub")
        for name, (stop, words) in RUNS.items():
            before = {path.name for path in (self._template / "runs").glob("*")}
            ended = self._forked(("run", *SMALL, *words), self._template, stop_after=stop, limit=120)
            (made,) = {path.name for path in (self._template / "runs").glob("*")} - before
            self.names[name] = made
            wanted = 0 if not stop else -signal.SIGKILL
            if ended.code != wanted or (stop and not (self._template / "runs" / made / stop).exists()):
                raise RuntimeError(f"{name}: ended with {ended.code}: {ended.err}")
        self._prepare()
        return self

    def _prepare(self) -> None:
        """Carry out the commands that leave what others read, in the place that it will have: some remember paths."""
        prepared.make_files(self._template)
        work = self._box / "deep" / "work"
        work.parent.mkdir(parents=True)
        self._template.rename(work)
        for stop, words in prepared.PREPARED:
            ended = self._forked(words, work, stop_after=stop, limit=120)
            if ended.code != (0 if not stop else -signal.SIGKILL):
                raise RuntimeError(f"clsim {' '.join(words)}: ended with {ended.code}: {ended.err}")
        work.rename(self._template)
        for store in prepared.STORES:
            made = sorted(path.name for path in (self._template / store).glob("*/"))
            self.names |= {f"{store}{number}": name for number, name in enumerate(made)}

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._base, ignore_errors=True)

    def carry_out(self, case: Case, *, command_line: bool = False, limit: float = 0.0) -> tuple[list[Ended], list[str]]:
        """Carry an input out in a fresh workplace.

        Args:
            command_line: whether each command is a process of its own, as a user starts it.
            limit: seconds after which a command is told to stop; 0: those of the arena.

        Returns:
            How the commands ended, and what they should not have done, each in a line that begins with its cause.
        """
        shutil.rmtree(self._box, ignore_errors=True)
        work = self._box / "deep" / "work"
        shutil.copytree(self._template, work, symlinks=True)
        (self._box / "home").mkdir()
        (self._box / "outside.txt").write_text("outside")
        for what in case.edits:
            edit(work, self._named(what))
        for folder in {Path(self._named(what["file"])).parent for what in case.edits if what.get("renamed")}:
            rename(work / folder)
        ended, faults = [], []
        outside = digests(self._box, without=work)
        for given in case.commands:
            words = tuple(self._named(word) for word in given)
            before, marks = digests(work), sorted(self._base.glob("mark*"))
            started = self._started if command_line else self._forked
            ended.append(started(words, work, limit=(limit or self._limit) + 15 * command_line))
            after = digests(work)
            faults += faults_of(ended[-1]) + lost(before, after, ended[-1], work) + replaced(before, after, ended[-1])
            if sorted(self._base.glob("mark*")) != marks:
                faults += code_run(case, words, [path.name for path in self._base.glob("mark*")])
                for path in self._base.glob("mark*"):
                    shutil.rmtree(path)
            faults += escapes(ended[-1], work, {path for path in after if before.get(path) != after[path]})
        now = digests(self._box, without=work)
        changed = sorted(path for path in now.keys() | outside.keys() if now.get(path) != outside.get(path))
        if changed := [path for path in changed if not path.startswith(LIBRARIES)]:
            faults.append("wrote outside: " + ", ".join(changed))
        return ended, list(dict.fromkeys(faults))

    def _named(self, value: Any) -> Any:
        """Put the names of the workplace's runs in their places."""
        if isinstance(value, Mapping):
            return {key: self._named(v) if key in ("file", "to") else v for key, v in value.items()}
        if isinstance(value, str):
            return re.sub(r"\{(\w+)\}", lambda m: self.names.get(m[1], m[0]), value)
        return value

    def _started(self, words: Sequence[str], work: Path, *, limit: float) -> Ended:
        """Start the command as a process of its own."""
        code = "from clsim.cli.main import main; main()"
        environment = {**os.environ, **self._environment}
        with open(self._base / "out", "w+b") as out, open(self._base / "err", "w+b") as err:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", code, *words],
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=lambda: _limit_to(12 << 30),
            )
            return self._waited(process.pid, words, limit)

    def _forked(self, words: Sequence[str], work: Path, *, limit: float, stop_after: str = "") -> Ended:
        """Carry the command out in a child of this process, which has imported all that is slow."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            try:
                os.setsid()
                os.chdir(work)
                os.environ.update(self._environment)
                sys.path.insert(0, str(self._base / "modules"))
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number, name in ((1, "out"), (2, "err")):
                    os.dup2(os.open(self._base / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
                sys.stdout, sys.stderr = (  # as Python opens them
                    open(n, "w", encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
                    for n, errors in ((1, "strict"), (2, "backslashreplace"))
                )
                _limit_to(MEMORY + _taken())
                _stop_after(stop_after)
                sys.argv = ["clsim", *words]
                main.main()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
            except BaseException:
                traceback.print_exc()
                code = 1
            else:
                code = 0
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            leave(code & 255)
        return self._waited(pid, words, limit)

    def _waited(self, pid: int, words: Sequence[str], limit: float) -> Ended:
        """Wait for a command; tell it to stop when its time is up, and kill it if it does not.

        Its time is that of the processor, or as long without any: a busy machine makes nobody late.
        """
        now = began = moved = stopped = time.monotonic()
        spent, killed, late, idle = 0.0, False, False, False
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            now, before, spent = time.monotonic(), spent, _worked(pid)
            moved = now if spent != before else moved
            if not late and (spent > limit or now - moved > limit):
                os.kill(pid, signal.SIGINT)
                late, idle, stopped, moved, limit = True, spent <= limit, now, now, spent + PATIENCE
            elif late and not killed and (spent > limit or now - max(moved, stopped) > PATIENCE):
                killed = True
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.003 if now - began < 2 else 0.03)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it has left behind
        out, err = ((self._base / name).read_bytes().decode("utf-8", "backslashreplace") for name in ("out", "err"))
        code = os.waitstatus_to_exitcode(status)
        return Ended(tuple(words), code, out, err, now - began, late, idle)


def warm(hub: Path) -> None:
    """Import what commands import, once for all children.

    Args:
        hub: the folder that Hugging Face's library takes for its own; it asks for it when it is imported.
    """
    import importlib

    for name in main.COMMANDS.values():
        importlib.import_module(f"clsim.cli.{name.partition(':')[0]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(hub))
        for name in WARM.split():
            importlib.import_module(name)


WARM = """clsim.execution.execute clsim.execution.plan clsim.execution.study clsim.execution.select
clsim.execution.condense clsim.execution.annotation clsim.interop.avalanche clsim.training.loop clsim.reporting.report
clsim.reporting.page clsim.reporting.show clsim.reporting.stored clsim.reporting.plots clsim.reporting.label_plots
clsim.reporting.finished clsim.streams.division clsim.checks.selectors
clsim.execution.export clsim.execution.tune clsim.reporting.tuning clsim.execution.part_work sklearn.datasets
pandas jinja2 optuna datasets pyarrow.parquet"""

CANARY = """import os
os.makedirs(os.environ["FUZZ_MARK"] + "-import", exist_ok=True)
def f(*args, **kwargs):
    raise ValueError("the canary was called")
"""


def make_data(place: Path) -> None:
    """Write small files of every kind of data that a command reads."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (40, 8, 8), dtype=np.uint8), np.arange(40) % 4
    np.savez(place / "mine.npz", x_train=x, y_train=y, x_test=x[:12], y_test=y[:12])
    np.savez(place / "features.npz", x=rng.standard_normal((100, 5), dtype=np.float32))
    np.save(place / "features.npy", rng.standard_normal((40, 5), dtype=np.float32))
    np.save(place / "labels.npy", y)
    for i in range(16):
        folder = place / "pictures" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[i]).resize((9, 9)).save(folder / f"{i}.png")
    for part, n in (("train", 40), ("t10k", 12)):
        folder = place / "data" / "MNIST" / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        shape = np.array([n, 28, 28], dtype=">u4").tobytes()
        pixels = rng.integers(0, 255, (n, 28, 28), dtype=np.uint8).tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + shape + pixels)
        labels = (np.arange(n) % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + shape[:4] + labels)
    (place / "answers.csv").write_text("file,label\nclass0/0.png,a\nclass1/1.png,b\nclass0/2.png,\n")
    (place / "evil.py").write_text(CANARY)


def _limit_to(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, DISK))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _worked(pid: int) -> float:
    """Seconds of the processor that a process has had; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _taken() -> int:
    """Bytes of address space that this process has taken."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _stop_after(name: str) -> None:
    """Kill this process once a file of a name is in its place."""
    if not name:
        return
    replace, rename = os.replace, os.rename

    def stopping(move: Any) -> Any:
        def moved(source: Any, target: Any, **more: Any) -> None:
            move(source, target, **more)
            if os.path.basename(target) == name:
                os.kill(os.getpid(), signal.SIGKILL)

        return moved

    os.replace, os.rename = stopping(replace), stopping(rename)
