"""The state of the code, as records name it."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import clsim
from clsim import version
from clsim.records.frame import frame
from clsim.reporting.formats import to_runs
from clsim.reporting.report import ReportSpec
from clsim.version import __version__, code_state


def refuse(*words: Any, **further: Any) -> Any:
    raise AssertionError("a process was started")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that clsim's version module seems to lie in."""
    folder = tmp_path / "clsim"
    folder.mkdir()
    (folder / "version.py").write_text("")
    monkeypatch.setattr(version, "__file__", str(folder / "version.py"))
    return folder


def git(folder: Path, *words: str) -> str:
    whose = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", "-C", str(folder), *whose, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_without_a_checkout_it_is_the_version_and_no_process_is_started(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", refuse)
    assert code_state.__wrapped__() == __version__


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_has_a_commit_that_changes_make_dirty(package: Path) -> None:
    git(package.parent, "init", "--quiet")
    assert code_state.__wrapped__() == __version__  # no commit so far
    git(package.parent, "add", "clsim")
    git(package.parent, "commit", "--quiet", "-m", "one")
    commit = git(package, "rev-parse", "HEAD")[:12]
    (package.parent / "notes.txt").write_text("of the checkout, not of the package")
    assert code_state.__wrapped__() == commit
    (package / "further.py").write_text("")
    assert code_state.__wrapped__() == f"{commit}-dirty"


def test_git_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = code_state()
    monkeypatch.setattr(subprocess, "run", refuse)
    assert code_state() == first


def test_commands_that_run_nothing_ask_for_no_commit() -> None:
    code = "import clsim.cli.main, clsim.version; assert not clsim.version.code_state.cache_info().currsize"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_record_has_code_and_processor(tmp_path: Path) -> None:
    data = clsim.run("split-digits", "finetune", settings=["training.epochs=1"], runs=tmp_path).data
    assert data["versions"]["code"] == code_state()
    assert data["environment"]["processor"]
    assert data["environment"]["bf16"] in ("in hardware", "emulated")
    (row,) = csv.DictReader(io.StringIO(to_runs(ReportSpec(), frame([data]), [data])))
    assert (row["code"], row["processor"]) == (code_state(), data["environment"]["processor"])


def test_the_citation_is_of_this_version() -> None:
    citation = Path(version.__file__).parents[1] / "CITATION.cff"
    assert f"\nversion: {__version__}\n" in citation.read_text(encoding="utf-8")
