"""The papers behind clsim: all are there, and each names studies, reports and claims that fit each other."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest

from clsim.execution import plan
from clsim.execution.plan import Planned
from clsim.records.frame import scenario_names
from clsim.records.store import Store
from clsim.reporting.papers import Size, every_paper
from clsim.reporting.report import Claim, admits, find_report, row_of

TWENTY = (
    *("deepcore", "dm", "deepal-plus", "torchal", "dacs", "nncsl", "similar", "deep-al-survey", "labelled-set"),
    *("pt4al", "base", "tod", "dalbt", "distil", "poal", "survey", "dcc", "acc-dd", "rho-loss", "sparse-approximation"),
)
ANCHOR = "online-cifar100"
SIZES = [
    pytest.param(name, of, size, id=f"{name}-{of}")
    for name, paper in every_paper()[0].items()
    for of, size in paper.sizes.items()
    if size.studies
]
QUARTER = 15 * 60 * 2
"""Seconds of two cores in a quarter of an hour."""


@functools.cache
def planned(studies: tuple[str, ...], seeds: int) -> list[Planned]:
    found = []
    for name in studies:
        study = plan.find_study(name)
        found += plan.plan(dataclasses.replace(study, seeds=study.seeds[:seeds]), Store(Path("nowhere")))
    return found


def rows(size: Size) -> list[dict[str, Any]]:
    """The columns of each run with one seed, as its record will have them."""
    specs = [run.spec.as_dict() for run in planned(size.studies, 1)]
    return [row_of(spec) | {"scenario": name} for spec, name in zip(specs, scenario_names(specs), strict=True)]


def test_all_twenty_and_the_anchor_are_there() -> None:
    papers, problems = every_paper()
    assert len(TWENTY) == 20
    assert {*papers} == {*TWENTY, ANCHOR}
    assert not problems
    assert all(paper.claims and paper.small.studies for paper in papers.values())
    assert [name for name, paper in papers.items() if not paper.published.studies] == ["deep-al-survey"]
    keys = [paper.key for paper in papers.values()]
    assert all(keys)
    assert len({*keys}) == len(keys)


@pytest.mark.parametrize(("name", "of", "size"), SIZES)
def test_each_claim_finds_its_arms_and_each_run_a_report(name: str, of: str, size: Size) -> None:
    every = rows(size)
    admitted = set()
    for report in size.reports:
        spec = find_report(report)
        inside = [i for i, row in enumerate(every) if admits(spec.filter, row) and not excluded(spec.exclude, row)]
        assert inside, f"{report}: no run passes the filter"
        admitted |= {*inside}
        for claim in spec.claims:
            if claim.size == "published" and spec.size != "published":
                continue
            for side in sides(claim):
                assert any(admits(side, every[i]) for i in inside), f"{report}: {claim.text}: no run with {side}"
    assert admitted == {*range(len(every))}, f"{name}: some runs are in no report"


def excluded(exclude: Any, row: dict[str, Any]) -> bool:
    return any(admits({column: value}, row) for column, value in exclude.items())


def sides(claim: Claim) -> list[dict[str, Any]]:
    """What each side of a comparison asks for."""
    return [{**claim.at, **side, **than} for side in (claim.a, claim.b) for than in ({}, claim.than)]


@pytest.mark.parametrize("name", [*TWENTY, ANCHOR])
def test_each_arm_of_a_claim_is_run_in_some_size(name: str) -> None:
    paper = every_paper()[0][name]
    every = [row for size in paper.sizes.values() for row in rows(size)]
    for report in (*paper.small.reports, *paper.published.reports):
        for claim in find_report(report).claims:
            for column, value in (
                (c, v) for table in (claim.a, claim.b, claim.at, claim.than) for c, v in table.items()
            ):
                for one in value if isinstance(value, list) else [value]:
                    assert any(admits({column: [one]}, row) for row in every), f"{report}: {claim.text}: {column} {one}"


@pytest.mark.parametrize(("name", "of", "size"), SIZES)
def test_each_report_has_the_size_that_it_stands_for(name: str, of: str, size: Size) -> None:
    assert {find_report(report).size for report in size.reports} == {of}


@pytest.mark.parametrize("name", [*TWENTY, ANCHOR])
def test_a_small_size_has_five_seeds_and_fits_a_quarter_of_an_hour(name: str) -> None:
    size = every_paper()[0][name].small
    for study in map(plan.find_study, size.studies):
        assert len(study.seeds) * len(study.set.get("labelling.split", [0])) >= 5
    count = sum(len(plan.find_study(study).seeds) * len(planned((study,), 1)) for study in size.studies)
    assert count * size.seconds <= QUARTER
    assert bool(size.seconds) == bool(size.measured)


def test_published_rows_name_their_source_and_stand_in_reports_of_the_published_size() -> None:
    for paper in every_paper()[0].values():
        for report in paper.published.reports:
            assert all(row.source for row in find_report(report).published)
