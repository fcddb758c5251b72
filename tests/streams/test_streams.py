"""Streams: every sample where it belongs, once; against Avalanche's own benchmark, and by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import TensorDataset

import clsim
from clsim.compat import import_torchvision
from clsim.data.cache import Dataset, moments
from clsim.errors import InputError
from clsim.spec.tables import StreamSpec
from clsim.streams import build as build_module
from clsim.streams.stream import Stream
from tests.commands import refused

CPU = torch.device("cpu")


def dataset(classes: int = 6, per_class: int = 10, *, shape: tuple[int, ...] = (1, 5, 5)) -> Dataset:
    """Images (or vectors) whose first value is their row, so that a sample shows where it came from."""
    n = classes * per_class
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    x = x.astype(np.float32) if len(shape) == 1 else x
    x.reshape(n, -1)[:, 0] = np.arange(n) % 256
    y = rng.permutation(np.arange(n) % classes)
    mean, std = moments(x)
    names = tuple(f"class {i}" for i in range(classes))
    return Dataset("made", x, y, x[: n // 2], y[: n // 2], names, tuple(mean), tuple(std))


def build(spec: StreamSpec, data: Dataset | None = None, seed: int = 0) -> Stream:
    return build_module.build(data or dataset(), spec, seed, CPU)


@pytest.mark.parametrize("order", ["fixed", "seeded"])
@pytest.mark.parametrize("setting", ["task", "class"])
def test_a_split_is_avalanches(order: str, setting: str) -> None:
    import_torchvision()
    from avalanche.benchmarks import nc_benchmark

    data = dataset()
    ours = build(StreamSpec(setting=setting, experiences=3, order=order), data, seed=5)  # type: ignore[arg-type]
    samples = TensorDataset(torch.from_numpy(data.train_x), torch.from_numpy(data.train_y))
    samples.targets = data.train_y.tolist()  # type: ignore[attr-defined]
    flat = [c for labels in ours.classes for c in labels]
    theirs = nc_benchmark(
        samples, samples, n_experiences=3, task_labels=setting == "task", shuffle=False, fixed_class_order=flat
    )
    for i, experience in enumerate(theirs.train_stream):
        mine = ours.experience(i)
        assert set(mine.classes) == set(experience.classes_in_this_experience)
        rows = [int(experience.dataset[j][0].flatten()[0]) for j in range(len(experience.dataset))]
        assert sorted(mine.train.index.tolist()) == sorted(rows)
        assert set(mine.train.task.tolist()) == {i}
        assert {experience.dataset[j][2] for j in range(3)} == {i if setting == "task" else 0}


@pytest.mark.parametrize(
    "spec",
    [
        StreamSpec(experiences=3),
        StreamSpec(experiences=1),
        StreamSpec(experiences=6, order="seeded"),
        StreamSpec(experiences=3, first=2, setting="class"),
        StreamSpec(experiences=5, first=2, setting="class"),
        StreamSpec(experiences=3, sizes=(1, 2, 3)),
        StreamSpec(experiences=3, validation=0.2),
    ],
)
def test_every_sample_appears_once_with_its_own_label(spec: StreamSpec) -> None:
    data = dataset()
    stream = build(spec, data)
    seen: list[int] = []
    for i in stream.schedule:
        experience = stream.experience(i)
        for part in (experience.train, experience.validation):
            if part is not None:
                assert torch.equal(part.x, torch.from_numpy(data.train_x[part.index.numpy()]))
                assert torch.equal(part.y, torch.from_numpy(data.train_y[part.index.numpy()]))
                assert set(part.y.tolist()) <= set(experience.classes)
                seen += part.index.tolist()
    assert sorted(seen) == list(range(60))
    assert sorted(stream.tests.index.tolist()) == list(range(30))
    assert sum(stream.test_sizes) == 30
    assert stream.tests.task.bincount(minlength=len(stream)).tolist() == stream.test_sizes
    for i, part in enumerate(stream.tests.y.split(stream.test_sizes)):
        assert set(part.tolist()) <= set(stream.classes[i])


def test_sizes_of_experiences() -> None:
    assert [len(c) for c in build(StreamSpec(experiences=3, sizes=(1, 2, 3))).classes] == [1, 2, 3]
    assert [len(c) for c in build(StreamSpec(experiences=3, first=2)).classes] == [2, 2, 2]
    assert [len(c) for c in build(StreamSpec(experiences=5, first=2)).classes] == [2, 1, 1, 1, 1]
    assert build(StreamSpec(experiences=3)).classes == ((0, 1), (2, 3), (4, 5))


def test_a_seeded_order_follows_the_seed() -> None:
    spec = StreamSpec(experiences=6, order="seeded")
    assert build(spec, seed=1).classes == build(spec, seed=1).classes
    assert len({build(spec, seed=s).classes for s in range(10)}) > 5


def test_a_task_sees_its_own_classes_alone_and_others_see_all() -> None:
    visible = build(StreamSpec(experiences=3, setting="task")).visible
    assert visible.sum(1).tolist() == [2, 2, 2]
    assert visible.sum(0).tolist() == [1] * 6
    assert build(StreamSpec(experiences=3, setting="class")).visible.all()


def test_domains_share_their_labels() -> None:
    data = dataset()
    stream = build(StreamSpec(experiences=3, setting="domain"), data)
    assert stream.visible.shape == (3, 2)
    for i in range(3):
        train = stream.experience(i).train
        assert torch.equal(train.y + 2 * i, torch.from_numpy(data.train_y[train.index.numpy()]))
    assert set(stream.tests.y.tolist()) == {0, 1}
    assert stream.classes_seen(2) == 2


def test_cumulative_and_joint_presentation() -> None:
    cumulative = build(StreamSpec(experiences=3, presentation="cumulative"))
    assert [len(cumulative.experience(i).train) for i in cumulative.schedule] == [20, 40, 60]
    assert cumulative.experience(2).train.task.bincount().tolist() == [20, 20, 20]
    joint = build(StreamSpec(experiences=3, presentation="joint"))
    assert list(joint.schedule) == [2]
    assert len(joint.experience(2).train.index.unique()) == 60


def test_the_validation_share_is_stratified_and_the_same_each_time() -> None:
    stream = build(StreamSpec(experiences=3, validation=0.3))
    for i in range(3):
        experience = stream.experience(i)
        assert experience.validation is not None
        assert experience.validation.y.bincount()[list(experience.classes)].tolist() == [3, 3]
        assert not set(experience.validation.index.tolist()) & set(experience.train.index.tolist())
        again = stream.experience(i).validation
        assert again is not None
        assert torch.equal(again.index, experience.validation.index)
    other = build(StreamSpec(experiences=3, validation=0.3), seed=1).experience(0).validation
    first = stream.experience(0).validation
    assert other is not None
    assert first is not None
    assert not torch.equal(other.index.sort().values, first.index.sort().values)


def test_keys_are_uniform_and_follow_the_seed_alone() -> None:
    data = dataset(per_class=400)
    keys = torch.cat([build(StreamSpec(experiences=3), data).experience(i).train.key for i in range(3)])
    assert stats.kstest(keys.numpy(), "uniform").pvalue > 0.01
    assert len(keys.unique()) > 2390  # of 2400: experiences do not share their draws
    again = build(StreamSpec(experiences=3), data).experience(0).train.key
    assert torch.equal(again, keys[: len(again)])
    assert not torch.equal(build(StreamSpec(experiences=3), data, seed=1).experience(0).train.key, again)


def test_permuted_pixels_are_the_same_pixels_elsewhere() -> None:
    data = dataset()
    stream = build(StreamSpec(kind="permuted", setting="class", experiences=3), data)
    original = torch.from_numpy(data.train_x)
    first, second, third = (stream.experience(i).train.x for i in range(3))
    assert torch.equal(first, original)
    assert not torch.equal(second, third)
    assert torch.equal(second.flatten(1).sort(1).values, original.flatten(1).sort(1).values)
    source = second[0].flatten().tolist()
    assert len(set(source)) > 10
    moved = [original[0].flatten().tolist().index(v) for v in source if original[0].flatten().tolist().count(v) == 1]
    test = stream.tests.x.split(stream.test_sizes)[1]
    assert torch.equal(test, second[:30])  # the test images of an experience are permuted alike
    assert moved != sorted(moved)
    assert stream.experience(1).train.task.unique().tolist() == [1]


def test_vectors_are_permuted_too_and_not_rotated() -> None:
    data = dataset(shape=(7,))
    stream = build(StreamSpec(kind="permuted", setting="domain", experiences=2), data)
    assert torch.equal(stream.experience(1).train.x.sort(1).values, torch.from_numpy(data.train_x).sort(1).values)
    with pytest.raises(InputError, match="'rotated' with a data set of vectors"):
        build(StreamSpec(kind="rotated", setting="domain", experiences=2), data)


def test_rotation_turns_counter_clockwise() -> None:
    x = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(build_module.rotation(0)(x), x)
    assert torch.equal(build_module.rotation(90)(x), x.rot90(1, (2, 3)))
    assert torch.equal(build_module.rotation(180)(x), x.flip(2, 3))
    angles = build(StreamSpec(kind="rotated", setting="domain", experiences=2))
    assert torch.equal(angles.experience(1).train.x, torch.from_numpy(dataset().train_x).rot90(1, (2, 3)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (StreamSpec(experiences=7), "stream.experiences: found 7 with 6 classes, allowed: 1 to 6"),
        (
            StreamSpec(experiences=4),
            "found 4, which does not divide 6 classes evenly; allowed: 1, 2, 3, 6, or stream.sizes",
        ),
        (StreamSpec(experiences=3, first=6), "stream.first: found 6 with 6 classes, allowed: 1 to 4"),
        (StreamSpec(experiences=3, first=3), "found 3, which does not divide 3 classes evenly; allowed: 2, 4"),
        (StreamSpec(experiences=2, sizes=(1, 2)), "stream.sizes: found [1, 2], 3 classes, allowed: 6 in all"),
    ],
)
def test_classes_that_cannot_be_divided_so(spec: StreamSpec, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": (1, 2)},
        {"sizes": (0, 1, 5), "experiences": 3},
        {"sizes": (1,) * 5, "first": 1},
        {"kind": "permuted", "setting": "class", "first": 2},
    ],
)
def test_sizes_that_contradict_the_rest(wrong: dict) -> None:
    with pytest.raises(InputError, match=r"^stream\.(sizes|kind): found"):
        StreamSpec(**wrong)


def test_a_class_without_test_samples_is_refused() -> None:
    data = dataset()
    kept = data.test_y != 3
    poorer = Dataset(
        "made", data.train_x, data.train_y, data.test_x[kept], data.test_y[kept], data.classes, data.mean, data.std
    )
    with pytest.raises(InputError, match="data: class 'class 3' has no test samples, allowed: at least one"):
        build(StreamSpec(experiences=3), poorer)


def vectors(path: Path) -> str:
    rng = np.random.default_rng(0)
    centres, y = 3 * rng.normal(size=(6, 8)), rng.integers(0, 6, 300)
    x = (centres[y] + rng.normal(size=(300, 8))).astype(np.float32)
    np.savez(path, x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    return str(path)


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("buffer", ["reservoir", "random", "class-balanced", "herding", "kcenter"])
def test_embeddings_are_learnt_with_every_buffer(model: str, buffer: str, tmp_path: Path) -> None:
    settings = ["data.dataset=npz", f"data.path={vectors(tmp_path / 'v.npz')}", "stream.experiences=3"]
    arguments = {"buffer": buffer, "memory": 24, "runs": tmp_path, "data_root": tmp_path}
    record = clsim.run(settings=[*settings, f"model.name={model}"], **arguments)  # type: ignore[arg-type]
    assert (record.metrics["accuracy"] or 0) > 0.8
    assert record.data["cost"][-1]["memory_bytes"] == 24 * 8 * 4


def test_a_model_of_images_refuses_vectors(tmp_path: Path) -> None:
    settings = ["data.dataset=npz", f"data.path={vectors(tmp_path / 'v.npz')}", "model.name=convnet3"]
    with pytest.raises(
        InputError, match=r"model\.name: convnet3 needs images, found vectors of width 8; allowed: linear, mlp"
    ):
        clsim.run(settings=[*settings, "stream.experiences=3"], runs=tmp_path, data_root=tmp_path)


@pytest.mark.parametrize("more", [[], ["batch.selector=rho-loss", "irreducible.source=held-out"]])
@pytest.mark.parametrize("settings", [["stream.validation=1e-300"], ["stream.validation=0.9", "data.per_class=1"]])
def test_a_share_that_holds_out_nothing_is_refused(
    settings: list[str], more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for setting in (*settings, *more) for word in ("--set", setting)]
    said = refused(capsys, "run", "--quiet", *words, "--runs", str(tmp_path / "runs"))
    assert "which holds out nothing of experiences of " in said
    assert "training samples at most; allowed: 0, or a share that holds out one sample of a class or more" in said


@pytest.mark.parametrize("setting", ["task", "class", "domain"])
def test_a_stream_that_ends_early_is_the_beginning_of_the_whole(setting: str) -> None:
    spec = StreamSpec(setting=setting, experiences=3, validation=0.3, tasks="seeded", order="seeded")  # type: ignore[arg-type]
    whole, early = build(spec, seed=2), build(replace(spec, length=2), seed=2)
    assert (len(early), early.tasks, list(early.schedule)) == (2, 3, [0, 1])
    assert early.names == whole.names
    assert torch.equal(early.visible, whole.visible)
    assert early.test_sizes == whole.test_sizes[:2]
    assert torch.equal(early.tests.index, whole.tests.index[: sum(early.test_sizes)])
    for i in range(2):
        a, b = early.experience(i), whole.experience(i)
        assert a.classes == b.classes
        for part in ("train", "validation"):
            for column in ("index", "y", "key", "task"):
                assert torch.equal(getattr(getattr(a, part), column), getattr(getattr(b, part), column))


def test_a_stream_without_test_samples_is_tested_on_what_is_held_out() -> None:
    stream = build(StreamSpec(experiences=3, validation=0.3))
    held = stream.tested_on_held_out()
    parts = held.tests.index.split(held.test_sizes)
    assert [len(part) for part in parts] == held.held_out_sizes == [6, 6, 6]
    for i, part in enumerate(parts):
        experience = held.experience(i)
        assert experience.validation is not None
        assert torch.equal(part, experience.validation.index)
        assert not {*part.tolist()} & {*experience.train.index.tolist()}
    assert sum(stream.test_sizes) == 30  # the stream itself stays
    with pytest.raises(InputError, match=r"evaluation.on: found 'validation', and nothing is held out of experience 1"):
        build(StreamSpec(experiences=3)).tested_on_held_out()


@pytest.mark.parametrize("strategy", ["er", "gem", "packnet", "hat", "icarl"])
def test_the_run_of_a_stream_that_ends_early_is_the_beginning_of_the_whole_run(strategy: str, tmp_path: Path) -> None:
    settings = ["data.per_class=20", "training.epochs=1", "model.options.hidden=[16]", "evaluation.rows=seen"]
    settings += ["stream.setting=task", "memory.capacity=50"]
    settings += ["memory.reserve=task"] if strategy == "gem" else []
    whole, early = (
        clsim.run("split-digits", strategy, settings=[*settings, *more], runs=tmp_path).accuracy.to_numpy()
        for more in ([], ["stream.length=2"])
    )
    assert early.shape == (2, 2)
    assert np.array_equal(early, whole[:2, :2], equal_nan=True)


def test_a_length_is_at_most_the_number_of_experiences() -> None:
    with pytest.raises(InputError, match=r"stream.length: found 4 with 3 experiences, allowed: 0 to 3"):
        StreamSpec(experiences=3, length=4)
