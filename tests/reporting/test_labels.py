"""The report on labels: numbers against closed forms, brute force and scipy; names are text in every format."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from clsim.data.datasets import data_root, load
from clsim.errors import InputError
from clsim.records.frame import frame
from clsim.records.store import RunRecord
from clsim.reporting import budget_figures, budget_tables, budgets, grids, label_plots, page, picked, show
from clsim.reporting.album import album
from clsim.reporting.comparisons import comparisons, ranks
from clsim.reporting.listing import Listing
from clsim.reporting.names import arms as short_names
from clsim.reporting.report import Published, ReportSpec, find_report, read_report
from clsim.reporting.statistics import half_width, variance_components
from clsim.spec.naming import run_name
from tests.labels import labelled, study

SPEC = dataclasses.replace(find_report("active"), published=())


def listings(records: Sequence[dict[str, Any]], spec: ReportSpec = SPEC) -> dict[str, Listing]:
    """The listings on labels by the beginning of their titles."""
    made = budget_tables.labelling(spec, frame(records), records)[1]
    return {listing.title.partition(" (")[0]: listing for listing in made}


def printed(records: Sequence[dict[str, Any]], form: str, capsys: Any, spec: ReportSpec = SPEC) -> str:
    out = io.StringIO()
    show.show(spec, records, form, Console(file=out, width=200))
    return out.getvalue() + capsys.readouterr().out


def line(slope: float, start: float = 0.1) -> Any:
    return lambda p, n: start + slope * n


def test_efficiency_on_straight_curves_is_the_ratio_of_their_slopes() -> None:
    random = [(n, 10 + 0.1 * n) for n in (10, 100, 400)]
    method = [(n, 10 + 0.25 * n) for n in (10, 50, 320)]
    for level in (15.0, 20.0, 30.0, 50.0):
        assert budgets.efficiency(random, method, level) == pytest.approx(2.5)
        assert budgets.efficiency(method, random, level) == pytest.approx(0.4)
        assert budgets.efficiency(random, random, level) == 1
    assert math.isnan(budgets.efficiency(random, method, 60.0))  # random never gets there
    assert math.isnan(budgets.efficiency(method, random, 60.0))
    assert budgets.reached([(10, 50.0), (20, 40.0), (30, 60.0)], 50.0) == 10  # first reached, though lost again
    assert budgets.levels(random) == pytest.approx([11 + 0.25 * 39, 30.5, 11 + 0.75 * 39, 50])


def test_efficiency_of_a_report() -> None:
    records = [labelled("random", s, sizes=(90, 300), accuracy=line(0.001)) for s in range(3)]
    records += [labelled("twice", s, sizes=(90, 300), accuracy=line(0.002)) for s in range(3)]
    records += [labelled("never", s, sizes=(90, 300), accuracy=line(0.0001)) for s in range(3)]
    records += [labelled("elsewhere", s, memory__buffer="random") for s in range(3)]  # no random arm has its memory
    entries = {
        next(n for n in ("twice", "never", "elsewhere", "random") if n in one.labels[0]): one.entries
        for one in listings(records)["Labelling efficiency against random"].lines
    }
    assert entries["twice"] == ["2.00 at 20.8 %", "2.00 at 30.5 %", "2.00 at 40.2 %", "2.00 at 50.0 %"]
    assert [text.split(" ")[0] for text in entries["never"]] == ["–"] * 4
    assert entries["elsewhere"] == ["–"] * 4
    assert "random" not in entries


def test_in_a_stream_efficiency_is_that_of_the_last_experience() -> None:
    """Early in a stream any accuracy is reached: the labels that count are those of the last experience."""
    records = [
        labelled(n, s, experiences=3, accuracy=lambda p, k, slope=slope: 0.9 - 0.3 * p + slope * k)
        for s in range(3)
        for n, slope in (("random", 0.001), ("twice", 0.002))
    ]
    found = listings(records)["Labelling efficiency against random"]
    # random: .31 to .34 over 10 to 40 labels; the other has .32 at its first 10 labels, which the lowest level is below
    assert [text.split(" ")[0] for text in found.lines[0].entries] == ["1.75", "2.00", "2.00", "2.00"]
    assert "In the last experience" in found.notes[1]


def test_the_reference_differs_in_nothing_but_how_labels_were_asked_for() -> None:
    names = ("label", "buffer", "labelling.start")

    def arm(*key: str) -> budgets.Arm:
        return budgets.Arm(key, (), budgets.Cell())

    random = [
        arm("random", "kcenter", "scratch"),
        arm("random", "kcenter", "warm"),
        arm("random", "herding", "scratch"),
    ]
    assert budgets.reference(names, arm("badge", "kcenter", "scratch"), random) is random[0]
    assert budgets.reference(names, arm("loss", "kcenter", "warm"), random) is random[1]
    assert budgets.reference(names, arm("loss", "herding", "warm"), random) is random[2]  # the nearest there is
    assert budgets.reference(names, arm("badge", "–", "scratch"), random) is None
    assert budgets.reference(names, arm("x", "kcenter", "cold"), random) is None  # two are as near
    assert budgets.reference(("buffer",), arm("x"), []) is None


def test_wins_are_those_of_a_paired_t_test_at_every_budget() -> None:
    rng = np.random.default_rng(0)
    values = {
        (arm, s, n): float(np.clip(0.5 + shift + rng.normal(0, 0.02), 0, 1))
        for arm, shift in (("a", 0), ("b", 0.01), ("c", 0.05))
        for s in range(5)
        for n in (10, 20, 30, 40)
    }
    records = [
        labelled(arm, s, accuracy=lambda p, n, arm=arm, s=s: values[arm, s, n]) for arm in "abc" for s in range(5)
    ]
    found = budgets.penalties(budgets.arms(SPEC, frame(records), records))
    names = [key[1] for key in found.arms]
    budgets_after_a_choice = (20, 30, 40)  # at 10, nobody has chosen yet
    some = 0
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            wins = 0
            for n in budgets_after_a_choice if a != b else ():
                x, y = ([round(values[arm, s, n], 6) for s in range(5)] for arm in (a, b))
                wins += np.mean(x) > np.mean(y) and stats.ttest_rel(x, y).pvalue < 0.1
            assert found.wins[i][j] == wins
            assert found.penalties[i][j] == pytest.approx(wins / 3)
            some += wins
    assert some > 0
    net = np.array(found.wins) - np.array(found.wins).T
    assert (net == -net.T).all()
    both = np.array(found.penalties) + np.array(found.penalties).T
    assert (both <= np.array(found.experiments) + 1e-12).all()  # at a budget, one of the two wins, or none
    (listed,) = (of for of in listings(records).values() if of.title.startswith("Wins"))
    assert listed.lines[names.index("c")].entries[0] == str(sum(found.wins[names.index("c")]))


def test_wins_do_not_depend_on_the_order_of_the_arms() -> None:
    one = study({"random": 0.02, "b": 0.021, "c": 0.03})
    turned = study({"random": 0.03, "b": 0.021, "c": 0.02})
    a, b = (budgets.penalties(budgets.arms(SPEC, frame(r), r)) for r in (one, turned))
    order = [a.arms.index(key) for key in b.arms]
    swapped = [order[2], order[1], order[0]] if [k[1] for k in b.arms] == ["b", "c", "random"] else order
    first = {(x[1], y[1]): a.wins[i][j] for i, x in enumerate(a.arms) for j, y in enumerate(a.arms)}
    second = {(x[1], y[1]): b.wins[i][j] for i, x in enumerate(b.arms) for j, y in enumerate(b.arms)}
    turn = {"random": "c", "c": "random", "b": "b"}
    assert {(turn[x], turn[y]): n for (x, y), n in first.items()} == second
    assert len(swapped) == 3


def test_arms_with_other_budgets_are_compared_on_straight_lines_between_them() -> None:
    fine = [labelled("fine", s, sizes=(10,) * 4, accuracy=line(0.01)) for s in range(3)]
    coarse = [labelled("coarse", s, sizes=(20, 20), accuracy=line(0.01)) for s in range(3)]
    short = [labelled("short", s, sizes=(20,), accuracy=line(0.02)) for s in range(3)]
    records = [*fine, *coarse, *short]
    table = budget_tables.labelling(SPEC, frame(records), records)[0][0]
    assert [column[-1] for column in table.columns] == ["10", "20", "30", "40", "50"]
    by_name = {key[1]: row for key, row in table.rows.items()}
    for column in table.columns:
        assert by_name["coarse"][column].mean == pytest.approx(by_name["fine"][column].mean)
    assert [column[-1] for column in by_name["short"]] == ["10", "20", "30"]  # nothing is made up beyond its budget


def test_between_and_within_are_those_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal(rng.normal(0, 3), 1, size) for size in (4, 6, 5, 5)]
    between, within = variance_components(groups)
    n, sizes = 20, np.array([4, 6, 5, 5])
    f = stats.f_oneway(*groups).statistic  # MS between / MS within
    assert within == pytest.approx(sum(((g - g.mean()) ** 2).sum() for g in groups) / 16)
    assert between == pytest.approx(within * (f - 1) / ((n - (sizes**2).sum() / n) / 3))
    many = [rng.normal(centre, 1, 5) for centre in rng.normal(0, 3, 2000)]
    assert variance_components(many) == pytest.approx((9, 1), rel=0.1)
    assert variance_components([rng.normal(0, 1, 500) for _ in range(9)])[0] < 0.02
    for few in ([], [[1.0, 2.0]], [[1.0], [2.0]]):
        assert np.isnan(variance_components(few)).all()


def test_runs_on_one_initial_set_count_once() -> None:
    rng = np.random.default_rng(1)
    values = {
        (arm, split, seed): float(0.5 + 0.1 * split / 7 + rng.normal(0, 0.01) + (0.03 if arm == "badge" else 0))
        for arm in ("random", "badge")
        for split in range(4)
        for seed in range(3)
    }
    records = [
        labelled(arm, seed, split=split, accuracy=lambda p, n, v=v: v) for (arm, split, seed), v in values.items()
    ]
    table = grids.tables(dataclasses.replace(SPEC, metrics=("accuracy",)), frame(records))[0]
    assert "labelling.split" not in table.row_names
    (cell,) = table.rows["finetune", "badge", "–", "–"].values()
    assert len(cell.runs) == 12
    means = {
        arm: [100 * np.mean([round(values[arm, split, seed], 6) for seed in range(3)]) for split in range(4)]
        for arm in ("random", "badge")
    }
    assert list(cell.sample) == pytest.approx(means["badge"])
    assert cell.half_width == pytest.approx(half_width(means["badge"]))
    assert any("over 4 initial sets" in note for note in table.notes)
    assert any("averaged first" in note for note in table.notes)
    (contest,) = comparisons(dataclasses.replace(SPEC, metrics=("accuracy",)), frame(records))
    assert contest.pairs[0].n == 4
    assert contest.pairs[0].p == pytest.approx(stats.ttest_rel(means["badge"], means["random"]).pvalue)
    assert contest.kruskal == pytest.approx(stats.kruskal(means["badge"], means["random"])[0])
    variance = listings(records)["Variance between initial sets, and within"]
    assert [one.entries[:2] for one in variance.lines] == [["4", "3"]] * 2
    expected = variance_components(
        [[100 * round(values["badge", split, seed], 6) for seed in range(3)] for split in range(4)]
    )
    (mine,) = (one for one in variance.lines if "badge" in one.labels[-1])
    assert mine.entries[2:4] == [f"{math.sqrt(v):.2f}" for v in expected]
    assert not any("Variance" in name for name in listings([r for r in records if r["spec"]["seed"] == 0]))


def test_games_howell_and_kruskal_are_always_there() -> None:
    """As published values: Games–Howell of scipy's own implementation, by way of the report."""
    records = study(seeds=5)
    (contest,) = comparisons(dataclasses.replace(SPEC, metrics=("accuracy",)), frame(records))
    samples = {
        arm: [100 * r["accuracy"][0][0] for r in records if r["spec"]["labelling"]["selector"] == arm[1]]
        for arm in contest.arms
    }
    expected = stats.tukey_hsd(*samples.values(), equal_var=False).pvalue
    for pair in contest.pairs:
        i, j = contest.arms.index(pair.a), contest.arms.index(pair.b)
        assert pair.p_games_howell == pytest.approx(expected[i, j], abs=1e-9)
    assert contest.p_kruskal == pytest.approx(stats.kruskal(*samples.values()).pvalue)


def test_with_a_single_scenario_seeds_are_the_blocks_of_the_ranks() -> None:
    records = study({"random": 0.02, "b": 0.03, "c": 0.04}, seeds=4)
    found = ranks(dataclasses.replace(SPEC, metrics=("aubc",)), frame(records))[0]
    assert found.condition_names == ("seed",)
    assert len(found.conditions) == 4
    assert [arm[1] for arm in found.arms] == ["c", "b", "random"]
    assert found.average == (1, 2, 3)
    assert ranks(dataclasses.replace(SPEC, metrics=("aubc",), labelling=False), frame(records)) == []
    two = ranks(
        dataclasses.replace(SPEC, metrics=("aubc",)),
        frame([*records, *study({"random": 0.02, "b": 0.03, "c": 0.04}, scenario="y")]),
    )[0]
    assert two.condition_names == ("scenario",)
    assert len(two.conditions) == 2


def test_picks_are_measured_by_hand() -> None:
    # rounds of two: labels 0 0 | 1 2; random's picks share rows 0 and 20
    mine = labelled("badge", sizes=(2, 2), picks=lambda p, r: [[0, 10], [1, 22]][r - 1], classes=10, pool=100)
    other = labelled("random", sizes=(2, 2), picks=lambda p, r: [[10, 55], [1, 0]][r - 1], classes=10, pool=100)
    for record in (mine, other):
        record["classes"] = [[0, 1, 2]]
    found = picked.measured(mine, other)
    assert found[1]["entropy"] == 0
    assert found[1]["missing"] == 2
    assert math.isinf(found[1]["imbalance"])
    shares = np.array([0.5, 0.25, 0.25])
    assert found[2]["entropy"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(3))
    assert found[2]["imbalance"] == 2
    assert found[2]["missing"] == 0
    assert found[1]["random"] == 50  # row 10 of 0, 10
    assert found[2]["random"] == 75  # rows 0, 1, 10 of 0, 1, 10, 22
    assert found[1]["chance"] == 2
    assert found[2]["chance"] == 4
    assert found[2]["radius"] == 1
    assert found[2]["peak_mib"] == 3
    assert math.isnan(picked.measured(mine, None)[1]["random"])
    counts = picked.of_classes(mine, 10)
    assert counts.tolist() == [2, 1, 1, 0, 0, 0, 0, 0, 0, 0]


def test_random_picks_of_other_seeds_overlap_by_chance() -> None:
    """The expected share is that of two independent draws."""
    found = [
        picked.measured(labelled("a", s, sizes=(200,), pool=1000), labelled("random", s, sizes=(200,), pool=1000))[1]
        for s in range(40)
    ]
    assert {of["chance"] for of in found} == {20.0}
    assert np.mean([of["random"] for of in found]) == pytest.approx(20, abs=1.2)


def test_overlap_is_with_the_random_run_of_the_same_seed_and_initial_set() -> None:
    same = lambda p, r: list(range(10))  # noqa: E731
    others = lambda p, r: list(range(50, 60))  # noqa: E731
    records = [labelled("random", s, sizes=(10,), picks=same if s else others) for s in range(3)]
    records += [labelled("badge", s, sizes=(10,), picks=same) for s in range(3)]
    tables = budget_tables.labelling(SPEC, frame(records), records)[0]
    (table,) = (of for of in tables if of.metric == "picks_random")
    rows = {key[1]: cell for key, row in table.rows.items() for cell in row.values()}
    assert dict(zip(rows["badge"].seeds, rows["badge"].values, strict=True)) == {0: 0, 1: 100, 2: 100}
    assert rows["random"].values == ()


def test_labels_are_counted_apart_and_the_best_round_is_no_result() -> None:
    records = [
        labelled("badge", s, sizes=(5, 5, 3), initial=7, accuracy=lambda p, n: {7: 0.2, 12: 0.9, 17: 0.5, 20: 0.6}[n])
        for s in range(3)
    ]
    for record in records:
        record["labelling"]["validation"] = [40]
    found = listings(records)["Labels, counted apart"]
    assert found.lines[0].entries == ["7", "13", "40", "60.0 ± 0.0", "90.0 ± 0.0"]
    assert found.columns[-1] == ("best round, % (no result)",)
    assert any("not for comparison" in note for note in found.notes)


@pytest.mark.parametrize("name", ["balanced-random", "greedy-oracle"])
def test_what_reads_hidden_labels_says_so_everywhere_and_is_not_compared(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    records = study({"random": 0.02, "badge": 0.03, name: 0.09})
    note = f"{name} reads hidden labels: a bound"
    for form in ("console", "markdown", "latex"):
        text = re.sub(r"[\\{}]", "", printed(records, form, capsys))
        tables = {"console": "┏", "markdown": "\n| ---", "latex": "begintable"}[form]
        assert text.count(tables) > 8
    made = [*budget_tables.labelling(SPEC, frame(records), records)[1], *grids.tables(SPEC, frame(records))]
    assert all(any(note in said for said in of.notes) for of in made)
    table = grids.tables(SPEC, frame(records))[0]
    best = [key[1] for key, row in table.rows.items() for cell in row.values() if cell.best]
    assert best == ["badge"]
    assert name not in [key[1] for key in budgets.penalties(budgets.arms(SPEC, frame(records), records)).arms]
    assert all(name not in (pair.a[1], pair.b[1]) for of in comparisons(SPEC, frame(records)) for pair in of.pairs)
    assert not any("hidden" in said for of in grids.tables(SPEC, frame(study())) for said in of.notes)


def test_an_initial_set_that_reads_hidden_labels_is_a_bound_too() -> None:
    records = [
        labelled("badge", s, labelling__initial=name) for s in range(3) for name in ("random", "balanced-random")
    ]
    table = grids.tables(dataclasses.replace(SPEC, metrics=("accuracy",)), frame(records))[0]
    assert [(key[-1], cell.bound) for key, row in table.rows.items() for cell in row.values()] == [
        ("balanced-random", True),
        ("random", False),
    ]


PAPER = Published(
    {"scenario": "active-digits", "label": "badge"}, {}, "Somebody (2020), read off a graph", 3, {"15": 40, "35": 61.5}
)


def test_published_accuracies_stand_beside_ours_at_the_same_numbers_of_labels() -> None:
    spec = dataclasses.replace(SPEC, published=(PAPER,))
    records = [labelled("badge", s, accuracy=line(0.01)) for s in range(3)]
    found = listings(records, spec)["Published accuracy over labels beside ours, %"]
    assert [column for (column,) in found.columns] == ["15 labels", "35 labels"]
    assert [one.entries for one in found.lines] == [["25.0 ± 0.0", "45.0 ± 0.0"], ["40", "61.5"]]
    assert found.lines[1].labels == ["badge (published [1])"]
    assert found.notes[0] == "published [1]: Somebody (2020), read off a graph, 3 runs."
    small = [labelled("badge", s, sizes=(2,), initial=2) for s in range(3)]
    left_out = listings(small, spec)["Published accuracy over labels"]
    assert left_out.notes[0] == "Left out: papers have 15 to 35 labels, ours 2 to 4."
    assert not any(name.startswith("Published") for name in listings(study(scenario="other"), spec))


def test_published_accuracies_are_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[[published]]\nat = {}\npercent = {}\nsource = 'x'\nover_labels = { many = 3 }")
    with pytest.raises(InputError, match=r"published.over_labels: found 'many' = 3, allowed: a number of labels"):
        read_report(file)


def test_csv_has_every_budget_and_every_round(capsys: pytest.CaptureFixture[str]) -> None:
    records = study(sizes=(5,) * 20)
    cells = pd.read_csv(io.StringIO(printed(records, "csv", capsys)))
    curve = cells[(cells.metric == "accuracy_over_labels") & (cells.label == "badge")]
    assert curve.labels.tolist() == [*range(10, 111, 5)]
    assert (curve.n == 5).all()
    assert set(cells.metric) >= {"aubc", "accuracy", "picks_entropy", "picks_random", "picks_select_seconds"}
    rounds = cells[(cells.metric == "picks_radius") & (cells.label == "badge")]
    assert rounds["round"].tolist() == [*range(1, 21)]
    assert rounds["mean"].tolist() == pytest.approx([3 / (r + 1) for r in range(1, 21)])
    shown = listings(records)["Accuracy over the number of labels, %"]
    assert len(shown.columns) == 8
    assert (shown.columns[0], shown.columns[-1]) == (("10 labels",), ("110 labels",))


def test_a_run_says_who_chose_its_labels() -> None:
    assert run_name(labelled("badge", 3)["spec"]) == "active-digits · finetune · badge 30 labels · seed 3"
    assert run_name(labelled("none", 3)["spec"]) == "active-digits · finetune · seed 3"
    records = [labelled(name, s) for name in ("badge", "none") for s in range(3)]
    table = grids.tables(find_report("accuracy"), frame(records))[0]
    assert table.row_names == ("strategy", "buffer", "label")
    assert sorted(key[2] for key in table.rows) == ["badge", "–"]
    keys = [("er", a, b, "100") for a in ("random", "badge", "kcenter") for b in ("random", "badge", "kcenter")]
    named = short_names(("strategy", "label", "buffer", "memory"), keys)
    assert len(set(named.values())) == 9
    assert named["er", "badge", "random", "100"] == "label badge buffer random"


HOSTILE = "[red]|<script>alert(1)</script>\n../../x\x1b[31m$x_1$"


@pytest.mark.parametrize("name", [HOSTILE, "./" + "very/long/folder/" * 12 + "mine.py:pick"])
@pytest.mark.parametrize("form", show.FORMS)
def test_names_are_text_in_every_format(name: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    records = study({"random": 0.02, name: 0.03, f"{name}2": 0.04}, scenario=name)
    text = printed(records, form, capsys)
    assert "\x1b[31m" not in text
    assert "nan" not in text.lower().replace("finance", "")
    if form == "markdown":
        assert "<script>" not in text
        for of in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({row.replace("\\|", "").count("|") for row in of.splitlines()}) == 1
    if form == "csv":
        assert set(pd.read_csv(io.StringIO(text)).metric) >= {"accuracy_over_labels", "picks_entropy"}


def test_the_page_holds_all_of_it_and_nothing_hostile() -> None:
    records = [RunRecord(r) for r in study({"random": 0.02, HOSTILE: 0.03}, scenario="active-digits")]
    text = page.render(SPEC, records, [])
    assert "<script>alert(1)" not in text
    for listing in listings([dict(r.data) for r in records]).values():
        assert listing.title in text
    for group in (
        "Accuracy over the number of labels",
        "What was picked, round by round",
        "Labels of each class",
        "The first picks",
    ):
        assert f">{group}</h4>" in text
    assert "p (Games–Howell)" in text
    assert text.count("data:image/webp") >= 2
    assert "There is one experience only" not in text
    assert page.render(SPEC, records, []) == text


def test_a_report_that_does_not_ask_shows_nothing_of_labels(capsys: pytest.CaptureFixture[str]) -> None:
    spec = find_report("accuracy")
    assert budget_tables.labelling(spec, frame(study()), study()) == ([], [])
    assert "labels" not in printed(study(), "markdown", capsys, spec)


def test_runs_without_label_rounds_in_their_records_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    records = [labelled("badge", s) for s in range(3)]
    for record in records:
        del record["labelling"]
    text = printed(records, "markdown", capsys)
    assert "Left out, as no run has a number: area under the budget curve (AUBC), %." in text
    assert page.render(SPEC, [RunRecord(r) for r in records], [])


def test_curves_are_drawn_where_all_seeds_were_tested_and_initial_sets_lie_before_them() -> None:
    records = [labelled("badge", s, sizes=(10, 10), experiences=2, accuracy=line(0.01)) for s in range(3)]
    for entry in (5, 2):  # one run stops after its first round
        del records[0]["labelling"]["rounds"][entry]
    (arm,) = budgets.arms(SPEC, frame(records), records)["active-digits",]
    first, second = budget_figures.parts(arm)
    assert [y for _, y, _ in first] == pytest.approx([20, 30])  # one seed ends there
    assert [x for x, *_ in first] == [10, 20]
    assert [x for x, *_ in second] == pytest.approx([10 + 80 / 3, 20 + 80 / 3])
    assert budget_figures.initial_sets([arm]) == [(0, 10), (pytest.approx(80 / 3), pytest.approx(10 + 80 / 3))]


def test_figures_are_drawn_and_not_blank(tmp_path: Path) -> None:
    records = study(experiences=2) + study(scenario="x/../y", memory__buffer="random", memory__capacity=50)
    every = label_plots.draw(SPEC, records, tmp_path / "f")
    assert Counter(path.suffix for path in every) == {".pdf": 4, ".svg": 4, ".png": 4}
    made = [path for path in every if path.suffix == ".png"]
    assert sorted(path.name for path in made) == sorted(
        ["active-digits-labels.png", "active-digits-picks.png", "x-..-y-labels.png", "x-..-y-picks.png"]
    )
    for path in made:
        with Image.open(path) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_the_first_picks_are_the_pictures_of_their_rows() -> None:
    record = labelled("badge", sizes=(2, 30), picks=lambda p, r: [[5, 3], [*range(100, 130)]][r - 1])
    found = album(record)
    train = load(dataclasses.replace(_digits()), data_root(None)).train_x
    rows = [5, 3, *range(100, 118)]
    assert found.images.shape == (20, 8, 8, 1)
    assert (found.images[..., 0] == train[rows][:, 0]).all()
    assert found.labels.tolist() == [row % 10 for row in rows]


def test_absent_data_is_said_in_a_line(workplace: Path) -> None:
    with pytest.raises(InputError, match="found row 999, allowed: 0 to"):
        album(labelled("badge", sizes=(1,), picks=lambda p, r: [999], data__per_class=3))
    with pytest.raises(InputError, match="mnist"):
        album(labelled("badge", data__dataset="mnist"))
    with pytest.raises(InputError, match=r"\[data\] colour: unknown key"):
        album(labelled("badge", data__colour="red"))
    (workplace / "own.npz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"own.npz: its content is not that of the run"):
        album(labelled("badge", data__dataset="npz", data__path=str(workplace / "own.npz")))
    with pytest.raises(InputError, match="no label was asked for"):
        album(labelled("badge", sizes=()))


def _digits() -> Any:
    from clsim.spec.tables import DataSpec

    return DataSpec()
