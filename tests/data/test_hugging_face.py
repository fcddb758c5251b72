"""Data sets of the Hugging Face library: what is read is what was saved, and hostile ones are one line."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clsim.data import hugging_face
from clsim.data.datasets import load
from clsim.errors import InputError
from clsim.spec.resolve import resolve
from clsim.spec.sources import data_digest
from clsim.spec.tables import DataSpec

hf = pytest.importorskip("datasets", reason="the extra hf is not installed")

NAMES = ("cat", "dog", "eel")


def drawn(n: int, seed: int = 0, mode: str = "L", size: tuple[int, int] = (6, 5)) -> list[Image.Image]:
    """Draw pictures, each of another noise."""
    rng = np.random.default_rng(seed)
    high, wide = size
    x = rng.integers(0, 256, (n, high, wide, *([3] if mode == "RGB" else [])), dtype=np.uint8)
    return [Image.fromarray(one) for one in x]


def made(pictures: Iterable[Any], **more: Any) -> Any:
    """Make a data set of pictures with the labels 0, 1, 2, 0 …"""
    pictures = list(pictures)
    kinds = {"image": hf.Image(), "label": hf.ClassLabel(names=list(NAMES))}
    columns = {"image": pictures, "label": [i % 3 for i in range(len(pictures))]}
    features = hf.Features(kinds | {name: kind for name, (kind, _) in more.items()})
    return hf.Dataset.from_dict(columns | {name: values for name, (_, values) in more.items()}, features=features)


def save(data: Any, folder: Path) -> DataSpec:
    hf.disable_progress_bars()
    (hf.DatasetDict(data) if isinstance(data, dict) else data).save_to_disk(str(folder))
    return DataSpec("hf", str(folder))


@pytest.fixture
def divided(tmp_path: Path) -> DataSpec:
    """Twelve training and six test pictures, grey and not square, beside a column of vectors and one of texts."""
    vectors = [[float(i), 0.5] for i in range(12)]
    more = {"v": (hf.List(hf.Value("float32")), vectors), "word": (hf.Value("string"), ["x", "y"] * 6)}
    test = {name: (kind, values[:6]) for name, (kind, values) in more.items()}
    return save({"train": made(drawn(12), **more), "test": made(drawn(6, 1), **test)}, tmp_path / "divided")


def test_pictures_and_labels_are_those_that_were_saved(tmp_path: Path, divided: DataSpec) -> None:
    found = load(divided, tmp_path)
    assert (found.train_x.shape, found.test_x.shape, found.classes) == ((12, 1, 6, 5), (6, 1, 6, 5), NAMES)
    np.testing.assert_array_equal(found.train_x[:, 0], np.stack([np.asarray(one) for one in drawn(12)]))
    np.testing.assert_array_equal(found.test_x[:, 0], np.stack([np.asarray(one) for one in drawn(6, 1)]))
    assert found.train_y.tolist() == [0, 1, 2] * 4


def test_without_a_test_part_every_fifth_of_a_class_is_held_out(tmp_path: Path) -> None:
    x = np.stack([np.asarray(one) for one in drawn(30, mode="RGB")])
    found = load(save(made(drawn(30, mode="RGB")), tmp_path / "whole"), tmp_path)
    held = [12, 13, 14, 27, 28, 29]
    np.testing.assert_array_equal(found.test_x, x[held].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(found.train_x, np.delete(x, held, 0).transpose(0, 3, 1, 2))


def test_a_size_makes_the_pictures_of_a_folder(tmp_path: Path) -> None:
    """The reader of folders is a second implementation, once both have pictures of three channels."""
    pictures = [*drawn(5, mode="RGB", size=(12, 9)), *drawn(5, 1, mode="RGB", size=(7, 20)), *drawn(2, 2)]
    for i, one in enumerate(pictures):
        for part in ("train", "test"):
            place = tmp_path / "folder" / part / NAMES[i % 3] / f"{i:02d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            one.save(place)
    saved = save({"train": made(pictures), "test": made(pictures)}, tmp_path / "saved")
    found = load(DataSpec("hf", saved.path, size=8), tmp_path)
    other = load(DataSpec("image-folder", str(tmp_path / "folder"), size=8), tmp_path)
    order = np.argsort(found.train_y, kind="stable")  # a folder goes class by class
    np.testing.assert_array_equal(found.train_x[order], other.train_x)
    np.testing.assert_array_equal(found.train_y[order], other.train_y)
    with pytest.raises(InputError, match=r"data\.size: found 0 with pictures of several sizes \(7 × 20 in row 5 of "):
        load(saved, tmp_path)


def test_a_turned_photograph_stands_upright(tmp_path: Path) -> None:
    pictures, turned = drawn(6, size=(4, 6)), Image.Exif()
    turned[0x0112] = 6  # to be shown a quarter turn clockwise
    held = io.BytesIO()
    drawn(1, 9, size=(6, 4))[0].save(held, "PNG", exif=turned)
    found = load(save(made([*pictures, {"bytes": held.getvalue(), "path": None}] * 5), tmp_path / "turned"), tmp_path)
    upright = np.rot90(np.asarray(drawn(1, 9, size=(6, 4))[0]), -1)
    assert found.train_x.shape[1:] == (1, 4, 6)
    assert (found.train_x[6, 0] == upright).all()


def test_columns_splits_and_labels_of_other_types(tmp_path: Path, divided: DataSpec) -> None:
    def of(**keys: Any) -> Any:
        return load(DataSpec("hf", divided.path, **keys), tmp_path)

    vectors = of(columns=("v", "word"))
    assert (vectors.train_x.dtype, vectors.train_x.tolist()[3], vectors.classes) == (np.float32, [3.0, 0.5], ("x", "y"))
    swapped = of(splits=("test", "train"))
    assert (len(swapped.train_x), len(swapped.test_x)) == (6, 12)
    numbers = made(drawn(15)).remove_columns("label").add_column("labels", [30, 4, 7] * 5)
    found = load(save(numbers, tmp_path / "numbers"), tmp_path)
    assert (found.classes, found.train_y.tolist()) == (("4", "7", "30"), [2, 0, 1] * 4)


def test_another_content_or_key_is_another_cache(tmp_path: Path, divided: DataSpec) -> None:
    before, first = data_digest(divided), load(divided, tmp_path)
    os.utime(Path(divided.path, "train", "state.json"), ns=(1, 1))
    assert data_digest(divided) != before
    swapped = load(DataSpec("hf", divided.path, splits=("test", "train")), tmp_path)
    assert (swapped.train_x == first.test_x).all()
    assert (load(divided, tmp_path).train_x == first.train_x).all()
    assert len([*tmp_path.glob("clsim-cache/hf-*")]) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"splits": ("trian", "test")}, r"data\.splits: found 'trian' with .*; did you mean 'train'\?"),
        ({"columns": ("imgae", "label")}, r"data\.columns: found 'imgae' with .*; did you mean 'image'\?"),
        ({"columns": ("word", "label")}, r"column 'word': has type .*, allowed: Image, or lists of floats"),
        ({"columns": ("image", "v")}, r"column 'v': has type .*, allowed: ClassLabel, or whole numbers or texts"),
    ],
)
def test_mistakes(tmp_path: Path, divided: DataSpec, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(DataSpec("hf", divided.path, **keys), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"dataset": "digits", "splits": ("train",)},
            r"data\.splits: found \['train'\] with digits, allowed: with hf:",
        ),
        ({"dataset": "hf", "path": "x", "config": "y"}, r"data\.config: found 'y' with hf, allowed: with hf:NAME$"),
        ({"dataset": "hf:a/b", "splits": ("x", "x")}, r"data\.splits: found \['x', 'x'\], allowed: one name, or two"),
        ({"dataset": "hf:a/b", "columns": ("x",)}, r"data\.columns: found \['x'\], allowed: two names"),
    ],
)
def test_keys_that_do_not_fit(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DataSpec(**keys)


def test_ambiguous_data_sets_say_which_key_settles_it(tmp_path: Path) -> None:
    fine = hf.ClassLabel(names=["p", "q"])
    two = made(drawn(15), fine=(fine, [0, 1, 0] * 5))
    with pytest.raises(
        InputError, match=r"2 columns of labels \(ClassLabel\) \(label, fine\), allowed: one, the second"
    ):
        load(save(two, tmp_path / "two"), tmp_path)
    parts = {"one": made(drawn(6)), "two": made(drawn(6))}
    with pytest.raises(InputError, match=r"found the splits one, two, allowed: two of them, named by data\.splits"):
        load(save(parts, tmp_path / "odd"), tmp_path)
    hidden = made(drawn(6)).remove_columns("label").add_column("label", [-1] * 6)
    hidden = hidden.cast_column("label", hf.ClassLabel(names=list(NAMES)))
    with pytest.raises(InputError, match=r"found samples without a label, allowed: a label for each; see data\.splits"):
        load(save({"train": made(drawn(6)), "test": hidden}, tmp_path / "hidden"), tmp_path)


# --- somebody else's folder ---------------------------------------------------------------------------------------


def rewritten(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    held = json.loads(file.read_text())
    change(held)
    file.write_text(json.dumps(held))


def stored_as(folder: Path, rows: list[Mapping[str, Any]]) -> DataSpec:
    """Save pictures as they are given, without what the library does when it saves them."""
    kind = {"bytes": hf.Value("binary"), "path": hf.Value("string")}
    features = hf.Features({"image": kind, "label": hf.ClassLabel(names=list(NAMES))})
    columns = {"image": rows, "label": [i % 3 for i in range(len(rows))]}
    spec = save(hf.Dataset.from_dict(columns, features=features), folder)

    def as_pictures(held: dict[str, Any]) -> None:
        held["features"]["image"] = {"_type": "Image"}

    rewritten(folder / "dataset_info.json", as_pictures)
    return spec


def png(wide: int, high: int) -> bytes:
    """A PNG whose header claims a size, with next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", wide, high, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def link(folder: Path) -> None:
    target = folder / "train" / "data-00000-of-00001.arrow"
    target.rename(folder.parent / "elsewhere.arrow")
    target.symlink_to(folder.parent / "elsewhere.arrow")


def pipe(folder: Path) -> None:
    (folder / "train" / "state.json").unlink()
    os.mkfifo(folder / "train" / "state.json")


def cut(folder: Path) -> None:
    file = folder / "train" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def of_state(**values: Any) -> Callable[[Path], None]:
    return lambda folder: rewritten(folder / "train" / "state.json", lambda held: held.update(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (link, r"'data-00000-of-00001\.arrow' is a link, a pipe or a device, allowed: folders and files"),
        (pipe, r"'state\.json' is a link, a pipe or a device"),
        (cut, "cannot be read"),
        (of_state(_data_files=[{"filename": "../../elsewhere.arrow"}]), r"state\.json cannot be read \(it names"),
        (of_state(_data_files=[{"filename": "/etc/hostname"}]), r"state\.json cannot be read \(it names"),
        (of_state(_data_files="x"), r"state\.json cannot be read"),
        (of_state(_format_type="made up"), "cannot be read"),
        (
            lambda folder: rewritten(folder / "dataset_dict.json", lambda held: held.update(splits=["train", ".."])),
            r"dataset_dict\.json cannot be read \(it names '\.\.'\)",
        ),
        (lambda folder: (folder / "dataset_dict.json").write_text("[" * 100_000), r"dataset_dict\.json cannot be read"),
        (lambda folder: (folder / "dataset_dict.json").unlink(), "holds neither dataset_dict.json nor state.json"),
        (
            lambda folder: rewritten(
                folder / "train" / "dataset_info.json",
                lambda held: held["features"].update(image={"_type": "os.system", "command": "true"}),
            ),
            "cannot be read",
        ),
    ],
)
def test_a_hostile_folder_is_one_line(tmp_path: Path, divided: DataSpec, damage: Any, message: str) -> None:
    damage(Path(divided.path))
    with pytest.raises(InputError, match=message) as caught:
        load(divided, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(divided.path)


def test_hostile_pictures_are_one_line(tmp_path: Path) -> None:
    whole = io.BytesIO()
    drawn(1)[0].save(whole, "PNG")
    secret = tmp_path / "secret.png"
    secret.write_bytes(whole.getvalue())
    (tmp_path / "pipe.png").touch()
    for number, (content, path, message) in enumerate(
        [
            (None, str(secret), r"row 1 names '.*, allowed: pictures whose bytes are in the data set"),
            (None, "https://example.org/x.png", r"row 1 names 'https://example\.org/x\.png', allowed: pictures whose"),
            (None, None, "row 1 is empty, allowed: pictures whose bytes"),
            (png(20_000, 20_000), None, "row 1: cannot be read as an image .*decompression bomb"),
            (png(10_000, 9_500), None, "row 1: cannot be read as an image .*decompression bomb"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", None, "row 1: cannot be read as an image"),
            (b"\x80\x04cos\nsystem\n", None, "row 1: cannot be read as an image"),
            (whole.getvalue()[:60], None, "row 1: cannot be read as an image"),
        ]
    ):
        rows = [{"bytes": whole.getvalue(), "path": None} for _ in range(15)]
        rows[1] = {"bytes": content, "path": path}
        with pytest.raises(InputError, match=message) as caught:
            load(stored_as(tmp_path / f"set-{number}", rows), tmp_path)
        assert "\n" not in str(caught.value)


def test_a_script_beside_the_data_is_not_run(tmp_path: Path, divided: DataSpec) -> None:
    folder, mark = Path(divided.path), tmp_path / "ran"
    for place in (folder, folder / "train"):
        (place / f"{place.name}.py").write_text(f"open({str(mark)!r}, 'w')")
    load(divided, tmp_path)
    assert not mark.exists()


# --- the hub, without a network -----------------------------------------------------------------------------------


class About:
    id, sha = "owner/pets", "0123abc"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A hub that has one data set, and notes what it is asked for."""
    import huggingface_hub

    asked: list[tuple[Any, ...]] = []

    def about(self: Any, name: str, revision: str | None = None) -> About:
        asked.append(("about", name, revision))
        found = About()
        if name == "csv":
            found.id = "csv"
        if name == "gone/gone":
            raise ConnectionError("no route to host")
        return found

    def fetched(name: str, config: str | None, *, revision: str, cache_dir: str) -> Any:
        asked.append((name, config, revision))
        return hf.DatasetDict({"train": made(drawn(12)), "test": made(drawn(6, 1))})

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", about)
    monkeypatch.setattr(hf, "load_dataset", fetched)
    return asked


def test_a_data_set_of_the_hub_is_fetched_once(
    tmp_path: Path, hub: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = DataSpec("hf:pets@v1", config="small")
    with pytest.raises(InputError, match=r"hf:pets@v1: no intact copy at .*huggingface, and downloads are off"):
        load(spec, tmp_path, download=False)
    assert not hub
    found = load(spec, tmp_path)
    assert hub == [("about", "pets", "v1"), ("owner/pets", "small", "0123abc")]
    assert (found.train_x.shape, found.classes, data_digest(spec)) == ((12, 1, 6, 5), NAMES, "")
    assert len(load(spec, tmp_path, download=False).test_x) == 6
    assert len(hub) == 2
    with pytest.raises(InputError, match="downloads are off"):
        load(DataSpec("hf:pets@v1", config="large"), tmp_path, download=False)


def test_mistakes_at_the_hub(tmp_path: Path, hub: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    for name, message in (
        ("hf:pets", r"hf:pets: 'pets' is here, too; allowed: hf:\./pets"),
        ("hf:csv", "hf:csv: found a data set without an owner, allowed: hf:OWNER/NAME"),
        ("hf:gone/gone", r"no intact copy at .*, and the download failed \(no route to host\)"),
        ("hf:", "data.dataset: unknown name 'hf:'"),
        ("hf:a/b/c", "data.dataset: unknown name 'hf:a/b/c'"),
    ):
        with pytest.raises(InputError, match=message):
            load(DataSpec(name), tmp_path)


def test_a_picture_of_its_own_file_is_read_where_it_was_downloaded(tmp_path: Path) -> None:
    inside, outside = tmp_path / hugging_face.FOLDER / "0.png", tmp_path / "0.png"
    inside.parent.mkdir()
    for place in (inside, outside):
        drawn(1)[0].save(place)
    for place, refused in ((inside, False), (outside, True), (inside.parent / ".." / "0.png", True)):
        rows = [{"bytes": None, "path": str(place)}] * 3
        folder = tmp_path / f"set-{place.parent.name}"
        splits = hugging_face.saved(Path(stored_as(folder, rows).path))
        if refused:
            with pytest.raises(InputError, match="allowed: pictures whose bytes are in the data set"):
                hugging_face.parts(splits, DataSpec("hf:a/b"), "hf:a/b", inside.parent)
        else:
            (x, _), *_ = hugging_face.parts(splits, DataSpec("hf:a/b"), "hf:a/b", inside.parent)[0]
            assert (x[2, 0] == np.asarray(drawn(1)[0])).all()


# --- names ---------------------------------------------------------------------------------------------------------


def test_every_way_to_name_a_data_set_is_the_same_run(tmp_path: Path, divided: DataSpec) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")

    def named(*settings: str) -> Any:
        return resolve("split-digits", "er", settings=[*settings, "stream.experiences=3"])

    path = f"data.path={divided.path}"
    assert named(f"data.dataset=hf:{divided.path}").fingerprint == named("data.dataset=hf", path).fingerprint
    other = f"data.path={tmp_path}"
    one, two = named("data.dataset=folder", other), named("data.dataset=image-folder", other)
    assert (one.fingerprint, one.data.dataset) == (two.fingerprint, "image-folder")
    assert named("data.dataset=hf:a/b").data == DataSpec("hf:a/b")
    for text, message in (
        ("data.dataset=hf:a b", r"data\.dataset: found 'hf:a b', allowed: hf:NAME or hf:OWNER/NAME"),
        ("data.dataset=hf:", r"data\.dataset: found 'hf:', allowed: hf:NAME"),
    ):
        with pytest.raises(InputError, match=message):
            named(text)
    with pytest.raises(InputError, match=r"data\.path: found 'y' with hf:\./x, allowed: one of the two"):
        DataSpec.of("hf:./x", "y")


def test_without_the_library_a_line_says_what_to_install(
    tmp_path: Path, divided: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"allowed: after pip install 'clsim\[hf\]'$"):
        load(divided, tmp_path)
