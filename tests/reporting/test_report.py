"""Reports: seeds are pooled and nothing else, intervals are scipy's, names are text."""

from __future__ import annotations

import copy
import dataclasses
import html
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

import clsim
from benchmarks.report import make
from clsim.errors import InputError
from clsim.records import frame
from clsim.records.frame import COSTS
from clsim.records.metrics import ALL
from clsim.records.store import RunFailure, Store
from clsim.reporting import curves, formats, grids, plots, report, show
from clsim.reporting.cells import Cell, Table
from clsim.reporting.comparisons import comparisons, ranks
from clsim.reporting.curves import by_scenario
from clsim.reporting.report import Published, ReportSpec
from clsim.spec import registry
from clsim.spec.resolve import resolve
from tests.commands import clsim as command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A real record, to be varied."""
    settings = ["data.per_class=20", "training.epochs=1"]
    record = clsim.run(
        "split-digits", buffer="kcenter", memory=20, settings=settings, runs=tmp_path_factory.mktemp("r")
    )
    return dict(record.data)


def varied(record: dict[str, Any], seed: int, accuracy: float | np.ndarray, **spec: Any) -> dict[str, Any]:
    """The record with another accuracy (a matrix, or its last row) and other values ``table__key`` in its spec."""
    out = copy.deepcopy(record)
    size = len(out["accuracy"])
    matrix = np.full((size, size), accuracy) if isinstance(accuracy, float) else accuracy
    out["accuracy"] = matrix.tolist()
    out["initial"] = [None] * len(matrix)
    out["test_sizes"] = [100] * len(matrix)
    out["spec"]["seed"] = seed
    for name, value in spec.items():
        table, _, key = name.partition("__")
        if key:
            out["spec"].setdefault(table, {})[key] = value
        else:
            out["spec"][table] = value
    out["fingerprint"] = f"{abs(hash(json.dumps([out['spec'], out['accuracy']], sort_keys=True))):016x}"[:16]
    return out


def table(records: list[dict[str, Any]], spec: ReportSpec | None = None) -> Table:
    return grids.tables(spec or ReportSpec(metrics=("accuracy",)), frame.frame(records))[0]


def printed(records: list[dict[str, Any]], spec: ReportSpec, form: str, capsys: pytest.CaptureFixture[str]) -> str:
    out = io.StringIO()
    show.show(spec, records, form, Console(file=out, width=300))
    return out.getvalue() + capsys.readouterr().out


def test_seeds_are_pooled_with_scipys_interval(made: dict[str, Any]) -> None:
    values = [0.5, 0.6, 0.76, 0.7]
    found = table([varied(made, s, v) for s, v in enumerate(values)])
    (cells,) = found.rows.values()
    (cell,) = cells.values()
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert cell.mean == pytest.approx(100 * np.mean(values))
    assert str(cell) == f"{100 * np.mean(values):.1f} ± {50 * (high - low):.1f}"
    assert any("over 4 seeds" in note for note in found.notes)


def test_two_seeds_are_shown_as_they_are(made: dict[str, Any]) -> None:
    found = table([varied(made, 0, 0.5), varied(made, 1, 0.6)])
    (cells,) = found.rows.values()
    assert [str(c) for c in cells.values()] == ["50.0, 60.0"]
    assert any("no interval can be given" in note for note in found.notes)
    assert not any("±" in note for note in found.notes)


def test_another_setting_is_another_row(made: dict[str, Any]) -> None:
    records = [varied(made, s, v, optimizer__lr=lr) for lr, v in ((0.1, 0.5), (0.2, 0.7)) for s in range(3)]
    found = table(records)
    assert found.row_names == ("strategy", "buffer", "memory", "optimizer.lr")
    assert [key[-1] for key in found.rows] == ["0.1", "0.2"]


def test_an_edited_selector_is_another_row(made: dict[str, Any]) -> None:
    records = [varied(made, 0, v, sources=[["./mine.py:f", digest]]) for digest, v in (("aa", 0.5), ("bb", 0.6))]
    assert len(table(records).rows) == 2


def test_a_missing_cell_and_a_missing_metric_are_dashes(
    made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    joint = np.full((5, 5), np.nan)
    joint[-1] = 0.9
    records = [varied(made, 0, 0.5), varied(made, 0, joint, scenario="other", stream__presentation="joint")]
    text = printed(records, ReportSpec(metrics=("accuracy", "forgetting")), "markdown", capsys)
    assert "| er | kcenter | 20 | joint | 90.0 | – |" in text or "– |" in text
    assert "nan" not in text.lower()


def test_intransigence_is_held_against_the_joint_run_of_the_same_seed(made: dict[str, Any]) -> None:
    records = [varied(made, s, 0.5) for s in range(2)]
    records += [varied(made, s, 0.8 + 0.1 * s, strategy="joint", stream__presentation="joint") for s in range(2)]
    runs = frame.frame(records)
    of_er = runs[runs.strategy == "er"].set_index("seed").intransigence
    assert of_er.round(6).to_dict() == {0: 0.3, 1: 0.4}


def test_published_rows_stand_beside_ours_and_the_difference_is_stated(made: dict[str, Any]) -> None:
    at = {"scenario": "split-digits", "strategy": "er", "buffer": "kcenter", "memory": 20}
    row = Published(at, {"accuracy": [61.0, 2.0]}, "somebody (2020)", 5)
    found = table(
        [varied(made, s, 0.6 + 0.01 * s) for s in range(3)], ReportSpec(metrics=("accuracy",), published=(row,))
    )
    labels = [key[0] for key in found.rows]
    assert labels == ["er", "er (published [1])"]
    assert [str(c) for c in found.rows[("er (published [1])", "kcenter", "20")].values()] == ["61 ± 2"]
    assert any("somebody (2020), 5 seeds" in note for note in found.notes)
    assert any("ours − published [1]: +0.0" in note for note in found.notes)


def test_csv_holds_the_numbers_of_the_tables(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    records = [varied(made, s, 0.5 + 0.1 * s, memory__capacity=m) for m in (20, 100) for s in range(3)]
    spec = ReportSpec(
        metrics=(
            "accuracy",
            "select_seconds",
        )
    )
    cells = pd.read_csv(io.StringIO(printed(records, spec, "csv", capsys)))
    assert set(cells.metric) == {"accuracy", "select_seconds"}
    accuracy = cells[cells.metric == "accuracy"]
    assert accuracy["mean"].tolist() == pytest.approx([60, 60])
    assert accuracy.half_width_95.tolist() == pytest.approx([stats.t.ppf(0.975, 2) * 10 / 3**0.5] * 2)
    assert accuracy.n.tolist() == [3, 3]
    assert sorted(accuracy.memory) == [20, 100]
    rows = pd.read_csv(io.StringIO(printed(records, spec, "runs", capsys)))
    assert rows.seed.tolist() == [0, 1, 2] * 2
    assert rows.accuracy.tolist() == pytest.approx([0.5, 0.6, 0.7] * 2)


def test_tables_of_runs_say_which_diverged(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    records = [varied(made, seed, 0.5) for seed in range(3)]
    fine, broken, old = records
    fine["diverged"], broken["diverged"] = False, True
    old.pop("diverged", None)  # an earlier version did not say
    assert frame.frame(records).diverged.tolist() == [False, True, None]
    rows = pd.read_csv(io.StringIO(printed(records, ReportSpec(metrics=("accuracy",)), "runs", capsys)), dtype=str)
    assert rows.diverged.tolist()[:2] == ["False", "True"]
    assert pd.isna(rows.diverged[2])


def test_rows_and_columns_are_in_the_order_of_their_numbers(made: dict[str, Any]) -> None:
    records = [varied(made, 0, 0.5, memory__capacity=m) for m in (1000, 20, 100)]
    assert [key[2] for key in table(records).rows] == ["20", "100", "1000"]
    wide = table(records, ReportSpec(metrics=("accuracy",), rows=("buffer",), columns=("memory",)))
    assert wide.columns == [("20",), ("100",), ("1000",)]


HOSTILE = "[red]|<script>\n../../x\x1b[31m"


def test_names_are_text_in_every_format(
    made: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [varied(made, s, 0.5, scenario=HOSTILE, strategy=HOSTILE) for s in range(3)]
    spec = ReportSpec(title="[bold]", metrics=("accuracy",))
    markdown = printed(records, spec, "markdown", capsys)
    assert "<script>" not in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    console = printed(records, spec, "console", capsys)
    assert "[red]" in console
    assert "[bold]" in console
    cells = pd.read_csv(io.StringIO(printed(records, spec, "csv", capsys)))
    assert cells.strategy.tolist() == [HOSTILE.replace("\x1b", " ")]
    for path in plots.draw(spec, records, tmp_path / "figures"):
        assert path.parent == tmp_path / "figures"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures"]


def test_a_filter_that_leaves_nothing_says_what_there_is(made: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"no finished run with scenario \[\"x\"\]; there are: split-digits"):
        table([varied(made, 0, 0.5)], ReportSpec(filter={"scenario": ["x"]}))
    with pytest.raises(InputError, match=r"unknown column 'bufer'; did you mean 'buffer'\?"):
        table([varied(made, 0, 0.5)], ReportSpec(rows=("bufer",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric = ['accuracy']", r"metric: unknown key; did you mean 'metrics'\?"),
        ("metrics = ['acuracy']", r"metrics: unknown name 'acuracy'; did you mean 'accuracy'\?"),
        ("metrics = 'accuracy'", "metrics: found 'accuracy', allowed: a list, each text"),
        ("[[published]]\nat = {}", r"\[published\[0\]\] percent: missing"),
        ("published = 3", "published: found 3"),
        ("published = [3]", r"published\[0\]: found 3, allowed: a table"),
        (
            "[[published]]\nat = {}\nsource = 'x'\npercent = { accuracy = 'x' }",
            r"percent\.accuracy: found 'x', allowed: a list",
        ),
        ("[filter]\nscenario = 2020-01-01", r"filter\.scenario: found .* allowed: a number, text"),
        ("rows = [3]", r"rows\[0\]: found 3, allowed: text"),
        ("rows", "Expected"),
    ],
)
def test_a_broken_report_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        report.read_report(tmp_path / "mine.toml")
    assert str(tmp_path / "mine.toml") in str(caught.value)


@pytest.mark.parametrize("name", registry.file_names("reports"))
def test_every_shipped_report_reads_and_shows(
    name: str, made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = report.read_report(registry.find_file("reports", name))
    scenarios = spec.filter.get("scenario", "split-digits")
    scenarios = scenarios if isinstance(scenarios, list) else [scenarios]
    places = {"label": "labelling.selector", "strategy": "strategy", "buffer": "memory.buffer"}
    asked = {
        places.get(key, key).replace(".", "__"): value[0] if isinstance(value, list) else value
        for key, value in spec.filter.items()
        if "." in key or key in places
    }
    asked |= {key.replace(".", "__"): "another" for key in spec.exclude if "." in key}
    records = [varied(made, s, 0.5 + s / 100, scenario=scenario, **asked) for scenario in scenarios for s in range(3)]
    for form in show.FORMS:
        text = printed(records, spec, form, capsys)
        assert text.strip()
        assert "nan" not in text.lower()
    for metric in spec.metrics:
        assert metric in ALL or metric in COSTS


def test_runs_of_several_versions_are_pointed_out(made: dict[str, Any]) -> None:
    """Numbers depend on the code and on the processor: a table that mixes them says so, in one line."""
    own, other, old = (varied(made, seed, 0.5) for seed in range(3))
    assert not any("made by several" in note for note in table([own]).notes)
    code, processor = own["versions"]["code"], own["environment"]["processor"]
    other["versions"] |= {"clsim": "9.9", "code": "f" * 12 + "-dirty"}
    del old["versions"]["code"], old["environment"]["processor"]
    (note,) = (note for note in table([own, other, old]).notes if "made by several" in note)
    assert "versions of clsim 0.1.0 (2), 9.9 (1); " in note
    for words in (f"{code} (1)", "ffffffffffff-dirty (1)", "not recorded (1)", f"processors {processor} (2)"):
        assert words in note


@pytest.mark.parametrize("size", [1, 5, 20])
def test_figures_are_drawn_and_not_blank(size: int, made: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = [
        varied(
            made,
            s,
            np.where(np.tril(np.ones((size, size), bool)), rng.random((size, size)), np.nan),
            memory__capacity=m,
        )
        for s in range(3)
        for m in (20, 100)
    ]
    paths = plots.draw(ReportSpec(), records, tmp_path)
    names = ("split-digits-curves", "split-digits-matrix")
    assert [p.name for p in paths] == [f"{name}.{kind}" for name in names for kind in ("pdf", "svg", "png")]
    again = plots.draw(ReportSpec(), records, tmp_path / "again")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]  # no date in them
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert b"<svg" in paths[1].read_bytes()
    for path in paths[2::3]:
        with Image.open(path) as image:
            assert min(image.size) > 300
            assert len(set(image.convert("L").resize((80, 80)).tobytes())) > 8


def test_accuracy_is_drawn_over_a_setting(made: dict[str, Any], tmp_path: Path) -> None:
    def run(seed: int, rate: float, strategy: str) -> dict[str, Any]:
        value = 0.2 + rate + (0.3 if strategy == "er" else 0.1) + 0.01 * seed
        return varied(made, seed, value, optimizer__lr=rate, strategy=strategy)

    records = [run(s, rate, name) for s in range(3) for rate in (0.1, 0.2) for name in ("er", "gdumb")]
    records.append(run(0, 0.3, "er"))
    spec = ReportSpec(rows=("strategy",), columns=("scenario", "optimizer.lr"), over="optimizer.lr")
    drawn = [p.name for p in plots.draw(spec, records, tmp_path) if p.suffix == ".png"]
    assert drawn == [f"split-digits-{kind}.png" for kind in ("curves", "over", "matrix")]
    (found,) = plots.over_lines(spec, frame.frame(records)).values()
    figure = plots.over(found, "optimizer.lr", "split digits", curves.looks(found))
    (ax,) = figure.axes
    assert ax.get_xlabel() == "lr (optimizer)"
    assert ax.get_ylabel() == "final accuracy, %"
    lines = {container.get_label(): container.lines[0].get_xydata() for container in ax.containers}
    assert sorted(lines) == ["er", "gdumb"]
    np.testing.assert_allclose(lines["er"][:, 1], [61, 71, 80])
    np.testing.assert_allclose(lines["gdumb"][:, 1], [41, 51])
    np.testing.assert_allclose(lines["er"][:, 0], [0.1, 0.2, 0.3], atol=0.02)
    assert set(lines["er"][:, 0]).isdisjoint(lines["gdumb"][:, 0])  # error bars beside each other
    with pytest.raises(InputError, match=r"over: strategy has values like 'er', allowed: numbers"):
        plots.over_lines(dataclasses.replace(spec, over="strategy"), frame.frame(records))


def test_a_report_is_over_one_of_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('rows = ["strategy"]\ncolumns = ["memory"]\nover = "memry"')
    with pytest.raises(InputError, match=r"over: 'memry' is no label of a row or a column; did you mean 'memory'\?"):
        report.read_report(path)


def contest(made: dict[str, Any], values: dict[str, list[float | None]], **further: Any) -> list[dict[str, Any]]:
    """Records of buffers with these accuracies by seed; None = no such run."""
    return [
        varied(made, seed, value, memory__buffer=buffer, **further)
        for buffer, of in values.items()
        for seed, value in enumerate(of)
        if value is not None
    ]


def cells(table: Table) -> dict[str, Cell]:
    return {key[1]: cell for key, found in table.rows.items() for cell in found.values()}


def test_a_cell_names_its_runs_in_the_order_of_the_seeds(made: dict[str, Any]) -> None:
    records = [varied(made, seed, 0.5 + seed / 100) for seed in (10, 2, 1)]
    (cell,) = cells(table(records)).values()
    assert cell.seeds == (1, 2, 10)
    assert cell.values == pytest.approx([51, 52, 60])
    assert cell.runs == tuple(records[i]["fingerprint"] for i in (2, 1, 0))


def test_the_best_is_marked_and_what_cannot_be_told_from_it(made: dict[str, Any]) -> None:
    best = [0.70, 0.72, 0.71, 0.73, 0.74]
    values: dict[str, list[float | None]] = {
        "best": [*best],
        "close": [0.71, 0.70, 0.72, 0.72, 0.73],
        "worse": [v - 0.05 - i / 1000 for i, v in enumerate(best)],
        "few": [0.705, 0.715, None, None, None],
        "others": [None] * 5 + [0.70, 0.71, 0.72],
    }
    found = table(contest(made, values))
    looks = {name: (cell.best, cell.tied) for name, cell in cells(found).items()}
    assert looks == {
        "best": (True, False),
        "close": (False, True),
        "worse": (False, False),
        "few": (False, False),
        "others": (False, False),
    }
    p = [stats.ttest_rel(best, values[name]).pvalue for name in ("close", "worse")]
    assert max(2 * min(p), max(p)) == max(p) >= 0.05 > 2 * min(p)
    assert any("p ≥ 5 % in the paired t test" in note and "Holm" in note for note in found.notes)
    without = table(contest(made, values), ReportSpec(metrics=("accuracy",), ties=False))
    assert not any(cell.tied for cell in cells(without).values())
    assert cells(without)["best"].best


def test_low_is_best_where_low_is_good(made: dict[str, Any]) -> None:
    records = contest(made, {"a": [0.5, 0.5, 0.5], "b": [0.6, 0.6, 0.6]})
    for record in records[:3]:
        record["cost"] = [{**cost, "train_seconds": 1.0} for cost in record["cost"]]
    spec = ReportSpec(metrics=("accuracy", "train_seconds", "steps"))
    accuracy, seconds, steps = grids.tables(spec, frame.frame(records))
    assert [cell.best for cell in cells(accuracy).values()] == [False, True]
    slower = records[3]["cost"][0]["train_seconds"] < 0.2
    assert [cell.best for cell in cells(seconds).values()] == [not slower, slower]
    assert not any(cell.best or cell.tied for cell in cells(steps).values()), "equal everywhere: nothing to mark"
    assert not any("marks" in note for note in steps.notes)


def test_a_bound_and_a_paper_are_never_best_and_in_no_test(made: dict[str, Any]) -> None:
    records = contest(made, {"a": [0.5, 0.52, 0.54], "b": [0.6, 0.61, 0.62]})
    records += [varied(made, s, 0.9, strategy="joint", stream__presentation="joint") for s in range(3)]
    at = {"scenario": "split-digits", "strategy": "x"}
    spec = ReportSpec(metrics=("accuracy",), published=(Published(at, {"accuracy": [99.0]}, "somebody (2020)"),))
    runs = frame.frame(records)
    (found,) = grids.tables(spec, runs)
    marked = [key for key, of in found.rows.items() for cell in of.values() if cell.best or cell.tied]
    assert [key[1] for key in marked] == ["b"]
    assert [cell.bound for of in found.rows.values() for cell in of.values()] == [False, False, True, False]
    (tested,) = comparisons(spec, runs)
    assert [arm[1] for arm in tested.arms] == ["b", "a"]


def test_a_run_that_may_know_more_labels_is_compared_with_none_that_may_know_fewer(made: dict[str, Any]) -> None:
    few = {"labels__per_class": 4}
    records = [varied(made, s, 0.5 + s / 100, strategy="er", **few) for s in range(3)]
    records += [varied(made, s, 0.6 + s / 100, strategy="fixmatch", **few) for s in range(3)]
    records += [varied(made, s, 0.9 + s / 100, strategy="icarl") for s in range(3)]
    spec = ReportSpec(metrics=("accuracy",), rows=("strategy",))
    found = table(records, spec)
    marks = {key[0]: next(iter(row.values())).best for key, row in found.rows.items()}
    assert marks == {"er": False, "fixmatch": True, "icarl": False}
    assert any("numbers of labels" in note for note in found.notes)
    (contest,) = comparisons(spec, frame.frame(records))
    assert {arm[0] for arm in contest.arms} == {"er", "fixmatch"}
    same = table([varied(made, 0, v, strategy=name) for name, v in (("er", 0.5), ("icarl", 0.9))], spec)
    assert not any("numbers of labels" in note for note in same.notes)


def test_arms_are_compared_under_each_condition(made: dict[str, Any]) -> None:
    records = [
        record
        for memory, gain in ((20, 0.0), (100, 0.2))
        for record in contest(
            made,
            {"a": [0.5 + gain, 0.52 + gain, 0.51 + gain], "b": [0.6 + gain, 0.63 + gain, 0.61 + gain]},
            memory__capacity=memory,
        )
    ]
    spec = ReportSpec(metrics=("accuracy",), arms=("strategy", "buffer"))
    found = table(records, spec)
    best = [key for key, of in found.rows.items() for cell in of.values() if cell.best]
    assert best == [("er", "b", "20"), ("er", "b", "100")]
    assert any("of its condition (memory, scenario)" in note for note in found.notes)
    whole = table(records)
    assert [key for key, of in whole.rows.items() for cell in of.values() if cell.best] == [("er", "b", "100")]


@pytest.fixture
def mixed(made: dict[str, Any], tmp_path: Path) -> list[dict[str, Any]]:
    """One scenario on its own digits, and on two files of the same name: arm b is far better on the latter."""
    records, sources = [], {}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "faces.npz"
        sources[str(path)] = folder * 8
    for place, digest in (("", ""), *sources.items()):
        data = {"data__dataset": "npz" if place else "digits", "data__path": place}
        for buffer, level in (("a", 0.5), ("b", 0.9)):
            for seed in range(3):
                accuracy = level - 0.1 * (not place) + 0.01 * seed
                listed = [[place, digest]] if place else []
                records.append(varied(made, seed, accuracy, memory__buffer=buffer, sources=listed, **data))
    return records


def test_a_scenario_with_other_data_says_so_and_is_compared_with_no_other(mixed: list[dict[str, Any]]) -> None:
    found = frame.frame(mixed)
    names = sorted(set(found["scenario"]))
    assert names == ["split-digits", "split-digits on faces.npz (oneoneon)", "split-digits on faces.npz (twotwotw)"]
    alone = frame.frame(mixed[6:12])
    assert set(alone["scenario"]) == {"split-digits on faces.npz"}  # even where there is nothing to tell it from
    for columns in (("scenario",), ("memory",)):  # in a column of its own, or in rows
        spec = ReportSpec(metrics=("accuracy",), columns=columns, rows=("strategy", "buffer"))
        (shown,) = grids.tables(spec, found)
        best = [cell for row in shown.rows.values() for cell in row.values() if cell.best]
        assert len(best) == 3  # the better buffer on each data set
        assert all(len(cell.values) == 3 for row in shown.rows.values() for cell in row.values())
        for contest in comparisons(spec, found):
            assert len(contest.arms) == 2
            assert "scenario" in contest.condition_names
        figures_of = by_scenario(spec, found, mixed)
        assert sorted(figures_of) == names
        assert all(len(series) == 2 for series in figures_of.values())


def test_reference_runs_are_those_on_the_same_data(mixed: list[dict[str, Any]]) -> None:
    """The content of a file counts, not its path: intransigence is held against a joint run on the same content."""
    record = mixed[6]
    joint = copy.deepcopy(record)
    joint["spec"]["stream"]["presentation"] = "joint"
    assert frame.frame([record, joint])["intransigence"].notna().all()
    joint["spec"]["sources"][0][1] = "edited"
    assert frame.frame([record, joint])["intransigence"].isna()[0]


def test_a_filter_names_a_scenario_with_or_without_its_data(mixed: list[dict[str, Any]]) -> None:
    found = frame.frame(mixed)
    for name, runs in (("split-digits", 18), ("split-digits on faces.npz (oneoneon)", 6)):
        assert len(report.groups(ReportSpec(filter={"scenario": name}), found)[1]) == runs
    without = ReportSpec(exclude={"scenario": "split-digits on faces.npz (oneoneon)"})
    assert len(report.groups(without, found)[1]) == 12


def test_an_edited_scenario_has_the_data_set_in_its_name(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a scenario's file, whose data set was then replaced, are told from those that followed."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "mine.toml").write_text('[data]\ndataset = "digits"\n')
    before = varied(made, 0, 0.5, scenario="mine")
    assert frame.frame([before])["scenario"].tolist() == ["mine"]
    (folder / "mine.toml").write_text('[data]\ndataset = "mnist"\n')
    after = varied(made, 0, 0.9, scenario="mine", data__dataset="mnist")
    assert frame.frame([before, after])["scenario"].tolist() == ["mine on digits", "mine"]
    (folder / "mine.toml").unlink()
    assert frame.frame([before, after])["scenario"].tolist() == ["mine on digits", "mine on mnist"]


def test_paired_tests_are_those_of_the_common_seeds(made: dict[str, Any]) -> None:
    values: dict[str, list[float | None]] = {
        "a": [0.50, 0.53, 0.51, 0.55, None],
        "b": [0.60, 0.61, 0.64, None, 0.9],
        "c": [0.52, 0.50, 0.55, 0.58, 0.5],
    }
    (found,) = comparisons(ReportSpec(metrics=("accuracy",)), frame.frame(contest(made, values)))
    assert [arm[1] for arm in found.arms] == ["b", "c", "a"]
    assert [(pair.a[1], pair.b[1], pair.n) for pair in found.pairs] == [("b", "c", 4), ("b", "a", 3), ("c", "a", 4)]
    p = []
    for pair in found.pairs:
        both = [
            (x, y) for x, y in zip(values[pair.a[1]], values[pair.b[1]], strict=True) if x is not None and y is not None
        ]
        expected = stats.ttest_rel(*zip(*both, strict=True))
        p.append(expected.pvalue)
        assert pair.p == pytest.approx(expected.pvalue)
        assert pair.low == pytest.approx(100 * expected.confidence_interval().low)
        assert (pair.wins, pair.losses) == (sum(x > y for x, y in both), sum(x < y for x, y in both))
    assert sorted(pair.p_holm for pair in found.pairs)[0] == pytest.approx(3 * min(p))
    assert found.kruskal == pytest.approx(
        stats.kruskal(*([v for v in of if v is not None] for of in values.values()))[0]
    )


def test_arms_without_common_seeds_are_compared_as_independent_samples(made: dict[str, Any]) -> None:
    a, b = [0.5, 0.53, 0.51], [0.6, 0.64, 0.62]
    (found,) = comparisons(
        ReportSpec(metrics=("accuracy",)), frame.frame(contest(made, {"a": [*a], "b": [None, None, None, *b]}))
    )
    (pair,) = found.pairs
    assert pair.n == 0
    assert np.isnan([pair.difference, pair.low, pair.p, pair.p_holm]).all()
    assert pair.p_games_howell == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, abs=1e-6)
    assert pair.seeds_needed is None


def test_of_many_arms_each_is_compared_with_the_best(made: dict[str, Any]) -> None:
    values: dict[str, list[float | None]] = {f"b{i:02}": [0.5 + i / 100, 0.52 + i / 100, 0.51] for i in range(22)}
    (found,) = comparisons(ReportSpec(metrics=("accuracy",)), frame.frame(contest(made, values)))
    assert len(found.pairs) == 21
    assert {pair.a[1] for pair in found.pairs} == {"b21"}


def test_ranks_are_taken_over_the_conditions_that_all_arms_have(made: dict[str, Any]) -> None:
    records = [
        record
        for i, scenario in enumerate("xyz")
        for record in contest(made, {"a": [0.5 + i / 10], "b": [0.6 + i / 10], "c": [0.4 + i / 10]}, scenario=scenario)
    ]
    records += contest(made, {"lonely": [0.9]}, scenario="x")
    spec = ReportSpec(metrics=("accuracy", "forgetting"))
    found = ranks(spec, frame.frame(records))[0]
    assert [arm[1] for arm in found.arms] == ["b", "a", "c"]
    assert found.average == (1, 2, 3)
    assert found.conditions == (("x",), ("y",), ("z",))
    assert found.left_out == (("er", "lonely", "20"),)
    assert found.wins == ((0, 3, 3), (0, 0, 3), (0, 0, 0))
    assert found.statistic == pytest.approx(stats.friedmanchisquare([2, 2, 2], [1, 1, 1], [3, 3, 3]).statistic)


def test_ranks_need_three_arms_and_two_conditions(made: dict[str, Any]) -> None:
    records = contest(made, {"a": [0.5], "b": [0.6], "c": [0.7]})
    assert ranks(ReportSpec(metrics=("accuracy",)), frame.frame(records)) == []


def test_the_bootstrap_interval_is_shown_and_repeats(made: dict[str, Any]) -> None:
    records = [varied(made, s, v) for s, v in enumerate([0.5, 0.6, 0.76, 0.7])]
    spec = ReportSpec(metrics=("accuracy",), interval="bootstrap")
    (cell,) = cells(table(records, spec)).values()
    expected = stats.bootstrap(([50, 60, 76, 70],), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert cell.bounds == pytest.approx((expected.low, expected.high))
    assert str(cell) == f"64.0 [{expected.low:.1f}, {expected.high:.1f}]"
    assert str(cell) == str(*cells(table(records, spec)).values())


def test_small_numbers_are_not_zero() -> None:
    assert str(Cell((0.004, 0.005, 0.006))) == "0.005 ± 0.002"
    assert str(Cell((0.2, 0.3))) == "0.20, 0.30"
    assert str(Cell((0.0, 0.0, 0.0))) == "0.0 ± 0.0"
    assert str(Cell((1500.0, 1500.0, 1500.0))) == "1,500 ± 0"


def test_names_that_differ_are_not_pooled(made: dict[str, Any]) -> None:
    records = [varied(made, 0, 0.5, scenario=scenario) for scenario in ("x", "y")]
    found = table(records, ReportSpec(metrics=("accuracy",), rows=("buffer",), columns=()))
    assert found.row_names == ("buffer", "scenario")
    assert list(found.rows) == [("kcenter", "x"), ("kcenter", "y")]


def test_a_filter_may_name_any_setting(made: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "metrics = ['accuracy']\n[filter]\nmemory.capacity = 20\n'data.augment' = '[]'\n[exclude]\nseed = [1, 2]"
    )
    spec = report.read_report(path)
    records = [varied(made, s, 0.5, memory__capacity=m) for s in range(3) for m in (20, 100)]
    (cell,) = cells(table(records, spec)).values()
    assert cell.seeds == (0,)
    with pytest.raises(InputError, match="every finished run is left out: all have seed"):
        table(records, ReportSpec(exclude={"seed": [0, 1, 2]}))
    with pytest.raises(InputError, match=r"no finished run with memory.capacity \[true\]"):
        table(records, ReportSpec(filter={"memory.capacity": True}))


def test_two_papers_in_one_place_are_two_rows(made: dict[str, Any]) -> None:
    at = {"scenario": "split-digits", "strategy": "er", "buffer": "kcenter", "memory": 20}
    papers = tuple(Published(at, {"accuracy": [value]}, source) for value, source in ((61.0, "A"), (62.0, "B")))
    elsewhere = Published({**at, "scenario": "nowhere"}, {"accuracy": [1.0]}, "C")
    found = table([varied(made, 0, 0.6)], ReportSpec(metrics=("accuracy",), published=(*papers, elsewhere)))
    assert [(key[0], number) for key, number in found.published.items()] == [
        ("er (published [1])", 1),
        ("er (published [2])", 2),
    ]
    assert found.sources == ["A", "B"]
    assert [str(*found.rows[key].values()) for key in found.published] == ["61", "62"]
    assert any("left out where none of our runs stands beside them: nowhere" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = ['buffer', 'buffer']", "found 'buffer' twice"),
        ("arms = ['bufer']", r"arms: 'bufer' is no label of a row or a column; did you mean 'buffer'\?"),
        ("interval = 'z'", "interval: found 'z'; allowed: bootstrap, t"),
        ("ties = 1", "ties: found 1, allowed: true or false"),
    ],
)
def test_broken_tests_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        report.read_report(tmp_path / "mine.toml")


def test_tests_are_shown_when_asked_for(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        record
        for scenario in "xy"
        for record in contest(
            made, {"a": [0.5, 0.52, 0.51], "b": [0.6, 0.63, 0.61], "c": [0.4, 0.44, 0.41]}, scenario=scenario
        )
    ]
    spec = ReportSpec(metrics=("accuracy",))
    assert "paired tests" not in printed(records, spec, "markdown", capsys)
    for form in ("console", "markdown", "latex"):
        text = printed(records, dataclasses.replace(spec, tests=True), form, capsys)
        assert "paired tests (scenario x)" in text
        assert "ranks" in text
        assert "Friedman over 2 conditions" in text
    show.show(spec, records, "csv", Console(), tests=True)
    pairs = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert pairs.scenario.tolist() == ["x"] * 3 + ["y"] * 3
    assert pairs["a.buffer"].tolist() == ["b", "b", "a"] * 2
    assert pairs.difference.tolist()[0] == pytest.approx(100 * (0.6133333333 - 0.51), abs=1e-6)
    assert (pairs.p_holm >= pairs.p).all()


def test_failed_runs_stand_below_the_tables(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    failures = [
        RunFailure(
            "0" * 16, varied(made, 7, 0.5)["spec"], "raised [red]ValueError: <b>bad</b>", "clsim run --seed 7", ""
        ),
        RunFailure("1" * 16, varied(made, 8, 0.5, scenario="other")["spec"], "elsewhere", "", ""),
        RunFailure("2" * 16, {}, "no spec", "", ""),
    ]
    spec = ReportSpec(metrics=("accuracy",), filter={"scenario": "split-digits"})
    kept = report.failed(spec, failures)
    assert [failure.error for failure in kept] == [failures[0].error, "no spec"]
    out = io.StringIO()
    show.show(spec, [varied(made, 0, 0.5)], "console", Console(file=out), failures=kept)
    assert "Failed runs: 2" in out.getvalue()
    assert "raised [red]ValueError: <b>bad</b>" in out.getvalue()
    assert "clsim run --seed 7" in out.getvalue()
    show.show(spec, [varied(made, 0, 0.5)], "markdown", Console(), failures=kept)
    text = capsys.readouterr().out
    assert "&lt;b&gt;bad&lt;/b&gt;" in text
    assert "**Failed runs: 2**" in text


FORMULA = ['=cmd|"/c calc"!A1', "+1+1", "-1+1", "@SUM(A1)", "\t=1+1", "＝1+1"]


@pytest.mark.parametrize("name", FORMULA)
def test_a_name_is_no_formula(name: str, made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    record = varied(made, 0, 0.5, strategy=name)
    record["command"] = name
    for form in ("csv", "runs"):
        found = pd.read_csv(io.StringIO(printed([record], ReportSpec(metrics=("accuracy",)), form, capsys)))
        assert found.strategy.tolist() == ["'" + name.replace("\t", " ")]
    assert found.command.tolist() == found.strategy.tolist()
    assert formats.guarded("-0.5") == "-0.5"
    assert formats.guarded(-0.5) == -0.5


def test_markdown_shows_every_character(made: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    name = "a|b*c*_d_`e`[f](javascript:g)~h~<i>&amp;$j$ \\| ![k](l)"
    text = printed([varied(made, 0, 0.5, strategy=name)], ReportSpec(metrics=("accuracy",)), "markdown", capsys)
    (line,) = [line for line in text.splitlines() if "kcenter" in line]
    cell = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1].strip()
    assert not re.search(r"(?<!\\)(?:\\\\)*[*`\[\]~$!<>|]", cell)
    assert html.unescape(re.sub(r"\\(.)", r"\1", cell)) == name


def test_a_file_is_written_as_a_whole(made: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.tex"
    for seeds in (3, 4):
        records = [varied(made, s, 0.5 + s / 100) for s in range(seeds)]
        show.show(ReportSpec(metrics=("accuracy",)), records, "latex", Console(), path=path)
        assert f"over {seeds} seeds" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["table.tex"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["spec"].pop("memory"), "spec.memory: found None, allowed: dict"),
        (lambda r: r["spec"]["memory"].pop("capacity"), "spec.memory.capacity: found None"),
        (lambda r: r["spec"].update(seed="x"), "spec.seed: found 'x', allowed: int"),
        (lambda r: r["cost"][0].pop("steps"), "cost.steps: found nothing"),
        (lambda r: r.update(accuracy=[]), "accuracy: found no experience"),
    ],
)
def test_a_record_of_another_version_is_named(change: Any, message: str, made: dict[str, Any]) -> None:
    record = copy.deepcopy(made)
    assert report.problem(record) == ""
    change(record)
    assert message in report.problem(record)


def test_made_up_records_are_valid_and_broken_folders_are_named(tmp_path: Path) -> None:
    make(tmp_path, 12)
    found, problems = Store(tmp_path).records()
    assert len(found) == 12
    assert [problem.split(":")[0] for problem in problems] == [
        str(tmp_path / name / "record.json") for name in ("0" * 16, "f" * 16)
    ]
    assert not any(report.problem(record.data) for record in found)
    assert len(frame.frame(record.data for record in found)) == 12


def test_a_report_needs_neither_torch_nor_all_of_scipy(tmp_path: Path) -> None:
    make(tmp_path, 3)
    code = (
        "import sys, clsim.cli.main; sys.argv = ['clsim', 'report', '--runs', sys.argv[1]]\n"
        "try: clsim.cli.main.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'avalanche', 'matplotlib', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert done.stderr.count("skipped") == 2


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of twelve made-up runs and two broken ones, in the working directory."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "runs", 12)
    return tmp_path


def test_the_command_writes_a_file_and_names_what_it_skips(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("report", "forgetting", "--format", "latex", "--out", "paper/table.tex") == 0
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.count("skipped runs/") == 2
    assert "wrote paper/table.tex" in shown.err
    assert (store / "paper" / "table.tex").read_text(encoding="utf-8").count("\\begin{tabular}") == 4


def test_the_command_lists_failed_runs(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spec = resolve("split-digits", "er", seed=3)
    Store(store / "runs").folder(spec).fail(spec, "raised ValueError: no", "clsim run --seed 3")
    assert command("report", "summary") == 0
    assert "split-digits · er" in (shown := capfd.readouterr()).out
    assert "raised ValueError: no" in shown.out
    assert command("report", "summary", "--format", "csv") == 0
    assert "raised ValueError: no" in (shown := capfd.readouterr()).err
    assert "ValueError" not in shown.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.txt"], "--out: found x.txt with --format console, allowed: markdown, csv, runs, latex, html"),
        (["--format", "csv", "--out", "runs"], "--out: runs is a folder, allowed: a file"),
        (["--format", "latx"], "--format: found 'latx'; did you mean 'latex'?"),
        (["--runs", "elsewhere"], "elsewhere: no finished runs"),
        (
            ["online-cifar100"],
            'report: no finished run with scenario ["online-cifar100-class"]; there are: split-cifar100',
        ),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("report", *arguments) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("skipped")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_report_shows_the_readout_of_runs_that_have_it(
    made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    records = [varied(made, seed, 0.9, strategy="er") for seed in range(3)]
    for seed in range(3):
        record = varied(made, seed, 0.5, strategy="nncsl")
        size = len(record["accuracy"])
        falls = np.full((size, size), 0.7)
        falls[-1] = 0.61 + seed / 100
        records.append(record | {"readouts": {"nearest-neighbour": falls.tolist()}, "unlabelled": [0.8] * size})
    metrics = ("accuracy", "accuracy_neighbours", "forgetting_neighbours", "accuracy_unlabelled")
    spec = ReportSpec(metrics=metrics, rows=("strategy",))
    values = {
        (found.metric, row[0]): str(next(iter(cells.values())))
        for found in grids.tables(spec, frame.frame(records))
        for row, cells in found.rows.items()
    }
    assert values["accuracy_neighbours", "er"] == "–"
    assert values["accuracy_neighbours", "nncsl"] == "62.0 ± 2.5"
    assert values["forgetting_neighbours", "nncsl"] == "8.0 ± 2.5"
    assert values["accuracy_unlabelled", "nncsl"] == "80.0 ± 0.0"
    text = printed(records, spec, "markdown", capsys)
    assert "final accuracy, nearest neighbours, %" in text
    assert "| nncsl | 8.0 ± 2.5 |" in text
