"""k-center and herding: bounds by brute force, the pruned form against the plain one, what must not matter."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from clsim.pool.pool import Pool, Selection
from clsim.selectors import farthest
from clsim.selectors.farthest import farthest_first, plain_farthest_first
from clsim.selectors.herding import herding
from clsim.selectors.kcenter import k_center, k_center_pca, k_center_robust
from clsim.selectors.points import Points, points
from tests.helpers import generator, pool_of, vectors
from tests.helpers import points as gaussian


def clustered(n: int, d: int = 8, seed: int = 0) -> Tensor:
    centres = 5 * gaussian(7, d, seed + 100)
    return gaussian(n, d, seed) + centres[torch.randint(7, (n,), generator=generator(seed))]


def beside(x: Tensor, labelled: Tensor) -> Pool:
    """A pool with labelled samples."""
    pool = pool_of(x)
    return Pool(pool.data, pool.net, lambda x: x, labelled=vectors(labelled, first=len(x)))


def distances(x: Tensor, chosen: Tensor | list[int]) -> Tensor:
    return torch.cdist(x.double(), x[chosen].double()).min(1).values


def random_rows(n: int, m: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed))[:m]


SELECTORS = [k_center, k_center_pca, k_center_robust, herding]


@pytest.mark.parametrize("seed", range(8))
def test_every_prefix_of_k_center_is_within_twice_the_best_radius(seed: int) -> None:
    x = gaussian(11, 2, seed)
    index = k_center(pool_of(x), 5, rng=generator()).index
    for k in range(1, 6):
        best = min(float(distances(x, list(chosen)).max()) for chosen in combinations(range(11), k))
        assert best <= float(distances(x, index[:k]).max()) + 1e-9
        assert float(distances(x, index[:k]).max()) <= 2 * best + 1e-6


@pytest.mark.parametrize("make", [gaussian, clustered])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_pruned_form_picks_what_the_plain_form_picks(make, normalise: bool, seed: int) -> None:
    candidates = points(make(600, 8, seed), normalise=normalise)
    for budget in (1, 2, 150):
        plain = plain_farthest_first(candidates, budget, None)
        assert torch.equal(farthest_first(candidates, budget, small=0), plain)


def test_the_pruned_form_knows_of_earlier_centres() -> None:
    candidates = points(clustered(500))
    near = candidates.nearest_of(clustered(4, seed=9))
    plain = plain_farthest_first(candidates, 80, near)
    assert torch.equal(farthest_first(candidates, 80, near, small=0), plain)


def test_the_pruned_form_compares_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, product = 0, torch.addmm

    def counted(added: Tensor, a: Tensor, b: Tensor, *, alpha: float) -> Tensor:
        nonlocal looked
        looked += a.shape[0] * b.shape[1]
        return product(added, a, b, alpha=alpha)

    monkeypatch.setattr(farthest.torch, "addmm", counted)
    farthest_first(points(gaussian(4000, 64)), 200, small=0)
    assert 0 < looked < 4000 * 200 / 4


def exactly(candidates: Points, budget: int, near: Tensor | None = None) -> list[int]:
    """Farthest-first by all distances in float64, from differences; of equals, the first."""
    scale = 1 if candidates.scale is None else candidates.scale[:, None].double()
    x = (candidates.features.double() * scale).numpy()
    chosen: list[int] = []
    least = np.full(len(x), np.inf) if near is None else near.double().sqrt().numpy()
    while len(chosen) < budget:
        best = int(candidates.squares.argmin()) if np.isinf(least).all() else int(least.argmax())
        chosen.append(best)
        least = np.minimum(least, np.sqrt(((x - x[best]) ** 2).sum(1)))
        least[chosen] = -1
    return chosen


def lattice(n: int, d: int) -> Tensor:
    return torch.randint(5, (n, d), generator=generator(3)).float()


def with_outliers(n: int, d: int) -> Tensor:
    x = gaussian(n, d)
    x[torch.randperm(n, generator=generator(1))[:5]] *= torch.tensor([1e2, 1e3, 1e3, 1e4, 1e5])[:, None]
    return x


TRAPS = {
    "all but a few are duplicates": lambda: gaussian(20, 6).repeat(50, 1),
    "each row twice": lambda: gaussian(500, 6).repeat(2, 1),
    "one point many times": lambda: torch.cat([gaussian(300, 6), torch.zeros(700, 6)]),
    "distances that are equal": lambda: lattice(1000, 4),
    "many at the same distance": lambda: torch.cat([torch.eye(500), -torch.eye(500)]),
    "outliers": lambda: with_outliers(1000, 6),
    "far from the origin": lambda: gaussian(1000, 6) + 1000,
    "one and the same": lambda: torch.ones(300, 3),
    "as many dimensions as matter": lambda: clustered(1000, 64),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("earlier", [False, True])
def test_the_pruned_form_is_exact_where_distances_are_equal_or_nearly(trap: str, earlier: bool) -> None:
    x = TRAPS[trap]()
    candidates = points(x)
    near = candidates.nearest_of(x[::97] + 0.5) if earlier else None
    budget = 250
    assert farthest_first(candidates, budget, near, small=0).tolist() == exactly(candidates, budget, near)


def test_lengths_of_one_make_no_difference_to_exactness() -> None:
    candidates = points(lattice(1000, 4) - 2, normalise=True)
    assert farthest_first(candidates, 200, small=0).tolist() == exactly(candidates, 200)


def test_features_that_are_no_numbers_end_a_choice_as_before() -> None:
    x = gaussian(100, 4)
    x[7, 2] = torch.nan
    assert len(farthest_first(points(x), 20, small=0)) == 20


@pytest.mark.parametrize("normalise", [False, True])
def test_herding_is_that_of_its_equation(normalise: bool) -> None:
    x = gaussian(200, 12).double()
    x = x / x.norm(dim=1, keepdim=True) if normalise else x
    expected: list[int] = []
    for i in range(30):
        gap = ((i + 1) * x.mean(0) - x[expected].sum(0) - x).norm(dim=1)
        gap[expected] = torch.inf
        expected.append(int(gap.argmin()))
    found = herding(pool_of(gaussian(200, 12)), 30, rng=generator(), normalise=normalise)
    assert found.index.tolist() == expected


@pytest.mark.parametrize("n", [2, 3, 40])
def test_the_pruned_form_takes_all_where_all_are_asked_for(n: int) -> None:
    for x in (gaussian(n), torch.zeros(n, 3), gaussian(2).repeat(n, 1)[:n]):
        index = farthest_first(points(x), n, small=0)
        assert index.sort().values.tolist() == list(range(n))
    assert farthest_first(points(gaussian(n)), 0, small=0).tolist() == []


def test_duplicates_come_after_everything_else() -> None:
    x = gaussian(30).repeat(4, 1)
    for index in (k_center(pool_of(x), 30, rng=generator()).index, farthest_first(points(x), 30, small=0)):
        assert len((index % 30).unique()) == 30


def test_k_center_goes_on_from_what_is_labelled() -> None:
    x, labelled = gaussian(40), gaussian(5, seed=3) + 1
    expected: list[int] = []
    for _ in range(10):
        centres = torch.cat([labelled, x[expected]])
        expected.append(int(torch.cdist(x, centres).min(1).values.argmax()))
    assert k_center(beside(x, labelled), 10, rng=generator()).index.tolist() == expected
    assert k_center_pca(beside(x, labelled), 10, rng=generator()).index.tolist() == expected


@pytest.mark.parametrize("select", SELECTORS)
@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_prefix_is_the_selection_of_that_size(select, n: int) -> None:
    if select is k_center_robust and n == 2:
        n = 60
    pool = pool_of(gaussian(n, 60))
    whole = select(pool, n, rng=generator()).index
    assert whole.sort().values.tolist() == list(range(n))
    for budget in {0, 1, n // 2}:
        assert torch.equal(whole[:budget], select(pool, budget, rng=generator()).index)


@pytest.mark.parametrize("select", SELECTORS)
def test_where_the_features_lie_and_how_they_are_turned_does_not_matter(select) -> None:
    x = clustered(60, 8)
    rotation = torch.linalg.qr(gaussian(8, 8, 5)).Q
    options = {"normalise": False} if select is herding else {}
    first = select(pool_of(x), 12, rng=generator(), **options).index
    assert torch.equal(select(pool_of(x @ rotation), 12, rng=generator(), **options).index, first)
    assert torch.equal(select(pool_of(x + 100), 12, rng=generator(), **options).index, first)


def test_on_principal_components_what_varies_little_does_not_matter() -> None:
    signal = gaussian(80, 4)
    noise = 1e-4 * gaussian(80, 60, 1)
    turned = torch.cat([signal, noise], 1) @ torch.linalg.qr(gaussian(64, 64, 2)).Q
    picked = k_center_pca(pool_of(turned), 20, rng=generator(), width=4).index
    assert torch.equal(picked, k_center(pool_of(signal), 20, rng=generator()).index)
    narrow = k_center(pool_of(signal), 20, rng=generator())
    assert torch.equal(k_center_pca(pool_of(signal), 20, rng=generator()).index, narrow.index)


@pytest.mark.parametrize("seed", range(6))
def test_robust_k_center_is_within_twice_the_best_radius_with_outliers(seed: int) -> None:
    n, k, fraction, skipped = 10, 2, 0.2, 2

    def radius(x: Tensor, chosen: list[int]) -> float:
        return float(distances(x, chosen).sort(descending=True).values[skipped])

    x = gaussian(n, 2, seed)
    x[3] += 50
    best = min(radius(x, list(chosen)) for chosen in combinations(range(n), k))
    picked = k_center_robust(pool_of(x), k + skipped, rng=generator(), outliers=fraction).index.tolist()
    assert radius(x, picked) <= 2 * best + 1e-6
    assert 3 not in picked
    assert 3 in k_center(pool_of(x), 2, rng=generator()).index.tolist()


def test_without_outliers_robust_k_center_is_k_center() -> None:
    pool = pool_of(gaussian(50))
    plain = k_center(pool, 20, rng=generator()).index
    assert torch.equal(k_center_robust(pool, 20, rng=generator(), outliers=0.0).index, plain)


@pytest.mark.parametrize("select", [k_center, k_center_pca, k_center_robust])
def test_k_center_covers_more_than_chance(select) -> None:
    ours = drawn = 0.0
    for seed in range(10):
        x = clustered(300, 60, seed)
        kept = select(pool_of(x), 10, rng=generator()).index
        ours += float(distances(x, kept).quantile(0.9))
        drawn += sum(float(distances(x, random_rows(300, 10, s)).quantile(0.9)) for s in range(10)) / 10
    assert ours < 0.9 * drawn


@pytest.mark.parametrize("normalise", [True, False])
def test_herding_keeps_the_mean_far_better_than_chance(normalise: bool) -> None:
    def error(index: Tensor, x: Tensor) -> float:
        return float((x[index].mean(0) - x.mean(0)).norm())

    herded = drawn = 0.0
    for seed in range(20):
        x = clustered(400, 16, seed) + 3
        kept: Selection = herding(pool_of(x), 20, rng=generator(), normalise=normalise)
        x = x / x.norm(dim=1, keepdim=True) if normalise else x
        herded += error(kept.index, x)
        drawn += error(random_rows(400, 20, seed), x)
    assert herded < drawn / 2


def test_points_are_never_written_out_but_are_what_they_say() -> None:
    features = gaussian(50, 6) + 20
    for normalise in (False, True):
        z = features / features.norm(dim=1, keepdim=True) if normalise else features
        z = z - z.mean(0)
        about_mean = points(features, normalise=normalise)
        direction = gaussian(1, 6, 4)[0]
        torch.testing.assert_close(about_mean[torch.arange(50)], z, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(about_mean.squares, z.square().sum(1), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(about_mean.along(direction), z @ direction, atol=1e-4, rtol=1e-4)
        others = gaussian(4, 6, 8) + 20
        there = others / others.norm(dim=1, keepdim=True) if normalise else others
        here = features / features.norm(dim=1, keepdim=True) if normalise else features
        expected = torch.cdist(here.double(), there.double()).min(1).values.square().float()
        torch.testing.assert_close(about_mean.nearest_of(others), expected, atol=1e-4, rtol=1e-3)
