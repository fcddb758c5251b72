"""Reports: seeds are pooled and nothing else, intervals are scipy's, names are text."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

import clsim
from clsim import catalog
from clsim.errors import InputError
from clsim.metrics import METRICS
from clsim.reporting import plots, report, show, tables
from clsim.reporting.cells import Table
from clsim.reporting.report import COSTS, Published, ReportSpec


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
    out["spec"]["seed"] = seed
    for name, value in spec.items():
        table, _, key = name.partition("__")
        if key:
            out["spec"][table][key] = value
        else:
            out["spec"][table] = value
    out["fingerprint"] = f"{abs(hash(json.dumps([out['spec'], out['accuracy']], sort_keys=True))):016x}"[:16]
    return out


def table(records: list[dict[str, Any]], spec: ReportSpec | None = None) -> Table:
    return tables.tables(spec or ReportSpec(metrics=("accuracy",)), report.frame(records))[0]


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
    runs = report.frame(records)
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
    assert cells.strategy.tolist() == [HOSTILE]
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


@pytest.mark.parametrize("name", catalog.file_names("reports"))
def test_every_shipped_report_reads_and_shows(
    name: str, made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = report.read_report(catalog.find_file("reports", name))
    scenarios = spec.filter.get("scenario", "split-digits")
    scenarios = scenarios if isinstance(scenarios, list) else [scenarios]
    records = [varied(made, s, 0.5 + s / 100, scenario=scenario) for scenario in scenarios for s in range(3)]
    for form in ("console", "markdown", "csv", "runs"):
        text = printed(records, spec, form, capsys)
        assert text.strip()
    for metric in spec.metrics:
        assert metric in METRICS or metric in COSTS


def test_runs_of_several_versions_are_pointed_out(made: dict[str, Any]) -> None:
    other = varied(made, 1, 0.5)
    other["versions"] = {**other["versions"], "clsim": "9.9"}
    assert any("several versions of clsim: 0.1.0, 9.9" in n for n in table([varied(made, 0, 0.5), other]).notes)


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
    assert [p.name for p in paths] == ["split-digits-curves.png", "split-digits-matrix.png"]
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 300
            assert len(set(image.convert("L").resize((80, 80)).tobytes())) > 8
