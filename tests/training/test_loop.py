"""The loop: the same seed gives the same numbers, watching changes nothing, and memory helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.data import datasets
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.randomness import Randomness
from clsim.records.store import RunRecord, Store
from clsim.spec.resolve import resolve
from clsim.streams import build
from clsim.streams.stream import Stream
from clsim.training import loop, machine, progress
from tests.helpers import assert_same

SMALL = ["data.per_class=40", "training.epochs=2"]


def run(folder: Path, strategy: str = "er", *settings: str, **arguments: Any) -> RunRecord:
    arguments = {"memory": 40, **arguments} if strategy not in ("finetune", "joint", "cumulative") else arguments
    return clsim.run("split-digits", strategy, settings=[*SMALL, *settings], runs=folder, **arguments)


def checkpoint(record: RunRecord) -> dict[str, Any]:
    return torch.load(record.folder / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("strategy", ["er", "finetune", "joint", "cumulative", "gdumb"])
def test_the_same_seed_gives_the_same_numbers(strategy: str, runs: Path, tmp_path: Path) -> None:
    first, second = run(runs, strategy), run(tmp_path, strategy)
    other = run(runs, strategy, seed=1)
    assert first.accuracy.equals(second.accuracy)
    assert_same(checkpoint(first)["learner"], checkpoint(second)["learner"])
    assert not first.accuracy.equals(other.accuracy)


@pytest.mark.parametrize("buffer", ["reservoir", "kcenter"])
def test_evaluation_changes_no_weight(buffer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(learner: Any, stream: Stream, experiences: int, spec: Any, cost: Any) -> list[float]:
        return [float("nan")] * len(stream)

    def draws(self: Sgd, x: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        return predict(self, x, task)

    predict, settings = Sgd.predict, ["model.name=tests.helpers:mlp_with_dropout", "evaluation.rows=all"]
    states = [checkpoint(run(tmp_path / "all", "er", *settings, buffer=buffer))]
    states.append(checkpoint(run(tmp_path / "seen", "er", settings[0], "evaluation.rows=seen", buffer=buffer)))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", nothing)
        states.append(checkpoint(run(tmp_path / "none", "er", *settings, buffer=buffer)))
    monkeypatch.setattr(Sgd, "predict", draws)
    states.append(checkpoint(run(tmp_path / "draws", "er", *settings, buffer=buffer)))
    for other in states[1:]:
        for part in ("learner", "memory", "randomness"):
            assert_same(states[0][part], other[part])


def test_a_run_leaves_torchs_own_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run(tmp_path, "er", "training.threads=2")
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_the_global_generator_does_not_decide_a_run(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = run(tmp_path / "a", "er", "model.name=tests.helpers:mlp_with_dropout")
    torch.manual_seed(2)
    assert first.accuracy.equals(run(tmp_path / "b", "er", "model.name=tests.helpers:mlp_with_dropout").accuracy)


def test_a_record_says_what_happened(tmp_path: Path) -> None:
    record = run(tmp_path)
    losses = np.load(record.folder / "losses.npz")
    steps = sum(c["steps"] for c in record.data["cost"])
    assert steps == 5 * 2 * 8  # experiences · epochs · batches of 10 out of 80
    assert losses["new"].shape == losses["memory"].shape == (steps,)
    assert not np.isnan(losses["new"]).any()
    assert np.isnan(losses["memory"][0])  # nothing to replay yet
    assert not np.isnan(losses["memory"][1:]).any()
    cost = record.data["cost"][-1]
    assert cost["memory_bytes"] == 40 * 64
    # new and replayed samples, then all 355 test images; a reservoir asks the net nothing
    assert cost["forward_passes"] == 8 * 2 * 20 + 355
    assert record.data["versions"]["clsim"] == clsim.__version__
    assert record.data["classes"] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert record.accuracy.notna().all().all()


def test_only_seen_experiences_are_tested_when_asked(runs: Path) -> None:
    matrix = run(runs, "er", "evaluation.rows=seen").accuracy
    assert matrix.isna().to_numpy().tolist() == np.triu(np.ones((5, 5), bool), 1).tolist()


def test_joint_training_fills_the_last_row_alone(runs: Path) -> None:
    matrix = run(runs, "joint").accuracy
    assert matrix.iloc[:-1].isna().all().all()
    assert matrix.iloc[-1].notna().all()


def test_the_validation_share_is_tested_and_not_learnt(runs: Path) -> None:
    record = run(runs, "er", "stream.validation=0.25")
    assert all(value is not None for value in record.data["validation"])
    assert sum(c["steps"] for c in record.data["cost"]) == 5 * 2 * 6


def test_memory_prevents_forgetting_and_more_of_it_prevents_more(runs: Path) -> None:
    def forgetting(strategy: str, **arguments: Any) -> float:
        found = [run(runs, strategy, "data.per_class=0", seed=s, **arguments).metrics["forgetting"] for s in range(2)]
        return sum(v for v in found if v is not None) / 2

    none, little, much = forgetting("finetune"), forgetting("er", memory=20), forgetting("er", memory=200)
    assert none > little + 0.1 > much + 0.2


def test_joint_and_cumulative_training_are_the_bound(runs: Path) -> None:
    accuracy = {
        s: run(runs, s, "data.per_class=0", "training.epochs=5").metrics["accuracy"] or 0
        for s in ("finetune", "er", "joint", "cumulative")
    }
    assert accuracy["finetune"] < accuracy["er"] < min(accuracy["joint"], accuracy["cumulative"])


def test_momentum_restarts_with_an_experience_unless_told_otherwise(runs: Path) -> None:
    fresh = run(runs, "er", "optimizer.momentum=0.9", "optimizer.lr=0.01")
    carried = run(runs, "er", "optimizer.momentum=0.9", "optimizer.lr=0.01", "optimizer.restart=false")
    assert fresh.accuracy.iloc[0].equals(carried.accuracy.iloc[0])
    assert not fresh.accuracy.iloc[1:].equals(carried.accuracy.iloc[1:])


@pytest.mark.parametrize(
    "settings",
    [
        ["training.precision=bf16"],
        ["training.channels_last=false", "model.name=convnet3"],
        ["model.name=slim-resnet18", "data.per_class=11"],  # 22 images: a last batch of two
        [
            "model.name=slim-resnet18",
            "data.per_class=21",
            "training.batch_size=41",
            "training.epochs=12",
        ],  # one left over
        ["data.augment=['crop', 'flip', 'color']"],
        ["optimizer.name=adamw", "optimizer.lr=0.001", "optimizer.schedule=cosine", "optimizer.warmup=0.1"],
        ["optimizer.name=nadam", "optimizer.lr=0.001"],
        ["training.passes=3", "memory.per=class", "memory.capacity=3"],
        ["stream.setting=class"],
        ["stream.setting=domain"],
        ["stream.first=6", "stream.experiences=3", "stream.order=seeded"],
    ],
    ids=lambda s: s[0],
)
def test_every_switch_learns(settings: list[str], runs: Path) -> None:
    record = run(runs, "er", "stream.setting=task", *settings)
    assert record.data["finished"]
    assert not record.data["diverged"]
    assert (record.metrics["learning_accuracy"] or 0) > (0.4 if settings[0].startswith("stream") else 0.6)


def test_a_diverged_run_says_so(runs: Path) -> None:
    assert run(runs, "finetune", "optimizer.lr=1e30").data["diverged"]


def test_no_experience_is_begun_when_there_are_more_than_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stream\.experiences: found 11.* 10 classes"):
        run(tmp_path, "er", "stream.experiences=11")
    assert not list(tmp_path.glob("*/record.json"))


@pytest.mark.parametrize("name", ["cuda:7", "tpu", "meta", "cuda:-1"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"^training\.device: found '{name}', .*allowed: auto, cpu"):
        machine.device_of(name)


def test_every_purpose_has_a_generator_of_its_own() -> None:
    one, other = (Randomness(0, torch.device("cpu")) for _ in range(2))
    torch.rand(5, generator=one.order)
    assert torch.equal(torch.rand(5, generator=one.memory), torch.rand(5, generator=other.memory))
    assert not torch.equal(torch.rand(5, generator=one.augment), torch.rand(5, generator=other.order))


def test_a_stream_and_a_spec_make_a_run_without_names(tmp_path: Path) -> None:
    spec = resolve({"stream": {"setting": "class", "experiences": 2}, "model": {"name": "linear"}}, "er")
    dataset = datasets.load(spec.data, tmp_path)
    stream = build.build(dataset, spec.stream, spec.seed, torch.device("cpu"))
    with machine.isolated(spec, stream.device), Store(tmp_path / "runs").open(spec) as folder:
        record = loop.train(spec, stream, folder, progress.Quiet())
    assert record.accuracy.shape == (2, 2)
    found = Store(tmp_path / "runs").folder(spec).record()
    assert found is not None
    assert found.data["finished"]


def test_rows_that_are_not_asked_for_are_empty_and_no_other_number_changes(tmp_path: Path) -> None:
    settings = ["stream.experiences=5", "stream.validation=0.2", "evaluation.rows=seen"]
    whole, part = (run(tmp_path, "er", *settings, f"evaluation.every={n}") for n in (1, 2))
    assert "every" not in whole.data["spec"]["evaluation"]
    for i, (row, found) in enumerate(zip(whole.data["accuracy"], part.data["accuracy"], strict=True)):
        assert found == (row if i in (1, 3, 4) else [None] * 5)
    assert part.metrics["accuracy"] == whole.metrics["accuracy"]
    assert part.metrics.get("forgetting") is None
    assert part.data["validation"] == whole.data["validation"]
    assert_same(checkpoint(whole)["learner"], checkpoint(part)["learner"])
    assert_same(checkpoint(whole)["memory"], checkpoint(part)["memory"])
    assert [cost["evaluate_passes"] > 90 for cost in part.data["cost"]] == [False, True, False, True, True]
