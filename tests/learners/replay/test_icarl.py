"""iCaRL: the nearest mean of exemplars, distillation from the net before, and Avalanche's own beside it."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clsim
from clsim.compat import import_torchvision
from clsim.errors import InputError
from clsim.learners.replay.icarl import Icarl
from clsim.learners.sgd import Sgd
from clsim.objectives.representation import Representation
from clsim.objectives.teacher import Teacher, divergence
from clsim.pool.exemplars import concatenate
from clsim.training.neighbours import class_means, nearness
from tests.helpers import assert_same, generator
from tests.increments import ONE_HEAD, TASKS, batch_of, experience, into_the_second, kl_by_hand, learn, setup_of


def length(values: list[float]) -> float:
    return math.sqrt(sum(v * v for v in values))


def nearest_by_hand(features: Tensor, exemplars: Tensor, y: list[int], allowed: list[int]) -> tuple[int, float]:
    """The nearest class's label and squared distance, number by number."""
    unit = [[v / length(row) for v in row] for row in exemplars.tolist()]
    x = [v / length(features.tolist()) for v in features.tolist()]
    distances = {}
    for label in sorted(set(y) & set(allowed)):
        rows = [row for row, of in zip(unit, y, strict=True) if of == label]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        distances[label] = sum((a - m / length(mean)) ** 2 for a, m in zip(x, mean, strict=True))
    best = min(distances, key=distances.__getitem__)
    return best, distances[best]


@pytest.mark.parametrize("visible", [ONE_HEAD, TASKS], ids=["class", "task"])
def test_predictions_are_the_nearest_mean_of_exemplars(visible: Tensor) -> None:
    setup = setup_of(visible, capacity=10)
    learner = Icarl(setup)
    learn(setup, learner, 0, 1)
    memory = setup.memory.exemplars
    assert memory is not None
    test = concatenate([experience(0).train, experience(1).train])
    scores = learner.predict(test.x, test.task)
    assert torch.equal(scores > -math.inf, visible[test.task])
    features, kept = setup.net.features(test.x).detach(), setup.net.features(memory.x).detach()
    for i in range(len(test)):
        allowed = visible[test.task[i]].nonzero().flatten().tolist()
        label, distance = nearest_by_hand(features[i], kept, memory.y.tolist(), allowed)
        assert int(scores[i].argmax()) == label
        assert float(scores[i, label]) == pytest.approx(-distance, abs=1e-5)
    with torch.no_grad():
        setup.net.head.weight.zero_()
    assert torch.equal(learner.predict(test.x, test.task), scores)  # it is no head that decides


def test_a_class_without_exemplars_has_no_mean() -> None:
    features = torch.randn(5, 3, generator=generator())
    means = class_means(features, torch.tensor([0, 2, 2, 0, -1]), 4)
    assert means.isnan().any(1).tolist() == [False, True, False, True]
    assert torch.allclose(means[[0, 2]].norm(dim=1), torch.ones(2))
    assert torch.allclose(nearness(means[[0]], means[[0]]), torch.zeros(1, 1), atol=1e-6)


def test_logits_decide_while_there_are_no_means() -> None:
    """Without a memory, within an experience, and for a task that memory knows nothing of."""
    new = experience(1).train
    for visible in (ONE_HEAD, TASKS):
        bare = setup_of(visible, buffer="none")
        learner = Icarl(bare)
        learn(bare, learner, 0, 1)
        assert torch.equal(learner.predict(new.x, new.task), bare.net(new.x, new.task).detach())
        setup = setup_of(visible)
        learner = Icarl(setup)
        learn(setup, learner, 0)
        scores = learner.predict(new.x, new.task)
        if visible is TASKS:
            assert torch.equal(scores, setup.net(new.x, new.task).detach())
        else:
            assert torch.equal(scores > -math.inf, torch.tensor([True, True, False, False]).expand(len(new), 4))
        learner.begin(experience(1))
        assert torch.equal(learner.predict(new.x, new.task), setup.net(new.x, new.task).detach())


# the loss


@pytest.mark.parametrize("visible", [ONE_HEAD, TASKS], ids=["class", "task"])
def test_divergence_is_its_definition_and_leaves_other_columns_alone(visible: Tensor) -> None:
    logits = torch.randn(5, 4, generator=generator(1)).requires_grad_()
    target = torch.randn(5, 4, generator=generator(2))
    columns = visible[torch.tensor([0, 1, 0, 1, 1])] & torch.tensor([True, False, True, True])
    columns[4] = False
    for temperature in (1.0, 2.0):
        found = divergence(logits, target, columns, temperature)
        for i in range(4):
            chosen = columns[i].nonzero().flatten().tolist()
            assert float(found[i].detach()) == pytest.approx(
                kl_by_hand(logits[i].detach(), target[i], chosen, temperature), abs=1e-6
            )
        assert found[4] == 0
        (gradient,) = torch.autograd.grad(found.sum(), [logits])
        assert gradient.isfinite().all()
        assert not gradient[~columns].any()
    (gradient,) = torch.autograd.grad(
        divergence(target.requires_grad_(), target.detach(), columns, 2.0).sum(), [target]
    )
    assert float(gradient.abs().max()) < 1e-7


@pytest.mark.parametrize("visible", [ONE_HEAD, TASKS], ids=["class", "task"])
def test_the_surveys_loss(visible: Tensor) -> None:
    setup = setup_of(visible, lr=0.3)
    objective = Representation(setup, strength=3.0, temperature=2.0, loss="survey")
    first, second = experience(0), experience(1)
    objective.begin(first)
    assert objective(setup.net, batch_of(first.train)).keys() == {"new"}
    objective.finish(first)
    old = setup.net
    before = copy.deepcopy(old)
    objective.begin(second)
    new, replayed = second.train[:6], first.train[:4]
    assert objective(setup.net, batch_of(new)).keys() == {"new"}  # nothing to distil from but exemplars
    assert objective(setup.net, batch_of(new, replayed))["distillation"] == 0
    with torch.no_grad():
        for parameter in setup.net.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator(4))
    terms = objective(setup.net, batch_of(new, replayed))
    both = concatenate([new, replayed])
    plain = F.cross_entropy(setup.net(both.x, both.task), both.y)
    assert torch.allclose(terms["new"] + terms["memory"], plain)
    raw, was = setup.net.head(setup.net.features(replayed.x)), before.head(before.features(replayed.x))
    gaps = [kl_by_hand(raw[i].detach(), was[i].detach(), [0, 1], 2.0) for i in range(4)]
    assert float(terms["distillation"].detach()) == pytest.approx(3.0 * 4 * sum(gaps) / 4, rel=1e-4)
    (gradient,) = torch.autograd.grad(terms["distillation"], [setup.net.head.weight])
    assert gradient[:2].any()
    assert not gradient[2:].any()


def test_the_papers_loss_under_a_mask() -> None:
    """A new sample has its own task's columns, an exemplar the old net's answers on its own."""
    setup = setup_of(TASKS)
    objective = Representation(setup, strength=1.0, temperature=2.0, loss="original")
    first, second = into_the_second(objective)
    new, old = second.train[:3], first.train[:2]
    terms = objective(setup.net, batch_of(new, old))
    raw = setup.net.head(setup.net.features(new.x))
    wanted = F.one_hot(new.y, 4)[:, 2:].float()
    labels = F.binary_cross_entropy_with_logits(raw[:, 2:], wanted)
    assert torch.allclose(terms["new"], labels * 3 / 5)
    assert terms["memory"] == 0
    was = setup.net.head(setup.net.features(old.x))[:, :2]
    answers = F.binary_cross_entropy_with_logits(was, was.detach().sigmoid())
    assert torch.allclose(terms["distillation"], answers * 2 / 5)


def test_the_teacher_is_frozen_and_survives_a_checkpoint() -> None:
    setup = setup_of()
    teacher, again = Teacher(setup), Teacher(setup)
    with pytest.raises(RuntimeError, match="no copy"):
        teacher.logits(experience(0).train.x)
    teacher.take((0, 1))
    x = experience(0).train.x
    before = teacher.logits(x)
    with torch.no_grad():
        setup.net.head.weight += 1
    assert torch.equal(teacher.logits(x), before)
    assert not before.requires_grad
    again.load_state_dict(teacher.state_dict())
    assert torch.equal(again.logits(x), before)
    assert again.classes.tolist() == [True, True, False, False]
    empty = Teacher(setup)
    empty.load_state_dict(Teacher(setup).state_dict())
    assert not empty.ready


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "icarl: strength: found -1"),
        ({"temperature": 0.0}, "icarl: temperature: found 0"),
        ({"loss": "originals"}, "icarl: loss: found 'originals', allowed: survey, original"),
    ],
)
def test_options_are_looked_at(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Icarl(setup_of(), **options)


# Avalanche's


def test_herding_loss_and_means_are_avalanches() -> None:
    """Its whole ICaRL beside ours: exemplars, weights, means and predictions after each of two experiences.

    The loss is the paper's, ``original`` with strength 1; the survey's has no counterpart there. Definitions
    differ in the first experience: its binary cross-entropy also pushes down the columns of classes to come, which
    here count when they are seen. So ours begins at its weights. When the quota of a class shrinks, it keeps the first
    of the exemplars and our buffer herds anew among them: so a fixed number a class. Its herding lets a sample that is
    picked already be picked again, which counts in the sum and adds none; ours does not: so few of many. It also
    averages with flipped images, which vectors are not.
    """
    import_torchvision()  # before Avalanche, which imports it too
    from avalanche.benchmarks import nc_benchmark
    from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as make_dataset
    from avalanche.training.supervised import ICaRL
    from avalanche.training.supervised.icarl import _ICaRLPlugin

    setup = setup_of(capacity=4, per="class", batch_size=100)
    steps = 15
    given = [experience(0, 200), experience(1, 200)]
    both = concatenate([g.train for g in given])
    dataset = make_dataset(both.x, both.y, task_labels=[0] * len(both))
    benchmark = nc_benchmark(dataset, dataset, 2, False, fixed_class_order=[0, 1, 2, 3])
    net = copy.deepcopy(setup.net)
    theirs = ICaRL(
        feature_extractor=net.body,
        classifier=net.head,
        optimizer=torch.optim.SGD(net.parameters(), 0.1),
        memory_size=4,
        buffer_transform=None,
        fixed_memory=False,
        train_mb_size=300,
        train_epochs=steps,
        eval_mb_size=100,
        evaluator=None,
    )
    plugin = next(p for p in theirs.plugins if isinstance(p, _ICaRLPlugin))
    ours = Icarl(setup, strength=1.0, loss="original")
    for position, part in enumerate(benchmark.train_stream):
        theirs.train(part, num_workers=0)
        ours.begin(given[position])
        if position:
            for _ in range(steps):
                ours.observe(given[position].train)
            for name, value in net.state_dict().items():
                torch.testing.assert_close(setup.net.state_dict()[name], value, rtol=1e-4, atol=1e-5)
        else:
            setup.net.load_state_dict(net.state_dict())
        setup.memory.after_experience(given[position].train, 2 * position + 2, setup.pool)
        ours.finish(given[position])
        memory = setup.memory.exemplars
        assert memory is not None
        for label, kept in zip(plugin.y_memory, plugin.x_memory, strict=True):
            mine = memory.x[memory.y == label[0]]
            assert sorted(mine.tolist()) == sorted(kept.tolist())
        assert ours.means is not None
        for label in range(2 * position + 2):
            torch.testing.assert_close(ours.means[label], plugin.class_means[label], rtol=1e-4, atol=1e-5)
        theirs.model.eval()
        seen = both[both.y < 2 * position + 2]
        mine, other = ours.predict(seen.x, seen.task), theirs.model(seen.x)[:, : 2 * position + 2]
        torch.testing.assert_close(mine[:, : 2 * position + 2], -other.square(), rtol=1e-3, atol=1e-4)
        theirs.model.train()


# as a learner


def test_it_is_neither_replay_nor_fine_tuning(runs: Path) -> None:
    small: dict[str, Any] = {
        "scenario": "split-digits",
        "settings": ["stream.setting=class", "data.per_class=60", "training.epochs=2"],
        "runs": runs,
    }
    finetune = clsim.run(strategy="finetune", **small)
    er = clsim.run(strategy="er", buffer="herding", memory=50, **small)
    record = clsim.run(strategy="icarl", memory=50, **small)
    assert not record.accuracy.equals(er.accuracy)
    assert (record.metrics["accuracy"] or 0) > (finetune.metrics["accuracy"] or 0) + 0.4
    assert (record.metrics["forgetting"] or 0) < (finetune.metrics["forgetting"] or 0) - 0.3


def test_distillation_keeps_the_old_answers() -> None:
    """The same net, memory and batches, once without and once with a teacher."""
    gaps = []
    for strength in (0.0, 1.0):
        setup = setup_of(capacity=20, batch_size=100)
        learner = Icarl(setup, strength=strength)
        learn(setup, learner, 0)
        memory, before = setup.memory.exemplars, copy.deepcopy(setup.net)
        assert memory is not None
        learn(setup, learner, 1, steps=40)
        old = before.head(before.features(memory.x))
        now = setup.net.head(setup.net.features(memory.x))
        gaps.append(float(divergence(now, old, torch.tensor([True, True, False, False]), 2.0).mean().detach()))
    assert gaps[1] < 0.3 * gaps[0]


def test_a_checkpoint_holds_the_means() -> None:
    setup = setup_of()
    learner = Icarl(setup)
    learn(setup, learner, 0, 1)
    again = Icarl(setup_of())
    again.load_state_dict(learner.state_dict())
    assert_same(again.state_dict(), learner.state_dict())
    new = experience(1).train
    assert torch.equal(again.predict(new.x, new.task), learner.predict(new.x, new.task))


def test_without_distillation_the_features_are_those_of_replay() -> None:
    setup, twin = setup_of(), setup_of()
    learn(setup, Icarl(setup, strength=0.0), 0, 1)
    learn(twin, Sgd(twin), 0, 1)
    assert isinstance(setup.net, nn.Module)
    torch.testing.assert_close(setup.net.state_dict(), twin.net.state_dict())
