"""Metrics side by side, notes once, and what is empty left out."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

import clsim
from clsim.errors import InputError
from clsim.records import frame
from clsim.records.store import RunRecord
from clsim.reporting import contents, page, plots, show
from clsim.reporting.listing import Listing, gathered, said_below
from clsim.reporting.report import ReportSpec, read_report
from tests.reporting.test_report import printed, varied

REPORT = """
title = "Both at once"
rows = ["strategy"]
columns = {columns}
metrics = ["accuracy", "forgetting", "steps"]

[[published]]
at = {{ scenario = "split-digits", strategy = "er" }}
percent = {{ accuracy = [61.0, 2.0], forgetting = [9.0] }}
source = "A (2020)"

[[published]]
at = {{ scenario = "split-digits", strategy = "er" }}
percent = {{ forgetting = [8.0] }}
source = "B (2021)"

[[published]]
at = {{ scenario = "another", strategy = "er" }}
percent = {{ accuracy = [99.0] }}
source = "C (2022)"
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    settings = ["data.per_class=20", "training.epochs=1"]
    made = clsim.run("split-digits", buffer="kcenter", memory=20, settings=settings, runs=tmp_path_factory.mktemp("r"))
    levels = {"er": 0.6, "gdumb": 0.5}
    return [varied(dict(made.data), s, v + 0.01 * s, strategy=name) for name, v in levels.items() for s in range(3)]


def spec(folder: Path, columns: str = '["metric"]') -> ReportSpec:
    (folder / "both.toml").write_text(REPORT.format(columns=columns), encoding="utf-8")
    return read_report(folder / "both.toml")


def test_one_table_has_the_cells_of_all(records: list[dict[str, Any]], tmp_path: Path) -> None:
    """Each number, mark and run behind it is that of the metric's own table."""
    parts = contents.contents(spec(tmp_path), frame.frame(records), records, tests=False)
    (shown,) = parts.shown
    assert [column[0] for column in shown.columns] == ["final accuracy, % ↑", "forgetting, % ↓", "optimizer steps ↓"]
    assert [*shown.directions.values()] == [True, False, False]
    for table, column in zip(parts.tables, shown.columns, strict=True):
        for key, row in table.rows.items():
            assert shown.rows[key][column] == row[()]
    assert sum(column in row for row in shown.rows.values() for column in shown.columns) == sum(
        len(row) for table in parts.tables for row in table.rows.values()
    )


def test_a_paper_has_one_number_in_all_metrics(records: list[dict[str, Any]], tmp_path: Path) -> None:
    parts = contents.contents(spec(tmp_path), frame.frame(records), records, tests=False)
    (shown,) = parts.shown
    assert shown.sources == ["A (2020)", "B (2021)"]
    assert {key[0]: number for key, number in shown.published.items()} == {
        "er (published [1])": 1,
        "er (published [2])": 2,
    }
    assert "published [1]: A (2020)." in shown.notes
    assert any(note.startswith("final accuracy, %: ours − published [1]: +0.0") for note in shown.notes)
    assert any("left out where none of our runs stands beside them: another" in note for note in shown.notes)


@pytest.mark.parametrize("form", show.FORMS)
def test_every_form_has_all_metrics(
    form: str, records: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(records, spec(tmp_path), form, capsys)
    if form in ("csv", "runs"):
        separate = printed(records, spec(tmp_path, "[]"), form, capsys)
        assert [*csv.reader(io.StringIO(text))] == [*csv.reader(io.StringIO(separate))]  # of programs, nothing changes
    else:
        (head,) = (line for line in text.splitlines() if "strategy" in line and "steps" in line)
        assert head.index("accuracy") < head.index("forgetting") < head.index("steps")


def test_metrics_stand_under_a_scenario_or_above_it(records: list[dict[str, Any]], tmp_path: Path) -> None:
    both = records + [
        {**r, "spec": {**r["spec"], "scenario": "z"}, "fingerprint": r["fingerprint"][::-1]} for r in records
    ]
    for columns, first in (
        ('["scenario", "metric"]', "split-digits"),
        ('["metric", "scenario"]', "final accuracy, % ↑"),
    ):
        (shown,) = contents.contents(spec(tmp_path, columns), frame.frame(both), both, tests=False).shown
        assert [column[0] for column in shown.columns] == sorted(
            (column[0] for column in shown.columns), key=lambda name: [c[0] for c in shown.columns].index(name)
        )
        assert shown.columns[0][0] == first
        assert len(shown.columns) == 6


def test_the_page_leads_to_the_runs_of_each_metric(records: list[dict[str, Any]], tmp_path: Path) -> None:
    text = page.render(spec(tmp_path), [RunRecord(r) for r in records], [])
    assert text.count('<table class="data filtered several"') == 1
    assert 'data-head="forgetting, % ↓"' in text
    assert len(set(re.findall(r'href="#cell-0-\d+-\d+"', text))) == 6  # two arms, three metrics


@pytest.mark.parametrize(
    ("text", "where"),
    [('rows = ["metric"]', "rows"), ('columns = ["metric"]\narms = ["metric"]', "arms"), ('over = "metric"', "over")],
)
def test_metric_is_refused_where_it_makes_no_sense(text: str, where: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"{where}: found 'metric', allowed: in columns alone"):
        read_report(tmp_path / "r.toml")


def test_a_note_of_all_tables_is_said_once(records: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    several = ReportSpec(metrics=("accuracy", "forgetting", "learning_accuracy", "steps"))
    for form in ("console", "markdown", "latex"):
        text = printed(records, several, form, capsys)
        assert text.count("95") == text.count("half of the 95") == 1
    html = page.render(several, [RunRecord(r) for r in records], [])
    assert html.count("Mean ± half of the 95 % t interval") == 1
    assert printed(records, several, "latex", capsys).count("To be read as Table") == 3


def test_a_note_of_some_tables_names_them() -> None:
    tables = [
        Listing(title, ("a",), [], [], notes) for title, notes in (("x", ["1", "2"]), ("y", ["1", "2"]), ("z", ["1"]))
    ]
    assert [of.notes for of in said_below(tables)] == [[], [], ["All 3 tables: 1", "x; y: 2"]]
    assert gathered([(str(i), ["n"]) for i in range(5)] + [("6", [])]) == ["5 of 6: n"]


def test_a_metric_without_a_number_is_left_out(
    records: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(records, ReportSpec(metrics=("accuracy", "outsiders_asked")), "markdown", capsys)
    assert text.count("**outsiders") == 0
    assert "Left out, as no run has a number: outsiders asked for." in text
    html = page.render(ReportSpec(metrics=("accuracy",)), [RunRecord(r) for r in records], [])
    assert 'id="ranks"' not in html
    assert "#ranks" not in html


def test_few_lines_are_named_at_their_ends_and_many_in_a_legend(records: list[dict[str, Any]]) -> None:
    few = plots.drawn(ReportSpec(), records)["split-digits-curves"]
    assert not few.legends
    assert sorted(text.get_text() for text in few.axes[0].texts) == ["er", "gdumb"]
    many = [varied(records[0], s, 0.5, strategy=f"strategy {i}") for i in range(30) for s in range(2)]
    figure = plots.drawn(ReportSpec(), many)["split-digits-curves"]
    assert len(figure.legends) == 1
    assert not figure.axes[0].texts
