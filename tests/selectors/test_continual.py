"""Memories made for streams, and what to replay from them, against deques, loops and explicit steps."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import clsim
from clsim.checks.samples import clusters, exemplars
from clsim.checks.samples import pool_of as small_pool
from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.models import nets
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool, Selection, Selector
from clsim.selectors.continual import disagreement, mean_of_features, rainbow, ring
from clsim.selectors.interference import full_gradients, gss_greedy, mir, virtual_losses
from clsim.spec.tables import MemorySpec
from tests.helpers import assert_same, generator, pool_of, vectors


def made(samples: Exemplars, *, reference: Exemplars | None = None, incoming: Exemplars | None = None) -> Pool:
    """Under a net whose features are the samples themselves."""
    pool = pool_of(samples.x, torch.full_like(samples.y, 4))
    return Pool(samples, pool.net, lambda x: x, reference=reference, incoming=incoming)


def buffer(select: Selector, retrieve: Selector | None = None, **spec) -> Buffer:
    spec = {"update": "batch", "buffer": "mine", **spec}
    return Buffer(MemorySpec(**spec), select, rng=generator(), cost=Cost(), retrieve=retrieve)


def stream(n: int, classes: int, seed: int = 3) -> Exemplars:
    y = torch.randint(classes, (n,), generator=generator(seed))
    return vectors(
        torch.randn(n, 3, generator=generator(seed + 1)), y, key=torch.rand(n, generator=generator(seed + 2))
    )


# ---- ring


@pytest.mark.parametrize("size", [1, 7, 10])
def test_a_ring_is_a_queue_a_class(size: int) -> None:
    samples, memory = stream(300, 3), buffer(ring, capacity=5, per="class")
    queues = [deque[int](maxlen=5) for _ in range(3)]
    for start in range(0, 300, size):
        batch = samples[start : start + size]
        memory.after_batch(batch, 3, made)
        for row in batch.key.argsort().tolist():  # what arrives together stands in the order of its keys
            queues[int(batch.y[row])].append(start + row)
        if start > 100:
            assert memory.exemplars is not None
            assert set(memory.exemplars.index.tolist()) == {i for queue in queues for i in queue}
        if start == size * (150 // size):  # as after a checkpoint
            state = memory.state_dict()
            memory = buffer(ring, capacity=5, per="class")
            memory.load_state_dict(state, torch.device("cpu"))


def test_a_ring_gives_a_new_class_its_share() -> None:
    y = torch.cat([torch.zeros(40, dtype=torch.int64), torch.ones(40, dtype=torch.int64)])
    samples, memory = vectors(torch.zeros(80, 2), y, key=torch.arange(80) / 80), buffer(ring, capacity=8)
    kept = []
    for start in range(0, 80, 10):
        memory.after_batch(samples[start : start + 10], 2, made)
        assert memory.exemplars is not None
        kept.append(sorted(memory.exemplars.index.tolist()))
    assert kept[3] == list(range(32, 40))
    assert kept[-1] == [36, 37, 38, 39, 76, 77, 78, 79]


# ---- mean of features


def test_mean_of_features_takes_the_nearest_to_the_mean() -> None:
    x = torch.randn(50, 4, generator=generator())
    for normalise in (True, False):
        features = F.normalize(x) if normalise else x
        expected = (features - features.mean(0)).norm(dim=1).argsort()[:9]
        assert torch.equal(mean_of_features(pool_of(x), 9, rng=generator(), normalise=normalise).index, expected)


# ---- rainbow


def test_rainbow_is_evenly_spaced_over_the_sorted_uncertainty() -> None:
    pool = small_pool(*clusters(60, seed=1), sharp=0.2)
    picks = rainbow(pool, 12, rng=generator(), versions=40, strength=0.6).index
    uncertainty = disagreement(pool, 40, 0.6, generator())
    assert uncertainty.unique().numel() > 5
    order = sorted(range(60), key=lambda i: (float(uncertainty[i]), float(pool.data.key[i])))
    assert sorted(picks.tolist()) == sorted(order[::5])
    # any prefix is spread: the first four of twelve are one of each quarter
    quarters = {order.index(i) // 15 for i in picks[:4].tolist()}
    assert len(quarters) == 4


def test_uncertainty_is_the_share_of_versions_that_leave_the_majority() -> None:
    x = torch.tensor([[8.0], [0.05], [-8.0]])
    net = nets.build(
        lambda shape: torch.nn.Identity(), (1,), torch.ones(1, 2, dtype=torch.bool), 0, torch.device("cpu")
    )
    with torch.no_grad():
        net.head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net.head.bias.zero_()
    pool = Pool(vectors(x), net, lambda x: x)
    found = disagreement(pool, 400, 1.0, generator())
    assert found[[0, 2]].tolist() == [0, 0]
    assert 0.38 < found[1] < 0.5  # Φ(−0.05) = 0.48 of the versions lie on the other side
    assert disagreement(pool, 400, 0.0, generator()).tolist() == [0, 0, 0]


def test_perturbed_images_move_no_statistic_and_depend_on_the_seed_alone() -> None:
    pool = small_pool(*clusters(30, seed=1), sharp=0.2)
    before = copy.deepcopy(pool.net.state_dict())
    first = disagreement(pool, 12, 0.5, generator())
    assert_same(before, pool.net.state_dict())
    again = small_pool(*clusters(30, seed=1), sharp=0.2, batch_size=7)
    assert torch.equal(first, disagreement(again, 12, 0.5, generator()))
    assert not torch.equal(first, disagreement(pool, 12, 0.5, generator(1)))


# ---- GSS


def scored(pool: Pool, rows: Tensor, values: Tensor) -> Pool:
    """The same pool, where these rows are in memory with these scores."""
    score = torch.full((len(pool),), torch.nan).index_copy_(0, rows, values)
    pool.data = dataclasses.replace(pool.data, score=score)
    return pool


@pytest.mark.parametrize("layers", ["last", "all"])
def test_gss_follows_its_algorithm(layers) -> None:
    replaced = 0
    for seed in range(30):
        x, y = clusters(13, seed=seed)
        values = torch.rand(12, generator=generator(seed)) * 2
        pool = scored(small_pool(x, y), torch.arange(12), values)
        by_key = pool.data.key.argsort()
        new = 12
        kept = [i for i in by_key.tolist() if i != new]
        kept.sort(key=lambda i: float(values[i]))
        g = pool.gradients.dense().flatten(1) if layers == "last" else full_gradients(pool, torch.arange(13))
        rng = generator(seed)
        compared = torch.randperm(12, generator=rng)[:4]
        c = 1 + max(float(F.cosine_similarity(g[new], g[kept[int(j)]], dim=0)) for j in compared)
        u, fate = torch.rand(12, generator=rng), torch.rand(1, generator=rng)
        loser = int((u.log() / values[kept]).argmax())
        scores = {i: float(values[i]) for i in kept}
        if c < 1 and float(fate) < scores[kept[loser]] / (scores[kept[loser]] + c):
            del scores[kept[loser]]
            scores[new] = c
            replaced += 1
        selection = gss_greedy(pool, 12, rng=generator(seed), compare=4, layers=layers)
        found = dict(zip(selection.index.tolist(), selection.score.tolist(), strict=True))
        assert found.keys() == scores.keys()
        for row, value in scores.items():
            assert found[row] == pytest.approx(value, abs=1e-4)
        assert selection.score.tolist() == sorted(selection.score.tolist())
    assert 0 < replaced < 30


def test_what_gives_way_is_drawn_in_proportion_to_its_score() -> None:
    x, y = clusters(5, seed=1)
    y[:4], y[4] = 0, 1
    values, counts = torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.zeros(4)
    pool = scored(small_pool(x[[0, 0, 0, 0, 1]], y), torch.arange(4), values)
    everything = gss_greedy(pool, 5, rng=generator(), compare=4)
    c = everything.score[everything.index == 4]
    for seed in range(1500):
        index = gss_greedy(pool, 4, rng=generator(seed)).index
        gone = [i for i in range(4) if i not in index.tolist()]
        counts[gone] += 1
    expected = 1500 * values / values.sum() * values / (values + c)
    assert c < 1
    assert bool(((counts - expected).abs() < 5 * expected.sqrt()).all())


def test_gss_keeps_directions_that_differ_and_chance_does_not() -> None:
    def redundancy(kept: Exemplars) -> float:
        g = made(kept).gradients.dense().flatten(1)
        cosines = F.normalize(g) @ F.normalize(g).T
        return float(cosines.sum() - len(g)) / (len(g) * (len(g) - 1))

    # nine of ten samples are of one class and lie on one spot
    n = 400
    y = (torch.arange(n) % 10 == 0).long() * (1 + torch.arange(n) // 10 % 4)
    x = torch.randn(n, 6, generator=generator(1)) * torch.where(y > 0, 2.0, 0.05)[:, None] + F.one_hot(y, 6) * 2.0
    samples = vectors(x, y)
    memories = {}
    for name, select in {"gss": gss_greedy, "random": _largest_keys}.items():
        memory = buffer(select, capacity=20)
        for start in range(0, n, 10):
            memory.after_batch(samples[start : start + 10], 5, made)
        assert memory.exemplars is not None
        assert len(memory.exemplars.index.unique()) == 20
        memories[name] = memory.exemplars
    assert redundancy(memories["gss"]) < 0.7 * redundancy(memories["random"])
    assert (memories["gss"].y > 0).sum() > (memories["random"].y > 0).sum()


def _largest_keys(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(pool.data.key.argsort(descending=True)[:budget])


def test_full_gradients_are_those_of_autograd() -> None:
    pool = small_pool(*clusters(6, seed=1), tasks=((0, 1), (2, 3)))
    pool.net.head.bias.requires_grad_(False)
    weights = [p for p in pool.net.parameters() if p.requires_grad]
    expected = []
    with nets.evaluating(pool.net):
        for i in range(6):
            out = pool.net(pool.inputs(slice(i, i + 1)), pool.data.task[i : i + 1])
            parts = torch.autograd.grad(F.cross_entropy(out, pool.data.y[i : i + 1]), weights)
            expected.append(torch.cat([p.flatten() for p in parts]))
    found = full_gradients(pool, torch.arange(6))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-6)
    assert [p.requires_grad for p in pool.net.parameters()] == [True] * (len(weights)) + [False]


# ---- MIR


def test_the_virtual_step_is_a_step_of_sgd_on_a_copy() -> None:
    pool = small_pool(*clusters(30, seed=1), beside=True)
    incoming = pool.incoming
    assert incoming is not None
    before = copy.deepcopy(pool.net.state_dict())
    twin = copy.deepcopy(pool.net).eval()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.3)
    F.cross_entropy(twin(incoming.inputs(slice(None)), incoming.data.task), incoming.data.y).backward()
    optimizer.step()
    with torch.no_grad():
        after = F.cross_entropy(twin(pool.inputs(slice(None)), pool.data.task), pool.data.y, reduction="none")
    torch.testing.assert_close(virtual_losses(pool, 0.3), after)
    rise = after - pool.losses
    assert torch.equal(mir(pool, 7, rng=generator(), lr=0.3).index, rise.argsort(descending=True)[:7])
    assert_same(before, pool.net.state_dict())
    assert all(p.grad is None for p in pool.net.parameters())
    torch.testing.assert_close(virtual_losses(pool, 0.0), pool.losses)


def test_mirs_virtual_step_is_at_the_rate_of_the_pool() -> None:
    pool = small_pool(*clusters(30, seed=1), beside=True)
    pool.rate = 0.3
    wanted = mir(pool, 7, rng=generator(), lr=0.3).index
    assert torch.equal(mir(pool, 7, rng=generator()).index, wanted)
    assert torch.equal(mir(pool[torch.arange(len(pool))], 7, rng=generator()).index, wanted)
    assert not torch.equal(mir(pool, 7, rng=generator(), lr=1e-6).index, wanted)


def test_mir_replays_the_class_that_the_new_batch_overwrites() -> None:
    x = torch.tensor([[1.0, 0, 0], [1, 0, 0.1], [0, 1, 0], [0, 1, 0.1], [0, 0, 1]])
    memory = vectors(x, torch.tensor([0, 0, 1, 1, 2]))
    new = vectors(torch.tensor([[1.0, 0.1, 0.0]]), torch.tensor([3]))  # looks like class 0, is of class 3
    assert sorted(mir(made(memory, incoming=new), 2, rng=generator(), lr=1.0).index.tolist()) == [0, 1]


# ---- retrieval


@pytest.mark.parametrize("select", [mir, gss_greedy, mean_of_features])
def test_retrieval_chooses_among_the_candidates(select: Selector) -> None:
    memory = buffer(_largest_keys, select, capacity=20, batch_size=4, candidates=9)
    memory.after_batch(stream(30, 4), 4, made)
    assert memory.exemplars is not None
    new = stream(5, 4, seed=9)
    memory.rng = generator(7)
    drawn = memory.exemplars[torch.randperm(20, generator=generator(7))[:9]]
    batch = memory.sample(new, made).exemplars
    assert batch is not None
    rng = generator(7)
    torch.randperm(20, generator=rng)
    expected = drawn[select(made(drawn, incoming=new), 4, rng=rng).index]
    assert torch.equal(batch.index, expected.index)


def test_what_a_retrieval_weighs_replaces_the_weights_in_memory() -> None:
    def first_two(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(torch.tensor([1, 0]), torch.tensor([3.0, 1.0]))

    def weighing(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(torch.arange(min(budget, len(pool))), 1 + pool.data.key[:budget])

    for select, classes, expected in (
        (_largest_keys, 1, [1.5, 0.5]),
        (weighing, 1, [1.5, 0.5]),
        (weighing, 30, [1, 1]),
    ):
        memory = buffer(select, first_two, capacity=6)
        memory.after_batch(stream(30, classes), classes, made)
        before = memory.exemplars
        assert before is not None
        batch = memory.sample(stream(2, classes), made).exemplars
        assert batch is not None
        assert batch.weight is not None
        assert batch.weight.tolist() == expected  # of each class, the mean is 1
        assert memory.exemplars is not None
        assert (memory.exemplars.weight is None) == (select is _largest_keys)


def test_a_retrieval_of_rows_that_do_not_exist_is_refused() -> None:
    def broken(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(torch.tensor([len(pool)]))

    memory = buffer(_largest_keys, broken, capacity=6, retrieval="./mine.py:broken")
    memory.after_batch(stream(30, 4), 4, made)
    with pytest.raises(InputError, match=r"memory\.retrieval './mine\.py:broken': the selector returned"):
        memory.sample(stream(2, 4), made)


@pytest.mark.parametrize("retrieval", ["mir", "badge", "grad-match", "entropy", "per_class(herding)", "grand"])
def test_any_selector_retrieves(retrieval: str, runs: Path) -> None:
    settings = ["data.per_class=20", "stream.experiences=2", "training.epochs=1", f"memory.retrieval={retrieval}"]
    settings += ["proxy.epochs=1", "memory.candidates=20"]
    if retrieval == "grand":
        settings += ["memory.retrieval_options.nets=1"]
    record = clsim.run("split-digits", "er", memory=30, settings=settings, runs=runs)
    plain = clsim.run("split-digits", "er", memory=30, settings=settings[:3], runs=runs)
    assert record.accuracy.shape == (2, 2)
    assert not record.accuracy.equals(plain.accuracy)


def test_impossible_options_are_refused() -> None:
    pool = small_pool(exemplars(*clusters(8, seed=1)).x, clusters(8, seed=1)[1])
    with pytest.raises(InputError, match="versions 0"):
        rainbow(pool, 2, rng=generator(), versions=0)
    with pytest.raises(InputError, match="mir: lr: found -1, allowed"):
        mir(pool, 2, rng=generator(), lr=-1)
    with pytest.raises(InputError, match="compare 0"):
        gss_greedy(pool, 2, rng=generator(), compare=0)
