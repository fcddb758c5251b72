"""The checks accept what is shipped, and reject each way of breaking the contract with a reason that names it."""

from __future__ import annotations

import random as python_random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clsim
from clsim import catalog
from clsim.checks import CheckFailed, check_learner, check_selector
from clsim.exemplars import Exemplars
from clsim.learners import Setup
from clsim.learners.sgd import Sgd
from clsim.pool import Pool, Selection
from clsim.streams import Experience


def first(pool: Pool, budget: int) -> Tensor:
    return pool.data.key.argsort(descending=True)[:budget]


def a_list(pool: Pool, budget: int, *, rng: torch.Generator) -> Any:
    return first(pool, budget).tolist()


def floating(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(first(pool, budget).float())


def greedy_for_more(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(first(pool, budget + 1))


def one_short(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(first(pool, max(budget - 1, 0)))


def with_repetition(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.randint(len(pool), (min(budget, len(pool)),), generator=rng))


def from_the_data_set(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(first(pool, budget) + 1)


def torch_global(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.randperm(len(pool))[:budget])


def numpy_global(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.from_numpy(np.random.permutation(len(pool)))[:budget])  # noqa: NPY002


def python_global(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.tensor(python_random.sample(range(len(pool)), min(budget, len(pool))), dtype=torch.int64))


def unseeded(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    fresh = torch.Generator()
    fresh.seed()
    return Selection(torch.randperm(len(pool), generator=fresh)[:budget])


def trains_the_net(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    with torch.no_grad():
        pool.net.head.weight.add_(0.01)
    return Selection(first(pool, budget))


def leaves_eval_mode(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    pool.net.eval()
    return Selection(first(pool, budget))


def leaves_gradients(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    pool.net.head.weight.square().sum().backward()
    return Selection(first(pool, budget))


def relabels(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    pool.data.y.zero_()
    return Selection(first(pool, budget))


def takes_the_first_rows(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.arange(min(budget, len(pool))))


def infinite_weights(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    index = first(pool, budget)
    return Selection(index, torch.full((len(index),), torch.inf))


def needs_labels(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(pool.losses.argsort()[: budget if pool.data.y.min() >= 0 else len(pool) + [][0]])


BROKEN_SELECTORS: dict[Callable[..., Any], str] = {
    a_list: "returned a list",
    floating: "returned an index of torch.float32",
    greedy_for_more: "returned 1 rows of 40 samples of 4 classes with budget 0",
    one_short: r"not min\(budget, n\) = 1",
    with_repetition: "chose a row twice",
    from_the_data_set: "outside 0 to",
    torch_global: "drew from torch's global generator",
    numpy_global: "drew from numpy's global generator",
    python_global: "drew from python's global generator",
    unseeded: "chose otherwise when called again",
    trains_the_net: "changed the net: head.weight",
    leaves_eval_mode: "left the net in another mode",
    leaves_gradients: "left gradients in the net",
    relabels: "changed the pool's column 'y'",
    takes_the_first_rows: "when the same pool stood in another order",
    infinite_weights: "not finite numbers",
    needs_labels: "raised IndexError on no labels",
}


@pytest.mark.parametrize("select", BROKEN_SELECTORS, ids=lambda s: s.__name__)
def test_a_broken_selector_is_rejected_with_its_reason(select: Callable[..., Any]) -> None:
    with pytest.raises(CheckFailed, match=BROKEN_SELECTORS[select]):
        check_selector(select)


def test_a_selector_that_announces_a_shortfall_may_return_fewer() -> None:
    check_selector(one_short, shortfall=True)


def test_a_selector_of_one_line_passes() -> None:
    def mine(pool: clsim.Pool, budget: int, *, rng: torch.Generator) -> clsim.Selection:
        return clsim.Selection(torch.randperm(len(pool), generator=rng)[:budget])

    clsim.check_selector(mine)


@pytest.mark.parametrize("name", catalog.COMPONENTS["learners"])
def test_every_shipped_learner_keeps_the_contract(name: str) -> None:
    check_learner(catalog.component("learners", name))


class Fetches(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        return {name: term.item() for name, term in super().observe(batch).items()}


class KeepsTheGraph(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        super().observe(batch)
        return {"loss": self.net.head.weight.sum()}


class ReturnsTheLoss(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        return sum(super().observe(batch).values())


class LearnsNothing(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        return {}


class DrawsGlobally(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        return super().observe(batch[torch.randperm(len(batch))])


class TouchesTheData(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        batch.x.clamp_(max=100)
        return super().observe(batch)


class LearnsFromTests(Sgd):
    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        with torch.no_grad():
            self.net.head.bias.add_(1e-3)
        return super().predict(x, task)


class UsesBatchStatistics(Sgd):
    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        logits = super().predict(x, task)
        return logits - logits.nan_to_num(neginf=0.0).mean(0) * 50


class ShowsHiddenClasses(Sgd):
    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        return super().predict(x, task).clamp_min(-1e9)


class CountsPredictions(Sgd):
    predictions = 0

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        self.predictions += 1
        return super().predict(x, task)

    def observe(self, batch: Exemplars) -> Any:
        batch = batch if self.predictions % 2 == 0 else batch[:2]
        return super().observe(batch)


class ForgetsToSave(Sgd):
    """Carries something from one experience to the next that is not in its state."""

    seen = 0

    def begin(self, experience: Experience) -> None:
        super().begin(experience)
        self.seen += 1

    def observe(self, batch: Exemplars) -> Any:
        return super().observe(batch if self.seen == 1 else batch[:6])


class SavesAnObject(Sgd):
    def state_dict(self) -> Any:
        return {**super().state_dict(), "setup": self._setup.spec}


class NeedsAMemory(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        assert self._setup.memory.exemplars is not None or self._setup.spec.memory.buffer != "none", "no memory"
        return super().observe(batch)


BROKEN_LEARNERS: dict[Callable[[Setup], Any], str] = {
    Fetches: "not as a detached scalar tensor",
    KeepsTheGraph: "not as a detached scalar tensor",
    ReturnsTheLoss: "observe returned a Tensor, not a dict",
    LearnsNothing: "learnt .* of two separable classes",
    DrawsGlobally: "observe drew from torch's global generator",
    TouchesTheData: "observe changed the experience's column 'x'",
    LearnsFromTests: "predict changed the net",
    UsesBatchStatistics: "predict depends on which samples are predicted together",
    ShowsHiddenClasses: "gave a task logits of classes that it does not have",
    CountsPredictions: "when it was evaluated in between",
    ForgetsToSave: "its state_dict is not all of its state",
    SavesAnObject: "state_dict that is not tensors and plain values only",
    NeedsAMemory: "raised AssertionError in training with no memory: no memory",
}


@pytest.mark.parametrize("make", BROKEN_LEARNERS, ids=lambda m: m.__name__)
def test_a_broken_learner_is_rejected_with_its_reason(make: Callable[[Setup], Any]) -> None:
    with pytest.raises(CheckFailed, match=BROKEN_LEARNERS[make]):
        check_learner(make)
