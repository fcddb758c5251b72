"""What is exported is what was chosen, as Hugging Face's library itself reads it; and what it reads becomes runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.cli import main
from clsim.data.cache import Dataset
from clsim.data.datasets import data_root, load
from clsim.errors import InputError
from clsim.records import sealed
from clsim.records.store import RunFolder
from clsim.spec.tables import DataSpec

hf = pytest.importorskip("datasets", reason="the extra hf is not installed")
hf.disable_progress_bars()

pytestmark = pytest.mark.usefixtures("workplace")


def command(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["clsim", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def digits() -> Dataset:
    return load(DataSpec("digits"), data_root(None))


def pixels(part: Any) -> np.ndarray:
    """Decode with the library's own decoder: uint8 (n, h, w) or (n, h, w, 3)."""
    return np.stack([np.asarray(image) for image in part["image"]])


@pytest.fixture
def picks(monkeypatch: pytest.MonkeyPatch) -> Any:
    return clsim.select("craig", dataset="digits", budget=12, epochs=1)


def test_picks_are_exported_as_they_were_chosen(picks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("picks.csv").write_text(picks.frame.to_csv(index=False))
    assert command("export", "picks.csv", "--dataset", "digits", "--out", "chosen", monkeypatch=monkeypatch) == 0
    assert clsim.export(picks, "same") == {"train": 12}
    source = digits()
    for folder in ("chosen", "same"):
        found = hf.load_from_disk(folder)
        assert found["index"][:] == picks.index.tolist()
        np.testing.assert_array_equal(pixels(found), source.train_x[picks.index, 0])
        assert found["label"][:] == source.train_y[picks.index].tolist()
        assert found.features["label"].names == list(source.classes)
        np.testing.assert_array_equal(np.float32(found["weight"][:]), picks.weight)


def test_picks_of_features_have_vectors() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save("x.npy", x)
    chosen = clsim.select("kcenter", features="x.npy", budget=7)
    Path("picks.csv").write_text(chosen.frame.to_csv(index=False))
    clsim.export("picks.csv", "of-file", features="x.npy")
    clsim.export(chosen, "of-picks")
    for folder in ("of-file", "of-picks"):
        found = hf.load_from_disk(folder)
        assert set(found.column_names) == {"vector", "index"}
        np.testing.assert_array_equal(np.float32(found["vector"][:]), x[chosen.index])


def test_a_condensed_set_is_a_data_set_of_the_same_arrays() -> None:
    made = clsim.condense("digits", "random", ipc=2, nets=0)
    made.write(Path("set.npz"))
    assert clsim.export("set.npz", "a") == clsim.export(made, "b") == {"train": 20, "test": len(digits().test_x)}
    root = data_root(None)
    npz = load(DataSpec("npz", "set.npz"), root)
    for folder in ("a", "b"):
        again = load(DataSpec("hf", folder), root)
        for name in ("train_x", "train_y", "test_x", "test_y"):
            np.testing.assert_array_equal(getattr(again, name), getattr(npz, name))
        assert again.classes == digits().classes


def test_the_memory_of_a_run_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    record = clsim.run("split-digits", buffer="herding", memory=30, settings={"training.epochs": 1})
    assert record.folder is not None
    assert command("export", record.folder.name[:8], "--out", "memory", monkeypatch=monkeypatch) == 0
    assert clsim.export(record, "again") == {"train": 30}
    source, found = digits(), hf.load_from_disk("memory")
    state = RunFolder(record.folder).checkpoint()
    assert state is not None
    held = state["memory"]["columns"]
    assert found["index"][:] == held["index"].tolist()
    np.testing.assert_array_equal(pixels(found), held["x"][:, 0].numpy())
    np.testing.assert_array_equal(pixels(found), source.train_x[found["index"][:], 0])
    assert found["label"][:] == source.train_y[found["index"][:]].tolist()
    assert set(found["task"][:]) == {0, 1, 2, 3, 4}
    assert hf.load_from_disk("again")["index"][:] == found["index"][:]


def test_mistakes_are_one_line(picks: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("picks.csv").write_text("index\n3\n1796\n")
    Path("odd.csv").write_text("row\n3\n")
    Path("twice.csv").write_text("index\n3\n3\n")
    Path("taken").mkdir()
    Path("taken", "mine.txt").write_text("kept")
    os.mkfifo("pipe.csv")
    for words, message in (
        (["picks.csv"], "picks.csv: found neither a data set and features, allowed: one"),
        (["picks.csv", "--dataset", "digits"], "picks.csv: found the row 1796, allowed: 0 to "),
        (["odd.csv", "--dataset", "digits"], "odd.csv: cannot be read as picks (no column 'index')"),
        (["twice.csv", "--dataset", "digits"], "cannot be read as picks (a row twice)"),
        (["pipe.csv", "--dataset", "digits"], "cannot be read as picks (no file, or a very large one)"),
        (["gone.npz"], "gone.npz: cannot be read as .npz"),
        (["nothing"], "--runs: no folder 'runs'"),
        (["picks.csv", "--features", "gone.npy"], "features: no file 'gone.npy'"),
    ):
        assert command("export", *words, "--out", "out", monkeypatch=monkeypatch) == 2
        said = capsys.readouterr().err
        assert message in said, said
        assert len(said.splitlines()) == 1
    for force in (False, True):
        with pytest.raises(InputError, match="'taken' is there already; allowed: another name, or --force"):
            clsim.export(picks, "taken", force=force)
    assert Path("taken", "mine.txt").read_text() == "kept"
    clsim.export(picks, "twice")
    with pytest.raises(InputError, match="is there already"):
        clsim.export(picks, "twice")
    clsim.export(picks, "twice", force=True)
    assert [path.name for path in Path().glob(".*partial*")] == []


def test_a_refused_write_leaves_nothing(picks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        Path(".out.partial").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hf.Dataset, "save_to_disk", refuse)
    with pytest.raises(InputError, match=r"out: cannot be written \(No space left on device\)"):
        clsim.export(picks, "out")
    assert not [*Path().glob("*out*")]


def test_records_are_exported_as_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    for seed, memory in ((0, 20), (1, "5%")):
        clsim.run("split-digits", buffer="random", memory=memory, seed=seed, settings={"training.epochs": 1})
    assert command("report", "--format", "parquet", monkeypatch=monkeypatch) == 0
    found = pyarrow.parquet.read_table("summary.parquet").to_pydict()
    records = clsim.Store(Path("runs")).records()[0]
    expected = {record.data["fingerprint"]: record for record in records}
    assert sorted(found["fingerprint"]) == sorted(expected)
    for row, fingerprint in enumerate(found["fingerprint"]):
        spec = expected[fingerprint].data["spec"]
        assert found["accuracy"][row] == expected[fingerprint].metrics["accuracy"]
        assert found["optimizer.lr"][row] == spec["optimizer"]["lr"]
        assert found["seed"][row] == spec["seed"]
        assert json.loads(found["data.augment"][row]) == spec["data"]["augment"]
    assert sorted(found["memory"]) == ["20", "5 %"]


def test_a_data_set_stays_until_another_one_stands_there(picks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clsim.export(picks, "out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if (Path(source).name, Path(target).name) == (".out.partial", "out"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match=r"out: cannot be replaced \(No space left on device\)"):
        clsim.export(picks, "out", force=True)
    monkeypatch.setattr(os, "replace", replace)
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    clsim.export(picks, "out", force=True)
    assert [path.name for path in Path().iterdir() if "out" in path.name] == ["out"]


def set_of(classes: Any) -> None:
    """Write set.npz: four samples of four classes."""
    np.savez("set.npz", x=np.zeros((4, 3), np.float32), y=np.arange(4), classes=np.array(classes))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "b", "c", "a"], "export: found 2 classes 'a', allowed: names of which no two are equal"),
        (["a", "b", "c", "\ud800"], "export: found the class '\\ud800', allowed: text without halves of characters"),
        ([0.5, 1.5, 2.5, 3.5], "set.npz: found 'classes' float64 of shape (4,), allowed: texts (n,)"),
        ([["a"], ["b"], ["c"], ["d"]], "set.npz: found 'classes' <U1 of shape (4, 1), allowed: texts (n,)"),
    ],
)
def test_classes_that_labels_cannot_have_are_refused(classes: Any, message: str) -> None:
    set_of(classes)
    with pytest.raises(InputError) as said:
        clsim.export("set.npz", "out")
    assert message in str(said.value)
    assert [path.name for path in Path().iterdir() if "out" in path.name] == []


@pytest.mark.parametrize("rows", ["index\n1_0\n", "index\n٣\n", "index\n-1\n", "index\n+1\n", "a,index\n1\n"])
def test_a_row_is_a_plain_number(rows: str) -> None:
    Path("picks.csv").write_text(rows)
    with pytest.raises(InputError, match=r"picks.csv: cannot be read as picks \(found the row "):
        clsim.export("picks.csv", "out", features=np.zeros((20, 2), np.float32))


@pytest.mark.parametrize("weight", ["nan", "inf", "1e39", "-1e400"])
def test_a_weight_is_finite(weight: str) -> None:
    Path("picks.csv").write_text(f"index,weight\n3,1.5\n4,{weight}\n")
    with pytest.raises(InputError, match="a weight that is no finite float32 number"):
        clsim.export("picks.csv", "out", features=np.zeros((20, 2), np.float32))


def test_what_is_replaced_is_a_data_set_and_nothing_else(picks: Any) -> None:
    clsim.export(picks, "mine")
    before = sorted(path.name for path in Path("mine").iterdir())
    Path("link").symlink_to("mine")
    for out, message in (
        ("link", "'link' is a link, allowed: the folder itself"),
        (".", "found '.', allowed: the name of a folder"),
        ("mine/..", "found 'mine/..', allowed: the name of a folder"),
        ("a::b", "found '::' in 'a::b', allowed: a path without it"),
    ):
        for force in (False, True):
            with pytest.raises(InputError) as said:
                clsim.export(picks, out, force=force)
            assert message in str(said.value)
    assert Path("link").is_symlink()
    assert sorted(path.name for path in Path("mine").iterdir()) == before
    for own in ("thesis.txt", "deep/er/state.json", "dataset_info.json.bak"):
        Path("mine", own).parent.mkdir(parents=True, exist_ok=True)
        Path("mine", own).write_text("kept")
        with pytest.raises(InputError, match=f"'mine' holds '{own}', which is no part of a data set"):
            clsim.export(picks, "mine", force=True)
        assert Path("mine", own).read_text() == "kept"
        Path("mine", own).unlink()
    Path(".mine.partial").write_text("kept")
    with pytest.raises(InputError, match=r"'\.mine\.partial' is in the way"):
        clsim.export(picks, "mine", force=True)
    assert Path(".mine.partial").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("y", lambda t: t.new_zeros(())),
        ("y", lambda t: t[None]),
        ("y", lambda t: t.double()),
        ("x", lambda t: t.to(torch.complex64)),
        ("x", lambda t: t[..., :0]),
        ("weight", lambda t: torch.ones(30, dtype=torch.complex64)),
        ("index", lambda t: t.bool()),
        ("task", lambda t: t[:-1]),
        ("mass", lambda t: [1.0] * 30),
    ],
)
def test_a_memory_of_other_columns_is_refused(name: str, change: Any) -> None:
    record = clsim.run("split-digits", buffer="herding", memory=30, settings={"training.epochs": 1})
    assert record.folder is not None
    file = record.folder / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    columns = state["memory"]["columns"]
    for memory in ({**columns, name: change(columns.get(name))}, [columns]):
        torch.save({**state, "memory": {**state["memory"], "columns": memory}}, file)
        file.write_bytes(sealed.sealed_archive(file.read_bytes()))
        with pytest.raises(InputError, match="its memory holds anything but samples and labels"):
            clsim.export(record, "out")
