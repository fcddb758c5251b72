"""Damaged and hostile folders of runs: the right result, or one line; nothing else, and nothing on disk is lost."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.errors import InputError
from clsim.records import inquiry, losses_file, sealed, states
from clsim.records.doubts import LATER, UNCHECKED
from clsim.records.store import RunFolder, Store
from clsim.training import kept_nets
from clsim.training import record as facts
from tests import commands
from tests.damage import Stopping, bytes_of, read_all, resumed, values_of
from tests.files import rewrite, rewrite_state

pytestmark = pytest.mark.filterwarnings("ignore:without an initial set")

SMALL = ["data.per_class=10", "training.epochs=1", "stream.experiences=2", "model.name=linear"]
PLAIN: dict[str, Any] = {"scenario": "split-digits", "strategy": "er", "settings": SMALL}
ASKING = {**PLAIN, "label": "badge", "label_budget": 10, "label_rounds": 2}
HOW: dict[str, tuple[dict[str, Any], Stopping | None]] = {
    "finished": (PLAIN, None),
    "half done": ({**PLAIN, "seed": 1}, Stopping(1)),
    "importances": ({**PLAIN, "strategy": "ewc"}, Stopping(1)),
    "rounds": ({**ASKING, "settings": [*SMALL, "labelling.start='warm'"]}, Stopping(1, asked=2)),
    "search": ({**PLAIN, "controller": "stability-decay", "strategy": "ewc"}, Stopping(1, trial=3)),
}
"""Runs by what their folder shows: how each is run, and where it is stopped."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store for each of HOW, with its one run."""
    stores = {}
    for name, (how, stops) in HOW.items():
        stores[name] = tmp_path_factory.mktemp("made") / "runs"
        try:
            clsim.run(**how, runs=stores[name], **({} if stops is None else {"progress": stops}))
        except KeyboardInterrupt:
            continue
    return stores


@pytest.fixture
def copied(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy the folder of the run of a name."""

    def copy(name: str) -> Path:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        shutil.copytree(made[name], tmp_path / "runs")
        (folder,) = (tmp_path / "runs").iterdir()
        return folder

    return copy


FILES = [
    *(("finished", name) for name in ("record.json", "losses.npz", "checkpoint.pt", "spec.json")),
    *(("half done", name) for name in ("record.json", "checkpoint.pt")),
    *(("rounds", "rounds.pt"), ("search", "search.json")),
]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_a_file_damaged_by_byte(name: str, file: str, copied: Callable[[str], Path]) -> None:
    rng, folder = random.Random(f"{name} {file}"), copied(name)
    path = folder / file
    whole, data = path.read_bytes(), sealed.read(folder / "record.json")[0]
    refusals = 0
    for i in range(8):
        path.write_bytes(bytes_of(whole, rng) if i else b"")
        refusals += bool(lines := read_all(folder.parent))
        assert all(file in line for line in lines)
        if not lines and file == "record.json":
            assert RunFolder(folder).record().data == data  # type: ignore[union-attr]
    assert refusals >= (0 if file == "spec.json" else 6)


@pytest.mark.parametrize(
    ("name", "file"), [("half done", "checkpoint.pt"), ("rounds", "rounds.pt"), ("search", "search.json")]
)
def test_a_run_goes_on_from_whole_bytes_alone(name: str, file: str, copied: Callable[[str], Path]) -> None:
    rng, folder, how = random.Random(name), copied(name), HOW[name][0]
    whole = (folder / file).read_bytes()
    for _ in range(4):
        (folder / file).write_bytes(bytes_of(whole, rng))
        line = resumed(how, folder.parent)
        assert isinstance(line, str)
        assert file in line
        assert "--fresh" in line
    (folder / file).write_bytes(whole)
    assert isinstance(resumed(how, folder.parent), list)


def test_a_record_changed_by_value(copied: Callable[[str], Path]) -> None:
    rng, folder = random.Random(0), copied("finished")
    path, refusals = folder / "record.json", 0
    data = sealed.read(path)[0]
    for _ in range(40):
        changed = values_of(data, rng)
        try:
            path.write_bytes(sealed.sealed(changed))
        except ValueError:  # what JSON does not have, and Python writes
            path.write_text(json.dumps(changed))
        refusals += bool(read_all(folder.parent))
    assert 20 < refusals < 40


@pytest.mark.parametrize(("name", "tries"), [("half done", 10), ("importances", 8), ("rounds", 8), ("search", 6)])
def test_a_state_changed_by_value(name: str, tries: int, copied: Callable[[str], Path]) -> None:
    rng, how, refusals = random.Random(name), HOW[name][0], 0
    for _ in range(tries):
        folder = copied(name)
        file = {"rounds": "rounds.pt", "search": "search.json"}.get(name, "checkpoint.pt")
        path = folder / file
        try:
            if file == "search.json":
                path.write_bytes(sealed.sealed(values_of(sealed.read(path)[0], rng)))
            else:
                rewrite_state(path, values_of(torch.load(path, weights_only=True), rng))
        except (ValueError, TypeError, RuntimeError, AttributeError):  # what cannot be written
            continue
        refusals += isinstance(resumed(how, folder.parent), str)
    assert refusals >= 2


def test_every_file_has_a_checksum(made: dict[str, Path]) -> None:
    found = set()
    for root in made.values():
        (folder,) = root.iterdir()
        found |= {path.name for path in folder.iterdir()} - {"lock", "spec.json"}
        assert RunFolder(folder).audit() == ([], [])
    assert found == {"record.json", "checkpoint.pt", "losses.npz", "rounds.pt", "search.json"}


NONSENSE: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (
        lambda r: r["metrics"].update(accuracy=0.99),
        r"metrics.accuracy: found 0.99, while its accuracies make it 0",
    ),
    (lambda r: r["accuracy"][1].__setitem__(0, 1.5), r"accuracy\[1\]\[0\]: found 1.5, allowed: a number from 0 to 1"),
    (lambda r: r["accuracy"][1].__setitem__(0, -0.5), r"accuracy\[1\]\[0\]: found -0.5"),
    (
        lambda r: r["cost"][0].update(train_seconds=-1.0),
        r"cost\[0\].train_seconds: found -1.0, allowed: a number",
    ),
    (lambda r: r["cost"][0].update(steps=2.5), r"cost\[0\].steps: found 2.5, allowed: a whole number from 0"),
    (lambda r: r.update(command=["a"]), "command: found list of 1, allowed: text"),
    (lambda r: r.update(started={}), "started: found dict of 0, allowed: text"),
    (lambda r: r["versions"].update(clsim=["0"]), "versions.clsim: found list of 1, allowed: text"),
    (lambda r: r.update(test_sizes=[0, 1]), r"test_sizes\[0\]: found 0, allowed: a whole number from 1"),
    (lambda r: r["accuracy"].pop(), r"found list of 2, allowed: a list of 1"),
    (lambda r: r.pop("classes"), "classes: missing"),
]


@pytest.mark.parametrize(("change", "message"), NONSENSE)
def test_nonsense_is_no_record(
    change: Callable[[dict[str, Any]], Any], message: str, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied("finished")
    data = sealed.read(folder / "record.json")[0]
    change(data)
    rewrite(folder / "record.json", data)
    with pytest.raises(InputError, match=message):
        RunFolder(folder).record()
    (line,) = Store(folder.parent).records()[1]
    assert line.endswith("; run it again with --fresh")


def test_what_json_does_not_have_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("finished")
    data = sealed.read(folder / "record.json")[0]
    data["cost"][0]["train_seconds"] = "here"
    for bad in ("NaN", "Infinity", "1e999"):
        (folder / "record.json").write_text(json.dumps(data).replace('"here"', bad))
        with pytest.raises(InputError, match="--fresh"):
            RunFolder(folder).record()


def test_an_older_run_is_read_and_said_to_be_unchecked(
    copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("half done")
    path = folder / "record.json"
    data = sealed.read(path)[0]
    path.write_text(json.dumps(data))
    torch.save(torch.load(folder / "checkpoint.pt", weights_only=True), folder / "checkpoint.pt")
    assert RunFolder(folder).audit() == (["record.json", "checkpoint.pt"], [])
    assert RunFolder(folder).record().data == data  # type: ignore[union-attr]
    runs = ["--runs", str(folder.parent)]
    assert commands.clsim("runs", "show", folder.name, *runs) == 0
    assert f"record.json, checkpoint.pt: {UNCHECKED}" in capsys.readouterr().out
    words = ["run", "--scenario", "split-digits", "--strategy", "er", "--seed", "1"]
    words += [word for setting in SMALL for word in ("--set", setting)]
    assert commands.clsim(*words, *runs) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if UNCHECKED in line]
    assert len(said) == 1
    assert "goes on after 1 of 2 experiences; checkpoint.pt: " in said[0]
    path.write_text(json.dumps(sealed.read(path)[0]))
    assert commands.clsim("report", *runs) == 0
    assert f"1 of 1 runs: {UNCHECKED}: {folder.name}" in capsys.readouterr().err
    assert commands.clsim(*words, *runs) == 0
    assert UNCHECKED in capsys.readouterr().err


def test_a_report_says_what_it_refused_up_to_a_number(
    copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = copied("finished").parent
    for i in range(30):
        (root / f"{i:016x}").mkdir()
        (root / f"{i:016x}" / "record.json").write_text("{}")
    assert commands.clsim("report", "--runs", str(root)) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert len(said) == 21
    assert said[-1] == "skipped 10 more; `clsim runs` lists them all"


def hollow(**headers: tuple[str, Any]) -> bytes:
    """Pack columns with a header of their own each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (kind, shape) in headers.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue())
    return sealed.sealed_archive(buffer.getvalue())


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("new.npy", "w") as file:
        for _ in range(2):
            file.write(bytes(2**24))
    return sealed.sealed_archive(buffer.getvalue())


@pytest.mark.parametrize("how", ["huge", "pickled", "two lengths", "text", "bomb"])
def test_hostile_losses_are_one_line(how: str, copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied("finished")
    if how == "bomb":
        monkeypatch.setattr(losses_file, "LARGEST", 2**24)
        content = bomb()
        assert len(content) < 2**16
    elif how == "two lengths":
        content = losses_file.packed({"a": np.zeros(3), "b": np.zeros(4)})
    else:
        kind, shape = {"huge": ("<f8", (10**13,)), "pickled": ("|O", (3,)), "text": ("<U9", (0,))}[how]
        content = hollow(new=(kind, shape))
    (folder / "losses.npz").write_bytes(content)
    record = RunFolder(folder).record()
    assert record is not None
    with pytest.raises(InputError, match=r"losses\.npz: cannot be read \(.*\); run it again with --fresh"):
        _ = record.losses


def test_a_state_larger_than_its_file_is_not_loaded(copied: Callable[[str], Path]) -> None:
    folder = copied("half done")
    path = folder / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    rewrite_state(path, {**state, "learner": torch.zeros(1).expand(10**12)})
    with pytest.raises(InputError, match="holds more than a state does"):
        RunFolder(folder).checkpoint()
    buffer = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other:
        for entry in archive.namelist():
            other.writestr(entry, archive.read(entry))
    with pytest.raises(InputError, match="its parts are larger than the file"):
        RunFolder(folder).checkpoint()


UNFIT: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda s: s["learner"].update(net=torch.zeros(3)), "learner.net: found float32"),
    (lambda s: s["memory"]["columns"].update(y=s["memory"]["columns"]["y"] + 90), "memory.y: found a number outside"),
    (lambda s: s["memory"]["columns"].update(task=s["memory"]["columns"]["task"] + 9), "memory.task: found a number"),
    (lambda s: s["memory"]["columns"].update(x=s["memory"]["columns"]["x"][:, :, :4]), "memory.x: found uint8"),
    (lambda s: s["memory"]["columns"].update(key=s["memory"]["columns"]["key"].double()), "memory.key: found float64"),
    (lambda s: s["memory"].update(seen=-1), "memory.seen"),
    (lambda s: s["randomness"].update(order=torch.zeros(7, dtype=torch.uint8)), "randomness.order: found uint8"),
    (lambda s: s["randomness"].update(cuda=torch.zeros(16, dtype=torch.uint8)), "begun on cuda, and this is cpu"),
    (lambda s: s["learner"]["optimizer"]["param_groups"][0].update(momentum=5.0), "momentum: found 5.0, allowed: "),
    (lambda s: s["learner"]["optimizer"]["param_groups"][0].update(lr=float("nan")), "lr: found nan"),
    (lambda s: next(iter(s["learner"]["net"].values())).fill_(float("nan")), "found a weight that is not finite"),
    (lambda s: s["results"]["accuracy"][0].__setitem__(0, 0.123), "experience 1 has other accuracies in record.json"),
    (lambda s: s["results"].update(done=2), "results.done: found 2 with 1 costs"),
    (lambda s: s["results"]["cost"][0].update(steps=-3), "results: cost[0].steps: found -3"),
    (lambda s: s.pop("learner"), "learner"),
    (lambda s: s["results"].update(losses={"new": [1.0]}), "results.losses"),
]


@pytest.mark.parametrize(("change", "message"), UNFIT)
def test_a_state_that_does_not_fit_is_refused_before_training(
    change: Callable[[dict[str, Any]], Any],
    message: str,
    copied: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copied("half done")
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    change(state)
    rewrite_state(folder / "checkpoint.pt", state)
    monkeypatch.setattr("clsim.training.experiment.Experiment.learn", lambda *_: pytest.fail("it was trained"))
    line = resumed(HOW["half done"][0], folder.parent)
    assert message in line
    assert "checkpoint.pt does not fit this run (" in line


def test_what_fails_after_a_checkpoint_was_read_says_where(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("half done")

    def fails(*_: object) -> None:
        raise IndexError("Target -1 is out of bounds")

    monkeypatch.setattr("clsim.training.experiment.Experiment.learn", fails)
    line = resumed(HOW["half done"][0], folder.parent)
    assert "training that goes on from checkpoint.pt raised IndexError: Target -1 is out of bounds (" in line
    with pytest.raises(IndexError):  # nothing was read: the error is the code's own
        clsim.run(**HOW["half done"][0], runs=folder.parent / "new")


def test_another_machine_is_said_and_kept(copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from clsim.execution.execute import execute
    from clsim.spec.resolve import resolve

    folder, here = copied("half done"), facts.machine_facts
    before = {**here(torch.device("cpu")), "threads": 1}  # as the run has it
    moved = {**before, "torch": "2.99", "threads": 3, "processor": "a newer one"}
    monkeypatch.setattr(facts, "machine_facts", lambda device: moved)
    spec = resolve("split-digits", "er", settings=SMALL, seed=1)
    said = list[str]()
    record = execute(spec, Store(folder.parent), say=said.append)
    (line,) = said
    assert "another machine than before: " in line
    assert f"torch {before['torch']}, then 2.99" in line
    assert f"threads {before['threads']}, then 3" in line
    assert record.data["machines"] == [before, moved]
    assert "made on 2 machines or versions: " in record.doubts[0]


def test_dates_that_have_not_come_are_said(copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied("finished")
    data = sealed.read(folder / "record.json")[0]
    rewrite(folder / "record.json", {**data, "ended": "2999-01-01T00:00:00+00:00"})
    runs = ["--runs", str(folder.parent)]
    assert commands.clsim("runs", "show", folder.name, *runs) == 0
    assert LATER in capsys.readouterr().out
    assert commands.clsim("report", *runs) == 0
    assert LATER in capsys.readouterr().err
    record = RunFolder(folder).record()
    assert record is not None
    assert LATER in record.line


def test_a_half_done_run_dated_in_the_future_says_so(copied: Callable[[str], Path]) -> None:
    from clsim.execution.execute import execute
    from clsim.spec.resolve import resolve

    folder, said = copied("half done"), list[str]()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    state["results"]["started"] = "2999-01-01T00:00:00+00:00"
    rewrite_state(folder / "checkpoint.pt", state)
    execute(resolve("split-digits", "er", settings=SMALL, seed=1), Store(folder.parent), say=said.append)
    assert LATER in said[0]


def test_a_checksum_holds_all_bytes_of_an_archive() -> None:
    content = states.packed({"a": torch.arange(3)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"clsim sha256 ")
    assert torch.equal(torch.load(io.BytesIO(content), weights_only=True)["a"], torch.arange(3))


def test_what_stopped_a_run_has_a_checksum(copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    from clsim.spec.resolve import resolve

    spec = resolve("split-digits", "er", settings=SMALL, seed=1)
    folder = Store(copied("half done").parent).folder(spec)
    failure = folder.fail(spec, "no more", "clsim run")
    assert folder.failure() == failure
    path = folder.path / "error.json"
    path.write_text(path.read_text().replace("no more", "no less"))
    assert folder.failure() is None
    assert folder.audit() == ([], [f"error.json: {sealed.WRONG}; --fresh runs it again"])
    assert commands.clsim("runs", "show", folder.path.name, "--runs", str(folder.path.parent)) == 0
    assert sealed.WRONG in " ".join(capsys.readouterr().out.split())


def test_a_labelling_and_a_net_that_was_kept_have_one_too(tmp_path: Path) -> None:
    path = tmp_path / "labels.state.json"
    state = inquiry.Inquiry({"a.png": inquiry.Mark("0" * 8, 3, 5)})
    inquiry.save(path, state)
    assert inquiry.load(path) == state
    path.write_text(path.read_text().replace("00000000", "00000001"))
    with pytest.raises(InputError, match=f"is no state of a labelling .{sealed.WRONG}"):
        inquiry.load(path)
    net = tmp_path / "net.pt"
    content = states.packed({"body": {"w": torch.ones(3)}, "cost": {}})
    net.write_bytes(content)
    assert kept_nets.read(net) is not None
    net.write_bytes(content.replace(torch.ones(3).numpy().tobytes(), torch.zeros(3).numpy().tobytes()))
    assert kept_nets.read(net) is None  # it is trained again
