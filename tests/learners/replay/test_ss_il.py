"""SS-IL: new and old classes never meet in a softmax, and each earlier task is distilled by itself."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import clsim
from clsim.errors import InputError
from clsim.learners.replay.ss_il import SsIl
from clsim.models.nets import Net
from clsim.objectives.separated_softmax import Separated
from clsim.pool.exemplars import Exemplars, concatenate
from tests.helpers import assert_same, generator
from tests.increments import ONE_HEAD, TASKS, batch_of, experience, into_the_second, kl_by_hand, learn, setup_of


def moved(net: Net, seed: int) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator(seed))


@pytest.mark.parametrize("visible", [ONE_HEAD, TASKS], ids=["class", "task"])
def test_a_side_gives_the_other_no_gradient(visible: Tensor) -> None:
    setup = setup_of(visible)
    objective = Separated(setup, strength=0.0, temperature=2.0)
    first, second = into_the_second(objective)
    new, old = second.train[:6], first.train[:4]
    terms = objective(setup.net, batch_of(new, old))
    bias = setup.net.head.bias
    (gradient,) = torch.autograd.grad(terms["new"], [bias], retain_graph=True)
    assert gradient[2:].all()
    assert not gradient[:2].any()
    (gradient,) = torch.autograd.grad(terms["memory"], [bias])
    assert gradient[:2].all()
    assert not gradient[2:].any()
    raw = [setup.net.head(setup.net.features(part.x)) for part in (new, old)]
    assert torch.allclose(terms["new"], F.cross_entropy(raw[0][:, 2:], new.y - 2) * 6 / 10)
    assert torch.allclose(terms["memory"], F.cross_entropy(raw[1][:, :2], old.y) * 4 / 10)


def test_an_exemplar_is_on_the_side_of_its_label() -> None:
    """A memory that every batch updates holds new classes too."""
    setup = setup_of()
    objective = Separated(setup, strength=0.0, temperature=2.0)
    _, second = into_the_second(objective)
    terms = objective(setup.net, batch_of(second.train[:3], second.train[3:6]))
    (gradient,) = torch.autograd.grad(terms["memory"], [setup.net.head.bias])
    assert gradient[2:].all()
    assert not gradient[:2].any()


def test_each_earlier_task_is_distilled_by_itself() -> None:
    """Three experiences of 1, 1 and 2 classes; one of them comes back."""
    setup = setup_of(torch.ones(3, 4, dtype=torch.bool))
    objective = Separated(setup, strength=0.7, temperature=2.0)
    first, second = experience(0), experience(1)
    for classes in ((0,), (1, 2), (0, 3)):
        given = dataclasses.replace(first, classes=classes)
        objective.begin(given)
        if classes != (0, 3):
            objective.finish(given)
    new, old = second.train[1:6:2], first.train[1:8:2]  # of 3 and of 1
    both = concatenate([new, old])
    assert float(objective(setup.net, batch_of(new, old))["distillation"].detach()) == pytest.approx(0, abs=1e-7)
    before = copy.deepcopy(setup.net)
    moved(setup.net, 4)
    terms = objective(setup.net, batch_of(new, old))
    was, now = (net.head(net.features(both.x)).detach() for net in (before, setup.net))
    by_task = [kl_by_hand(now[i], was[i], task, 2.0) for i in range(len(both)) for task in ([0], [1, 2])]
    together = [kl_by_hand(now[i], was[i], [0, 1, 2], 2.0) for i in range(len(both))]
    assert float(terms["distillation"].detach()) == pytest.approx(0.7 * 4 * sum(by_task) / len(both), rel=1e-4)
    assert sum(together) > 1.1 * sum(by_task)  # what is between tasks is left free
    (gradient,) = torch.autograd.grad(terms["distillation"], [setup.net.head.bias])
    assert gradient[[1, 2]].all()
    assert not gradient[[0, 3]].any()
    again = Separated(setup, strength=0.7, temperature=2.0)
    again.load_state_dict(objective.state_dict())
    assert_same(again.state_dict(), objective.state_dict())


@pytest.mark.parametrize("visible", [ONE_HEAD, TASKS], ids=["class", "task"])
def test_classes_to_come_are_no_answer(visible: Tensor) -> None:
    setup = setup_of(visible)
    learner = SsIl(setup)
    test = concatenate([experience(0).train, experience(1).train])
    assert torch.equal(learner.predict(test.x, test.task), setup.net(test.x, test.task).detach())
    learn(setup, learner, 0)
    known = learner.predict(test.x, test.task) > -math.inf
    seen = torch.tensor([True, True, False, False])
    expected = visible[test.task] & seen
    if visible is TASKS:  # the second task has no other
        expected[test.task == 1] = ~seen
    assert torch.equal(known, expected)
    learn(setup, learner, 1)
    assert torch.equal(learner.predict(test.x, test.task), setup.net(test.x, test.task).detach())


def test_any_number_of_exemplars_goes_with_a_batch() -> None:
    """The ratio of a step is that of the two batch sizes, as long as memory holds as many."""
    for size in (2, 6):
        setup = setup_of(batch_size=size)
        learner = SsIl(setup)
        learn(setup, learner, 0)
        learner.begin(experience(1))
        before = setup.cost.forward_passes
        learner.observe(experience(1).train[:12])
        assert setup.cost.forward_passes - before == 2 * (12 + size)  # the net's and the old net's


def test_without_a_memory_it_distils() -> None:
    gaps = []
    for strength in (0.0, 1.0):
        setup = setup_of(buffer="none", lr=0.05)
        learner = SsIl(setup, strength=strength)
        learn(setup, learner, 0)
        x: Exemplars = experience(1).train
        before = setup.net.head(setup.net.features(x.x)).detach()[:, :2].softmax(1)
        learn(setup, learner, 1, steps=200)
        after = setup.net.head(setup.net.features(x.x)).detach()[:, :2].softmax(1)
        gaps.append(float((after - before).abs().mean()))
    assert gaps[1] < gaps[0] / 2


@pytest.mark.parametrize("option", ["strength", "temperature"])
def test_options_are_looked_at(option: str) -> None:
    with pytest.raises(InputError, match=f"ss-il: {option}: found -1"):
        SsIl(setup_of(), **{option: -1.0})


@pytest.mark.parametrize("setting", ["class", "task"])
def test_it_is_neither_replay_nor_fine_tuning(setting: str, runs: Path) -> None:
    small: dict[str, Any] = {
        "scenario": "split-digits",
        "settings": [f"stream.setting={setting}", "data.per_class=60", "training.epochs=5", "optimizer.lr=0.3"],
        "runs": runs,
    }
    finetune = clsim.run(strategy="finetune", **small)
    er = clsim.run(strategy="er", buffer="class-balanced", memory=50, **small)
    record = clsim.run(strategy="ss-il", memory=50, **small)
    assert not record.accuracy.equals(er.accuracy)
    assert (record.metrics["forgetting"] or 0) < (finetune.metrics["forgetting"] or 0)
    if setting == "class":
        assert (record.metrics["forgetting"] or 0) < (er.metrics["forgetting"] or 0) - 0.05
        assert (record.metrics["accuracy"] or 0) > (finetune.metrics["accuracy"] or 0) + 0.3
