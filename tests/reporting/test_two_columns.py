"""The LaTeX of the shipped reports fits a two-column page: compiled, no line is wider than its place."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clsim
from clsim.records import frame
from clsim.reporting import show
from clsim.reporting.report import find_report
from tests.reporting.test_latex import compiles, document
from tests.reporting.test_report import varied

STRATEGIES = ("finetune", "joint", "ewc", "si", "mas", "lwf", "icarl", "packnet", "a_long%name&with#signs~of^LaTeX{\\}")
SCENARIOS = {"split-fashion-mnist": "fashion-mnist", "split-tiny-imagenet-10x20": "tiny-imagenet"}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Runs of the survey's strategies on both of its scenarios; their accuracies are drawn."""
    settings = ["data.per_class=20", "training.epochs=1"]
    made = clsim.run("split-digits", buffer="kcenter", memory=20, settings=settings, runs=tmp_path_factory.mktemp("r"))
    rng = np.random.default_rng(0)
    return [
        varied(
            dict(made.data), seed, np.tril(rng.random((5, 5))),
            scenario=scenario, strategy=strategy, data__dataset=data, stream__setting="task",
        )
        for scenario, data in SCENARIOS.items() for strategy in STRATEGIES for seed in range(3)
    ]  # fmt: skip


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
@pytest.mark.parametrize("tests", [False, True])
def test_the_survey_fits_a_two_column_article(tests: bool, records: list[dict[str, Any]], tmp_path: Path) -> None:
    """With rows of papers, claims in sentences, marks, names full of signs; with paired tests and ranks, too."""
    spec = find_report("survey")
    text = show.text(spec, frame.frame(records, spec.own), records, "latex", "survey", (), tests)
    log = compiles(document(text), tmp_path)
    assert "Overfull" not in log
    assert not re.findall("^!", log, re.MULTILINE)
    assert re.search(r"Output written on paper\.pdf \(\d+ pages", log)
