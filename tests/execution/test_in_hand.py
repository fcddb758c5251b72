"""What people get in hand from Python: runs over seeds, tables, reports, studies of own functions, reprs."""

from __future__ import annotations

import io
import sys
import types
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.errors import InputError
from clsim.execution.given import importable, named
from clsim.memory.buffer import Buffer
from clsim.pool.pool import Cost, Pool, Selection
from clsim.reporting import terminal
from clsim.reporting.cells import Cell
from clsim.reporting.screen import Screen
from clsim.selectors.kcenter import k_center
from clsim.spec.resolve import resolve
from clsim.spec.tables import MemorySpec
from tests import commands
from tests.helpers import generator, points, pool_of, vectors

pytestmark = pytest.mark.usefixtures("workplace")

SMALL = {"data.per_class": 10, "training.epochs": 1, "stream.experiences": 2}
HOW: dict[str, Any] = {"memory": 10, "settings": SMALL}


def last(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(pool.data.index.argsort(descending=True)[:budget])


ASKED = deque[list[int]]()


def first(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    ASKED.append(pool.data.index[:budget].tolist())
    return Selection(torch.arange(budget))


def test_several_seeds_are_a_sequence_of_their_records() -> None:
    found = clsim.run(**HOW, seeds=3)
    one = clsim.run(**HOW, seed=1)
    assert isinstance(one, clsim.RunRecord)
    assert (len(found), found[1].data, found[1].read, one.read) == (3, one.data, False, True)
    assert [record.data["spec"]["seed"] for record in found] == [0, 1, 2]
    assert found.frame()["seed"].tolist() == [0, 1, 2]
    cell = Cell(values=[100 * record.metrics["accuracy"] for record in found])
    mean, half, n = found.means().loc["accuracy"]
    assert (mean, half, n) == pytest.approx((cell.mean, cell.half_width, 3))
    assert repr(found).startswith(f"<Records of split-digits · er · reservoir 10: accuracy {cell} %, forgetting ")
    assert len(found[1:]) == 2
    assert [record.data["spec"]["seed"] for record in clsim.run(**HOW, seeds=[2, 0])] == [2, 0]
    for wrong in ({"seeds": 2, "seed": 1}, {"seeds": []}, {"seeds": 0}):
        with pytest.raises(InputError, match=r"^seeds: found "):
            clsim.run(**HOW, **wrong)


def test_both_spellings_of_settings_are_one_run() -> None:
    texts = [f"{key}={value}" for key, value in SMALL.items()]
    first = clsim.run(memory=10, settings=SMALL | {"model.options.hidden": [8]})
    again = clsim.run(memory=10, settings=[*texts, "model.options.hidden=[8]"])
    assert again.read
    assert again.data["spec"]["model"]["options"]["hidden"] == [8]  # a list is one value
    values = {"optimizer.lr": [0.1, 0.2]}
    planned = [
        clsim.study(memory=10, workers=1, settings=s) for s in (SMALL | values, [*texts, "optimizer.lr=0.1,0.2"])
    ]
    assert [len(of.records) for of in planned] == [2, 2]  # a list is an axis
    assert all(record.read for record in planned[1].records)
    assert first.data["command"] == again.data["command"]
    with pytest.raises(InputError, match=r"settings: found 'optimizer\.lr=1', allowed: a list"):
        clsim.run(settings="optimizer.lr=1")
    with pytest.raises(InputError, match="settings: found a value of another kind"):
        clsim.run(settings={"learner.options.objective": last})


def test_a_function_of_this_process_stands_in_a_study_with_one_worker() -> None:
    own = [lambda pool, budget, *, rng: last(pool, budget, rng=rng)]
    found = clsim.study(buffer=["random", last, *own], workers=1, seeds=2, **HOW)
    assert not found.failures
    assert found.frame()["buffer"].tolist()[::3] == ["random", "random"]
    alone = clsim.run(buffer=own[0], **HOW)
    assert alone.read  # the same run, with the same source
    again = clsim.study(buffer=own[0], workers=1, seeds=2, **HOW)
    assert [record.read for record in again.records] == [True, True]
    assert {record.data["command"] for record in again.records} == {""}
    for how in ({}, {"workers": 2}, {"engine": "ray"}):
        with pytest.raises(InputError, match=r"is in this process alone.*workers=1.*\./file\.py:attr"):
            clsim.study(buffer=own, **HOW, **how)
    with pytest.raises(InputError, match="found two objects that are called"):
        clsim.study(buffer=[*own, lambda pool, budget, *, rng: None], workers=1)
    with pytest.raises(InputError, match=r"^buffer: found a int, allowed: a name, or a function"):
        clsim.study(buffer=[3], workers=1)


def test_what_a_worker_finds_goes_by_its_name() -> None:
    assert importable(k_center, ["selectors"]) == "kcenter"
    assert named(["random", k_center, last], "buffer") == {
        "random": None,
        "kcenter": None,
        "tests.execution.test_in_hand:last": None,
    }
    assert named(lambda pool: None, "label").keys() == {
        "tests.execution.test_in_hand:test_what_a_worker_finds_goes_by_its_name.<locals>.<lambda>"
    }
    assert named(None, "buffer") == {}


def test_a_failure_of_ones_own_function_stops_no_other_run() -> None:
    def broken(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        raise OSError("no")

    found = clsim.study(buffer=[broken, "random"], workers=1, **HOW)
    assert (len(found.records), len(found.failures)) == (1, 1)
    assert "raised OSError: no" in found.failures[0].error
    assert repr(found) == "<StudyResult: 1 finished, 1 failed>"
    assert "raised OSError: no" in found._repr_html_()


def test_a_selector_itself_asks_for_labels() -> None:
    ASKED.clear()
    how: dict[str, Any] = {"label_budget": 5, "settings": SMALL}
    record = clsim.run(strategy="finetune", label=first, **how)
    rounds = record.data["labelling"]["rounds"]
    assert sorted(row for entry in rounds for row in entry["rows"]) == sorted(row for rows in ASKED for row in rows)
    assert clsim.run(strategy="finetune", label=first, **how).read
    study = clsim.study(
        strategy="finetune", label=[first, "random"], workers=1, settings=SMALL | {"labelling.budget": 5}
    )
    assert [of.read for of in study.records] == [True, False]


def test_a_report_is_that_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    clsim.run(**HOW, seeds=3)
    found = clsim.report("accuracy")
    (table,) = found.tables.values()
    cell = Cell(values=[100 * v for v in clsim.load()["accuracy"]])
    assert table.to_numpy().tolist() == [[pytest.approx(cell.mean), pytest.approx(cell.half_width), 3.0]]
    capsys.readouterr()
    for form, made in (("markdown", found.to_markdown()), ("latex", found.to_latex()), ("csv", found.to_csv())):
        assert commands.clsim("report", "accuracy", "--format", form) == 0
        assert capsys.readouterr().out == made
    words = "clsim report accuracy --format html --runs runs"
    assert commands.clsim("report", "accuracy", "--format", "html") == 0
    assert Path("accuracy.html").read_text() == found.to_html(words)
    drawn = found.figures("drawn")
    assert drawn
    assert all(file.is_file() for file in drawn)
    assert repr(found) == "<Report accuracy: 1 table over 3 runs in runs>"
    assert str(cell) in found._repr_html_()
    of_records = clsim.report("accuracy", clsim.run(**HOW, seeds=2))
    assert len(of_records.runs) == 2
    with pytest.raises(InputError, match="no finished runs"):
        clsim.report("accuracy", "elsewhere")
    with pytest.raises(InputError, match="no folder 'elsewhere'"):
        clsim.load("elsewhere")


def test_metrics_take_what_people_have() -> None:
    record = clsim.run(**HOW)
    given = record.accuracy, record.accuracy.to_numpy(), record.data["accuracy"]
    assert clsim.metrics.forgetting is sys.modules["clsim.records.metrics"].forgetting
    for name in ("forgetting", "average_incremental_accuracy", "learning_accuracy", "minimum_accuracy"):
        found = {getattr(clsim.metrics, name)(matrix) for matrix in given}
        assert len(found) == 1
    assert clsim.metrics.forgetting(record.accuracy) == record.metrics["forgetting"]
    assert np.isnan(clsim.metrics.forgetting([[0.5, None], [None, 0.5]]))


def test_public_names_are_offered() -> None:
    assert dir(clsim) == sorted([*clsim.__all__, "__version__"])
    assert {"load", "report", "metrics"} <= {*dir(clsim)}
    for name in dir(clsim):
        assert getattr(clsim, name) is not None


def in_hand() -> list[Any]:
    """One of each thing that a notebook may show, with a hostile name where it has one."""
    evil = "<script>alert(1)</script>"
    record = clsim.run(**HOW)
    spec = {**record.data["spec"], "strategy": evil}
    hostile = clsim.RunRecord({**record.data, "spec": spec}, record.folder)
    x = torch.randint(0, 255, (8, 1, 4, 4), dtype=torch.uint8)
    exemplars = vectors(x, torch.arange(8) % 3)
    pool = pool_of(points(6), torch.tensor([0, 0, 1, 1, 1, -1]))
    memory = Buffer(MemorySpec(buffer=evil, capacity=5), last, rng=generator(), cost=Cost())
    loop = clsim.Labelling(f"{evil.replace('/', '')}.csv", features=np.eye(4, dtype=np.float32), selector="kcenter")
    picks = clsim.select("kcenter", features=np.eye(12, dtype=np.float32), budget=11)
    made = clsim.Condensed(exemplars, 1, types.SimpleNamespace(name=evil, classes=("a",)), None, (0.5,), (1.0, 2.0))
    study = clsim.study(memory=10, settings=SMALL, workers=1)
    records = clsim.run(**HOW, seeds=1)
    return [
        *(hostile, records, study, made, picks, pool, Selection(torch.arange(3), torch.ones(3)), exemplars),
        *(resolve("split-digits", "er", settings=["optimizer.lr=0.3"]), memory, loop, clsim.report("accuracy")),
    ]


def test_reprs_are_one_line_and_tables_in_notebooks_are_escaped() -> None:
    for one in in_hand():
        text = repr(one)
        assert text.startswith(f"<{type(one).__name__}"), text
        assert "\n" not in text
        assert len(text) < 200
        html = one._repr_html_()
        assert html.count("<table") >= 1
        assert "<script" not in html
        assert "&lt;script&gt;" in html or "<script>" not in text


def test_reprs_say_what_matters() -> None:
    texts = {type(one).__name__: (repr(one), one._repr_html_()) for one in in_hand()}
    assert texts["Pool"][0] == "<Pool: 6 samples of 4, 5 labelled, 2 classes>"
    assert texts["Selection"][0] == "<Selection: 3 rows with weights>"
    assert texts["Exemplars"][0] == "<Exemplars: 8 samples of 1 × 4 × 4, 8 labelled, 3 classes on cpu>"
    assert texts["Picks"][0].startswith("<Picks: 11 of 12")
    assert "0 of 4 labelled, 0 skipped" in texts["Labelling"][0]
    assert texts["RunSpec"][0].startswith("<RunSpec split-digits · er · reservoir 500 · seed 0, ")
    assert "optimizer.lr" in texts["RunSpec"][1]
    assert "optimizer.momentum" not in texts["RunSpec"][1]
    assert "accuracy 50.0 %" in texts["Condensed"][0]


class Shown(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, tty: bool) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A notebook with ipywidgets, as rich sees it; what was displayed."""
    displayed: list[Any] = []

    class Output:
        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...
        def clear_output(self, wait: bool) -> None: ...
        def close(self) -> None: ...

    modules = {name: types.ModuleType(name) for name in ("IPython", "IPython.display", "ipywidgets")}
    monkeypatch.setattr(modules["IPython.display"], "display", displayed.append, raising=False)
    monkeypatch.setattr(modules["ipywidgets"], "Output", Output, raising=False)
    modules["ipywidgets"].__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(terminal, "Screen", lambda **how: Screen(**how, force_jupyter=True))
    return displayed


def test_a_notebook_shows_a_bar(notebook: list[Any]) -> None:
    clsim.run(**HOW)
    assert any(type(one).__name__ == "Output" for one in notebook)
    notebook.clear()
    clsim.run(**HOW, fresh=True, progress=False)
    assert not notebook


def test_without_ipywidgets_a_notebook_shows_lines(notebook: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ipywidgets")
    clsim.run(**HOW)
    assert sum("experience" in str(one.text) for one in notebook) == 2


@pytest.mark.parametrize(
    ("prompt", "tty", "progress", "lines"),
    [
        (False, True, "auto", False),
        (False, False, True, True),
        (True, True, "auto", True),
        (True, False, "auto", False),
        (False, True, None, False),
    ],
)
def test_a_script_is_quiet_unless_asked(
    prompt: bool, tty: bool, progress: Any, lines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if prompt:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(sys, "stderr", Shown(tty))
    assert (terminal.shown(progress) is not None) == lines


def test_a_display_of_ones_own_is_told() -> None:
    class Rows:
        def __init__(self) -> None:
            self.rows: list[int] = []

        def experience(self, position: int, total: int, images: int) -> None: ...
        def step(self, images: int) -> None: ...
        def row(self, position: int, accuracy: list[float]) -> None:
            self.rows.append(position)

    own = Rows()
    clsim.run(**HOW, progress=own)
    assert own.rows == [0, 1]
    with pytest.raises(InputError, match="progress: found 'yes'"):
        clsim.run(**HOW, progress="yes")
