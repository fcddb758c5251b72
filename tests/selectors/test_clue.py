"""CLUE: weighted k-means against plain k-means, repeated rows and a slow Lloyd's step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool
from clsim.selectors.clusters import clue, k_means, k_means_clusters, means, representatives
from tests.helpers import generator, points
from tests.selectors.test_traps import on


def blobs(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Eight clusters in six dimensions of which the net sees none, and two more whose distance is its certainty."""
    which = torch.arange(160) % 8
    place = torch.cat([0.3 * points(160, 6, seed) + 6 * points(8, 6, 77)[which], torch.zeros(160, 2)], 1)
    return place, which


def seen(x: Tensor, *, sure: Tensor) -> Pool:
    """A pool under a net of two classes whose logits are ±``sure``, which is the last feature but one."""
    x = x.clone()
    x[:, -2] = sure
    pool = on(x)
    with torch.no_grad():
        weight = torch.zeros_like(pool.net.head.weight)
        weight[0, -2], weight[1, -2] = 1.0, -1.0
        pool.net.head.weight.copy_(weight)
        pool.net.head.bias.copy_(torch.tensor([0.0, 0.0] + [-1e4] * (len(weight) - 2)))
    return pool


@pytest.mark.parametrize("level", [0.0, 0.7, 1e4])
@pytest.mark.parametrize("seed", range(3))
def test_equal_entropies_make_the_picks_of_k_means(level: float, seed: int) -> None:
    """Also where all are 0."""
    pool = seen(blobs(seed)[0], sure=torch.full((160,), level))
    for budget in (1, 8, 30):
        plain = k_means(pool, budget, rng=generator(seed)).index
        assert torch.equal(clue(pool, budget, rng=generator(seed)).index, plain)


def test_whole_weights_are_repeated_rows() -> None:
    x = points(60, 3)
    times = torch.randint(1, 5, (60,), generator=generator(1))
    cluster = torch.randint(4, (60,), generator=generator(2))
    repeated = means(x.repeat_interleave(times, 0), cluster.repeat_interleave(times))
    torch.testing.assert_close(means(x, cluster, times.float()), repeated)
    assert torch.equal(means(x, cluster, torch.ones(60)), means(x, cluster))


@pytest.mark.parametrize("seed", range(3))
def test_the_clusters_are_a_fixed_point_of_the_weighted_iteration(seed: int) -> None:
    x, weight = points(120, 3, seed), torch.rand(120, generator=generator(seed)) ** 3 + 1e-3
    cluster = k_means_clusters(x, 7, generator(seed), iterations=1000, weight=weight)
    centre = torch.stack([(weight[cluster == c, None] * x[cluster == c]).sum(0) / weight[cluster == c].sum()
                          for c in range(7)])  # fmt: skip
    assert torch.equal(torch.cdist(x, centre).argmin(1), cluster)
    assert not torch.equal(torch.cdist(x, means(x, cluster)).argmin(1), cluster)
    nearest = [int((x - centre[c]).norm(dim=1).where(cluster == c, torch.inf).argmin()) for c in range(7)]
    heaviest = torch.stack([weight[cluster == c].sum() for c in range(7)]).argsort(descending=True)
    assert representatives(x, cluster, weight)[:7].tolist() == [nearest[c] for c in heaviest.tolist()]


def test_certain_clusters_are_left_out_and_chance_does_not_do_that() -> None:
    """Four of eight clusters are certain: with four picks, each open cluster gives one."""
    chance = 0
    for seed in range(5):
        x, which = blobs(seed)
        pool = seen(x, sure=torch.where(which < 4, 0.0, 9.0))
        assert sorted(which[clue(pool, 4, rng=generator(seed)).index].tolist()) == [0, 1, 2, 3]
        chance += int((which[torch.randperm(160, generator=generator(seed))[:4]] < 4).sum())
        assert sorted(which[k_means(pool, 8, rng=generator(seed)).index].tolist()) == list(range(8))
    assert chance < 15


def test_a_high_temperature_levels_the_weights() -> None:
    x, which = blobs()
    pool = seen(x, sure=torch.where(which < 4, 0.0, 9.0))
    warm = clue(pool, 6, rng=generator(), temperature=1e6).index
    assert torch.equal(warm, k_means(pool, 6, rng=generator()).index)
    with pytest.raises(InputError, match="temperature: found 0"):
        clue(pool, 6, rng=generator(), temperature=0.0)
