"""Hidden labels reach neither learner nor selector: permuted within each experience, they change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.spec import abilities
from clsim.spec.components import COMPONENTS, STREAM_POLICIES
from tests.helpers import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:without an initial set")

CLASSES, EACH, GROUPS = 6, 20, ((0, 1, 2), (3, 4, 5))
CASES: dict[str, tuple[str, str, list[str]]] = {
    **{name: ("er", name, []) for name in ("badge", "kcenter", "typiclust", "bald", "cal", "balancing", "poal")},
    "kcenter memory": ("er", "margin", ["memory.buffer=kcenter"]),
    "memory of guesses": ("er", "margin", ["memory.buffer=kcenter", "memory.unlabelled=true"]),
    "shares of classes": ("er", "entropy", ["memory.buffer=herding", "memory.per=class", "memory.capacity=3"]),
    "committee": ("er", "qbc", ["proxy.epochs=2", "labelling.options.nets=2"]),
    "learning loss": ("er", "learning-loss", []),
    "pseudo-labels": ("er", "ceal", ["labelling.options.delta=5"]),
    "vaal": ("er", "vaal", ["labelling.options.steps=5"]),
    "policy": ("er", "variable-uncertainty", []),
    "one pass": ("er", "margin", ["labelling.update=batch"]),
    "warm": ("er-ace", "margin", ["labelling.start=warm"]),
    "untrained": ("er", "margin", ["labelling.initial_count=0"]),
    "task": ("finetune", "badge", ["stream.setting=task"]),
    "task lwf": ("lwf", "margin", ["stream.setting=task"]),
    "domain": ("er", "badge", ["stream.setting=domain"]),
    "icarl": ("icarl", "margin", []),
    "gdumb": ("gdumb", "margin", []),
    "all three": ("er", "margin", ["batch.selector=margin", "batch.share=0.5", "memory.buffer=margin"]),
    "rho-loss": (
        "er",
        "margin",
        ["batch.selector=rho-loss", "memory.buffer=low-irreducible-loss", "irreducible.epochs=2"],
    ),
    "info-batch": ("er", "margin", ["batch.selector=info-batch", "training.epochs=3"]),
    "bic": ("bic", "margin", []),
    **{name: (name, "margin", []) for name in ("fixmatch", "nncsl", "ccic", "pseudo-label")},
    "fixmatch on the stream": ("fixmatch", "entropy", ["labels.unlabelled=stream"]),
    "fixmatch on all": ("fixmatch", "entropy", ["labels.include_labelled=true", "memory.update=experience"]),
}


def made(path: Path, y: np.ndarray) -> str:
    """A data set of blobs on small pictures, whose training labels are given."""
    rng, truth = np.random.default_rng(0), np.arange(CLASSES * EACH) % CLASSES
    centres = rng.integers(0, 200, (CLASSES, 8, 8))
    x = np.clip(centres[truth] + rng.integers(-40, 40, (len(truth), 8, 8)), 0, 255).astype(np.uint8)
    np.savez(path, x_train=x, y_train=y, x_test=x[:60], y_test=truth[:60])
    return str(path)


ASKERS = [
    name
    for kind in ("selectors", "acquisitions")
    for name in COMPONENTS[kind]
    if kind == "acquisitions" or abilities.acquires(name)
]
CASES |= {f"asks: {name}": ("er", name, ["proxy.epochs=1"]) for name in ASKERS if name not in CASES}


@pytest.mark.parametrize("case", CASES)
def test_hidden_labels_of_an_experience_change_nothing(tmp_path: Path, case: str) -> None:
    """Two experiences, with what the first one leaves in memory; a hidden class of each becomes another one."""
    strategy, label, more = CASES[case]
    settings = [
        *("data.dataset=npz", "stream.experiences=2", "training.epochs=1", "evaluation.rows=seen"),
        *("labelling.initial_count=4", "labelling.split=0", "model.options.hidden=[16]", *more),
    ]
    if strategy not in ("finetune", "lwf") and not any(key.startswith("memory.capacity") for key in more):
        settings.append("memory.capacity=12")
    if label not in STREAM_POLICIES and "labelling.update=batch" not in more:
        settings.append("labelling.rounds=2")

    def carried_out(path: str) -> tuple[clsim.RunRecord, dict[str, Any]]:
        given: dict[str, Any] = {"label": label, "label_budget": 10, "runs": tmp_path / "runs"}
        record = clsim.run("split-digits", strategy, settings=[*settings, f"data.path={path}"], **given)
        assert record.folder is not None
        return record, torch.load(record.folder / "checkpoint.pt", weights_only=True)

    y = np.arange(CLASSES * EACH) % CLASSES
    record, state = carried_out(made(tmp_path / "a.npz", y))
    assert case == "domain" or record.data["classes"] == [list(classes) for classes in GROUPS]
    rounds = record.data["labelling"]["rounds"]
    asked = [row for entry in rounds for row in entry["rows"]]
    other = y.copy()
    for classes in GROUPS:
        hidden = np.setdiff1d(np.flatnonzero(np.isin(y, classes)), asked)
        other[hidden] = np.random.default_rng(1).permutation(y[hidden])
        other[hidden[other[hidden] == classes[0]]] = classes[1]
    assert (other != y).sum() > 40
    again, changed = carried_out(made(tmp_path / "b.npz", other))
    found = again.data["labelling"]["rounds"]
    assert [(e["rows"], e["labels"], e["accuracy"]) for e in found] == [
        (e["rows"], e["labels"], e["accuracy"]) for e in rounds
    ]
    assert again.data["accuracy"] == record.data["accuracy"]
    for part in ("learner", "memory", "randomness"):
        assert_same(state[part], changed[part])
