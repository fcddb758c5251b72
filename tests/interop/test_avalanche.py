"""The bridge to Avalanche, whose strategies serve as a second implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import clsim
from clsim.compat import without_warnings
from clsim.data.datasets import data_root, load
from clsim.errors import InputError
from clsim.interop.avalanche import SelectorPolicy
from clsim.pool.pool import Cost
from clsim.records.store import RunRecord
from clsim.selectors.combinators import per_class
from clsim.selectors.herding import herding
from clsim.selectors.kcenter import k_center
from clsim.selectors.random import random
from clsim.spec.resolve import resolve
from clsim.spec.tables import DataSpec
from clsim.streams.build import build
from clsim.training.assemble import assemble
from clsim.training.experience import learn
from clsim.training.machine import isolated
from clsim.training.progress import Quiet
from tests.helpers import pool_of


def run(folder: Path, strategy: str, *settings: str, setting: str = "class", **options: Any) -> RunRecord:
    chosen = [f"learner.options.{name}={value}" for name, value in options.items()]
    return clsim.run("split-digits", strategy, settings=[f"stream.setting={setting}", *settings, *chosen], runs=folder)


def tensors(part: str) -> TensorDataset:
    """The digits as a user would hand them to Avalanche."""
    digits = load(DataSpec(), data_root(None))
    x, y = (digits.train_x, digits.train_y) if part == "train" else (digits.test_x, digits.test_y)
    made = TensorDataset(torch.from_numpy(np.array(x)).float() / 255, torch.from_numpy(np.array(y)))
    made.targets = y.tolist()  # type: ignore[attr-defined]
    return made


def benchmark(**options: Any) -> Any:
    from avalanche.benchmarks import nc_benchmark

    return nc_benchmark(tensors("train"), tensors("test"), n_experiences=5, shuffle=False, **options)


@pytest.mark.parametrize("setting", ["class", "task"])
def test_naive_takes_the_same_steps_as_finetune(setting: str, runs: Path) -> None:
    """Whole batches, so that the order in which they are drawn does not matter: equal up to round-off."""
    settings = ["training.batch_size=2000", "training.epochs=20", "optimizer.lr=0.5"]
    ours = run(runs, "finetune", *settings, setting=setting).accuracy
    theirs = run(runs, "avalanche:Naive", *settings, setting=setting).accuracy
    assert np.abs(ours.to_numpy() - theirs.to_numpy()).max() < 0.015  # one test image of 71


def test_avalanches_replay_is_our_er_with_a_random_memory(runs: Path) -> None:
    """Other draws, the same method: they forget alike, and far less than Naive."""
    theirs = [run(runs, "avalanche:Replay", f"training.threads={i}", mem_size=100) for i in (1, 2)]
    ours = [clsim.run("split-digits", buffer="random", memory=100, seed=s, runs=runs) for s in range(2)]
    means = [np.mean([r.metrics["accuracy"] or 0 for r in records]) for records in (theirs, ours)]
    assert abs(means[0] - means[1]) < 0.05
    assert min(means) > (run(runs, "avalanche:Naive").metrics["accuracy"] or 0) + 0.5


@pytest.mark.parametrize(
    ("name", "options", "setting", "least"),
    [
        ("EWC", {"ewc_lambda": 10.0}, "task", 0.9),
        ("LwF", {"alpha": 1.0, "temperature": 2.0}, "task", 0.9),
        ("LwF", {"alpha": 1.0, "temperature": 2.0}, "class", 0.15),
        ("MAS", {"lambda_reg": 0.01}, "task", 0.9),
        ("SynapticIntelligence", {"si_lambda": 1.0}, "task", 0.9),
        ("GEM", {"patterns_per_exp": 20}, "task", 0.9),
        ("AGEM", {"patterns_per_exp": 20, "sample_size": 20}, "task", 0.9),
        ("ER_ACE", {"mem_size": 100, "batch_size_mem": 10}, "class", 0.7),
        ("Replay", {"mem_size": 100}, "domain", 0.7),
    ],
)
def test_a_strategy_of_avalanche_learns(
    name: str, options: dict[str, Any], setting: str, least: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = run(tmp_path, f"avalanche:{name}", setting=setting, **options)
    assert record.data["finished"]
    assert record.data["spec"]["strategy"] == f"avalanche:{name}"
    assert (record.metrics["accuracy"] or 0) > least
    assert (record.metrics["learning_accuracy"] or 0) > 0.6
    assert "arning" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("avalanche:EWX", {}, r"Avalanche has no strategy 'EWX'; did you mean 'EWC'\?"),
        ("avalanche:EWC", {"ewc_lamda": 1}, r"unknown option 'ewc_lamda' .*did you mean 'ewc_lambda'\?"),
        ("avalanche:EWC", {"optimizer": 1}, "unknown option 'optimizer'"),
    ],
)
def test_what_avalanche_does_not_have_is_refused(
    strategy: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, strategy, **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optimizer.schedule=plateau", "stream.validation=0.2"], "optimizer.schedule: found 'plateau'"),
        (["training.patience=2", "stream.validation=0.2"], "training.patience: found 2"),
        (["controller.name=stability-decay"], "controller.name: found 'stability-decay'"),
        (["training.passes=2"], "training.passes: found 2"),
        (["training.steps=2"], "training.steps: found 2"),
        (["training.last_batch=drop"], "training.last_batch: found 'drop'"),
        (["training.last_batch=drop", "training.capturable=true"], "training.last_batch: found 'drop'"),
        (["optimizer.name=lars"], "optimizer.name: found 'lars'"),
        (["memory.capacity=50"], "memory.capacity: found 50"),
    ],
)
def test_an_option_that_avalanche_would_ignore_is_refused(settings: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{message} with an Avalanche strategy, .*allowed: ") as caught:
        run(tmp_path, "avalanche:Naive", *settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.schedule=cosine"],
        ["optimizer.schedule=step", "optimizer.milestones=[0.5]", "optimizer.warmup=0.3"],
        ["optimizer.momentum=0.9"],
        ["optimizer.name=adam", "optimizer.lr=0.01"],
        ["optimizer.name=nadam", "optimizer.lr=0.01"],
        ["training.precision=bf16"],
    ],
)
def test_naive_has_the_schedule_the_restarts_and_the_precision_of_a_run(settings: list[str], tmp_path: Path) -> None:
    """Whole batches, so that the order in which they are drawn does not matter: the same weights, up to round-off."""
    same = ["training.batch_size=2000", "training.epochs=10", "stream.experiences=2", "optimizer.lr=0.1"]
    ours, theirs = (weights(name, *same, *settings) for name in ("finetune", "avalanche:Naive"))
    plain = weights("avalanche:Naive", *same)
    changed = (ours - plain).abs().max()
    assert changed > 1e-4
    assert (ours - theirs).abs().max() < 0.1 * changed


def weights(strategy: str, *settings: str) -> torch.Tensor:
    """All weights of the net after the stream."""
    spec, device = resolve("split-digits", strategy, settings=list(settings)), torch.device("cpu")
    with isolated(spec, device):
        stream = build(load(spec.data, data_root(None)), spec.stream, spec.seed, device)
        setup, learner = assemble(spec, stream, Cost())
        for position in stream.schedule:
            learn(stream.experience(position), setup, learner, 0, Quiet())
    return torch.cat([parameter.detach().flatten() for parameter in setup.net.parameters()])


@pytest.mark.parametrize("select", [random, per_class(herding), k_center])
def test_a_selector_chooses_what_avalanche_keeps(select: Any) -> None:
    body, head = nn.Flatten(), nn.Linear(64, 10)
    policy = SelectorPolicy(select, 20, body, head, seed=3)
    for experience in benchmark(task_labels=False).train_stream[:2]:
        with without_warnings():
            policy.post_adapt(None, experience)
    kept = [policy.buffer[i] for i in range(len(policy.buffer))]
    x = torch.stack([sample[0].flatten() for sample in kept])
    assert len(kept) == 20
    assert len(x.unique(dim=0)) == 20
    if select is k_center:  # of the second update: out of what was kept and what was new
        first = SelectorPolicy(select, 20, body, head, seed=3)
        stream = benchmark(task_labels=False).train_stream
        first.post_adapt(None, stream[0])
        old = torch.stack([first.buffer[i][0].flatten() for i in range(20)])
        new = torch.stack([stream[1].dataset[i][0].flatten() for i in range(len(stream[1].dataset))])
        whole = torch.cat([old, new])
        expected = whole[k_center(pool_of(whole), 20, rng=torch.Generator()).index]
        assert torch.equal(expected.sort(0).values, x.sort(0).values)
    policy.resize(None, 8)
    assert len(policy.buffer) == 8


def test_a_selector_serves_avalanches_replay() -> None:
    from avalanche.training.plugins import ReplayPlugin
    from avalanche.training.supervised import Naive

    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU()), nn.Linear(100, 10)
    model = nn.Sequential(body, head)
    stream = benchmark(task_labels=False)
    policy = SelectorPolicy(per_class(herding), 60, body, head)
    with without_warnings():
        strategy = Naive(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=10,
            train_epochs=5,
            plugins=[ReplayPlugin(mem_size=60, storage_policy=policy)],
            evaluator=None,
        )
        for experience in stream.train_stream:
            strategy.train(experience)
    assert sorted(np.bincount([int(policy.buffer[i][1]) for i in range(60)]).tolist()) == [6] * 10
    with torch.no_grad():
        x, y = tensors("test").tensors
        assert float((model(x).argmax(1) == y).float().mean()) > 0.7


def test_a_users_benchmark_is_the_same_stream(runs: Path) -> None:
    tables = {"model": {"name": "mlp", "options": {"hidden": [100]}}, "training": {"epochs": 5}}
    settings = ["stream.setting=class", "optimizer.lr=0.05"]
    options: dict[str, Any] = {"buffer": "class-balanced", "memory": 60, "settings": settings}
    theirs = clsim.run(benchmark(task_labels=False), tables=tables, runs=runs, **options)
    ours = clsim.run("split-digits", runs=runs, **options)
    assert theirs.accuracy.shape == (5, 5)
    assert np.abs(theirs.accuracy.to_numpy() - ours.accuracy.to_numpy()).mean() < 0.05
    again = clsim.run(benchmark(task_labels=False), tables=tables, runs=runs, **options)
    assert again.data["started"] == theirs.data["started"]  # read, not run again


def test_a_users_tasks_stay_tasks(runs: Path) -> None:
    made = benchmark(task_labels=True, class_ids_from_zero_in_each_exp=True)
    record = clsim.run(made, "finetune", settings=["optimizer.lr=0.05"], runs=runs)
    assert record.data["classes"] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]  # classes of their own
    assert (record.metrics["accuracy"] or 0) > 0.8


def test_benchmarks_that_differ_in_task_labels_are_different_runs(tmp_path: Path) -> None:
    """Same samples, same classes: the labels alone say whether the task is known when predicting."""
    how: dict[str, Any] = {"settings": ["optimizer.lr=0.05"], "runs": tmp_path}
    blind = clsim.run(benchmark(task_labels=False), "finetune", **how)
    told = clsim.run(benchmark(task_labels=True), "finetune", **how)
    assert blind.data["classes"] == told.data["classes"]
    assert (blind.data["spec"]["stream"]["setting"], told.data["spec"]["stream"]["setting"]) == ("class", "task")
    assert blind.data["fingerprint"] != told.data["fingerprint"]
    assert (told.metrics["accuracy"] or 0) > (blind.metrics["accuracy"] or 0) + 0.3
    again = clsim.run(benchmark(task_labels=False), "finetune", **how)
    assert again.data["started"] == blind.data["started"]
    assert again.metrics == blind.metrics


def test_a_benchmark_says_its_number_of_experiences_and_repeated_classes(tmp_path: Path) -> None:
    from avalanche.benchmarks import ni_benchmark

    made = ni_benchmark(tensors("train"), tensors("test"), n_experiences=2, balance_experiences=True, seed=0)
    stream = clsim.run(made, "finetune", runs=tmp_path).data["spec"]["stream"]
    assert (stream["setting"], stream["experiences"]) == ("domain", 2)


def test_task_labels_that_some_experiences_share_are_refused(tmp_path: Path) -> None:
    from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
    from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset as make_dataset

    x, y = tensors("train").tensors
    parts = []
    for label, classes in ((0, (0, 1)), (0, (2, 3)), (1, (4, 5))):
        rows = torch.isin(y, torch.tensor(classes))
        samples, targets = TensorDataset(x[rows], y[rows]), y[rows].tolist()
        parts.append(make_dataset(samples, targets=targets, task_labels=[label] * len(targets)))
    made = with_task_labels(with_classes_timeline(benchmark_from_datasets(train=parts, test=parts)))
    with pytest.raises(InputError, match=r"task labels \[\[0\], \[0\], \[1\]\], allowed: another one in each"):
        clsim.run(made, "finetune", runs=tmp_path)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(12, 1, 4, 4), r"floats in \[0, 1\] \(no normalisation\)"),
        (torch.zeros(12, 2, 3, 4, 4), "allowed: PIL images"),
    ],
)
def test_a_benchmark_of_another_form_is_refused(x: torch.Tensor, message: str, tmp_path: Path) -> None:
    from avalanche.benchmarks import nc_benchmark

    made = TensorDataset(x, torch.arange(12) % 2)
    made.targets = (torch.arange(12) % 2).tolist()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=message) as caught:
        clsim.run(nc_benchmark(made, made, n_experiences=2, task_labels=False), runs=tmp_path)
    assert "\n" not in str(caught.value)


def test_something_that_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scenario: found a (list|int), allowed: a name, a path, or a benchmark"):
        clsim.run([1, 2], runs=tmp_path)


def test_a_benchmark_has_no_foreign_samples_and_its_learners_have_both_readouts(tmp_path: Path) -> None:
    tables = {"labels": {"per_class": 5, "foreign": "mnist"}}
    with pytest.raises(
        InputError, match=r"labels\.foreign: found 'mnist' with a benchmark, allowed: with data\.dataset"
    ):
        clsim.run(benchmark(task_labels=False), tables=tables, runs=tmp_path)
    few = clsim.run("split-digits", "avalanche:Naive", labels=5, settings=["data.per_class=20"], runs=tmp_path)
    assert few.data["readouts"]["nearest-class-mean"][-1][-1] > 0
