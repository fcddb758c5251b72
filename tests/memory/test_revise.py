"""What is kept beside exemplars can be revised: a batch says which rows it is of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool, Selection, Selector
from clsim.selectors.random import reservoir
from clsim.selectors.scores import highest
from clsim.spec.tables import MemorySpec
from tests.helpers import assert_same, generator, vectors


def make_pool(samples: Exemplars, **beside: Any) -> Pool:
    return Pool(samples, None, lambda x: x)


def newest(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(highest(pool.data.index.float(), budget))


def filled(retrieve: Selector | None = None, **options: Any) -> Buffer:
    spec = MemorySpec(**({"buffer": "mine", "capacity": 8, "batch_size": 3, "update": "batch"} | options))
    memory = Buffer(spec, reservoir, rng=generator(), cost=Cost(), retrieve=retrieve)
    for start in range(0, 40, 10):
        x = torch.arange(start, start + 10.0)[:, None]
        memory.after_batch(vectors(x, first=start), 1, make_pool)
    return memory


@pytest.mark.parametrize("retrieve", [None, newest])
def test_a_batch_says_which_rows_it_is_of(retrieve: Selector | None) -> None:
    memory = filled(retrieve)
    for _ in range(5):
        drawn = memory.sample(vectors(torch.zeros(2, 1)), make_pool)
        assert drawn.exemplars is not None
        assert memory.stored is not None
        assert len(drawn.rows.unique()) == 3
        assert_same(memory.stored[drawn.rows].columns(), drawn.exemplars.columns())


def test_an_empty_memory_gives_nothing() -> None:
    memory = Buffer(MemorySpec(buffer="mine"), reservoir, rng=generator(), cost=Cost())
    drawn = memory.sample(vectors(torch.zeros(2, 1)), make_pool)
    assert drawn.exemplars is None
    assert len(drawn.rows) == 0
    with pytest.raises(InputError, match="found an empty memory, allowed"):
        memory.revise(drawn.rows, soft=torch.zeros(0, 3))


def test_a_revision_changes_nothing_but_the_soft_labels_of_its_rows() -> None:
    memory = filled()
    before = memory.stored
    assert before is not None
    rows = memory.sample(vectors(torch.zeros(2, 1)), make_pool).rows
    for turn in range(2):  # the first makes the column, the second overwrites it
        memory.revise(rows, soft=torch.full((3, 4), turn + 1.0))
        after = memory.stored
        assert after is not None
        assert after.soft is not None
        assert bool((after.soft[rows] == turn + 1).all())
        others = torch.ones(8, dtype=torch.bool).index_fill(0, rows, False)
        assert bool(after.soft[others].isnan().all())
        assert_same({n: c for n, c in after.columns().items() if n != "soft"}, before.columns())


def test_revised_labels_stay_with_their_exemplars_and_are_resumed() -> None:
    memory = filled()
    assert memory.stored is not None
    memory.revise(torch.arange(8), soft=memory.stored.x.repeat(1, 2))
    memory.after_batch(vectors(torch.arange(40, 50.0)[:, None], first=40), 1, make_pool)
    memory.after_experience(vectors(torch.zeros(0, 1)), 1, make_pool)
    twin = Buffer(memory.spec, reservoir, rng=generator(), cost=Cost())
    twin.load_state_dict(memory.state_dict(), torch.device("cpu"))
    for one in (memory, twin):
        kept = one.stored
        assert kept is not None
        assert kept.soft is not None
        old = kept.index < 40
        assert torch.equal(kept.soft[old], kept.x[old].repeat(1, 2))
        assert bool(kept.soft[~old].isnan().all())
    twin.revise(torch.tensor([1]), soft=torch.zeros(1, 2))
    assert memory.stored is not None
    assert memory.stored.soft is not None
    assert twin.stored is not None
    assert not torch.equal(twin.stored.soft, memory.stored.soft)  # type: ignore[arg-type]


def test_soft_labels_of_another_width_are_refused() -> None:
    memory = filled()
    memory.revise(torch.arange(2), soft=torch.zeros(2, 4))
    with pytest.raises(InputError, match=r"found soft labels of shape \(2, 3\), allowed: \(2, 4\)"):
        memory.revise(torch.arange(2), soft=torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"found soft labels of shape \(3, 4\), allowed: \(2, 4\)"):
        memory.revise(torch.arange(2), soft=torch.zeros(3, 4))
