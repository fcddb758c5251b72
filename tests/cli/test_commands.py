"""The command line as people use it, and what it leaves in the folder of runs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import clsim as package
from clsim.cli import main
from clsim.errors import InputError
from clsim.records import atomic, store
from clsim.records.store import Store
from clsim.spec.taxonomy import leaves
from clsim.version import __version__
from tests.commands import clsim, refused
from tests.files import rewrite

SMALL = ["--scenario", "split-digits", "--set", "data.per_class=20", "--set", "stream.experiences=2", "--memory", "20"]


pytestmark = pytest.mark.usefixtures("workplace")


def test_a_run_prints_its_numbers_and_the_second_time_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", *SMALL, "--seeds", "3") == 0
    first = capsys.readouterr()
    assert "mean ± half of the 95 % t interval over 3 seeds" in first.out
    assert first.err.count("experience 2/2") == 3  # plain lines, as this is no terminal
    started = {p: p.stat().st_mtime_ns for p in Path("runs").glob("*/record.json")}
    assert len(started) == 3
    assert clsim("run", *SMALL, "--seeds", "3") == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert second.err.count("read, not run: ") == len(second.err.splitlines()) == 3
    assert {p: p.stat().st_mtime_ns for p in started} == started


def test_several_seeds_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", *SMALL, "--seed", "3", "--seed", "5", "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["spec"]["seed"] for r in records] == [3, 5]
    assert all(r["finished"] and r["versions"]["clsim"] == package.__version__ for r in records)


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", *SMALL, "--quiet") == 0
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_fresh_runs_anew_and_keeps_the_record_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", *SMALL, "--quiet") == 0
    path = next(Path("runs").glob("*/record.json"))
    before = path.read_bytes()
    assert clsim("run", *SMALL, "--quiet", "--fresh") == 0
    assert path.with_name("record.previous.json").read_bytes() == before
    assert json.loads(path.read_text())["accuracy"] == json.loads(before)["accuracy"]


def test_a_record_of_another_version_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", *SMALL, "--quiet") == 0
    path = next(Path("runs").glob("*/record.json"))
    record = json.loads(path.read_text())
    record["versions"]["clsim"] = "0.0.9"
    rewrite(path, record)
    assert clsim("run", *SMALL) == 0
    out = capsys.readouterr().out
    assert f"made by clsim 0.0.9, this is {package.__version__}; --fresh runs it anew" in out
    assert clsim("run", *SMALL, "--fresh") == 0
    assert "made by clsim" not in capsys.readouterr().out


def test_the_recorded_command_makes_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *SMALL,
        "--buffer",
        "per_class(random)",
        "--precision",
        "bf16",
        "--set",
        "optimizer.lr=0.07",
        "--seed",
        "4",
    ]
    assert clsim("run", *words, "--json") == 0
    record = json.loads(capsys.readouterr().out)[0]
    again = shlex.split(record["command"])
    assert again[:2] == ["clsim", "run"]
    assert clsim(*again[1:], "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["fingerprint"] == record["fingerprint"]


def test_a_selector_of_ones_own_is_checked_run_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    text = """import clsim
def newest(pool: clsim.Pool, budget: int, *, rng, oldest: bool = False) -> clsim.Selection:
    order = pool.data.key.argsort(descending=not oldest)
    return clsim.Selection(order[:budget])
"""
    assert len(text.splitlines()) <= 10
    Path("mine.py").write_text(text)
    name = "./mine.py:newest"
    assert clsim("check", name) == 0
    assert "keeps the contract" in capsys.readouterr().out
    assert clsim("run", *SMALL, "--buffer", name, "--quiet") == 0
    assert clsim("run", *SMALL, "--buffer", name, "--set", "memory.options.oldest=true", "--quiet") == 0
    assert clsim("report") == 0
    out = capsys.readouterr().out
    assert out.count(name) >= 2
    assert "memory.options" in out
    assert clsim("show", name) == 0
    assert "mine.py:2" in capsys.readouterr().out


def test_a_broken_selector_fails_its_check_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "import torch, clsim\ndef f(pool, budget, *, rng):\n    return clsim.Selection(torch.zeros(budget))\n"
    )
    assert clsim("check", "./mine.py:f") == 2
    line = capsys.readouterr().err
    assert line.startswith("clsim: ./mine.py:f: returned an index of torch.float32")
    assert line.count("\n") == 1


def test_a_selector_that_raises_is_one_line_with_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("def f(pool, budget, *, rng):\n    raise KeyError('my own\\nmistake')\n")
    assert clsim("check", "./mine.py:f") == 2
    assert "raised KeyError" in capsys.readouterr().err


def test_the_taxonomy_lists_every_acquisition_under_its_leaf(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert clsim("list", "--taxonomy") == 0
    out = capsys.readouterr().out
    for branch, leaf, names in leaves():
        assert branch in out
        assert any(line.strip().startswith(leaf) and f" {names[0]}" in line for line in out.splitlines())
        assert all(name in out for name in names)
    assert "Our grouping" in out
    assert "allowed: one of them" in refused(capsys, "list", "selectors", "--taxonomy")


def test_a_selector_may_promise_to_read_no_labels(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "import clsim\ndef pick(pool, budget, *, rng):\n"
        "    return clsim.Selection(pool.losses.nan_to_num(0).argsort(descending=True, stable=True)[:budget])\n"
    )
    assert clsim("check", "./mine.py:pick") == 0
    assert capsys.readouterr().out == "./mine.py:pick: keeps the contract\n"  # and :pick: is no emoji
    assert clsim("check", "./mine.py:pick", "--acquisition") == 2
    assert "it reads what an acquisition cannot know" in capsys.readouterr().err
    assert clsim("check", "kcenter", "--acquisition") == 0
    assert clsim("check", "sgd", "--kind", "learners", "--acquisition") == 2


def test_a_memory_may_be_a_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("run", *SMALL[:-2], "--memory", "10%", "--strategy", "gdumb", "--json") == 0
    record = json.loads(capsys.readouterr().out)[0]
    assert record["spec"]["memory"]["fraction"] == 0.1
    bytes_kept = [cost["memory_bytes"] for cost in record["cost"]]
    assert bytes_kept == [64 * 10, 64 * 20]  # of 100 samples, then of 200
    assert clsim(*shlex.split(record["command"])[1:], "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["fingerprint"] == record["fingerprint"]


def test_one_experience_is_a_coreset_study(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--scenario", "coreset-fashion-mnist", "--strategy", "gdumb", "--set", "data.dataset=digits"]
    words += ["--buffer", "kcenter", "--set", "proxy.epochs=2", "--set", "learner.options.epochs=30", "--json"]
    assert clsim("run", *words, "--memory", "10%") == 0
    record = json.loads(capsys.readouterr().out)[0]
    cost = record["cost"][0]
    assert cost["memory_bytes"] == round(0.1 * 1442) * 64
    assert cost["proxy_steps"] == 2 * 12  # the proxy alone sees all data, in batches of 128
    assert cost["steps"] == 30 * 2
    assert record["accuracy"][0][0] > 0.7


@pytest.mark.parametrize("buffer", ["reservoir", "class-balanced"])
def test_a_memory_holds_no_sample_twice_however_many_epochs(buffer: str) -> None:
    words = ["--buffer", buffer, "--set", "memory.update=batch", "--set", "training.epochs=4", "--quiet"]
    assert clsim("run", *SMALL, *words) == 0
    state = torch.load(next(Path("runs").glob("*/checkpoint.pt")), weights_only=True)
    kept = state["memory"]["columns"]["index"]
    assert len(kept) == len(kept.unique()) == 20
    assert state["memory"]["seen"] == 200


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    atomic.write(path, b"old")

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        atomic.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".record")] == []


def test_other_things_in_the_folder_of_runs_are_left_alone() -> None:
    assert clsim("run", *SMALL, "--quiet") == 0
    Path("runs/notes").mkdir()
    Path("runs/0123456789abcdef").mkdir()
    Path("runs/README").touch()
    records, problems = Store(Path("runs")).records()
    assert len(records) == 1
    assert problems == []
    losses = records[0].losses
    assert list(losses.columns)[:1] in (["new"], ["memory"])
    assert np.isfinite(losses["new"]).all()


def test_a_spec_smuggled_into_a_record_is_found_out() -> None:
    assert clsim("run", *SMALL, "--quiet") == 0
    path = next(Path("runs").glob("*/record.json"))
    record = json.loads(path.read_text())
    record["spec"]["memory"]["capacity"] = 2000
    rewrite(path, record)
    with pytest.raises(InputError, match="its spec has another fingerprint"):
        store.RunFolder(path.parent).record()


HEAVY = "{'torch', 'torchvision', 'avalanche', 'pandas', 'numpy', 'matplotlib', 'sklearn'}"


@pytest.mark.parametrize(
    "words", [["--help"], ["list"], ["list", "selectors"], ["run", "--help"], ["doctor", "--help"]]
)
def test_help_and_lists_import_nothing_that_is_slow(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {words}\nfrom clsim.cli.main import main\n"
        f"try: main()\nexcept SystemExit: print('\\n', sorted({HEAVY} & set(sys.modules)), sep='')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
    assert len(said.splitlines()) > 5


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("--help") == 0
    said = capsys.readouterr().out
    lines = [words[0] for line in said.splitlines() if (words := line.strip("│| ").split())]
    places = [lines.index(name) for name in main.COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_a_help(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim(name, flag) == 0
    assert f"clsim {name} [OPTIONS]" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("--version") == 0
    assert capsys.readouterr().out == f"clsim {__version__}\n"
    assert clsim("-h") == 0
    assert "python -m clsim" in capsys.readouterr().out
    words = [sys.executable, "-m", "clsim", "--version"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == f"clsim {__version__}\n"


def test_a_misspelt_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("rnu") == 2
    assert "No such command 'rnu'. Did you mean 'run'?" in capsys.readouterr().err
