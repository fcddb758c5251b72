"""Max-herding and uncertainty herding against enumeration, dense re-computation and each other."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.pool.pool import Pool
from clsim.selectors import max_herding as module
from clsim.selectors.max_herding import max_herding, smallest_distance, uncertainty_herding
from tests.helpers import generator, points, pool_of, vectors
from tests.selectors.test_traps import on


def beside(x: Tensor, labelled: Tensor | None) -> Pool:
    """A pool whose features are ``x``, with labelled samples."""
    pool = pool_of(x, torch.arange(len(x)) % 3)
    if labelled is None:
        return pool
    return Pool(pool.data, pool.net, lambda x: x, labelled=vectors(labelled, first=len(x)))


def kernel(a: Tensor, b: Tensor, sigma: float) -> Tensor:
    """k of all pairs, from differences in float64: (n, m)."""
    return torch.exp(-(a.double()[:, None] - b.double()).square().sum(2) / sigma**2)


def coverage(
    x: Tensor, chosen: Tensor | list[int] | tuple[int, ...], labelled: Tensor | None, sigma: float, u: Tensor
) -> float:
    centres = x[torch.as_tensor(chosen, dtype=torch.int64)]
    centres = centres if labelled is None else torch.cat([centres, labelled])
    best = kernel(x, centres, sigma).max(1).values if len(centres) else torch.zeros(len(x))
    return float((u * best).sum())


def regrets(x: Tensor, index: Tensor, labelled: Tensor | None, sigma: float, u: Tensor) -> list[float]:
    """What each pick gains less than the best one would, by computing the coverage of every extension anew."""
    found, chosen = [], []
    for pick in index.tolist():
        extensions = [coverage(x, [*chosen, i], labelled, sigma, u) for i in range(len(x)) if i not in chosen]
        chosen.append(pick)
        found.append(max(extensions) - coverage(x, chosen, labelled, sigma, u))
    return found


def margins(pool: Pool) -> Tensor:
    top = pool.probabilities.double().topk(2, 1).values
    found = 1 - (top[:, 0] - top[:, 1])
    return found / found.max()


LABELLED = [None, points(3, seed=50)]


@pytest.mark.parametrize("labelled", LABELLED, ids=["nothing-labelled", "three-labelled"])
@pytest.mark.parametrize("seed", range(6))
def test_the_picks_are_those_of_a_dense_greedy_and_near_the_optimum(seed: int, labelled: Tensor | None) -> None:
    """One pick is the best one; two and three gain at least 1 − 1/e of what the best sets gain."""
    x, sigma = points(12, seed=seed), 1.7
    pool = beside(x, labelled)
    for u, select in ((torch.ones(12), max_herding), (margins(pool), uncertainty_herding)):
        index = select(pool, 3, rng=generator(), metric="euclidean", lengthscale=sigma).index
        assert max(regrets(x, index, labelled, sigma, u)) < 2e-5
        before = coverage(x, [], labelled, sigma, u)
        for b in (1, 2, 3):
            best = max(coverage(x, chosen, labelled, sigma, u) for chosen in combinations(range(12), b)) - before
            ours = coverage(x, index[:b], labelled, sigma, u) - before
            assert best + 1e-9 >= ours >= (best - 2e-5 if b == 1 else (1 - 1 / torch.e) * best)


@pytest.mark.parametrize("select", [max_herding, uncertainty_herding])
def test_drawn_clients_stand_for_all(select, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3,000 samples 600 cover almost as well as all; as many clients as samples change nothing."""
    pool, options = beside(points(3000, seed=3), points(3, seed=50)), {"metric": "euclidean", "lengthscale": 1.5}
    exact = select(pool, 20, rng=generator(), **options).index
    assert torch.equal(select(pool, 20, rng=generator(), clients=3000, **options).index, exact)
    monkeypatch.setattr(module, "DENSE", 600 * 3000)
    monkeypatch.setattr(module, "LEAST", 1)
    drawn = select(pool, 20, rng=generator(), **options).index
    assert torch.equal(select(pool, 20, rng=generator(), clients=600, **options).index, drawn)
    u = torch.ones(3000) if select is max_herding else margins(pool)
    best, near, chance = (
        coverage(pool.features, rows, points(3, seed=50), 1.5, u)
        for rows in (exact, drawn, torch.randperm(3000, generator=generator())[:20])
    )
    assert 0.97 * best < near < best
    assert chance < 0.9 * best


def test_directions_are_compared_by_default_with_a_lengthscale_of_one() -> None:
    x = points(40, seed=1) * torch.linspace(0.2, 9, 40)[:, None]
    index = max_herding(pool_of(x), 8, rng=generator()).index
    assert max(regrets(F.normalize(x), index, None, 1.0, torch.ones(40))) < 2e-5
    assert max(regrets(x, index, None, 1.0, torch.ones(40))) > 0.1


def test_of_equal_gains_the_larger_key_comes_first() -> None:
    """Two samples that are alone with each other gain the same; the order of the pool does not decide."""
    x = torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    for key in ([0.2, 0.9], [0.9, 0.2]):
        pool = pool_of(x, key=torch.tensor(key))
        best = int(max_herding(pool, 1, rng=generator(), metric="euclidean").index)
        assert key[best] == 0.9


def test_what_is_labelled_is_covered() -> None:
    """Two clusters, of 30 and of 10 samples: the first pick is of the larger one unless it is labelled."""
    x = torch.cat([0.1 * points(30), 0.1 * points(10, seed=1) + 5])
    options = {"metric": "euclidean", "lengthscale": 1.0}
    assert int(max_herding(beside(x, None), 1, rng=generator(), **options).index) < 30
    assert int(max_herding(beside(x, x[:1]), 1, rng=generator(), **options).index) >= 30


def test_each_cluster_is_covered_which_chance_does_not_do() -> None:
    ours = chance = 0
    for seed in range(5):
        which = (torch.rand(240, generator=generator(seed)) ** 1.5 * 6).long()
        x = points(240, 8, seed) + 8 * points(6, 8, seed + 100)[which]
        ours += len(which[max_herding(pool_of(x), 6, rng=generator()).index].unique())
        chance += len(which[torch.randperm(240, generator=generator(seed))[:6]].unique())
    assert chance < 25 < 29 <= ours + 1


# uncertainties


@pytest.mark.parametrize("labelled", LABELLED, ids=["nothing-labelled", "three-labelled"])
@pytest.mark.parametrize("uncertainty", ["margin", "least-confidence", "entropy"])
def test_with_equal_uncertainties_it_is_max_herding(uncertainty: str, labelled: Tensor | None) -> None:
    for scale in (0.0, 1e4):  # uniform predictions; then certain ones, where all count alike
        pool = beside(points(60, seed=4), labelled)
        with torch.no_grad():
            pool.net.head.weight.mul_(0.0)
            pool.net.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]) * scale)
        options = {"lengthscale": 0.7, "uncertainty": uncertainty}
        index = uncertainty_herding(pool, 20, rng=generator(), **options).index
        assert torch.equal(index, max_herding(pool, 20, rng=generator(), lengthscale=0.7).index)


@pytest.mark.parametrize("uncertainty", ["margin", "least-confidence", "entropy"])
def test_with_a_short_lengthscale_it_takes_the_most_uncertain(uncertainty: str) -> None:
    pool = on(2 * points(50, seed=2))
    p = pool.probabilities
    score = {"margin": margins(pool), "least-confidence": 1 - p.amax(1), "entropy": torch.special.entr(p).sum(1)}
    options = {"metric": "euclidean", "lengthscale": 1e-4, "uncertainty": uncertainty}
    index = uncertainty_herding(pool, 10, rng=generator(), **options).index
    assert torch.equal(index, score[uncertainty].argsort(descending=True)[:10])


def test_certain_samples_need_no_cover() -> None:
    """The larger cluster is certain, the smaller one open."""
    certain, open_ = 0.1 * points(30) + torch.tensor([30.0, 0, 0, 0]), 0.1 * points(5, seed=1)
    pool = on(torch.cat([certain, open_]))
    options = {"metric": "euclidean", "lengthscale": 1.0}
    assert int(max_herding(pool, 1, rng=generator(), **options).index) < 30
    assert int(uncertainty_herding(pool, 1, rng=generator(), **options).index) >= 30


def test_a_high_temperature_levels_uncertainties() -> None:
    pool = on(2 * points(60, seed=5))
    warm = uncertainty_herding(pool, 10, rng=generator(), lengthscale=0.5, temperature=1e8).index
    assert torch.equal(warm, max_herding(pool, 10, rng=generator(), lengthscale=0.5).index)
    assert not torch.equal(warm, uncertainty_herding(pool, 10, rng=generator(), lengthscale=0.5).index)


def test_the_lengthscale_is_the_smallest_distance_between_labelled_samples() -> None:
    labelled = torch.tensor([[0.0, 0, 0, 0], [3, 0, 0, 0], [3, 1.5, 0, 0], [3, 1.5, 0, 0]])
    assert smallest_distance(labelled) == 1.5  # not that of the two that are equal
    assert smallest_distance(labelled[:1]) == smallest_distance(labelled[2:]) == smallest_distance(labelled[:0]) == 1
    pool = beside(points(40, seed=6), labelled)
    for select in (max_herding, uncertainty_herding):
        found = select(pool, 12, rng=generator(), metric="euclidean", lengthscale=0.0).index
        assert torch.equal(found, select(pool, 12, rng=generator(), metric="euclidean", lengthscale=1.5).index)


def test_settings_without_sense_are_refused() -> None:
    pool = beside(points(9), None)
    for options, words in (
        ({"lengthscale": -1.0}, "lengthscale: found -1.0"),
        ({"temperature": 0.0}, "temperature: found 0.0"),
        ({"uncertainty": "margins"}, "uncertainty: found 'margins'; did you mean 'margin'"),
        ({"clients": 0}, "clients"),
    ):
        with pytest.raises(InputError, match=words):
            uncertainty_herding(pool, 2, rng=generator(), **options)
