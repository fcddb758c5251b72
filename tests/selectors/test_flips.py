"""DropQuery and ALFA-Mix: flips against direct evaluation, the closed form against a numerical search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.pool.pool import Pool
from clsim.selectors import flips
from clsim.selectors.clusters import k_means
from clsim.selectors.flips import alfa_mix, class_means, dropped_flips, dropquery, mixed_flips, steepest
from tests.helpers import generator, points, pool_of, vectors


def told(n: int = 80, seed: int = 0, *, labelled: bool = True, width: int = 5) -> Pool:
    """Four overlapping clusters, under a net whose features they are and that tells them apart."""
    y = torch.arange(n) % 4
    centres = 2 * points(4, width, 70)
    pool = pool_of(centres[y] + points(n, width, seed), y)
    pool.net.requires_grad_(False)
    pool.net.head.weight.copy_(centres)
    pool.net.head.bias.copy_(-centres.square().sum(1) / 2)
    hidden = vectors(pool.data.x, torch.full((n,), -1), key=pool.data.key)
    known = torch.tensor([0, 1, 3]).repeat(4)
    beside = vectors(
        centres[known] + points(12, width, seed + 1), torch.where(torch.arange(12) == 5, -1, known), first=n
    )
    return Pool(hidden, pool.net, lambda x: x, labelled=beside if labelled else None)


def predicted(pool: Pool, features: Tensor) -> int:
    return int((pool.net.head.weight.double() @ features.double() + pool.net.head.bias.double()).argmax())


# DropQuery


@pytest.mark.parametrize(("passes", "rate"), [(3, 0.75), (4, 0.5)])
def test_labels_flip_as_when_each_sample_is_looked_at_by_itself(passes: int, rate: float) -> None:
    pool = told()
    rng, count = generator(3), torch.zeros(80, dtype=torch.int64)
    for _ in range(passes):
        kept = torch.rand(80, 5, generator=rng) >= rate
        for i, h in enumerate(pool.features):
            count[i] += predicted(pool, h * kept[i] / (1 - rate)) != predicted(pool, h)
    assert torch.equal(dropped_flips(pool, passes, rate, generator(3)), count)
    assert len(count.unique()) > 3


def test_masks_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = told()
    whole = dropped_flips(pool, 3, 0.75, generator()), mixed_flips(pool, class_means(pool), 0.2)
    monkeypatch.setattr(flips, "blocks", lambda n, width: (slice(i, min(i + 7, n)) for i in range(0, n, 7)))
    assert torch.equal(mixed_flips(pool, class_means(pool), 0.2), whole[1])
    assert torch.equal(dropped_flips(pool, 1, 0.75, generator()), dropped_flips(pool, 1, 0.75, generator()))


def test_more_than_half_of_the_masks_must_flip_the_label() -> None:
    """Each pick is of the shortlist while it lasts; chance would leave it."""
    inside = chance = listed = 0
    for seed in range(5):
        pool = told(seed=seed)
        shortlist = dropped_flips(pool, 3, 0.75, generator(seed)) >= 2
        picks = dropquery(pool, 15, rng=generator(seed)).index
        assert 15 <= int(shortlist.sum()) < 60
        inside, chance = inside + int(shortlist[picks].sum()), chance + int(shortlist[:15].sum())
        listed += int(shortlist.sum())
        # with more picks than the shortlist has, all of it comes first, then others
        size = int(shortlist.sum())
        more = dropquery(pool, size + 9, rng=generator(seed)).index
        assert len(more.unique()) == size + 9
        assert shortlist[more[:size]].all()
        assert not shortlist[more[size:]].any()
    assert inside == 75 > chance


def test_the_shortlist_is_chosen_from_by_k_means() -> None:
    pool = told(seed=2)
    rng = generator(5)
    rows = (dropped_flips(pool, 3, 0.75, rng) >= 2).nonzero().flatten()
    assert torch.equal(dropquery(pool, 12, rng=generator(5)).index, rows[k_means(pool[rows], 12, rng=rng).index])


def test_masks_that_drop_nothing_make_k_means() -> None:
    pool, rng = told(), generator(1)
    torch.rand(3, 80, 5, generator=rng)
    plain = k_means(pool, 9, rng=rng).index
    assert torch.equal(dropquery(pool, 9, rng=generator(1), rate=0.0).index, plain)


# ALFA-Mix


@pytest.mark.parametrize("seed", range(6))
def test_the_closed_form_is_the_best_share_of_the_way(seed: int) -> None:
    """α maximises ⟨g, α ⊙ (z* − h)⟩ under ‖α ⊙ (z* − h)‖ ≤ ε·‖z* − h‖: SLSQP over α finds nothing better."""
    g, towards = points(1, 6, seed)[0].double(), points(1, 6, seed + 30)[0].double()
    epsilon = 0.3
    radius = epsilon * float(towards.norm())
    way = steepest(g[None], towards[None], epsilon)[0]
    alpha = way / towards
    torch.testing.assert_close(alpha, epsilon * towards.norm() * g / (g.norm() * towards))
    torch.testing.assert_close((alpha * towards).norm(), torch.tensor(radius).double())
    slope = (g * towards).numpy()
    limit = {"type": "ineq", "fun": lambda a: radius**2 - np.sum((a * towards.numpy()) ** 2)}
    best = minimize(lambda a: -slope @ a, np.zeros(6), jac=lambda a: -slope, constraints=[limit], method="SLSQP")
    assert best.success
    assert float(g @ way) == pytest.approx(-best.fun, rel=1e-5)
    assert np.allclose(best.x, alpha.numpy(), rtol=1e-2, atol=1e-3)
    tried = points(2000, 6, seed + 60).double()
    assert ((tried * radius / tried.norm(dim=1, keepdim=True)) @ g).max() <= g @ way + 1e-9


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.6])
def test_labels_flip_as_when_each_way_is_walked_by_itself(epsilon: float) -> None:
    """The gradient by autograd, the share by its equation, one sample and one class at a time, in float64."""
    pool = told()
    weight, bias = pool.net.head.weight.double(), pool.net.head.bias.double()
    y = pool.labelled.data.y
    expected = torch.zeros(80, dtype=torch.bool)
    for i, h in enumerate(pool.features.double()):
        h = h.clone().requires_grad_()
        logits = weight @ h + bias
        (g,) = torch.autograd.grad(F.cross_entropy(logits, logits.argmax()), h)
        for label in (0, 1, 3):
            towards = pool.labelled.features[y == label].double().mean(0) - h.detach()
            alpha = (epsilon * towards.norm() * g / (g.norm() * towards)).clamp(0, 1)
            expected[i] |= predicted(pool, h.detach() + alpha * towards) != predicted(pool, h.detach())
    assert torch.equal(mixed_flips(pool, class_means(pool), epsilon), expected)
    assert 0 < expected.sum() < 80


def test_class_means_are_of_labelled_samples_alone() -> None:
    pool = told()
    y = pool.labelled.data.y
    assert (y == -1).sum() == 1
    for mean, label in zip(class_means(pool), (0, 1, 3), strict=True):
        torch.testing.assert_close(mean, pool.labelled.features[y == label].mean(0))


def test_steps_grow_until_enough_labels_flip() -> None:
    pool = told(width=5)
    anchors = class_means(pool)
    few, more = (mixed_flips(pool, anchors, share / 5**0.5) for share in (0.3, 0.6))
    assert 3 < few.sum() < more.sum()
    budget = int(few.sum())
    assert few[alfa_mix(pool, budget, rng=generator(), epsilon=0.3).index].all()
    index = alfa_mix(pool, budget + 1, rng=generator(), epsilon=0.3).index
    assert (few | more)[index].all()
    # where too few flip in the end, those that do come first
    most = torch.stack([mixed_flips(pool, anchors, share / 5**0.5) for share in (0.5, 1.0)]).any(0)
    assert most.sum() < 80
    everything = alfa_mix(pool, 80, rng=generator(), epsilon=0.5).index
    assert most[everything[: int(most.sum())]].all()


def test_samples_near_a_boundary_flip_first_and_chance_takes_others() -> None:
    """By the gap between the two highest logits."""
    for seed in range(3):
        pool = told(seed=seed)
        top = pool.logits.topk(2, 1).values
        gap = top[:, 0] - top[:, 1]
        picks = alfa_mix(pool, 5, rng=generator(seed), epsilon=0.1).index
        assert gap[picks].mean() < 0.4 * gap.mean()
        assert gap[torch.randperm(80, generator=generator(seed))[:5]].mean() > 0.6 * gap.mean()


def test_the_direction_holds_where_the_softmax_rounds_to_one() -> None:
    """Twenty times as sharp, every prediction is certain in float32, and the same samples flip as in float64."""
    pool = told()
    with torch.no_grad():
        pool.net.head.weight.mul_(20)
        pool.net.head.bias.mul_(20)
    assert (pool.probabilities.amax(1) == 1).sum() > 50
    found = mixed_flips(pool, class_means(pool), 0.5)
    weight, bias = pool.net.head.weight.double(), pool.net.head.bias.double()
    for i, h in enumerate(pool.features.double()):
        logits = weight @ h + bias
        best = int(logits.argmax())
        share = (logits - logits.max()).exp()
        g = sum(share[c] * (weight[c] - weight[best]) for c in range(4) if c != best)
        ways = [mean.double() - h for mean in class_means(pool)]
        moved = [h + (0.5 * way.norm() * g / (g.norm() * way)).clamp(0, 1) * way for way in ways]
        assert bool(found[i]) == any(predicted(pool, there) != best for there in moved)
    assert 0 < found.sum() < 80


def test_without_class_means_it_is_k_means() -> None:
    pool = told(labelled=False)
    assert torch.equal(alfa_mix(pool, 9, rng=generator(2)).index, k_means(pool, 9, rng=generator(2)).index)
    outsiders = vectors(points(4, 5), torch.full((4,), -1), first=80)
    nameless = Pool(pool.data, pool.net, lambda x: x, labelled=outsiders)
    assert torch.equal(alfa_mix(nameless, 9, rng=generator(2)).index, k_means(pool, 9, rng=generator(2)).index)


def test_where_the_gradient_is_zero_nothing_moves() -> None:
    """Of a single class, no share of the way raises the loss."""
    single = pool_of(points(9, 5), torch.zeros(9, dtype=torch.int64))
    assert not mixed_flips(single, points(2, 5, 3), 0.9).any()
    zero = torch.zeros(1, 5)
    assert steepest(zero, points(1, 5), 0.2).eq(0).all()
    assert steepest(torch.full((1, 5), 1e-30), points(1, 5), 0.2).isfinite().all()


def test_settings_without_sense_are_refused() -> None:
    for select, options, words in (
        (dropquery, {"rate": 1.0}, "rate: found 1.0"),
        (dropquery, {"passes": 0}, "passes"),
        (alfa_mix, {"epsilon": 0.0}, "epsilon: found 0.0"),
    ):
        with pytest.raises(InputError, match=words):
            select(told(), 3, rng=generator(), **options)
