"""An exemplar's mass: how many samples of the stream it stands for, from its first choice on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from clsim.checks.samples import clusters
from clsim.checks.samples import pool_of as small_pool
from clsim.memory.buffer import Buffer
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool, Selection, Selector
from clsim.selectors.bayesian import sparse_approximation
from clsim.selectors.combinators import per_class
from clsim.selectors.craig import craig
from clsim.selectors.grad_match import grad_match
from clsim.selectors.random import class_balanced
from clsim.spec.tables import MemorySpec
from tests.helpers import generator

WEIGHING = [craig, grad_match, sparse_approximation]


def buffer(select: Selector, **options: Any) -> Buffer:
    return Buffer(MemorySpec(buffer="mine", **options), select, rng=generator(), cost=Cost())


def make_pool(samples: Exemplars, **beside: Any) -> Pool:
    pool = small_pool(samples.x, samples.y)
    pool.data = samples
    return pool


def experience(position: int, n: int = 40) -> Exemplars:
    """Two classes, twice as many samples of the second one."""
    x, y = clusters(3 * n, seed=position)
    wanted = ((y == 2 * position) & (torch.arange(3 * n) % 8 < 4)) | (y == 2 * position + 1)
    return dataclasses.replace(small_pool(x, y).data, index=torch.arange(3 * n) + 1000 * position)[wanted]


def by_class(values: Tensor, y: Tensor) -> dict[int, float]:
    return {int(label): float(values[y == label].sum()) for label in y.unique()}


@pytest.mark.parametrize("select", WEIGHING)
def test_the_masses_of_a_class_sum_to_the_samples_of_it_that_the_stream_had(select: Selector) -> None:
    memory, had = buffer(per_class(select), capacity=12), {}
    for position in (0, 1):
        new = experience(position)
        had |= {int(label): float((new.y == label).sum()) for label in new.y.unique()}
        memory.after_experience(new, 2, make_pool)
        kept = memory.exemplars
        assert kept is not None
        assert kept.mass is not None
        assert kept.weight is not None
        assert by_class(kept.mass, kept.y) == pytest.approx(had)  # old classes fade no more than new ones do
        for label in kept.y.unique():
            own = kept.y == label
            assert float(kept.weight[own].mean()) == pytest.approx(1)
            torch.testing.assert_close(kept.weight[own], kept.mass[own] / kept.mass[own].mean())


@pytest.mark.parametrize("select", WEIGHING)
def test_a_candidate_counts_as_often_as_its_mass_says(select: Selector) -> None:
    x, y = clusters(24, seed=4)
    mass = 1.0 + 200 * (torch.arange(24) % 7 == 0)
    weighed = small_pool(x, y)
    weighed.data = dataclasses.replace(weighed.data, mass=mass)
    plain = select(small_pool(x, y), 8, rng=generator())
    found = select(weighed, 8, rng=generator())
    assert not torch.equal(found.index, plain.index)
    ones = small_pool(x, y)
    ones.data = dataclasses.replace(ones.data, mass=torch.ones(24))
    same = select(ones, 8, rng=generator())
    assert torch.equal(same.index, plain.index)
    torch.testing.assert_close(same.weight, plain.weight)


def test_craig_serves_heavy_samples_first() -> None:
    x, y = clusters(40, seed=1)
    pool = small_pool(x, torch.zeros_like(y))
    distances = pool.gradients.squared_distances(pool.gradients).sqrt()
    mass = torch.ones(40).index_fill(0, torch.arange(0, 40, 4), 1e4)
    pool.data = dataclasses.replace(pool.data, mass=mass)
    selection = craig(pool, 1, rng=generator())
    assert int(selection.index) == int((mass[:, None] * distances).sum(0).argmin())
    assert selection.weight is not None
    assert float(selection.weight) == float(mass.sum())


def test_the_weights_of_each_class_with_a_pick_sum_to_its_mass() -> None:
    x, y = clusters(40, seed=1)
    for select in (craig, grad_match):
        pool = small_pool(x, y)
        pool.data = dataclasses.replace(pool.data, mass=1 + pool.data.key)
        whole = by_class(pool.mass, y)
        for budget in (2, 10):
            found = select(pool, budget, rng=generator())
            assert found.weight is not None
            weights = by_class(found.weight, y[found.index])
            assert weights == pytest.approx({label: whole[label] for label in weights})


def weighing(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keeps the newest, in raw weights of any scale."""
    index = pool.data.index.argsort(descending=True)[:budget]
    return Selection(index, 7.0 + 5 * pool.data.key[index])


def test_what_the_weights_are_compared_within_is_an_option() -> None:
    new, weights = experience(0), {}
    for how in ("class", "all", "none"):
        memory = buffer(per_class(weighing), capacity=8, weights=how)
        memory.after_experience(new, 2, make_pool)
        kept = memory.exemplars
        assert kept is not None
        assert kept.mass is not None
        weights[how] = kept.weight
        wanted = {int(label): float((new.y == label).sum()) for label in kept.y.unique()}
        assert by_class(kept.mass, kept.y) == pytest.approx(wanted)
        if how == "all":
            torch.testing.assert_close(kept.weight, kept.mass / kept.mass.mean())
    assert weights["none"] is None
    assert not torch.equal(weights["class"], weights["all"])


def test_a_checkpoint_without_masses_is_resumed() -> None:
    """Its weights were all that was known of them; where it has none, every exemplar stands for itself."""
    memory = buffer(weighing, capacity=9)
    memory.after_experience(experience(0), 2, make_pool)
    state = memory.state_dict()
    old = {"columns": {name: c for name, c in state["columns"].items() if name != "mass"}, "seen": state["seen"]}
    resumed = buffer(weighing, capacity=9)
    resumed.load_state_dict(old, torch.device("cpu"))
    assert resumed.exemplars is not None
    assert torch.equal(resumed.exemplars.mass, state["columns"]["weight"])
    resumed.after_experience(experience(1), 4, make_pool)
    assert resumed.exemplars.mass is not None

    plain = buffer(class_balanced, capacity=9)
    plain.after_experience(experience(0), 2, make_pool)
    columns = plain.state_dict()["columns"]
    assert "mass" not in columns  # a memory that is not weighed keeps nothing more than before
    twin = buffer(class_balanced, capacity=9)
    twin.load_state_dict({"columns": columns, "seen": 50}, torch.device("cpu"))
    assert twin.exemplars is not None
    assert make_pool(twin.exemplars).mass.tolist() == [1.0] * 9
