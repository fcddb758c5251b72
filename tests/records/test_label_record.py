"""Records of label rounds: curves against sums by hand; whatever is broken is one line."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsim.errors import InputError
from clsim.records import budget
from clsim.records.frame import frame
from clsim.records.label_record import labels_known, problem
from clsim.records.metrics import area_under_budget
from clsim.records.store import Store
from tests.labels import labelled


def test_the_area_is_that_of_the_true_budgets() -> None:
    # unequal rounds, by hand: 30·(.4+.6)/2 + 10·(.6+.8)/2 + 60·(.8+.9)/2 = 15 + 7 + 51 = 73, over 110 − 10
    assert area_under_budget([10, 40, 50, 110], [0.4, 0.6, 0.8, 0.9]) == pytest.approx(0.73)
    assert math.isnan(area_under_budget([10], [0.4]))
    assert math.isnan(area_under_budget([10, 10], [0.4, 0.5]))
    curve = {10: 0.4, 40: 0.6, 50: 0.8, 110: 0.9}
    record = labelled("badge", sizes=(30, 10, 60), accuracy=lambda p, n: curve[n])
    assert budget.aubc(record) == pytest.approx(0.73)
    # equal steps, as if all rounds were of one size, would give (.4/2 + .6 + .8 + .9/2) / 3
    assert budget.aubc(record) != pytest.approx((0.2 + 0.6 + 0.8 + 0.45) / 3, abs=0.01)
    assert frame([record])["aubc"].tolist() == pytest.approx([0.73])


def test_labels_are_summed_over_experiences_and_accuracy_is_the_runs_metric() -> None:
    record = labelled("badge", sizes=(5, 5), initial=2, experiences=2, accuracy=lambda p, n: 0.5 + p / 10 + n / 100)
    record["test_sizes"] = [100, 300]
    record["spec"]["stream"]["setting"] = "class"
    record["labelling"]["rounds"][-1]["accuracy"] = [0.5, 0.9]
    record["accuracy"][-1] = [0.5, 0.9]
    points = budget.curve(record)
    assert [p.labels for p in points] == [2, 7, 12, 14, 19, 24]
    assert [p.own for p in points] == [2, 7, 12] * 2
    assert [p.initial for p in points] == [2] * 6
    assert points[-1].accuracy == pytest.approx((0.5 * 100 + 0.9 * 300) / 400)  # class-incremental: by test samples
    (row,) = frame([record]).to_dict("records")
    assert row["accuracy"] == pytest.approx(points[-1].accuracy)
    assert (row["labels_initial"], row["labels_asked"], row["labels_validation"]) == (4, 20, 0)
    assert row["label"] == "badge"
    assert row["labelling.budget"] == 10
    record["spec"]["stream"]["setting"] = "domain"  # here every experience counts the same
    assert budget.curve(record)[-1].accuracy == pytest.approx(0.7)


def test_the_best_round_is_of_the_last_experience_alone() -> None:
    found = {(0, 20): 0.99, (1, 10): 0.3, (1, 20): 0.8, (1, 30): 0.6}
    record = labelled("badge", sizes=(10, 10), experiences=2, accuracy=lambda p, n: found.get((p, n), 0.5))
    assert budget.best_round(record) == 0.8


def test_a_run_without_label_rounds_has_no_curve() -> None:
    record = labelled("none")
    del record["labelling"]
    assert budget.curve(record) == []
    assert budget.aubc(record) is None
    assert frame([record])["label"].tolist() == ["–"]


BROKEN: list[tuple[tuple[Any, ...], Any, str]] = [
    ((), 3, "labelling: found int, allowed: a table"),
    ((), None, "labelling: found NoneType, allowed: a table"),
    (("initial",), [10, 10], "labelling.initial: not a whole number from 0 for each of 1 experiences"),
    (("asked",), [-1], "labelling.asked: not a whole"),
    (("validation",), [True], "labelling.validation: not a whole"),
    (("rounds",), {}, "labelling.rounds: found dict, allowed: a list"),
    (("rounds", 0), 7, r"labelling.rounds\[0\]: found int, allowed: a table"),
    (("rounds", 1, "experience"), 1, r"rounds\[1\].experience: found 1, allowed: a whole number from 0 to 0"),
    (("rounds", 1, "round"), 0, r"rounds\[1\]: not in order after the training before it"),
    (("rounds", 1, "labelled"), 3, r"rounds\[1\]: not in order after"),
    (("rounds", 1, "labelled"), "x" * 1000, r"rounds\[1\].labelled: found 'x{1,60}, allowed: a whole number from 0"),
    (("rounds", 0, "by"), ["a"], r"rounds\[0\].by: found \['a'\], allowed: text"),
    (("rounds", 0, "rows"), [1.5] * 10, r"rounds\[0\].rows: not a list of whole numbers"),
    (("rounds", 0, "rows"), None, r"rounds\[0\].rows: not a list"),
    (("rounds", 0, "labels"), [1], r"rounds\[0\].labels: not a whole number from -1 for each of the rows"),
    (("rounds", 2, "accuracy"), [1.2], r"rounds\[2\].accuracy: not a share"),
    (("rounds", 2, "accuracy"), [], r"rounds\[2\].accuracy: not a share"),
    (("rounds", 2, "accuracy"), ["<b>"], r"rounds\[2\].accuracy: not a share"),
    (("rounds", 2, "select_seconds"), -1, r"rounds\[2\].select_seconds: found -1, allowed: a number from 0"),
    (("rounds", 2, "peak_bytes"), 1e300, r"rounds\[2\].peak_bytes: found 1e\+300"),
    (("rounds", 2, "radius"), "far", r"rounds\[2\].radius: found 'far', allowed: a number from 0, or nothing"),
    (("rounds", 2, "unique"), 2, r"rounds\[2\].unique: not a share from 0 to 1"),
    (("rounds", 0, "rows"), [10**30] * 10, r"rounds\[0\].rows: not a list of whole numbers"),
    (("candidates",), ["many"], "labelling.candidates: not a whole"),
]


@pytest.mark.parametrize(("place", "value", "message"), BROKEN)
def test_a_broken_record_is_one_line(place: tuple[Any, ...], value: Any, message: str, tmp_path: Path) -> None:
    record = labelled("badge")
    inner: Any = record
    for key in ("labelling", *place)[:-1]:
        inner = inner[key]
    inner[("labelling", *place)[-1]] = value
    folder = tmp_path / record["fingerprint"]
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(record))
    found, problems = Store(tmp_path).records()
    assert found == []
    (line,) = problems
    assert "\n" not in line
    assert len(line) < 400
    with pytest.raises(InputError, match=message):
        raise InputError(line)


def test_random_damage_is_found_or_harmless(tmp_path: Path) -> None:
    """Whatever stands in a record's part on labels, reading and showing it raises nothing."""
    rng = np.random.default_rng(0)
    junk: list[Any] = [None, -1, 0, 3, 1e9, "x", [], {}, [None], [[]], True, 2**70, {"a": 1}, [0.5], [0] * 10]
    refused = 0
    for _ in range(300):
        record = copy.deepcopy(labelled("badge", experiences=2))
        inner: Any = record["labelling"]
        for _ in range(rng.integers(0, 3)):
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            deeper = [k for k in keys if isinstance(inner[k], (dict, list)) and inner[k]]
            if not deeper:
                break
            inner = inner[deeper[rng.integers(len(deeper))]]
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        inner[keys[rng.integers(len(keys))]] = junk[rng.integers(len(junk))]
        if text := problem(record["labelling"], 2, finished=True):
            refused += 1
            assert "\n" not in text
        else:
            frame([record])
            budget.best_round(record)
    assert 100 < refused < 300


def test_an_unfinished_record_may_lack_the_experiences_to_come() -> None:
    record = labelled("badge", experiences=2)["labelling"]
    record["rounds"] = [entry for entry in record["rounds"] if entry["experience"] == 0]
    for kind in ("initial", "asked", "validation"):
        record[kind] = record[kind][:1]
    assert problem(record, 2, finished=False) == ""
    assert problem(record, 2, finished=True) != ""


def test_a_whole_record_is_read(tmp_path: Path) -> None:
    record = labelled("badge", experiences=3)
    assert record["fingerprint"] == hashlib.sha256(json.dumps(record["spec"], sort_keys=True).encode()).hexdigest()[:16]
    folder = tmp_path / record["fingerprint"]
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(record))
    (found,), problems = Store(tmp_path).records()
    assert problems == []
    assert found.line.startswith("read, not run: active-digits · finetune · badge 30 labels · seed 0, made 2026")


@pytest.mark.parametrize(
    ("tables", "known"),
    [
        ({}, "all"),
        ({"labels": {"per_class": 4}}, "16"),
        ({"labels": {"fraction": 0.05}}, "5 %"),
        ({"labels": {"fraction": 1.0}}, "all"),
        ({"labels": {"count": 30}}, "30"),
        ({"labelling": {"selector": "none"}}, "all"),
        ({"labelling": {"selector": "badge", "budget": 20}}, "46"),
        ({"labelling": {"selector": "badge", "fraction": 0.1}}, "6 and 10 %"),
    ],
)
def test_how_many_labels_a_run_may_know(tables: dict[str, Any], known: str) -> None:
    record = {"spec": tables, "classes": [[0, 1], [2, 3]], "labelling": {"initial": [2, 4], "asked": [20, 20]}}
    assert labels_known(record) == known
