"""The role embedding of a pool: what it is without one of its own, and which selectors choose by it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clsim.checks.samples import clusters, pool_of
from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars
from clsim.spec import abilities, registry
from tests.helpers import generator
from tests.selectors.test_label_pools import EVERY
from tests.selectors.test_selectors import SHORT


class Spy:
    """An embedding of two dimensions by the rows' numbers, which counts how often it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, samples: Exemplars) -> Tensor:
        self.asked += 1
        angle = samples.index.float() * 2.4
        return torch.stack([angle.cos(), angle.sin()], 1) * (1 + samples.index.float())[:, None]


def test_it_is_the_features_where_there_is_none() -> None:
    pool = pool_of(*clusters(20, seed=1))
    assert pool.embedding.equal(pool.features)


def test_it_is_computed_once_and_follows_parts_other_samples_and_other_nets() -> None:
    spy = Spy()
    pool = pool_of(*clusters(20, seed=1), beside=True, embed=spy)
    rows = torch.tensor([7, 3])
    expected = Spy()(pool.data)
    assert pool.embedding.equal(expected)
    assert pool[rows].embedding.equal(expected[rows])
    assert pool.under(pool.fresh(3)).embedding.equal(expected)
    assert spy.asked == 1
    assert pool.labelled is not None
    assert pool.labelled.embedding.equal(Spy()(pool.labelled.data))
    assert pool_of(*clusters(20, seed=1), embed=spy)[rows].embedding.equal(expected[rows])
    apart = pool.apart({"query": rows})
    assert apart.query is not None
    assert apart.query.embedding.equal(expected[rows])
    assert not pool.features.equal(pool.embedding)


def test_values_that_are_not_finite_are_refused() -> None:
    pool = pool_of(*clusters(20, seed=1), embed=lambda samples: torch.full((len(samples), 2), torch.nan))
    with pytest.raises(InputError, match="embedding: found values that are not finite"):
        _ = pool.embedding


READERS = [name for name in EVERY if abilities.reads_embedding(name)]


def test_those_that_read_it_are_those_made_for_it() -> None:
    made = {"typiclust", "usl", "density", "prob-cover", "max-herding", "uncertainty-herding"}
    assert {*READERS} == made | {"k-means", "k-medoids", "agglomerative"}
    assert abilities.reads_embedding("prefilter(density,kcenter,5)")
    assert abilities.reads_embedding("./mine.py:pick")
    assert not any(map(abilities.reads_embedding, ("learning-loss", "greedy-oracle", "dm", "kcenter")))


@pytest.mark.parametrize("name", EVERY)
def test_a_selector_chooses_by_it_exactly_where_its_docstring_says_so(name: str) -> None:
    x, y = clusters(40, seed=1)
    select, spy, chosen = registry.component("selectors", name, SHORT.get(name, {})), Spy(), []
    for embed in (None, spy):
        pool = pool_of(x, y, beside=True, hidden=True, embed=embed)
        chosen.append(select(pool, 6, rng=generator()).index.tolist())
    assert (spy.asked > 0) == (name in READERS)
    assert (chosen[0] != chosen[1]) == (name in READERS)
