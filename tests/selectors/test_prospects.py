"""EPIG and CoreMSE against dense re-computation and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.checks.samples import clusters, exemplars, label_pools
from clsim.checks.samples import pool_of as trained_pool
from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool
from clsim.selectors.disagreement import bald
from clsim.selectors.prospects import core_mse, drawn, epig, expected_changes, shared_informations
from clsim.selectors.scores import informations
from tests.helpers import generator
from tests.selectors.test_disagreement import passes, saying


def joint_information(p: Tensor, q: Tensor) -> float:
    """I(y; y*) of two samples of softmax (T, C), out of their joint table."""
    table = torch.zeros(p.shape[1], q.shape[1], dtype=torch.float64)
    for one, other in zip(p.double(), q.double(), strict=True):
        table += torch.outer(one, other) / len(p)
    apart = torch.outer(table.sum(1), table.sum(0))
    return float((table * (table / apart).log()).sum())


def change(p: Tensor, q: Tensor) -> float:
    """The expected squared change of the mean prediction (T, C) q, once the label of p is known."""
    p, q = p.double(), q.double()
    total = 0.0
    for y in range(p.shape[1]):
        weight = p[:, y] / p[:, y].sum()
        total += float(p[:, y].mean() * (q.mean(0) - weight @ q).square().sum())
    return total


# EPIG


@pytest.mark.parametrize("seed", range(3))
def test_shared_information_is_that_of_the_joint_tables(seed: int) -> None:
    p, others = passes(5, 9, 3, seed), passes(5, 7, 4, seed + 10)
    dense = [sum(joint_information(p[:, i], others[:, j]) for j in range(7)) / 7 for i in range(9)]
    assert shared_informations(p, others).tolist() == pytest.approx(dense, abs=2e-6)


def test_shared_information_is_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    p, others = passes(5, 50, 3), passes(5, 7, 3, seed=1)
    whole, changes = shared_informations(p, others), expected_changes(p, others)
    monkeypatch.setattr("clsim.selectors.distances.BLOCK", 200)
    assert torch.allclose(shared_informations(p, others), whole, atol=1e-6)
    assert torch.allclose(expected_changes(p, others), changes, atol=1e-6)


def test_shared_information_in_closed_form() -> None:
    """Of two nets that are each certain: log 2 where the target tells them apart, else 0; never above BALD."""
    apart = F.one_hot(torch.tensor([[0], [1]]), 3).float()
    alike = F.one_hot(torch.tensor([[2], [2]]), 3).float()
    open_ = torch.full((2, 1, 3), 1 / 3)
    p = torch.cat([apart, alike, open_], 1)
    assert shared_informations(p, apart).tolist() == pytest.approx([math.log(2), 0, 0], abs=1e-6)
    assert shared_informations(p, alike).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    p = passes(6, 40, 4)
    assert (shared_informations(p, passes(6, 20, 4, seed=1)) <= informations(p) + 1e-6).all()


def test_epig_asks_for_what_tells_about_the_query_not_for_what_bald_does() -> None:
    """The nets differ in two bits; the second is all that the query depends on, and the first splits them no less."""
    bits = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    by = [F.one_hot(bits[:, i], 2).float()[:, None] for i in range(2)]
    blurred = 0.9 * by[1] + 0.1 * (1 - by[1])
    p = torch.cat([by[0].expand(-1, 5, -1), blurred.expand(-1, 5, -1)], 1)
    assert informations(p)[:5].min() > informations(p)[5:].max()
    pool = saying(p)
    assert bald(pool, 5, rng=generator()).index.tolist() == [0, 1, 2, 3, 4]

    class Asked(Pool):
        query = saying(by[1].expand(-1, 3, -1))

        def stochastic(self, passes: int, rng: torch.Generator) -> Tensor:
            return p

    asked = Asked(pool.data, pool.net, pool.prepare)
    assert epig(asked, 5, rng=generator(), coldness=torch.inf).index.tolist() == [5, 6, 7, 8, 9]


def with_query(query: Exemplars | None) -> Pool:
    pool = trained_pool(*clusters(60, seed=4), sharp=4.0)
    return Pool(pool.data, pool.net, pool.prepare, query=query)


def test_query_and_candidates_see_the_same_nets() -> None:
    """A query that is the pool gives what the pool itself gives, bit for bit."""
    alone = epig(with_query(None), 20, rng=generator(), targets=60).index
    same = epig(with_query(exemplars(*clusters(60, seed=4), seed=5)), 20, rng=generator(), targets=60).index
    assert torch.equal(alone, same)
    pool = with_query(exemplars(*clusters(12, seed=9), seed=5))
    assert pool.query is not None
    p, others = pool.stochastic(6, generator(2)), pool.query.stochastic(6, generator(2))
    dense = torch.tensor([sum(joint_information(p[:, i], others[:, j]) for j in range(12)) for i in range(60)])
    chosen = epig(pool, 5, rng=generator(2), passes=6, coldness=1e9).index
    assert dense.max() > 1e-3
    assert dense[chosen].tolist() == pytest.approx(dense.topk(5).values.tolist(), rel=1e-3, abs=1e-5)


def test_epig_draws_its_batch_by_its_score() -> None:
    pool = saying(passes(6, 60, 4, seed=5))
    score = shared_informations(pool.stochastic(6, generator()), pool.stochastic(6, generator()))
    best = epig(pool, 10, rng=generator(), coldness=1e9).index
    assert torch.equal(best, score.argsort(descending=True, stable=True)[:10])
    assert torch.equal(best, epig(pool, 10, rng=generator(), coldness=torch.inf).index)
    drawn_ = [set(epig(pool, 10, rng=generator(seed)).index.tolist()) for seed in range(2)]
    assert drawn_[0] != drawn_[1]
    by_chance = torch.stack([torch.randperm(60, generator=generator(seed))[:10] for seed in range(40)])
    assert score[best].mean() > 1.2 * score[by_chance].mean()
    usual = torch.stack([epig(pool, 10, rng=generator(seed)).index for seed in range(40)])
    assert score[by_chance].mean() < score[usual].mean() < score[best].mean()


# CoreMSE


@pytest.mark.parametrize("seed", range(3))
def test_changes_are_those_of_the_reweighted_nets(seed: int) -> None:
    p, others = passes(5, 9, 3, seed), passes(5, 7, 4, seed + 10)
    dense = torch.tensor([[change(p[:, i], others[:, j]) for j in range(7)] for i in range(9)])
    assert torch.allclose(expected_changes(p, others), dense, atol=1e-6)


def test_a_label_that_no_net_expects_changes_nothing() -> None:
    """A probability of 0 under all nets, as of a class of another task; and two nets that a label tells apart."""
    apart = F.one_hot(torch.tensor([[0], [1]]), 3).float()
    alike = F.one_hot(torch.tensor([[2], [2]]), 3).float()
    p = torch.cat([apart, alike], 1)
    assert expected_changes(p, p).tolist() == [[pytest.approx(0.5), 0], [0, 0]]


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_core_mse_takes_one_of_each_way_of_changing(share: float) -> None:
    """Groups of near copies, each of which changes the predictions for its own group alone."""
    nets, groups, copies = 16, 4, 12
    bits = torch.tensor([[net >> g & 1 for g in range(groups)] for net in range(nets)])
    p = F.one_hot(bits, 2).float().repeat(1, copies, 1)  # row i belongs to group i % 4
    noise = 0.05 * torch.rand(p.shape[1], generator=generator())[:, None]
    p = p * (1 - noise) + noise / 2
    silent = torch.full((nets, 3 * p.shape[1], 2), 0.5)  # uncertain, but the nets agree
    pool = saying(torch.cat([p, silent], 1))
    more = share > 0.25  # then the silent ones, which change nothing, are one further cluster
    chosen = core_mse(pool, groups + more, rng=generator(), share=share, targets=1000).index
    telling = chosen[chosen < p.shape[1]]
    assert len(telling) == groups
    assert sorted((telling % groups).tolist()) == [0, 1, 2, 3]
    best = expected_changes(p, p).mean(1).argsort(descending=True)[:groups]
    assert len((best % groups).unique()) < groups  # which the largest changes alone do not


def test_core_mse_with_a_small_share_is_the_largest_changes() -> None:
    pool = saying(passes(6, 60, 4, seed=5))
    p = pool.stochastic(6, generator())
    score = expected_changes(p, p).mean(1)
    chosen = core_mse(pool, 10, rng=generator(), share=0.01, targets=60).index
    assert set(chosen.tolist()) == set(score.topk(10).indices.tolist())
    half = core_mse(pool, 10, rng=generator(), targets=60).index
    assert set(half.tolist()) <= set(score.topk(30).indices.tolist())
    for found in (0.0, 1.5, math.nan):
        with pytest.raises(InputError, match=rf"share: found {found}, allowed: above 0, up to 1"):
            core_mse(pool, 3, rng=generator(), share=found)


def test_targets_are_drawn_without_repetition() -> None:
    p = passes(3, 20, 4)
    assert torch.equal(drawn(p, 20, generator()), p)
    some = drawn(p, 6, generator())
    rows = [int((p == some[:, i : i + 1]).all(2).all(0).nonzero()) for i in range(6)]
    assert rows == sorted({*rows})
    assert not torch.equal(some, drawn(p, 6, generator(1)))


@pytest.mark.parametrize("select", [epig, core_mse])
def test_one_known_class_is_no_error(select) -> None:
    pool = label_pools()["one class labelled"]
    assert len(select(pool, 7, rng=generator()).index.unique()) == 7
