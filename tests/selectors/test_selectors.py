"""Each selector against its equation: a bound, a closed form, or the optimum by brute force."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from clsim.checks.selectors import check_selector
from clsim.pool.pool import Pool
from clsim.selectors.combinators import per_class, quotas
from clsim.selectors.herding import herding
from clsim.selectors.kcenter import k_center
from clsim.selectors.random import class_balanced, random, reservoir
from clsim.spec import components, registry
from tests.helpers import generator, points, pool_of


def radius(x: Tensor, chosen: Tensor | tuple[int, ...]) -> float:
    return float(torch.cdist(x, x[list(chosen)]).min(1).values.max())


ACQUISITIONS = {
    # uniform, coverage, clusters
    *("random", "herding", "kcenter", "kcenter-pca", "kcenter-robust", "prob-cover", "dacs", "density"),
    *("max-herding", "uncertainty-herding", "clue", "dropquery", "alfa-mix"),
    *("centre-of-gravity", "k-means", "k-medoids", "agglomerative", "typiclust", "usl"),
    # gradients
    *("glister-active", "badge", "bait", "acs-fw", "sparse-approximation"),
    # uncertainty; a committee is trained on labels, and tested by itself
    *("least-confidence", "entropy", "margin", "variation-ratio"),
    *("mc-least-confidence", "mc-entropy", "mc-margin", "mc-variation-ratio", "mc-vote-entropy", "bald", "mean-std"),
    *("power-bald", "epig", "core-mse"),
    # batches
    *("batch-bald", "cluster-margin", "balancing", "fass", "poal"),
    # submodular, information measures
    *("facility-location", "graph-cut", "log-det", "disparity-min", "disparity-sum", "feature-based"),
    *("flvmi", "flqmi", "gcmi", "logdetmi", "com", "flcg", "gccg", "logdetcg", "flcmi", "logdetcmi"),
    # boundary
    *("boundary-margin", "base", "cal", "contextual-diversity", "deepfool", "adversarial-bim"),
}
"""Selectors that never read a candidate's label, by name."""


CORESETS = {"grad-match", "glister", "ring", "mean-of-features", "rainbow", "gss-greedy", "mir", "forgetting"}
"""Selectors that read labels, and are also used over a whole pool."""

RANKED: dict[str, Callable[[Pool], Tensor]] = {
    "least-confidence": lambda pool: 1 - pool.probabilities.max(1).values,
    "entropy": lambda pool: torch.special.entr(pool.probabilities).sum(1),
    "margin": lambda pool: -pool.probabilities.topk(2, 1).values.diff(dim=1).abs()[:, 0],
}
"""What selectors rank by that rank samples one by one."""

SHORT: dict[str, dict[str, Any]] = {
    "sparse-approximation": {"iterations": 20},
    "poal": {"draws": 20},
    "k-means": {"iterations": 10},
    "adversarial-bim": {"iterations": 10},
    "deepfool": {"iterations": 10},
    "acs-fw": {"projections": 4},
    "batch-bald": {"passes": 4, "configurations": 40},
    **{
        name: {"passes": 4}
        if name.startswith(("mc-", "bald", "power-bald", "epig", "core-mse", "mean-std"))
        else {"nets": 2}
        for name in components.COMPONENTS["selectors"]
        if name.startswith(
            ("mc-", "ensemble-", "bald", "power-bald", "epig", "core-mse", "mean-std", "vote-entropy", "grand", "el2n")
        )
    },
}
"""Options with which a selector takes less time, and promises the same."""


@pytest.mark.parametrize("name", sorted({*ACQUISITIONS, *CORESETS, *components.OVER_ALL}))
def test_a_selector_keeps_the_contract_over_a_whole_pool(name: str) -> None:
    """An acquisition reads no label; one that ranks by a score picks in its order."""
    select = registry.component("selectors", name, SHORT.get(name))
    check_selector(select, reads_labels=name not in ACQUISITIONS, score=RANKED.get(name))


@pytest.mark.parametrize("name", [n for n in components.COMPONENTS["selectors"] if n not in components.OVER_ALL])
def test_every_shipped_buffer_keeps_the_contract(name: str) -> None:
    """Within each class; those that fill a memory as a whole are checked above."""
    check_selector(registry.component("buffers", name, SHORT.get(name)))


@pytest.mark.parametrize("seed", range(5))
def test_k_center_is_within_twice_the_best_radius(seed: int) -> None:
    x = points(12, seed=seed)
    best = min(radius(x, chosen) for chosen in combinations(range(12), 3))
    chosen = k_center(pool_of(x), 3, rng=generator()).index
    assert best <= radius(x, chosen.tolist()) <= 2 * best


def test_k_center_takes_the_farthest_each_time() -> None:
    x = points(60)
    expected = [int((x - x.mean(0)).norm(dim=1).argmin())]
    while len(expected) < 15:
        expected.append(int(torch.cdist(x, x[expected]).min(1).values.argmax()))
    assert k_center(pool_of(x), 15, rng=generator()).index.tolist() == expected


def test_k_center_on_directions_ignores_lengths() -> None:
    x = points(40)
    stretched = x * torch.linspace(1, 50, 40).unsqueeze(1)
    by_angle = k_center(pool_of(stretched), 8, rng=generator(), metric="cosine").index
    assert torch.equal(by_angle, k_center(pool_of(F.normalize(x)), 8, rng=generator()).index)
    assert not torch.equal(by_angle, k_center(pool_of(stretched), 8, rng=generator()).index)


@pytest.mark.parametrize("select", [k_center, herding])
def test_a_prefix_is_the_selection_of_that_size(select) -> None:
    pool = pool_of(points(50))
    assert torch.equal(select(pool, 20, rng=generator()).index[:7], select(pool, 7, rng=generator()).index)


def test_herding_follows_its_equation() -> None:
    features = F.normalize(points(30, 5))
    mean, expected = features.mean(0), []
    for i in range(10):
        rest = [j for j in range(30) if j not in expected]
        chosen = features[expected].sum(0)
        expected.append(min(rest, key=lambda j: float(((i + 1) * mean - chosen - features[j]).norm())))
    assert herding(pool_of(points(30, 5)), 10, rng=generator()).index.tolist() == expected


def test_herding_keeps_the_mean_far_better_than_chance() -> None:
    def error(index: Tensor, x: Tensor) -> float:
        return float((x[index].mean(0) - x.mean(0)).norm())

    herded = drawn = 0.0
    for seed in range(20):
        x = points(200, 8, seed)
        herded += error(herding(pool_of(x), 20, rng=generator(), normalise=False).index, x)
        drawn += error(torch.randperm(200, generator=generator(seed))[:20], x)
    assert herded < drawn / 2


@pytest.mark.parametrize("select", [random, reservoir])
def test_random_keeps_the_largest_keys(select) -> None:
    pool = pool_of(points(50))
    kept = select(pool, 10, rng=generator()).index
    assert pool.data.key[kept].min() > pool.data.key[[i for i in range(50) if i not in kept.tolist()]].max()


def test_random_chooses_every_sample_equally_often() -> None:
    counts = torch.zeros(12)
    for seed in range(600):
        counts[
            random(pool_of(points(12), key=torch.rand(12, generator=generator(seed))), 4, rng=generator()).index
        ] += 1
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


@pytest.mark.parametrize("budget", [1, 5, 9, 14, 30])
def test_class_balanced_is_per_class_random(budget: int) -> None:
    y = torch.tensor([0] * 3 + [1] * 9 + [2] * 12 + [5])
    pool = pool_of(points(25), y)
    counts = y[class_balanced(pool, budget, rng=generator()).index].bincount(minlength=6)
    fair = y[per_class(random)(pool, budget, rng=generator()).index].bincount(minlength=6)
    assert counts.sort().values.tolist() == fair.sort().values.tolist()
    for label in range(6):  # of each class, the largest keys
        rows = (y == label).nonzero().flatten()
        kept = class_balanced(pool, budget, rng=generator()).index
        mine = [r for r in rows.tolist() if r in kept.tolist()]
        assert set(mine) == set(rows[pool.data.key[rows].argsort(descending=True)][: len(mine)].tolist())


@pytest.mark.parametrize("budget", [0, 1, 6, 10, 100])
def test_quotas_are_the_fairest_split(budget: int) -> None:
    counts = torch.tensor([1, 4, 0, 7])
    quota = quotas(counts, budget, generator())
    assert quota.sum() == min(budget, 12)
    assert bool((quota <= counts).all())
    open_classes = quota < counts
    if open_classes.any():  # nobody has more than one above a class that could take more
        assert quota.max() <= quota[open_classes].min() + 1


def test_per_class_applies_the_selector_to_each_class_apart() -> None:
    x, y = points(40), torch.arange(40) % 4
    picks = per_class(k_center)(pool_of(x, y), 12, rng=generator()).index
    for label in range(4):
        rows = (y == label).nonzero().flatten()
        alone = rows[k_center(pool_of(x[rows]), 3, rng=generator()).index]
        assert picks[y[picks] == label].tolist() == alone.tolist()
    assert y[picks[:4]].sort().values.tolist() == [0, 1, 2, 3]  # any prefix is balanced
