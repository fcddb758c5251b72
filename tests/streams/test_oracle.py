"""The oracle: it says what it is asked, once, keeps who asked, and errs the same way each time."""

from __future__ import annotations

import numpy as np
import pytest

from clsim.errors import InputError
from clsim.streams.oracle import Oracle

Y = [np.array([0, 1, 0, 1]), np.array([2, 3, 3])]


def oracle(noise: float = 0.0, seed: int = 0, y: list[np.ndarray] | None = None) -> Oracle:
    return Oracle(Y if y is None else y, [(0, 1), (2, 3)], seed, noise, [np.array([3]), np.array([0])])


def test_it_knows_and_says_nothing_before_it_is_asked() -> None:
    asked = oracle()
    assert [asked.labels(i).tolist() for i in (0, 1)] == [[-1] * 4, [-1] * 3]
    assert asked.classes(0) == asked.classes(1) == set()
    assert not asked.revealed(0).any()
    assert asked.asked == []


def test_it_keeps_who_asked_for_what_and_when() -> None:
    found = oracle()
    assert found.tell(0, found.initial[0], "initial").tolist() == [1]
    assert found.tell(0, np.array([2, 1]), "badge", 1).tolist() == [0, 1]
    assert found.tell(1, np.array([2]), "margin", 4).tolist() == [3]
    assert [(q.position, q.round, q.by, q.rows.tolist()) for q in found.asked] == [
        (0, 0, "initial", [3]),
        (0, 1, "badge", [2, 1]),
        (1, 4, "margin", [2]),
    ]
    assert found.labels(0).tolist() == [-1, 1, 0, 1]
    assert found.classes(1) == {3}  # nobody has met class 2
    found.revealed(0)[:] = False  # a copy
    assert found.revealed(0).tolist() == [False, True, True, True]


@pytest.mark.parametrize("rows", [[1], [0, 0], [4], [-1]])
def test_it_refuses_to_say_it_again(rows: list[int]) -> None:
    asked = oracle()
    asked.tell(0, np.array([1]), "badge")
    with pytest.raises(InputError, match="3 unlabelled samples, each once"):
        asked.tell(0, np.array(rows), "badge")
    assert len(asked.asked) == 1


def test_wrong_answers_are_other_classes_of_the_experience_in_the_share_asked_for() -> None:
    y = [np.zeros(4000, dtype=np.int64), np.full(4000, 3)]
    noisy = oracle(0.25, y=y)
    for position, (own, other) in enumerate([(0, 1), (3, 2)]):
        told = noisy.tell(position, np.arange(4000), "random")
        assert set(told.tolist()) == {own, other}
        assert abs((told == other).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
        assert (oracle(0.25, y=y).tell(position, np.arange(4000)[::-1], "another")[::-1] == told).all()
        assert (oracle(0.25, seed=1, y=y).tell(position, np.arange(4000), "random") != told).any()
        assert (noisy.truth(position, np.arange(4000)) == own).all()
