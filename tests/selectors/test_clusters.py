"""Clusters, typical samples, covers: against plain loops and brute force, and better than chance at what they claim."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import pytest
import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool
from clsim.selectors.clusters import agglomerative, agglomerative_clusters, k_means, k_means_clusters
from clsim.selectors.dacs import dacs, group_shares, natural_breaks
from clsim.selectors.kcenter import k_center
from clsim.selectors.medoids import k_medoids
from clsim.selectors.probcover import prob_cover, pure_radius
from clsim.selectors.typicality import centre_of_gravity, density, typiclust, usl
from tests.helpers import generator, points, pool_of, vectors

ALL = [k_means, k_medoids, agglomerative, typiclust, usl, density, centre_of_gravity, prob_cover, dacs]


def clustered(n: int, clusters: int = 6, seed: int = 0, d: int = 8) -> tuple[Tensor, Tensor]:
    """Well separated clusters, and which one each row is of; the first is the largest."""
    centres = 8 * points(clusters, d, seed + 100)
    which = (torch.rand(n, generator=generator(seed)) ** 1.5 * clusters).long()
    return points(n, d, seed) + centres[which], which


def beside(x: Tensor, labelled: Tensor) -> Pool:
    pool = pool_of(x)
    return Pool(pool.data, pool.net, lambda x: x, labelled=vectors(labelled, first=len(x)))


def drawn(n: int, m: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=generator(seed))[:m]


def picked(select, x: Tensor, budget: int, seed: int = 0, **options) -> list[int]:
    return select(pool_of(x), budget, rng=generator(seed), **options).index.tolist()


def in_sum(x: Tensor, chosen: Tensor | list[int] | tuple[int, ...]) -> float:
    return float(torch.cdist(x.double(), x[torch.as_tensor(chosen)].double()).min(1).values.sum())


@pytest.mark.parametrize("select", ALL)
def test_trouble_is_survived(select) -> None:
    for x in (points(1), points(2), torch.zeros(9, 3), points(3).repeat(5, 1), points(1).repeat(4, 1)):
        for budget in {0, 1, len(x) // 2, len(x), len(x) + 3}:
            index = select(pool_of(x), budget, rng=generator()).index
            assert len(index) == len(index.unique()) == min(budget, len(x))
    index = select(beside(points(12), points(4, seed=1)), 5, rng=generator()).index
    assert len(index.unique()) == 5


@pytest.mark.parametrize("select", ALL)
def test_where_the_features_lie_and_how_they_are_turned_does_not_matter(select) -> None:
    x, _ = clustered(80)
    rotation = torch.linalg.qr(points(8, 8, 5)).Q
    first = set(picked(select, x, 6, metric="euclidean"))
    assert set(picked(select, x @ rotation, 6, metric="euclidean")) == first
    assert set(picked(select, x + 20, 6, metric="euclidean")) == first
    lengths = torch.linspace(0.5, 9, 80)[:, None]
    by_angle = set(picked(select, x, 6, metric="cosine"))
    assert set(picked(select, x * lengths, 6, metric="cosine")) == by_angle
    with pytest.raises(InputError, match="metric: found 'cosin'; did you mean 'cosine'"):
        picked(select, x, 6, metric="cosin")


@pytest.mark.parametrize("select", [k_means, k_medoids, agglomerative, typiclust, usl, prob_cover, k_center])
def test_each_cluster_is_represented_which_chance_does_not_do(select) -> None:
    ours = chance = 0
    for seed in range(5):
        x, which = clustered(240, seed=seed)
        options = {"radius": 6.0} if select is prob_cover else {}
        ours += len(which[picked(select, x, 6, metric="euclidean", **options)].unique())
        chance += len(which[drawn(240, 6, seed)].unique())
    assert chance < 25 < 29 <= ours + 1


@pytest.mark.parametrize("select", [k_means, agglomerative])
def test_the_sample_nearest_each_centre_comes_by_the_size_of_its_cluster(select) -> None:
    x, which = clustered(120, 4)
    index = picked(select, x, 4)
    clusters = k_means_clusters if select is k_means else agglomerative_clusters
    cluster = clusters(x, 4, generator())
    expected = []
    for c in sorted(range(4), key=lambda c: -int((cluster == c).sum())):
        rows = (cluster == c).nonzero().flatten()
        expected.append(int(rows[(x[rows] - x[rows].mean(0)).norm(dim=1).argmin()]))
    assert index == expected
    assert len(which[index].unique()) == 4


def test_k_means_lowers_its_objective_far_below_that_of_chance() -> None:
    for seed in range(5):
        x, _ = clustered(200, seed=seed)
        cluster = k_means_clusters(x, 6, generator(seed))
        inside = sum(float((x[cluster == c] - x[cluster == c].mean(0)).square().sum()) for c in range(6))
        chance = float(torch.cdist(x, x[drawn(200, 6, seed)]).min(1).values.square().sum())
        assert inside < 0.6 * chance


def test_a_large_pool_is_clustered_by_a_part_of_it() -> None:
    x, which = clustered(300, 4)
    cluster = agglomerative_clusters(x, 4, generator(), largest=80)
    assert all(len(which[cluster == c].unique()) == 1 for c in range(4))
    assert len(which[picked(agglomerative, x, 4, largest=80)].unique()) == 4


@pytest.mark.parametrize("seed", range(8))
def test_k_medoids_cannot_be_improved_by_a_swap_and_is_near_the_optimum(seed: int) -> None:
    x = points(12, 2, seed)
    chosen = picked(k_medoids, x, 3, seed)
    found, best = in_sum(x, chosen), min(in_sum(x, s) for s in combinations(range(12), 3))
    assert best - 1e-9 <= found <= 1.2 * best  # the theorem says 5
    for out in chosen:
        for new in set(range(12)) - set(chosen):
            assert in_sum(x, [*(set(chosen) - {out}), new]) >= found * (1 - 2e-5)


def test_k_medoids_swaps_as_well_in_small_blocks_and_beats_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    from clsim.selectors import distances

    x, _ = clustered(250)
    large = in_sum(x, picked(k_medoids, x, 10))
    monkeypatch.setattr(distances, "BLOCK", 250 * 8 * 3)
    small = in_sum(x, picked(k_medoids, x, 10))
    assert small == pytest.approx(large, rel=0.02)
    assert max(small, large) < 0.8 * min(in_sum(x, drawn(250, 10, s)) for s in range(20))


def typical(x: Tensor, rows: Tensor, neighbours: int) -> dict[int, float]:
    """By a plain loop, of each of these rows among them."""
    found = {}
    for i in rows.tolist():
        others = sorted(float((x[i] - x[j]).norm()) for j in rows.tolist() if j != i)[:neighbours]
        found[i] = 1 / (sum(others) / len(others) + 1e-5) if others else 0.0
    return found


def test_density_is_the_loop_over_neighbours() -> None:
    x = points(40)
    scores = typical(x, torch.arange(40), 5)
    expected = sorted(range(40), key=lambda i: -scores[i])
    assert picked(density, x, 40, metric="euclidean", neighbours=5) == expected
    assert picked(centre_of_gravity, x, 40) == (x - x.mean(0)).norm(dim=1).argsort(descending=True).tolist()


def test_centre_of_gravity_counts_what_is_labelled() -> None:
    x, labelled = points(30), points(30, seed=2) + 5
    middle = torch.cat([x, labelled]).mean(0)
    expected = (x - middle).norm(dim=1).argsort(descending=True)[:9]
    assert torch.equal(centre_of_gravity(beside(x, labelled), 9, rng=generator()).index, expected)


@pytest.mark.parametrize("with_labelled", [False, True])
def test_typiclust_is_its_loop(with_labelled: bool) -> None:
    x, _ = clustered(100, 5)
    labelled = x[:3] + 0.01 if with_labelled else x[:0]
    pool = beside(x, labelled) if with_labelled else pool_of(x)
    everything, budget = torch.cat([x, labelled]), 8
    cluster = k_means_clusters(everything, budget + len(labelled), generator(1))
    eligible = []
    for c in range(int(cluster.max()) + 1):
        rows = (cluster == c).nonzero().flatten()
        if len(rows) > 5:
            scores = typical(everything, rows, 20)
            order = sorted((i for i in rows.tolist() if i < 100), key=lambda i: -scores[i])
            eligible.append((int((rows >= 100).sum()), -len(rows), order))
    eligible.sort(key=lambda e: e[:2])
    expected = [order[turn] for turn in range(3) for _, _, order in eligible if turn < len(order)][:budget]
    found = typiclust(pool, budget, rng=generator(1), metric="euclidean").index.tolist()
    assert len({e[:2] for e in eligible}) == len(eligible)  # no two clusters alike
    assert found == expected


def test_usl_is_its_loop() -> None:
    x, _ = clustered(60, 3)
    x = x / 20
    cluster = k_means_clusters(x, 5, generator(2))
    dense = typical(x, torch.arange(60), 10)
    repulsion = dict.fromkeys(range(60), 0.0)
    chosen: list[int] = []
    for turn in range(4):
        chosen = []
        for c in range(5):
            rows = (cluster == c).nonzero().flatten().tolist()
            chosen.append(max(rows, key=lambda i: dense[i] - 1.5 * repulsion[i]))
        for i in range(60):
            pushes = [float((x[i] - x[j]).norm()) for j in chosen if cluster[i] != cluster[j]]
            push = sum(d**-0.5 for d in pushes if d < 1)
            repulsion[i] = 0.9 * repulsion[i] + 0.1 * push
        found = picked(
            usl, x, 5, 2, metric="euclidean", neighbours=10, weight=1.5, power=0.5, rounds=turn + 1, horizon=1.0
        )
        assert set(found) == set(chosen)


def covered(x: Tensor, chosen: list[int] | tuple[int, ...], radius: float) -> int:
    return int((torch.cdist(x.double(), x[list(chosen)].double()).min(1).values <= radius).sum())


@pytest.mark.parametrize("seed", range(6))
def test_prob_cover_covers_nearly_as_much_as_can_be(seed: int) -> None:
    x, radius = points(14, 2, seed), 0.6
    index = picked(prob_cover, x, 5, metric="euclidean", radius=radius)
    for k in range(1, 6):
        best = max(covered(x, s, radius) for s in combinations(range(14), k))
        assert covered(x, index[:k], radius) >= (1 - (1 - 1 / k) ** k) * best


def test_prob_cover_is_its_loop_and_halves_the_radius_when_all_is_covered() -> None:
    x, radius = points(40, 2), 1.0
    distance = torch.cdist(x.double(), x.double())
    expected: list[int] = []
    while len(expected) < 25:
        uncovered = torch.ones(40, dtype=torch.bool)
        if expected:
            uncovered = distance[:, expected].min(1).values > radius
        if not uncovered.any():
            radius = float(distance[:, expected].min(1).values.max()) / 2
            continue
        gain = ((distance <= radius) & uncovered).sum(1) + pool_of(x).data.key.double()
        gain[expected] = -1
        expected.append(int(gain.argmax()))
    assert picked(prob_cover, x, 25, metric="euclidean", radius=1.0) == expected


def test_what_is_labelled_covers_already() -> None:
    x, which = clustered(90, 3)
    first = (which == 0).nonzero().flatten()[:1]
    index = prob_cover(beside(x, x[first]), 2, rng=generator(), metric="euclidean", radius=20.0).index
    assert sorted(which[index].tolist()) == [1, 2]


@pytest.mark.parametrize("purity", [0.5, 0.8, 0.95, 1.0])
def test_the_radius_is_the_largest_of_that_purity(purity: float) -> None:
    x = points(60, 2)
    cluster = (x[:, 0] > 0).long()
    radius = pure_radius(x, cluster, purity)
    distance = torch.cdist(x.double(), x.double())

    def pure(radius: float) -> float:
        inside = distance <= radius
        return float((~(inside & (cluster[:, None] != cluster)).any(1)).float().mean())

    assert pure(radius * 0.999) >= purity - 1e-6
    assert pure(radius * 1.001) < purity
    assert picked(prob_cover, x, 8, purity=purity) != drawn(60, 8, 0).tolist()


@pytest.mark.parametrize(("option", "value"), [("radius", -1.0), ("purity", 0.0), ("purity", 1.5)])
def test_a_radius_below_zero_is_refused(option: str, value: float) -> None:
    with pytest.raises(InputError, match="prob-cover: found radius"):
        picked(prob_cover, points(9), 3, **{option: value})


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_natural_breaks_are_those_of_least_variance(groups: int, seed: int) -> None:
    values = points(13, 1, seed)[:, 0].exp()
    ascending = values.sort().values.double()

    def spread(parts: list[Tensor]) -> float:
        return sum(float((p - p.mean()).square().sum()) for p in parts if len(p))

    best = min(
        spread([ascending[a:b] for a, b in zip((0, *cuts), (*cuts, 13), strict=True)])
        for cuts in combinations_with_replacement(range(14), groups - 1)
    )
    label = natural_breaks(values, groups)
    assert spread([values[label == g].double() for g in range(groups)]) == pytest.approx(best, abs=1e-9)
    assert bool((label[values.argsort()].diff() >= 0).all())


def test_dacs_with_one_group_is_k_center() -> None:
    pool = pool_of(clustered(80)[0])
    plain = k_center(pool, 20, rng=generator()).index
    assert torch.equal(dacs(pool, 20, rng=generator(), groups=1).index, plain)
    near = beside(points(40), points(3, seed=2))
    plain = k_center(near, 9, rng=generator()).index
    assert torch.equal(dacs(near, 9, rng=generator(), groups=1).index, plain)


def test_dacs_gives_the_sparse_group_more_than_its_size() -> None:
    dense, sparse = 0.1 * points(180), points(20, seed=1) * 5
    index = picked(dacs, torch.cat([dense, sparse]), 20, groups=2)
    assert sum(i >= 180 for i in index) >= 10
    shares = group_shares(torch.tensor([180, 20]), 20, 0.25).double()
    weights = (torch.tensor([0.1, 0.9]) / 0.25).exp()
    assert shares.tolist() == pytest.approx((20 * weights / weights.sum()).tolist(), abs=1)
    assert group_shares(torch.tensor([180, 5, 0]), 60, 0.01).tolist() == [55, 5, 0]
