"""BAIT against dense Fisher matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clsim.checks.samples import label_pools
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.pool import Pool
from clsim.selectors import bait as module
from clsim.selectors.bait import Samples, Traces, bait, contrasts, forward_backward
from tests.helpers import generator, points, vectors

CLASSES, DIM = 4, 3


def pool_with(n: int, labelled: int, *, classes: int = CLASSES, dim: int = DIM, seed: int = 0) -> Pool:
    visible = torch.ones(1, classes, dtype=torch.bool)
    net = nets.build(lambda shape: nn.Identity(), (dim,), visible, seed, torch.device("cpu"))
    with torch.no_grad():
        net.head.weight.mul_(4)
    told = vectors(points(labelled, dim, seed + 1), torch.arange(labelled) % classes) if labelled else None
    return Pool(vectors(2 * points(n, dim, seed), torch.full((n,), -1)), net, lambda x: x, labelled=told)


def fisher(pool: Pool | None) -> Tensor:
    """E_{y∼p} g gᵀ with g = (p − e_y) ⊗ [h, 1], written out: float64 (n, D, D)."""
    if pool is None:
        return torch.zeros(0, CLASSES * (DIM + 1), CLASSES * (DIM + 1), dtype=torch.float64)
    p, h = pool.logits.double().softmax(1), pool.features.double()
    h = torch.cat([h, torch.ones(len(h), 1, dtype=torch.float64)], 1)
    g = torch.stack(
        [torch.einsum("nc,nd->ncd", p - torch.eye(p.shape[1])[y], h).flatten(1) for y in range(p.shape[1])], 1
    )
    return torch.einsum("ny,nyi,nyj->nij", p, g, g)


def dense(pool: Pool, rows: list[int], ridge: float) -> float:
    """tr((λI + Σ_{L∪S} F)⁻¹ Σ_all F)."""
    mine, told = fisher(pool), fisher(pool.labelled)
    m = ridge * torch.eye(mine.shape[1], dtype=torch.float64) + told.sum(0) + mine[rows].sum(0)
    return float((torch.linalg.inv(m) @ (mine.sum(0) + told.sum(0))).trace())


def traces_of(pool: Pool, ridge: float, rank: int = 10) -> Traces:
    basis = contrasts(pool.probabilities.shape[1])
    told = pool.labelled if pool.labelled is not None else pool[torch.arange(0)]
    mine, beside = (Samples(one.logits.double().softmax(1), one.features, basis) for one in (pool, told))
    return Traces(mine, beside, ridge, rank)


def test_contrasts_are_orthonormal_and_sum_to_zero() -> None:
    for classes in (2, 3, 7):
        basis = contrasts(classes)
        assert torch.allclose(basis.T @ basis, torch.eye(classes - 1, dtype=torch.float64))
        assert basis.sum(0).abs().max() < 1e-12


@pytest.mark.parametrize("labelled", [0, 5])
@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_every_trace_is_that_of_the_dense_matrices(labelled: int, ridge: float) -> None:
    """At each step forward and back: the trace, and how each sample would change it."""
    pool = pool_with(14, labelled)
    traces, rows = traces_of(pool, ridge), []
    assert float(traces.trace) == pytest.approx(dense(pool, rows, ridge), rel=1e-9)
    for row in (3, 8, 0, 11, 5):
        now = dense(pool, rows, ridge)
        wanted = [now - dense(pool, [*rows, j], ridge) for j in range(14)]
        assert traces.gains().tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        traces.change(torch.tensor(row), 1)
        rows.append(row)
        assert float(traces.trace) == pytest.approx(dense(pool, rows, ridge), rel=1e-9)
    for row in (8, 5, 3):
        now = dense(pool, rows, ridge)
        wanted = [dense(pool, [r for r in rows if r != j], ridge) - now for j in rows]
        assert traces.losses(torch.tensor(rows)).tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        traces.change(torch.tensor(row), -1)
        rows.remove(row)
        assert float(traces.trace) == pytest.approx(dense(pool, rows, ridge), rel=1e-9)


@pytest.mark.parametrize("labelled", [0, 5])
@pytest.mark.parametrize("seed", range(3))
def test_picks_follow_the_dense_greedy(labelled: int, seed: int) -> None:
    pool, budget, expected = pool_with(14, labelled, seed=seed), 4, []
    while len(expected) < 2 * budget:
        rest = [j for j in range(14) if j not in expected]
        expected.append(min(rest, key=lambda j: dense(pool, [*expected, j], 1.0)))
    forward = expected[:budget]
    while len(expected) > budget:
        expected.remove(min(expected, key=lambda j: dense(pool, [r for r in expected if r != j], 1.0)))
    assert bait(pool, budget, rng=generator()).index.tolist() == expected
    assert bait(pool, budget, rng=generator(), oversampling=1).index.tolist() == forward


def test_the_trace_is_lower_than_by_chance_and_with_pruning_no_higher_on_average() -> None:
    pruned, forward, chance = [], [], []
    for seed in range(8):
        pool = pool_with(60, 4, seed=seed)
        pruned.append(dense(pool, bait(pool, 6, rng=generator()).index.tolist(), 1.0))
        forward.append(dense(pool, bait(pool, 6, rng=generator(), oversampling=1).index.tolist(), 1.0))
        chance += [dense(pool, torch.randperm(60, generator=generator(i))[:6].tolist(), 1.0) / 20 for i in range(20)]
    assert sum(pruned) <= sum(forward) * 1.001
    assert sum(pruned) < 0.8 * sum(chance)


def test_a_copy_of_a_labelled_sample_tells_less_than_it_did() -> None:
    pool = pool_with(30, 0)
    first = bait(pool, 1, rng=generator(), oversampling=1).index
    told = Pool(pool.data, pool.net, pool.prepare, labelled=pool.data[first.repeat(20)])
    before, after = traces_of(pool, 1.0).gains(), traces_of(told, 1.0).gains()
    assert before.argmax() == first
    assert after[first] < 0.2 * before[first]
    assert first.item() not in bait(told, 3, rng=generator()).index.tolist()


def test_a_smaller_rank_keeps_the_leading_part() -> None:
    """With rank C − 1 all of it; with less, gains are lower, and the best sample is among the best."""
    pool = pool_with(40, 5, classes=4)
    exact, full, half = (traces_of(pool, 1.0, rank).gains() for rank in (10, 3, 2))
    assert torch.allclose(exact, full)
    assert (half <= exact + 1e-9).all()
    assert exact[half.argmax()] > 0.8 * exact.max()


def test_a_pool_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_with(60, 5)
    whole = bait(pool, 7, rng=generator()).index
    monkeypatch.setattr("clsim.selectors.distances.BLOCK", 50)
    assert torch.equal(bait(pool, 7, rng=generator()).index, whole)


def test_a_class_that_no_sample_can_have_does_not_count() -> None:
    pool = label_pools()["some labelled"]
    assert len(bait(pool, 9, rng=generator()).index.unique()) == 9
    one = label_pools()["one class labelled"]
    assert torch.equal(bait(one, 9, rng=generator()).index, one.data.key.argsort(descending=True)[:9])


def test_it_refuses_a_fisher_matrix_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_with(20, 3, dim=8)
    monkeypatch.setattr(module, "LARGEST", 20)
    with pytest.raises(InputError, match=r"4 classes and 8 features, .* side 27, allowed: up to 20 \(width=5 keeps"):
        bait(pool, 4, rng=generator())
    assert len(bait(pool, 4, rng=generator(), width=5).index.unique()) == 4
    monkeypatch.setattr(module, "LARGEST", 2)
    with pytest.raises(InputError, match=r"allowed: up to 2$"):
        bait(pool, 4, rng=generator(), width=5)
    for found in (0.0, float("inf")):
        with pytest.raises(InputError, match=f"ridge: found {found}, allowed: above 0, finite"):
            bait(pool, 4, rng=generator(), ridge=found)


def test_components_that_hold_all_features_choose_the_same() -> None:
    """Five dimensions of mean 0 that lie in eight."""
    flat = points(40, 5, 3) - points(40, 5, 3).mean(0)
    x = flat @ torch.linalg.qr(points(8, 5))[0].T
    pool = pool_with(40, 0, dim=8)
    pool = Pool(vectors(x, torch.full((40,), -1)), pool.net, pool.prepare)
    exact = bait(pool, 6, rng=generator()).index
    assert torch.equal(bait(pool, 6, rng=generator(), width=5).index, exact)
    assert not torch.equal(bait(pool, 6, rng=generator(), width=1).index, exact)
    assert torch.equal(forward_backward(traces_of(pool, 1.0), 6, 2), exact)
