"""What stands beside the candidates: which classes are known, and what is labelled, held out, wanted or avoided."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

import clsim
from clsim.checks.samples import clusters, exemplars, pool_of
from clsim.data.augmentation import Transform
from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection, Selector
from clsim.pool.proxy import Trainer
from clsim.selectors.balanced import balanced_random, balancing
from clsim.selectors.bilevel import glister, glister_active
from clsim.selectors.boundary import base, boundary_distances, boundary_margin
from clsim.selectors.clusters import k_means_clusters
from clsim.selectors.grad_match import grad_match
from clsim.selectors.information import com, flqmi, flvmi, gcmi, logdetmi
from clsim.selectors.probcover import prob_cover, pure_radius
from clsim.selectors.reference import served, unserved
from clsim.spec.tables import ProxySpec
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


# ---- the reference


def old_and_new(*, half: bool = False) -> Pool:
    """Four classes, the first two of them of an earlier experience: nothing is held out of these any more."""
    x, y = clusters(40, seed=1)
    pool = pool_of(x, y.where(torch.arange(40) % 8 < 4, -1) if half else y)
    held_out = exemplars(*clusters(16, seed=9))
    return pool_of(pool.data.x, pool.data.y, reference=held_out[held_out.y >= 2])


def test_a_part_of_one_class_sees_the_reference_of_that_class_or_none() -> None:
    pool = old_and_new()
    for label in range(4):
        part = pool.of(label, (pool.data.y == label).nonzero().flatten())
        assert part.label == part[torch.tensor([0])].label == label
        if label < 2:
            assert part.reference is part[torch.tensor([0])].reference is None
        else:
            assert part.reference is not None
            assert part.reference.data.y.tolist() == [label] * 4
    assert pool.reference is not None
    assert len(pool.reference) == 8


@pytest.mark.parametrize("select", [grad_match, glister, glister_active, flqmi, gcmi, com, flvmi, logdetmi])
def test_an_old_class_is_chosen_from_as_if_nothing_were_held_out(select: Selector) -> None:
    pool, plain, moved = old_and_new(), pool_of(*clusters(40, seed=1)), []
    for label in range(4):
        rows = (pool.data.y == label).nonzero().flatten()
        found, without = (select(p.of(label, rows), 7, rng=generator()).index for p in (pool, plain))
        moved.append(not torch.equal(found, without))
    assert moved[:2] == [False, False]
    assert any(moved[2:])  # a new class is chosen from by what is held out of it


@pytest.mark.parametrize("select", [grad_match, glister, glister_active, flqmi])
def test_a_choice_from_all_classes_serves_those_without_a_reference_too(select: Selector) -> None:
    pool, y = old_and_new(), clusters(40, seed=1)[1]
    picks = y[select(pool, 16, rng=generator()).index]
    assert int((picks < 2).sum()) > 0


def test_held_out_samples_count_as_the_candidates_of_their_classes() -> None:
    pool = old_and_new(half=True)
    y = pool.data.y
    found = served(pool, y, y >= 0)
    assert found.y.bincount().tolist() == [5, 5, 4, 4]  # candidates, and held-out samples
    assert found.mass.tolist() == [1.25] * 8 + [1] * 10  # half of the mass is of new classes, and half of old ones
    assert unserved(pool, pool.reference).tolist() == (pool.predictions < 2).nonzero().flatten().tolist()  # type: ignore[arg-type]


def test_what_stands_beside_asks_for_no_net() -> None:
    """A net is trained when its features are asked for, not when somebody looks at labels."""
    pool = pool_of(*clusters(40, seed=1), beside=True)
    rng, transform = generator(), Transform([0.5], [0.25], [], device=torch.device("cpu"), channels_last=False)
    trainer = Trainer(ProxySpec(epochs=2, batch_size=16), pool.fresh, transform, nullcontext, rng, rng, pool.cost)
    lazy = Pool(pool.data, None, pool.prepare, trainer=trainer, labelled=pool.labelled.data, cost=pool.cost)  # type: ignore[union-attr]
    balanced_random(lazy, 5, rng=generator())
    assert pool.cost.proxy_steps == 0
    assert lazy.labelled is not None
    assert lazy.labelled.features.shape == (8, 8)
    assert pool.cost.proxy_steps > 0
    with pytest.raises(InputError, match="no trainer"):
        _ = lazy.labelled.history


def test_with_a_validation_share_a_stream_is_learnt_as_well_as_without(tmp_path: Path) -> None:
    """It was .33 lower, as the held-out samples of new classes were served by what was kept of old ones."""
    for buffer, least in (("grad-match", 0.8), ("glister", 0.8)):
        settings = ["training.epochs=3", "stream.validation=0.2"]
        record = clsim.run("split-digits", buffer=buffer, memory=50, settings=settings, runs=tmp_path)
        assert record.accuracy.to_numpy()[-1].mean() > least
