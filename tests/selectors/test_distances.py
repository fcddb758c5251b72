"""Neighbours and principal components, blocked, against the plain forms."""

from __future__ import annotations

import pytest
import torch

from clsim.selectors import distances
from clsim.selectors.distances import nearest, nearest_of, principal, squared_distances
from tests.helpers import points


@pytest.fixture(params=[distances.BLOCK, 40])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
def test_nearest_neighbours_are_those_of_the_full_matrix() -> None:
    queries, candidates = points(30), points(20, seed=1)
    expected = torch.cdist(queries, candidates).sort(1)
    distance, index = nearest(queries, candidates, 5)
    assert torch.equal(index, expected.indices[:, :5])
    torch.testing.assert_close(distance, expected.values[:, :5])


@pytest.mark.usefixtures("block")
def test_a_row_is_no_neighbour_of_its_own() -> None:
    x = points(25)
    distance, index = nearest(x, None, 3)
    expected = torch.cdist(x, x).fill_diagonal_(torch.inf).sort(1)
    assert torch.equal(index, expected.indices[:, :3])
    torch.testing.assert_close(distance, expected.values[:, :3])


@pytest.mark.usefixtures("block")
def test_duplicates_are_at_no_distance_at_all_and_the_earlier_comes_first() -> None:
    x = (points(6) + 100).repeat(3, 1)
    distance, index = nearest(x, None, 2)
    assert torch.equal(distance, torch.zeros(18, 2))
    assert index[0].tolist() == [6, 12]
    assert index[17].tolist() == [5, 11]


@pytest.mark.parametrize(("n", "k", "found"), [(1, 3, 0), (2, 3, 1), (4, 0, 0), (0, 2, 0), (5, 9, 4)])
def test_there_are_no_more_neighbours_than_others(n: int, k: int, found: int) -> None:
    distance, index = nearest(points(n), None, k)
    assert distance.shape == index.shape == (n, found)


def test_far_from_the_origin_neighbours_stay_the_same() -> None:
    x = points(60, 8)
    assert torch.equal(nearest(x + 1000, None, 1)[1], nearest(x, None, 1)[1])


@pytest.mark.usefixtures("block")
def test_the_nearest_centre_is_that_of_the_full_matrix() -> None:
    x, centres = points(50), points(7, seed=2)
    square, which = nearest_of(x, centres)
    expected = torch.cdist(x, centres).min(1)
    assert torch.equal(which, expected.indices)
    torch.testing.assert_close(square.sqrt(), expected.values)


def test_squared_distances_are_never_negative() -> None:
    x = points(40).repeat(2, 1) * 1e3
    squares = squared_distances(x, x)
    assert bool((squares >= 0).all())
    torch.testing.assert_close(squares.sqrt(), torch.cdist(x, x), atol=2.0, rtol=1e-3)


@pytest.mark.usefixtures("block")
def test_principal_components_are_those_of_the_singular_values() -> None:
    x = points(200, 6) * torch.tensor([9.0, 5.0, 3.0, 1.0, 0.5, 0.1]) + 7
    mean, directions = principal(x, 3)
    scores = (x - mean) @ directions
    torch.testing.assert_close(directions.T @ directions, torch.eye(3), atol=1e-5, rtol=0)
    expected = torch.linalg.svdvals(x - x.mean(0))[:3]
    torch.testing.assert_close(scores.square().sum(0).sqrt(), expected, rtol=1e-4, atol=1e-4)
    assert principal(x, 50)[1].shape == (6, 6)
