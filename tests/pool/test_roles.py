"""What stands beside the candidates: which classes are known, and what is labelled, held out, wanted or avoided."""

from __future__ import annotations

from pathlib import Path

import torch

import clsim
from clsim.checks.samples import clusters, pool_of
from clsim.pool.pool import Pool, Selection
from clsim.selectors.balanced import balancing
from clsim.selectors.boundary import base, boundary_distances, boundary_margin
from clsim.selectors.clusters import k_means_clusters
from clsim.selectors.probcover import prob_cover, pure_radius
from tests.helpers import generator, vectors

HALF = (0, 1)


def two_known(*, known: tuple[int, ...] = HALF, beside: bool = False) -> Pool:
    x, y = clusters(40, seed=1)
    return pool_of(x, y % 2, classes=known, beside=beside)


# ---- classes


def test_known_classes_are_those_of_the_stream_not_of_the_head() -> None:
    pool = two_known()
    assert pool.visible.all()
    assert pool.classes.tolist() == [0, 1]
    assert pool.known.any(0).tolist() == [True, True, False, False]
    assert pool[torch.tensor([3, 5])].classes.tolist() == [0, 1]
    beside = two_known(beside=True)
    assert beside.reference is not None
    assert beside.reference.classes.tolist() == [0, 1]
    plain = Pool(vectors(torch.zeros(3, 2), torch.tensor([4, -1, 1])), None, lambda x: x)
    assert plain.classes.tolist() == [1, 4]  # nobody said: those that occur
    assert plain[torch.tensor([0])].classes.tolist() == [1, 4]


def test_a_stream_says_which_classes_it_has_come_to(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def spying(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        seen.append(pool.classes.tolist())
        return Selection(pool.data.key.argsort()[:budget])

    clsim.run("split-digits", buffer=spying, memory=20, settings=["training.epochs=1"], runs=tmp_path)
    assert seen == [list(range(2 * n)) for n in range(1, 6)]


def test_no_boundary_of_a_class_to_come_counts() -> None:
    pool = two_known()
    distances = boundary_distances(pool)
    assert bool((distances[:, 2:] < distances[:, :2].amin(1, keepdim=True)).any())
    expected = distances[:, :2].amin(1).argsort(stable=True)[:9]
    assert torch.equal(
        distances[:, :2].amin(1)[boundary_margin(pool, 9, rng=generator()).index], distances[:, :2].amin(1)[expected]
    )
    assert len(base(two_known(), 6, rng=generator()).index) == 6


def test_base_shares_its_budget_among_the_known_classes() -> None:
    pool, every = two_known(), two_known(known=(0, 1, 2, 3))
    nearest = boundary_distances(pool).masked_fill(torch.arange(4) > 1, torch.inf)
    picks = base(pool, 2, rng=generator()).index
    own = pool.predictions[:, None] == torch.arange(4)
    distances = torch.where(own, nearest.amin(1)[:, None], nearest)
    assert int(picks[0]) == int(distances[:, 0].argmin())
    assert not torch.equal(base(every, 8, rng=generator()).index, base(pool, 8, rng=generator()).index)


def test_prob_cover_has_a_cluster_a_known_class() -> None:
    pool = two_known()
    features = torch.nn.functional.normalize(pool.features)
    features = features - features.mean(0)
    radius = pure_radius(features, k_means_clusters(features, 2, generator(), starts=10), 0.95)
    expected = prob_cover(two_known(), 7, rng=generator(), radius=radius).index
    assert torch.equal(prob_cover(pool, 7, rng=generator()).index, expected)


def test_balancing_counts_no_class_to_come() -> None:
    """All that is labelled is of class 0: class 1 is the rarest one, as classes 2 and 3 do not exist yet."""
    x, y = clusters(40, seed=1)
    pools = [pool_of(x, y, classes=known, beside=True) for known in ((0, 1), (0, 1, 2, 3))]
    for pool in pools:
        labelled = pool.labelled
        assert labelled is not None
        labelled.data.y.fill_(0)
    first, every = (balancing(pool, 4, rng=generator()).index for pool in pools)
    assert not torch.equal(first, every)
