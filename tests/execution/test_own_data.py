"""Data of one's own in each form goes through a stream, a selection and label rounds; the form changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clsim
from clsim.data.datasets import data_root, load
from clsim.spec.tables import DataSpec

pytestmark = pytest.mark.usefixtures("workplace")

CLASSES = 4
"""Of the ten digits."""


@pytest.fixture
def pictures() -> dict[str, np.ndarray]:
    """Some of the digits, sorted by class as a folder sorts them, in the names of an ``.npz``."""
    digits, held = load(DataSpec("digits"), data_root(None)), {}
    for part, x, y in (("train", digits.train_x, digits.train_y), ("test", digits.test_x, digits.test_y)):
        rows = np.concatenate([np.flatnonzero(y == c)[:40] for c in range(CLASSES)])
        held[f"x_{part}"], held[f"y_{part}"] = x[rows], y[rows]
    return held


def saved(pictures: dict[str, np.ndarray]) -> str:
    hf = pytest.importorskip("datasets", reason="the extra hf is not installed")
    hf.disable_progress_bars()
    kinds = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=list("0123"))})
    parts = {}
    for part in ("train", "test"):
        images = [Image.fromarray(one[0]) for one in pictures[f"x_{part}"]]
        parts[part] = hf.Dataset.from_dict({"image": images, "label": pictures[f"y_{part}"]}, features=kinds)
    hf.DatasetDict(parts).save_to_disk("saved")
    return "hf:./saved"


def in_folders(pictures: dict[str, np.ndarray]) -> str:
    for part in ("train", "test"):
        for i, (image, label) in enumerate(zip(pictures[f"x_{part}"], pictures[f"y_{part}"], strict=True)):
            place = Path("photos", part, str(label), f"{i:04d}.png")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(place)
    return "folder"


def in_npz(pictures: dict[str, np.ndarray]) -> str:
    np.savez("mine.npz", **pictures)  # type: ignore[arg-type]
    return "npz"


def answers(dataset: str, path: str, size: int) -> tuple[Any, Any, Any]:
    """The accuracies of a stream, the picks of a selection, and the labels that were asked for."""
    data = {"data.dataset": dataset, "data.path": path, "data.size": size, "training.epochs": 2}
    data = {key: value for key, value in data.items() if value}
    stream = clsim.run(buffer="kcenter", memory=12, settings={**data, "stream.experiences": 2})
    picks = clsim.select("kcenter", dataset=dataset, path=path, size=size or None, budget=6, epochs=1, model="mlp")
    asked = clsim.run("active-digits", "finetune", label="margin", label_budget=6, label_rounds=2, settings=data)
    rounds = [(entry["rows"], entry["labels"]) for entry in asked.data["labelling"]["rounds"]]
    return stream.data["accuracy"], picks.index.tolist(), rounds


def test_the_same_pictures_in_an_npz_and_saved_by_hugging_face_make_the_same_numbers(
    pictures: dict[str, np.ndarray],
) -> None:
    one = answers(in_npz(pictures), "mine.npz", 0)
    assert answers(saved(pictures), "", 0) == one
    accuracy, picked, rounds = one
    assert accuracy[-1][-1] > 0.5  # of two classes; an untrained net knows nothing of them
    assert len(set(picked)) == 6
    assert sum(len(rows) for rows, _ in rounds[1:]) == 6
    for rows, labels in rounds:
        assert labels == pictures["y_train"][rows].tolist()


def test_the_same_pictures_in_folders_are_chosen_and_labelled_by_their_content(pictures: dict[str, np.ndarray]) -> None:
    """A folder has three channels, so that its numbers are others; its rows and labels are the same."""
    accuracy, picked, rounds = answers(in_folders(pictures), "photos", 8)
    assert accuracy[-1][-1] > 0.5
    assert len(set(picked)) == 6
    for rows, labels in rounds:
        assert labels == pictures["y_train"][rows].tolist()
    found = load(DataSpec("image-folder", "photos", size=8), data_root(None))
    np.testing.assert_array_equal(found.train_x, pictures["x_train"].repeat(3, 1))
