"""What a run imports: from the second run of a stream on, nothing that it does not use."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import clsim
from clsim.cli.live import Live
from clsim.execution.study import RunState
from clsim.training.progress import Quiet

UNUSED = {
    *("avalanche", "wandb", "torchvision", "pandas", "seaborn", "matplotlib", "sklearn", "scipy", "PIL"),
    *("torch._dynamo", "torch._inductor", "clsim.acquisitions.stream_policies"),
    *("clsim.training.controller", "clsim.training.label_rounds", "clsim.reporting.searches"),
}
"""Packages and modules that a run of Split Digits with a memory has no use for."""

SPY = """
import sys
from pathlib import Path

import clsim


def pick(pool, budget, *, rng):
    Path("modules.txt").write_text("\\n".join(sys.modules))
    return clsim.Selection(pool.data.key.topk(budget).indices)
"""


def unused(modules: list[str]) -> set[str]:
    """Those of the modules that are not to be there; torch has a stub or two that bear the compiler's name."""
    return set(modules) & UNUSED


def test_a_second_run_imports_nothing_that_it_does_not_use(workplace: Path) -> None:
    clsim.run("split-digits", seed=0)
    words = [sys.executable, "-X", "importtime", "-m", "clsim", "run", "--scenario", "split-digits", "--seed", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    modules = re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.M)
    assert {"torch", "clsim.training.loop"} <= set(modules)
    assert not unused(modules)


def test_neither_does_a_worker_that_takes_up_an_unfinished_run(workplace: Path) -> None:
    class Stopped(Quiet):
        def row(self, position: int, accuracy: list[float]) -> None:
            raise KeyboardInterrupt

    Path("spy.py").write_text(SPY)
    with pytest.raises(KeyboardInterrupt):
        clsim.run("split-digits", buffer="./spy.py:pick", memory=20, progress=Stopped())
    Path("modules.txt").unlink()
    found = clsim.study(buffer="./spy.py:pick", memory=20, seeds=1, workers=1)
    assert not found.failures
    assert len(found.records) == 1
    modules = Path("modules.txt").read_text().splitlines()
    assert {"torch", "clsim.training.loop"} <= set(modules)
    assert not unused(modules)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_study_says_that_its_workers_start(terminal: bool) -> None:
    waits, runs, done = (RunState("a", state, 0, 5) for state in ("waiting", "running", "finished"))  # type: ignore[arg-type]

    def said(*states: RunState) -> int:
        text = io.StringIO()
        with Live(Console(file=text, force_terminal=terminal, width=120)) as live:
            for state in states:
                live.show([state, done], None)
                live.show([state, done], None)
        return text.getvalue().count("starting workers")

    assert said(waits) > 0
    assert said(done) == said(runs) == 0
    if not terminal:  # there, it is said once
        assert said(waits, runs, waits) == 1
