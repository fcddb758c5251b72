"""Divisions that are kept: Avalanche's own, for every shipped scenario; and no file, whatever it holds, changes one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.compat import import_torchvision
from clsim.data import datasets, superclasses
from clsim.data.cache import Dataset
from clsim.errors import InputError
from clsim.randomness import generator
from clsim.spec import registry
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.spec.tables import StreamSpec
from clsim.streams import division
from clsim.streams.build import build
from clsim.streams.stream import Stream

CPU = torch.device("cpu")
COUNTS = {"cifar100": 100, "tiny-imagenet": 200}
"""Data set -> its number of classes, if it is not ten."""
SCENARIOS = sorted(registry.file_names("scenarios"))


def spec_of(scenario: str, folder: Path) -> RunSpec:
    settings = []
    if scenario == "active-embeddings":  # whose data is the user's own
        np.savez(folder / "own.npz", x_train=np.eye(4, dtype=np.float32), y_train=np.arange(4))
        settings = [f"data.path={folder / 'own.npz'}"]
    return resolve(scenario, "er", settings=settings, seed=3)


def made(spec: RunSpec, per_class: int = 12) -> Dataset:
    """A data set with as many classes, of uneven sizes, in no order; its images are a single pixel."""
    groups = tuple(COUNTS.get(name, 10) for name in spec.data.sequence)
    classes = sum(groups) or COUNTS.get(spec.data.dataset, 10)
    rng = np.random.default_rng(0)
    y = [rng.permutation(np.repeat(np.arange(classes), rng.integers(1, n, classes))) for n in (per_class, per_class)]
    x = [np.zeros((len(labels), 1, 1, 1), dtype=np.uint8) for labels in y]
    names = tuple(name for members in superclasses.CIFAR100.values() for name in members)
    names = tuple(sorted(names)) if classes == 100 else tuple(f"class {i}" for i in range(classes))
    return Dataset("made", x[0], y[0], x[1], y[1], names, (0.0,), (1.0,), groups)


def avalanches(data: Dataset, spec: StreamSpec, seed: int) -> Any:
    """The benchmark as Avalanche makes it, called as its documentation says."""
    import_torchvision()
    from avalanche.benchmarks import nc_benchmark
    from torch.utils.data import TensorDataset

    sides = []
    for y in (data.train_y, data.test_y):
        samples = TensorDataset(torch.zeros(len(y)), torch.tensor(y))
        samples.targets = y.tolist()  # type: ignore[attr-defined]
        sides.append(samples)
    order = list(range(len(data.classes)))
    if spec.order == "seeded":
        order = torch.randperm(len(order), generator=generator(seed, "class order")).tolist()
    elif spec.order == "superclass":
        order = superclasses.order(data.classes)
    sizes = data.groups if spec.kind == "sequence" else spec.sizes or [spec.first] * bool(spec.first)
    return nc_benchmark(
        *sides,
        n_experiences=spec.experiences,
        task_labels=spec.setting == "task",
        shuffle=False,
        fixed_class_order=order,
        per_exp_classes=dict(enumerate(sizes)) or None,
    )


def rows(stream: Stream) -> tuple[list[list[int]], list[int]]:
    """The rows of each experience, in their order, and those of the test part."""
    return [stream.experience(i).train.index.tolist() for i in range(len(stream))], stream.tests.index.tolist()


def held(data: Dataset, spec: StreamSpec, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the first division, and the one read from what it kept, against Avalanche's."""
    spec = replace(spec, validation=0.0, tasks="given", difficulty="", presentation="separate")
    theirs = avalanches(data, spec, 3)
    train = [list(map(int, rows)) for rows in theirs.train_exps_patterns_assignment]
    test = [int(row) for rows in theirs.test_exps_patterns_assignment for row in rows]
    first = build(data, spec, 3, CPU, divisions=folder)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "avalanche.benchmarks", None)  # its import fails
        again = build(data, spec, 3, CPU, divisions=folder)
    for stream in (first, again):
        assert rows(stream) == (train, test)
        if spec.setting != "domain":  # where labels are counted anew
            assert list(map(set, stream.classes)) == list(map(set, theirs.original_classes_in_exp))
        for i, experience in enumerate(theirs.train_stream):
            assert sorted(experience.dataset.targets) == sorted(data.train_y[train[i]].tolist())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kept_division_is_avalanches(scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many classes as the scenario's data has, and few samples, since Avalanche reads them one by one."""
    spec = spec_of(scenario, tmp_path)
    data, folder = made(spec), tmp_path / "divisions"
    if spec.stream.kind in ("permuted", "rotated"):  # all classes in each experience: nothing is divided
        stream = build(data, spec.stream, 3, CPU, divisions=folder)
        assert all(len(stream.experience(i).train) == len(data.train_y) for i in range(len(stream)))
        assert not folder.exists()
        return
    held(data, spec.stream, folder, monkeypatch)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kept_division_of_the_real_data_is_avalanches(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(scenario, tmp_path)
    if spec.stream.kind in ("permuted", "rotated"):
        pytest.skip("all classes are in each experience: nothing is divided")
    try:
        data = datasets.load(spec.data, datasets.data_root(None), progress=False, download=False)
    except InputError as error:
        pytest.skip(str(error))
    small = {
        side: np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (len(y), 1, 1, 1))  # the labels are what counts
        for side, y in (("train_x", data.train_y), ("test_x", data.test_y))
    }
    held(replace(data, **small), spec.stream, tmp_path / "divisions", monkeypatch)


SPEC = StreamSpec(experiences=3, setting="class")


def six() -> Dataset:
    rng = np.random.default_rng(1)
    y = rng.permutation(np.repeat(np.arange(6), 5))
    x = np.zeros((len(y), 1, 1, 1), dtype=np.uint8)
    return Dataset("six", x, y, x, y, tuple("abcdef"), (0.0,), (1.0,))


def divided(folder: Path, data: Dataset | None = None) -> tuple[list[list[int]], list[int]]:
    return rows(build(data or six(), SPEC, 0, CPU, divisions=folder))


Arrays = dict[str, np.ndarray]


def rewritten(path: Path, change: Callable[[Arrays, dict[str, Any]], None]) -> None:
    """Write the file with other content and a checksum that fits it, as somebody would who means harm."""
    with np.load(path, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    about = json.loads(held.pop("about").tobytes())
    change(held, about)
    digest = hashlib.sha256(b"".join(held[name].tobytes() for name in ("homes", "train", "test") if name in held))
    about["digest"] = digest.hexdigest()
    np.savez(path, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **held)


def put(name: str, place: int, value: int) -> Callable[[Arrays, dict[str, Any]], None]:
    def change(arrays: Arrays, about: dict[str, Any]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][place] = value

    return change


def as_type(name: str, kind: Any) -> Callable[[Arrays, dict[str, Any]], None]:
    return lambda arrays, about: arrays.update({name: arrays[name].astype(kind)})


def other_classes(arrays: Arrays) -> None:
    """The first and the last experience change places, with all their samples."""
    for side in ("train", "test"):
        arrays[side] = np.concatenate(np.split(arrays[side], 3)[::-1])
    arrays["homes"] = 2 - arrays["homes"]


HOSTILE: dict[str, Callable[[Arrays, dict[str, Any]], None]] = {
    "a row beyond the last": put("train", 0, 30),
    "a row far beyond the last": put("train", 0, 2**62),
    "a row below the first": put("test", 3, -1),
    "a row twice": lambda arrays, about: put("train", 0, int(arrays["train"][1]))(arrays, about),
    "a row in another experience": lambda arrays, about: arrays.update(train=arrays["train"][::-1].copy()),
    "an experience beyond the last": put("homes", 0, 10**9),
    "an experience below the first": put("homes", 0, -1),
    "an experience without a class": lambda arrays, about: arrays.update(homes=arrays["homes"] * 2),
    "fewer experiences": lambda arrays, about: arrays.update(homes=np.minimum(arrays["homes"], 1)),
    "other classes": lambda arrays, about: other_classes(arrays),
    "rows that are missing": lambda arrays, about: arrays.update(train=arrays["train"][:-1]),
    "rows too many": lambda arrays, about: arrays.update(test=np.append(arrays["test"], 0)),
    "floats": as_type("train", np.float64),
    "narrow integers": as_type("train", np.int8),
    "one column": lambda arrays, about: arrays.update(test=arrays["test"][:, None]),
    "text": as_type("test", str),
    "no rows": lambda arrays, about: arrays.update(train=np.empty(0, dtype=np.int64)),
    "no array of rows": lambda arrays, about: arrays.__delitem__("train"),
    "another version of Avalanche": lambda arrays, about: about.update(avalanche="0.5.0"),
    "another format": lambda arrays, about: about.update(format=0),
    "other settings": lambda arrays, about: about.update(experiences=2),
    "another order": lambda arrays, about: about.update(order=[5, 4, 3, 2, 1, 0]),
    "other labels": lambda arrays, about: about.update(labels=["", ""]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_division_that_is_stale_or_hostile_is_made_anew(name: str, tmp_path: Path) -> None:
    found = divided(tmp_path)
    (path,) = tmp_path.iterdir()
    before = content(path)
    rewritten(path, HOSTILE[name])
    assert divided(tmp_path) == found
    assert [path] == list(tmp_path.iterdir())
    assert content(path) == before


def content(path: Path) -> dict[str, bytes]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files}


def pickled(path: Path) -> None:
    np.savez(path, about=np.array([{}], dtype=object), homes=np.array([None], dtype=object))


DAMAGED: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "cut to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no archive": lambda path: path.write_bytes(b"rows: 1, 2, 3"),
    "a single array": lambda path: path.write_bytes(npy()),
    "pickled objects": pickled,
}


def npy() -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_division_is_made_anew(name: str, tmp_path: Path) -> None:
    found = divided(tmp_path)
    (path,) = tmp_path.iterdir()
    before = content(path)
    DAMAGED[name](path)
    assert divided(tmp_path) == found
    assert content(path) == before


def test_any_byte_that_is_changed_leaves_the_division_as_it_is(tmp_path: Path) -> None:
    """Either the file is refused, or the byte is one that decides nothing."""
    data, found = six(), divided(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
    del about["digest"]
    assert division.read(path, data, about) is not None
    refused = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        read = division.read(path, data, about)
        refused += read is None
        if read is not None:
            assert [part.tolist() for part in read.parted(read.train, data.train_y)] == found[0]
    assert refused > len(whole) // 7 // 2


def test_other_labels_or_settings_have_a_division_of_their_own(tmp_path: Path) -> None:
    data = six()
    moved = replace(data, train_y=np.roll(data.train_y, 1))
    assert divided(tmp_path, data) != divided(tmp_path, moved)
    assert len(list(tmp_path.iterdir())) == 2
    build(data, replace(SPEC, experiences=2), 0, CPU, divisions=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    build(data, replace(SPEC, setting="task"), 0, CPU, divisions=tmp_path)  # which divides alike
    assert len(list(tmp_path.iterdir())) == 3
    build(data, replace(SPEC, order="seeded"), 1, CPU, divisions=tmp_path)
    build(data, replace(SPEC, order="seeded"), 2, CPU, divisions=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    found = divided(tmp_path / "kept")
    (tmp_path / "file").touch()
    assert divided(tmp_path / "file") == divided(tmp_path / "file" / "deeper") == found
    (path,) = (tmp_path / "kept").iterdir()
    path.unlink()
    path.mkdir()  # a folder where the file should be
    assert divided(tmp_path / "kept") == found


def test_a_run_goes_on_where_the_division_cannot_be_kept(tmp_path: Path) -> None:
    runs, root = tmp_path / "runs", tmp_path / "data"
    (root / "clsim-cache").mkdir(parents=True)
    (root / "clsim-cache" / "divisions").touch()
    first = clsim.run("split-digits", "finetune", data_root=root, runs=runs)
    (root / "clsim-cache" / "divisions").unlink()
    for _ in range(2):  # one that keeps it, one that reads it
        again = clsim.run("split-digits", "finetune", data_root=root, runs=runs, fresh=True)
        assert again.data["accuracy"] == first.data["accuracy"]
        assert len(list((root / "clsim-cache" / "divisions").iterdir())) == 1


def test_several_at_once_keep_one_division(tmp_path: Path) -> None:
    found = divided(tmp_path / "alone")
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda i: divided(tmp_path / "together"), range(8)))
    assert at_once == [found] * 8
    (path,) = (tmp_path / "together").iterdir()
    assert content(path) == content(next((tmp_path / "alone").iterdir()))


@pytest.mark.slow
def test_two_processes_at_once_keep_one_division(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.streams.test_divisions import divided; "
        "print(divided(Path(sys.argv[1])))"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    place = Path(clsim.__file__).parent.parent
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=place) for _ in range(2)]
    said = [process.communicate()[0].strip() for process in both]
    assert said == [str(divided(tmp_path))] * 2
    assert len(list(tmp_path.iterdir())) == 1
