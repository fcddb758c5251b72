"""``memory.start``: a set in a file is what a memory holds before the first experience."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.data import datasets, tiles
from clsim.errors import InputError
from clsim.execution.condense import condense
from clsim.pool.pool import Cost
from clsim.records.store import Store
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.streams import build
from clsim.streams.stream import Stream
from clsim.training import contract
from clsim.training.assemble import assemble
from clsim.training.progress import Quiet
from tests.commands import refused
from tests.helpers import assert_same

CPU = torch.device("cpu")
DIGITS = tuple(map(str, range(10)))


@pytest.fixture(autouse=True)
def _set(workplace: Path) -> None:
    write()


def arrays(each: int = 2, **changes: Any) -> dict[str, Any]:
    """Images whose first pixel is their label; ``None`` leaves an array out."""
    y = np.tile(np.arange(10), each)
    x = np.random.default_rng(0).integers(0, 256, (len(y), 1, 8, 8), dtype=np.uint8)
    x[:, 0, 0, 0] = y
    made = {"x_train": x, "y_train": y, "classes": np.array(DIGITS), **changes}
    return {name: array for name, array in made.items() if array is not None}


def write(name: str = "set.npz", **changes: Any) -> None:
    np.savez(name, **arrays(**changes))


def spec_of(*settings: str, scenario: str = "split-digits", start: str = "set.npz", strategy: str = "er") -> RunSpec:
    plan = [f"memory.start={start}", "memory.capacity=40", "data.per_class=20", *settings]
    return resolve(scenario, strategy, settings=plan, flags={"memory": {"buffer": "herding"}})


def stream_of(spec: RunSpec) -> Stream:
    Path("data").mkdir(exist_ok=True)
    return build.build(datasets.load(spec.data, Path("data")), spec.stream, spec.seed, CPU)


def begun(*settings: str, **how: Any) -> tuple[contract.Setup, Stream]:
    spec = spec_of(*settings, **how)
    stream = stream_of(spec)
    return assemble(spec, stream, Cost())[0], stream


@pytest.mark.parametrize("order", ["fixed", "seeded"])
@pytest.mark.parametrize("setting", ["class", "task", "domain"])
def test_each_exemplar_is_of_the_experience_that_brings_its_class(order: str, setting: str) -> None:
    setup, stream = begun(f"stream.order={order}", f"stream.setting={setting}")
    held = setup.memory.stored
    assert np.array_equal(held.x, arrays()["x_train"])
    original = stream.source.train_y
    for x, task, y in zip(held.x, held.task.tolist(), held.y.tolist(), strict=True):
        train = stream.experience(task).train
        digits = {int(original[row]) for row in train.index[train.y == y].tolist()}
        assert digits == {int(x[0, 0, 0])}
    assert (held.index < 0).all()
    assert len(held.index.unique()) == 20


def test_a_set_of_some_classes_is_known_by_their_names() -> None:
    write("some.npz", y_train=np.arange(20) % 2, classes=np.array(["7", "3"]))
    setup, _ = begun(start="some.npz")
    assert setup.memory.stored.y.tolist() == [7, 3] * 10
    assert setup.memory.stored.task.tolist() == [3, 1] * 10


def test_where_classes_come_back_they_are_of_the_first_experience() -> None:
    setup, _ = begun("stream.kind=rotated", "stream.setting=domain")
    assert setup.memory.stored.task.unique().tolist() == [0]


def test_it_is_replayed_from_the_first_batch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    record = clsim.run("split-digits", buffer="herding", memory=20, settings=["memory.start=set.npz"])
    assert record.losses["memory"].notna().all()
    assert record.data["cost"][0]["memory_bytes"] == 20 * 64
    assert [name for name, _ in record.data["spec"]["sources"]] == ["set.npz"]


def test_a_condenser_makes_only_the_classes_that_it_does_not_hold() -> None:
    x, y = arrays(each=4)["x_train"], arrays(each=4)["y_train"]
    write("some.npz", x_train=x[y < 3], y_train=y[y < 3])
    settings = ["memory.start=some.npz", "data.per_class=20", "memory.options.iterations=1"]
    record = clsim.run("split-digits", "er", buffer="dm", memory=60, settings=settings)
    held = torch.load(record.folder / "checkpoint.pt", weights_only=True)["memory"]["columns"]
    assert held["y"].bincount()[:3].tolist() == [4] * 3
    assert held["y"].bincount().sum() == 60
    for label in range(3):
        assert np.array_equal(held["x"][held["y"] == label], x[y == label])


def test_classes_of_the_set_count_as_seen_where_capacity_counts_classes() -> None:
    settings = ["memory.start=set.npz", "data.per_class=20", "memory.per=class"]
    record = clsim.run("split-digits", "er", buffer="herding", memory=2, settings=settings)
    assert [c["memory_bytes"] for c in record.data["cost"]] == [20 * 64] * 5
    setup, stream = begun("memory.per=task", "memory.capacity=4", "stream.order=seeded")
    assert setup.memory.known == {0, 1, 2, 3, 4}
    assert stream.shares(1, "task", setup.memory.known) == 5
    assert stream.shares(1, "class", {9}) == len({*stream.classes[0], *stream.classes[1], 9})


def test_tiles_are_stored_as_tiles_and_elsewhere_as_what_they_decode_to() -> None:
    stored = arrays()["x_train"]
    shown = tiles.apart(torch.from_numpy(stored), 2).numpy()
    write("tiles.npz", x_train=shown, y_train=np.tile(np.arange(10), 2).repeat(4), x_stored=stored, factor=np.array(2))
    idc = resolve(
        "split-digits",
        "er",
        settings=["memory.start=tiles.npz"],
        flags={"memory": {"buffer": "idc", "capacity": 20}},
    )
    memory = assemble(idc, stream_of(idc), Cost())[0].memory
    assert np.array_equal(memory.stored.x, stored)
    assert np.array_equal(memory.exemplars.x, shown)
    assert memory.stored.y.tolist() == memory.exemplars.y[::4].tolist() == list(range(10)) * 2
    setup, _ = begun("memory.capacity=80", start="tiles.npz")
    assert np.array_equal(setup.memory.stored.x, shown)


@pytest.mark.parametrize("method", ["dm", "idc"])
def test_a_set_that_was_condensed_is_a_start(method: str) -> None:
    options = {"iterations": 1} | ({"steps": 1, "samples": 0} if method == "idc" else {})
    made = condense("digits", method, ipc=2, per_class=10, options=options, nets=0, threads=1)
    made.write(Path("made.npz"))
    spec = resolve(
        "split-digits", "er", settings=["memory.start=made.npz"], flags={"memory": {"buffer": method, "capacity": 20}}
    )
    held = assemble(spec, stream_of(spec), Cost())[0].memory.stored
    assert torch.equal(held.x, made.exemplars.x)
    assert torch.equal(held.y, made.exemplars.y)


class Stops(Quiet):
    """Ends the run after an experience, as a kill would."""

    def row(self, position: int, accuracies: Any) -> None:
        if position == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("buffer", ["herding", "reservoir", "dm"])
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(buffer: str) -> None:
    settings = ["memory.start=set.npz", "data.per_class=20"]
    settings += ["memory.options.iterations=1"] if buffer == "dm" else []
    how: dict[str, Any] = {"buffer": buffer, "memory": 25, "settings": settings}
    with pytest.raises(KeyboardInterrupt):
        clsim.run("split-digits", runs="stopped", progress=Stops(), **how)
    whole, stopped = (clsim.run("split-digits", runs=folder, **how) for folder in ("whole", "stopped"))
    assert whole.accuracy.equals(stopped.accuracy)
    states = [torch.load(r.folder / "checkpoint.pt", weights_only=True) for r in (whole, stopped)]
    assert_same(states[0]["memory"], states[1]["memory"])


def test_another_file_is_another_run_and_one_that_changed_meanwhile_is_refused() -> None:
    before = spec_of()
    stream = stream_of(before)
    plain = resolve("split-digits", "er", settings=["memory.capacity=40"], flags={"memory": {"buffer": "herding"}})
    assert "start" not in plain.as_dict()["memory"]
    write(each=1)
    after = spec_of()
    assert len({before.fingerprint, after.fingerprint, plain.fingerprint}) == 3
    with pytest.raises(InputError, match="it has changed since this run was planned"):
        assemble(before, stream, Cost())
    assert len(assemble(after, stream, Cost())[0].memory) == 10
    Path("set.npz").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        assemble(after, stream, Cost())


def test_separated_softmaxes_have_a_side_for_classes_to_come() -> None:
    settings = ["memory.start=set.npz", "data.per_class=20"]
    record = clsim.run("split-digits", "ss-il", memory=20, settings=settings)
    assert np.isfinite(record.losses[["new", "memory"]]).all().all()


X = np.zeros((10, 1, 8, 8), dtype=np.uint8)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"x_train": None}, "no array 'x_train'"),
    "no labels": ({"y_train": None}, "no array 'y_train'"),
    "objects": ({"x_train": np.array([{}], dtype=object)}, "cannot be read as .npz (Object arrays"),
    "nothing": ({"x_train": X[:0], "y_train": np.arange(0)}, "x_train is empty"),
    "larger images": ({"x_train": np.zeros((20, 1, 9, 9), dtype=np.uint8)}, "of shape (1, 9, 9) each, allowed:"),
    "colours": ({"x_train": np.zeros((20, 3, 8, 8), dtype=np.uint8)}, "allowed: torch.uint8 of shape (1, 8, 8)"),
    "vectors": ({"x_train": np.zeros((20, 64), dtype=np.float32)}, "found torch.float32 of shape (64,) each"),
    "NaN": ({"x_train": np.full((20, 64), np.nan)}, "NaN or infinite"),
    "floats as images": ({"x_train": np.zeros((20, 1, 8, 8))}, "type float64"),
    "too few labels": ({"y_train": np.arange(10)}, "20 samples and 10 labels"),
    "a label too many": ({"y_train": np.arange(1, 21)}, "y_train has labels from 1 to 20, allowed: 0 to 9"),
    "no label": ({"y_train": np.full(20, -1)}, "labels from -1 to -1"),
    "labels in words": ({"y_train": np.array(DIGITS * 2)}, "allowed: whole numbers"),
    "other classes": ({"classes": np.array(["cat"] * 10)}, "found class 'cat'; allowed: 0, 1, 2"),
    "fewer classes": ({"classes": np.array(DIGITS[:4])}, "y_train has labels from 0 to 9, allowed: 0 to 3"),
    "more than it holds": ({"each": 5}, "found 50 exemplars with a memory of 40, allowed: 40 at most"),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_set_that_does_not_fit_is_one_line(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes, message = WRONG[how]
    write("wrong.npz", **changes)
    words = ["run", "--memory", "40", "--buffer", "herding", "--set", "memory.start=wrong.npz"]
    line = refused(capsys, *words, "--set", "data.per_class=20")
    assert "memory.start" in line
    assert message in line


STORED = {"x_stored": X, "factor": np.array(2), "x_train": X.repeat(4, 0), "y_train": np.arange(10).repeat(4)}
WRONG_TILES: dict[str, tuple[dict[str, Any], str]] = {
    "plain images": ({"x_stored": None}, "no x_stored with 2 × 2 small images in each"),
    "another factor": ({"factor": np.array(4)}, "no x_stored with 2 × 2"),
    "a factor that is no number": ({"factor": np.array(["2"])}, "no x_stored with 2 × 2"),
    "too few": ({"x_stored": X[:9]}, "x_stored has shape (9, 1, 8, 8), allowed: (10, 1, 8, 8)"),
    "another size": ({"x_stored": np.zeros((10, 1, 4, 4), dtype=np.uint8)}, "allowed: (10, 1, 8, 8)"),
    "two classes in one": ({"y_train": np.arange(40) % 10}, "y_train differs within an image of x_stored"),
}


@pytest.mark.parametrize("how", WRONG_TILES)
def test_tiles_that_do_not_fit_are_one_line(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes, message = WRONG_TILES[how]
    write("wrong.npz", **(STORED | changes))
    words = ["run", "--memory", "40", "--buffer", "idc", "--set", "memory.start=wrong.npz"]
    assert message in refused(capsys, *words, "--set", "data.per_class=20")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--buffer", "herding", "--set", "memory.start=none.npz"], "no file 'none.npz'; allowed: an .npz"),
        (["--strategy", "finetune", "--set", "memory.start=set.npz"], "allowed: a memory with a capacity"),
        (["--memory", "5%", "--set", "memory.start=set.npz"], "found 'set.npz' with memory.fraction"),
        (["--buffer", "herding", "--set", "memory.start=text.npz"], "cannot be read as .npz"),
        (["--buffer", "herding", "--set", "memory.start=3"], "[memory] start: found 3, allowed: text"),
        (["--buffer", "herding", "--set", "memory.strat=set.npz"], "did you mean 'start'?"),
    ],
)
def test_a_wrong_start_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.npz").write_text("not an archive")
    assert message in refused(capsys, "run", *words)


def test_a_benchmark_has_no_classes_to_count(tmp_path: Path) -> None:
    spec = spec_of()
    stream = stream_of(spec)
    stream.source = None
    with pytest.raises(InputError, match="found with a benchmark"):
        assemble(spec, stream, Cost())
    assert Store(tmp_path).records() == ([], [])
