"""The buffer: what is in it is what its selector chose, whole and unmixed."""

from __future__ import annotations

import pytest
import torch

from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.pool.exemplars import Exemplars, batch_count, batches, concatenate
from clsim.pool.pool import Cost, Pool, Selection, Selector
from clsim.selectors.random import class_balanced, random, reservoir
from clsim.spec.tables import MemorySpec
from tests.helpers import generator, pool_of, vectors


def buffer(select: Selector | None, **spec) -> Buffer:
    return Buffer(MemorySpec(buffer="mine", **spec), select, rng=generator(), cost=Cost())


def make_pool(samples: Exemplars, *, reference: Exemplars | None = None, incoming: Exemplars | None = None) -> Pool:
    pool = pool_of(samples.x, samples.y)
    pool.data = samples
    return pool


def stream(n: int, classes: int = 4) -> Exemplars:
    """Samples whose every column follows from their index, so that a mixed-up row shows."""
    index = torch.arange(n)
    return vectors(index.float().unsqueeze(1).repeat(1, 2), index % classes, key=torch.rand(n, generator=generator(3)))


def assert_whole(kept: Exemplars, source: Exemplars) -> None:
    for name, column in kept.columns().items():
        assert torch.equal(column, source.columns()[name][kept.index]), name
    assert len(kept.index.unique()) == len(kept)


@pytest.mark.parametrize("select", [random, reservoir])
@pytest.mark.parametrize("size", [1, 7, 10])
def test_a_reservoir_holds_the_largest_keys_of_everything_seen(select, size: int) -> None:
    samples, memory = stream(100), buffer(select, capacity=15, update="batch")
    for start in range(0, 100, size):
        memory.after_batch(samples[start : start + size], 4, make_pool)
        seen = samples[: start + size]
        kept = memory.exemplars
        assert kept is not None
        assert_whole(kept, samples)
        assert set(kept.index.tolist()) == set(seen.key.argsort(descending=True)[:15].tolist())


def test_every_update_keeps_the_classes_balanced() -> None:
    samples, memory = stream(200, classes=5), buffer(class_balanced, capacity=12, update="batch")
    for i, batch in enumerate(batches(samples, 10, generator())):
        memory.after_batch(batch, 5, make_pool)
        kept = memory.exemplars
        assert kept is not None
        assert_whole(kept, samples)
        if i > 5:
            assert sorted(kept.y.bincount().tolist()) == [2, 2, 2, 3, 3]


@pytest.mark.parametrize("update", ["batch", "experience"])
def test_capacity_may_grow_with_the_classes(update: str) -> None:
    samples, memory = stream(80), buffer(class_balanced, capacity=3, per="class", update=update)
    for position in range(2):
        part = samples[(samples.y // 2 == position).nonzero().flatten()]
        for batch in batches(part, 10, generator()):
            memory.after_batch(batch, 2 * position + 2, make_pool)
        memory.after_experience(part, 2 * position + 2, make_pool)
        assert memory.exemplars is not None
        assert memory.exemplars.y.bincount().tolist() == [3] * (2 * position + 2)


def test_the_memory_changes_only_when_it_is_time() -> None:
    samples = stream(40)
    late = buffer(random, capacity=5, update="experience")
    late.after_batch(samples[:10], 4, make_pool)
    assert late.exemplars is None
    assert late.sample(stream(1), make_pool).exemplars is None
    late.after_experience(samples, 4, make_pool)
    assert len(late) == 5
    early = buffer(random, capacity=5, update="batch")
    early.after_batch(samples[:10], 4, make_pool)
    early.after_experience(samples, 4, make_pool)
    assert early.exemplars is not None
    assert set(early.exemplars.index.tolist()) <= set(range(10))


def test_no_selector_keeps_nothing() -> None:
    memory = buffer(None)
    memory.after_experience(stream(10), 4, make_pool)
    assert memory.exemplars is None
    assert memory.state_dict() == {"columns": {}, "seen": 0}


def test_a_replayed_batch_holds_no_exemplar_twice_and_all_equally_often() -> None:
    memory = buffer(random, capacity=12, batch_size=4)
    memory.after_experience(stream(40), 4, make_pool)
    counts = torch.zeros(40)
    for _ in range(900):
        batch = memory.sample(stream(1), make_pool).exemplars
        assert batch is not None
        assert len(batch.index.unique()) == 4
        counts[batch.index] += 1
    assert int((counts > 0).sum()) == 12
    assert 230 < counts[counts > 0].min() <= counts.max() < 370  # 300 ± 5 standard deviations of 14


def test_a_small_memory_is_replayed_whole() -> None:
    memory = buffer(random, capacity=3, batch_size=10)
    memory.after_experience(stream(40), 4, make_pool)
    batch = memory.sample(stream(1), make_pool).exemplars
    assert batch is not None
    assert len(batch) == 3


def test_state_goes_out_and_in_again() -> None:
    samples, memory, twin = stream(60), *(buffer(random, capacity=9, update="batch") for _ in range(2))
    memory.after_batch(samples[:30], 4, make_pool)
    memory.after_experience(samples, 4, make_pool)
    twin.load_state_dict(memory.state_dict(), torch.device("cpu"))
    for m in (memory, twin):
        m.rng = generator(5)
        m.after_batch(samples[30:], 4, make_pool)
    assert memory.exemplars is not None
    assert twin.exemplars is not None
    for name, column in memory.exemplars.columns().items():
        assert torch.equal(column, twin.exemplars.columns()[name])
    first, second = memory.sample(stream(1), make_pool).exemplars, twin.sample(stream(1), make_pool).exemplars
    assert first is not None
    assert second is not None
    assert torch.equal(first.index, second.index)


def test_weights_follow_their_exemplars_until_the_next_choice() -> None:
    weighs = True

    def select(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        index = pool.data.key.argsort(descending=True)[:budget]
        return Selection(index, pool.data.key[index] if weighs else None)

    samples, memory = stream(40), buffer(select, capacity=8, update="batch", batch_size=8)
    for start in range(0, 40, 10):
        memory.after_batch(samples[start : start + 10], 4, make_pool)
        batch = memory.sample(stream(1), make_pool).exemplars
        assert batch is not None
        assert batch.weight is not None
        for label in batch.y.unique():  # the whole memory is replayed; in each class, weights have a mean of 1
            own = batch.y == label
            assert torch.allclose(batch.weight[own], batch.key[own] / batch.key[own].mean())
    weighs = False
    memory.after_batch(samples[:10], 4, make_pool)
    assert memory.exemplars is not None
    assert memory.exemplars.weight is None


BROKEN = {
    "out of range": lambda n, budget: torch.tensor([n]),
    "negative": lambda n, budget: torch.tensor([-1]),
    "twice": lambda n, budget: torch.tensor([1, 1]),
    "too many": lambda n, budget: torch.arange(budget + 1),
    "floats": lambda n, budget: torch.rand(2),
    "a matrix": lambda n, budget: torch.zeros(2, 1, dtype=torch.int64),
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_invalid_selection_is_refused_with_what_was_found(how: str) -> None:
    def broken(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(BROKEN[how](len(pool), budget))

    with pytest.raises(
        InputError, match=r"memory\.buffer 'mine': the selector returned .*, allowed: a Selection of int64, at most 5"
    ):
        buffer(broken, capacity=5).after_experience(stream(40), 4, make_pool)


def test_something_else_than_a_selection_is_refused() -> None:
    with pytest.raises(InputError, match="the selector returned a list, allowed: a Selection"):
        buffer(lambda pool, budget, *, rng: [1, 2], capacity=5).after_experience(stream(40), 4, make_pool)


def test_rows_that_do_not_exist_are_refused_in_a_batch_too() -> None:
    def broken(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(torch.tensor([len(pool)]))

    with pytest.raises(InputError, match="the selector returned"):
        buffer(broken, capacity=5, update="batch").after_batch(stream(10), 4, make_pool)


@pytest.mark.parametrize(("n", "size"), [(1, 10), (10, 10), (11, 10), (12, 10), (21, 10), (5, 1), (3, 2)])
def test_batches_hold_every_sample_once_and_never_one_alone(n: int, size: int) -> None:
    parts = list(batches(stream(n), size, generator()))
    assert len(parts) == batch_count(n, size)
    assert sorted(torch.cat([p.index for p in parts]).tolist()) == list(range(n))
    if size > 1 and n > 1:
        assert min(map(len, parts)) > 1
    assert max(map(len, parts)) <= size + 1


def test_concatenation_gives_weight_one_where_there_was_none() -> None:
    a, b = stream(3), stream(2).with_notes(torch.arange(2), torch.tensor([0.5, 1.5]), None, None)
    joined = concatenate([a, b])
    assert joined.weight is not None
    assert joined.weight.tolist() == [1, 1, 1, 0.5, 1.5]
    assert concatenate([a, a]).weight is None
