"""Metrics of the user's in reports and at the end of runs."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from clsim.errors import InputError
from clsim.reporting.finished import show_runs
from clsim.reporting.report import find_report, with_metrics
from tests.commands import clsim, refused
from tests.files import rewrite

MINE = '''
from clsim import Metric

def last(R):
    """Accuracy [red]at last[/] | &lt;."""
    return float(R[-1, -1])

def drop(R):
    return float(100 * (1 - R[-1, 0]))

points = Metric("points lost", drop, higher_is_better=False, percent=False)

def late(R):
    raise ValueError("too late")
'''
SMALL = ("--set", "data.per_class=20", "--set", "training.epochs=1", "--set", "stream.experiences=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of two buffers, three seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for buffer in ("random", "kcenter"):
        assert clsim("run", *SMALL, "--buffer", buffer, "--seeds", "3", "--runs", str(folder), "--quiet") == 0
    return folder


@pytest.fixture(autouse=True)
def _here(workplace: Path) -> None:
    Path("mine.py").write_text(MINE, encoding="utf-8")


def matrices(folder: Path) -> list[list[list[float]]]:
    return [json.loads(path.read_text())["accuracy"] for path in sorted(folder.glob("*/record.json"))]


def test_a_run_shows_it_and_stays_the_same_run(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in made.glob("*/record.json")}
    words = ("run", *SMALL, "--buffer", "random", "--runs", str(made), "--metric", "./mine.py:last")
    assert clsim(*words, "--metric", "./mine.py:points", "--metric", "forward_transfer") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "[red]at last[/]" in said
    assert "forward transfer, %" in said
    assert clsim(*words, "--metric", "./mine.py:points", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["metrics"]["./mine.py:last"] == record["accuracy"][-1][-1]
    points = 100 * (1 - record["accuracy"][-1][0])
    assert record["metrics"]["./mine.py:points"] == pytest.approx(points)
    assert f"{points:.1f}" in said
    assert {path: path.read_bytes() for path in made.glob("*/record.json")} == before


def test_a_report_has_a_table_of_it_with_the_best_and_tests(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("report", "--runs", str(made), "--metric", "./mine.py:points", "--metric", "./mine.py:last", "--tests")
    assert clsim(*words, "--format", "markdown") == 0
    said = capsys.readouterr().out
    section = said[said.index("**points lost**") :]
    rows = re.findall(r"\| er \| (\w+) \| 500 \| (?:\*\*)?([0-9.]+) ± [0-9.]+", section)[:2]
    means = {buffer: float(mean) for buffer, mean in rows}
    best = min(means, key=lambda buffer: means[buffer])
    assert re.search(rf"\| er \| {best} \| 500 \| \*\*", section)  # the lowest is the best
    expected = [100 * (1 - matrix[-1][0]) for matrix in matrices(made)]
    assert sum(means.values()) / 2 == pytest.approx(sum(expected) / len(expected), abs=0.1)
    assert "./mine.py:last |" not in said  # it tells no rows apart
    assert "\\[red\\]at last\\[/\\] \\| &amp;lt;, %" in said
    assert said.count("points lost") >= 2  # also the paired tests


@pytest.mark.parametrize("form", ["console", "markdown", "csv", "runs", "latex", "html"])
def test_every_form_shows_it(form: str, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("report", "--runs", str(made), "--metric", "./mine.py:points", "--format", form)
    assert clsim(*words, *(("--out", "page.html") if form == "html" else ())) == 0
    said = Path("page.html").read_text() if form == "html" else capsys.readouterr().out
    assert ("./mine.py:points" if form in ("csv", "runs") else "points lost") in (
        said if form == "runs" else said.replace("Points", "points")
    )
    if form == "html":
        (packed,) = re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', said, re.DOTALL)
        data = json.loads(packed)
        assert data["percent"][data["metrics"].index("points lost")] is False
        assert data["percent"][0] is True


def test_a_report_file_names_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("reports").mkdir()
    Path("reports", "own.toml").write_text('metrics = ["accuracy", "./mine.py:points"]\n')
    assert clsim("report", "own", "--runs", str(made)) == 0
    assert "points lost" in capsys.readouterr().out
    Path("reports", "own.toml").write_text('own = {}\nmetrics = ["accuracy"]\n')
    assert "own: unknown key" in refused(capsys, "report", "own", "--runs", str(made))
    Path("reports", "own.toml").write_text('metrics = ["acuracy"]\n')
    assert "metrics: unknown name 'acuracy'; did you mean 'accuracy'?" in refused(capsys, "report", "own")


def test_a_metric_that_breaks_is_one_line(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "report", "--runs", str(made), "--metric", "./mine.py:late")
    assert line.startswith("clsim: metric ./mine.py:late: raised ValueError: too late (")
    assert "did you mean 'last'" in refused(capsys, "run", "--metric", "./mine.py:lasst")
    assert not Path("runs").exists()  # before anything is run
    assert "did you mean 'last'" in refused(capsys, "study", "--metric", "./mine.py:lasst")


def test_a_study_shows_it_too(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("study", "--buffer", "random", "--seeds", "3", "--runs", str(made), *SMALL)
    assert clsim(*words, "--metric", "./mine.py:points") == 0
    said = capsys.readouterr().out
    assert "points lost" in said
    assert "clsim report summary --metric ./mine.py:points" in said


def test_no_code_that_a_record_names_is_imported(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("evil.py").write_text("raise SystemExit('imported')\n")
    (path, *_) = sorted(made.glob("*/record.json"))
    before = path.read_bytes()
    try:
        record = json.loads(before)
        record["metrics"]["./evil.py:f"] = 1.0
        rewrite(path, record)
        assert clsim("report", "--runs", str(made), "--metric", "./mine.py:last") == 0
        assert "evil" not in capsys.readouterr().out
    finally:
        path.write_bytes(before)


def test_a_metric_is_added_once() -> None:
    spec = with_metrics(find_report("summary"), ["./mine.py:last", "accuracy", "./mine.py:last"])
    assert list(spec.metrics).count("./mine.py:last") == list(spec.metrics).count("accuracy") == 1
    assert [*spec.own] == ["./mine.py:last"]
    with pytest.raises(InputError, match="unknown name 'nonsense'"):
        with_metrics(spec, ["nonsense"])


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_heading_is_cut_in_a_narrow_terminal(made: Path, width: int) -> None:
    """Where a column for each metric does not fit, each metric has a row."""
    records = [json.loads(path.read_text()) for path in sorted(made.glob("*/record.json"))][:3]
    said = StringIO()
    show_runs(records, Console(file=said, width=width, force_terminal=True, color_system=None))
    assert "…" not in said.getvalue()
    assert ("┃ seed ┃" in said.getvalue()) == (width >= 80)
    assert {"accuracy,", "forgetting,", "mean"} <= {*said.getvalue().replace("┃", " ").replace("│", " ").split()}
