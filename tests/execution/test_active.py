"""The shipped scenarios of one experience, in which a selector asks for labels: pool-based active learning."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import clsim
from clsim.data.datasets import load
from clsim.errors import InputError
from clsim.execution import plan
from clsim.records.store import RunRecord, Store
from clsim.spec import registry
from clsim.spec.resolve import resolve
from clsim.spec.tables import DataSpec
from tests.data.test_sequences import RAMP, svhn, usps

__all__ = ["svhn"]  # a fixture

ACTIVE = [name for name in registry.file_names("scenarios") if name.startswith("active-")]
INITIAL = {
    **{f"active-{name}": ("class", 1) for name in ("digits", "usps", "mnist", "embeddings")},
    "active-fashion-mnist": ("random", 100),
    **{f"active-{name}": ("random", 200) for name in ("cifar10", "cifar10-imbalanced", "svhn")},
}


def rows_of(record: RunRecord) -> list[list[int]]:
    return [entry["rows"] for entry in record.data["labelling"]["rounds"]]


def test_all_are_there() -> None:
    assert {*ACTIVE} == {*INITIAL}


@pytest.mark.parametrize("scenario", ACTIVE)
def test_a_selector_asks_in_one_experience_and_its_name_changes_nothing_else(scenario: str) -> None:
    spec = resolve(scenario, "finetune")
    labelling = spec.labelling
    assert (spec.stream.experiences, labelling.selector, labelling.epoch) == (1, "random", "labelled")
    assert labelling.rounds > 1
    assert (labelling.initial, labelling.initial_count) == INITIAL[scenario]
    other = resolve(scenario, "finetune", flags={"labelling": {"selector": "badge"}})
    assert other == dataclasses.replace(spec, labelling=dataclasses.replace(labelling, selector="badge"))
    joint = resolve(scenario, "joint")
    assert not joint.labelling.asks
    assert not joint.training.steps


def test_the_imbalanced_one_differs_in_its_images_alone() -> None:
    plain, imbalanced = (resolve(f"active-cifar10{kind}", "finetune") for kind in ("", "-imbalanced"))
    assert imbalanced.data == dataclasses.replace(plain.data, shares=RAMP)
    assert dataclasses.replace(imbalanced, scenario=plain.scenario, data=plain.data) == plain


def test_digits_from_one_label_a_class_on(tmp_path: Path) -> None:
    random, margin = (clsim.run("active-digits", "finetune", label=label, runs=tmp_path) for label in (None, "margin"))
    truth = load(DataSpec(), tmp_path).train_y
    for record in (random, margin):
        rounds = record.data["labelling"]["rounds"]
        assert [entry["labelled"] for entry in rounds] == [10, 30, 50, 70, 90, 110]
        assert sorted(rounds[0]["labels"]) == [*range(10)]
        flat = np.concatenate(rows_of(record))
        assert len({*flat.tolist()}) == 110
        assert truth[flat].tolist() == [label for entry in rounds for label in entry["labels"]]
        assert rounds[-1]["accuracy"] == record.data["accuracy"][0]
        assert rounds[-1]["accuracy"][0] > max(0.85, rounds[0]["accuracy"][0] + 0.1)
    assert rows_of(random)[0] == rows_of(margin)[0]
    assert rows_of(random)[1] != rows_of(margin)[1]
    assert all(cost["steps"] == 6 * 300 for record in (random, margin) for cost in record.data["cost"])


@pytest.mark.parametrize("scenario", ["active-svhn", "active-usps"])
def test_street_and_postal_digits_run_in_official_formats(scenario: str, tmp_path: Path, svhn) -> None:
    svhn(tmp_path / "data")
    usps(tmp_path / "data")
    first = 1 if scenario == "active-usps" else 10
    settings = [f"labelling.initial_count={first}", "labelling.budget=12", "labelling.rounds=3"]
    steps = ["training.steps=5"] if scenario == "active-usps" else ["training.epochs=2", "model.options.width=4"]
    record = clsim.run(
        scenario,
        "finetune",
        label="kcenter",
        settings=[*settings, *steps],
        data_root=tmp_path / "data",
        runs=tmp_path / "runs",
    )
    assert [entry["labelled"] for entry in record.data["labelling"]["rounds"]] == [10, 14, 18, 22]
    assert max(np.concatenate(rows_of(record))) < 30


def test_embeddings_need_their_file_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.path: found '' with npz, allowed: the path of your data$"):
        clsim.run("active-embeddings", "finetune", runs=tmp_path)
    images = load(DataSpec(), tmp_path)
    parts = {"x_train": images.train_x, "x_test": images.test_x}
    vectors = {name: x.reshape(len(x), -1).astype(np.float32) / 255 for name, x in parts.items()}
    np.savez(tmp_path / "e.npz", **vectors, y_train=images.train_y, y_test=images.test_y)
    settings = [f"data.path={tmp_path / 'e.npz'}"]
    record = clsim.run("active-embeddings", "finetune", label="badge", settings=settings, runs=tmp_path)
    accuracy = [entry["accuracy"][0] for entry in record.data["labelling"]["rounds"]]
    assert accuracy[-1] > max(0.85, accuracy[0] + 0.1)


@pytest.mark.parametrize(("name", "cells"), [("active", 7), ("active-stream", 16)])
def test_the_runs_of_a_study_differ_in_who_chooses(name: str, cells: int, tmp_path: Path) -> None:
    runs = [run.spec for run in plan.plan(plan.find_study(name), Store(tmp_path))]
    assert len(runs) == 5 * cells
    assert {spec.seed for spec in runs} == {*range(5)}
    assert len({(spec.labelling.selector, spec.memory.buffer) for spec in runs}) == cells
    assert len({repr(dataclasses.replace(spec.labelling, selector="", options={})) for spec in runs}) == 1
    assert len({(spec.memory.capacity, spec.training, spec.data, spec.strategy) for spec in runs}) == 1
