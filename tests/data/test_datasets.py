from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clsim.data import cache, origins
from clsim.data.cache import Dataset, moments
from clsim.data.datasets import data_root, load
from clsim.errors import DiskWarning, InputError
from clsim.spec.sources import DATASETS, data_digest
from clsim.spec.tables import DataSpec


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("blocked by the test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def same(one: Dataset, other: Dataset) -> bool:
    arrays = all(np.array_equal(getattr(one, a), getattr(other, a)) for a in cache.ARRAYS)
    return arrays and (one.classes, one.mean, one.std) == (other.classes, other.mean, other.std)


def one_line(info: pytest.ExceptionInfo[InputError], *parts: str) -> None:
    assert "\n" not in str(info.value)
    for part in parts:
        assert part in str(info.value)


# --- named data sets ---------------------------------------------------------------------------------------------


def test_digits(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    original = load_digits()
    digits = load(DataSpec(dataset="digits"), tmp_path)
    assert digits.train_x.dtype == digits.test_x.dtype == np.uint8
    assert digits.train_x.shape[1:] == (1, 8, 8)
    assert (digits.train_x.max(), digits.classes) == (255, tuple("0123456789"))
    for label in range(10):  # every fifth image of a class is test
        mine = original.images[original.target == label] * 255 / 16
        np.testing.assert_allclose(digits.test_x[digits.test_y == label][:, 0], mine[4::5], atol=0.5)
        np.testing.assert_allclose(
            digits.train_x[digits.train_y == label][:, 0], np.delete(mine, np.s_[4::5], 0), atol=0.5
        )
    scaled = digits.train_x / 255
    assert digits.mean == pytest.approx([scaled.mean()])
    assert digits.std == pytest.approx([scaled.std()])
    with pytest.raises(ValueError, match="read-only"):
        digits.train_x[0] = 0


def test_resized_and_limited(tmp_path: Path) -> None:
    whole = load(DataSpec(dataset="digits"), tmp_path)
    few = load(DataSpec(dataset="digits", per_class=3), tmp_path)
    assert np.bincount(few.train_y).tolist() == [3] * 10
    assert same(few, load(DataSpec(dataset="digits", per_class=3), tmp_path))
    for label in range(10):
        np.testing.assert_array_equal(few.train_x[few.train_y == label], whole.train_x[whole.train_y == label][:3])
    assert len(few.test_x) == len(whole.test_x)
    with pytest.raises(ValueError, match="read-only"):
        few.train_x[0] = 0
    larger = load(DataSpec(dataset="digits", size=16), tmp_path)
    assert larger.train_x.shape == (len(whole.train_x), 1, 16, 16)
    assert abs(larger.mean[0] - whole.mean[0]) < 0.01
    assert same(whole, load(DataSpec(dataset="digits"), tmp_path))


@pytest.mark.parametrize("name", ["kmnist", "cifar10", "svhn", "usps", "tiny-imagenet"])
@pytest.mark.parametrize("download", [True, False])
def test_without_source_and_network_one_line_says_what_to_do(tmp_path: Path, name: str, download: bool) -> None:
    with pytest.raises(InputError) as info:
        load(DataSpec(dataset=name), tmp_path, progress=False, download=download)
    reason = "download failed" if download else "downloads are off"
    one_line(info, f"{name}: ", str(tmp_path), reason, "--data-root", "CLSIM_DATA")
    assert not (tmp_path / "clsim-cache" / name).exists()


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def kmnist(root: Path) -> dict[str, bytes]:
    """Sources in the layout of torchvision, but small."""
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 40), ("t10k", 20)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx((np.arange(n) % 10).astype(np.uint8))
    raw = root / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return files


def test_torchvisions_layout_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = kmnist(tmp_path)
    found = load(DataSpec(dataset="kmnist"), tmp_path, download=False)
    assert found.train_x.shape == (40, 1, 28, 28)
    assert found.test_x.tobytes() == files["t10k-images-idx3-ubyte"][16:]
    assert found.train_y.tolist() == [i % 10 for i in range(40)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "file"), [("mnist", "MNIST/raw/train-images-idx3-ubyte"), ("usps", "usps.bz2")])
def test_nobody_waits_for_a_pipe(name: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / file)
    with pytest.raises(InputError, match=r"found a pipe, a socket or a device, allowed: a file"):
        load(DataSpec(dataset=name), tmp_path, progress=False)


def test_a_truncated_source_is_not_taken_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = kmnist(tmp_path)
    cut = tmp_path / "KMNIST" / "raw" / "train-images-idx3-ubyte"
    cut.write_bytes(files[cut.name][:5000])
    with pytest.raises(InputError) as info:
        load(DataSpec(dataset="kmnist"), tmp_path, progress=False)
    one_line(info, "no intact copy at", "KMNIST")
    assert cut.with_name(f"{cut.name}.damaged").stat().st_size == 5000

    # with the archive beside it, as a killed extraction leaves it, it is extracted again
    from torchvision import datasets

    resources = []
    for name, content in files.items():
        packed = gzip.compress(content)
        (cut.parent / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(datasets.KMNIST, "resources", resources)
    found = load(DataSpec(dataset="kmnist"), tmp_path, progress=False)
    assert found.train_x.tobytes() == files[cut.name][16:]


def tiny_imagenet(folder: Path, names: tuple[str, ...] = ("n01", "n02")) -> Path:
    archive = folder / "tiny-imagenet-200.zip"
    flat = folder / "flat.jpg"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("tiny-imagenet-200/wnids.txt", "\n".join(names))
        lines = []
        for i, name in enumerate(names):
            Image.new("RGB", (64, 64), (100 * i, 50, 200)).save(flat, quality=95)
            for k in range(3):
                file.write(flat, f"tiny-imagenet-200/train/{name}/images/{name}_{k}.JPEG")
            file.write(flat, f"tiny-imagenet-200/val/images/val_{i}.JPEG")
            lines.append(f"val_{i}.JPEG\t{name}\t0\t0\t62\t62")
        file.writestr("tiny-imagenet-200/val/val_annotations.txt", "\n".join(lines))
        file.writestr("../outside.txt", "a hostile path")
    return archive


def test_tiny_imagenet_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / ".tiny-imagenet-200.partial" / "tiny-imagenet-200").mkdir(parents=True)  # of a process that was killed
    archive = tiny_imagenet(root)
    with pytest.raises(InputError, match="tiny-imagenet: no intact copy"):  # another checksum
        load(DataSpec(dataset="tiny-imagenet"), root, progress=False)
    monkeypatch.setattr(origins, "TINY_IMAGENET_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    found = load(DataSpec(dataset="tiny-imagenet"), root, progress=False)
    assert (found.train_x.shape, found.test_x.shape) == ((6, 3, 64, 64), (2, 3, 64, 64))
    assert (found.train_y.tolist(), found.test_y.tolist()) == ([0, 0, 0, 1, 1, 1], [0, 1])
    assert abs(found.test_x[:, 0].mean((1, 2)) - [0, 100]).max() < 3
    assert not list(tmp_path.rglob("outside.txt"))


# --- npz ---------------------------------------------------------------------------------------------------------


def npz(path: Path, **changes: Any) -> DataSpec:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.normal(size=(20, 4)),
        "y_train": np.arange(20) % 4,
        "x_test": rng.normal(size=(8, 4)),
        "y_test": np.arange(8) % 4,
    }
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return DataSpec(dataset="npz", path=str(path))


def test_npz_vectors(tmp_path: Path) -> None:
    labels = np.array([30, 7, 12, 7])
    spec = npz(tmp_path / "v.npz", y_train=np.tile(labels, 5), y_test=np.tile(labels, 2), extra=np.array([{}]))
    found = load(spec, tmp_path)
    with np.load(spec.path) as file:
        np.testing.assert_array_equal(found.train_x, file["x_train"].astype(np.float32))
        assert found.train_x.dtype == np.float32
        assert found.mean == pytest.approx(file["x_train"].mean(0), abs=1e-6)
        assert found.std == pytest.approx(file["x_train"].std(0), abs=1e-6)
    assert found.classes == ("7", "12", "30")
    assert found.test_y.tolist() == [2, 0, 1, 0] * 2


@pytest.mark.parametrize("shape", [(8, 6, 5), (8, 6, 5, 1), (8, 1, 6, 5), (8, 6, 5, 3), (8, 3, 6, 5)])
def test_npz_images_in_every_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    y = np.arange(8) % 2
    found = load(npz(tmp_path / "i.npz", x_train=x, y_train=y, x_test=x, y_test=y), tmp_path)
    channels = 3 if 3 in shape else 1
    assert found.train_x.shape == (8, channels, 6, 5)
    for c in range(channels):
        plane = x if x.ndim == 3 else x[:, c] if shape[1] == channels else x[..., c]
        np.testing.assert_array_equal(found.train_x[:, c], plane)


def test_npz_without_a_test_part_gives_every_fifth(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=np.arange(40, dtype=np.float32)[:, None], y=np.arange(40) % 2)
    found = load(DataSpec(dataset="npz", path=str(path)), tmp_path)
    assert found.test_x.ravel().tolist() == [8, 9, 18, 19, 28, 29, 38, 39]
    assert sorted([*found.train_x.ravel(), *found.test_x.ravel()]) == list(range(40))


GREY = np.zeros((20, 4, 4), dtype=np.uint8)
NAN, HUGE = np.full((20, 4), np.nan), np.full((20, 4), 1e300)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None, "x_trian": np.zeros((20, 4))}, "no array 'x_train'; did you mean 'x_trian'? (found: "),
        ({"y_test": None}, "no array 'y_test' (found: x_train, y_train, x_test; allowed: x_train, y"),
        ({"x_train": NAN}, "x_train holds NaN or infinite values"),
        ({"x_train": HUGE}, "x_train holds NaN or infinite values"),
        ({"x_train": GREY.astype(np.int32)}, "x_train has type int32 and shape (20, 4, 4)"),
        ({"x_train": np.zeros((20, 4, 4, 2), dtype=np.uint8)}, "with 1 or 3 channels"),
        ({"x_train": np.zeros((20, 0))}, "shape (20, 0)"),
        ({"x_train": GREY}, "allowed: the same"),
        ({"x_train": np.zeros((20, 5))}, "allowed: the same"),
        ({"x_train": np.zeros((19, 4))}, "x_train has 19 samples and 20 labels"),
        ({"x_train": np.array([{}] * 20)}, "cannot be read as .npz (Object arrays cannot be loaded"),
        ({"y_train": np.arange(20) / 2}, "y_train has type float64"),
        ({"y_train": np.zeros((20, 1), dtype=int)}, "shape (20, 1)"),
        ({"y_train": np.arange(20) % 4 - 1}, "labels from -1 to 2"),
        ({"y_test": np.full(8, 9)}, "no training sample of class '9'"),
        ({"y_train": np.zeros(20, dtype=int), "y_test": np.zeros(8, dtype=int)}, "single class '0'"),
        ({"x_test": np.zeros((0, 4)), "y_test": np.zeros(0, dtype=int)}, "the test part is empty"),
    ],
)
def test_npz_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    spec = npz(tmp_path / "bad.npz", **changes)
    with pytest.raises(InputError) as info:
        load(spec, tmp_path)
    one_line(info, message, "bad.npz")


def test_broken_npz_files(tmp_path: Path) -> None:
    spec = npz(tmp_path / "good.npz", x_train=np.zeros((20, 400)), x_test=np.zeros((8, 400)))
    whole = Path(spec.path).read_bytes()
    broken = {"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2], "flipped": bytearray(whole)}
    broken["flipped"][300] ^= 255  # type: ignore[index]
    np.save(tmp_path / "array.npy", np.zeros(3))
    broken["array"] = (tmp_path / "array.npy").read_bytes()
    for name, content in broken.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(InputError) as info:
            load(DataSpec(dataset="npz", path=str(path)), tmp_path)
        one_line(info, str(path), "cannot be read as .npz")


# --- image-folder ------------------------------------------------------------------------------------------------


def paint(path: Path, color: Any, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten red cats and ten blue dogs, each a little different."""
    for i in range(10):
        paint(tmp_path / "pets" / "cat" / f"{i}.png", (200 + i, 0, 0))
        paint(tmp_path / "pets" / "dog" / f"{i}.png", (0, 0, 200 + i))
    return tmp_path / "pets"


def from_folder(path: Path, size: int = 4) -> DataSpec:
    return DataSpec(dataset="image-folder", path=str(path), size=size)


def test_image_folder_without_a_test_part(tmp_path: Path, folder: Path) -> None:
    paint(folder / ".thumbnails" / "0.png", 0)
    (folder / "cat" / "notes.txt").write_text("not an image")
    found = load(from_folder(folder), tmp_path)
    assert found.classes == ("cat", "dog")
    assert found.train_x.shape == (16, 3, 4, 4)
    assert found.test_x[:, :, 0, 0].tolist() == [[204, 0, 0], [209, 0, 0], [0, 0, 204], [0, 0, 209]]
    assert found.test_y.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["test", "val"])
def test_image_folder_with_its_own_test_part(tmp_path: Path, folder: Path, name: str) -> None:
    divided = tmp_path / "divided"
    shutil.copytree(folder, divided / "train")
    paint(divided / name / "dog" / "x.jpg", 128, (9, 7), "L")
    found = load(from_folder(divided, 6), tmp_path)
    assert (found.train_x.shape, found.test_x.shape) == ((20, 3, 6, 6), (1, 3, 6, 6))
    assert found.test_y.tolist() == [1]
    assert abs(found.test_x.astype(int) - 128).max() <= 1
    paint(divided / name / "dgo" / "x.png", 0)
    with pytest.raises(InputError, match=r"class 'dgo' is not in .*; did you mean 'dog'\?"):
        load(from_folder(divided, 6), tmp_path)
    shutil.rmtree(divided / name)
    with pytest.raises(InputError, match=r"found train/ alone, allowed: train/ and test/ \(or val/\)"):
        load(from_folder(divided, 6), tmp_path)


@pytest.mark.parametrize("upright", [False, True])
def test_the_centre_is_kept(tmp_path: Path, folder: Path, upright: bool) -> None:
    image = np.zeros((8, 24, 3), dtype=np.uint8)
    image[:, 8:16] = 255  # a white square in the middle of a black band
    Image.fromarray(image.transpose(1, 0, 2) if upright else image).save(folder / "cat" / "4.png")
    found = load(from_folder(folder, 8), tmp_path)
    assert (found.test_x[0] == 255).all()


def test_image_folder_mistakes(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"data\.size: found 0 with image-folder"):
        load(from_folder(folder, 0), tmp_path)
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(folder / "cat" / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png: cannot be read as an image \(mode I;16, allowed: 8 bits"):
        load(from_folder(folder), tmp_path)
    (folder / "cat" / "deep.png").unlink()
    whole = (folder / "dog" / "3.png").read_bytes()
    for content in (b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", whole[: len(whole) // 2]):
        (folder / "dog" / "3.png").write_bytes(content)
        with pytest.raises(InputError) as info:
            load(from_folder(folder), tmp_path)
        one_line(info, str(folder / "dog" / "3.png"), "cannot be read as an image")
    (folder / "dog" / "3.png").unlink()
    os.mkfifo(folder / "dog" / "3.png")  # whoever opens it waits
    with pytest.raises(InputError, match=r"3\.png: cannot be read as an image \(found a folder, a pipe or nothing"):
        load(from_folder(folder), tmp_path)
    (folder / "dog" / "3.png").unlink()
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no training sample of class 'empty'"):
        load(from_folder(folder), tmp_path)
    with pytest.raises(InputError, match="found 0 training and 0 test images"):
        load(from_folder(folder / "empty"), tmp_path)


def test_another_content_is_another_digest_and_another_cache(tmp_path: Path, folder: Path) -> None:
    spec = from_folder(folder)
    before, first = data_digest(spec), load(spec, tmp_path)
    assert (before, len(before)) == (data_digest(spec), 64)
    paint(folder / "cat" / "4.png", (1, 2, 3))
    os.utime(folder / "cat" / "4.png", ns=(1, 1))
    assert data_digest(spec) != before
    second = load(spec, tmp_path)
    assert second.test_x[0, :, 0, 0].tolist() == [1, 2, 3]
    assert first.test_x[0, :, 0, 0].tolist() == [204, 0, 0]

    numbers = npz(tmp_path / "n.npz")
    assert data_digest(numbers) == hashlib.sha256((tmp_path / "n.npz").read_bytes()).hexdigest()
    os.utime(tmp_path / "n.npz", ns=(1, 1))  # content alone counts
    assert data_digest(numbers) == hashlib.sha256((tmp_path / "n.npz").read_bytes()).hexdigest()
    assert data_digest(DataSpec(dataset="digits")) == ""


# --- the spec and the cache --------------------------------------------------------------------------------------


def test_mistakes_in_the_spec(tmp_path: Path) -> None:
    for spec, message in [
        (DataSpec(dataset="cifra10"), r"unknown name 'cifra10'; did you mean 'cifar10'\?"),
        (DataSpec(dataset="digits", path="x"), "found 'x' with digits, allowed: no path with a named data set"),
        (DataSpec(dataset="npz"), "found '' with npz, allowed: the path of your data"),
        (DataSpec(dataset="npz", path=str(tmp_path / "gone.npz")), "no file .*allowed: an .npz with x_train"),
        (from_folder(tmp_path / "gone"), "no folder .*allowed: a folder with a folder for each class"),
        (DataSpec(dataset="npz", path=npz(tmp_path / "v.npz").path, size=8), "found 8 with vectors, allowed: 0"),
    ]:
        with pytest.raises(InputError, match=message) as info:
            load(spec, tmp_path)
        one_line(info)
    with pytest.raises(InputError, match="allowed: the path"):  # never the working directory
        data_digest(DataSpec(dataset="image-folder"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit_meta(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = {
    "cut": lambda d: cut(d / "train_x.npy"),
    "empty": lambda d: (d / "test_y.npy").write_bytes(b""),
    "header": lambda d: (d / "train_x.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '|O', ((("),
    "pickle": lambda d: np.save(d / "test_y.npy", np.array([{}]), allow_pickle=True),
    "labels": lambda d: np.save(d / "test_y.npy", np.full(8, 77)),
    "gone": lambda d: (d / "train_y.npy").unlink(),
    "meta": lambda d: (d / "meta.json").write_text('{"format": 1'),
    "meta gone": lambda d: (d / "meta.json").unlink(),
    "format": lambda d: edit_meta(d / "meta.json", format=0),
    "mean": lambda d: edit_meta(d / "meta.json", mean=[float("nan")] * 4),
    "std": lambda d: edit_meta(d / "meta.json", std=[1.0]),
    "classes": lambda d: edit_meta(d / "meta.json", classes=["a"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    spec = npz(tmp_path / "v.npz")
    good = load(spec, tmp_path)
    expected = Dataset(*(np.array(v) if isinstance(v, np.ndarray) else v for v in vars(good).values()))
    (folder,) = (tmp_path / "clsim-cache").glob("npz-*")
    DAMAGES[damage](folder)
    assert cache.read(folder, "npz") is None
    assert same(load(spec, tmp_path), expected)
    assert same(cache.read(folder, "npz") or good, expected)
    assert sorted(p.name for p in folder.parent.iterdir()) == [".npz.lock", folder.name]


def test_no_header_or_meta_makes_the_reader_fail(tmp_path: Path) -> None:
    load(npz(tmp_path / "v.npz"), tmp_path)
    (folder,) = (tmp_path / "clsim-cache").glob("npz-*")
    rng = np.random.default_rng(0)
    for name in ("train_x.npy", "meta.json"):
        whole = (folder / name).read_bytes()
        for _ in range(150):
            mutated = np.frombuffer(whole, dtype=np.uint8).copy()
            mutated[rng.integers(0, min(len(whole), 200), size=3)] = rng.integers(0, 256, size=3)
            (folder / name).write_bytes(mutated.tobytes())
            found = cache.read(folder, "npz")
            assert found is None or (found.train_x.shape, found.train_x.dtype) == ((20, 4), np.float32)
        (folder / name).write_bytes(whole)
    assert cache.read(folder, "npz") is not None


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    spec = npz(tmp_path / "v.npz")
    left = tmp_path / "clsim-cache" / f".npz-{data_digest(spec)[:16]}.partial"
    left.mkdir(parents=True)
    (left / "train_x.npy").write_bytes(b"half")
    assert len(load(spec, tmp_path).train_x) == 20
    assert not left.exists()


def test_many_at_once_read_the_source_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, calls, real, together = npz(tmp_path / "v.npz"), [], origins.read, threading.Barrier(8)

    def counted(*arguments: Any, progress: bool, download: bool) -> cache.Raw:
        calls.append(1)
        return real(*arguments, progress=progress, download=download)

    def start(_: int) -> Dataset:
        together.wait()
        return load(spec, tmp_path)

    monkeypatch.setattr(origins, "read", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(start, range(8)))
    assert len(calls) == 1
    assert all(same(found[0], other) for other in found)


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as info:
        load(DataSpec(dataset="digits"), tmp_path / "file")
    one_line(info, str(tmp_path / "file"), "cannot be written", "--data-root or CLSIM_DATA")


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = npz(tmp_path / "v.npz")
    load(spec, tmp_path)
    (folder,) = (tmp_path / "clsim-cache").glob("npz-*")
    cut(folder / "train_x.npy")
    before = sorted(p.name for p in folder.iterdir())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.warns(DiskWarning, match=r"cannot be kept \(No space left on device\); the run goes on") as said:
            found = load(spec, tmp_path)
    assert len(said) == 1
    assert len(found.train_x) == 20
    assert not found.train_x.flags.writeable
    assert sorted(p.name for p in folder.iterdir()) == before
    assert len(load(spec, tmp_path).train_x) == 20


def test_a_second_load_imports_nothing_heavy(tmp_path: Path) -> None:
    load(DataSpec(dataset="digits"), tmp_path)
    code = (
        "import sys, pathlib; from clsim.data.datasets import load; from clsim.spec.tables import DataSpec;"
        "found = load(DataSpec(dataset='digits'), pathlib.Path(sys.argv[1])); assert len(found.train_x) > 1000;"
        "heavy = {'torch', 'torchvision', 'sklearn', 'PIL', 'avalanche'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


def test_every_listed_data_set_says_what_it_is() -> None:
    assert all(title for title, _ in DATASETS.values())
    assert {"digits", "cifar100", "npz", "image-folder"} < set(DATASETS)


def test_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLSIM_DATA", "/from/environment")
    assert data_root("/from/flag") == Path("/from/flag")
    assert data_root(None) == Path("/from/environment")
    monkeypatch.delenv("CLSIM_DATA")
    assert data_root(None) == Path.home() / ".cache" / "clsim"


def test_moments_match_numpy_and_constants_deviate_by_exactly_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (50, 3, 7, 5), dtype=np.uint8)
    mean, std = moments(x)
    np.testing.assert_allclose(mean, (x / 255).mean((0, 2, 3)))
    np.testing.assert_allclose(std, (x / 255).std((0, 2, 3)))
    for level in range(256):
        assert moments(np.full((3, 1, 5, 5), level, dtype=np.uint8))[1] == [0.0]
    vectors = np.concatenate([rng.normal(size=(1001, 2)), np.full((1001, 1), 0.1)], 1).astype(np.float32)
    assert moments(vectors)[1][2] == 0.0
    np.testing.assert_allclose(moments(vectors)[1][:2], vectors[:, :2].astype(float).std(0))


# --- torchvision, and real data ----------------------------------------------------------------------------------

FAKE_TORCHVISION = """
import torch
import torchvision.part
try:
    torch.ops.torchvision.nms
except AttributeError:
    raise RuntimeError("operator torchvision::nms does not exist")
"""


def test_torchvision_is_imported_where_its_compiled_part_fails(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(FAKE_TORCHVISION)
    (tmp_path / "torchvision" / "part.py").write_text("")
    code = (
        "from clsim.compat import import_torchvision; import_torchvision(); import_torchvision();"
        "import sys, torchvision; assert torchvision.part is sys.modules['torchvision.part']"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)


@pytest.mark.parametrize("load", ["load_file('mine.py').make", "load_module('mine').make"])
def test_a_users_file_imports_torchvision_where_its_compiled_part_fails(load: str, tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(FAKE_TORCHVISION)
    (tmp_path / "torchvision" / "part.py").write_text("weights = 3")
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.py").write_text("import torchvision\n\n\ndef make():\n    return torchvision.part.weights\n")
    code = f"from clsim.spec.loading import load_file, load_module; assert {load}() == 3"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment, cwd=work)


@pytest.mark.slow
def test_avalanche_can_be_imported_afterwards_without_noise() -> None:
    code = "from clsim.compat import import_torchvision; import_torchvision(); import avalanche"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


REAL = {
    "mnist": ("MNIST/raw", (60000, 1, 28, 28), 10),
    "fashion-mnist": ("FashionMNIST/raw", (60000, 1, 28, 28), 10),
    "cifar10": ("cifar-10-batches-py", (50000, 3, 32, 32), 10),
    "cifar100": ("cifar-100-python", (50000, 3, 32, 32), 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_data(tmp_path: Path, name: str) -> None:
    place, shape, classes = REAL[name]
    if not (data_root(None) / place).is_dir():
        pytest.skip(f"no {name} in the data folder")
    top = Path(place).parts[0]
    (tmp_path / top).symlink_to(data_root(None) / top)
    found = load(DataSpec(dataset=name), tmp_path, download=False)
    assert (found.train_x.shape, found.test_x.shape) == (shape, (10000, *shape[1:]))
    assert len(set(found.classes)) == classes
    assert np.bincount(found.test_y).shape == (classes,)
    assert found.mean == pytest.approx(found.train_x.mean((0, 2, 3)) / 255)
