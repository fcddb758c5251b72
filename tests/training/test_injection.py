"""Labels that come during a training, and semi-supervised learners whose labels a selector asks for."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import clsim
from clsim.errors import InputError
from clsim.spec.flags import tables_of
from clsim.spec.labelling import LabellingSpec, LabelsSpec
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience
from clsim.training.injection import Injection
from tests.helpers import points, vectors
from tests.training.test_label_rounds import Counting, numbers

pytestmark = pytest.mark.filterwarnings("ignore:without an initial set")

SEMI = ("pseudo-label", "fixmatch", "mixmatch", "remixmatch", "comatch", "ccic", "paws", "csl", "nncsl")
SMALL = ["data.per_class=20", "training.epochs=2", "stream.experiences=2", "evaluation.rows=seen"]
SMALL += ["memory.capacity=20", "data.size=0"]


def run(folder: Path, strategy: str, *settings: str, budget: int = 8, rounds: int = 1, **given: Any) -> clsim.RunRecord:
    given = {"label": "typiclust", "label_budget": budget, "label_rounds": rounds, "labels": 0, "runs": folder} | given
    return clsim.run(
        "split-digits", strategy, settings=[*SMALL, *settings], progress=given.pop("progress", None), **given
    )


@pytest.mark.parametrize("strategy", [*SEMI, "er"])
@pytest.mark.parametrize("settings", [[], ["stream.setting=task"], ["labels.include_labelled=false"]])
def test_a_class_that_no_selector_picked_is_no_crash(tmp_path: Path, strategy: str, settings: list[str]) -> None:
    """One label for five classes; in the task setting, the head knows the others."""
    record = run(tmp_path, strategy, *settings, budget=1)
    assert record.data["labelling"]["asked"] == [1, 1]
    assert record.data["labelling"]["without_label"] == [4, 4]
    assert not record.data["diverged"]
    read = [record.data["accuracy"], *record.data["readouts"].values()]
    assert all(0 <= value <= 1 for matrix in read for row in matrix for value in row if value is not None)


@pytest.mark.parametrize("start", ["scratch", "warm"])
@pytest.mark.parametrize("strategy", ["fixmatch", "remixmatch", "comatch", "nncsl", "ccic"])
def test_rounds_of_a_semi_supervised_learner_begin_without_labels(tmp_path: Path, strategy: str, start: str) -> None:
    record = run(tmp_path, strategy, f"labelling.start={start}", budget=4, rounds=2)
    assert [entry["labelled"] for entry in record.data["labelling"]["rounds"]] == [2, 4, 2, 4]


@pytest.mark.parametrize("settings", [[], ["labels.include_labelled=false"]])
@pytest.mark.parametrize("inject", ["once", "linear", "milestones"])
def test_rivals_take_the_same_steps_whatever_comes_when(tmp_path: Path, settings: list[str], inject: str) -> None:
    settings = [*settings, f"labelling.inject={inject}", "training.batch_size=16"]
    steps = {
        strategy: [cost["steps"] for cost in run(tmp_path, strategy, *settings).data["cost"]]
        for strategy in ("er", "fixmatch", "nncsl")
    }
    own = 2 * math.ceil(100 / 16) if not settings[0].startswith("labels") else 2 * math.ceil(92 / 16)
    assert steps == {strategy: [own, own] for strategy in steps}


@pytest.mark.parametrize("strategy", [*SEMI, "er", "der", "finetune"])
def test_labels_that_come_later_change_what_is_learnt(tmp_path: Path, strategy: str) -> None:
    small = [] if strategy != "finetune" else ["memory.capacity=2000"]
    once, linear, milestones = (
        numbers(run(tmp_path, strategy, *small, f"labelling.inject={inject}"))
        for inject in ("once", "linear", "milestones")
    )
    told = [next(entry["rows"] for entry in of["labelling"]["rounds"]) for of in (once, linear, milestones)]
    assert told[0] == told[1] == told[2]  # the choice is the same
    assert once["metrics"] != linear["metrics"] or once["accuracy"] != linear["accuracy"]


def test_at_once_is_as_if_there_were_no_such_key(tmp_path: Path) -> None:
    asked = tables_of(label="typiclust", label_budget=8, labels=0)
    plain = resolve("split-digits", "fixmatch", settings=SMALL, flags=asked)
    once = resolve("split-digits", "fixmatch", settings=[*SMALL, "labelling.inject=once"], flags=asked)
    assert once.fingerprint == plain.fingerprint
    assert "inject" not in json.dumps(plain.as_dict())
    linear = resolve("split-digits", "fixmatch", settings=[*SMALL, "labelling.inject=linear"], flags=asked)
    assert linear.fingerprint != plain.fingerprint
    # all labels at the first step, by each policy: the same numbers
    found = [
        numbers(run(tmp_path, "er", f"labelling.inject={inject}", "labelling.inject_first=1"))["accuracy"]
        for inject in ("linear", "milestones")
    ]
    assert found == [numbers(run(tmp_path, "er"))["accuracy"]] * 2


@pytest.mark.parametrize("strategy", ["fixmatch", "nncsl", "er"])
def test_a_run_that_is_killed_while_labels_come_ends_as_if_it_was_not(tmp_path: Path, strategy: str) -> None:
    settings = ["labelling.inject=linear", "labels.include_labelled=false", "training.batch_size=16"]
    whole = Counting()
    record = run(tmp_path / "whole", strategy, *settings, progress=whole)
    total = sum(whole.rounds)
    for at in (3, total // 2 + 2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"{at}", strategy, *settings, progress=Counting(at))
        assert numbers(run(tmp_path / f"{at}", strategy, *settings)) == numbers(record)


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        ("gdumb", [], "learner 'gdumb'"),
        ("fixmatch", ["training.until=0.9"], "training.until: found 0.9"),
        ("fixmatch", ["labelling.rounds=2"], "labelling.rounds: found 2"),
        ("fixmatch", ["labelling.inject_first=0"], "labelling.inject_first: found 0"),
        ("fixmatch", ["labelling.inject_milestones=[0.5,0.2]"], "labelling.inject_milestones: found [0.5, 0.2]"),
    ],
)
def test_what_cannot_come_bit_by_bit_is_refused(
    tmp_path: Path, strategy: str, settings: list[str], message: str
) -> None:
    with pytest.raises(InputError) as error:
        run(tmp_path, strategy, "labelling.inject=linear", *settings)
    assert message in str(error.value)


@pytest.mark.parametrize("inject", ["once", "linear", "milestones"])
@pytest.mark.parametrize(("labels", "steps"), [(1, 1), (1, 9), (7, 3), (40, 160), (160, 40), (5, 2)])
def test_all_labels_come_and_none_goes(inject: Any, labels: int, steps: int) -> None:
    spec = LabellingSpec("random", budget=labels, inject=inject)
    there = [spec.there(labels, step, steps) for step in range(steps)]
    assert there == sorted(there)
    assert there[-1] == labels
    assert there[0] >= math.ceil(labels / 4)
    if inject == "once" or steps == 1:
        assert there[0] == labels
    elif (labels, steps) == (40, 160):
        assert there[0] == 10
        middle = {"linear": 25, "milestones": 30}[inject]
        assert there[80] == pytest.approx(middle, abs=1)


@pytest.mark.parametrize("include", [True, False])
def test_a_label_that_waits_is_not_there(include: bool) -> None:
    """The sample is in the unlabelled part, without its label, once; the selector's first picks come first."""
    train, others = vectors(points(8)), vectors(points(12, seed=1))
    others = dataclasses.replace(others, index=torch.arange(100, 112), y=torch.full_like(others.y, -1))
    train = dataclasses.replace(train, index=torch.arange(8), y=torch.arange(8))
    whole = Experience(0, tuple(range(8)), train, None, others)
    spec = RunSpec(
        labels=LabelsSpec(include_labelled=include),
        labelling=LabellingSpec("random", budget=8, inject="milestones", inject_milestones=(0.5,)),
    )
    order = torch.tensor([5, 2, 7, 0, 1, 3, 4, 6])
    injection = Injection(whole, order, spec, 10, lambda experience: experience.train)
    now = injection.now
    assert now.train.y.tolist() == [2, 5]
    assert now.classes == whole.classes
    assert now.unlabelled is not None
    assert (now.unlabelled.y == -1).all()
    hidden = set() if include else set(range(8)) - {2, 5}
    assert set(now.unlabelled.index.tolist()) == set(range(100, 112)) | hidden
    assert [injection.advance(step) for step in range(1, 10)] == [step == 5 for step in range(1, 10)]
    assert injection.now is whole
    assert injection.samples is whole.train


def test_foreign_images_join_what_a_selector_left() -> None:
    spec = resolve(
        "split-fashion-mnist-semi",
        "fixmatch",
        settings=["labels.foreign=mnist"],
        flags=tables_of(label="random", label_budget=4, labels=0),
    )
    assert spec.partly_labelled
    with pytest.raises(InputError, match="all samples are labelled"):
        RunSpec(labels=LabelsSpec(foreign="mnist"))
