"""BALD, BatchBALD and their kin against enumeration and closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from clsim.checks.samples import clusters
from clsim.checks.samples import pool_of as trained_pool
from clsim.errors import InputError
from clsim.pool.pool import Pool
from clsim.selectors import disagreement
from clsim.selectors.disagreement import bald, batch_bald, greedy_joint, power_bald, powered
from clsim.selectors.scores import highest, informations
from clsim.spec import registry
from tests.helpers import generator


def passes(nets: int, n: int, classes: int, seed: int = 0, sharp: float = 2.0) -> Tensor:
    return torch.randn(nets, n, classes, generator=generator(seed)).mul(sharp).softmax(2)


def sorted_by_bald(p: Tensor) -> Tensor:
    return p[:, highest(informations(p), p.shape[1])]


def joint_information(p: Tensor, rows: tuple[int, ...]) -> float:
    """I(y_S; ω), over every labelling of S."""
    total = 0.0
    for labels in itertools.product(range(p.shape[2]), repeat=len(rows)):
        each = torch.stack([p[:, row, label] for row, label in zip(rows, labels, strict=True)]).double().prod(0)
        mixed = float(each.mean())
        total += -mixed * math.log(mixed) + float((each * each.log()).mean())
    return total


def saying(p: Tensor) -> Pool:
    """A pool whose passes are these."""

    class Fixed(Pool):
        def stochastic(self, passes: int, rng: torch.Generator) -> Tensor:
            return p

    pool = trained_pool(*clusters(p.shape[1], seed=1))
    return Fixed(pool.data, pool.net, lambda x: x.float())


def test_information_is_what_the_nets_disagree_on() -> None:
    p = passes(6, 50, 4)
    mean = p.mean(0)
    divergence = (p * (p.log() - mean.log())).sum(2).mean(0)  # from the consensus
    assert torch.allclose(informations(p), divergence, atol=1e-6)
    assert informations(p[:1].expand(6, -1, -1)).abs().max() < 1e-6  # agreement, however uncertain
    assert (informations(p) >= 0).all()
    disagreeing = F.one_hot(torch.arange(5), 5).float()[:, None]
    assert informations(disagreeing).tolist() == [pytest.approx(math.log(5))]
    assert informations(F.one_hot(torch.zeros(5, dtype=torch.int64), 5).float()[:, None]).tolist() == [0]


def test_bald_prefers_disagreement_to_uncertainty() -> None:
    certain_but_divided = torch.tensor([[0.99, 0.01], [0.01, 0.99]])
    undecided = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    agreed = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    pool = saying(torch.stack([undecided, agreed, certain_but_divided], 1))
    assert disagreement.bald(pool, 1, rng=generator()).index.tolist() == [2]
    assert disagreement.mean_std(pool, 1, rng=generator()).index.tolist() == [2]
    by_entropy = registry.component("selectors", "mc-entropy")(pool, 3, rng=generator()).index.tolist()
    assert by_entropy == [0, 2, 1]  # which cannot tell the two apart


def test_mean_std_is_numpys() -> None:
    p = passes(7, 60, 4)
    expected = p.numpy().std(axis=0).mean(axis=1)
    picks = disagreement.mean_std(saying(p), 15, rng=generator()).index
    assert picks.tolist() == (-torch.from_numpy(expected)).argsort(stable=True)[:15].tolist()


def test_vote_entropy_is_counted_by_hand() -> None:
    pool = trained_pool(*clusters(40, seed=1))
    picks = disagreement.vote_entropy(pool, 40, rng=generator(), nets=5).index
    votes = torch.stack([member.predictions for member in pool.committee(5)])
    entropy = []
    for column in votes.T.tolist():
        shares = [column.count(c) / 5 for c in set(column)]
        entropy.append(-sum(s * math.log(s) for s in shares))
    ranked = torch.tensor(entropy)[picks]
    assert (ranked.diff() <= 1e-6).all()
    assert ranked[0] > ranked[-1]


def test_the_first_pick_of_batch_bald_is_balds() -> None:
    for seed in range(5):
        pool = saying(passes(8, 60, 4, seed))
        first = batch_bald(pool, 1, rng=generator()).index
        assert torch.equal(first, disagreement.bald(pool, 1, rng=generator()).index)


@pytest.mark.parametrize("seed", range(4))
def test_batch_bald_follows_the_greedy_enumeration(seed: int) -> None:
    p = sorted_by_bald(passes(5, 12, 3, seed))
    expected: tuple[int, ...] = ()
    for _ in range(4):
        rest = [i for i in range(12) if i not in expected]
        expected += (max(rest, key=lambda i: joint_information(p, (*expected, i))),)
    assert greedy_joint(p, 4, 1000, generator()).tolist() == list(expected)
    best = max(joint_information(p, rows) for rows in itertools.combinations(range(12), 3))
    assert joint_information(p, expected[:3]) >= (1 - 1 / math.e) * best


def test_a_gain_is_the_difference_of_joint_informations() -> None:
    p = sorted_by_bald(passes(5, 8, 3, seed=9))
    labellings = disagreement.Labellings(p, 1000, generator())
    for row in (2, 5):
        labellings.add(p[:, row])
    gains = labellings.gains(p)
    before = joint_information(p, (2, 5))
    for row in range(8):
        assert gains[row] == pytest.approx(joint_information(p, (2, 5, row)) - before, abs=1e-5)
    assert labellings.share.sum() == pytest.approx(1)
    assert len(labellings.share) == 9


def test_drawn_labellings_estimate_the_gains_of_all() -> None:
    p = sorted_by_bald(passes(6, 10, 3, seed=4, sharp=1.0))
    exact, drawn = disagreement.Labellings(p, 10_000, generator()), disagreement.Labellings(p, 2500, generator(1))
    for row in range(8):  # 3^8 = 6561 labellings
        exact.add(p[:, row])
        drawn.add(p[:, row])
    assert (len(exact.share), len(drawn.share)) == (6561, 2500)
    a, b = exact.gains(p), drawn.gains(p)
    assert torch.allclose(a, b, atol=0.01)
    assert (b >= 0).all()


def test_a_duplicate_loses() -> None:
    """BALD takes all copies of the best before the second best; BatchBALD takes one."""
    p = sorted_by_bald(passes(8, 20, 4, seed=3))
    copied = torch.cat([p[:, :1].expand(-1, 5, -1), p[:, 1:]], 1)
    pool = saying(copied)
    assert set(disagreement.bald(pool, 5, rng=generator()).index.tolist()) == {0, 1, 2, 3, 4}
    together = batch_bald(pool, 5, rng=generator()).index.tolist()
    assert len(set(together) & {0, 1, 2, 3, 4}) == 1


def test_rounds_begin_anew_when_nothing_is_left_to_learn() -> None:
    """Two certain nets that disagree are told apart by one label: more picks of that kind still come before others."""
    divided = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, None].expand(-1, 6, -1)
    agreed = torch.tensor([[0.5, 0.5], [0.5, 0.5]])[:, None].expand(-1, 4, -1)
    pool = saying(torch.cat([agreed, divided], 1))
    picks = batch_bald(pool, 8, rng=generator()).index.tolist()
    assert set(picks[:6]) == set(range(4, 10))
    assert len(set(picks)) == 8


def test_a_large_budget_ends_and_few_candidates_leave_the_least_informative_out() -> None:
    pool = saying(passes(10, 400, 5, sharp=1.0))
    assert len(batch_bald(pool, 300, rng=generator(), candidates=50, configurations=50).index.unique()) == 300
    best = disagreement.bald(pool, 30, rng=generator()).index
    assert set(batch_bald(pool, 10, rng=generator(), candidates=30).index.tolist()) <= set(best.tolist())


def test_together_they_tell_more_than_those_of_bald_and_of_chance() -> None:
    p = passes(8, 100, 3, seed=2)
    p = torch.cat([p, p[:, informations(p).topk(10).indices]], 1)
    pool = saying(p)
    together = joint_information(p, tuple(batch_bald(pool, 4, rng=generator()).index.tolist()))
    alone = joint_information(p, tuple(disagreement.bald(pool, 4, rng=generator()).index.tolist()))
    drawn = [joint_information(p, tuple(torch.randperm(110, generator=generator(s))[:4].tolist())) for s in range(20)]
    assert together > alone > sum(drawn) / 20


# draws by a power of the score


@pytest.mark.parametrize("coldness", [math.inf, 1e7])
def test_power_bald_becomes_bald_as_it_cools(coldness: float) -> None:
    pool = saying(passes(6, 60, 4, seed=5))
    for budget in (1, 13, 60):
        cold = power_bald(pool, budget, rng=generator(3), coldness=coldness).index
        assert torch.equal(cold, bald(pool, budget, rng=generator(3)).index)


def test_power_bald_differs_by_rng_and_follows_the_score() -> None:
    pool = saying(passes(6, 60, 4, seed=5))
    first, second = (power_bald(pool, 15, rng=generator(seed)).index for seed in range(2))
    assert set(first.tolist()) != set(second.tolist())
    assert torch.equal(first, power_bald(pool, 15, rng=generator(0)).index)
    score = informations(pool.stochastic(6, generator()))

    def mean(coldness: float) -> float:
        picks = [power_bald(pool, 15, rng=generator(seed), coldness=coldness).index for seed in range(40)]
        return float(score[torch.stack(picks)].mean())

    warm, drawn, cold = (mean(coldness) for coldness in (0.0, 1.0, 8.0))
    assert warm == pytest.approx(float(score.mean()), rel=0.1)  # as if drawn uniformly
    assert warm < drawn < cold < float(score.topk(15).values.mean())


@pytest.mark.parametrize("coldness", [0.5, 1.0, 3.0])
def test_inclusion_follows_the_power_of_the_score(coldness: float) -> None:
    """Against every order of two draws without replacement, P(i, j) = w_i · w_j / (1 − w_i)."""
    score = torch.tensor([0.1, 0.2, 0.3, 0.6, 0.0])
    w = score.double().pow(coldness)
    w = (w / w.sum()).tolist()
    expected = {(i, j): w[i] * w[j] / (1 - w[i]) for i, j in itertools.permutations(range(4), 2)}
    rng, draws, counts = generator(1), 6000, dict.fromkeys(expected, 0)
    for _ in range(draws):
        first, second = powered(score, 2, coldness, rng).tolist()
        counts[first, second] += 1  # the sample of score 0 is never among them
    assert stats.chisquare([*counts.values()], [draws * p for p in expected.values()]).pvalue > 0.001


def test_scores_of_zero_come_last_and_by_chance() -> None:
    score = torch.tensor([0.0, 2.0, 0.0, torch.nan, 1.0, 0.0])
    orders = {tuple(powered(score, 6, 1.0, generator(seed)).tolist()) for seed in range(20)}
    assert all(set(order[:2]) == {1, 4} for order in orders)
    assert len({order[2:] for order in orders}) > 5
    assert len({tuple(powered(score, 6, 0.0, generator(seed)).tolist()[:2]) for seed in range(20)}) > 5
    for coldness in (-1.0, math.nan):
        with pytest.raises(InputError, match=r"coldness: found .*, allowed: from 0 to inf"):
            power_bald(saying(passes(4, 5, 3)), 2, rng=generator(), coldness=coldness)
