"""Orders of tasks: which comes when, by hand; by a joint run, that is made once; and the same whoever asks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import clsim
from clsim.cli.main import app
from clsim.data import superclasses
from clsim.data.cache import Dataset
from clsim.errors import InputError
from clsim.execution import plan
from clsim.records.store import Store
from clsim.spec.resolve import prerequisites, resolve
from clsim.spec.tables import StreamSpec
from clsim.streams import build as division
from tests.files import agreeing, rewrite
from tests.streams.test_streams import build, dataset

CPU = torch.device("cpu")
EASY = ["stream.setting=task", "data.per_class=10", "training.epochs=1"]


def in_order(tasks: str, accuracy: list[float | None], experiences: int = 3) -> list[int]:
    spec = StreamSpec(experiences=experiences, tasks=tasks)  # type: ignore[arg-type]
    return division.order_of_tasks(spec, 0, accuracy)


def test_easy_and_hard_first_sort_by_accuracy_and_ties_stay() -> None:
    accuracy: list[float | None] = [0.7, 0.9, 0.2, 0.9]
    assert in_order("easy-first", accuracy, 4) == [1, 3, 0, 2]
    assert in_order("hard-first", accuracy, 4) == [2, 0, 1, 3]
    assert in_order("given", accuracy, 4) == [0, 1, 2, 3]


def of_names(names: Sequence[str]) -> Dataset:
    """Two samples a class."""
    y = np.arange(len(names)).repeat(2)
    x = np.zeros((len(y), 1, 2, 2), dtype=np.uint8)
    return Dataset("mine", x, y, x, y, tuple(names), (0.0,), (1.0,))


@pytest.mark.parametrize("experiences", [20, 10])
def test_super_classes_come_one_after_the_other(experiences: int) -> None:
    names = sorted(name for members in superclasses.CIFAR100.values() for name in members)
    assert len(set(names)) == 100
    stream = division.build(of_names(names), StreamSpec(experiences=experiences, order="superclass"), 0, CPU)
    groups, each = list(superclasses.CIFAR100.values()), 20 // experiences
    for position, classes in enumerate(stream.classes):
        wanted = {name for members in groups[each * position : each * (position + 1)] for name in members}
        assert {names[label] for label in classes} == wanted
    shipped = resolve("condense-cifar100-superclass", "gdumb").stream
    assert (shipped.order, shipped.experiences) == ("superclass", 20)


def test_other_classes_have_no_super_classes() -> None:
    with pytest.raises(InputError, match="found 'superclass' with classes 0, 1, 2 …, allowed: with"):
        division.build(of_names("012"), StreamSpec(experiences=3, order="superclass"), 0, CPU)


@pytest.mark.parametrize("accuracy", [[], [0.1, 0.2], [0.1, None, 0.3], [0.1] * 4])
def test_there_must_be_an_accuracy_a_task(accuracy: list[float | None]) -> None:
    with pytest.raises(InputError, match=r"stream\.difficulty: found \d accuracies for 3 tasks"):
        in_order("easy-first", accuracy)


def test_a_seeded_order_of_tasks_keeps_the_tasks_whole() -> None:
    spec = StreamSpec(experiences=3, tasks="seeded")
    given = build(StreamSpec(experiences=3))
    orders = {build(spec, seed=s).classes for s in range(20)}
    assert {frozenset(classes) for classes in orders} == {frozenset(given.classes)}
    assert len(orders) == 6  # all of them
    assert build(spec, seed=3).classes == build(spec, seed=3).classes


def test_a_task_is_the_same_wherever_it_comes() -> None:
    """Its samples, keys and held-out share; only its number follows its place."""
    given = build(StreamSpec(experiences=3, validation=0.3))
    spec = StreamSpec(experiences=3, validation=0.3, tasks="hard-first")
    turned = division.build(dataset(), spec, 0, CPU, [0.9, 0.2, 0.5])
    assert turned.classes == (given.classes[1], given.classes[2], given.classes[0])
    tests = turned.tests.index.split(turned.test_sizes)
    for place, task in enumerate([1, 2, 0]):
        ours, theirs = turned.experience(place), given.experience(task)
        for mine, other in ((ours.train, theirs.train), (ours.validation, theirs.validation)):
            assert mine is not None
            assert other is not None
            assert torch.equal(mine.index, other.index)
            assert torch.equal(mine.key, other.key)
            assert mine.task.unique().tolist() == [place]
        assert torch.equal(tests[place], given.tests.index.split(given.test_sizes)[task])
    assert torch.equal(turned.visible, given.visible[[1, 2, 0]])


def test_the_joint_run_is_made_once_and_decides(tmp_path: Path) -> None:
    """The order is that of the accuracies in its record, so a record with others gives another order."""
    settings = [*EASY, "stream.tasks=hard-first"]
    spec = resolve("split-digits", "finetune", settings=settings)
    (first,) = prerequisites(spec)
    joint, command = first.spec, first.command
    assert (
        spec.stream.difficulty == joint.fingerprint == resolve("split-digits", "joint", settings=EASY[:2]).fingerprint
    )
    first = clsim.run("split-digits", "finetune", settings=settings, runs=tmp_path)
    record = Store(tmp_path).folder(joint).record()
    assert record is not None
    assert record.data["command"] == command
    assert record.data["finished"]
    accuracy = record.data["accuracy"][-1]
    given = [[2 * t, 2 * t + 1] for t in range(5)]
    assert first.data["classes"] == [given[t] for t in sorted(range(5), key=lambda t: accuracy[t])]

    path = tmp_path / joint.fingerprint / "record.json"
    changed = json.loads(path.read_text())
    changed["accuracy"][-1] = [0.5, 0.1, 0.4, 0.2, 0.3]
    rewrite(path, agreeing(changed))
    other = clsim.run("split-digits", "si", settings=settings, runs=tmp_path)
    assert other.data["classes"] == [given[t] for t in (1, 3, 4, 2, 0)]
    assert path.stat().st_size  # read, not made again
    assert json.loads(path.read_text())["accuracy"] == changed["accuracy"]


def test_the_command_of_the_joint_run_makes_it(runs: Path) -> None:
    settings = [*EASY, "stream.tasks=easy-first", "model.options.hidden=[32]", "data.per_class=7"]
    (first,) = prerequisites(resolve("split-digits", "ewc", settings=settings, seed=3))
    joint, command = first.spec, first.command
    words = shlex.split(command)
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert resolve("split-digits", "joint", settings=given, seed=3) == joint
    assert (joint.model.options, joint.data.per_class) == ({"hidden": [32]}, 7)


def test_strategies_share_the_joint_run_and_seeds_do_not() -> None:
    settings = [*EASY, "stream.tasks=easy-first"]
    names = {resolve("split-digits", s, settings=settings).stream.difficulty for s in ("ewc", "er", "gem", "joint")}
    assert len(names) == 1
    study = plan.read({"strategy": ["ewc", "si"], "seeds": 2, "set": {"stream.tasks": ["easy-first"]}}, "here")
    planned = plan.plan(study, Store(Path("nowhere")))
    assert len({run.spec.fingerprint for run in planned}) == 4
    assert len({run.spec.stream.difficulty for run in planned}) == 2
    for run in planned:
        assert prerequisites(run.spec)[0].spec.fingerprint == run.spec.stream.difficulty


def test_a_run_of_ones_own_may_say_what_is_hard(tmp_path: Path) -> None:
    own = clsim.run("split-digits", "er", settings=EASY, runs=tmp_path)
    settings = [*EASY, "stream.tasks=easy-first", f"stream.difficulty={own.data['fingerprint']}"]
    record = clsim.run("split-digits", "finetune", settings=settings, runs=tmp_path)
    order = np.argsort([-a for a in own.data["accuracy"][-1]], kind="stable")
    assert [labels[0] // 2 for labels in record.data["classes"]] == order.tolist()
    unknown = [*EASY, "stream.tasks=easy-first", f"stream.difficulty={'0' * 16}"]
    with pytest.raises(InputError, match=r"no finished run 0000000000000000 in .*run the strategy joint"):
        clsim.run("split-digits", "finetune", settings=unknown, runs=tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"difficulty": "0" * 16},
        {"difficulty": "0" * 16, "tasks": "seeded"},
        {"difficulty": "../../elsewhere", "tasks": "easy-first"},
        {"difficulty": "0" * 15, "tasks": "hard-first"},
    ],
)
def test_a_difficulty_is_a_fingerprint_where_it_counts(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^stream\.difficulty: found .*allowed: the fingerprint of a run"):
        StreamSpec(**wrong)


def test_old_runs_keep_their_names() -> None:
    stream = resolve("split-digits", "er").as_dict()["stream"]
    assert not {"tasks", "difficulty"} & set(stream)
    assert not {"sequence", "imbalance"} & set(resolve("split-digits", "er").as_dict()["data"])


def test_seeds_with_orders_of_their_own_are_pooled(tmp_path: Path) -> None:
    settings = [word for text in [*EASY, "stream.tasks=easy-first"] for word in ("--set", text)]
    run = ["run", "--strategy", "finetune", "--seeds", "2", "--runs", str(tmp_path)]
    for extra in (settings, settings[:-2]):
        made = CliRunner().invoke(app, [*run, *extra])
        assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(app, ["report", "accuracy", "--runs", str(tmp_path), "--format", "csv"]).output
    rows = [line for line in shown.splitlines() if line.startswith("finetune")]
    assert len(rows) == 2, shown  # easy-first and given, each over both seeds
    assert any("easy-first" in row for row in rows)
    assert any("given" in row for row in rows)
