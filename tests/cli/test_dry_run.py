"""`clsim run --dry-run`: the spec with where each value comes from, how far the run is, and nothing done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clsim.records.store import Store
from clsim.spec.flags import tables_of
from clsim.spec.resolve import resolve
from tests.commands import clsim, refused
from tests.files import rewrite

SMALL = ("--set", "data.per_class=10", "--set", "training.epochs=1", "--set", "stream.experiences=2")


@pytest.fixture(autouse=True)
def _here(workplace: Path) -> None:
    """Each test has a folder of its own."""


def test_values_stand_with_their_places_and_the_given_ones_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", "--buffer", "reservoir", "--memory", "50", "--set", "optimizer.lr=0.3", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert rows[0] == "split-digits · er · reservoir 50"
    assert "memory.capacity 50 --memory" in rows
    assert "memory.update batch implied by buffer reservoir" in rows
    assert "optimizer.lr 0.3 --set, over 0.05 of scenario split-digits" in rows
    given, usual = rows.index("memory.capacity 50 --memory"), next(i for i, row in enumerate(rows) if "default" in row)
    assert given < usual
    assert any(row.startswith("training batch_size 10 · passes 1") for row in rows[usual:])
    spec = resolve("split-digits", "er", flags=tables_of(buffer="reservoir", memory=50), settings=["optimizer.lr=0.3"])
    assert f"0 {spec.fingerprint} none so far: 5 experiences to do" in rows


def test_nothing_is_written_and_no_torch_imported() -> None:
    code = "import sys; from clsim.cli.main import main\ntry: main()\nexcept SystemExit: print('torch' in sys.modules)"
    words = ["run", "--scenario", "split-cifar100", "--buffer", "kcenter", "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("columns", ["80", "160"])
def test_a_terminal_of_any_width_shows_every_value(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert clsim("run", "--scenario", "active-mnist", "--label", "learning-loss", "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "…" not in said
    for words in ("labelling.initial_count", "implied by label learning-loss", "decays 10", "weight_decay 0.0005"):
        assert words in said


def test_how_far_a_run_is(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("run", *SMALL, "--seeds", "2")
    assert clsim(*words[:-1], "1", "--quiet") == 0

    def told() -> list[str]:
        assert clsim(*words, "--dry-run", "--json") == 0
        return [run["record"] for run in json.loads(capsys.readouterr().out)]

    assert told() == ["finished", "none"]
    (record,) = Path("runs").glob("*/record.json")
    data = json.loads(record.read_text())
    rewrite(record, {**data, "finished": False, "cost": data["cost"][:1]})
    assert told() == ["half done", "none"]
    assert clsim(*words, "--dry-run") == 0
    assert "half done, runs/" in (said := capsys.readouterr().out)
    assert "1 of 2 experiences done; the run goes on from there" in said
    spec = resolve("split-digits", "er", settings=list(SMALL[1::2]), seed=0)
    Store(Path("runs")).folder(spec).fail(spec, "it broke", "clsim run")
    assert clsim(*words, "--dry-run") == 0
    assert "it failed: it broke" in capsys.readouterr().out
    record.write_text("{")
    assert told() == ["damaged", "none"]


def test_json_has_every_value_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", *SMALL, "--seed", "7", "--dry-run", "--json") == 0
    (run,) = json.loads(capsys.readouterr().out)
    spec = resolve("split-digits", "er", settings=list(SMALL[1::2]), seed=7)
    assert run["fingerprint"] == spec.fingerprint
    assert run["seed"] == 7
    assert run["values"]["training.epochs"] == {"value": 1, "from": "--set", "given": True}
    assert run["values"]["data.size"] == {"value": 0, "from": "default", "given": False}
    assert run["command"].endswith("--seed 7")


def test_what_is_needed_first_and_remarks_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", "--set", "stream.tasks=easy-first", "--dry-run") == 0
    assert "joint, needed first: none so far" in capsys.readouterr().out
    assert clsim("run", "--scenario", "split-digits", "--label", "entropy", "--label-budget", "5", "--dry-run") == 0
    assert "note: without an initial set" in capsys.readouterr().out


def test_a_misspelt_name_is_refused_before_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'kcenter'?" in refused(capsys, "run", "--buffer", "kcentre", "--dry-run")


def test_text_of_files_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("def pick(pool, budget, *, rng, note: str = ''): ...\n")
    words = ("--buffer", "./mine.py:pick", "--set", 'memory.options.note="[red]\\u001b[31m"', "--dry-run")
    assert clsim("run", *words) == 0
    said = capsys.readouterr().out
    assert "memory.options.note   [red]" in said
    assert "\x1b" not in said
