"""The traps that public code of acquisitions fell into, each on the selectors that could fall into it.

``tests/checks`` holds a broken selector for each of them, which :func:`clsim.checks.selectors.check_selector` rejects.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clsim.checks.nan_wins import no_nan_wins
from clsim.checks.samples import CLASSES, clusters, exemplars, label_pools, pool_of
from clsim.data.augmentation import Transform
from clsim.models import nets
from clsim.pool.pool import Pool
from clsim.selectors.distances import squared_distances
from clsim.selectors.farthest import farthest_first
from clsim.selectors.kcenter import k_center, k_center_pca, k_center_robust
from clsim.selectors.points import points as centred
from clsim.selectors.scores import entropies, highest, informations, margins
from clsim.spec import registry
from tests.helpers import generator, points, vectors
from tests.selectors.test_label_pools import EVERY, net_on
from tests.selectors.test_selectors import SHORT


def picks(name: str, pool: Pool, budget: int, **options: Any) -> Tensor:
    select = registry.component("selectors", name, SHORT.get(name, {}) | options)
    return select(pool, budget, rng=generator()).index


def on(logits: Tensor, *, labelled: Tensor | None = None) -> Pool:
    """A pool of unlabelled samples that have these logits."""
    net = net_on(logits.shape[1], logits.shape[1])
    with torch.no_grad():
        net.head.weight.copy_(torch.eye(logits.shape[1]))
        net.head.bias.zero_()
    told = None if labelled is None else vectors(labelled, torch.zeros(len(labelled), dtype=torch.int64), first=1000)
    return Pool(vectors(logits, torch.full((len(logits),), -1)), net, lambda x: x, labelled=told)


# NaN from 0 · log 0, which a sort puts first

UNCERTAIN = ["entropy", "least-confidence", "margin", "variation-ratio", "mc-entropy", "bald", "mean-std", "cal"]


@pytest.mark.parametrize("name", UNCERTAIN)
def test_a_certain_sample_is_the_last_that_is_asked_for(name: str) -> None:
    """Its softmax is exactly one-hot, and 0 · log 0 is 0."""
    open_ = 0.3 * points(10, 4)
    certain = torch.tensor([1e4, 0.0, 0.0, 0.0]).expand(10, 4) + 0.0
    pool = on(torch.cat([certain, open_]))
    assert pool.probabilities[:10].eq(torch.tensor([1.0, 0.0, 0.0, 0.0])).all()
    with no_nan_wins():
        chosen = picks(name, pool, 10)
    if name in UNCERTAIN[:4]:  # of one net; the others compare nets, or neighbours
        assert chosen.min() >= 10


def test_measures_of_one_hot_and_uniform_are_exact() -> None:
    one_hot, uniform = torch.eye(4), torch.full((1, 4), 0.25)
    assert entropies(one_hot).eq(0).all()
    assert entropies(uniform).item() == pytest.approx(torch.tensor(4.0).log().item())
    assert margins(one_hot).eq(1).all()
    assert informations(one_hot[:, None]).item() == pytest.approx(torch.tensor(4.0).log().item())
    assert informations(one_hot[:1, None].expand(4, 1, 4)).item() == 0


def test_nan_is_below_every_score() -> None:
    assert highest(torch.tensor([torch.nan, -1e30, 3.0]), 2).tolist() == [2, 1]


# the square root of negative round-off, and k-center that chooses a point again


def far_from_zero() -> Tensor:
    """Near copies far from the origin: ‖a‖² + ‖b‖² − 2⟨a, b⟩ is negative in float32 for many of them."""
    return 1e4 + 1e-3 * points(60, 8)


def test_no_squared_distance_is_negative() -> None:
    x = far_from_zero()
    plain = x.square().sum(1)[:, None] + x.square().sum(1) - 2 * x @ x.T
    assert plain.min() < 0
    assert squared_distances(x, x).min() >= 0
    assert centred(x).nearest_of(x).min() >= 0


@pytest.mark.parametrize("select", [k_center, k_center_pca, k_center_robust], ids=lambda s: s.__name__)
@pytest.mark.parametrize("beside", [False, True], ids=["empty L", "some labelled"])
def test_k_center_neither_meets_nan_nor_chooses_a_point_again(select: Any, beside: bool) -> None:
    """Among copies of three points, labelled or not, each distance is soon 0."""
    x = far_from_zero()[:3].repeat(20, 1)
    net = net_on(8, 2)
    told = vectors(x[:2], torch.tensor([0, 1]), first=100) if beside else None
    pool = Pool(vectors(x, torch.full((60,), -1)), net, lambda x: x, labelled=told)
    with no_nan_wins():
        chosen = select(pool, 60, rng=generator()).index
    assert chosen.sort().values.tolist() == list(range(60))


def test_k_center_over_many_rows_chooses_none_again() -> None:
    x = far_from_zero()[:5].repeat(40, 1)
    with no_nan_wins():
        chosen = farthest_first(centred(x), 200, small=16)
    assert len(chosen.unique()) == 200


# random augmentation during selection


def test_what_a_pool_computes_is_not_augmented() -> None:
    """The workshop's pools are given the plain transform; two pools of the same samples have the same features."""
    x, y = clusters(40, seed=1)
    transform = Transform([0.5], [0.25], ["crop", "flip"], device=torch.device("cpu"), channels_last=False)
    assert not torch.equal(transform.train(x, generator(1)), transform.train(x, generator(2)))
    visible = torch.ones(1, CLASSES, dtype=torch.bool)
    net = nets.build(lambda shape: nn.Flatten(), (1, 6, 6), visible, 0, torch.device("cpu"))
    first, second = (Pool(exemplars(x, y), net, transform.plain).features for _ in range(2))
    assert torch.equal(first, second)
    assert torch.allclose(first, (x.flatten(1) / 255 - 0.5) / 0.25, atol=1e-6)


# stochastic passes that move the statistics of batch norm


@pytest.mark.parametrize(
    "name",
    [
        "mc-entropy",
        "bald",
        "power-bald",
        "epig",
        "core-mse",
        "mean-std",
        "mc-vote-entropy",
        "batch-bald",
        "acs-fw",
        "rainbow",
    ],
)
def test_stochastic_passes_leave_batch_norm_as_it_is(name: str) -> None:
    pool = label_pools()["some labelled"]
    pool.net.train()
    before = {key: value.clone() for key, value in pool.net.state_dict().items()}
    picks(name, pool, 7)
    assert any("running_mean" in key for key in before)
    for key, value in pool.net.state_dict().items():
        assert torch.equal(before[key], value), key
    assert all(module.training for module in pool.net.modules())


def test_stochastic_passes_differ_and_use_the_statistics_of_training() -> None:
    """With batch statistics a pass would depend on which samples stand beside each other, and all passes be alike."""
    x, y = clusters(40, seed=1)
    whole = pool_of(x, y).stochastic(4, generator())
    assert whole.std(0).amax() > 1e-3
    assert torch.allclose(whole[:, :10], pool_of(x[:10], y[:10]).stochastic(4, generator()), atol=1e-6)


# a width that is read from hidden labels, a class missing from the seed set, empty L, budget = N


def test_the_width_of_probabilities_is_that_of_the_head() -> None:
    for name, pool in label_pools().items():
        assert pool.probabilities.shape[1] == CLASSES, name
        assert pool.hypothetical_gradients.q.shape[1] == CLASSES, name


@pytest.mark.parametrize("name", EVERY)
def test_a_class_missing_from_the_seed_set_is_no_error(name: str) -> None:
    """Labelled are 0 and 3 of four classes: neither the first nor the last ones alone."""
    x, y = clusters(40, seed=1)
    told, of = clusters(8, seed=2)
    some = exemplars(told[(of == 0) | (of == 3)], of[(of == 0) | (of == 3)], seed=3)
    pool = pool_of(x, y, labelled=some, hidden=True, classes=(0, 3))
    with no_nan_wins():
        assert len(picks(name, pool, 6).unique()) == 6


@pytest.mark.parametrize("name", EVERY)
def test_a_budget_of_all_asks_for_all(name: str) -> None:
    pool = label_pools()["some labelled"]
    assert picks(name, pool, len(pool)).sort().values.tolist() == list(range(len(pool)))


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_set_of_labelled_samples_is_none(name: str) -> None:
    """Beside the candidates are no samples, or a set of none: the same choice."""
    x, y = clusters(40, seed=1)
    empty = exemplars(*clusters(4, seed=2))[:0]
    with_none = picks(name, pool_of(x, y, hidden=True, classes=()), 7)
    assert torch.equal(picks(name, pool_of(x, y, labelled=empty, hidden=True, classes=()), 7), with_none)


# scores sorted as strings


@pytest.mark.parametrize("name", ["entropy", "least-confidence", "bald", "centre-of-gravity"])
def test_scores_of_every_size_are_sorted_as_numbers(name: str) -> None:
    """As strings, 9e-05 would come before 0.3: a score that a sample has among others far smaller is the same rank."""
    lead = 10.0 ** torch.linspace(-1, 1.3, 30)
    logits = torch.stack([lead, torch.zeros(30), torch.zeros(30)], 1)
    pool = on(logits[torch.randperm(30, generator=generator(1))])
    order = picks(name, pool, 30)
    score = {
        "entropy": lambda: entropies(pool.probabilities),
        "least-confidence": lambda: 1 - pool.probabilities.amax(1),
        "bald": lambda: informations(pool.stochastic(4, generator())),
        "centre-of-gravity": lambda: (pool.features - pool.features.mean(0)).norm(dim=1),
    }[name]()
    assert score.max() / score[score > 0].min() > 50
    assert torch.equal(score[order], score.sort(descending=True).values)


# a short last batch that rescales what is computed


@pytest.mark.parametrize("name", ["badge", "glister-active", "grad-match", "flqmi", "deepfool", "mc-entropy"])
def test_a_short_last_batch_changes_nothing(name: str) -> None:
    """Of 40 samples in batches of 13 the last holds one; a loss averaged over it would be 13 times as large."""
    x, y = clusters(40, seed=1)
    told = exemplars(*clusters(9, seed=2), seed=3)
    found = [picks(name, pool_of(x, y, labelled=told, hidden=True, batch_size=size), 7) for size in (500, 13, 7)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_gradients_of_a_sample_do_not_depend_on_its_batch() -> None:
    x, y = clusters(40, seed=1)
    whole, parts = pool_of(x, y), pool_of(x, y, batch_size=13)
    assert torch.allclose(whole.gradients.squares, parts.gradients.squares, rtol=1e-5)
    alone = pool_of(x[39:], y[39:]).gradients.squares
    assert torch.allclose(whole.gradients.squares[39:], alone, rtol=1e-4)


def test_a_committee_takes_as_large_a_step_on_a_short_last_batch() -> None:
    """A single sample left over joins the batch before it: batch norm cannot train on one."""
    x, y = clusters(40, seed=1)
    told = exemplars(*clusters(17, seed=2), seed=3)  # batches of 16
    members = pool_of(x, y, labelled=told, hidden=True).committee(2)
    assert all(bool(value.isfinite().all()) for member in members for value in member.net.state_dict().values())


def test_weights_of_the_labelled_are_no_part_of_a_choice() -> None:
    """What a memory gave an exemplar as its weight in the loss does not scale its distance or gradient."""
    x, y = clusters(40, seed=1)
    told = exemplars(*clusters(9, seed=2), seed=3)
    heavy = dataclasses.replace(told, weight=torch.linspace(0.1, 9, 9))
    for name in ("kcenter", "cal", "flcg", "typiclust"):
        first, second = (picks(name, pool_of(x, y, labelled=some, hidden=True), 7) for some in (told, heavy))
        assert torch.equal(first, second)
