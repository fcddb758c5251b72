"""A small real study, for the tests of what is shown of runs."""

from __future__ import annotations

from pathlib import Path

import clsim
from clsim.reporting.report import ReportSpec
from clsim.store import RunRecord, Store

SPEC = ReportSpec(title="A small study", metrics=("accuracy", "forgetting"), columns=("scenario",))


def study(folder: Path) -> list[RunRecord]:
    """Two buffers × two memories, no memory at all, and joint training: three seeds of split-digits each."""
    settings = ["data.per_class=20", "training.epochs=1"]
    for seed in range(3):
        for buffer in ("random", "herding"):
            for memory in (10, 40):
                clsim.run("split-digits", buffer=buffer, memory=memory, seed=seed, settings=settings, runs=folder)
        for strategy in ("finetune", "joint"):
            clsim.run("split-digits", strategy, seed=seed, settings=settings, runs=folder)
    return Store(folder).records()[0]
