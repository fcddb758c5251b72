"""Neighbours by an index: how many it finds, and that without it, or in small pools, all of them are found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clsim.selectors import neighbour_index
from clsim.selectors.dacs import dacs
from clsim.selectors.distances import nearest
from clsim.selectors.neighbour_index import neighbour_distances
from tests.helpers import generator, points, pool_of


def clustered(n: int, d: int) -> Tensor:
    centres = 3 * points(40, d, 1)
    return points(n, d) + centres[torch.randint(40, (n,), generator=generator(2))]


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_index, "find_spec", lambda name: None)


@pytest.mark.usefixtures("absent")
def test_without_the_extra_all_neighbours_are_exact() -> None:
    x = clustered(300, 8)
    assert torch.equal(neighbour_distances(x, 7, exact=10), nearest(x, None, 7)[0])


def test_up_to_the_limit_all_neighbours_are_exact() -> None:
    x = clustered(300, 8)
    assert torch.equal(neighbour_distances(x, 7), nearest(x, None, 7)[0])
    assert neighbour_distances(x[:1], 7, exact=0).shape == (1, 0)


def test_the_index_finds_nearly_all_neighbours_and_no_distance_is_below_the_exact_one() -> None:
    pytest.importorskip("faiss")
    x, k = clustered(6000, 32), 20
    exact = nearest(x, None, k)[0]
    found = neighbour_distances(x, k, exact=0)
    assert bool((found >= exact * (1 - 1e-5)).all())
    assert bool((found.diff(dim=1) >= 0).all())
    recall = float((found <= exact[:, -1:] * (1 + 1e-5)).double().mean())
    assert recall > 0.9
    torch.testing.assert_close(neighbour_distances(x, k, exact=0, share=1), exact)
    assert torch.equal(found, neighbour_distances(x, k, exact=0))


def test_by_the_index_a_row_is_no_neighbour_of_its_own_but_its_duplicates_are() -> None:
    pytest.importorskip("faiss")
    x = points(200, 6).repeat(5, 1)
    found = neighbour_distances(x, 6, exact=0, share=1)
    assert bool((found[:, :4] == 0).all())
    assert bool((found[:, 4:] > 0).all())


def test_where_the_cells_have_too_few_rows_neighbours_are_exact() -> None:
    pytest.importorskip("faiss")
    x = clustered(400, 8)
    torch.testing.assert_close(neighbour_distances(x, 200, exact=0, share=80), nearest(x, None, 200)[0])


def test_dacs_with_an_index_of_all_cells_is_dacs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    pool = pool_of(clustered(500, 8))
    exact = dacs(pool, 30, rng=generator()).index
    monkeypatch.setattr(
        "clsim.selectors.typicality.neighbour_distances", lambda x, k: neighbour_distances(x, k, exact=0, share=1)
    )
    assert torch.equal(dacs(pool, 30, rng=generator()).index, exact)
