"""What a pool gives: computed when it is asked for, once, and the same through slices and for other pools beside it."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.nn import functional as F

from clsim.checks.samples import clusters, pool_of
from clsim.errors import InputError
from clsim.pool.contracts import chosen
from clsim.pool.pool import Pool, Selection
from clsim.spec import registry
from tests.helpers import generator, vectors

ROWS = torch.tensor([5, 3, 30, 8])


def samples(**options: object) -> Pool:
    return pool_of(*clusters(40, seed=1), **options)  # type: ignore[arg-type]


def test_one_forward_pass_serves_everything() -> None:
    pool = samples()
    assert pool.cost.forward_passes == 0
    _ = pool.features, pool.logits, pool.probabilities, pool.losses, pool.gradients, pool.predictions
    assert pool.cost.forward_passes == 40


def test_a_slice_of_what_is_computed_computes_nothing() -> None:
    pool = samples()
    features, logits = pool.features, pool.logits
    part = pool[ROWS]
    again = part[torch.tensor([2, 0])]
    assert torch.equal(part.features, features[ROWS])
    assert torch.equal(again.logits, logits[ROWS[[2, 0]]])
    assert again.data.index.tolist() == [30, 5]
    assert pool.cost.forward_passes == 40


def test_a_slice_of_what_is_not_computed_passes_only_its_own() -> None:
    pool = samples()
    part = pool[ROWS]
    assert torch.allclose(part.features, samples().features[ROWS], atol=1e-6)
    assert pool.cost.forward_passes == len(ROWS)


def test_slices_share_the_nets_that_are_trained_on_all() -> None:
    pool = samples()
    part = pool[ROWS]
    of_part, history = part.committee(2), part.history
    steps = pool.cost.proxy_steps
    assert steps == 2 * 2 * 3  # two nets, two epochs, 40 samples in batches of 16
    assert [a.net is b.net for a, b in zip(of_part, pool.committee(2), strict=True)] == [True, True]
    assert pool.cost.proxy_steps == steps
    assert torch.equal(history.correct, pool.history.correct[:, ROWS])
    assert torch.equal(part[torch.tensor([1])].history.losses, pool.history.losses[:, ROWS[[1]]])
    assert torch.allclose(of_part[0].probabilities, pool.committee(1)[0].probabilities[ROWS], atol=1e-6)


def test_the_members_of_a_committee_differ_and_are_not_the_net() -> None:
    pool = samples()
    first, second = pool.committee(2)
    assert not torch.equal(first.net.head.weight, second.net.head.weight)
    assert first.net is not pool.net
    assert torch.equal(first.data.index, pool.data.index)
    sliced = pool[ROWS].committee(2)
    assert torch.equal(sliced[1].data.index, ROWS)


def test_the_pools_beside_are_under_the_same_net() -> None:
    pool = samples(beside=True)
    for other in (pool.labelled, pool.reference, pool.query, pool.private):
        assert other is not None
        assert other.net is pool.net
        assert len(other) == 8
    assert pool.reference is pool.reference  # so that it is passed through the net once
    assert pool[ROWS].query is not None
    plain = samples()
    assert plain.labelled is plain.reference is plain.query is plain.private is None


def test_gradients_are_those_of_autograd() -> None:
    pool = samples()
    for labels, found in ((pool.data.y, pool.gradients), (pool.predictions, pool.hypothetical_gradients)):
        dense = found.dense()
        for row in (0, 7, 21):
            weight = pool.net.head.weight.detach().clone().requires_grad_()
            bias = pool.net.head.bias.detach().clone().requires_grad_()
            logits = F.linear(pool.features[row : row + 1], weight, bias)
            F.cross_entropy(logits, labels[row : row + 1]).backward()
            assert weight.grad is not None
            assert bias.grad is not None
            assert torch.allclose(dense[row, :, :-1], weight.grad, atol=1e-6)
            assert torch.allclose(dense[row, :, -1], bias.grad, atol=1e-6)


def test_gradient_factors_agree_with_the_gradients_written_out() -> None:
    g = samples().gradients
    flat = g.dense().flatten(1)
    weight = torch.rand(40, generator=generator())
    direction = torch.randn(flat.shape[1], generator=generator())
    assert torch.allclose(g.inner(g[:5]), flat @ flat[:5].T, atol=1e-5)
    assert torch.allclose(g.squares, flat.square().sum(1), atol=1e-5)
    assert torch.allclose(g.squared_distances(g[:5]).sqrt(), torch.cdist(flat, flat[:5]), atol=2e-3)
    assert torch.allclose(g.sum(weight).flatten(), weight @ flat, atol=1e-5)
    assert torch.allclose(g.along(direction.view(g.sum().shape)), flat @ direction, atol=1e-5)


def test_gradients_where_there_is_no_label_are_at_the_prediction() -> None:
    x, y = clusters(40, seed=1)
    half = y.where(torch.arange(40) < 20, -1)
    g, h = pool_of(x, half).gradients, pool_of(x, y)
    assert torch.equal(g.q[:20], h.gradients.q[:20])
    assert torch.equal(g.q[20:], h.hypothetical_gradients.q[20:])
    assert bool(pool_of(x, half).losses[20:].isnan().all())


def test_hidden_classes_have_no_probability() -> None:
    pool = samples(tasks=((0,), (1, 2, 3)))
    assert bool((pool.probabilities[~pool.visible] == 0).all())
    assert torch.allclose(pool.probabilities.sum(1), torch.ones(40))
    assert bool((pool.logits[~pool.visible] == -torch.inf).all())
    assert bool(pool.visible.gather(1, pool.predictions[:, None]).all())


def test_stochastic_passes_follow_their_generator_and_leave_the_net_alone() -> None:
    pool = samples()
    before = [value.clone() for value in pool.net.state_dict().values()]
    state = torch.get_rng_state()
    drawn = pool.stochastic(4, generator(3))
    assert drawn.shape == (4, 40, 4)
    assert torch.equal(drawn, pool.stochastic(4, generator(3)))
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, pool.net.state_dict().values(), strict=True))


def test_vectors_alone_are_their_own_features() -> None:
    x = torch.randn(9, 3, generator=generator())
    pool = Pool(vectors(x), None, lambda x: x, query=vectors(x[:2]))
    assert pool.features.data_ptr() == pool.data.x.data_ptr()
    assert pool.query is not None
    assert torch.equal(pool.query.features, x[:2])
    assert torch.equal(pool[ROWS[:2]].features, x[ROWS[:2]])
    for part in (pool, pool[ROWS[:2]], pool.query):
        with pytest.raises(InputError, match="there are features alone"):
            _ = part.logits


def test_a_pool_without_a_trainer_says_that_it_cannot_train() -> None:
    pool = samples()
    plain = Pool(pool.data, pool.net, pool.prepare)
    with pytest.raises(InputError, match="the pool has no trainer"):
        _ = plain.history


def test_a_net_that_has_diverged_is_known_to_the_parts_too() -> None:
    pool = samples()
    assert not pool.diverged
    with torch.no_grad():
        next(pool.net.body.parameters()).fill_(torch.nan)
    assert pool.diverged
    assert pool[ROWS].diverged


def test_a_choice_that_goes_wrong_under_a_diverged_net_says_why() -> None:
    def twice(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(torch.zeros(2, dtype=torch.int64))

    pool = samples()
    with pytest.raises(InputError, match="returned a row twice, allowed"):
        chosen(twice, pool, 5, generator(), "mine")
    with torch.no_grad():
        next(pool.net.body.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"a row twice, from a net whose training has diverged .*optimizer\.lr"):
        chosen(twice, pool, 5, generator(), "mine")


@pytest.mark.parametrize("name", ["herding", "kcenter", "entropy", "random"])
def test_a_net_that_has_diverged_is_named_where_a_selector_asks_for_its_features(name: str) -> None:
    """Whatever the selector would make of them: a row twice, an error, or a choice that looks like one."""
    pool, select = samples(), registry.component("selectors", name)
    with torch.no_grad():
        next(pool.net.body.parameters()).fill_(torch.nan)
    if name == "random":
        assert len(chosen(select, pool, 5, generator(), name).index) == 5
        return
    with pytest.raises(InputError, match=rf"^{name}: .*features.* not finite.*training has diverged.*optimizer\.lr"):
        chosen(select, pool, 5, generator(), name)


def test_what_is_replayed_in_a_step_waits_for_no_check_of_the_features() -> None:
    pool = samples()
    with torch.no_grad():
        next(pool.net.body.parameters()).fill_(torch.nan)
    beside = Pool(pool.data, pool.net, pool.prepare, incoming=pool.data[ROWS])
    assert beside.features.isnan().any()


def test_candidates_are_freed_at_once() -> None:
    """No pool is part of a cycle: candidates of a large pool would stay in memory until Python looks for cycles."""
    pool = pool_of(*clusters(12, seed=1))
    rows = torch.arange(6)
    parts = pool.parts([(0, rows), (1, rows + 6)])
    assert len(parts[0].features) == len(parts[1].features) == 6
    freed = [weakref.ref(one) for one in (pool, *parts)]
    gc.disable()
    try:
        del pool, parts
        assert [one() for one in freed] == [None] * 3
    finally:
        gc.enable()
