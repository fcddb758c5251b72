"""Sequences of data sets, long tails and shares: whose images they are, whose classes, and how many are left."""

from __future__ import annotations

import bz2
import random as python_random
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import io

import clsim
from clsim.compat import import_torchvision
from clsim.data.cache import Dataset, moments
from clsim.data.datasets import load, long_tail, thinned
from clsim.errors import InputError
from clsim.spec.resolve import resolve
from clsim.spec.tables import DataSpec, StreamSpec
from clsim.streams import build
from tests.data.test_datasets import kmnist, tiny_imagenet

CPU = torch.device("cpu")


@pytest.fixture
def svhn(monkeypatch: pytest.MonkeyPatch):
    """Small files in the official format: (32, 32, 3, n), and labels 1 … 10, where 10 is the digit 0."""
    import_torchvision()
    from torchvision import datasets

    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)  # whose checksums are the real ones

    def write(root: Path) -> None:
        rng = np.random.default_rng(1)
        root.mkdir(exist_ok=True)
        for part, n in (("train", 30), ("test", 20)):
            x = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
            y = np.where((digits := np.arange(n) % 10) == 0, 10, digits).astype(np.uint8)
            io.savemat(root / f"{part}_32x32.mat", {"X": x, "y": y[:, None]})

    return write


def usps(root: Path) -> dict[str, np.ndarray]:
    """Small files in the official format: a line an image, its label 1 … 10, then index:value from −1 to 1."""
    rng, images = np.random.default_rng(2), {}
    root.mkdir(exist_ok=True)
    for name, n in (("usps", 30), ("usps.t", 20)):
        images[name] = rng.integers(0, 256, (n, 16, 16), dtype=np.uint8)
        values = images[name].reshape(n, -1) / 127.5 - 1 + 1e-6  # torchvision cuts off what is behind the point
        lines = [
            " ".join([str(i % 10 + 1), *(f"{j + 1}:{v:.6f}" for j, v in enumerate(row))])
            for i, row in enumerate(values)
        ]
        (root / f"{name}.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    return images


def sequence(root: Path, svhn, *names: str, **changes) -> Dataset:
    kmnist(root)
    svhn(root)
    return load(DataSpec("sequence", sequence=names, size=32, **changes), root, download=False)


def test_svhn_from_its_official_files(tmp_path: Path, svhn) -> None:
    svhn(tmp_path)
    found = load(DataSpec("svhn"), tmp_path, download=False)
    original = io.loadmat(tmp_path / "train_32x32.mat")
    assert found.train_x.shape == (30, 3, 32, 32)
    assert np.array_equal(found.train_x[7], original["X"][..., 7].transpose(2, 0, 1))
    assert found.train_y.tolist() == [i % 10 for i in range(30)]


def test_usps_from_its_official_files(tmp_path: Path) -> None:
    images = usps(tmp_path)
    found = load(DataSpec("usps"), tmp_path, download=False)
    assert np.array_equal(found.train_x[:, 0], images["usps"])
    assert np.array_equal(found.test_x[:, 0], images["usps.t"])
    assert found.train_y.tolist() == [i % 10 for i in range(30)]
    assert found.classes == tuple("0123456789")


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    usps(tmp_path)
    whole = (tmp_path / "usps.bz2").read_bytes()
    (tmp_path / "usps.bz2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="usps: no intact copy at"):
        load(DataSpec("usps"), tmp_path, download=False)


def test_an_archive_that_is_cut_short_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_torchvision()
    from torchvision.datasets import usps as module

    images = usps(tmp_path)
    whole = (tmp_path / "usps.t.bz2").read_bytes()
    (tmp_path / "usps.t.bz2").write_bytes(whole[: len(whole) // 2])
    fetched = []

    def download(url: str, root: str, filename: str, md5: str) -> None:
        fetched.append((url, md5))
        (Path(root) / filename).write_bytes(whole)

    monkeypatch.setattr(module, "download_url", download)
    found = load(DataSpec("usps"), tmp_path)
    assert np.array_equal(found.test_x[:, 0], images["usps.t"])
    assert fetched == [tuple(module.USPS.split_list["test"][i] for i in (0, 2))]  # which is checked by its MD5
    assert (tmp_path / "usps.t.bz2.damaged").stat().st_size == len(whole) // 2


def test_data_sets_stand_one_after_the_other(tmp_path: Path, svhn) -> None:
    whole = sequence(tmp_path, svhn, "svhn", "kmnist", "digits")
    parts = [load(DataSpec(name, size=32), tmp_path, download=False) for name in ("svhn", "kmnist", "digits")]
    assert whole.groups == (10, 10, 10)
    assert whole.classes[:1] + whole.classes[10:11] + whole.classes[-1:] == ("svhn 0", "kmnist o", "digits 9")
    for side in ("train", "test"):
        first = 0
        for k, part in enumerate(parts):
            x, y = getattr(part, f"{side}_x"), getattr(part, f"{side}_y")
            rows = slice(first, first + len(x))
            for channel in range(3):  # grey images in three equal channels
                assert np.array_equal(getattr(whole, f"{side}_x")[rows, channel], x[:, channel % x.shape[1]])
            assert np.array_equal(getattr(whole, f"{side}_y")[rows], y + 10 * k)
            first += len(x)
        assert len(getattr(whole, f"{side}_x")) == first
    assert (list(whole.mean), list(whole.std)) == moments(whole.train_x)
    again = load(DataSpec("sequence", sequence=("svhn", "kmnist", "digits"), size=32), tmp_path, download=False)
    assert again.groups == whole.groups
    assert np.array_equal(again.train_x, whole.train_x)
    turned = load(DataSpec("sequence", sequence=("kmnist", "svhn"), size=32), tmp_path, download=False)
    assert turned.classes[0] == "kmnist o"


def test_each_data_set_is_a_task_with_classes_of_its_own(tmp_path: Path, svhn) -> None:
    whole = sequence(tmp_path, svhn, "svhn", "kmnist", "digits")
    spec = StreamSpec(kind="sequence", experiences=3)
    stream = build.build(whole, spec, 0, CPU)
    assert stream.classes == tuple(tuple(range(10 * k, 10 * k + 10)) for k in range(3))
    assert stream.visible.shape == (3, 30)
    assert stream.visible.sum(1).tolist() == [10, 10, 10]
    assert stream.test_sizes[:2] == [20, 20]
    domain = build.build(whole, StreamSpec(kind="sequence", setting="domain", experiences=3), 0, CPU)
    assert domain.visible.shape == (3, 10)
    assert domain.experience(1).train.y.max() == 9
    turned = build.build(whole, StreamSpec(kind="sequence", experiences=3, tasks="seeded"), 1, CPU)
    assert set(turned.classes) == set(stream.classes)


def test_the_shipped_sequence_runs_in_official_formats(tmp_path: Path, svhn) -> None:
    """With the data sets that are here, each as its official files have it."""
    kmnist(tmp_path)
    svhn(tmp_path)
    settings = ['data.sequence=["kmnist", "svhn"]', "stream.experiences=2", "model.options.width=2"]
    record = clsim.run("sequence-digits", "r-pm", settings=settings, runs=tmp_path, data_root=tmp_path)
    assert record.data["finished"]
    assert record.data["classes"] == [list(range(10)), list(range(10, 20))]
    assert record.data["cost"][-1]["memory_bytes"] == 70 * 3 * 32 * 32  # all of them: no task has 100
    shipped = resolve("sequence-digits", "finetune")
    assert shipped.data.sequence == ("mnist", "svhn", "kmnist", "fashion-mnist")
    assert shipped.stream.experiences == len(shipped.data.sequence)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sequence": ("mnist",)}, r"data\.sequence: found \['mnist'\] with data\.dataset = 'digits'"),
        ({"dataset": "sequence"}, r"data\.sequence: found \[\] with data\.dataset = 'sequence'"),
        ({"dataset": "sequence", "sequence": ("mnist", "mnist")}, "allowed: each data set once"),
        ({"dataset": "sequence", "sequence": ("mnits",), "size": 32}, r"found 'mnits'; did you mean 'mnist'"),
        ({"dataset": "sequence", "sequence": ("npz",), "size": 32}, r"data\.sequence: found 'npz'"),
        ({"dataset": "sequence", "sequence": ("sequence",), "size": 32}, r"data\.sequence: found 'sequence'"),
        ({"dataset": "sequence", "sequence": ("mnist", "svhn")}, r"data\.size: found 0 with sequence"),
        ({"imbalance": 0.5}, r"data\.imbalance: found 0\.5, allowed: 1 or more"),
        ({"shares": (0.5, 0.0)}, r"data\.shares: found \[0\.5, 0\.0\], allowed: numbers above 0, up to 1"),
        ({"shares": (0.5,), "imbalance": 2.0}, r"found shares and imbalance, allowed: one of them"),
        ({"shares": (0.5, 1.0)}, r"data\.shares: found 2 numbers with digits, which has 10 classes"),
    ],
)
def test_sequences_that_cannot_be(data: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(DataSpec(**data), tmp_path, download=False)
    assert "\n" not in str(caught.value)


def test_streams_of_sequences_that_cannot_be(tmp_path: Path, svhn) -> None:
    whole = sequence(tmp_path, svhn, "svhn", "kmnist")
    with pytest.raises(InputError, match=r"stream\.experiences: found 5 with 2 data sets, allowed: 2"):
        build.build(whole, StreamSpec(kind="sequence"), 0, CPU)
    with pytest.raises(InputError, match=r"stream\.kind: found 'sequence' with the data set 'kmnist'"):
        build.build(load(DataSpec("kmnist"), tmp_path), StreamSpec(kind="sequence"), 0, CPU)
    with pytest.raises(InputError, match=r"stream\.order: found 'seeded' with kind 'sequence'"):
        StreamSpec(kind="sequence", order="seeded")


# --- long tails --------------------------------------------------------------------------------------------------


def test_a_long_tail_is_exponential_from_n_to_a_share_of_it() -> None:
    sizes = long_tail([500] * 100, 100)
    assert (sizes[0], sizes[-1]) == (500, 5)
    assert sizes == sorted(sizes, reverse=True)
    exact = 500 * 100 ** (-np.arange(100) / 99)
    assert np.all((exact - sizes < 1 + 1e-6) & (exact - sizes > -1e-6))
    assert sum(sizes) == 10847  # what the literature counts in long-tailed CIFAR-100 at 100
    assert long_tail([40] * 7, 1) == [40] * 7
    assert min(long_tail([20] * 10, 1e6)) == 1
    assert long_tail([9], 50) == [9]


def test_classes_keep_their_first_images_and_tests_stay_whole(tmp_path: Path) -> None:
    whole, few = (load(DataSpec(imbalance=i, per_class=100), tmp_path) for i in (1.0, 20.0))
    kept = np.bincount(few.train_y).tolist()
    assert kept == long_tail([100] * 10, 20)
    for label, n in enumerate(kept):
        assert np.array_equal(few.train_x[few.train_y == label], whole.train_x[whole.train_y == label][:n])
    assert np.array_equal(few.test_x, whole.test_x)


def test_a_long_tail_comes_in_order_or_shuffled(tmp_path: Path) -> None:
    data = load(DataSpec(imbalance=20.0, per_class=100), tmp_path)
    lengths = {}
    for order in ("fixed", "seeded"):
        spec = StreamSpec(setting="class", experiences=5, order=order)  # type: ignore[arg-type]
        stream = build.build(data, spec, 0, CPU)
        lengths[order] = [len(stream.experience(i).train) for i in range(5)]
    assert lengths["fixed"] == sorted(lengths["fixed"], reverse=True)
    assert lengths["seeded"] != sorted(lengths["seeded"], reverse=True)
    shipped = resolve("split-cifar100-lt", "er")
    assert (shipped.data.imbalance, shipped.stream.setting) == (100, "class")


RAMP = tuple(c / 10 for c in range(1, 11))
"""The shares of DeepAL+'s imbalanced CIFAR-10."""


def test_shares_keep_the_images_of_deepal() -> None:
    """Against its loop, written out; the labels are as many, in an order as mixed, as those of CIFAR-10."""
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000))
    python_random.seed(4666)
    expected = [row for row in range(len(y)) if python_random.random() < RAMP[y[row]]]
    assert np.flatnonzero(thinned(y, RAMP)).tolist() == expected
    shares = np.bincount(y[expected]) / 5000
    assert np.all(np.abs(shares - RAMP) < 4 * np.sqrt(np.asarray(RAMP) * (1 - np.asarray(RAMP)) / 5000) + 1e-9)


def test_shares_leave_one_of_each_class_and_the_test_part_whole(tmp_path: Path) -> None:
    whole = load(DataSpec(), tmp_path)
    few, again = (load(DataSpec(shares=(1e-9, *RAMP[1:])), tmp_path) for _ in range(2))
    assert np.array_equal(few.train_x, again.train_x)
    counts = np.bincount(few.train_y)
    assert counts[0] == 1
    assert counts[9] == np.bincount(whole.train_y)[9]
    assert np.all(np.diff(counts) > 0)
    assert np.array_equal(few.train_x[few.train_y == 0][0], whole.train_x[whole.train_y == 0][0])
    assert np.array_equal(few.test_x, whole.test_x)
    limited = load(DataSpec(shares=RAMP, per_class=40), tmp_path)
    assert np.bincount(limited.train_y)[9] == 40
    assert np.bincount(limited.train_y)[0] < 20
    assert "shares" not in resolve("split-digits", "er").as_dict()["data"]


# --- Tiny ImageNet, 10 × 20 --------------------------------------------------------------------------------------


def test_tiny_imagenet_in_ten_tasks_of_twenty(tmp_path: Path) -> None:
    import zipfile

    names = tuple(f"n{i:02d}" for i in range(20))
    with zipfile.ZipFile(tiny_imagenet(tmp_path, names)) as archive:
        archive.extractall(tmp_path, [n for n in archive.namelist() if not n.startswith("..")])
    settings = ["stream.experiences=2", "training.epochs=1", "model.name=convnet3", "model.options.width=4"]
    record = clsim.run(
        "split-tiny-imagenet-10x20", "finetune", settings=settings, runs=tmp_path / "runs", data_root=tmp_path
    )
    assert record.data["classes"] == [list(range(10)), list(range(10, 20))]
    assert all(v is not None for v in record.data["validation"])
    shipped = resolve("split-tiny-imagenet-10x20", "joint")
    assert (shipped.stream.experiences, shipped.stream.setting, shipped.training.batch_size) == (10, "task", 200)


@pytest.mark.parametrize("strategy", ["er", "er-lwf"])
def test_the_shipped_digits_keep_ten_of_each_digit_of_each_data_set(strategy: str, tmp_path: Path, svhn) -> None:
    svhn(tmp_path)
    usps(tmp_path)
    settings = ['data.sequence=["svhn", "usps", "digits"]', "data.size=8", "model.options.width=4"]
    settings += ["memory.options.iterations=1", "training.epochs=1", "memory.capacity=20"]
    record = clsim.run(
        "condense-digits", strategy, buffer="dm", settings=settings, runs=tmp_path / "runs", data_root=tmp_path
    )
    assert [c["memory_bytes"] for c in record.data["cost"]] == [20 * n * 3 * 64 for n in (1, 2, 3)]
    held = torch.load(record.folder / "checkpoint.pt", weights_only=True)["memory"]["columns"]
    for task in range(3):
        assert held["y"][held["task"] == task].bincount().tolist() == [2] * 10
    assert ("distillation" in record.losses) == (strategy == "er-lwf")
    shipped = resolve("condense-digits", strategy)
    assert shipped.data.sequence == ("svhn", "mnist", "usps")
    assert shipped.memory.size == "100 a task"
