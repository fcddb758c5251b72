"""Bayesian batches: Frank–Wolfe, greedy and thresholded sparse approximation against brute force."""

from __future__ import annotations

from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear, nnls
from torch import Tensor

from clsim.checks.samples import clusters
from clsim.checks.samples import pool_of as small_pool
from clsim.checks.selectors import check_selector
from clsim.errors import InputError
from clsim.selectors.bayesian import Approximation, acs_fw, expected_log_likelihoods, frank_wolfe, sparse_approximation
from tests.helpers import generator


def vectors(n: int, width: int = 5, seed: int = 0) -> Tensor:
    """Like log-likelihoods: all to one side."""
    return -torch.randn(n, width, generator=generator(seed), dtype=torch.float64).abs()


def residual(a: Tensor, weight: Tensor) -> float:
    return float((a.sum(0) - weight @ a).square().sum())


# ---- what the methods approximate


def test_the_projections_are_expected_log_likelihoods() -> None:
    pool = small_pool(*clusters(20, seed=1))
    mean, deviation = expected_log_likelihoods(pool, 6, generator(), 0.7)
    p = pool.stochastic(6, generator()).double()
    for n in range(20):
        predictive = p[:, n].mean(0)
        logs = p[:, n].log()  # (6, classes)
        entropy = -(predictive * predictive.log()).sum()
        expected = (logs @ predictive + 0.7 * entropy) / 6**0.5
        torch.testing.assert_close(mean[n].double(), expected, rtol=1e-4, atol=1e-5)
        spread = ((logs - (logs @ predictive)[:, None]) ** 2 @ predictive).mean().sqrt()
        torch.testing.assert_close(deviation[n].double(), spread, rtol=1e-4, atol=1e-5)


def test_a_certain_prediction_has_nothing_to_say() -> None:
    x, y = clusters(12, seed=1)
    mean, deviation = expected_log_likelihoods(small_pool(x, y, sharp=1e4, tasks=((0, 1), (2, 3))), 4, generator(), 0.7)
    assert mean.isfinite().all()
    assert deviation.isfinite().all()


# ---- Frank–Wolfe


@pytest.mark.parametrize("seed", range(3))
def test_frank_wolfe_falls_towards_the_target_as_fast_as_it_must(seed: int) -> None:
    a = vectors(12, seed=seed)
    sigma = a.norm(dim=1)
    values = [residual(a, frank_wolfe(a, steps)[1]) for steps in range(1, 120)]
    assert all(after <= before + 1e-9 for before, after in pairwise(values))
    corners = a * (sigma.sum() / sigma)[:, None]
    diameter = float(torch.cdist(torch.cat([corners, corners[:1] * 0]), corners).max())
    for steps, value in enumerate(values, start=1):
        assert value <= 4 * diameter**2 / (steps + 2)  # 2·C/(t + 2), C = 2·diameter² (Jaggi, ICML 2013)
    assert values[-1] < 1e-3 * residual(a, torch.zeros(12, dtype=a.dtype))


def test_frank_wolfe_stays_in_its_polytope_and_above_the_best_of_its_support() -> None:
    a = vectors(12, seed=4)
    sigma = a.norm(dim=1)
    for steps in (1, 3, 8):
        support, weight = frank_wolfe(a, steps)
        assert weight.min() >= 0
        assert set(weight.nonzero().flatten().tolist()) == set(support.tolist())
        assert float(weight @ sigma) <= float(sigma.sum()) * (1 + 1e-9)
        free = nnls(a[support].T.numpy(), a.sum(0).numpy())[1] ** 2
        assert residual(a, weight) >= free - 1e-9
    # one step is the best one among all vertices
    support, weight = frank_wolfe(a, 1)
    lined = [(float(a[n] @ a.sum(0) / sigma[n]), n) for n in range(12)]
    assert support.tolist() == [max(lined)[1]]


def test_acs_fw_begins_with_the_support_and_is_topped_up_from_the_rest() -> None:
    pool = small_pool(*clusters(60, seed=2))
    likelihoods, _ = expected_log_likelihoods(pool, 10, generator(), 0.7)
    support, _ = frank_wolfe(likelihoods, 30)
    picks = acs_fw(pool, 30, rng=generator()).index
    assert torch.equal(picks[: len(support)], support)
    rest = torch.tensor([i for i in range(60) if i not in support.tolist()])
    again, _ = frank_wolfe(likelihoods[rest], 30 - len(support))
    assert torch.equal(picks[len(support) : len(support) + len(again)], rest[again])


def test_acs_fw_approximates_the_pool_far_better_than_chance() -> None:
    pool = small_pool(*clusters(120, seed=2))
    likelihoods = expected_log_likelihoods(pool, 10, generator(), 0.7)[0].double()
    target = likelihoods.sum(0).numpy()

    def error(rows: Tensor) -> float:
        return float(nnls(likelihoods[rows].T.numpy(), target)[1])

    chosen = error(acs_fw(pool, 5, rng=generator()).index)
    by_chance = [error(torch.randperm(120, generator=generator(i))[:5]) for i in range(60)]
    assert chosen < np.quantile(by_chance, 0.1)


# ---- sparse approximation


def approximation(n: int, seed: int = 0, alpha: float = 1.0, beta: float = 1.0) -> Approximation:
    sigma = torch.rand(n, generator=generator(seed + 50), dtype=torch.float64)
    return Approximation(vectors(n, seed=seed), sigma, alpha, beta)


def best(problem: Approximation, n: int, budget: int) -> float:
    every = (torch.tensor(s) for s in combinations(range(n), budget))
    return min(float(problem.value(s, problem.weights(s))) for s in every)


def test_the_objective_is_the_one_that_is_written_down() -> None:
    n, alpha, beta = 7, 0.7, 0.3
    phi, sigma = vectors(n), torch.rand(n, generator=generator(50), dtype=torch.float64)
    picks, weight = torch.tensor([4, 1]), torch.tensor([2.0, 0.5], dtype=torch.float64)
    w = torch.zeros(n, dtype=torch.float64).index_copy_(0, picks, weight)
    expected = (phi.sum(0) - phi.T @ w).norm() ** 2
    expected += alpha * (sigma.sum() - sigma @ (w > 0).double()) ** 2 + beta * (w - 1).norm() ** 2
    torch.testing.assert_close(approximation(n, alpha=alpha, beta=beta).value(picks, weight), expected)


def test_the_weights_are_the_best_of_their_support() -> None:
    problem, picks = approximation(9, beta=0.2), torch.tensor([0, 3, 8])
    phi = vectors(9)
    a = np.vstack([phi[picks].T.numpy(), 0.2**0.5 * np.eye(3)])
    b = np.concatenate([phi.sum(0).numpy(), 0.2**0.5 * np.ones(3)])
    expected = lsq_linear(a, b, bounds=(0, np.inf), tol=1e-12).x
    np.testing.assert_allclose(problem.weights(picks).numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("solver", ["greedy", "thresholded"])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 10.0])
def test_both_solvers_are_near_the_best_subset_of_a_tiny_set(solver: str, alpha: float) -> None:
    ranks = []
    for seed in range(5):
        problem = approximation(10, seed, alpha)
        picks = problem.greedy(4) if solver == "greedy" else problem.thresholded(4, 100)
        found = float(problem.value(picks, problem.weights(picks)))
        every = [float(problem.value(s, problem.weights(s))) for s in map(torch.tensor, combinations(range(10), 4))]
        assert found >= min(every) - 1e-6
        ranks.append(np.mean(np.array(every) < found - 1e-9))
    assert np.mean(ranks) < 0.15  # by chance 0.5


def test_greedy_falls_with_every_pick() -> None:
    problem = approximation(12)
    picks = problem.greedy(12)
    values = [float(problem.value(picks[:k], problem.weights(picks[:k]))) for k in range(1, 13)]
    assert all(after <= before + 1e-9 for before, after in pairwise(values))
    assert sorted(picks.tolist()) == list(range(12))
    assert values[-1] == pytest.approx(0, abs=1e-9)  # everything, with weight 1


def test_thresholding_falls_with_every_iteration() -> None:
    for seed in range(3):
        problem = approximation(12, seed)
        for start in (0.0, 1.0):
            values = []
            for iterations in range(1, 40):
                picks, weight = problem.iterate(4, iterations, start)
                assert weight.min() >= 0
                values.append(float(problem.value(picks, weight)))
            assert all(after <= before for before, after in pairwise(values))
            assert values[-1] < values[0]
            assert values[-1] >= best(problem, 12, 4) - 1e-6


def test_without_representation_it_takes_the_uncertain() -> None:
    sigma = torch.rand(20, generator=generator(3), dtype=torch.float64)
    problem = Approximation(torch.zeros(20, 2, dtype=torch.float64), sigma, 1.0, 1.0)
    expected = set(sigma.argsort(descending=True)[:6].tolist())
    assert set(problem.greedy(6).tolist()) == set(problem.thresholded(6, 50).tolist()) == expected


@pytest.mark.parametrize("solver", ["greedy", "iht"])
def test_sparse_approximation_beats_chance_in_what_it_minimises(solver: str) -> None:
    pool = small_pool(*clusters(120, seed=2))
    mean, deviation = expected_log_likelihoods(pool, 10, generator())
    problem = Approximation(mean.double(), deviation.double(), 1.0, 0.01)

    def value(rows: Tensor) -> float:
        return float(problem.value(rows, problem.weights(rows)))

    selection = sparse_approximation(pool, 6, rng=generator(), solver=solver)
    assert selection.weight is not None
    best = problem.weights(selection.index)
    torch.testing.assert_close(selection.weight.double(), 120 * best / best.sum(), rtol=1e-4, atol=1e-6)
    assert value(selection.index) < min(value(torch.randperm(120, generator=generator(i))[:6]) for i in range(40))


# ---- the contract


def test_the_other_solver_keeps_the_contract_and_reads_no_label() -> None:
    check_selector(partial(sparse_approximation, solver="greedy"), reads_labels=False)


def test_impossible_options_are_refused() -> None:
    pool = small_pool(*clusters(8, seed=1))
    with pytest.raises(InputError, match=r"spread 0 and iterations 100, allowed: uncertainty from 0, spread above 0"):
        sparse_approximation(pool, 2, rng=generator(), spread=0)
    with pytest.raises(InputError, match="projections: found 0"):
        acs_fw(pool, 2, rng=generator(), projections=0)
