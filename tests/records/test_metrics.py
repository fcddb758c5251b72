"""Metrics against a matrix worked by hand, against Avalanche, and against their own definitions."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import clsim
from clsim.records import metrics
from clsim.records.frame import frame
from clsim.records.metrics import METRICS, UNSIZED, further, summary
from clsim.reporting.grids import tables
from clsim.reporting.report import ReportSpec

R = np.array(
    [
        [0.8, 0.1, 0.2, 0.3],
        [0.9, 0.7, 0.1, 0.2],
        [0.5, 0.6, 0.6, 0.4],
        [0.4, 0.65, 0.3, 0.9],
    ]
)
INITIAL, JOINT = [0.25, 0.2, 0.3, 0.25], [0.9, 0.8, 0.85, 0.95]

BY_HAND = {
    "accuracy": (0.4 + 0.65 + 0.3 + 0.9) / 4,
    "average_incremental_accuracy": (0.8 + (0.9 + 0.7) / 2 + (0.5 + 0.6 + 0.6) / 3 + (0.4 + 0.65 + 0.3 + 0.9) / 4) / 4,
    "forgetting": ((0.9 - 0.4) + (0.7 - 0.65) + (0.6 - 0.3)) / 3,
    "forgetting_survey": ((0.8 - 0.4) + (0.7 - 0.65) + (0.6 - 0.3) + 0) / 4,
    "backward_transfer": ((0.4 - 0.8) + (0.65 - 0.7) + (0.3 - 0.6)) / 3,
    "forward_transfer": ((0.1 - 0.2) + (0.1 - 0.3) + (0.4 - 0.25)) / 3,
    "intransigence": ((0.9 - 0.8) + (0.8 - 0.7) + (0.85 - 0.6) + (0.95 - 0.9)) / 4,
    "learning_accuracy": (0.8 + 0.7 + 0.6 + 0.9) / 4,
    "minimum_accuracy": (0.4 + 0.6 + 0.3) / 3,
    "worst_case_accuracy": 0.9 / 4 + 3 / 4 * (0.4 + 0.6 + 0.3) / 3,
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_what_its_formula_says(name: str) -> None:
    assert summary(R.tolist(), INITIAL, JOINT)[name] == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_gives_its_formula_and_its_source(name: str) -> None:
    text = METRICS[name].function.__doc__ or ""
    assert "Source: " in text
    assert "(1/" in text


def test_a_single_experience_has_nothing_to_forget() -> None:
    found = summary([[0.5]], [0.1])
    defined = {
        "accuracy",
        "average_incremental_accuracy",
        "forgetting_survey",
        "learning_accuracy",
        "worst_case_accuracy",
    }
    assert {name for name, value in found.items() if value is not None} == defined
    assert found["accuracy"] == found["worst_case_accuracy"] == 0.5
    assert found["forgetting_survey"] == 0


def test_what_was_not_tested_is_not_invented() -> None:
    lower = np.where(np.tril(np.ones((4, 4), bool)), R, np.nan)
    unknown = [math.nan] * 4
    found = summary(lower.tolist(), unknown)
    assert found["forward_transfer"] is None
    assert found["intransigence"] is None
    for name in set(METRICS) - {"forward_transfer", "intransigence"}:
        assert found[name] == pytest.approx(BY_HAND[name])  # none of them looks at an experience that is still to come


def test_a_joint_run_has_a_final_accuracy_alone() -> None:
    joint = [[None] * 4] * 3 + [JOINT]
    found = summary(joint, [None] * 4)
    assert {name for name, value in found.items() if value is not None} == {"accuracy"}


def test_relations_that_hold_for_every_matrix() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        matrix = rng.random((6, 6))
        assert (
            metrics.forgetting(matrix) >= -metrics.backward_transfer(matrix) - 1e-12
        )  # the best is at least the first
        assert metrics.forgetting_survey(matrix) == pytest.approx(-metrics.backward_transfer(matrix) * 5 / 6)
        assert metrics.minimum_accuracy(matrix) <= np.mean(matrix[-1, :-1]) + 1e-12
        assert metrics.worst_case_accuracy(matrix) <= metrics.final_average_accuracy(matrix) + 1e-12


def test_forgetting_looks_at_no_row_before_the_experience_was_learnt() -> None:
    lucky = R.copy()
    lucky[0, 2] = 1.0
    assert metrics.forgetting(lucky) == metrics.forgetting(R)


def test_avalanche_agrees_on_backward_transfer() -> None:
    from clsim.compat import import_torchvision

    import_torchvision()
    from avalanche.evaluation.metrics import Forgetting

    forgotten = Forgetting()  # just after learning minus now
    for j in range(3):
        forgotten.update(j, R[j, j], initial=True)
        forgotten.update(j, R[-1, j])
    assert metrics.backward_transfer(R) == pytest.approx(-np.mean(list(forgotten.result().values())))


def test_exact_fractions() -> None:
    matrix = np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.25, 0.5, 1.0]])
    assert Fraction(metrics.forgetting(matrix)) == Fraction(5, 8)
    assert Fraction(metrics.backward_transfer(matrix)) == Fraction(-5, 8)
    assert metrics.forgetting_survey(matrix) == pytest.approx(5 / 12)


def test_what_only_some_runs_have_is_of_their_readout_and_of_their_unlabelled_samples() -> None:
    matrix = [[0.9, None], [0.4, 0.8]]
    for readout, name in (("nearest-class-mean", "class_means"), ("nearest-neighbour", "neighbours")):
        found = further({"readouts": {readout: matrix}, "unlabelled": [0.5, None], "accuracy": [[1.0]]})
        assert {name: value for name, value in found.items() if value is not None} == pytest.approx(
            {f"accuracy_{name}": 0.6, f"forgetting_{name}": 0.5, "accuracy_unlabelled": 0.5}
        )
    assert set(further({}).values()) == {None}
    assert further({"unlabelled": [None]})["accuracy_unlabelled"] is None
    assert further({"diagnostics": {"held": [0.1, 0.3]}})["weights_held"] == 0.3
    assert further({"diagnostics": {"held": [0.1, None]}})["weights_held"] is None


def test_natures_of_a_pool_are_metrics_of_rounds_without_initial_sets() -> None:
    counts = {"experience": 0, "all": 4, "rare": 0, "outsider": 0}
    rounds = [
        {**counts, "round": 0, "rare": 2, "outsider": 1, "unique_so_far": 4},
        {**counts, "round": 1, "rare": 3, "outsider": 2, "unique_so_far": 6},
        {**counts, "round": 0, "experience": 1, "rare": 1, "unique_so_far": 3},
        {**counts, "round": 1, "experience": 1, "rare": 4, "outsider": 3, "unique_so_far": 6},
    ]
    natures = {"rare_classes": [7], "rounds": rounds, "memory": [{"all": 9, "wrong": 5}, {"all": 9, "wrong": 8}]}
    natures["accuracy_rare"] = [0.25, 0.5]
    found = {name: value for name, value in further({"natures": natures}).items() if value is not None}
    wanted = {"rare_found": 7, "outsiders_asked": 5, "unique_share": 0.75, "wrong_in_memory": 8, "accuracy_rare": 0.5}
    assert found == wanted
    assert not any(metrics.ALL[name].percent for name in ("rare_found", "outsiders_asked", "wrong_in_memory"))
    assert further({"natures": {**natures, "rare_classes": []}})["rare_found"] is None
    right, absent = ({**natures, "memory": [{"all": n, "wrong": 0}]} for n in (9, 0))
    assert further({"natures": right})["wrong_in_memory"] == 0
    assert further({"natures": absent})["wrong_in_memory"] is None  # nothing is kept


def test_accuracy_over_all_classes_seen_counts_samples() -> None:
    """iCaRL's accuracy is over all classes seen: 9 right of 10 and 30 right of 90 are 39 % right, not 62 %.

    A predictor that is right for one class only has the share of that class in the test set, however the classes are
    divided into experiences.
    """
    matrix, sizes = np.array([[0.9, 0.0], [0.9, 1 / 3]]), [10, 90]
    found = summary(matrix.tolist(), [0, 0], sizes=sizes)
    assert found["accuracy"] == pytest.approx(0.39)
    assert found["average_incremental_accuracy"] == pytest.approx((0.9 + 0.39) / 2)
    others = summary(matrix.tolist(), [0, 0])
    assert {name for name in METRICS if found[name] != others[name]} == {"accuracy", "average_incremental_accuracy"}


def test_equal_test_sizes_give_the_mean_over_experiences_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix = rng.random((5, 5)).tolist()
        assert summary(matrix, [*INITIAL, 0.1]) == summary(matrix, [*INITIAL, 0.1], sizes=[37] * 5)


@pytest.mark.parametrize("setting", ["class", "task", "domain"])
def test_a_record_says_what_its_accuracy_is_over(setting: str, tmp_path: Path) -> None:
    """Unequal experiences: six classes, then two at a time."""
    settings = [f"stream.setting={setting}", "stream.sizes=[6, 2, 2]", "stream.experiences=3", "training.epochs=1"]
    data = clsim.run("split-digits", "finetune", settings=settings, runs=tmp_path).data
    sizes, last = data["test_sizes"], data["accuracy"][-1]
    right = [round(n * share) for n, share in zip(sizes, last, strict=True)]
    over_samples, over_tasks = sum(right) / sum(sizes), sum(last) / 3
    assert abs(over_samples - over_tasks) > 1e-3
    expected = over_samples if setting == "class" else over_tasks
    assert data["metrics"]["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert frame([data])["accuracy"][0] == pytest.approx(expected, abs=1e-6)


def test_an_older_record_keeps_the_mean_over_experiences_and_says_so(tmp_path: Path) -> None:
    settings = ["stream.sizes=[6, 2, 2]", "stream.experiences=3", "training.epochs=1"]
    new = dict(clsim.run("split-digits", "finetune", settings=settings, runs=tmp_path).data)
    old = {name: value for name, value in new.items() if name != "test_sizes"}
    assert frame([old])["accuracy"][0] == pytest.approx(sum(old["accuracy"][-1]) / 3)
    for record, said in ((new, False), (old, True)):
        for table in tables(ReportSpec(metrics=("accuracy", "average_incremental_accuracy")), frame([record])):
            assert any(UNSIZED in note for note in table.notes) == said
        (forgetting,) = tables(ReportSpec(metrics=("forgetting",)), frame([record]))
        assert not any(UNSIZED in note for note in forgetting.notes)
