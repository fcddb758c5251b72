"""Whatever is wrong with what a user gives: one clear line, exit code 2, nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands import clsim, refused
from tests.files import rewrite
from tests.killing import interruptible

SMALL = ["--set", "data.per_class=20", "--set", "stream.experiences=2", "--memory", "20", "--runs", "runs"]
RUN = ["run", "--scenario", "split-digits", *SMALL]
CLSIM = [sys.executable, "-c", "from clsim.cli.main import main; main()"]


pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs of RUN, of the seeds 0 and 1."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for seed in ("0", "1"):
            assert clsim(*RUN, "--quiet", "--seed", seed) == 0
    return place / "runs"


@pytest.fixture
def finished(workplace: Path, two_runs: Path) -> Path:
    """The folder of the finished run of seed 0; that of seed 1 is beside it."""
    shutil.copytree(two_runs, "runs")
    return Path("runs", _fingerprint(0))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--scenario", "split-digit"], "scenarios: unknown name 'split-digit'; did you mean 'split-digits'?"),
        (["--scenario", "./none.toml"], "scenarios: no file './none.toml'"),
        (["--strategy", "err"], "strategies: unknown name 'err'; did you mean 'er'?"),
        (["--buffer", "kcentre"], "selectors: unknown name 'kcentre'; did you mean 'kcenter'?"),
        (["--memory", "0"], "memory.capacity: found 0, allowed: 1 or more"),
        (["--memory", "-5"], "memory.capacity: found -5, allowed: 1 or more"),
        (["--set", "memory.capacty=3"], "command line: [memory] capacty: unknown key; did you mean 'capacity'?"),
        (["--set", "optimzer.lr=3"], "command line: optimzer: unknown key; did you mean 'optimizer'?"),
        (["--set", "training.epochs=many"], "[training] epochs: found 'many', allowed: a whole number"),
        (["--set", "stream.experiences=11"], "stream.experiences: found 11"),
        (["--set", "model.name=mpl"], "models: unknown name 'mpl'; did you mean 'mlp'?"),
        (["--set", "model.options.hiden=[3]"], "[model.options]: unknown option 'hiden'"),
        (["--set", "data.dataset=cifar"], "data.dataset: unknown name 'cifar'; did you mean 'cifar10'?"),
        (["--set", "data.augment=['crp']"], "data.augment: unknown name 'crp'; did you mean 'crop'?"),
        (["--device", "tpu"], "training.device: found 'tpu'"),
        (["--precision", "fp16"], "[training] precision: found 'fp16'"),
        (["--seed", "1", "--seeds", "2"], "--seed and --seeds: found both"),
        (["--seed", "-1"], "seed: found -1"),
        (["--strategy", "finetune", "--buffer", "random"], "strategy 'finetune' keeps no memory"),
        (["--strategy", "avalanche:EWC"], "memory.capacity: found 20 with an Avalanche strategy"),
    ],
)
def test_a_wrong_argument(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, *RUN, *words)
    assert expected in line
    assert not list(Path("runs").glob("*/record.json"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["report", "forgeting"], "reports: unknown name 'forgeting'; did you mean 'forgetting'?"),
        (["report"], "runs: no finished runs; make some with `clsim run`"),
        (["report", "--format", "html5"], "--format: found 'html5'"),
        (["list", "bufers"], "list: unknown kind 'bufers'; did you mean 'buffers'?"),
        (["show", "kcentre"], "show: unknown name 'kcentre'; did you mean 'kcenter'?"),
        (["check", "./none.py:f"], "no such file"),
        (["run", "--strategy", "avalanche:EWX"], "Avalanche has no strategy 'EWX'; did you mean 'EWC'?"),
        (["check", "kcenter", "--kind", "models"], "--kind: found 'models'"),
    ],
)
def test_a_wrong_argument_of_another_command(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, *words)


def test_an_unknown_flag_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", "--memry", "5") == 2
    assert "No such option" in capsys.readouterr().err


def test_what_a_users_own_code_raises_is_one_line_that_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("def pick(pool, budget, *, rng):\n    raise KeyError('my own\\nmistake')\n")
    line = refused(capsys, *RUN, "--quiet", "--buffer", "./mine.py:pick")
    assert "memory.buffer './mine.py:pick': raised KeyError: " in line
    assert "mine.py:2)" in line
    Path("net.py").write_text("def body(shape):\n    return shape / 2\n")
    line = refused(capsys, *RUN, "--quiet", "--set", "model.name=./net.py:body")
    assert "model: with inputs of shape (1, 8, 8) it raised TypeError: " in line
    assert "net.py:2)" in line


def test_a_misspelt_key_in_a_file_is_named_with_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text("[stream]\nexperience = 3\n")
    line = refused(capsys, "run", "--scenario", "mine.toml")
    assert "mine.toml: [stream] experience: unknown key; did you mean 'experiences'?" in line


def test_a_data_set_that_is_not_here_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("network unreachable")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    line = refused(capsys, "run", "--scenario", "split-mnist", *SMALL)
    assert str(Path("data").resolve()) in line
    assert "--data-root" in line or "CLSIM_DATA" in line


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY", b"\x00" * 4000], ids=["empty", "zip", "npy", "zeros"]
)
def test_unreadable_data_is_one_line(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.npz").write_bytes(content)
    line = refused(capsys, *RUN, "--set", "data.dataset=npz", "--set", "data.path=mine.npz")
    assert "mine.npz: cannot be read as .npz" in line


def test_pickled_data_is_not_opened(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("mine.npz", x=np.array([{"a": 1}], dtype=object), y=np.array([0]))
    assert "mine.npz" in refused(capsys, *RUN, "--set", "data.dataset=npz", "--set", "data.path=mine.npz")


class Harmful:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "hostile", "foreign", "a later format"])
def test_a_corrupt_checkpoint(how: str, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished
    path = folder / "checkpoint.pt"
    record = json.loads((folder / "record.json").read_text())
    rewrite(folder / "record.json", record | {"finished": False})
    state = torch.load(path, weights_only=True)
    if how == "hostile":
        path.write_bytes(pickle.dumps(Harmful()))
    elif how == "foreign":
        torch.save(state | {"learner": {"net": {}, "optimizer": {}}}, path)
    elif how == "a later format":
        torch.save(state | {"format": 2}, path)
    else:
        path.write_bytes({"truncated": path.read_bytes()[:-500], "empty": b"", "text": b"hello"}[how])
    line = refused(capsys, *RUN)
    assert "checkpoint.pt" in line
    assert "--fresh" in line
    assert not Path("harmed").exists()
    assert clsim(*RUN, "--quiet", "--fresh") == 0
    assert json.loads((folder / "record.json").read_text())["accuracy"] == record["accuracy"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1}', b"[" * 100_000, b'{"format": 99}'],
    ids=["empty", "cut", "list", "bytes", "no fields", "deep", "of the future"],
)
def test_a_corrupt_record_is_skipped_by_reports_and_refused_by_its_run(
    content: bytes, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "record.json"
    path.write_bytes(content)
    line = refused(capsys, *RUN)
    assert "record.json" in line
    assert "--fresh" in line
    assert clsim("report", "--runs", "runs") == 0
    printed = capsys.readouterr()
    assert printed.err.count("skipped") == 1
    assert "split-digits" in printed.out
    assert clsim(*RUN, "--quiet", "--fresh") == 0
    assert path.with_name("record.previous.json").read_bytes() == content


@pytest.mark.parametrize(
    "further",
    [
        {"readouts": []},
        {"readouts": {"a": 3}},
        {"readouts": {"a": [[1.0]]}},
        {"readouts": {"a": []}},
        {"unlabelled": [1]},
        {"diagnostics": []},
        {"diagnostics": {"held": 0.5}},
    ],
    ids=str,
)
def test_a_record_whose_readouts_are_no_matrices_is_skipped(
    further: dict[str, object], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "record.json"
    rewrite(path, json.loads(path.read_text()) | further)
    line = refused(capsys, *RUN)
    assert "record.json" in line


def _fingerprint(seed: int) -> str:
    from clsim.spec.resolve import resolve

    settings = ["data.per_class=20", "stream.experiences=2"]
    return resolve("split-digits", "er", flags={"memory": {"capacity": 20}}, settings=settings, seed=seed).fingerprint


def test_a_run_that_another_process_has_is_busy(capsys: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    folder = Path("runs", _fingerprint(0))
    folder.mkdir(parents=True)
    held = f"with FileLock('{folder}/lock'): print(1, flush=True); time.sleep(60)"
    code = f"import time\nfrom filelock import FileLock\n{held}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert "another process is running this" in refused(capsys, *RUN)
        other.kill()
    assert clsim(*RUN, "--quiet") == 0
    with FileLock(folder / "lock", timeout=0):
        pass


def test_a_full_disk_loses_nothing() -> None:
    """Writing past a limit fails as it does on a full disk."""

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    command = [*CLSIM, *RUN, "--set", "model.options.hidden=[400]"]
    failed = subprocess.run([*command], capture_output=True, text=True, preexec_fn=no_room)
    assert failed.returncode == 2
    assert [line for line in failed.stderr.splitlines() if line.startswith("clsim: ")]
    assert "Traceback" not in failed.stderr
    assert not list(Path("runs").glob("*/.*"))  # no half-written file is left
    assert clsim(*command[len(CLSIM) :]) == 0


def test_a_folder_that_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs").write_text("in the way")
    assert "runs" in refused(capsys, *RUN)
    assert Path("runs").read_text() == "in the way"


def test_ctrl_c_stops_with_130_and_the_same_command_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*CLSIM, *RUN, "--set", "training.epochs=150"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=interruptible
    ) as run:
        assert run.stderr is not None
        assert "experience 1/2" in run.stderr.readline()
        time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
    assert run.returncode == 130
    assert rest.splitlines()[-1] == "clsim: stopped; the same command goes on after the last finished experience"
    assert "Traceback" not in rest
    capsys.readouterr()
    assert clsim(*command[len(CLSIM) :]) == 0
    again = capsys.readouterr().err
    assert "experience 1/2" not in again
    assert "experience 2/2" in again
