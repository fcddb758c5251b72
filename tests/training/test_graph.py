"""A step that a GPU replays: what it reads and returns, when it is recorded, and a run that takes its steps so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clsim
from clsim.pool.exemplars import Exemplars
from clsim.randomness import Randomness
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.training.contract import Setup, Take
from clsim.training.graph import RUN_FIRST, Graph
from tests.helpers import vectors

CPU = torch.device("cpu")
WORDS = ["training.epochs=2", "data.per_class=20", "training.last_batch=drop", "training.capturable=true"]


def samples(value: float, n: int = 4) -> Exemplars:
    return vectors(torch.full((n, 2), value), torch.zeros(n, dtype=torch.int64))


def summing(seen: list[int]) -> Callable[[Exemplars, Exemplars | None], dict[str, Tensor]]:
    """Make a step that returns the sum of its inputs, and notes where they lie."""

    def step(new: Exemplars, old: Exemplars | None) -> dict[str, Tensor]:
        seen.append(new.x.data_ptr())
        return {"sum": new.x.sum() + (0 if old is None else old.x.sum())}

    return step


def test_replayed_steps_read_fixed_places_and_return_terms_of_their_own() -> None:
    graph, places = Graph(CPU, []), list[int]()
    step = summing(places)
    found = [graph.step(step, samples(i), samples(2 * i, 3))["sum"] for i in range(RUN_FIRST + 4)]
    assert [one.item() for one in found] == [8 * i + 12 * i for i in range(RUN_FIRST + 4)]
    assert len(set(places[RUN_FIRST:])) == 1


def test_inputs_of_another_shape_are_taken_as_they_are() -> None:
    graph, places = Graph(CPU, []), list[int]()
    step = summing(places)
    for i in range(RUN_FIRST + 1):
        graph.step(step, samples(i), None)
    other, beside = samples(5.0, 6), samples(1.0)
    assert graph.step(step, other, None)["sum"].item() == 60
    assert places[-1] == other.x.data_ptr()
    assert graph.step(step, samples(2.0), beside)["sum"].item() == 24
    assert graph.step(step, samples(3.0), None)["sum"].item() == 24
    assert places[-1] == places[RUN_FIRST]


@pytest.mark.parametrize("strategy", ["er", "er-ace", "der++", "ewc", "lwf", "icarl", "bic"])
def test_a_run_whose_steps_read_from_fixed_places_has_the_numbers_of_another(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One recorder an experience; a step that read anything but its inputs would go on with what it read first."""
    buffer = None if strategy in ("ewc", "lwf") else "random"
    kept = clsim.run("split-digits", strategy, buffer=buffer, settings=WORDS, runs=tmp_path / "kept").data
    made = list[Graph]()

    def recorder(self: Setup) -> Take:
        made.append(Graph(self.device, []))
        return made[-1].step

    monkeypatch.setattr(Setup, "recorder", recorder)
    found = clsim.run("split-digits", strategy, buffer=buffer, settings=WORDS, runs=tmp_path / "found").data
    assert found["accuracy"] == kept["accuracy"]
    assert len(made) == 5


@dataclass
class Standing:
    """What :meth:`Setup.recorder` reads of a setup."""

    spec: RunSpec
    device: torch.device
    randomness: Randomness


def test_nothing_is_recorded_without_a_gpu_or_when_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clsim.training.contract.Graph", lambda device, generators: Graph(CPU, generators))

    def recorded(device: str, *words: str) -> bool:
        spec = resolve("split-digits", "finetune", settings=[*WORDS, *words])
        setup: Any = Standing(spec, torch.device(device), Randomness(0, CPU))
        return Setup.recorder(setup) is not None

    assert recorded("cuda")
    assert not recorded("cpu")
    assert not recorded("cuda", "training.compile=off")
    assert not recorded("cuda", "training.capturable=false")


def test_the_key_is_left_out_where_it_is_the_usual_one() -> None:
    plain, said = (resolve("split-digits", "er", settings=words) for words in ([], ["training.compile=auto"]))
    off = resolve("split-digits", "er", settings=["training.compile=off"])
    assert plain.fingerprint == said.fingerprint != off.fingerprint
