"""What the shell offers at the tab key, by the variables that typer's script for bash sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clsim.cli.main import COMMANDS
from clsim.spec import components, registry
from tests.commands import clsim

HEAVY = "{'torch', 'torchvision', 'avalanche', 'pandas', 'matplotlib', 'sklearn'}"


def offered(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What bash is told for the last of some words."""
    monkeypatch.setenv("_CLSIM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert clsim() == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("clsim run --scenario split-digi", ["split-digits"]),
        ("clsim run --strategy fine", ["finetune"]),
        ("clsim run --buffer kcenter-", ["kcenter-pca", "kcenter-robust"]),
        ("clsim run --label learning", ["learning-loss"]),
        ("clsim run --precision b", ["bf16"]),
        ("clsim run --metric worst", ["worst_case_accuracy"]),
        ("clsim report selec", ["selectors"]),
        ("clsim report --format h", ["html"]),
        ("clsim study active-s", ["active-stream"]),
        ("clsim study --scenario split-mnist,split-digi", ["split-mnist,split-digits"]),
        ("clsim condense --method acc", ["acc-dd"]),
        ("clsim select --dataset fash", ["fashion-mnist"]),
        ("clsim new sel", ["selector"]),
        ("clsim check --kind met", ["metrics"]),
        ("clsim do", ["doctor"]),
    ],
)
def test_names_are_completed(
    words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offered(words, monkeypatch, capsys) == expected


def test_every_name_is_offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert offered("clsim run --scenario ", monkeypatch, capsys) == registry.file_names("scenarios")
    buffers = {*components.COMPONENTS["selectors"], *components.COMPONENTS["condensers"]}
    assert {*offered("clsim run --buffer ", monkeypatch, capsys)} == buffers
    assert offered("clsim ", monkeypatch, capsys) == list(COMMANDS)


def test_files_of_the_working_directory_are_offered(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("scenarios").mkdir()
    Path("scenarios", "zebra.toml").write_text("")
    assert offered("clsim run --scenario z", monkeypatch, capsys) == ["zebra"]


@pytest.mark.parametrize("words", ["clsim run --buffer k", "clsim study --scenario s", "clsim run --metric a"])
def test_completion_imports_nothing_that_is_slow(words: str) -> None:
    code = (
        "import os, sys\n"
        f"os.environ |= {{'_CLSIM_COMPLETE': 'complete_bash', 'COMP_WORDS': {words!r}, 'COMP_CWORD': '3'}}\n"
        "sys.argv = ['clsim']\nfrom clsim.cli.main import main\n"
        f"try: main()\nexcept SystemExit: print('\\n', sorted({HEAVY} & set(sys.modules)), sep='')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
    assert len(said.splitlines()) > 1


def test_the_script_for_bash_can_be_shown() -> None:
    code = "import sys; sys.argv = ['clsim', '--show-completion']\nfrom clsim.cli.main import main\nmain()"
    # shellingham looks for the shell among the parents of the process
    words = ["bash", "-c", f'"{sys.executable}" -c "$1"; exit $?', "bash", code]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "complete -o default -F _clsim_completion clsim" in said
