"""Killed at any moment, resumed by the same command: the same numbers, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import clsim
from tests.killing import assert_same_end, killed

BASE = ["data.per_class=20", "training.epochs=3", "model.name=tests.helpers:mlp_with_dropout"]
TASK = ["stream.setting=task", "optimizer.momentum=0.9", "optimizer.restart=false", "optimizer.lr=0.01"]
RUNS: list[tuple[int, dict[str, Any]]] = [
    # files replaced: the spec, then checkpoint, losses and record of each experience
    (2, {"buffer": "kcenter"}),
    (4, {"buffer": "kcenter", "settings": ["optimizer.momentum=0.9", "optimizer.restart=false", "optimizer.lr=0.01"]}),
    (
        7,
        {
            "buffer": "reservoir",
            "settings": ["optimizer.name=adamw", "optimizer.schedule=cosine"],
        },
    ),
    (6, {"strategy": "gdumb"}),
    (5, {"buffer": "reservoir", "settings": ["memory.retrieval=mir", "memory.candidates=12"]}),
    (8, {"buffer": "gss-greedy", "settings": ["memory.retrieval=badge", "memory.candidates=15"]}),
    (10, {"strategy": "der++"}),
    (11, {"strategy": "er-ace"}),
    (13, {"strategy": "lwf", "settings": ["stream.setting=task"]}),
    (7, {"strategy": "ebll", "settings": ["stream.setting=task", "optimizer.momentum=0.9"]}),
    (13, {"strategy": "icarl"}),
    (15, {"strategy": "bic", "memory": 40, "settings": ["stream.setting=class"]}),
    (14, {"strategy": "ss-il"}),
    (13, {"strategy": "rwalk", "settings": ["learner.options.every=7"]}),
    (12, {"strategy": "gem", "settings": ["optimizer.lr=0.5"]}),
    (
        8,
        {
            "strategy": "nncsl",
            "labels": 5,
            "settings": [
                *("learner.options.large=['crop', 'jitter']", "learner.options.projection=[16, 8]"),
                *("optimizer.name=lars", "optimizer.momentum=0.9", "optimizer.restart=false", "optimizer.warmup=0.2"),
            ],
        },
    ),
    (9, {"strategy": "remixmatch", "labels": 5, "settings": ["optimizer.momentum=0.9", "optimizer.restart=false"]}),
    (12, {"strategy": "comatch", "labels": 5, "settings": ["optimizer.momentum=0.9", "optimizer.restart=false"]}),
    (13, {"strategy": "ccic", "labels": 5}),
    (13, {"strategy": "packnet", "settings": [*TASK, "learner.options.retrain_epochs=2"]}),
    (14, {"strategy": "hat", "settings": [*TASK, "model.name=mlp", "model.options={hidden=[32], dropout=0.2}"]}),
    (9, {"buffer": "class-balanced", "settings": ["memory.update=batch", "data.augment=['crop', 'color']"]}),
]


FAST = 6
"""So many of them at every `make test`; all of them in CI."""


@pytest.mark.parametrize(
    ("move", "arguments"),
    [pytest.param(*run, marks=[pytest.mark.slow] * (place >= FAST)) for place, run in enumerate(RUNS)],
    ids=[f"{run.get('strategy', 'er')}-{move}" for move, run in RUNS],
)
def test_a_killed_run_ends_with_the_same_numbers(move: int, arguments: dict[str, Any], tmp_path: Path) -> None:
    settings = [*BASE, *arguments.get("settings", [])]
    arguments = {"scenario": "split-digits", "memory": 20, **arguments, "settings": settings}
    whole = clsim.run(**arguments, runs=tmp_path / "whole")

    again = {**arguments, "runs": str(tmp_path / "killed")}
    folder = killed(move, again, whole)
    finished = move // 3
    assert (folder / "checkpoint.pt").exists() == (finished > 0)
    if finished:
        done = torch.load(folder / "checkpoint.pt", weights_only=True)["results"]["done"]
        assert done == finished
    assert_same_end(clsim.run(**again), whole)
