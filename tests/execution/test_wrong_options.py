"""Every option of every component with wrong values: the run is carried out, or refused in one line."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from clsim.errors import InputError
from clsim.execution.execute import execute
from clsim.records.store import Store
from clsim.spec import abilities, registry
from clsim.spec.components import COMPONENTS
from clsim.spec.options import options_of
from clsim.spec.resolve import resolve

SMALL = ["data.per_class=8", "training.epochs=1", "stream.experiences=2", "evaluation.rows=seen"]
MLP = ["model.name=mlp", "model.options.hidden=[8]"]
CONV = ["model.name=convnet3", "model.options.width=8"]
MEMORY = ["memory.capacity=6", "memory.candidates=5", "proxy.epochs=1"]
LABEL = ["labelling.budget=4", "labelling.initial_count=6"]

FAST = {"epochs": 1, "iterations": 1, "nets": 2, "passes": 2, "steps": 1}
"""Options that decide how long a run takes, with small values."""

WRONG = {
    "text": '"x"',
    "no text": '""',
    "list": "[1, 2]",
    "list of lists": "[[1]]",
    "empty list": "[]",
    "table": "{a = 1}",
    "true": "true",
    "negative": "-1",
    "zero": "0",
    "negative number": "-0.5",
    "number": "0.5",
    "whole number as a number": "2.0",
    "huge": "9223372036854775807",
    "beyond 64 bits": "99999999999999999999999",
    "huge number": "1e308",
    "tiny": "1e-320",
    "many": "1000000000000",
    "nan": "nan",
    "inf": "inf",
}
"""Values, as ``--set`` takes them."""

PATIENCE = 10.0
"""Seconds of the processor after which a run counts as one that goes on: many steps were asked for."""

Case = tuple[str, str, str, str]


def every() -> list[Case]:
    """List kind, name, option and value of all cases."""
    return [
        (kind, name, option, value)
        for kind, names in COMPONENTS.items()
        for name in names
        for option in options_of(registry.component(kind, name))
        for value in WRONG
    ]


def usual(kind: str, name: str) -> tuple[str, dict[str, Any], list[str], str]:
    """Return strategy, flags and settings of a very small run of a component, and the table of its options."""
    if kind == "selectors":
        return "er", {}, *of_selector(name)
    if kind in ("acquisitions", "bounds"):
        return "er", {}, [*MLP, *MEMORY, *LABEL, f"labelling.selector={name}"], "labelling.options"
    if kind == "pruners":
        return "finetune", {}, [*MLP, f"batch.selector={name}"], "batch.options"
    if kind == "condensers":
        return "er", {}, [f"memory.buffer={name}", "memory.capacity=4"], "memory.options"
    if kind == "models":
        size = ["data.size=32"] if name.startswith("vgg") else []
        return "finetune", {}, [f"model.name={name}", *size], "model.options"
    if kind == "pools":
        return "er", {"pool": [name]}, [*MLP, *MEMORY, *LABEL, "labelling.selector=random"], f"pool.{name}"
    semi = ".semi." in COMPONENTS[kind][name]
    task = ["stream.setting=task"] if name in ("hat", "packnet") else []
    labels = ["labels.per_class=3"] if semi else []
    strategy = "finetune" if name == "sgd" else name
    return strategy, {}, [*(CONV if semi or name == "lwm" else MLP), *task, *labels], "learner.options"


def of_selector(name: str) -> tuple[list[str], str]:
    if name == "mir":
        return [*MLP, *MEMORY, "memory.retrieval=mir"], "memory.retrieval_options"
    if abilities.acquires(name):
        return [*MLP, *MEMORY, *LABEL, f"labelling.selector={name}", "memory.buffer=random"], "labelling.options"
    if abilities.chooses_batch(name):
        return [*MLP, *MEMORY, f"batch.selector={name}", "irreducible.epochs=1"], "batch.options"
    return [*MLP, *MEMORY, f"memory.buffer={name}"], "memory.options"


class GoesOn(BaseException):
    """The patience is over."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    def over(number: int, frame: FrameType | None) -> None:
        raise GoesOn

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(case: Case, store: Store) -> str:
    """Carry a case out; return nothing if it ran or was refused in one line, else what went wrong."""
    kind, name, option, value = case
    strategy, flags, settings, table = usual(kind, name)
    known = options_of(registry.component(kind, name))
    fast = [f"{table}.{key}={text}" for key, text in FAST.items() if key in known and key != option]
    settings = [*SMALL, *settings, *fast, f"{table}.{option}={WRONG[value]}"]
    try:
        with patience(PATIENCE):
            execute(resolve("split-digits", strategy, flags=flags, settings=settings), store, fresh=True)
    except InputError as error:
        return "" if "\n" not in str(error) and len(str(error)) < 2000 else f"{case}: several lines: {error}"
    except GoesOn:
        return ""
    except Exception as error:
        return f"{case}: {type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize(("seed", "times"), [(22, 3), pytest.param(23, 12, marks=pytest.mark.slow)])
def test_a_sample_of_wrong_values_runs_or_is_refused_in_one_line(seed: int, times: int, tmp_path: Path) -> None:
    """Some of each kind of wrong value, and one of each kind of component, drawn from a seed."""
    rng, cases = random.Random(seed), every()
    chosen = [rng.choice([case for case in cases if case[3] == value]) for value in WRONG for _ in range(times)]
    chosen += [rng.choice([case for case in cases if case[0] == kind]) for kind in COMPONENTS if kind != "objectives"]
    slow = ("resnet", "vgg")  # seconds each
    found = [outcome(case, Store(tmp_path)) for case in chosen if not any(name in case[1] for name in slow)]
    assert not [line for line in found if line]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(20))
def test_every_option_with_every_wrong_value_runs_or_is_refused_in_one_line(part: int, tmp_path: Path) -> None:
    found = [outcome(case, Store(tmp_path)) for case in every()[part::20]]
    assert not [line for line in found if line]
