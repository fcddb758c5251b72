"""Training without labels: the same to the bit, no draw from torch's own generator, and what it is good for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clsim.data.augmentation import Transform
from clsim.errors import InputError
from clsim.models import nets
from clsim.models.self_supervised import rotations
from clsim.pool.pretraining import pretrain
from clsim.spec.embedding import EmbeddingSpec
from clsim.spec.tables import STARTS
from tests.helpers import assert_same, generator, mlp_with_dropout

CPU = torch.device("cpu")
SHORT = EmbeddingSpec(epochs=2, batch_size=16, projection=8)
TRANSFORM = Transform([0.3], [0.3], [], device=CPU, channels_last=False)


def shapes(n: int, seed: int = 0, ground: int = 60) -> tuple[Tensor, Tensor]:
    """Bright figures of four classes at random places on a noisy ground, 12 × 12 pixels; and the classes."""
    rng = generator(seed)
    figures = torch.zeros(4, 5, 5)
    figures[0, 2], figures[1, :, 2], figures[2, [0, 4]] = 1, 1, 1
    figures[2, :, [0, 4]] = 1
    figures[3] = torch.eye(5)
    y = torch.randint(4, (n,), generator=rng)
    x = ground * torch.rand(n, 12, 12, generator=rng)
    top, left = torch.randint(8, (2, n), generator=rng)
    for i in range(n):
        x[i, top[i] : top[i] + 5, left[i] : left[i] + 5] += (255 - ground) * figures[y[i]]
    return x[:, None].round().to(torch.uint8), y


def fresh(model: Callable[..., torch.nn.Module] = nets.pooled_convnet3) -> nets.Net:
    return nets.build(model, (1, 12, 12), torch.ones(1, 4, dtype=torch.bool), 0, CPU)


@pytest.mark.parametrize("method", STARTS)
def test_it_is_the_same_to_the_bit_and_draws_from_no_global_generator(method: str) -> None:
    x, _ = shapes(50)
    before, ends = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        net = fresh(mlp_with_dropout)
        losses = pretrain(x, method, net, TRANSFORM, generator(seed), options=SHORT, augment=("crop",))
        assert len(losses) == 2
        ends.append(net.state_dict())
        assert not net.training
    assert torch.get_rng_state().equal(before)
    assert_same(ends[0], ends[1])
    weights = [next(w for name, w in end.items() if name.startswith("body") and w.ndim > 1) for end in ends]
    assert not weights[0].equal(weights[2])


def test_rotation_learns_the_turns_and_leaves_its_head() -> None:
    x, _ = shapes(150)
    x[:, :, :2] = 255  # what is above shows
    net = fresh()
    losses = pretrain(x, "rotation", net, TRANSFORM, generator(), options=dataclasses.replace(SHORT, epochs=6))
    turned, turns = rotations(x)
    with torch.no_grad():
        found = net(TRANSFORM.plain(turned), torch.zeros_like(turns)).argmax(1)
    assert (found == turns).float().mean() > 0.95
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("method", ["simclr", "barlow"])
def test_the_head_of_the_net_stays_as_it_is_where_no_turns_are_told(method: str) -> None:
    net = fresh()
    before = net.head.weight.clone()
    pretrain(shapes(40)[0], method, net, TRANSFORM, generator(), options=SHORT)
    assert net.head.weight.equal(before)


def test_neighbours_in_the_embedding_are_of_one_class_more_often_than_in_pixels_or_in_an_untrained_net() -> None:
    x, y = shapes(160, ground=90)
    net, course = fresh(), dataclasses.replace(SHORT, epochs=15, batch_size=40, temperature=0.2)

    def share(features: Tensor) -> float:
        near = torch.cdist(*[torch.nn.functional.normalize(features)] * 2).fill_diagonal_(torch.inf).argmin(1)
        return float((y[near] == y).float().mean())

    def features() -> Tensor:
        with nets.evaluating(net), torch.no_grad():
            return net.features(TRANSFORM.plain(x))

    pixels, untrained = share(x.flatten(1).float()), share(features())
    pretrain(x, "simclr", net, TRANSFORM, generator(), options=course, augment=("crop",))
    learnt = share(features())
    assert learnt > max(pixels, untrained) + 0.1


def test_what_cannot_be_learnt_from_is_refused() -> None:
    with pytest.raises(InputError, match=r"simclr: found samples of shape .*allowed: two images"):
        pretrain(torch.zeros(9, 4), "simclr", fresh(), TRANSFORM, generator(), options=SHORT)
    with pytest.raises(InputError, match=r"embedding\.augment: unknown name .crip."):
        pretrain(shapes(4)[0], "simclr", fresh(), TRANSFORM, generator(), options=SHORT, augment=("crip",))
