"""Studies: which runs a grid is made of, how it is read from files and flags, what becomes of runs that fail."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import clsim as package
from clsim.errors import InputError
from clsim.execution import plan
from clsim.execution.engines import local
from clsim.execution.engines.engine import EngineSpec, Job, Outcome, work
from clsim.execution.study import RunState, running_accuracy, time_left
from clsim.records.overview import seconds_of
from clsim.records.store import Store
from clsim.spec.flags import as_text, parsed
from clsim.spec.resolve import keeps_memory, resolve
from tests.commands import clsim

SMALL = {"data.per_class": 20, "stream.experiences": 2}
FLAGS = ["--set", "data.per_class=20", "--set", "stream.experiences=2"]


pytestmark = pytest.mark.usefixtures("workplace")


class InThisProcess:
    """An engine without processes, which take seconds to start; those of the engines have tests of their own."""

    slots: int | None = 1

    def __init__(self) -> None:
        self._jobs = deque[Job]()

    def submit(self, jobs: Sequence[Job]) -> None:
        self._jobs.extend(jobs)

    def poll(self, seconds: float) -> list[Outcome]:
        return [work(self._jobs.popleft())] if self._jobs else []

    def close(self) -> None:
        self._jobs.clear()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "create", lambda spec, root: InThisProcess())


def planned(tables: dict[str, Any], runs: str = "runs") -> list[plan.Planned]:
    return plan.plan(plan.read(tables, "test"), Store(Path(runs)))


def test_the_grid_of_the_issue() -> None:
    runs = planned(
        {"strategy": ["er", "finetune"], "buffer": ["random", "herding", "kcenter"], "memory": [20, 50], "seeds": 4}
    )
    cells = {(r.spec.strategy, r.spec.memory.buffer, r.spec.memory.capacity, r.spec.seed) for r in runs}
    wanted = {("er", b, m, s) for b in ("random", "herding", "kcenter") for m in (20, 50) for s in range(4)}
    assert {cell for cell in cells if cell[0] == "er"} == wanted
    assert sorted(cell[3] for cell in cells if cell[0] == "finetune") == [0, 1, 2, 3]  # once a seed
    assert len(runs) == len(cells) == len({r.spec.fingerprint for r in runs}) == 28
    assert [r.spec.seed for r in runs] == sorted(r.spec.seed for r in runs)  # every cell has a run early


def test_runs_are_those_of_the_command_in_their_record(capsys: pytest.CaptureFixture[str]) -> None:
    tables = {
        "strategy": ["er", "finetune", "gdumb"],
        "buffer": ["per_class(random)", "none"],
        "memory": 20,
        "seeds": [3],
        "set": {"model.options.hidden": [[10], [10, 20]], "data.augment": [["crop"]], "optimizer.lr": 0.05},
    }
    runs = plan.plan(plan.read(tables, "test"), Store(Path("runs")), {"precision": "bf16", "threads": 2})
    assert len(runs) == 2 * (2 + 1 + 2)
    for run in runs:
        words = shlex.split(run.command)
        assert words[:2] == ["clsim", "run"]
        given: dict[str, list[str]] = {}
        for flag, value in zip(words[2::2], words[3::2], strict=True):
            given.setdefault(flag, []).append(value)
        flags: dict[str, Any] = {"training": {"precision": given["--precision"][0], "threads": 2}, "memory": {}}
        if "--buffer" in given:
            flags["memory"]["buffer"] = given["--buffer"][0]
        if "--memory" in given:
            flags["memory"]["capacity"] = int(given["--memory"][0])
        names = (given["--scenario"][0], given["--strategy"][0])
        again = resolve(*names, flags=flags, settings=given["--set"], seed=int(given["--seed"][0]))
        assert again.fingerprint == run.spec.fingerprint


@pytest.mark.parametrize(
    ("strategy", "keeps"),
    [("er", True), ("gdumb", True), ("finetune", False), ("joint", False), ("avalanche:EWC", False)],
)
def test_who_keeps_a_memory(strategy: str, keeps: bool) -> None:
    assert keeps_memory("split-digits", strategy) is keeps


def test_what_is_the_same_run_is_run_once() -> None:
    assert len(planned({"buffer": ["random", "random"], "memory": [20, 20], "seeds": [1, 1]})) == 1
    # without a memory, what is said of the memory makes no other run
    tables = {"strategy": "finetune", "seeds": 2, "set": {"memory.options.metric": ["cosine", "euclidean"]}}
    assert len(planned(tables)) == 2
    assert len(planned({"buffer": ["none", "random"], "memory": [20, 50]})) == 3


@pytest.mark.parametrize(
    "value", ["cosine", "true", "0.1", "a b", 'with "quotes"', "a,b", "", 3, 0.1, 1e-05, True, [[1], ["a"]]]
)
def test_a_setting_is_read_as_it_was_written(value: Any) -> None:
    assert parsed(as_text(value)) == value
    assert type(parsed(as_text(value))) is type(value)


def test_a_further_grid_has_other_axes_and_what_it_shares_is_run_once() -> None:
    grid = {"optimizer.lr": [0.1, 0.2], "training.epochs": 1}
    also = [{"training.epochs": [1, 2]}, {"optimizer.lr": 0.3, "training.passes": 2}]
    found = planned({"strategy": "finetune", "set": grid, "also": also})
    cells = [(run.spec.optimizer.lr, run.spec.training.epochs, run.spec.training.passes) for run in found]
    assert cells == [(0.1, 1, 1), (0.2, 1, 1), (0.1, 2, 1), (0.2, 2, 1), (0.3, 1, 2)]
    assert "training.passes=2" in found[-1].title
    words = [run.command for run in found]
    assert len({*words}) == 5
    assert "--set training.epochs=2" in words[2]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"strategies": ["er"]}, r"my\.toml: strategies: unknown key; did you mean 'strategy'"),
        ({"memory": [0.5]}, r"my\.toml: memory\[0\]: found 0\.5, allowed: text"),
        ({"seeds": 0}, r"my\.toml: seeds: found 0, allowed: one value or more"),
        ({"seeds": True}, r"my\.toml: seeds\[0\]: found True"),
        ({"buffer": []}, r"my\.toml: buffer: found \[\], allowed: one value or more"),
        ({"set": {"lr": [0.1]}}, r"my\.toml: \[set\] lr: found \[0\.1\], allowed: \"table\.key\""),
        ({"set": {"optimizer.lr": []}}, r"my\.toml: \[set\] optimizer\.lr: found \[\]"),
        ({"set": 3}, r"my\.toml: set: found 3"),
        ({"also": {"optimizer.lr": 1}}, r"my\.toml: also: found"),
        ({"also": [{"lr": 0.1}]}, r"my\.toml: \[\[also\]\] lr: found 0\.1, allowed: \"table\.key\""),
    ],
)
def test_a_wrong_study_file(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.read(tables, "my.toml")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"strategy": "finetune", "buffer": "random"}, r"none of its strategies \(finetune\) keeps any"),
        ({"buffer": "kcentre"}, "selectors: unknown name 'kcentre'; did you mean 'kcenter'"),
        ({"scenario": "split-digit"}, "did you mean 'split-digits'"),
        ({"set": {"optimzer.lr": 1}}, "did you mean 'optimizer'"),
        ({"set": {"model.name": ["mlp", "mpl"]}}, "models: unknown name 'mpl'"),
        ({"memory": [20, 0]}, "memory.capacity: found 0"),
        ({"seeds": [-1]}, "seed: found -1"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(tables)
    assert not Path("runs").exists()


@pytest.mark.parametrize("text", ["a,,b", "a,", "", "per_class(a", '"a,b'])
def test_a_list_that_does_not_end_well(text: str) -> None:
    with pytest.raises(InputError, match=r"--buffer: found .* allowed: values with a comma between them"):
        plan.split(text, "--buffer")


def test_a_path_with_an_apostrophe_is_one_value() -> None:
    assert plan.split("./it's.py:f,random", "--buffer") == ["./it's.py:f", "random"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "20,many"], "memory: found 'many', allowed: a whole number, as in 500, or a share"),
        (["--seed", "1", "--seeds", "2"], "--seed and --seeds: found both"),
        (["--set", "lr=1"], "--set: found 'lr=1', allowed: table.key=VALUE,VALUE"),
        (["--set", "optimizer.lr=1", "--set", "optimizer.lr=2"], "--set optimizer.lr: found twice"),
        (["--engine", "lokal"], "--engine: found 'lokal'; did you mean 'local'"),
        (["--workers", "0"], "--workers: found 0, allowed: 1 or more"),
        (["--address", "auto"], "--address: found with --engine local, allowed: with --engine ray"),
        (["--engine", "ray", "--partition", "x"], "--partition: found with --engine ray, allowed: with --engine slurm"),
        (["--engine", "slurm", "--cluster", "slum"], "--cluster: found 'slum'; did you mean 'slurm'"),
        (["--gpus-per-run", "1.5"], "--gpus-per-run: found 1.5"),
        (["no-such-study"], "studies: unknown name 'no-such-study'"),
        (["./no.toml"], "studies: no file './no.toml'"),
    ],
)
def test_a_wrong_flag(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("study", *words) == 2
    line = capsys.readouterr().err
    assert line.startswith("clsim: ")
    assert message in line
    assert line.count("\n") == 1
    assert not Path("runs").exists()


def test_a_file_and_flags_above_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("studies").mkdir()
    Path("studies/mine.toml").write_text(
        'title = "[red]mine"\nstrategy = "er"\nbuffer = ["random", "./mine.py:pick"]\nmemory = 20\nseeds = 2\n'
        '[set]\n"optimizer.lr" = [0.01, 0.1]\n"model.options.hidden" = [[10]]\n'
    )
    Path("mine.py").write_text("from clsim.selectors.random import random as pick\n")
    assert clsim("study", "mine", "--dry-run", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 8
    words = ["--seed", "4,6", "--set", "optimizer.lr=0.2", "--set", "data.per_class=5,6", "--strategy", "finetune,er"]
    assert clsim("study", "mine", *words, "--dry-run", "--json") == 0
    runs = json.loads(capsys.readouterr().out)
    assert len(runs) == 2 * 2 * (2 + 1)
    assert {run["command"].rpartition("--seed ")[2] for run in runs} == {"4", "6"}
    assert all("optimizer.lr=0.2" in run["command"] and "'model.options.hidden=[10]'" in run["command"] for run in runs)
    assert clsim("list", "studies") == 0
    assert "[red]mine" in capsys.readouterr().out
    assert clsim("show", "mine") == 0
    assert clsim("show", "studies/mine.toml") == 0


def test_a_plan_tells_what_is_done_and_what_it_will_take(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", *FLAGS, "--buffer", "random,kcenter", "--memory", "20", "--seeds", "2"]
    assert clsim(*words, "--dry-run") == 0
    assert "4 runs: 0 finished, 4 to do; expected time unknown" in capsys.readouterr().out
    assert not Path("runs").exists()
    record = package.run(buffer="random", memory=20, settings=[f"{k}={v}" for k, v in SMALL.items()])
    runs = planned({"buffer": ["random", "kcenter"], "memory": 20, "seeds": 2, "set": SMALL})
    assert [run.finished for run in runs] == [True, False, False, False]
    known = plan.with_expected_seconds(runs, Store(Path("runs")))
    took = seconds_of(record.data)
    assert [run.seconds for run in known] == [None, *[pytest.approx(took)] * 3]
    assert clsim(*words, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "4 runs: 1 finished, 3 to do; about" in out
    assert "split-digits · er · kcenter 20" in out


def test_one_failing_run_does_not_end_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "from clsim.selectors.random import random\n"
        "def pick(pool, budget, *, rng):\n"
        "    if pool.data.y.unique().numel() > 5:\n        raise ZeroDivisionError('[bold]no\\nmore')\n"
        "    return random(pool, budget, rng=rng)\n"
    )
    words = ["study", *FLAGS, "--buffer", "random,./mine.py:pick", "--memory", "20", "--workers", "1"]
    assert clsim(*words) == 1
    printed = capsys.readouterr()
    assert "[1/2] split-digits · er · random 20 · seed 0 · finished" in printed.err
    assert "raised ZeroDivisionError: [bold]no more (" in printed.err
    assert "clsim: 1 run failed: " in printed.err
    assert "1 run; go on with: clsim report summary" in printed.out
    store = Store(Path("runs"))
    (failure,) = store.failures()
    assert failure.spec["memory"]["buffer"] == "./mine.py:pick"
    assert "[bold]no more" in failure.error
    assert failure.command in printed.err

    assert clsim(*words, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [len(found["records"]), len(found["failures"])] == [1, 1]
    # what is wrong with it is there, until the run is finished
    (failure,) = store.failures()  # of the second attempt
    folder = store.root / failure.fingerprint
    kept = (folder / "error.json").read_bytes()
    Path("mine.py").write_text(Path("mine.py").read_text().replace("> 5", "> 50"))
    assert clsim(*words, "--quiet") == 0  # an edited selector is another run
    assert store.failures() == [failure]
    record = next(r for r in store.records()[0] if r.data["spec"]["memory"]["buffer"] == "./mine.py:pick")
    assert record.folder is not None
    (record.folder / "error.json").write_bytes(kept)  # of another run, or finished since
    assert store.failures() == [failure]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "[" * 100000])
def test_a_broken_error_file_is_nobodys_failure(text: str) -> None:
    folder = Path("runs/0123456789abcdef")
    folder.mkdir(parents=True)
    (folder / "error.json").write_text(text)
    assert Store(Path("runs")).failures() == []


def test_an_error_disappears_when_the_run_is_finished() -> None:
    spec = planned({"memory": 20, "set": SMALL})[0].spec
    store = Store(Path("runs"))
    failure = store.folder(spec).fail(spec, "a line\nand another", "clsim run")
    assert store.failures() == [failure]
    assert failure.error == "a line and another"
    package.run(memory=20, settings=[f"{k}={v}" for k, v in SMALL.items()])
    assert not (store.folder(spec).path / "error.json").exists()
    assert store.failures() == []


@pytest.mark.usefixtures("in_this_process")
def test_nothing_to_do_is_quick_and_heavy_free(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", *FLAGS, "--memory", "20", "--seeds", "2", "--workers", "1"]
    assert clsim(*words, "--quiet") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/*")}
    code = (
        f"import sys; sys.argv = ['clsim', *{words!r}]\nfrom clsim.cli.main import main\n"
        "try:\n    main()\nfinally:\n    print(sorted({'torch', 'avalanche'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.endswith("[]\n")
    assert done.stderr.startswith("clsim: read, not run: 2 runs, made ")
    assert len(done.stderr.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/*")} == before


@pytest.mark.usefixtures("in_this_process")
def test_from_python_and_fresh() -> None:
    class Seen:
        def __init__(self) -> None:
            self.states: list[RunState] = []

        def show(self, states: Sequence[RunState], left: float | None) -> None:
            self.states += states

    seen = Seen()
    options: dict[str, Any] = {"memory": [20], "seeds": 2, "settings": SMALL, "workers": 1}
    found = package.study(scenario=["split-digits"], buffer="random", **options, watch=seen)
    assert [r.data["spec"]["seed"] for r in found.records] == [0, 1]
    assert found.failures == ()
    assert found.frame()["accuracy"].notna().all()
    assert seen.states[-1].state == "finished"
    assert (seen.states[-1].done, seen.states[-1].total) == (2, 2)
    assert seen.states[-1].accuracy == running_accuracy(found.records[-1].data)
    again = package.study(buffer="random", **options, fresh=True)
    assert [r.accuracy.equals(s.accuracy) for r, s in zip(found.records, again.records, strict=True)] == [True, True]
    assert len(list(Path("runs").glob("*/record.previous.json"))) == 2


@pytest.mark.usefixtures("in_this_process")
def test_a_run_of_another_process_is_waited_for() -> None:
    spec = planned({"memory": 20, "set": SMALL})[0].spec
    holder = Store(Path("runs")).open(spec)
    holder.__enter__()
    states: list[str] = []

    class Releases:
        def show(self, seen: Sequence[RunState], left: float | None) -> None:
            if seen[0].state == "elsewhere" and "elsewhere" not in states:
                holder.__exit__(None, None, None)
            states.append(seen[0].state)

    found = package.study(memory=20, settings=SMALL, workers=1, watch=Releases())
    assert "elsewhere" in states
    assert [len(found.records), len(found.failures)] == [1, 0]


def test_time_left() -> None:
    done = RunState("", "finished", 5, 5)
    waits = RunState("", "waiting", 0, 5)
    assert time_left([done], [10.0], 2) == 0
    assert time_left([waits], [None], 2) is None
    assert time_left([done, waits, waits], [10.0, None, None], 2) == 10
    assert time_left([done, waits, waits], [10.0, None, None], 1) == 20


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for engine, name in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, name, None)
        assert clsim("study", *FLAGS, "--memory", "20", "--engine", engine, "--quiet") == 2
        assert f"pip install 'clsim[{engine}]'" in capsys.readouterr().err


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(InputError, match="--engine: found 'dask'; allowed: here, local, ray, slurm"):
        EngineSpec("dask")
