"""What each method costs: what it keeps beside its net, counted against the survey's cost line; relative costs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import clsim
from clsim.learners.regularisation.imm import mean_imm, mode_imm
from clsim.learners.regularisation.penalties import ewc, mas, online_ewc
from clsim.learners.regularisation.si import Si
from clsim.learners.sgd import Sgd
from clsim.memory.buffer import Buffer
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool
from clsim.records.frame import frame
from clsim.reporting.grids import tables
from clsim.reporting.report import ReportSpec, problem, read_report
from clsim.selectors.random import task_balanced
from clsim.spec import registry
from clsim.spec.resolve import resolve
from clsim.spec.tables import MemorySpec
from clsim.training.checkpoint import state_bytes
from tests.helpers import generator, vectors
from tests.learners.regularisation.test_penalties import experience, learn, setup_of
from tests.memory.test_buffer import make_pool, stream


def bytes_of(net: Net, *, head: bool = True) -> int:
    return sum(p.nbytes for name, p in net.named_parameters() if head or not name.startswith("head."))


KEPT = {
    # The survey counts while a task is learnt, this column between two: θ* is the net itself then.
    "finetune": (Sgd, 0),
    "ewc": (ewc, 1),  # survey + 2 M: Ω, and θ*, of which no copy is kept
    "online-ewc": (online_ewc, 1),
    "mas": (mas, 1),  # survey + 2 M: likewise
    "si": (Si, 1),  # survey + 3 M: Ω, and θ* and ω, which begin anew with each task
    "mean-imm": (mean_imm, 1),  # survey T·M: the average is kept as it goes, not T nets
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_between_tasks_in_nets(name: str) -> None:
    make, nets = KEPT[name]
    for momentum in (0.0, 0.9):  # the optimizer's state is not the method's
        setup = setup_of(lr=0.02, momentum=momentum)
        learner: Any = make(setup)
        for position in (0, 1):
            learn(learner, position, steps=2)
            assert state_bytes(learner.state_dict(), setup.net) == nets * bytes_of(setup.net)


def test_mode_imm_keeps_the_average_and_a_precision_of_all_but_the_head() -> None:
    """Survey 2·T·M; here twice what mean-IMM keeps, but for the head, which is not merged and needs no precision."""
    setup = setup_of(lr=0.02)
    learner: Any = mode_imm(setup)
    learn(learner, 0, 1, steps=2)
    both = bytes_of(setup.net) + bytes_of(setup.net, head=False)
    assert state_bytes(learner.state_dict(), setup.net) == both


LEARNING = {
    "ewc": (ewc, 3),  # survey 2: Ω, θ*, and λΩ, which is bounded once a task instead of once a step
    "mas": (mas, 3),
    "si": (Si, 4),  # survey 3: Ω, θ*, ω, and λΩ
}


@pytest.mark.parametrize("name", LEARNING)
def test_what_is_held_while_a_task_is_learnt_in_nets(name: str) -> None:
    make, nets = LEARNING[name]
    setup = setup_of(lr=0.02)
    learner: Any = make(setup)
    learn(learner, 0, steps=2)
    learner.begin(experience(1))
    holder = learner if isinstance(learner, Si) else learner.objective
    held = [value for value in vars(holder).values() if isinstance(value, dict)]
    found = state_bytes({str(i): tensors for i, tensors in enumerate(held)}, setup.net)
    assert found == nets * bytes_of(setup.net)


def test_what_counts_as_kept() -> None:
    net = setup_of().net
    kept = torch.zeros(10)
    state = {"net": net.state_dict(), "optimizer": {"a": torch.ones(9)}, "own": [kept, {"again": kept, "n": 3}]}
    assert state_bytes(state, net) == 40
    assert state_bytes({"copy": {n: p.clone() for n, p in net.state_dict().items()}}, net) == bytes_of(net)
    assert state_bytes({"halves": (kept[:5], kept[5:])}, net) == 40
    assert state_bytes({}, net) == 0
    assert state_bytes(None, net) is None


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder, settings = (
        tmp_path_factory.mktemp("runs"),
        ["data.per_class=20", "training.epochs=2", "stream.setting=task"],
    )
    names = ("finetune", "ewc", "si", "gem", "der", "r-pm", "avalanche:EWC")
    more = {"avalanche:EWC": ["learner.options.ewc_lambda=1"]}
    made = [clsim.run("split-digits", name, settings=[*settings, *more.get(name, [])], runs=folder) for name in names]
    return [json.loads(json.dumps(record.data)) for record in made]


def test_runs_say_what_they_keep(records: list[dict[str, Any]]) -> None:
    runs = frame(records).set_index("strategy")
    net = (64 * 100 + 100 + 100 * 10 + 10) * 4
    assert set(runs["net_bytes"]) == {net}
    nets = runs["storage_nets"].to_dict()
    assert (nets["finetune"], nets["ewc"], nets["si"]) == (0, 1, 1)
    assert nets["gem"] == 200 * 64 / net  # survey T·M gradients: they are made of the exemplars in each step, not kept
    assert nets["der"] == 200 * (64 + 40) / net  # logits beside the exemplars
    assert runs.loc["ewc", "storage_bytes"] == runs.loc["ewc", "state_bytes"] + runs.loc["ewc", "memory_bytes"]
    assert math.isnan(nets["avalanche:EWC"])  # it cannot be saved, so nobody knows


def test_costs_relative_to_fine_tuning(records: list[dict[str, Any]]) -> None:
    runs = frame(records).set_index("strategy")
    assert runs.loc["finetune", "relative_passes"] == runs.loc["finetune", "relative_seconds"] == 1
    own, theirs = 600, 400  # two epochs of 200 samples, and once a gradient of each sample
    assert runs["train_passes"][["ewc", "finetune"]].tolist() == [own, theirs]
    assert runs.loc["ewc", "relative_passes"] == own / theirs
    assert runs.loc["gem", "relative_passes"] > 2
    alone = frame(records[1:2])
    assert alone["relative_passes"].isna().all()
    changed = json.loads(json.dumps(records[0]))
    changed["spec"]["training"]["epochs"] = 9
    both = frame([*records[:2], changed]).set_index("strategy")
    assert both.loc["ewc", "relative_passes"] == own / theirs  # the one that was trained alike
    assert frame([records[1], changed, changed])["relative_passes"].isna().iloc[0]  # which of the two?


def test_passes_are_those_of_training_however_often_a_method_is_tested(tmp_path: Path) -> None:
    """Joint training passes each sample as often as fine-tuning, and PackNet as often as its two trainings say."""
    settings = ["data.per_class=20", "training.epochs=2", "stream.setting=task"]
    names = {"finetune": [], "joint": ["training.epochs=2"], "packnet": ["learner.options.retrain_epochs=4"]}
    settings_of = {name: [*settings, *more] for name, more in names.items()}
    tested = [
        dict(clsim.run("split-digits", name, settings=[*own, f"evaluation.rows={rows}"], runs=tmp_path).data)
        for rows in ("all", "seen")
        for name, own in settings_of.items()
    ]
    for records in (tested[:3], tested[3:]):
        assert frame(records)["relative_passes"].tolist() == [1, 1, 3]
        old = [record | {"cost": [dict(c) for c in record["cost"]]} for record in records]
        for cost in old[1]["cost"]:
            del cost["evaluate_passes"]  # as in records of earlier versions
        assert frame(old)["relative_passes"].isna().tolist() == [False, True, False]
        (table,) = tables(ReportSpec(metrics=("relative_passes",)), frame(old))
        assert any("blank" in note and "1 of 3" in note for note in table.notes)


def test_records_of_earlier_versions_stand_in_reports_without_what_they_lack(records: list[dict[str, Any]]) -> None:
    old = json.loads(json.dumps(records[1]))
    for cost in old["cost"]:
        del cost["state_bytes"], cost["net_bytes"]
    assert problem(old) == ""
    row = frame([old]).iloc[0]
    assert math.isnan(row["storage_bytes"])
    assert math.isnan(row["storage_nets"])
    assert row["memory_bytes"] == 0


# --- a share a task ----------------------------------------------------------------------------------------------


def test_a_memory_may_count_by_task() -> None:
    """Tasks of 2, 1 and 3 classes keep as much each, of each of their classes as much as of the others."""
    memory = Buffer(
        MemorySpec(buffer="task-balanced", capacity=6, per="task"), task_balanced, rng=generator(), cost=Cost()
    )
    samples = stream(120, classes=6)
    for position, classes in enumerate(([0, 1], [2], [3, 4, 5])):
        rows = torch.isin(samples.y, torch.tensor(classes)).nonzero().flatten()
        columns = samples[rows].columns() | {"task": torch.full((len(rows),), position)}
        memory.after_experience(Exemplars(**columns), position + 1, make_pool)
        kept = memory.exemplars
        assert kept is not None
        assert kept.task.bincount().tolist() == [6] * (position + 1)
    assert kept.y.bincount().tolist() == [3, 3, 6, 2, 2, 2]


def test_unlabelled_samples_of_a_task_are_no_class_of_its_neighbour() -> None:
    """Task 0 keeps one of each of its two classes, however many unlabelled samples task 1 has."""
    y, key = torch.tensor([0, 0, 1, 1, -1, -1]), torch.tensor([0.5, 0.4, 0.3, 0.2, 0.9, 0.8])
    samples = vectors(torch.zeros(6, 1), y, key=key)
    samples = Exemplars(**(samples.columns() | {"task": torch.tensor([0, 0, 0, 0, 1, 1])}))
    picks = task_balanced(Pool(samples, None, lambda x: x), 4, rng=generator()).index
    assert sorted(picks.tolist()) == [0, 2, 4, 5]


@pytest.mark.parametrize("strategy", ["r-pm", "gem"])
def test_strategies_that_keep_a_share_a_task(strategy: str, runs: Path) -> None:
    settings = ["stream.sizes=[2, 5, 3]", "stream.experiences=3", "data.per_class=20", "stream.setting=task"]
    record = clsim.run("split-digits", strategy, memory=30, settings=settings, runs=runs)
    assert [cost["memory_bytes"] // 64 for cost in record.data["cost"]] == [
        10,
        20,
        30,
    ]  # each task its own from the start
    assert resolve("split-digits", strategy).memory.size == "500"


# --- the survey --------------------------------------------------------------------------------------------------


def test_the_surveys_report_has_the_published_rows_of_the_anchors() -> None:
    survey, anchors = (read_report(registry.find_file("reports", name)) for name in ("survey", "anchors"))
    there = [row for row in anchors.published if row.at["scenario"] == "split-tiny-imagenet-10x20"]
    assert list(survey.published) == there
    assert len(there) == 8
    assert all("second-hand, from a deck by the authors' group" in row.source for row in there)


def test_the_surveys_study_is_what_it_says() -> None:
    from clsim.execution import plan
    from clsim.records.store import Store

    study = plan.find_study("survey")
    planned = plan.plan(study, Store(Path("nowhere")))
    assert len(planned) == 3 * len(study.strategy)
    for run in planned:
        assert (run.spec.stream.setting, run.spec.data.per_class, run.spec.training.epochs) == ("task", 1000, 5)
        memory = run.spec.memory
        if memory.buffer != "none":
            assert (memory.capacity, memory.per) == (500, "total")
