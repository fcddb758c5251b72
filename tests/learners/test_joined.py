"""Terms of an acquisition in a learner's loss: who takes them, and that one forward pass serves both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clsim.acquisitions.acquisition import Acquisition, Step
from clsim.acquisitions.learning_loss import LearningLoss
from clsim.checks.learners import train_on
from clsim.checks.samples import body, clusters, convolutional, exemplars
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net
from clsim.objectives.replay import cross_entropy
from clsim.pool.pool import Pool, Selection
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Setup, Terms
from tests.helpers import assert_same, generator

TAKE = {
    *("sgd", "ewc", "mas", "online-ewc", "mean-imm", "mode-imm", "lwf", "ebll", "lfl"),
    *("der", "der++", "er-ace", "bic", "icarl", "ss-il"),
}
"""Learners that take terms; gem and a-gem, si and rwalk, read the gradient of the cross-entropy for another purpose."""


class Watching(Acquisition):
    """A term of a weight of its own, and notes of the steps that it saw."""

    def __init__(self, net: Net, rng: torch.Generator, *, name: str = "watching") -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.module.weight)
        self.name = name
        self.steps: list[Step] = []

    def terms(self, step: Step) -> dict[str, Tensor]:
        self.steps.append(step)
        return {self.name: 0.01 * self.module.weight.sum()}  # type: ignore[union-attr, operator]

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(pool.data.key.argsort(descending=True)[:budget])


class Silent(Acquisition):
    """An acquisition without terms."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(pool.data.key.argsort(descending=True)[:budget])


def joined(model: Any = body, acquisition: Callable[..., Acquisition] = Watching, **training: Any) -> Setup:
    setup = setup_of(model, buffered=True)
    spec = dataclasses.replace(setup.spec, training=dataclasses.replace(setup.spec.training, **training))
    return dataclasses.replace(setup, spec=spec, acquisition=acquisition(setup.net, generator()))


def two_classes(position: int) -> Experience:
    x, y = clusters(80, seed=4)
    rows = (y // 2 == position).nonzero().flatten()
    return Experience(position, (2 * position, 2 * position + 1), exemplars(x[rows], y[rows], task=position))


@pytest.mark.parametrize("name", COMPONENTS["learners"])
def test_a_learner_takes_terms_in_every_step_or_refuses_before_training(name: str) -> None:
    make = registry.component("learners", name)
    if name not in TAKE:
        with pytest.raises(InputError, match=r"acquisition Watching, whose terms .*allowed: .*without terms"):
            make(joined(convolutional))
        return
    setup = joined()
    learner, watching = make(setup), setup.acquisition
    assert isinstance(watching, Watching)
    for position in (0, 1):
        train_on(setup, learner, two_classes(position), epochs=2)
    steps = watching.steps
    assert len(steps) == setup.cost.steps == 2 * 2 * 4  # two experiences, two epochs, four batches
    assert [len(step.y) for step in steps[:8]] == [10] * 8
    assert all(len(step.y) > step.new == 10 for step in steps[8:])  # with exemplars
    for step in steps:
        assert [len(step.y)] * 2 == [len(out) for out in step.maps] == [len(step.features), len(step.losses)]
        assert not step.losses.requires_grad
    assert [step.progress for step in steps[:8]] == [i / 20 for i in range(8)]  # the schedule's 5 epochs are 20 steps
    assert float(watching.module.weight.detach()) < 1.0  # the learner's optimizer moved it


@pytest.mark.parametrize("name", [name for name in COMPONENTS["learners"] if name not in TAKE and name != "lwm"])
def test_every_learner_works_with_an_acquisition_without_terms(name: str) -> None:
    registry.component("learners", name)(joined(convolutional, lambda net, rng: Silent()))


def test_terms_are_part_of_the_losses_that_a_step_returns() -> None:
    setup = joined()
    learner = Sgd(setup)
    learner.begin(two_classes(0))
    assert learner.observe(two_classes(0).train[:10]).keys() == {"new", "watching"}


class Counting(nn.Module):
    """Passes its input on, and counts how often."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        Counting.passes += 1
        return x


def test_one_forward_pass_serves_the_loss_and_the_taps(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    for acquisition in (lambda net, rng: Silent(), Watching, LearningLoss):
        setup = joined(lambda shape: nn.Sequential(Counting(), *body(shape)), acquisition)
        learner = Sgd(setup)
        learner.begin(two_classes(0))
        monkeypatch.setattr(Counting, "passes", 0)
        for _ in range(3):
            learner.observe(two_classes(0).train[:10])
        counted.append((Counting.passes, setup.cost.forward_passes))
    assert counted == [(3, 30)] * 3


def test_losses_and_maps_are_those_of_the_pass_that_the_objective_made() -> None:
    """With batch norm and dropout, another pass would give other maps; the gradient flows through these."""
    kept: dict[str, Tensor] = {}

    def loss(net: Net, batch: Batch) -> Terms:
        logits = net(batch.x, batch.task)
        kept["losses"] = torch.nn.functional.cross_entropy(logits, batch.y, reduction="none").detach()
        return cross_entropy(logits, batch)

    setup = joined(lambda shape: body(shape, dropout=0.5))
    Sgd(setup, objective=loss).observe(two_classes(0).train[:10])
    watching = setup.acquisition
    assert isinstance(watching, Watching)
    (step,) = watching.steps
    torch.testing.assert_close(step.losses, kept["losses"])
    assert step.features.requires_grad
    assert torch.equal(step.maps[-1], step.features)  # the last block of this body makes the features


def test_the_losses_are_over_the_classes_that_the_learner_compares() -> None:
    setup = joined(lambda shape: body(shape))
    setup.net.visible.fill_(True)
    setup.net.masked = False
    learner = Sgd(setup, among="experience")
    learner.begin(two_classes(0))
    learner.observe(two_classes(0).train[:10])
    watching = setup.acquisition
    assert isinstance(watching, Watching)
    step = watching.steps[0]
    with torch.no_grad():
        fresh = setup.fresh(0)
        fresh.masked = False
        logits = fresh.train()(step.x, torch.zeros(10, dtype=torch.int64))
    torch.testing.assert_close(step.losses, torch.nn.functional.cross_entropy(logits[:, :2], step.y, reduction="none"))


def in_parts(net: Net, batch: Batch) -> Terms:
    return {"new": net(batch.x[:5], batch.task[:5]).square().mean() + net(batch.x[5:], batch.task[5:]).square().mean()}


def test_an_objective_that_passes_no_whole_batch_is_refused() -> None:
    learner = Sgd(joined(), objective=in_parts)
    with pytest.raises(InputError, match=r"no whole batch through the net.*allowed: an objective that calls net"):
        learner.observe(two_classes(0).train[:10])


def test_a_term_does_not_replace_one_of_the_learners() -> None:
    learner = Sgd(joined(acquisition=lambda net, rng: Watching(net, rng, name="new")))
    with pytest.raises(InputError, match="term 'new' has the name of one of the learner's"):
        learner.observe(two_classes(0).train[:10])


def test_a_step_that_a_gpu_records_has_no_terms() -> None:
    with pytest.raises(InputError, match=r"training.capturable: found true with an acquisition that has terms"):
        Sgd(joined(capturable=True, last_batch="drop"))


def test_nothing_is_noted_where_no_acquisition_asks() -> None:
    setup = setup_of(buffered=False)
    plain = setup.net.state_dict()
    with setup.net.tapped() as passes:
        pass
    learner = Sgd(setup)
    learner.begin(two_classes(0))
    learner.observe(two_classes(0).train[:10])
    assert passes == []
    assert "joined" not in learner.state_dict()
    assert_same(list(plain), list(setup.fresh(0).state_dict()))


def test_a_learner_goes_back_with_the_module() -> None:
    """As with the best epoch, and as a round that starts from scratch does."""
    setup = joined(acquisition=LearningLoss)
    learner = Sgd(setup)
    train_on(setup, learner, two_classes(0), epochs=1, beyond=2)
    other = joined(acquisition=LearningLoss)
    train_on(other, Sgd(other), two_classes(0), epochs=1)
    assert setup.acquisition is not None
    assert other.acquisition is not None
    assert_same(setup.acquisition.state_dict(), other.acquisition.state_dict())
