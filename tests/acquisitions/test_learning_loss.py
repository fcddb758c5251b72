"""Learning loss: the pairs by a slow loop, the order of the losses on a toy set, where its gradient goes, its state."""

from __future__ import annotations

import dataclasses
import random
from functools import partial
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.acquisitions.acquisition import Acquisition, Step
from clsim.acquisitions.learning_loss import LearningLoss, pair_losses
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.models import nets
from clsim.models.resnet import slim_resnet18
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool
from clsim.streams.stream import Experience
from clsim.training.checkpoint import copied, restore, snapshot
from clsim.training.contract import Setup
from tests.helpers import assert_same, generator
from tests.increments import CPU, Increments, hidden_layers

ONE = torch.ones(1, 4, dtype=torch.bool)
VECTORS = Increments(body=hidden_layers(32, 32), options={"buffer": "random", "capacity": 40, "batch_size": 16})


def slow(predicted: list[float], losses: list[float], margin: float) -> tuple[float, int]:
    """The sum over pairs and their number: every pair of rows is looked at, and those that face each other count."""
    n, total, pairs = len(losses), 0.0, 0
    for i in range(n):
        for j in range(i + 1, n):
            if i + j == n - 1:
                indicator = 1 if losses[i] > losses[j] else -1
                total += max(0.0, -indicator * (predicted[i] - predicted[j]) + margin)
                pairs += 1
    return total, pairs


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 9])
@pytest.mark.parametrize("margin", [0.0, 1.0, 2.5])
def test_pairs_are_those_of_a_slow_double_loop(n: int, margin: float) -> None:
    draw = random.Random(n)
    predicted, losses = [draw.gauss(0, 1) for _ in range(n)], [float(draw.randrange(3)) for _ in range(n)]  # ties, too
    hinges, pairs = pair_losses(torch.tensor(predicted), torch.tensor(losses), torch.ones(n, dtype=torch.bool), margin)
    total, number = slow(predicted, losses, margin)
    assert float(hinges.sum()) == pytest.approx(total, abs=1e-5)
    assert int(pairs.sum()) == number == n // 2


def step_of(acquisition: LearningLoss, net: nets.Net, n: int, new: int, **changed: Any) -> Step:
    x = torch.randn(n, 6, generator=generator(4))
    with net.tapped() as passes:
        net.features(x)
    y, losses = torch.zeros(n, dtype=torch.int64), torch.rand(n, generator=generator(5))
    none = torch.empty(0, dtype=torch.int64)
    step = Step(x, y, new, None, passes[0].maps, passes[0].features, losses, 0.0, net, torch.zeros_like(y), (), none)
    return dataclasses.replace(step, **changed)


def made(rng: int = 0, **options: float) -> tuple[nets.Net, LearningLoss]:
    net = nets.build(partial(nets.mlp, hidden=(8, 8)), (6,), ONE, 0, CPU)
    return net, LearningLoss(net, generator(rng), **options)  # type: ignore[arg-type]


def test_new_samples_are_paired_among_themselves_and_so_are_exemplars() -> None:
    """In a batch of as many new samples as exemplars, i with n − 1 − i would pair each new one with an exemplar."""
    net, acquisition = made(strength=0.5, margin=2.0)
    step = step_of(acquisition, net, n=11, new=6)
    predicted = acquisition.module(step.maps).detach()
    parts = [slow(predicted[r].tolist(), step.losses[r].tolist(), 2.0) for r in (slice(6), slice(6, None))]
    expected = 0.5 * sum(total for total, _ in parts) / (3 + 2)
    assert float(acquisition.terms(step)["learning-loss"].detach()) == pytest.approx(expected, rel=1e-5)
    whole = dataclasses.replace(step, new=11)
    assert float(acquisition.terms(whole)["learning-loss"].detach()) != pytest.approx(expected, rel=1e-3)


def test_samples_of_weight_0_and_without_a_label_make_no_pairs() -> None:
    """Even where their loss is not a number; other weights do not count."""
    net, acquisition = made()
    step = step_of(acquisition, net, n=8, new=8)
    predicted, losses = acquisition.module(step.maps).tolist(), step.losses.tolist()
    weight, y = torch.tensor([9.0, 1, 1, 1, 1, 1, 0, 1]), torch.tensor([0, 0, -1, 0, 0, 0, 0, 0])
    step = dataclasses.replace(step, weight=weight, y=y, losses=step.losses.where(y >= 0, torch.nan))
    term = acquisition.terms(step)["learning-loss"]
    kept = [0, 3, 4, 7]  # 1 faces 6, which has no weight; 2 faces 5, and has no label
    total, pairs = slow([predicted[i] for i in kept], [losses[i] for i in kept], 1.0)
    assert pairs == 2
    assert float(term.detach()) == pytest.approx(total / 2, rel=1e-5)
    term.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.body.parameters())
    alone = acquisition.terms(dataclasses.replace(step, weight=torch.zeros(8)))["learning-loss"]
    assert float(alone.detach()) == 0.0


def test_the_gradient_reaches_the_net_until_the_stop_and_the_losses_never() -> None:
    for progress, reaches in ((0.0, True), (0.59, True), (0.6, False), (0.99, False)):
        net, acquisition = made()
        losses = torch.rand(8, generator=generator(6))
        step = step_of(acquisition, net, n=8, new=8, losses=losses, progress=progress)
        acquisition.terms(step)["learning-loss"].backward()
        found = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.body.parameters()]
        assert all(found) if reaches else not any(found), progress
        assert net.head.weight.grad is None
        weights = [p for p in acquisition.module.parameters() if p.ndim > 1]  # the last bias is in no difference
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights)


# on a toy set


def toy(n: int, seed: int) -> Exemplars:
    """Two classes by the first coordinate; the larger the second one is, the more labels are wrong."""
    rng = generator(seed)
    x = torch.randn(n, 6, generator=rng)
    y = (x[:, 0] > 0).long()
    wrong = torch.rand(n, generator=rng) < torch.sigmoid(4 * x[:, 1]) / 2
    y = torch.where(wrong, 1 - y, y)
    return Exemplars(x, y, torch.zeros(n, dtype=torch.int64), torch.rand(n, generator=rng), torch.arange(n))


TRAIN, TEST = toy(1000, 1), toy(1000, 2)


class Flipped(LearningLoss):
    """Each pair has the wrong sign."""

    def terms(self, step: Step) -> dict[str, Tensor]:
        return super().terms(dataclasses.replace(step, losses=-step.losses))


class Blind(LearningLoss):
    """The module is not trained at all."""

    def terms(self, step: Step) -> dict[str, Tensor]:
        return {name: 0 * term for name, term in super().terms(step).items()}


def begun(kind: type[LearningLoss] | None, seed: int = 0, steps: int = 300, **options: Any) -> tuple[Setup, Sgd]:
    """Joint training: the learner of the toy set, its schedule over ``steps`` steps."""
    setup = VECTORS.setup(lr=0.05, momentum=0.9, weight_decay=1e-4, clip=0.0)
    if kind is not None:
        setup = dataclasses.replace(setup, acquisition=kind(setup.net, generator(seed), **options))
    learner = Sgd(setup)
    learner.begin(Experience(0, (0, 1), TRAIN))
    learner.schedule(steps, 10)
    return setup, learner


def train(learner: Sgd, begin: int, end: int) -> list[dict[str, Tensor]]:
    rows = [torch.randint(len(TRAIN), (48,), generator=generator(step)) for step in range(begin, end)]
    return [learner.step(TRAIN[r[:32]], TRAIN[r[32:]]) for r in rows]


def correlation(setup: Setup, learner: Sgd) -> float:
    """Spearman's, of the predicted losses of held-out samples with their true losses."""
    assert isinstance(setup.acquisition, LearningLoss)
    predicted = setup.acquisition.predicted(Pool(TEST, setup.net, setup.transform.plain))
    losses = F.cross_entropy(learner.predict(TEST.x, TEST.task), TEST.y, reduction="none")
    return float(spearmanr(predicted, losses).statistic)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_predicted_loss_rises_with_the_true_loss(seed: int) -> None:
    setup, learner = begun(LearningLoss, seed)
    train(learner, 0, 300)
    assert correlation(setup, learner) > 0.65


def test_it_does_not_without_training_or_with_the_sign_of_the_pairs_turned() -> None:
    untrained = []
    for seed in range(8):
        setup, learner = begun(LearningLoss, seed)
        untrained.append(correlation(setup, learner))
    assert abs(sum(untrained) / 8) < 0.15
    assert max(untrained) < 0.4
    setup, learner = begun(Flipped)
    train(learner, 0, 300)
    assert correlation(setup, learner) < -0.5
    setup, learner = begun(Blind)
    train(learner, 0, 300)
    assert abs(correlation(setup, learner)) < 0.6  # frozen random features of a trained net


def test_it_queries_the_largest_predicted_losses_best_first() -> None:
    setup, learner = begun(LearningLoss, candidates_per_label=0)
    train(learner, 0, 50)
    acquisition = setup.acquisition
    assert isinstance(acquisition, LearningLoss)
    setup.net.train()
    pool = Pool(TEST, setup.net, setup.transform.plain, batch_size=64)
    picks = acquisition(pool, 20, rng=generator()).index
    with torch.no_grad(), setup.net.eval().tapped() as passes:
        setup.net.features(setup.transform.plain(TEST.x))
    by_hand = acquisition.module(passes[0].maps)
    assert torch.equal(picks, by_hand.argsort(descending=True, stable=True)[:20])
    assert pool.cost.forward_passes == 1000


def test_it_chooses_among_ten_random_candidates_a_label() -> None:
    """The picks are the best of 200 of 1,000 rows: not the best of all, and others with another draw."""
    setup, learner = begun(LearningLoss)
    train(learner, 0, 50)
    acquisition = setup.acquisition
    assert isinstance(acquisition, LearningLoss)
    pool = Pool(TEST, setup.net, setup.transform.plain, batch_size=64)
    picks = acquisition(pool, 20, rng=generator(1)).index
    assert pool.cost.forward_passes == 200
    ranks = acquisition.predicted(pool).argsort(descending=True, stable=True).argsort()[picks]
    assert torch.equal(ranks, ranks.sort().values)
    assert 60 < int(ranks[-1]) < 160  # the 20 best of every fifth: about 100
    assert not torch.equal(picks.sort().values, acquisition(pool, 20, rng=generator(2)).index.sort().values)


def test_a_strength_of_0_leaves_the_learner_bit_identical() -> None:
    """The first weights of the module are drawn by its own generator, so that all other draws are the same."""
    ends: list[Any] = []
    for kind in (None, LearningLoss):
        setup, learner = begun(kind, **({} if kind is None else {"strength": 0.0}))
        terms = train(learner, 0, 30)
        ends.append((setup.net.state_dict(), setup.randomness.state_dict(), [t["new"] for t in terms]))
    assert_same(*ends)
    setup, learner = begun(LearningLoss)
    train(learner, 0, 30)
    assert not torch.equal(setup.net.head.weight, ends[0][0]["head.weight"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_state_from_the_middle_of_training_goes_on_bit_for_bit(optimizer: str) -> None:
    """In the learner's state are the module, its momentum and the share of the schedule; the other net is new."""
    setup, learner = begun(LearningLoss)
    train(learner, 0, 20)
    state = copied(snapshot(setup, learner))
    train(learner, 20, 40)
    other, resumed = begun(LearningLoss, seed=9)
    restore(state, other, resumed)
    other.pace.step = 20
    train(resumed, 20, 40)
    assert_same(snapshot(other, resumed), snapshot(setup, learner))
    assert setup.acquisition is not None
    assert other.acquisition is not None
    assert_same(other.acquisition.state_dict(), setup.acquisition.state_dict())


def test_its_own_state_is_all_that_its_picks_depend_on() -> None:
    setup, learner = begun(LearningLoss)
    train(learner, 0, 20)
    pool = Pool(TEST, setup.net, setup.transform.plain)
    acquisition, other = setup.acquisition, LearningLoss(setup.net, generator(7))
    assert acquisition is not None
    # Picks of equal draws: ten candidates a label are fewer than the pool.
    before = other(pool, 30, rng=generator()).index
    other.load_state_dict(copied(acquisition.state_dict()))
    picks = acquisition(pool, 30, rng=generator()).index
    assert torch.equal(other(pool, 30, rng=generator()).index, picks)
    assert not torch.equal(before, picks)


def test_the_module_is_that_of_the_paper() -> None:
    """Four stages, 128 units each, one unit behind all 512; drawn from the generator alone."""
    net = nets.build(partial(slim_resnet18, width=64), (3, 32, 32), ONE, 0, CPU)
    state = torch.get_rng_state()
    acquisition = LearningLoss(net, generator(3))
    assert torch.equal(state, torch.get_rng_state())
    shapes = [tuple(p.shape) for p in acquisition.module.parameters()]
    assert shapes == [(128, 64), (128,), (128, 128), (128,), (128, 256), (128,), (128, 512), (128,), (1, 512), (1,)]
    assert_same(acquisition.state_dict(), LearningLoss(net, generator(3)).state_dict())
    other = LearningLoss(net, generator(4)).state_dict()["module"]["last.weight"]
    assert not torch.equal(acquisition.state_dict()["module"]["last.weight"], other)


def test_maps_are_averaged_over_their_pixels() -> None:
    """A map that is constant over its pixels counts as its value does, however many pixels there are."""
    net = nets.build(partial(nets.convnet3, width=4), (1, 16, 16), ONE, 0, CPU)
    acquisition = LearningLoss(net, generator())
    values = [torch.randn(5, 4, generator=generator(i)) for i in range(3)]
    maps = [v[:, :, None, None].expand(-1, -1, size, size) for v, size in zip(values, (16, 8, 4), strict=True)]
    torch.testing.assert_close(acquisition.module(maps), acquisition.module(values))


class Custom(nn.Module):
    """A body whose layers nobody can tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).relu()


@pytest.mark.parametrize("model", [nets.linear, lambda shape: Custom(), lambda shape: nn.Sequential(nn.Flatten())])
def test_a_net_without_taps_is_refused(model: Any) -> None:
    net = nets.build(model, (6,), ONE, 0, CPU)
    with pytest.raises(InputError, match=r"learning-loss: model.name: found a net without hidden .*allowed: mlp"):
        LearningLoss(net, generator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "learning-loss: strength: found -1"),
        ({"margin": -0.5}, "learning-loss: margin: found -0.5"),
        ({"width": 0}, "learning-loss: width: found 0"),
        ({"stop": 1.5}, "learning-loss: stop: found 1.5, allowed: a share from 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**options)


def test_it_says_that_it_has_terms() -> None:
    class Plain(Acquisition):
        def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Any: ...

    assert made()[1].joins
    assert not Plain().joins
    assert Plain().state_dict() == {"module": {}}
