"""Last-layer gradients, and what chooses by them, against autograd, dense algebra and brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional as F

from clsim.checks.samples import clusters
from clsim.checks.samples import pool_of as small_pool
from clsim.errors import InputError
from clsim.pool.gradients import Gradients
from clsim.pool.pool import Pool
from clsim.selectors.badge import badge
from clsim.selectors.bilevel import glister, glister_active
from clsim.selectors.grad_match import grad_match, matching_pursuit
from tests.helpers import generator


def drawn(n: int, classes: int = 3, width: int = 4, seed: int = 0) -> Gradients:
    rng = generator(seed)
    p = torch.randn(n, classes, generator=rng).softmax(1)
    q = p - F.one_hot(torch.arange(n) % classes, classes)
    return Gradients(q, torch.randn(n, width, generator=rng))


def pool(n: int = 40, *, beside: bool = False, seed: int = 1, **options) -> Pool:
    return small_pool(*clusters(n, seed=seed), beside=beside, **options)


# ---- the factors


def test_factors_are_the_gradients_that_they_stand_for() -> None:
    g, other = drawn(9), drawn(5, seed=1)
    dense, dense_other = g.dense().flatten(1), other.dense().flatten(1)
    torch.testing.assert_close(g.squares, dense.square().sum(1))
    torch.testing.assert_close(g.inner(other), dense @ dense_other.T)
    torch.testing.assert_close(
        g.squared_distances(other), torch.cdist(dense, dense_other).square(), rtol=1e-4, atol=1e-5
    )
    assert g.squared_distances(g).diagonal().min() >= 0
    weight, direction = torch.rand(9, generator=generator()), torch.randn(3, 5, generator=generator())
    torch.testing.assert_close(g.sum(), g.dense().sum(0))
    torch.testing.assert_close(g.sum(weight), (g.dense() * weight[:, None, None]).sum(0))
    torch.testing.assert_close(g.along(direction), dense @ direction.flatten())
    torch.testing.assert_close(g[2:4].dense(), g.dense()[2:4])
    assert len(g) == 9


@pytest.mark.parametrize("tasks", [((0, 1, 2, 3),), ((0, 1), (2, 3))])
def test_they_are_what_autograd_finds(tasks) -> None:
    samples = pool(12, tasks=tasks)
    head, found = samples.net.head, []
    for i in range(12):
        logits = samples.net.logits(samples.features[i : i + 1], samples.data.task[i : i + 1])
        loss = F.cross_entropy(logits, samples.data.y[i : i + 1])
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        found.append(torch.cat([weight, bias[:, None]], 1))
    torch.testing.assert_close(samples.gradients.dense(), torch.stack(found), rtol=1e-4, atol=1e-6)


def test_a_hidden_label_is_taken_as_predicted() -> None:
    x, y = clusters(12, seed=1)
    hidden = small_pool(x, torch.full_like(y, -1))
    torch.testing.assert_close(hidden.gradients.q, hidden.hypothetical_gradients.q)
    assert not torch.equal(pool(12).gradients.q, pool(12).hypothetical_gradients.q)


# ---- orthogonal matching pursuit and GradMatch


def pursue(g: Tensor, target: Tensor, budget: int, ridge: float = 0.0, nonnegative: bool = False):
    return matching_pursuit(g @ target, lambda row: g @ g[row].flatten(), budget, ridge, nonnegative=nonnegative)


def objective(g: Tensor, target: Tensor, picks: Tensor, weight: Tensor, ridge: float) -> float:
    return float((weight @ g[picks] - target).square().sum() + ridge * weight.square().sum())


def best_of(g: Tensor, target: Tensor, picks: list[int], ridge: float) -> float:
    """The least objective on these rows with w ≥ 0, by a solver that sees the vectors themselves."""
    a = np.vstack([g[picks].T.double().numpy(), ridge**0.5 * np.eye(len(picks))])
    return nnls(a, np.concatenate([target.double().numpy(), np.zeros(len(picks))]))[1] ** 2


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_pursuit_falls_with_every_pick_and_solves_least_squares(ridge: float) -> None:
    g = torch.randn(30, 12, generator=generator(2))
    target, values = g.mean(0), []
    for budget in range(1, 13):
        picks, weight = pursue(g, target, budget, ridge)
        values.append(objective(g, target, picks, weight, ridge))
        system = g[picks] @ g[picks].T + ridge * torch.eye(budget)
        torch.testing.assert_close(weight, torch.linalg.solve(system, g[picks] @ target), rtol=1e-3, atol=1e-4)
        assert torch.equal(picks, pursue(g, target, 30, ridge)[0][:budget])
    assert all(after < before + 1e-6 for before, after in pairwise(values))
    assert values[0] < float(target.square().sum())
    if not ridge:
        assert values[-1] < 1e-6  # twelve directions span all


def test_pursuit_takes_what_points_along_the_remainder() -> None:
    g, expected = torch.randn(20, 8, generator=generator(3)), []
    target = left = g.mean(0)
    for _ in range(6):
        rest = [i for i in range(20) if i not in expected]
        expected.append(max(rest, key=lambda i: float(g[i] @ left)))
        a = g[expected].double()
        weight = torch.linalg.solve(a @ a.T + 0.1 * torch.eye(len(a), dtype=a.dtype), a @ target.double())
        left = target - (weight @ a).float()
    assert pursue(g, target, 6, 0.1)[0].tolist() == expected


@pytest.mark.parametrize("seed", range(6))
def test_pursuit_is_near_the_best_subset_of_a_tiny_set(seed: int) -> None:
    g = torch.randn(11, 5, generator=generator(seed)).abs() + 0.1  # vectors in a cone: w ≥ 0 can match their mean
    target = g.mean(0)
    picks, weight = pursue(g, target, 3, 0.01, nonnegative=True)
    found = objective(g, target, picks, weight, 0.01)
    every = [best_of(g, target, list(s), 0.01) for s in combinations(range(11), 3)]
    assert weight.min() >= 0
    assert found == pytest.approx(best_of(g, target, picks.tolist(), 0.01), rel=1e-3)
    assert min(every) <= found * (1 + 1e-4)
    assert np.mean(np.array(every) < found) < 0.25  # among the best quarter of the 165 subsets


@pytest.mark.parametrize("seed", range(4))
def test_pursuit_keeps_the_guarantee_of_greedy_selection(seed: int) -> None:
    """Gains at least (1 − exp(−m/M)) of the best subset's: Elenberg et al., Annals of Statistics 46 (2018)."""
    g, ridge = torch.randn(10, 8, generator=generator(seed)), 1.0
    target, identity = g.mean(0), torch.eye(6)
    picks, weight = pursue(g, target, 3, ridge)
    nothing = float(target.square().sum())
    gained = nothing - objective(g, target, picks, weight, ridge)
    best = nothing - min(best_of(g, target, list(s), ridge) for s in combinations(range(10), 3))
    kernel = g @ g.T
    least = min(
        float(torch.linalg.eigvalsh(kernel[list(s)][:, list(s)] + identity)[0]) for s in combinations(range(10), 6)
    )
    assert gained >= (1 - np.exp(-least / float(kernel.diagonal().max() + ridge))) * best - 1e-6
    assert gained > 0.5 * best


def test_pursuit_of_vectors_that_depend_on_each_other_stays_finite() -> None:
    g = torch.ones(6, 3)
    picks, weight = pursue(g, g[0], 6, nonnegative=True)
    assert picks.tolist() == list(range(6))
    assert weight.sum() == pytest.approx(1, abs=1e-3)
    picks, weight = pursue(torch.zeros(4, 3), torch.zeros(3), 3)
    assert weight.tolist() == [1, 1, 1]  # nothing to match: all weigh the same


def test_grad_match_matches_the_mean_gradient_far_better_than_chance() -> None:
    samples = pool(120)
    g = samples.gradients
    mean = g.sum() / 120

    def error(rows: Tensor, weight: Tensor) -> float:
        return float((g[rows].sum(weight) - mean).norm())

    picks, weight = matching_pursuit(g.along(mean), lambda row: g.inner(g[row]).flatten(), 8, 1e-4)
    matched = error(picks, weight)
    by_chance = [error(torch.randperm(120, generator=generator(i))[:8], torch.full((8,), 1 / 8)) for i in range(50)]
    assert matched < min(min(by_chance), 0.1 * float(np.mean(by_chance)))
    selection = grad_match(samples, 8, rng=generator(), ridge=1e-4)
    assert torch.equal(selection.index, picks)
    assert selection.weight is not None
    for label in samples.data.y[picks].unique():  # the same ratios in each class, whose mass they sum to
        own = samples.data.y[picks] == label
        torch.testing.assert_close(selection.weight[own], 30 * weight[own] / weight[own].sum())


def test_grad_match_serves_the_held_out_samples_of_its_classes() -> None:
    samples = pool(40, beside=True)
    one = samples.of(2, (samples.data.y == 2).nonzero().flatten())
    own = one.reference
    assert own is not None
    assert own.data.y.tolist() == [2, 2]
    target = own.gradients.sum().flatten() / 2
    expected = pursue(one.gradients.dense().flatten(1), target, 4, 1.0, nonnegative=True)
    selection = grad_match(one, 4, rng=generator())
    assert torch.equal(selection.index, expected[0])
    torch.testing.assert_close(selection.weight, 10 * expected[1] / expected[1].sum(), rtol=1e-3, atol=1e-5)


# ---- GLISTER


@pytest.mark.parametrize("select", [glister, glister_active])
@pytest.mark.parametrize("beside", [True, False])
def test_glister_with_no_step_is_the_largest_dot_products(select, beside: bool) -> None:
    samples = pool(40, beside=beside)
    g = samples.gradients if select is glister else samples.hypothetical_gradients
    if beside:
        assert samples.reference is not None
        slope = samples.reference.gradients.sum()
    else:
        slope = g.sum()  # without held-out samples the pool stands in for them
    expected = g.along(slope).argsort(descending=True)[:10]
    assert torch.equal(select(samples, 10, rng=generator(), lr=0.0).index, expected)


def test_glister_looks_at_the_slope_again_after_each_pick() -> None:
    samples = pool(30, beside=True)
    reference = samples.reference
    assert reference is not None
    head = torch.nn.Linear(8, 4)
    g, expected = samples.gradients.dense(), []
    for _ in range(6):
        step = 0.3 * g[expected].sum(0)
        with torch.no_grad():
            head.weight.copy_(samples.net.head.weight - step[..., :-1])
            head.bias.copy_(samples.net.head.bias - step[..., -1])
        loss = F.cross_entropy(head(reference.features), reference.data.y)
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        gains = (g * torch.cat([weight, bias[:, None]], 1)).sum((1, 2))
        gains[expected] = -torch.inf
        expected.append(int(gains.argmax()))
    picks = glister(samples, 6, rng=generator(), lr=0.3).index
    assert picks.tolist() == expected
    assert not torch.equal(picks, glister(samples, 6, rng=generator(), lr=0.0).index)
    assert torch.equal(
        glister(samples, 6, rng=generator(), lr=0.3, refresh=6).index, glister(samples, 6, rng=generator(), lr=0).index
    )


def test_a_step_on_what_glister_picks_lowers_the_held_out_loss_more_than_one_by_chance() -> None:
    samples = pool(120, beside=True)
    reference = samples.reference
    assert reference is not None

    def loss(rows: Tensor) -> float:
        step = 0.05 * samples.gradients[rows].sum()
        logits = reference.logits - reference.features @ step[:, :-1].T - step[:, -1]
        return float(F.cross_entropy(logits, reference.data.y))

    picked = loss(glister(samples, 8, rng=generator(), lr=0.05).index)
    assert picked < min(loss(torch.randperm(120, generator=generator(i))[:8]) for i in range(50))


# ---- BADGE


@pytest.mark.parametrize("first", ["uniform", "largest"])
def test_badge_draws_by_dense_distances(first: str) -> None:
    samples = pool(40)
    g = samples.hypothetical_gradients.dense().flatten(1).double()
    for seed in range(5):
        picks = badge(samples, 12, rng=generator(seed), first=first).index.tolist()
        draws = torch.rand(12, generator=generator(seed), dtype=torch.float64)
        expected = [int(g.norm(dim=1).argmax()) if first == "largest" else int(draws[0] * 40)]
        for draw in draws[1:]:
            nearest = torch.cdist(g, g[expected]).min(1).values.square()
            nearest[expected] = 0
            edges = nearest.cumsum(0)
            expected.append(int((edges > draw * edges[-1]).nonzero()[0]))
        assert picks == expected


def test_badge_draws_uniformly_where_no_gradient_differs() -> None:
    same = small_pool(torch.zeros(12, 1, 6, 6, dtype=torch.uint8), torch.zeros(12, dtype=torch.int64), zero=True)
    counts = torch.zeros(12)
    for seed in range(300):
        picks = badge(same, 4, rng=generator(seed)).index
        assert len(picks.unique()) == 4
        counts[picks] += 1
    assert 60 < counts.min() <= counts.max() < 140  # 100 ± 5 standard deviations of 8


def test_badge_is_more_diverse_than_chance() -> None:
    samples = pool(120)
    g = samples.hypothetical_gradients

    def potential(rows: Tensor) -> float:
        return float(g.squared_distances(g[rows]).min(1).values.sum())

    chosen = [potential(badge(samples, 8, rng=generator(i)).index) for i in range(20)]
    by_chance = [potential(torch.randperm(120, generator=generator(i))[:8]) for i in range(20)]
    assert np.mean(chosen) < 0.8 * np.mean(by_chance)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(InputError, match="ridge: found -1, allowed: a finite number from 0"):
        grad_match(pool(8), 2, rng=generator(), ridge=-1)
    with pytest.raises(InputError, match=r"found lr 0\.1 and refresh 0, allowed"):
        glister(pool(8), 2, rng=generator(), refresh=0)
