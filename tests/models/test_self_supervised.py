"""Losses without labels: rotations invert, Barlow Twins' zero and its loop, NT-Xent against a loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.models.self_supervised import barlow_loss, rotation_losses, rotations, simclr_loss
from tests.helpers import generator


def test_rotations_invert() -> None:
    x = torch.randint(256, (5, 3, 7, 7), dtype=torch.uint8, generator=generator(0))
    turned, turns = rotations(x)
    assert turned.dtype == x.dtype
    assert turns.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    for image, turn, source in zip(turned, turns.tolist(), x.repeat(4, 1, 1, 1), strict=True):
        assert torch.rot90(image, -turn, (1, 2)).equal(source)
    assert len({tuple(image.flatten().tolist()) for image in turned}) == 20


@pytest.mark.parametrize("shape", [(4, 16), (4, 1, 6, 8)])
def test_what_cannot_be_turned_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="allowed: square images"):
        rotations(torch.zeros(shape))


def test_loss_of_an_image_is_the_mean_over_its_turns() -> None:
    logits = torch.randn(12, 4, generator=generator(0))
    _, turns = rotations(torch.zeros(3, 1, 2, 2))
    each = F.cross_entropy(logits, turns, reduction="none")
    for i, loss in enumerate(rotation_losses(logits)):
        assert loss == pytest.approx(float(each[[i, 3 + i, 6 + i, 9 + i]].mean()))
    sure = 50 * F.one_hot(turns, 4).float()
    assert rotation_losses(sure).equal(torch.zeros(3))
    assert rotation_losses(torch.zeros(12, 4)) == pytest.approx([math.log(4)] * 3)


def test_barlow_is_zero_for_identical_decorrelated_views() -> None:
    n = 8  # the columns of a Hadamard matrix but the first: mean 0, variance 1, no correlation
    matrix = torch.ones(1, 1)
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    z = matrix[:, 1:]
    assert barlow_loss(z, z, 1.0) < 1e-8
    assert barlow_loss(z, 3 * z + 2, 1.0) < 1e-8, "scale and place of the embeddings do not matter"
    assert barlow_loss(z, -z, 0.0) == pytest.approx(4 * 7, rel=1e-4)
    assert barlow_loss(z[:, [0, 0]], z[:, [0, 0]], 0.25) == pytest.approx(0.5, rel=1e-4), "a copy is redundant"
    still = torch.ones(n, 3)
    assert barlow_loss(still, still, 1.0) == pytest.approx(3.0), "a collapse is not rewarded"


def test_barlow_is_its_sum() -> None:
    z1, z2 = torch.randn(2, 20, 5, generator=generator(1)).unbind()
    expected = 0.0
    for i in range(5):
        for j in range(5):
            a, b = z1[:, i] - z1[:, i].mean(), z2[:, j] - z2[:, j].mean()
            c = float((a @ b) / (a.norm() * b.norm()))
            expected += (1 - c) ** 2 if i == j else 0.3 * c**2
    assert barlow_loss(z1, z2, 0.3) == pytest.approx(expected, rel=1e-4)


def test_nt_xent_is_its_sum() -> None:
    z1, z2 = torch.randn(2, 6, 4, generator=generator(2)).unbind()
    z, total = [*z1, *z2], 0.0
    for i in range(12):
        cosines = [float(F.cosine_similarity(z[i], z[k], dim=0)) / 0.2 for k in range(12)]
        below = sum(math.exp(cosines[k]) for k in range(12) if k != i)
        total -= math.log(math.exp(cosines[(i + 6) % 12]) / below)
    assert simclr_loss(z1, z2, 0.2) == pytest.approx(total / 12, rel=1e-5)
    assert simclr_loss(z1, z1, 0.2) < simclr_loss(z1, z2, 0.2)


def test_gradients_are_finite_where_embeddings_do_not_vary() -> None:
    for loss in (barlow_loss, simclr_loss):
        z1, z2 = (torch.zeros(4, 3, requires_grad=True) for _ in range(2))
        loss(z1, z2).backward()
        assert z1.grad is not None
        assert z1.grad.isfinite().all()
