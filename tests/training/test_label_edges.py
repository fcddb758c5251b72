"""Label rounds at their edges: every strategy, odd selectors and sizes, first choices by an untrained net, epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.data.datasets import load
from clsim.errors import InputError
from clsim.execution.plan import StudySpec, plan, remarks_on
from clsim.pool.pool import Pool, Selection
from clsim.records.store import Store
from clsim.spec import registry
from clsim.spec.abilities import blind_start
from clsim.spec.labelling import LabellingSpec, LabelsSpec
from clsim.spec.resolve import resolve
from clsim.spec.tables import StreamSpec
from clsim.streams import build
from tests.commands import refused

pytestmark = pytest.mark.filterwarnings("ignore:without an initial set")

HERE = "tests.training.test_label_edges"
TINY = ["data.per_class=6", "training.epochs=1", "stream.experiences=2", "evaluation.rows=seen"]
REFUSED = {
    "avalanche": "cannot be saved",
    "joint": "stream.presentation",
    "cumulative": "stream.presentation",
    "lwm": "no feature maps",
}
TWICE: list[int] = []


def run(folder: Path, *settings: str, strategy: str = "er", **given: Any) -> clsim.RunRecord:
    given = {"label": "margin", "label_budget": 20, "label_rounds": 2} | given
    return clsim.run("split-digits", strategy, settings=[*TINY, *settings], runs=folder, **given)


def modest(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Asks for nothing."""
    return Selection(torch.empty(0, dtype=torch.int64))


def counting(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """The first rows; notes how many samples are there twice as labelled, and how many are candidates too."""
    labelled = pool.labelled
    if labelled is not None:
        known = (labelled.data.task * 10**6 + labelled.data.index).tolist()
        own = (pool.data.task * 10**6 + pool.data.index).tolist()
        TWICE.append(len(known) - len(set(known)) + len({*known} & {*own}))
    return Selection(torch.arange(min(budget, len(pool))))


@pytest.mark.parametrize("strategy", registry.file_names("strategies"))
def test_every_strategy_asks_or_is_refused_in_one_line(tmp_path: Path, strategy: str) -> None:
    settings = ["stream.setting=task"] if strategy in ("hat", "packnet") else []
    if words := REFUSED.get(strategy):
        with pytest.raises(InputError) as error:
            run(tmp_path, *settings, strategy=strategy)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
        return
    labelling = run(tmp_path, *settings, strategy=strategy).data["labelling"]
    assert labelling["asked"] == [20, 20]
    assert [entry["labelled"] for entry in labelling["rounds"]] == [10, 20, 10, 20]


@pytest.mark.parametrize("strategy", ["gdumb", "avalanche:Naive"])
def test_no_choice_is_made_before_a_net_that_is_trained_at_the_end(tmp_path: Path, strategy: str) -> None:
    given: dict[str, Any] = {"strategy": strategy}
    with pytest.raises(InputError, match=r"labelling\.update: found 'batch' with learner .*allowed: 'round'"):
        run(tmp_path, "labelling.update=batch", **given, label_rounds=None)
    with pytest.raises(InputError, match=r"labelling\.start: found 'warm' with learner .*allowed: 'scratch'"):
        run(tmp_path, "labelling.start=warm", **given)


def test_gdumb_is_trained_before_it_chooses(tmp_path: Path) -> None:
    """With the last round empty of news, the round before has the accuracy that a run without it ends with."""
    settings = ["labelling.initial_count=20", "stream.experiences=1", "labelling.epoch=labelled"]
    once = run(tmp_path, *settings, strategy="gdumb", label="random", label_budget=10, label_rounds=1)
    twice = run(tmp_path, *settings, strategy="gdumb", label="random", label_budget=20, label_rounds=2)
    rounds = [record.data["labelling"]["rounds"] for record in (once, twice)]
    assert rounds[0][1]["rows"] == rounds[1][1]["rows"]
    assert rounds[0][1]["accuracy"] == rounds[1][1]["accuracy"]


@pytest.mark.parametrize("more", [[], ["labelling.start=warm"], ["memory.buffer=kcenter"]])
@pytest.mark.parametrize("strategy", ["er", "gdumb"])
def test_nothing_is_labelled_twice_for_a_selector(tmp_path: Path, strategy: str, more: list[str]) -> None:
    """A memory that every batch updates holds some of the experience already."""
    if strategy == "gdumb" and "labelling.start=warm" in more:
        return
    TWICE.clear()
    run(tmp_path, *more, strategy=strategy, label=f"{HERE}:counting")
    assert TWICE[1:]
    assert not any(TWICE)


def test_a_selector_may_ask_for_nothing_but_not_at_first(tmp_path: Path) -> None:
    given: dict[str, Any] = {"label": f"{HERE}:modest"}
    with pytest.raises(InputError, match=r"nothing of experience 1 is labelled, and .*modest' asks for no sample"):
        run(tmp_path, "labelling.shortfall=none", **given)
    found = run(tmp_path, "labelling.shortfall=none", "labelling.initial_count=4", **given).data["labelling"]
    assert (found["initial"], found["asked"]) == ([4, 4], [0, 0])
    assert run(tmp_path, **given).data["labelling"]["asked"] == [20, 20]


@pytest.mark.parametrize("initial", ["learning-loss", "split"])
def test_an_initial_set_is_not_chosen_by_an_acquisition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], initial: str
) -> None:
    words = [w for s in (*TINY, f"labelling.initial={initial}", "labelling.initial_count=4") for w in ("--set", s)]
    words += ["--label", "margin", "--label-budget", "9", "--runs", str(tmp_path), "--quiet"]
    assert f"labelling.initial: found '{initial}', which keeps a state" in refused(capsys, "run", *words)


@pytest.mark.parametrize(
    ("settings", "budget", "asked", "rounds"),
    [
        (["labelling.candidates=3"], 20, [20, 20], [10, 10]),
        (["stream.validation=0.2"], "50%", [12, 12], [6, 6]),
        (["stream.validation=0.2", "labelling.split=3"], "50%", [12, 12], [6, 6]),
        (["labelling.noise=1.0"], 20, [20, 20], [10, 10]),
        (["stream.experiences=10"], 3, [3] * 10, [2, 1]),
        (["stream.experiences=10", "data.per_class=1"], 3, [1] * 10, [1]),
        (["training.device=auto"], 1, [1, 1], [1]),
    ],
)
def test_odd_sizes(tmp_path: Path, settings: list[str], budget: int | str, asked: list[int], rounds: list[int]) -> None:
    labelling = run(tmp_path, *settings, label_budget=budget).data["labelling"]
    assert labelling["asked"] == asked
    assert [len(entry["rows"]) for entry in labelling["rounds"]] == rounds * len(asked)
    if "labelling.noise=1.0" in settings:
        truth = np.asarray(build_digits_labels(tmp_path))
        assert all((truth[entry["rows"]] != np.asarray(entry["labels"])).all() for entry in labelling["rounds"])


def build_digits_labels(root: Path) -> list[int]:
    return load(resolve("split-digits", "er", settings=TINY).data, root).train_y.tolist()


def test_unlabelled_samples_of_the_stream_are_dealt_once(tmp_path: Path) -> None:
    """What is told in a round takes samples out of the shares of the experiences, and moves no other."""
    data = load(resolve("split-digits", "er", settings=["data.per_class=20"]).data, tmp_path)
    labels = LabelsSpec(unlabelled="stream", include_labelled=False)
    stream = build.build(
        data,
        StreamSpec(experiences=5),
        0,
        torch.device("cpu"),
        labels=labels,
        labelling=LabellingSpec("random", budget=5),
    )
    before: list[set[int]] = []
    for told in (False, True):
        if told:
            stream.oracle.tell(0, np.arange(7), "random", 1)
            stream.oracle.tell(2, np.arange(5), "random", 1)
        shares = [set(part.index.tolist()) for i in range(5) if (part := stream.experience(i).unlabelled) is not None]
        assert sum(map(len, shares)) == len(set.union(*shares)) == (188 if told else 200)
        assert not told or all(now <= then for now, then in zip(shares, before, strict=True))
        before = shares


@pytest.mark.parametrize(
    ("label", "settings", "says"),
    [
        ("margin", [], True),
        ("qbc", [], True),
        ("badge", [], True),
        ("learning-loss", [], True),
        ("variable-uncertainty", ["training.epochs=1"], True),
        ("prefilter(entropy,kcenter,5)", [], True),
        ("random", [], False),
        ("kcenter", [], False),
        ("balanced-random", [], False),
        ("margin", ["labelling.initial_count=4"], False),
        ("margin", ["labels.per_class=2"], False),
    ],
)
def test_a_first_choice_by_an_untrained_net_is_said(label: str, settings: list[str], says: bool) -> None:
    line = blind_start(
        resolve("split-digits", "er", settings=[f"labelling.selector={label}", "labelling.budget=9", *settings])
    )
    assert bool(line) == says
    assert not says or ("--labels 2" in line and "labelling.initial_count=20" in line and "\n" not in line)


def test_what_is_said_is_said_where_a_run_or_a_study_starts(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="without an initial set"):
        run(tmp_path, label_budget=2)
    study = StudySpec(label=("margin", "entropy"), seeds=(0, 1), set={"labelling.budget": [2, 3]})
    assert len(remarks_on(plan(study, Store(tmp_path)))) == 1
    assert blind_start(resolve("split-digits", "er")) == ""
