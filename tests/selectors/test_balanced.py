"""Balance over classes and clusters, two aims at once, and filters: brute force and counts by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool
from clsim.selectors import balanced, pareto
from clsim.selectors.combinators import prefilter
from clsim.selectors.fass import fass
from clsim.selectors.kcenter import k_center
from clsim.selectors.random import class_balanced
from clsim.selectors.scores import entropies, margins
from clsim.selectors.submodular import facility_location
from clsim.selectors.uncertainty import entropy
from clsim.spec import registry
from tests.helpers import generator, points, pool_of, vectors


def pool_beside(x: Tensor, y: Tensor, labelled: Exemplars | None, classes: int = 3) -> Pool:
    net = nets.build(
        lambda shape: nn.Identity(), (x.shape[1],), torch.ones(1, classes, dtype=torch.bool), 0, torch.device("cpu")
    )
    return Pool(vectors(x, y), net, lambda x: x, labelled=labelled)


@pytest.mark.parametrize("budget", [2, 5, 9, 14])
def test_balanced_random_fills_the_least_filled_class(budget: int) -> None:
    y = torch.tensor([0] * 3 + [1] * 8 + [2] * 9)
    labelled = vectors(points(7), torch.tensor([0, 0, 0, 0, 1, 2, 2]), first=100)
    pool = pool_beside(points(20), y, labelled)
    picks = balanced.balanced_random(pool, budget, rng=generator()).index
    filled = y[picks].bincount(minlength=3) + torch.tensor([4, 1, 2])
    candidates = itertools.product(range(4), range(9), range(10))
    best = min(
        max(totals) - min(totals)
        for counts in candidates
        if sum(counts) == budget
        for totals in [[chosen + there for chosen, there in zip(counts, (4, 1, 2), strict=True)]]
    )
    assert filled.max() - filled.min() == best


def test_balanced_random_without_labelled_samples_is_class_balanced() -> None:
    pool = pool_beside(points(30), torch.arange(30) ** 2 % 3, None)
    expected = class_balanced(pool, 11, rng=generator()).index
    assert torch.equal(balanced.balanced_random(pool, 11, rng=generator()).index, expected)


def blobs() -> tuple[Tensor, Tensor]:
    """30 samples around (5, 0), then 30 around (−5, 0)."""
    centre = torch.tensor([[5.0, 0, 0, 0]])
    return torch.cat([points(30) + centre, points(30, seed=1) - centre]), torch.arange(60) // 30


def test_balancing_picks_of_the_blob_that_is_rare() -> None:
    x, y = blobs()
    labelled = vectors(torch.cat([x[:20] + 0.1, x[30:32] + 0.1]), torch.tensor([0] * 20 + [1] * 2), first=100)
    pool = pool_beside(x, torch.full_like(y, -1), labelled, classes=2)
    picks = balanced.balancing(pool, 10, rng=generator()).index  # 10 ≤ 1·(20 − 2): balance at once
    assert y[picks].tolist() == [1] * 10
    centre, other = labelled.x[20:].mean(0), labelled.x[:20].mean(0)
    ratio = (x - centre).square().sum(1) / (x - other).square().sum(1)
    assert picks[0] == ratio.argmin()


def test_balancing_is_random_while_there_is_budget_to_spare() -> None:
    x, y = blobs()
    labelled = vectors(torch.cat([x[:6] + 0.1, x[30:32] + 0.1]), torch.tensor([0] * 6 + [1] * 2), first=100)
    pool = pool_beside(x, torch.full_like(y, -1), labelled, classes=2)
    picks = balanced.balancing(pool, 30, rng=generator()).index.tolist()
    by_key = pool.data.key.argsort(descending=True).tolist()
    assert picks[:20] == by_key[:20]  # 30 left, a gap of 4
    for none in (None, vectors(x[:4], torch.tensor([0, 0, 1, 1]), first=100)):  # nothing labelled, or all even
        even = pool_beside(x, y, none, classes=2)
        assert balanced.balancing(even, 1, rng=generator()).index.tolist() == by_key[:1]


def test_balancing_as_a_memory_goes_by_the_labels_of_its_picks() -> None:
    """Of 54 and 6 samples random ones would be as unbalanced as these are."""
    x, _ = blobs()
    y = torch.tensor([0] * 54 + [1] * 6)
    x = torch.cat([x[:30], x[:24] + 0.01, x[30:36]])
    pool = pool_beside(x, y, None, classes=2)
    picks = balanced.balancing(pool, 12, rng=generator()).index
    by_key = pool.data.key.argsort(descending=True)
    assert not torch.equal(picks, by_key[:12])
    assert y[picks].bincount().tolist() == [6, 6]
    alone = pool_beside(x, torch.full_like(y, -1), None, classes=2)
    assert torch.equal(balanced.balancing(alone, 12, rng=generator()).index, by_key[:12])


@pytest.mark.parametrize("seed", range(6))
def test_poal_chooses_the_most_frequent_of_the_best_subsets(seed: int) -> None:
    """Brute force over all 220 subsets of 12 samples; a random choice, or any other of the front, fails."""
    labelled = vectors(points(30), torch.arange(30) % 3, first=100)
    pool = pool_beside(points(12, seed=seed + 7), torch.full((12,), -1), labelled)
    aims = torch.stack([entropies(pool.probabilities), pareto.confidences(pool)], 1).double()
    sums = {s: tuple(aims[list(s)].sum(0).tolist()) for s in itertools.combinations(range(12), 3)}
    front = [s for s, value in sums.items() if not any(dominated(value, other) for other in sums.values())]
    frequency = torch.tensor([i for s in front for i in s]).bincount(minlength=12)
    best = max(int(frequency[list(s)].sum()) for s in front)
    picks = pareto.poal(pool, 3, rng=generator(seed), tolerance=0.0).index
    assert tuple(sorted(picks.tolist())) in front
    assert int(frequency[picks].sum()) == best
    assert (frequency[picks].diff() <= 0).all()  # the most frequent sample first
    assert sum(int(frequency[list(s)].sum()) == best for s in front) <= len(front) / 2  # that says something


def test_poal_stays_on_the_first_fronts() -> None:
    """Of 200 samples those that no other dominates, then those that only these dominate, until there are 6·b."""
    pool = pool_beside(points(200), torch.full((200,), -1), vectors(points(30), torch.arange(30) % 3, first=300))
    aims = torch.stack([entropies(pool.probabilities), pareto.confidences(pool)], 1).double()
    rest, allowed = set(range(200)), set[int]()
    while len(allowed) < 30:
        front = {i for i in rest if not any(dominated(tuple(aims[i]), tuple(aims[j])) for j in rest)}
        allowed, rest = allowed | front, rest - front
    assert len(allowed) < 100
    for seed in range(3):
        assert set(pareto.poal(pool, 5, rng=generator(seed)).index.tolist()) <= allowed


def test_cluster_margin_takes_one_a_cluster_a_round_small_clusters_first() -> None:
    centres = 100 * torch.eye(4)
    sizes = [3, 8, 5, 14]
    which = torch.tensor([0] * 3 + [1] * 8 + [2] * 5 + [3] * 14)
    pool = pool_beside(centres[which] + points(30), torch.zeros(30, dtype=torch.int64), None)
    with torch.no_grad():
        pool.net.head.weight *= 0.01
    picks = balanced.cluster_margin(pool, 30, rng=generator(), size=8).index  # ⌈30 / 8⌉ = 4 clusters
    by_size = sorted(range(4), key=lambda c: sizes[c])
    expected = [c for turn in range(14) for c in by_size if sizes[c] > turn]
    assert which[picks].tolist() == expected
    margin = margins(pool.probabilities)
    for c in range(4):  # in each cluster the lowest margin first
        assert (margin[picks[which[picks] == c]].diff() >= 0).all()


def test_cluster_margin_stays_among_the_low_margins_and_ends_beyond_its_candidates() -> None:
    pool = pool_beside(points(200), torch.zeros(200, dtype=torch.int64), None)
    low = margins(pool.probabilities).argsort()
    picks = balanced.cluster_margin(pool, 10, rng=generator(), factor=3).index
    assert set(picks.tolist()) <= set(low[:30].tolist())
    assert set(picks.tolist()) != set(low[:10].tolist())
    many = balanced.cluster_margin(pool, 100, rng=generator(), candidates=40).index
    assert set(many[:40].tolist()) == set(low[:40].tolist())
    assert torch.equal(many[40:], low[40:100])


def dominated(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(y >= x for x, y in zip(a, b, strict=True)) and a != b


@pytest.mark.parametrize("seed", range(4))
def test_fronts_are_peeled_as_by_definition(seed: int) -> None:
    aims = torch.randint(0, 6, (40, 2), generator=generator(seed)).double()  # with equals
    rest, expected = set(range(40)), []
    while rest:
        front = {i for i in rest if not any(dominated(tuple(aims[i]), tuple(aims[j])) for j in rest)}
        expected.append(front)
        rest -= front
    found = pareto.peeled(aims, 40).tolist()
    for front in expected:
        assert set(found[: len(front)]) == front
        found = found[len(front) :]
    first = pareto.peeled(aims, 1)
    assert set(first.tolist()) == expected[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_archive_is_the_front_of_all_subsets_when_they_are_few(seed: int) -> None:
    """12 samples, subsets of 3: 220, all of which are drawn sooner or later."""
    aims = torch.rand(12, 2, generator=generator(seed), dtype=torch.float64)
    archive = pareto.non_dominated_subsets(aims, 3, 200, 10, 0.0, 10_000, generator())
    sums = {s: tuple(aims[list(s)].sum(0).tolist()) for s in itertools.combinations(range(12), 3)}
    front = {s for s, value in sums.items() if not any(dominated(value, other) for other in sums.values())}
    assert {tuple(member) for member in archive.tolist()} == front


def test_the_archive_is_mutually_non_dominated_and_without_repetition() -> None:
    aims = torch.rand(60, 2, generator=generator(), dtype=torch.float64)
    archive = pareto.non_dominated_subsets(aims, 10, 200, 10, 0.01, 4000, generator())
    sums = [tuple(s) for s in aims[archive].sum(1).tolist()]
    assert len(archive) > 1
    assert not any(dominated(a, b) for a, b in itertools.permutations(sums, 2))
    assert len(archive.unique(dim=0)) == len(archive)


def test_it_stops_when_the_archive_is_calm() -> None:
    aims = torch.rand(8, 2, generator=generator(), dtype=torch.float64)
    rng, used = generator(), generator()
    pareto.non_dominated_subsets(aims, 2, 200, 3, 0.01, 10_000_000, rng)  # 28 subsets: all seen in the first look
    for _ in range(4):
        torch.rand(200, 8, generator=used)
    assert torch.equal(rng.get_state(), used.get_state())


def test_confidence_is_the_class_mahalanobis_distance() -> None:
    labelled = vectors(points(60), torch.arange(60) % 3, first=100)
    pool = pool_beside(points(20, seed=3), torch.zeros(20, dtype=torch.int64), labelled)
    h = labelled.x.double()
    means = torch.stack([h[labelled.y == c].mean(0) for c in range(3)])
    around = h - means[labelled.y]
    covariance = around.T @ around / 60
    covariance += torch.eye(4) * (1e-3 * covariance.diagonal().mean())
    expected = [max(-float((x - m) @ covariance.inverse() @ (x - m)) for m in means) for x in pool.data.x.double()]
    assert torch.allclose(pareto.confidences(pool), torch.tensor(expected), rtol=1e-4)


def test_poal_leaves_uncertain_outsiders_out() -> None:
    """What lies far from all labelled samples, where entropy alone would look."""
    labelled = vectors(torch.cat([points(40) + 3, points(40, seed=1) - 3]), torch.arange(80) // 40, first=200)
    inside = torch.cat([points(60, seed=2) + 3, points(60, seed=4) - 3])
    direction = torch.tensor([1.0, -1, 1, -1])
    outside = 12 * direction + points(30, seed=5)
    pool = pool_beside(torch.cat([inside, outside]), torch.full((150,), -1), labelled, classes=2)
    with torch.no_grad():
        pool.net.head.weight.copy_(torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]]) / 4)
    by_entropy = entropy(pool, 10, rng=generator()).index
    outsiders, score = 0.0, entropies(pool.probabilities)
    for seed in range(10):
        picks = pareto.poal(pool, 10, rng=generator(seed)).index
        outsiders += float((picks >= 120).sum()) / 10
        assert score[picks].mean() > score[:120].mean()
    assert outsiders < int((by_entropy >= 120).sum()) - 2


def test_fass_of_the_whole_pool_is_facility_location_and_else_of_the_uncertain() -> None:
    pool = pool_of(points(60), torch.arange(60) % 3)
    assert torch.equal(fass(pool, 60, rng=generator()).index.sort().values, torch.arange(60))
    picks = fass(pool, 6, rng=generator()).index
    uncertain = entropy(pool, 30, rng=generator()).index
    inside = facility_location(pool[uncertain], 6, rng=generator()).index
    assert torch.equal(picks, uncertain[inside])
    by_name = registry.component("selectors", "prefilter(entropy,facility-location,5)")
    assert torch.equal(picks, by_name(pool, 6, rng=generator()).index)
    with pytest.raises(InputError, match="did you mean 'entropy'"):
        fass(pool, 6, rng=generator(), uncertainty="entropi")  # type: ignore[arg-type]


def test_prefilter_chooses_among_what_passes() -> None:
    pool = pool_of(points(60), torch.arange(60) % 3)
    passed = entropy(pool, 20, rng=generator()).index
    expected = passed[k_center(pool[passed], 5, rng=generator()).index]
    assert torch.equal(prefilter(entropy, k_center, 4)(pool, 5, rng=generator()).index, expected)
    by_name = registry.component("buffers", "prefilter(entropy, k-center, 4)")
    assert torch.equal(by_name(pool, 5, rng=generator()).index, expected)
