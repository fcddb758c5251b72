"""Distances to decision boundaries: closed forms of a linear net, plain loops and brute force."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from clsim.models import nets
from clsim.pool.pool import Pool
from clsim.selectors import adversarial, boundary
from tests.helpers import generator, points, pool_of, vectors


def linear_pool(n: int = 80, classes: int = 5, labelled: Tensor | None = None, smooth: bool = False) -> Pool:
    """Under a linear net, or one with a hidden layer."""

    def body(shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 20), nn.Tanh()) if smooth else nn.Identity()

    net = nets.build(body, (6,), torch.ones(1, classes, dtype=torch.bool), 1, torch.device("cpu"))
    with torch.no_grad():
        net.head.weight *= 3
    other = None if labelled is None else vectors(labelled)
    return Pool(vectors(points(n, 6)), net, lambda x: x, labelled=other)


def distances(pool: Pool) -> Tensor:
    """(n, C), by a plain loop, in double precision."""
    weight, bias = pool.net.head.weight.detach().double(), pool.net.head.bias.detach().double()
    out = torch.full((len(pool), len(bias)), torch.inf, dtype=torch.float64)
    for i, h in enumerate(pool.features.double()):
        best = int((weight @ h + bias).argmax())
        for c in range(len(bias)):
            if c != best:
                apart = weight[best] - weight[c]
                out[i, c] = (apart @ h + bias[best] - bias[c]) / apart.norm()
    return out


def test_moving_by_the_margin_ties_the_two_logits() -> None:
    pool = linear_pool()
    margin, nearest = boundary.boundary_distances(pool).min(1)
    weight = pool.net.head.weight.detach()
    apart = weight[nearest] - weight[pool.predictions]
    moved = pool.net.head(pool.features + margin[:, None] * apart / apart.norm(dim=1, keepdim=True))
    two = moved.topk(2, 1)
    assert torch.allclose(two.values[:, 0], two.values[:, 1], atol=1e-4)
    assert torch.equal(two.indices.sort(1).values, torch.stack([nearest, pool.predictions], 1).sort(1).values)


def test_boundary_margin_takes_the_nearest() -> None:
    pool = linear_pool()
    expected = distances(pool).min(1).values.argsort()[:20]
    assert boundary.boundary_margin(pool, 20, rng=generator()).index.tolist() == expected.tolist()


def test_classes_alike_and_classes_hidden_make_no_nan() -> None:
    visible = torch.tensor([[True, True, True, False], [True, False, False, False]])
    net = nets.build(lambda shape: nn.Identity(), (6,), visible, 1, torch.device("cpu"))
    with torch.no_grad():
        net.head.weight[1] = net.head.weight[0]  # a boundary that no movement reaches
        net.head.bias[1] = net.head.bias[0] - 1
    data = dataclasses.replace(vectors(points(10, 6)), task=torch.arange(10) % 2)
    pool = Pool(data, net, lambda x: x)
    found = boundary.boundary_distances(pool)
    assert not found.isnan().any()
    assert found[1::2].isinf().all()  # one class: nowhere to go
    assert found[0::2, 3].isinf().all()
    for select in (adversarial.deepfool, adversarial.adversarial_bim):
        assert set(select(pool, 5, rng=generator()).index.tolist()) == {0, 2, 4, 6, 8}


@pytest.mark.parametrize("budget", [3, 5, 12, 23])
def test_base_is_its_algorithm_with_quotas_that_differ_by_at_most_1(budget: int) -> None:
    pool = linear_pool()
    table = distances(pool)
    predictions = pool.predictions.tolist()
    taken: list[int] = []
    for c in range(5):
        score = {i: float(table[i].min() if predictions[i] == c else table[i, c]) for i in range(80)}
        rest = sorted((i for i in range(80) if i not in taken), key=lambda i: score[i])
        taken += rest[: budget // 5 + (c < budget % 5)]
    picks = boundary.base(pool, budget, rng=generator()).index.tolist()
    assert set(picks) == set(taken)
    if budget > 5:  # the nearest of each class come first
        assert set(picks[:5]) == {taken[sum(budget // 5 + (k < budget % 5) for k in range(c))] for c in range(5)}


def test_base_finds_the_boundaries_of_a_class_that_is_never_predicted() -> None:
    """Where boundary-margin alone would spend all on one boundary."""
    pool = linear_pool(classes=3)
    with torch.no_grad():
        pool.net.head.bias[2] -= 30
    assert 2 not in pool.predictions.tolist()
    to_rare = distances(pool)[:, 2]
    picks = boundary.base(pool, 9, rng=generator()).index
    plain = boundary.boundary_margin(pool, 9, rng=generator()).index
    assert to_rare[picks].min() == to_rare.min() < to_rare[plain].min()


@pytest.mark.parametrize("beside", [False, True])
def test_cal_is_the_plain_loop(beside: bool) -> None:
    pool = linear_pool(labelled=points(30, 6, seed=7) if beside else None)
    other = pool.labelled or pool
    p, q = pool.probabilities.double(), other.probabilities.double()
    score = []
    for i in range(80):
        far = (other.features - pool.features[i]).norm(dim=1)
        if other is pool:
            far[i] = torch.inf
        near = far.argsort()[:10]
        kl = [float((q[j] * (q[j] / p[i]).log()).sum() + (p[i] * (p[i] / q[j]).log()).sum()) / 2 for j in near]
        score.append(sum(kl) / 10)
    expected = torch.tensor(score).argsort(descending=True)[:15]
    assert boundary.cal(pool, 15, rng=generator()).index.tolist() == expected.tolist()


def test_cal_counts_a_twin_but_not_itself_as_neighbour() -> None:
    x = torch.cat([points(20, 6), points(20, 6)])  # every sample has a twin that is seen alike
    lone = Pool(vectors(x), linear_pool().net, lambda x: x)
    near_twin = boundary.cal(lone, 40, rng=generator(), neighbours=1).index
    assert near_twin.tolist() == list(range(40))  # all score 0: in the order of rows


def test_contextual_diversity_takes_the_farthest_each_time() -> None:
    pool = linear_pool()
    p = pool.probabilities.double()

    def divergence(a: Tensor, b: Tensor) -> float:
        return float((a * (a / b).log()).sum() + (b * (b / a).log()).sum()) / 2

    expected = [min(range(80), key=lambda i: divergence(p[i], p.mean(0)))]
    while len(expected) < 12:
        expected.append(
            max(
                (i for i in range(80) if i not in expected),
                key=lambda i: min(divergence(p[i], p[j]) for j in expected),
            )
        )
    assert boundary.contextual_diversity(pool, 12, rng=generator()).index.tolist() == expected


def test_contextual_diversity_begins_far_from_what_is_labelled() -> None:
    x = points(80, 6)
    pool = linear_pool(labelled=x[:40])  # half of the pool is labelled already
    picks = boundary.contextual_diversity(pool, 10, rng=generator()).index
    assert picks.min() >= 40


def test_contextual_diversity_stands_certain_predictions() -> None:
    pool = linear_pool()
    with torch.no_grad():
        pool.net.head.weight *= 1e4
    assert (pool.probabilities == 0).any()
    picks = boundary.contextual_diversity(pool, 10, rng=generator()).index
    assert len(picks.unique()) == 10
    assert pool.predictions[picks[:4]].unique().numel() == 4  # certain of different classes: as far apart as can be


def test_deepfool_on_a_linear_net_is_the_exact_distance() -> None:
    pool = linear_pool()
    sizes: list[Tensor] = []
    original = adversarial.least_changes

    def remember(*args):
        sizes.append(original(*args))
        return sizes[-1]

    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(adversarial, "least_changes", remember)
        picks = adversarial.deepfool(pool, 80, rng=generator()).index
    exact = distances(pool).min(1).values.float()
    assert torch.allclose(torch.cat(sizes), exact.sort().values, rtol=1e-4, atol=1e-5)
    assert picks.tolist() == exact.argsort().tolist()
    assert pool.cost.forward_passes <= 80 * 4  # one step for each, and a look before and after


def test_deepfool_reaches_the_boundary_of_a_smooth_net() -> None:
    """No shorter perturbation along 2000 random directions flips what it calls nearest."""
    pool = linear_pool(smooth=True)
    picks = adversarial.deepfool(pool, 80, rng=generator()).index
    drawn = torch.nn.functional.normalize(points(2000, 6, seed=3))
    reach = torch.full((80,), torch.inf)
    for size in torch.linspace(0.02, 3, 60).flip(0):
        moved = (pool.data.x[:, None] + size * drawn).flatten(0, 1)
        with torch.no_grad():
            out = pool.net(moved, torch.zeros(len(moved), dtype=torch.int64)).argmax(1).view(80, -1)
        reach[(out != pool.predictions[:, None]).any(1)] = size
    rank = torch.empty(80)
    rank[picks] = torch.arange(80.0)
    order = torch.empty(80)
    order[reach.argsort()] = torch.arange(80.0)
    assert torch.corrcoef(torch.stack([rank, order]))[0, 1] > 0.95  # random choice: 0


def test_bim_on_a_linear_net_of_two_classes_counts_steps_of_the_margin() -> None:
    """Each step lowers the margin by ε·‖w₀ − w₁‖₁."""
    pool = linear_pool(classes=2)
    apart = (pool.net.head.weight[0] - pool.net.head.weight[1]).detach()
    steps = (pool.logits[:, 0] - pool.logits[:, 1]).abs() / (0.05 * apart.abs().sum())
    picks = adversarial.adversarial_bim(pool, 80, rng=generator()).index
    assert (steps.ceil()[picks].diff() >= 0).all()
    assert picks.tolist() == steps.argsort().tolist()  # equal numbers of steps by the boundary margin


def test_bim_moves_what_the_softmax_is_certain_of() -> None:
    pool = linear_pool(classes=2)
    with torch.no_grad():
        pool.net.head.weight *= 300
        pool.net.head.bias *= 300
    assert (pool.probabilities.max(1).values == 1).sum() > 60  # the cross-entropy's gradient is 0 there
    margin = (pool.logits[:, 0] - pool.logits[:, 1]).abs()
    assert adversarial.adversarial_bim(pool, 80, rng=generator()).index.tolist() == margin.argsort().tolist()


@pytest.mark.parametrize("select", [adversarial.deepfool, adversarial.adversarial_bim])
def test_what_cannot_be_moved_comes_last(select) -> None:
    """And not first, as a sum of no perturbations would have it."""
    pool = linear_pool()
    blind = nn.Sequential(nn.Hardtanh())  # flat beyond 1: no gradient
    pool.net.body = blind
    x = pool.data.x.clone()
    x[:10] = 5 * x[:10].sign()
    pool = Pool(vectors(x), pool.net, lambda x: x)
    assert not set(select(pool, 55, rng=generator()).index.tolist()) & set(range(10))


@pytest.mark.parametrize("select", [adversarial.deepfool, adversarial.adversarial_bim])
def test_candidates_bound_the_work(select) -> None:
    pool = linear_pool(smooth=True)
    near = boundary.boundary_margin(pool, 20, rng=generator()).index.tolist()
    assert set(select(pool, 10, rng=generator(), candidates=20).index.tolist()) <= set(near)
    assert pool.cost.forward_passes < 80 + 20 * 60


@pytest.mark.parametrize("select", [adversarial.deepfool, adversarial.adversarial_bim])
def test_gradients_and_flags_of_the_net_stay_as_they_were(select) -> None:
    pool = linear_pool(smooth=True)
    pool.net.head.weight.requires_grad_(False)
    pool.net.train()
    select(pool, 10, rng=generator())
    assert all(p.grad is None for p in pool.net.parameters())
    assert not pool.net.head.weight.requires_grad
    assert pool.net.body[0].weight.requires_grad
    assert pool.net.training


@pytest.mark.parametrize("select", [boundary.boundary_margin, adversarial.deepfool, adversarial.adversarial_bim])
def test_the_nearest_lie_nearer_than_random_ones(select) -> None:
    pool = linear_pool(n=300)
    margin = distances(pool).min(1).values
    assert margin[select(pool, 30, rng=generator()).index].mean() < margin.mean() * 0.8


def test_an_empty_budget_is_an_empty_choice() -> None:
    pool = pool_of(points(10, 6))
    for select in (boundary.base, boundary.cal, boundary.contextual_diversity, adversarial.deepfool):
        assert select(pool, 0, rng=generator()).index.shape == (0,)
