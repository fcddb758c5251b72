"""The nets that judge a set: trained as the papers say, for as long as is said."""

from __future__ import annotations

import pytest
import torch

from clsim.condensers.judging import Training, accuracy, protocol
from clsim.data import siamese
from tests.condensing import CLASSES, images, pool_of


@pytest.mark.parametrize(("augment", "expected"), [(True, 1000), (False, 300)])
def test_by_default_a_net_is_trained_for_the_papers_epochs(augment: bool, expected: int) -> None:
    assert protocol(0, augment=augment, digits=False).epochs == expected
    assert protocol(7, augment=augment, digits=False).epochs == 7
    assert Training().epochs == 1000


def test_digits_are_not_mirrored() -> None:
    assert protocol(0, augment=True, digits=True).augment == siamese.DIGITS
    assert protocol(0, augment=True, digits=False).augment == siamese.ALL
    assert protocol(0, augment=False, digits=True).augment == ()


def test_a_net_is_trained_for_the_epochs_that_are_said_and_tested_once() -> None:
    pool, tests = pool_of(4, dtype=torch.float32), images(5, seed=7)
    before = pool.cost.forward_passes
    for epochs in (0, 1, 6):
        accuracy(pool.data, tests, pool, Training(epochs, (), batch_size=5), seed=0)
        assert pool.cost.forward_passes - before == epochs * 4 * CLASSES + len(tests)
        before = pool.cost.forward_passes
