"""Metrics of the user's: loaded by name, computed from the accuracy matrix, and refused in one line if they break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clsim
from clsim.checks.samples import CheckFailed
from clsim.errors import InputError
from clsim.records.frame import frame
from clsim.records.metrics import Metric
from clsim.records.own_metrics import as_metric, metrics_named, of_record, own_metric
from tests.labels import labelled

MINE = '''
import numpy as np
from clsim import Metric

def last(R):
    """Accuracy on the last experience."""
    return R[-1, -1]

def no_title(R):
    return 0.5

def given(R, sizes=None, *, initial, joint=None, other=3):
    """What is given"""
    assert R.shape == (len(initial), len(initial)) and len(joint) == len(R) and other == 3
    return float(np.sum(sizes))

def unknown(R, colour):
    return 0.0

def breaks(R):
    return {}["my own\\nmistake"]

def text(R):
    return "0.5"

def infinite(R):
    return float("inf")

def nothing(R):
    pass

def undefined(R):
    return np.nan

def spoils(R):
    R[:] = 0.25
    return R[0, 0]

number = 3
rounds = Metric("rounds to learn", lambda R: 1234.0, higher_is_better=False, percent=False)
'''


@pytest.fixture(autouse=True)
def _here(workplace: Path) -> None:
    Path("mine.py").write_text(MINE, encoding="utf-8")


@pytest.fixture
def record() -> dict[str, Any]:
    return labelled("badge", 0, experiences=2, accuracy=lambda p, n: 0.5 + 0.1 * p)


def test_the_docstring_is_the_heading() -> None:
    assert own_metric("./mine.py:last").heading == "Accuracy on the last experience, %"
    assert own_metric("./mine.py:no_title").label == "no title"
    rounds = own_metric("./mine.py:rounds")
    assert (rounds.heading, rounds.higher_is_better) == ("rounds to learn", False)


def test_shipped_names_and_modules_are_found() -> None:
    assert metrics_named(["forgetting"])["forgetting"].label == "forgetting"
    assert own_metric("mine:last").label == "Accuracy on the last experience"


def test_it_is_computed_from_the_matrix_and_cannot_change_it(record: dict[str, Any]) -> None:
    expected = record["accuracy"][-1][-1]
    assert of_record("x", own_metric("./mine.py:last"), record) == pytest.approx(expected)
    own = {name: own_metric(f"./mine.py:{name}") for name in ("spoils", "last", "undefined")}
    row = frame([record], own).iloc[0]
    assert (row["spoils"], row["last"]) == (0.25, pytest.approx(expected))
    assert np.isnan(frame([record], own)["undefined"].astype(float)).all()
    assert row["accuracy"] == frame([record]).iloc[0]["accuracy"]


def test_what_the_shipped_formulas_take_is_given_by_name(record: dict[str, Any]) -> None:
    record["spec"]["stream"]["setting"], record["test_sizes"] = "class", [30, 40]
    assert of_record("x", own_metric("./mine.py:given"), record) == 70


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("breaks", "metric ./mine.py:breaks: raised KeyError: "),
        ("text", "metric ./mine.py:text: returned '0.5' for run"),
        ("infinite", "returned inf"),
        ("nothing", "returned None for run .*, allowed: a finite number, or NaN where it is not defined"),
    ],
)
def test_a_metric_that_breaks_is_one_line_with_its_name(name: str, message: str, record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=message) as caught:
        frame([record], {f"./mine.py:{name}": own_metric(f"./mine.py:{name}")})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "--metric: unknown name 'acuracy'; did you mean 'accuracy'"),
        ("./mine.py:lst", "did you mean 'last'"),
        ("./other.py:f", "no such file"),
        ("./mine.py:unknown", "unknown parameter 'colour'; allowed: initial, joint, sizes"),
        ("./mine.py:number", "is a int, allowed: a function or a class"),
        ("./mine.py:Metric", "found a class, allowed: a function of the accuracy matrix"),
    ],
)
def test_a_metric_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metrics_named([name])


def test_an_installed_package_publishes_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib" / "theirs-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "lib" / "theirs-1.0.dist-info" / "METADATA").write_text("Name: theirs\nVersion: 1.0\n")
    (tmp_path / "lib" / "theirs-1.0.dist-info" / "entry_points.txt").write_text(
        "[clsim.metrics]\ntheir-metric = theirs:f\n"
    )
    (tmp_path / "lib" / "theirs.py").write_text("def f(R):\n    '''Theirs.'''\n    return 0.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    assert metrics_named(["their-metric"])["their-metric"].label == "Theirs"


def test_the_check_names_what_is_broken() -> None:
    clsim.check_metric(lambda R: float(R[-1].mean()))
    clsim.check_metric(clsim.Metric("x", lambda R: float("nan"), percent=False))
    with pytest.raises(CheckFailed, match=r"raised IndexError.*for run \(a single experience\)"):
        clsim.check_metric(lambda R: R[1, 1])
    with pytest.raises(CheckFailed, match="returned None"):
        clsim.check_metric(lambda R: None)  # type: ignore[arg-type, return-value]
    counts = iter(range(99))
    with pytest.raises(CheckFailed, match="not the same number"):
        clsim.check_metric(lambda R: float(next(counts)))


def test_a_metric_is_called_as_its_formula() -> None:
    assert as_metric(Metric("x", lambda R: R[0, 0]), "x")(np.array([[0.5]])) == 0.5
