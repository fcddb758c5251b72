"""What people see of a controller's search: while it goes on, at its end, in reports, and of a run's folder."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import clsim
from clsim.cli.main import app
from clsim.records import frame
from clsim.records.search import Attempt, Search
from clsim.records.store import RunRecord
from clsim.reporting import report, runs, searches
from clsim.reporting.report import ReportSpec
from clsim.reporting.terminal import Terminal
from clsim.spec.flags import command

SETTINGS = ["data.per_class=30", "training.epochs=1", "stream.setting=task", "stream.experiences=2"]
SETTINGS += ["controller.first_rates=[0.1, 0.01]", "controller.rates=[0.01]"]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        clsim.run("split-digits", strategy, controller="stability-decay", settings=SETTINGS, seed=seed, runs=folder)
        for strategy in ("mas", "finetune")
        for seed in range(2)
    ]


def attempt(phase: str, lr: float, values: dict[str, float], accuracy: float, decision: str) -> Attempt:
    return Attempt(phase, lr, values, 0.76, accuracy, decision, {"train_seconds": 1.0})  # type: ignore[arg-type]


FINE = (
    attempt("plasticity", 0.01, {}, 0.95, "best so far"),
    attempt("plasticity", 0.001, {}, 0.9, "no better"),
)
DECAYED = Search(
    1,
    (
        *FINE,
        attempt("stability", 0.01, {"strength": 5.0, "code": 2.0}, 0.5, "decayed"),
        attempt("stability", 0.01, {"strength": 2.5, "code": 2.0}, 0.8, "accepted"),
    ),
)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_search_is_said_in_three_lines(terminal: bool) -> None:
    out = io.StringIO()
    with Terminal("title", Console(file=out, force_terminal=terminal, width=120, color_system=None)) as watch:
        watch.experience(1, 5, 100)
        watch.searched(DECAYED)
    text = out.getvalue()
    assert "experience 2/5" in text
    assert "0.01: 95.0 % ← · 0.001: 90.0 %" in text
    assert "must reach" in text and "76.0 %" in text  # noqa: PT018
    assert "5, 2: 50.0 % ✗ · 2.5, 2: 80.0 % ✓" in text


def test_the_summary_says_what_moved_and_what_was_not_reached() -> None:
    last = Search(0, (*FINE, attempt("stability", 0.01, {"strength": 1.0}, 0.4, "last")))
    out = io.StringIO()
    Console(file=out, width=120, color_system=None).print(searches.summary([last, DECAYED]))
    text = out.getvalue()
    assert "5 → 2.5" in text
    assert "40.0 % ✗" in text
    assert "80.0 % ✓" in text


def test_a_report_has_a_line_for_what_was_chosen(records: list[RunRecord]) -> None:
    data = [record.data for record in records]
    (shown,) = searches.chosen(ReportSpec(), frame.frame(data), data)
    assert [line.labels[shown.names.index("strategy")] for line in shown.lines] == ["finetune", "mas"]
    once, mas = (list(line.entries) for line in shown.lines)
    assert once[1:3] == ["–", "–"]
    assert mas[1].startswith("strength ")
    assert len(mas[0].split()) == 2  # a rate a task
    assert mas[3] == "2.5"  # trainings: three in the first task, two in the second
    assert searches.chosen(ReportSpec(), frame.frame(data[:0]), []) == []
    without = ReportSpec(filter={"strategy": "finetune"})
    assert len(searches.chosen(without, frame.frame(data), data)[0].lines) == 1


def test_a_controller_tells_rows_apart_by_its_name_alone(records: list[RunRecord], tmp_path: Path) -> None:
    plain = clsim.run("split-digits", "mas", settings=[*SETTINGS[:4], "stream.validation=0.2"], runs=tmp_path)
    names, chosen = report.groups(ReportSpec(), frame.frame([r.data for r in (*records, plain)]))
    assert [name for name in names if name.startswith("controller")] == ["controller"]
    assert sorted(set(chosen["controller"])) == ["stability-decay", "–"]


def test_a_page_has_every_training(records: list[RunRecord]) -> None:
    data = [record.data for record in records]
    rows = {row["fingerprint"]: row for row in frame.frame(data).to_dict("records")}
    packed = runs.packed(data, rows)
    assert [len(run["searches"]) for run in packed["runs"]] == [5] * 4
    assert {len(row) for run in packed["runs"] for row in run["searches"]} == {len(packed["searches"])}


def test_show_prints_a_runs_folder(records: list[RunRecord], tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["show", str(records[0].folder)])
    assert shown.exit_code == 0, shown.output
    for text in ("what was chosen", "fine-tuning", "accepted", "best"):
        assert text in shown.output
    (tmp_path / "spec.json").write_text("{}")
    empty = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert empty.exit_code != 0


def test_the_command_of_a_run_names_its_controller() -> None:
    flags = {"memory": {}, "training": {}, "controller": {"name": "stability-decay"}}
    words = shlex.split(command("split-digits", "mas", flags, [], 3))
    assert words[-4:] == ["--controller", "stability-decay", "--seed", "3"]
