"""A small real study, for the tests of what is shown of runs."""

from __future__ import annotations

from pathlib import Path

from clsim.execution import execute
from clsim.records.store import RunRecord, Store
from clsim.reporting.report import ReportSpec
from clsim.spec.resolve import resolve

SPEC = ReportSpec(title="A small study", metrics=("accuracy", "forgetting"), columns=("scenario",))


def study(folder: Path) -> list[RunRecord]:
    """Two buffers × two memories, no memory at all, and joint training: three seeds of split-digits each."""
    arms: list[tuple[str, dict[str, str | int]]] = [
        ("er", {"buffer": buffer, "capacity": memory}) for buffer in ("random", "herding") for memory in (10, 40)
    ]
    store, settings = Store(folder), ["data.per_class=20", "training.epochs=1"]
    for seed in range(3):
        for strategy, memory in [*arms, ("finetune", {}), ("joint", {})]:
            spec = resolve("split-digits", strategy, flags={"memory": memory}, settings=settings, seed=seed)
            words = " ".join(f"--set memory.{key}={value}" for key, value in memory.items())
            sets = " ".join(f"--set {setting}" for setting in settings)
            execute.execute(spec, store, command=f"clsim run --strategy {strategy} {words} {sets} --seed {seed}")
    return store.records()[0]
