"""Shipped studies of papers: they resolve, hold what their reports' claims compare, and run in each leaf."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import clsim
from clsim.execution import plan
from clsim.records.frame import settings
from clsim.records.store import Store
from clsim.reporting.report import ReportSpec, find_report, having
from clsim.spec.components import STREAM_POLICIES
from clsim.spec.taxonomy import leaves

PAPERS = ("deepal-plus", "torchal", "distil", "base", "labelled-set", "similar", "poal")
RUNS = {
    **{"torchal-regularised": 280, "active-factors": 120, "learned-acquisitions": 45, "low-budget": 35},
    **{"base": 140, "base-published": 84, "noisy-memory": 60},
    **{"deepal-plus": 120, "torchal": 140, "distil": 240, "deep-al-survey": 120},
    **{"deepal-plus-published": 320, "torchal-published": 350, "distil-published": 240},
    **{"labelled-set": 80, "labelled-set-injection": 60, "labelled-set-published": 144},
    **{"similar": 75, "similar-published": 117, "poal": 25, "poal-published": 18},
}
PARTS = {"similar": ("similar-rare", "similar-outsiders", "similar-redundant")}
"""Reports of the runs of several studies: each pool has its own arms."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The settings of every planned run, by study."""
    store = Store(tmp_path_factory.mktemp("runs"))
    studies = {name: [plan.find_study(part) for part in PARTS.get(name, (name,))] for name in RUNS}
    planned = {name: [run for part in parts for run in plan.plan(part, store)] for name, parts in studies.items()}
    return {name: pd.DataFrame([settings(run.spec.as_dict()) for run in of]) for name, of in planned.items()}


def kept(spec: ReportSpec, runs: pd.DataFrame) -> pd.DataFrame:
    return having(spec.filter, runs, "filter")


@pytest.mark.parametrize("name", RUNS)
def test_a_report_shows_every_run_of_its_study(name: str, rows: dict[str, pd.DataFrame]) -> None:
    assert len(rows[name]) == RUNS[name]
    assert len(kept(find_report(name), rows[name])) == RUNS[name]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "deep-al-survey"])
def test_what_a_claim_compares_is_in_the_study(name: str, rows: dict[str, pd.DataFrame]) -> None:
    spec = find_report(name)
    assert spec.size == ("published" if name.endswith("published") else "small")
    assert spec.claims
    chosen = kept(spec, rows[name])
    for claim in spec.claims:
        for side in (claim.a, claim.b):
            parts = [having({**claim.at, **side, **of}, chosen, "claim") for of in ({}, claim.than)]
            named = side.get("label", [])
            for part in parts:
                assert not part.empty
                assert {*part["label"]} >= {*(named if isinstance(named, list) else [named])}
                assert part.groupby("label")["seed"].nunique().eq(chosen["seed"].nunique()).all()
        if claim.than:
            assert not {*having(claim.at, chosen, "").index} & {*having({**claim.at, **claim.than}, chosen, "").index}


@pytest.mark.parametrize("paper", PAPERS)
def test_small_and_published_runs_stay_apart(paper: str, rows: dict[str, pd.DataFrame]) -> None:
    both = pd.concat([rows[paper], rows[f"{paper}-published"]], ignore_index=True)
    assert len(kept(find_report(paper), both)) == RUNS[paper]
    assert len(kept(find_report(f"{paper}-published"), both)) == RUNS[f"{paper}-published"]


@pytest.mark.parametrize(
    "name",
    [
        *("torchal-regularised", "active-factors", "learned-acquisitions", "low-budget", "base", "similar", "poal"),
        "noisy-memory",
    ],
)
def test_a_report_shows_the_runs_of_no_other_study(name: str, rows: dict[str, pd.DataFrame]) -> None:
    everything = pd.concat(rows.values(), ignore_index=True)
    assert len(kept(find_report(name), everything)) == RUNS[name]


def test_one_factor_at_a_time_is_varied_around_one_cell(rows: dict[str, pd.DataFrame]) -> None:
    found = rows["active-factors"]
    one = found[(found["label"] == "random") & (found["seed"] == 0)]
    factors = ["labelling.per_round", "training.epochs", "labelling.start", "labelling.initial", "data.augment"]
    usual = one[factors].astype(str).mode().iloc[0]
    assert sorted((one[factors].astype(str) != usual).sum(axis=1)) == [0] + [1] * 7


@pytest.mark.parametrize("name", [names[0] for _, _, names in leaves()])
def test_each_leaf_runs_on_digits(name: str, tmp_path: Path) -> None:
    one_pass = ["training.steps=0", "training.passes=2", "labelling.rounds=1"]
    rounds = ["training.steps=20", "labelling.rounds=2"]
    short = ["data.per_class=20", "labelling.budget=20", *(one_pass if name in STREAM_POLICIES else rounds)]
    record = clsim.run("active-digits", "finetune", label=name, settings=short, runs=tmp_path).data
    assert record["finished"]
    assert record["labelling"]["initial"] == [10]
    asked = sum(record["labelling"]["asked"])
    assert 0 < asked <= 20
    assert asked == 20 or name in STREAM_POLICIES
