"""Unlabelled samples from another data set: dealt by the seed alone, of no class, and in no metric."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.data import cache, datasets, foreign
from clsim.data.cache import Dataset, Raw
from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars
from clsim.spec.labelling import LabelsSpec
from clsim.spec.run import RunSpec
from clsim.spec.tables import DataSpec, StreamSpec
from clsim.streams import build as build_module
from clsim.streams.stream import Stream
from tests.helpers import assert_same
from tests.streams.test_streams import CPU, dataset

STRANGERS = np.random.default_rng(9).integers(0, 256, (200, 1, 5, 5), dtype=np.uint8)


def build(seed: int = 0, images: np.ndarray = STRANGERS, share: float = 0.5, **spec: Any) -> Stream:
    labels = LabelsSpec(per_class=4, foreign="mnist", foreign_share=share)
    known = dataset(per_class=20)
    return build_module.build(known, StreamSpec(experiences=3, **spec), seed, CPU, None, labels, images)


def outside(stream: Stream, position: int) -> Exemplars:
    unlabelled = stream.experience(position).unlabelled
    assert unlabelled is not None
    return unlabelled[stream.truth(position) < 0]


def test_each_experience_has_its_share_and_none_comes_twice() -> None:
    stream, rows = build(), []
    shape = stream.shape
    known = dataset(per_class=20)
    for i in stream.schedule:
        found = outside(stream, i)
        assert len(found) == 20  # half of 40
        assert set(found.y.tolist()) == {-1}
        assert set(found.task.tolist()) == {i}
        assert tuple(found.x.shape[1:]) == shape
        place = found.index - len(known.train_x)  # an index is nobody else's
        assert int(place.min()) >= 0
        assert len(found.key.unique()) == len(found)
        rows += place.tolist()
        experience = stream.experience(i)
        assert experience.unlabelled is not None
        assert len(experience.unlabelled) == 60
        assert set(experience.unlabelled.y.tolist()) == {-1}
        assert set(experience.train.y.tolist()) == set(experience.classes)
    assert len(rows) == len(set(rows)) == 60


def test_they_are_dealt_by_the_seed_alone_and_change_nothing_else() -> None:
    one, again, other = (outside(build(seed), 1) for seed in (1, 1, 2))
    assert_same(one.columns(), again.columns())
    assert not torch.equal(one.index, other.index)
    without = build_module.build(
        dataset(per_class=20), StreamSpec(experiences=3), 1, CPU, None, LabelsSpec(per_class=4)
    )
    mine = without.experience(1)
    theirs = build(1).experience(1)
    assert mine.unlabelled is not None
    assert theirs.unlabelled is not None
    assert_same(mine.train.columns(), theirs.train.columns())
    assert_same(mine.unlabelled.columns(), theirs.unlabelled[: len(mine.unlabelled)].columns())


@pytest.mark.parametrize("tasks", ["given", "seeded"])
def test_they_are_changed_as_the_experience_is(tasks: str) -> None:
    stream = build(kind="permuted", setting="domain", share=0.1, tasks=tasks)
    plain, known = torch.from_numpy(STRANGERS).flatten(1), torch.from_numpy(dataset(per_class=20).train_x).flatten(1)
    for i in stream.schedule:
        found, train = outside(stream, i), stream.experience(i).train
        assert len(found)
        # the pixel that each one was before, as known images tell
        was = (known[train.index][:, :, None] == train.x.flatten(1)[:, None]).all(0).int().argmax(0)
        assert len(was.unique()) == len(was)
        assert torch.equal(found.x.flatten(1), plain[found.index - 120][:, was])


def test_earlier_ones_come_along_where_the_stream_is_presented_so() -> None:
    stream = build(presentation="cumulative")
    assert [len(outside(stream, i)) for i in range(3)] == [20, 40, 60]


def test_colours_become_grey_and_grey_is_repeated() -> None:
    colours = np.random.default_rng(3).integers(0, 256, (80, 3, 5, 5), dtype=np.uint8)
    found = outside(build(images=colours), 0)
    red, green, blue = torch.from_numpy(colours[found.index.numpy() - 120].astype(np.float32)).unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).round()
    assert (found.x[:, 0].float() - luma).abs().max() <= 1
    assert foreign.in_channels(torch.from_numpy(STRANGERS), 3).shape == (200, 3, 5, 5)


def test_too_few_images_are_one_clear_line() -> None:
    message = (
        r"labels\.foreign_share: found 2, which asks for 240 of 200 images of 'mnist'; allowed: above 0, at most 1\.66"
    )
    with pytest.raises(InputError, match=message):
        build(share=2.0)
    assert len(outside(build(share=1.66), 0)) == 66


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["labels.foreign=mnits"], r"labels\.foreign: found 'mnits'; did you mean 'mnist'"),
        (["labels.foreign=npz"], r"labels\.foreign: found 'npz'"),
        (["labels.foreign=digits"], r"labels\.foreign: found 'digits', which the stream is made of"),
        (["labels.foreign=mnist"], r"mnist: no intact copy at .*, and .*"),
        (["labels.foreign=mnist", "labels.foreign_share=0"], r"labels\.foreign_share: found 0\.0, allowed: a finite"),
        (["labels.foreign_share=0.5"], r"labels\.foreign_share: found 0\.5 without labels\.foreign, allowed: 1"),
    ],
)
def test_mistakes_are_one_clear_line(
    settings: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = datasets.load
    monkeypatch.setattr(foreign, "load", lambda *args, **options: load(*args, **(options | {"download": False})))
    with pytest.raises(InputError, match=message):
        clsim.run("split-digits", "er", labels=5, settings=settings, runs=tmp_path, data_root=tmp_path)


def test_vectors_and_fully_labelled_streams_have_none(tmp_path: Path) -> None:
    own = DataSpec("npz", path="x.npz")
    with pytest.raises(InputError, match=r"found 'mnist' with samples of shape \(7,\), allowed: square images"):
        foreign.images("mnist", (7,), own, tmp_path)
    with pytest.raises(InputError, match=r"found 'mnist' with samples of shape \(1, 8, 6\), allowed: square images"):
        foreign.images("mnist", (1, 8, 6), own, tmp_path)
    with pytest.raises(InputError, match=r"labels\.foreign: found 'mnist' where all samples are labelled"):
        clsim.run("split-digits", "er", settings=["labels.foreign=mnist"], runs=tmp_path)
    # the upper bound of the same scenario has no unlabelled part to put them in
    spec = clsim.spec.resolve.resolve("split-digits", "er-all-labels", settings=[], flags={"stream": {}})
    assert spec.labels == LabelsSpec()


def test_old_fingerprints_hold() -> None:
    partly = RunSpec(labels=LabelsSpec(fraction=0.1))
    assert set(partly.as_dict()["labels"]) == {"fraction", "per_class", "count", "include_labelled", "unlabelled"}
    with_mnist = RunSpec(labels=LabelsSpec(fraction=0.1, foreign="mnist"))
    assert with_mnist.as_dict()["labels"]["foreign"] == "mnist"
    assert with_mnist.fingerprint != partly.fingerprint
    assert "labels" not in RunSpec().as_dict()


def other(side: int, seed: int) -> Dataset:
    """Noise in ten classes, as a data set."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2000, 3, side, side), dtype=np.uint8)
    y = np.random.default_rng(seed + 1).permutation(np.arange(2000) % 10)
    return Dataset("mnist", x, y, x, y, tuple("0123456789"), (0.5,) * 3, (0.2,) * 3)


def run(tmp_path: Path, name: str, strategy: str, *settings: str) -> tuple[Any, Any]:
    given = ["data.per_class=20", "training.epochs=1", *settings]
    record = clsim.run("split-digits", strategy, labels=5, memory=20, settings=given, runs=tmp_path / name)
    return record, torch.load(record.folder / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("strategy", ["pseudo-label", "nncsl"])
def test_their_labels_reach_nothing_and_they_are_in_no_metric(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers = other(8, 5)
    monkeypatch.setattr(foreign, "load", lambda *args, **options: strangers)
    record, saved = run(tmp_path, "one", strategy, "labels.foreign=mnist")
    permuted = dataclasses.replace(strangers, train_y=strangers.train_y[::-1].copy())
    monkeypatch.setattr(foreign, "load", lambda *args, **options: permuted)
    again, twice = run(tmp_path, "two", strategy, "labels.foreign=mnist")
    saved["results"].pop("cost"), twice["results"].pop("cost")
    saved["results"].pop("started"), twice["results"].pop("started")
    assert_same(saved, twice)
    assert record.data["accuracy"] == again.data["accuracy"]
    without, _ = run(tmp_path, "none", strategy)
    assert record.data["accuracy"] != without.data["accuracy"]  # they are learnt from
    # of 40 samples of an experience, as many as there were without them
    assert all(float(40 * share).is_integer() for share in record.data["unlabelled"])
    assert max(record.data["unlabelled"]) > 0.5


def test_images_come_in_the_streams_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8), np.arange(40) % 10
    folder = tmp_path / "clsim-cache" / "cifar10"
    raw = Raw(x, y, x, y, tuple("0123456789"))
    cache.build(folder, "cifar10", lambda: raw)
    found = foreign.images("cifar10", (1, 32, 32), DataSpec(), tmp_path, download=False)
    assert np.array_equal(found, x)
    small = Raw(x[..., :8, :8], y, x[..., :8, :8], y, raw.classes)
    cache.build(tmp_path / "clsim-cache" / "cifar10-8", "cifar10", lambda: small)
    assert foreign.images("cifar10", (1, 8, 8), DataSpec(), tmp_path, download=False).shape == (40, 3, 8, 8)


def test_where_nothing_of_the_stream_is_hidden_no_share_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "load", lambda *args, **options: other(8, 5))
    settings = ["labels.per_class=0", "labels.fraction=1.0", "labels.include_labelled=false", "labels.foreign=mnist"]
    settings += ["data.per_class=20", "training.epochs=1"]
    record = clsim.run("split-digits", "pseudo-label", memory=20, settings=settings, runs=tmp_path)
    assert "unlabelled" not in record.data
    assert record.data["finished"]
