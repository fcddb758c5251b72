"""A paper's rows beside runs of a reduced setting: of the same arm, and of nothing that is known to differ."""

from __future__ import annotations

from typing import Any

import pytest

import clsim
from clsim.records.frame import frame
from clsim.reporting import published
from clsim.reporting.report import Published, ReportSpec
from tests.reporting.test_report import varied


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = ["data.per_class=20", "training.epochs=1"]
    folder = tmp_path_factory.mktemp("r")
    return dict(clsim.run("split-digits", buffer="kcenter", memory=20, settings=settings, runs=folder).data)


def beside(made: dict[str, Any], *conditions: dict[str, Any]) -> list[str]:
    """Name the published rows that stand beside numbers of ours: of k-center and random, 20 exemplars."""
    rows = tuple(Published(at, {"accuracy": [40.0 + i]}, "A paper") for i, at in enumerate(conditions))
    spec = ReportSpec(rows=("memory", "buffer"), columns=("scenario",), metrics=("accuracy",), elsewhere=rows)
    buffers = ("kcenter", "random")
    data = [varied(made, seed, 0.5 + 0.01 * seed, memory__buffer=name) for name in buffers for seed in range(3)]
    (listing,) = published.listed(spec, frame(data))
    return [line.labels[0].partition(" [")[0] for line in listing.lines if line.entries[1] != "–"]


def test_a_row_of_another_size_stands_beside_nothing_where_a_row_has_ours(made: dict[str, Any]) -> None:
    ours, other = ({"memory": size, "buffer": "kcenter"} for size in (20, 50))
    assert beside(made, ours, other) == ["20 · kcenter"]
    assert beside(made, other) == ["50 · kcenter"]  # no row has a size of ours: the arm alone counts


def test_a_row_of_another_arm_or_scenario_stands_beside_nothing(made: dict[str, Any]) -> None:
    ours = {"scenario": "split-digits", "memory": 20, "buffer": "random"}
    elsewhere = {"scenario": "another", "memory": 20, "buffer": "random"}
    assert beside(made, ours, elsewhere, {"memory": 20, "buffer": "herding"}) == ["split-digits · 20 · random"]
    assert beside(made, elsewhere) == ["another · 20 · random"]
