"""BiC: a known bias is found again, the validation set is fair and held out, the loss is its equation."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import clsim
from clsim.errors import InputError
from clsim.learners.replay.bic import Bic
from clsim.objectives.bias import Correction, Proportional, fitted
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.training.contract import Setup
from tests.helpers import assert_same, generator
from tests.increments import CPU, ONE_HEAD, TASKS, batch_of, experience, kl_by_hand, learn, setup_of

NEW = torch.tensor([False, False, True, True])
ALL = torch.ones(4, dtype=torch.bool)


def biased(slope: float, shift: float, n: int = 20000) -> tuple[Tensor, Tensor]:
    """Logits of a net that would be calibrated if those of the new classes were slope · o + shift; and labels."""
    right = 2 * torch.randn(n, 4, generator=generator(1))
    y = torch.multinomial(right.softmax(1), 1, generator=generator(2)).flatten()
    return torch.where(NEW, (right - shift) / slope, right), y


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.6, -1.5), (1.7, 0.8)])
def test_a_known_bias_is_found_again(slope: float, shift: float) -> None:
    logits, y = biased(slope, shift)
    found = fitted(logits, y, NEW, ALL, 1e-6)
    assert found.numbers.tolist() == pytest.approx([slope, shift], abs=0.06)
    assert torch.equal(found.classes, NEW)
    corrected = found(logits)
    assert torch.equal(corrected[:, :2], logits[:, :2])
    assert torch.allclose(corrected[:, 2:], found.numbers[0] * logits[:, 2:] + found.numbers[1])


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
def test_the_correction_is_a_minimum(ridge: float) -> None:
    """Its gradient is 0, and the problem convex; it is one too where labels are told without error."""
    noisy, told = biased(0.7, 1.0, 60), torch.randn(60, 4, generator=generator(4))
    for logits, y in (noisy, (told, told.argmax(1))):
        found = fitted(logits, y, NEW, ALL, ridge)
        numbers = found.numbers.double().requires_grad_()
        value = F.cross_entropy(Correction(NEW, numbers)(logits.double()), y)
        value = value + ridge / 2 * ((numbers[0] - 1) ** 2 + numbers[1] ** 2)
        (gradient,) = torch.autograd.grad(value, [numbers])
        assert float(gradient.abs().max()) < 1e-5
        assert found.numbers.isfinite().all()


def test_classes_to_come_take_no_part_in_the_fit() -> None:
    logits, y = biased(0.6, -1.5)
    seen = torch.tensor([True, False, True, True])
    rows = y != 1
    found = fitted(logits[rows], y[rows], NEW, seen, 1e-6)
    far = logits.clone()
    far[:, 1] = 50
    assert_same(fitted(far[rows], y[rows], NEW, seen, 1e-6).numbers, found.numbers)


# the loss


@pytest.mark.parametrize("visible", [ONE_HEAD, TASKS], ids=["class", "task"])
def test_labels_and_old_answers_weigh_as_new_and_old_classes(visible: Tensor) -> None:
    setup = setup_of(visible)
    objective = Proportional(setup, temperature=2.0)
    first, second = experience(0), experience(1)
    objective.begin(first)
    assert objective(setup.net, batch_of(first.train)).keys() == {"new"}
    objective.finish(first)
    before = copy.deepcopy(setup.net)
    objective.correction = Correction(torch.tensor([True, False, False, False]), torch.tensor([2.0, -1.0]))
    with torch.no_grad():
        for parameter in setup.net.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator(4))
    objective.begin(second)
    new, old = second.train[:6], first.train[:4]
    terms = objective(setup.net, batch_of(new, old))
    both = concatenate([new, old])
    labels = F.cross_entropy(setup.net(both.x, both.task), both.y)
    assert torch.allclose(terms["new"] + terms["memory"], labels / 2)
    was = before.head(before.features(both.x)).detach()
    was[:, 0] = 2 * was[:, 0] - 1
    raw = setup.net.head(setup.net.features(both.x)).detach()
    gaps = [kl_by_hand(raw[i], was[i], [0, 1], 2.0) for i in range(10)]
    assert float(terms["distillation"].detach()) == pytest.approx(sum(gaps) / 10 / 2, rel=1e-4)
    again = dataclasses.replace(second, classes=(0, 1, 2, 3))  # nothing is old where all is there again
    objective.begin(again)
    assert objective(setup.net, batch_of(new, old)).keys() == {"new", "memory"}


# the validation set


def split_of(setup: Setup) -> tuple[Bic, Exemplars, Exemplars]:
    learner = Bic(setup, validation=0.25)
    learn(setup, learner, 0)
    memory = setup.memory.exemplars
    assert memory is not None
    learner.begin(experience(1))
    held_out = learner.held_out
    assert held_out is not None
    return learner, memory, held_out


def test_the_validation_set_is_balanced_and_of_memory_and_the_experience_alone() -> None:
    _, memory, held_out = split_of(setup_of(capacity=16))
    assert held_out.y.bincount().tolist() == [2, 2, 2, 2]  # a quarter of 8 exemplars of each old class
    old = held_out.task == 0
    assert set(held_out.index[old].tolist()) < set(memory.index.tolist())
    assert set(held_out.index[~old].tolist()) < set(experience(1).train.index.tolist())
    assert len(set(held_out.index.tolist())) == 8
    _, _, again = split_of(setup_of(capacity=16))
    assert torch.equal(again.index, held_out.index)
    _, few, single = split_of(setup_of(capacity=4))
    assert len(few) == 4
    assert single.y.bincount().tolist() == [1, 1, 1, 1]


def test_what_is_held_out_teaches_nothing() -> None:
    """Its images, new and replayed, become noise: the net takes the same steps. Others' do not leave it alone."""
    reached = []
    for poison in (None, "held out", "others"):
        setup = setup_of(capacity=8, batch_size=8)
        learner, memory, held_out = split_of(setup)
        train = experience(1).train
        for samples in () if poison is None else (train, memory):
            rows = torch.isin(samples.index, held_out.index)
            samples.x[rows if poison == "held out" else ~rows] += 5.0
        setup.memory.load_state_dict({**setup.memory.state_dict(), "columns": memory.columns()}, CPU)
        for _ in range(5):
            learner.observe(train)
        reached.append({name: value.clone() for name, value in setup.net.state_dict().items()})
    torch.testing.assert_close(reached[1], reached[0], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(reached[2]["head.weight"], reached[0]["head.weight"], atol=1e-3)


# as a learner


def test_predictions_are_corrected_after_the_experience() -> None:
    setup = setup_of(capacity=16, batch_size=4)
    learner = Bic(setup, validation=0.25)
    learn(setup, learner, 0)
    x = experience(0).train
    assert torch.equal(learner.predict(x.x, x.task), setup.net(x.x, x.task).detach())  # nothing is old yet
    learn(setup, learner, 1)
    raw, predicted = setup.net(x.x, x.task).detach(), learner.predict(x.x, x.task)
    assert torch.equal(predicted, learner.correction(raw))
    assert torch.equal(predicted[:, :2], raw[:, :2])
    assert not torch.allclose(predicted[:, 2:], raw[:, 2:])
    again = Bic(setup_of(capacity=16), validation=0.25)
    again.load_state_dict(learner.state_dict())
    assert torch.equal(again.predict(x.x, x.task), predicted)
    learner.begin(experience(0))
    assert torch.equal(learner.predict(x.x, x.task), raw)


@pytest.mark.parametrize(
    ("visible", "options", "memory"),
    [(TASKS, {}, {}), (ONE_HEAD, {"validation": 0.0}, {}), (ONE_HEAD, {}, {"buffer": "none"})],
    ids=["task", "no share", "no memory"],
)
def test_where_nothing_is_compared_nothing_is_held_out(visible: Tensor, options: Any, memory: Any) -> None:
    setup = setup_of(visible, **memory)
    learner = Bic(setup, **options)
    learn(setup, learner, 0)
    learner.begin(experience(1))
    assert learner.held_out is None
    learn(setup, learner, 1)
    assert not learner.correction.classes.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "bic: temperature: found 0"),
        ({"validation": 1.0}, "bic: validation: found 1, allowed: a share from 0 to below 1"),
        ({"ridge": -1.0}, "bic: ridge: found -1"),
    ],
)
def test_options_are_looked_at(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Bic(setup_of(), **options)


def test_it_takes_bias_away_and_is_neither_replay_nor_fine_tuning(runs: Path) -> None:
    settings = ["stream.setting=class", "data.per_class=60", "training.epochs=2", "memory.batch_size=3"]
    small: dict[str, Any] = {"scenario": "split-digits", "runs": runs}
    finetune = clsim.run(strategy="finetune", settings=settings, **small)
    er = clsim.run(strategy="er", buffer="herding", memory=100, settings=settings, **small)
    bic = clsim.run(strategy="bic", memory=100, settings=settings, **small)
    as_it_is = clsim.run(strategy="bic", memory=100, settings=[*settings, "learner.options.validation=0.0"], **small)
    forgetting = [run.metrics["forgetting"] or 0 for run in (finetune, er, as_it_is, bic)]
    assert forgetting[3] < forgetting[2] - 0.05
    assert forgetting[3] < forgetting[1]
    assert forgetting[3] < forgetting[0] - 0.3
    assert (bic.metrics["accuracy"] or 0) > (finetune.metrics["accuracy"] or 0) + 0.3
