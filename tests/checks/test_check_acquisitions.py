"""The check of acquisitions accepts what is shipped, and rejects each way of breaking the contract, by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import clsim
from clsim.acquisitions.acquisition import Acquisition, Step
from clsim.acquisitions.learning_loss import LearningLoss
from clsim.checks.acquisitions import check_acquisition
from clsim.checks.samples import CheckFailed
from clsim.cli.main import app
from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.pool.pool import Pool, Selection
from clsim.spec import components, registry


def most(score: Tensor, budget: int) -> Selection:
    return Selection(score.argsort(descending=True, stable=True)[:budget])


class Counted(Acquisition):
    """Which end of the keys it takes depends on how often it was asked."""

    def __init__(self, net: Net, rng: torch.Generator) -> None:
        self.calls = 0

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        self.calls += 1
        return most(pool.data.key * (-1.0) ** self.calls, budget)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


class Linear(Acquisition):
    """A linear score of the features, drawn by the generator and trained in ``fit`` to be large where it is asked."""

    def __init__(self, net: Net, rng: torch.Generator) -> None:
        self.weight = torch.randn(net.head.in_features, generator=rng)

    def fit(self, pool: Pool, rng: torch.Generator) -> None:
        self.weight = self.weight + pool.features.mean(0)

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return most((pool.features @ self.weight).round(decimals=2), budget)

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"].clone()


class InOrder(Linear):
    """The order in which samples come counts, as in a stream."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return most((pool.features @ self.weight).round(decimals=2).cumsum(0), budget)


class Shy(Linear):
    """It asks for fewer labels than it may."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return super().__call__(pool, budget // 2, rng=rng)


FEWER: dict[str, dict[str, Any]] = {"vaal": {"steps": 2, "width": 2, "units": 8}}
"""Options under which an acquisition trains what stands beside the learner for less time."""


@pytest.mark.parametrize("name", components.COMPONENTS["acquisitions"])
def test_every_shipped_acquisition_keeps_the_contract(name: str) -> None:
    clsim.check_acquisition(registry.component("acquisitions", name, FEWER.get(name, {})))


@pytest.mark.parametrize("kind", [Counted, Linear, InOrder, Shy, LearningLoss])
def test_acquisitions_that_keep_the_contract_pass(kind: Any) -> None:
    check_acquisition(kind)


class Duck:
    def __init__(self, net: Net, rng: torch.Generator) -> None: ...

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return most(pool.data.key, budget)


class DrawsItsWeightsGlobally(Linear):
    def __init__(self, net: Net, rng: torch.Generator) -> None:
        self.weight = nn.Linear(net.head.in_features, 1).weight[0].detach()


class DrawsInAStep(LearningLoss):
    def terms(self, step: Step) -> dict[str, Tensor]:
        noise = torch.randn(())
        return {name: term + 0 * noise for name, term in super().terms(step).items()}


class TrainsTheNet(Linear):
    def fit(self, pool: Pool, rng: torch.Generator) -> None:
        with torch.no_grad():
            pool.net.head.weight.mul_(1.01)


class LeavesGradients(Linear):
    def fit(self, pool: Pool, rng: torch.Generator) -> None:
        pool.net.head.weight.square().sum().backward()


class FitsHiddenLabels(Linear):
    def fit(self, pool: Pool, rng: torch.Generator) -> None:
        known = pool.data.y >= 0
        self.weight = self.weight + 9 * (pool.features * (known * pool.data.y)[:, None]).mean(0)


class PicksByHiddenLabels(Linear):
    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return most(pool.features @ self.weight + 9 * pool.data.y, budget)


class Greedy(Linear):
    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return super().__call__(pool, budget + 1, rng=rng)


class Listing(Linear):
    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Any:
        return super().__call__(pool, budget, rng=rng).index.tolist()


class ForgetsItsCalls(Counted):
    def state_dict(self) -> dict[str, Any]:
        return {"calls": 0}


class ForgetsItsModule(LearningLoss):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ForgetsItsRound(Linear):
    """What it learns when a round begins stays in memory alone."""

    first = 1.0

    def fit(self, pool: Pool, rng: torch.Generator) -> None: ...

    def begin(self, number: int, rounds: int) -> None:
        if number == 0:
            self.first = -1.0

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return most((pool.features @ self.weight).round(decimals=2) * self.first, budget)


class SavesAnObject(Counted):
    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "self": self}


class TrainsOtherwiseOnceLoaded(LearningLoss):
    """Its strength changes in the first round, and is not in the state."""

    def begin(self, number: int, rounds: int) -> None:
        self.factor = 5.0 if number == 0 else getattr(self, "factor", 1.0)

    def terms(self, step: Step) -> dict[str, Tensor]:
        return {name: self.factor * term for name, term in super().terms(step).items()}


class NotANumber(LearningLoss):
    def terms(self, step: Step) -> dict[str, Tensor]:
        return {name: term / 0 * 0 for name, term in super().terms(step).items()}


class OneForEachSample(LearningLoss):
    def terms(self, step: Step) -> dict[str, Tensor]:
        return {"mine": self.module(step.maps)}


class NamedAsTheLearners(LearningLoss):
    def terms(self, step: Step) -> dict[str, Tensor]:
        return {"new": super().terms(step)["learning-loss"]}


class ChangesTheNetWhenLoaded(LearningLoss):
    def __init__(self, net: Net, rng: torch.Generator) -> None:
        super().__init__(net, rng)
        self.net = net

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        with torch.no_grad():
            self.net.head.weight.mul_(1.01)


BROKEN: dict[type, str] = {
    Duck: "made a Duck, which is no clsim.Acquisition",
    DrawsItsWeightsGlobally: "drew from torch's global generator",
    DrawsInAStep: "drew from torch's global generator in a step",
    TrainsTheNet: "changed the net: head.weight is not what it was",
    LeavesGradients: "left gradients in the net",
    FitsHiddenLabels: "chose otherwise when the labels were hidden",
    PicksByHiddenLabels: "chose otherwise when the labels were hidden",
    Greedy: r"returned 1 rows of .* with budget 0",
    Listing: "returned a list",
    ForgetsItsCalls: "chose otherwise after it was saved and loaded: its state_dict is not all of its state",
    ForgetsItsModule: "chose otherwise after it was saved and loaded: its state_dict is not all of its state",
    ForgetsItsRound: "chose otherwise after it was saved and loaded",
    SavesAnObject: "has a state_dict that is not tensors and plain values only",
    TrainsOtherwiseOnceLoaded: "trained the learner otherwise|chose otherwise after it was saved and loaded between",
    NotANumber: "made the loss of a step not finite",
    OneForEachSample: "raised RuntimeError in the label rounds of a learner",
    NamedAsTheLearners: "raised InputError in the label rounds .*'new' has the name",
    ChangesTheNetWhenLoaded: "changed the learner's net when it was loaded",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_an_acquisition_that_breaks_the_contract_is_rejected(kind: Any) -> None:
    with pytest.raises(CheckFailed, match=BROKEN[kind]):
        check_acquisition(kind)


MINE = """
import torch
import clsim

class Mine(clsim.Acquisition):
    def __init__(self, net, rng, *, factor: float = 1.0):
        self.calls, self.factor = 0, factor

    def __call__(self, pool, budget, *, rng):
        self.calls += 1
        return clsim.Selection((pool.data.key * self.factor * (-1.0) ** self.calls).argsort()[:budget])

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]

class Forgetful(Mine):
    def state_dict(self):
        return {"calls": 0}
"""


def test_the_command_checks_an_acquisition_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)

    def ask(name: str) -> Any:
        return CliRunner().invoke(app, ["check", f"./mine.py:{name}", "--kind", "acquisitions"], env={"COLUMNS": "300"})

    assert "keeps the contract" in ask("Mine").output
    broken = ask("Forgetful").exception
    assert isinstance(broken, InputError)  # exit code 2
    assert "./mine.py:Forgetful: chose otherwise after it was saved and loaded: its state_dict is" in str(broken)
