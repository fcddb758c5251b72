"""Real images, skipped where they are absent: the data is what its authors describe, the known orderings hold."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import clsim
from clsim.data import datasets, superclasses
from clsim.data.cache import Dataset
from clsim.errors import InputError
from clsim.spec.tables import DataSpec

pytestmark = pytest.mark.slow


def load(name: str) -> Dataset:
    try:
        return datasets.load(DataSpec(dataset=name), datasets.data_root(None), progress=False, download=False)
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "shape", "train", "test", "classes"),
    [
        ("mnist", (1, 28, 28), 60000, 10000, 10),
        ("fashion-mnist", (1, 28, 28), 60000, 10000, 10),
        ("cifar10", (3, 32, 32), 50000, 10000, 10),
        ("cifar100", (3, 32, 32), 50000, 10000, 100),
    ],
)
def test_a_data_set_is_what_its_authors_describe(
    name: str, shape: tuple[int, ...], train: int, test: int, classes: int
) -> None:
    found = load(name)
    assert found.train_x.shape == (train, *shape)
    assert found.test_x.shape == (test, *shape)
    assert found.train_x.dtype == np.uint8
    assert len(found.classes) == classes
    if name != "mnist":  # whose digits are not equally frequent
        assert set(np.bincount(found.train_y)) == {train // classes}
        assert set(np.bincount(found.test_y)) == {test // classes}


def test_cifar100_has_its_known_names_and_means() -> None:
    found = load("cifar100")
    assert found.classes[:3] == ("apple", "aquarium_fish", "baby")
    assert np.allclose(found.mean, (0.5071, 0.4865, 0.4409), atol=1e-3)
    assert np.allclose(found.std, (0.2673, 0.2564, 0.2762), atol=1e-3)


def test_super_classes_are_those_of_cifar100s_own_files() -> None:
    load("cifar100")
    folder = datasets.data_root(None) / "cifar-100-python"
    if not (folder / "meta").is_file():
        pytest.skip("only the cache is here, not the source")
    meta, test = (pickle.loads((folder / name).read_bytes(), encoding="latin1") for name in ("meta", "test"))
    found: dict[str, set[str]] = {}
    for fine, coarse in zip(test["fine_labels"], test["coarse_labels"], strict=True):
        name = meta["coarse_label_names"][coarse].replace("_", " ")
        found.setdefault(name, set()).add(meta["fine_label_names"][fine])
    assert found == {name: set(members) for name, members in superclasses.CIFAR100.items()}


def test_memory_prevents_forgetting_of_clothes(tmp_path: Path) -> None:
    load("fashion-mnist")
    settings = ["data.per_class=300"]

    def run(strategy: str, memory: int | None = None) -> dict[str, float | None]:
        return clsim.run("split-fashion-mnist", strategy, memory=memory, settings=settings, runs=tmp_path).metrics

    finetune, little, much, joint = run("finetune"), run("er", 20), run("er", 500), run("joint")
    accuracy = [m["accuracy"] or 0 for m in (finetune, little, much, joint)]
    assert accuracy == sorted(accuracy)
    forgetting = [m["forgetting"] or 0 for m in (much, little, finetune)]
    assert forgetting == sorted(forgetting)
    assert accuracy[2] > accuracy[0] + 0.2


def test_slim_resnet_learns_photographs_task_after_task(tmp_path: Path) -> None:
    load("cifar100")
    settings = ["data.per_class=30", "training.precision=bf16", "stream.experiences=2"]
    record = clsim.run("split-cifar100", buffer="kcenter", memory=100, settings=settings, runs=tmp_path)
    assert (record.metrics["learning_accuracy"] or 0) > 0.05  # of fifty classes each, after 150 steps
    assert record.data["cost"][-1]["memory_bytes"] == 100 * 3072
    assert all(c["select_seconds"] > 0 for c in record.data["cost"])
