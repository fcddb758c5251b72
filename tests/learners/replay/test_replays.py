"""DER, DER++, ER-ACE, R-FM, R-PM, MIR, GSS: what they replay and how; logits live in memory with their samples."""

from __future__ import annotations

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
from clsim.learners.replay.der import DerPlusPlus
from clsim.learners.sgd import Sgd
from clsim.objectives.asymmetric import AsymmetricCrossEntropy
from clsim.objectives.dark_experience import Dark
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.spec.resolve import resolve
from clsim.streams.stream import Experience
from tests.helpers import assert_same, generator, vectors
from tests.increments import CPU, ONE_HEAD, TASKS, Increments, batch_of, hidden_layers

LINEAR = Increments((3,), ONE_HEAD, hidden_layers(), mean=(0.0,), std=(1.0,), options={"buffer": "reservoir"})
setup_of = LINEAR.setup


def samples(y: list[int], *, task: int = 0, seed: int = 0) -> Exemplars:
    n = len(y)
    made = vectors(torch.randn(n, 3, generator=generator(seed)), torch.tensor(y), first=100 * seed)
    return dataclasses.replace(made, task=torch.full((n,), task))


def experience(train: Exemplars, position: int = 0) -> Experience:
    return Experience(position, tuple(sorted(set(train.y.tolist()))), train)


# soft labels in memory


def noted(y: list[int], seed: int) -> Exemplars:
    """Samples whose stored logits say which samples they are."""
    made = samples(y, seed=seed)
    return dataclasses.replace(made, soft=made.index[:, None] + torch.arange(4) / 8)


def own_logits(exemplars: Exemplars) -> bool:
    assert exemplars.soft is not None
    return torch.equal(exemplars.soft, exemplars.index[:, None] + torch.arange(4) / 8)


@pytest.mark.parametrize("buffer", ["reservoir", "random", "class-balanced", "ring", "herding", "gss-greedy"])
@pytest.mark.parametrize("update", ["batch", "experience"])
def test_stored_logits_stay_with_their_samples(buffer: str, update: str) -> None:
    """Through batches that overwrite freed rows, selection, the end of an experience, and a checkpoint."""
    setup = setup_of(buffer=buffer, capacity=12, update=update)
    memory = setup.memory
    for round_ in range(6):
        new = noted([0, 1, 2, 3, 0, 1, 2, 3], seed=round_ + 1)
        memory.after_batch(new, 4, setup.pool)
        memory.after_experience(new, 4, setup.pool)
        assert memory.exemplars is not None
        assert own_logits(memory.exemplars)
        drawn = memory.sample(new, setup.pool).exemplars
        assert drawn is not None
        assert own_logits(drawn)
    again = setup_of(buffer=buffer, capacity=12, update=update).memory
    again.load_state_dict(memory.state_dict(), CPU)
    assert_same(again.state_dict(), memory.state_dict())
    new = noted([3, 2, 1, 0], seed=50)
    again.after_batch(new, 4, setup.pool)
    assert again.exemplars is not None
    assert own_logits(again.exemplars)


def test_samples_without_logits_get_none_of_others() -> None:
    """Neither those of the rows that they overwrite nor, in a joint batch, a lost column."""
    memory = setup_of(capacity=6, update="batch").memory
    setup = setup_of(capacity=6, update="batch")
    for seed in range(1, 9):
        new = noted([0, 1, 2, 3], seed) if seed % 2 else samples([0, 1, 2, 3], seed=seed)
        memory.after_batch(new, 4, setup.pool)
        kept = memory.exemplars
        assert kept is not None
        assert kept.soft is not None
        stored = kept.index // 100 % 2 == 1
        assert own_logits(kept[stored])
        assert kept.soft[~stored].isnan().all()
    late = setup_of(capacity=6, update="batch").memory  # a memory that had none at first
    late.after_batch(samples([0, 1], seed=2), 4, setup.pool)
    late.after_batch(noted([2, 3], 3), 4, setup.pool)
    assert late.exemplars is not None
    assert late.exemplars.soft is not None
    assert late.exemplars.soft.isnan().all(1).sum() == 2

    a, b = noted([0], 1), samples([1, 2], seed=2)
    for joined, missing in ((concatenate([a, b]), [False, True, True]), (concatenate([b, a]), [True, True, False])):
        assert joined.soft is not None
        assert joined.soft.isnan().all(1).tolist() == missing
    assert concatenate([b, b]).soft is None


# DER


@pytest.mark.parametrize("visible", [ONE_HEAD, TASKS], ids=["class", "task"])
def test_dark_loss_is_nothing_at_the_stored_logits_and_a_mean_square_elsewhere(visible: Tensor) -> None:
    setup = setup_of(visible)
    net, objective = setup.net, Dark(setup, alpha=0.7)
    new, old = samples([2, 3], task=1, seed=1), samples([0, 1, 0], task=0, seed=2)
    both = concatenate([new, old])
    logits = net(both.x, both.task)[2:].detach()  # of the same product, so that even round-off is the same
    stored = logits.masked_fill(~visible[old.task], 1e6)  # what a task does not have is never read
    terms = objective(net, batch_of(new, dataclasses.replace(old, soft=stored)))
    assert terms["logits"] == 0
    (gradient,) = torch.autograd.grad(terms["logits"], [net.head.weight])
    assert not gradient.any()
    assert torch.allclose(terms["new"], F.cross_entropy(net(new.x, new.task), new.y))

    by = torch.tensor([[0.5], [-1.0], [2.0]])
    terms = objective(net, batch_of(new, dataclasses.replace(old, soft=stored + by)))
    assert terms["logits"].item() == pytest.approx(0.7 * (0.25 + 1 + 4) / 3, rel=1e-5)
    terms["logits"].backward()
    assert net.head.weight.grad is not None
    assert net.head.weight.grad.isfinite().all()
    assert net.head.weight.grad[:2].any()
    assert bool(net.head.weight.grad[2:].any()) == bool(visible.all())


def test_der_stores_the_logits_of_the_step_itself() -> None:
    setup = setup_of(TASKS, update="batch")
    learner = Sgd(setup, objective=Dark(setup, alpha=0.5))
    train = samples([0, 1, 1, 0], seed=1)
    learner.begin(experience(train))
    before = setup.net(train.x, train.task).detach()
    learner.observe(train[:4])
    soft = learner.remember(train[:4]).soft
    assert soft is not None
    assert torch.equal(soft[:, :2], before[:, :2])
    assert not soft[:, 2:].any()
    assert not torch.equal(setup.net(train.x, train.task).detach()[:, :2], before[:, :2])
    assert learner.remember(train) is train  # memory chooses no more at the experience's end


def test_der_stores_the_logits_of_the_experiences_end_where_memory_chooses_then() -> None:
    setup = setup_of(TASKS, buffer="random", update="experience")
    learner = Sgd(setup, objective=Dark(setup, alpha=0.5))
    train = samples([0, 1, 1, 0], seed=1)
    learner.begin(experience(train))
    batch = train[:2]
    learner.observe(batch)
    assert learner.remember(batch) is batch
    soft = learner.remember(train).soft
    assert soft is not None
    assert torch.equal(soft[:, :2], setup.net(train.x, train.task).detach()[:, :2])


def test_der_plus_plus_is_its_equation() -> None:
    """Two batches drawn one after the other; the first by logits, the second by labels."""
    setup, twin = (setup_of(capacity=8, batch_size=3, update="batch") for _ in range(2))
    for s in (setup, twin):
        first = samples([0, 1] * 4, seed=1)
        soft = torch.randn(8, 4, generator=generator(5))
        s.memory.after_batch(dataclasses.replace(first, soft=soft), 2, s.pool)
    new = samples([2, 3, 2], seed=2)
    learner = DerPlusPlus(setup, alpha=0.3, beta=0.6)
    learner.begin(experience(new, 1))
    terms = learner.observe(new)
    one, other = twin.memory.sample(new, twin.pool).exemplars, twin.memory.sample(new, twin.pool).exemplars
    assert one is not None
    assert other is not None
    assert one.soft is not None
    assert one.index.tolist() != other.index.tolist()
    net = twin.net
    expected = {
        "new": F.cross_entropy(net(new.x, new.task), new.y),
        "logits": 0.3 * F.mse_loss(net(one.x, one.task), one.soft),
        "memory": 0.6 * F.cross_entropy(net(other.x, other.task), other.y),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(terms[name], value, atol=1e-6), name
    sum(expected.values()).backward()  # type: ignore[union-attr]
    weight = net.head.weight
    assert weight.grad is not None
    assert torch.allclose(setup.net.head.weight, weight - 0.1 * weight.grad, atol=1e-6)


def test_weights_of_exemplars_count() -> None:
    setup = setup_of()
    objective = Dark(setup, alpha=1.0, beta=1.0)
    new, old = samples([0], seed=1), samples([1, 2], seed=2)
    logits = setup.net(old.x, old.task).detach()
    noted = dataclasses.replace(old, soft=logits + torch.tensor([[1.0], [3.0]]), weight=torch.tensor([1.5, 0.5]))
    assert objective(setup.net, batch_of(new, noted))["logits"].item() == pytest.approx((1.5 + 4.5) / 2, rel=1e-5)
    labels = objective(setup.net, batch_of(new, dataclasses.replace(noted, soft=None)))["memory"]
    losses = F.cross_entropy(logits, old.y, reduction="none")
    assert torch.allclose(labels, (1.5 * losses[0] + 0.5 * losses[1]) / 2)


@pytest.mark.parametrize("option", ["alpha", "beta"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_weight_of_a_loss_is_a_number_from_0(option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"der: {option}: found {value}"):
        DerPlusPlus(setup_of(), **{option: value})


# ER-ACE


def by_hand(logits: Tensor, y: Tensor, classes: list[int]) -> float:
    """Cross-entropy with a softmax over some classes, sample by sample."""
    total = 0.0
    for row, label in zip(logits.tolist(), y.tolist(), strict=True):
        total += math.log(sum(math.exp(row[c]) for c in classes)) - row[label]
    return total / len(y)


def test_ace_masks() -> None:
    """Seen so far: 0 and 1; now comes 2; 3 has never been seen. The experience also holds 3."""
    setup = setup_of()
    net = setup.net
    first, new, old = samples([0, 1], seed=1), samples([2, 2], seed=2), samples([1, 0, 1], seed=3)
    for classes, now in (("batch", [2]), ("experience", [2, 3])):
        objective = AsymmetricCrossEntropy(setup, classes=classes)  # type: ignore[arg-type]
        objective.begin(experience(first))
        assert objective(net, batch_of(first))["new"].item() == pytest.approx(
            by_hand(net(first.x, first.task), first.y, [0, 1]), rel=1e-5
        )
        objective.begin(Experience(1, (2, 3), new))
        terms = objective(net, batch_of(new, old))
        assert terms["new"].item() == pytest.approx(by_hand(net(new.x, new.task), new.y, now), abs=1e-6)
        seen = [0, 1, *now]
        assert terms["memory"].item() == pytest.approx(by_hand(net(old.x, old.task), old.y, seen), rel=1e-5)
        (gradient,) = torch.autograd.grad(terms["new"], [net.head.bias], retain_graph=True)
        assert not gradient[:2].any()  # the new samples leave the old classes' logits alone
        (gradient,) = torch.autograd.grad(terms["memory"], [net.head.bias])
        assert gradient[seen].all()
        assert bool(gradient[3]) == (3 in seen)


def test_ace_under_a_mask_and_after_loading() -> None:
    setup = setup_of(TASKS)
    objective = AsymmetricCrossEntropy(setup)
    first = samples([0, 1], seed=1)
    objective.begin(experience(first))
    objective(setup.net, batch_of(first))
    other = AsymmetricCrossEntropy(setup)
    other.load_state_dict(objective.state_dict())
    new, old = samples([2, 3], task=1, seed=2), samples([1, 1], seed=3)
    for o in (objective, other):
        o.begin(experience(new, 1))
        terms = o(setup.net, batch_of(new, old))
        assert terms["new"].item() == pytest.approx(by_hand(setup.net(new.x, new.task), new.y, [2, 3]), rel=1e-5)
        assert terms["memory"].item() == pytest.approx(by_hand(setup.net(old.x, old.task), old.y, [0, 1]), rel=1e-5)
    with pytest.raises(InputError, match="er-ace: classes: found 'task', allowed: all, seen, experience, batch"):
        AsymmetricCrossEntropy(setup, classes="task")  # type: ignore[arg-type]


# as strategies


def sizes(record: Any) -> list[int]:
    image = 64  # bytes of a digit
    return [cost["memory_bytes"] // image for cost in record.data["cost"]]


def test_full_memory_is_full_and_partial_memory_grows(runs: Path) -> None:
    small = {"scenario": "split-digits", "settings": ["data.per_class=30"], "runs": runs}
    assert sizes(clsim.run(strategy="r-fm", memory=40, **small)) == [40] * 5  # type: ignore[arg-type]
    assert sizes(clsim.run(strategy="r-pm", memory=40, **small)) == [8, 16, 24, 32, 40]  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["er-ace", "der", "der++", "mir", "gss", "r-fm", "r-pm"])
def test_each_differs_from_fine_tuning_and_from_er_and_forgets_less_than_the_first(strategy: str, runs: Path) -> None:
    small: dict[str, Any] = {
        "scenario": "split-digits",
        "settings": ["stream.setting=class", "data.per_class=60", "optimizer.lr=0.05", "training.epochs=2"],
        "runs": runs,
    }
    finetune, er = clsim.run(strategy="finetune", **small), clsim.run(strategy="er", memory=100, **small)
    if strategy == "der":  # logits of so few steps are small: they hold the net only when they weigh more
        small["settings"].append("learner.options.alpha=1.0")
    record = clsim.run(strategy=strategy, memory=20 if strategy == "r-pm" else 100, **small)
    assert not record.accuracy.equals(er.accuracy)
    assert (record.metrics["forgetting"] or 0) < (finetune.metrics["forgetting"] or 0) - 0.2
    assert (record.metrics["accuracy"] or 0) > (finetune.metrics["accuracy"] or 0) + 0.2


def test_mir_and_gss_are_what_their_names_say() -> None:
    mir, gss = (resolve("split-mnist", name).memory for name in ("mir", "gss"))
    assert (mir.buffer, mir.retrieval, mir.candidates, mir.update) == ("reservoir", "mir", 50, "batch")
    assert (gss.buffer, gss.retrieval, gss.update) == ("gss-greedy", "random", "batch")


@pytest.mark.parametrize("buffer", ["kcenter", "herding", "class-balanced"])
@pytest.mark.parametrize("strategy", ["der", "der++", "er-ace", "gem", "a-gem"])
def test_any_buffer_will_do(strategy: str, buffer: str, runs: Path) -> None:
    settings = ["data.per_class=20"]
    record = clsim.run("split-digits", strategy, buffer=buffer, memory=20, settings=settings, runs=runs)
    assert record.data["finished"]
    assert not record.data["diverged"]
    if strategy.startswith("der"):  # 10 float32 logits beside each digit
        assert record.data["cost"][-1]["memory_bytes"] == 20 * (64 + 40)
