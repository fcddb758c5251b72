"""Monte-Carlo dropout: one mask for all samples, drawn from the given generator, and nothing else moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clsim.models import nets
from clsim.pool.dropout import Dropped
from clsim.pool.pool import Pool
from tests.helpers import generator, vectors

CPU = torch.device("cpu")


def pool_with(*dropout: nn.Module, batch_size: int = 500, n: int = 30, image: bool = False) -> Pool:
    """Under a net with batch norm whose statistics are not those of the pool."""
    shape = (2, 3, 3) if image else (6,)

    def body(shape: tuple[int, ...]) -> nn.Module:
        first = [nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8)] if image else [nn.Linear(6, 8), nn.BatchNorm1d(8)]
        return nn.Sequential(*first, nn.ReLU(inplace=True), *dropout, nn.Flatten())

    net = nets.build(body, shape, torch.ones(1, 4, dtype=torch.bool), 0, CPU)
    x = torch.randn(n, *shape, generator=generator(1)) + 0.5
    return Pool(vectors(x), net, lambda x: x, batch_size=batch_size)


ALL = [(nn.Dropout(0.3),), (nn.Dropout(0.3), nn.Dropout(0.2)), ()]


@pytest.mark.parametrize("layers", ALL, ids=["one", "two", "none"])
def test_every_sample_sees_the_same_mask(layers: tuple[nn.Module, ...]) -> None:
    """Twins in one pass have one softmax: with a mask a sample they would differ."""
    pool = pool_with(*layers)
    twice = pool[torch.arange(30).repeat(2)]
    drawn = twice.stochastic(5, generator())
    assert torch.allclose(drawn[:, :30], drawn[:, 30:], atol=1e-6)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)  # and every pass has another


@pytest.mark.parametrize("layers", ALL, ids=["one", "two", "none"])
def test_draws_follow_the_generator_alone_and_not_the_batches(layers: tuple[nn.Module, ...]) -> None:
    drawn = pool_with(*layers).stochastic(4, generator(3))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(drawn, pool_with(*layers).stochastic(4, generator(3)))
    assert torch.allclose(drawn, pool_with(*layers, batch_size=7).stochastic(4, generator(3)), atol=1e-6)
    assert not torch.allclose(drawn, pool_with(*layers).stochastic(4, generator(4)), atol=1e-3)
    assert torch.equal(state, torch.get_rng_state())


def test_the_net_and_its_batch_norm_are_untouched() -> None:
    pool = pool_with(nn.Dropout(0.3))
    pool.net.train()
    before = {name: value.clone() for name, value in pool.net.state_dict().items()}
    dropped = Dropped(pool.net, generator())
    statistics = [value.clone() for value in dropped.net.buffers()]
    pool.stochastic(3, generator())
    dropped.net.features(pool.data.x)
    assert all(torch.equal(before[name], value) for name, value in pool.net.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(statistics, dropped.net.buffers(), strict=True))
    assert isinstance(pool.net.body[3], nn.Dropout)
    assert all(m.training for m in pool.net.modules())


def test_without_dropout_layers_the_mask_sits_before_the_head() -> None:
    """Halves of the features are dropped and the others doubled: logits are those of the head on such features."""
    pool = pool_with()
    p = pool.stochastic(1, generator(5))[0]
    kept = torch.rand(pool.features.shape[1], generator=generator(5)) >= 0.5
    assert torch.allclose(p, pool.net.head(pool.features * kept * 2).softmax(1), atol=1e-6)
    assert pool.cost.forward_passes == 30  # the features are computed once, whatever the number of passes


def test_masks_keep_the_mean_and_the_rate() -> None:
    pool = pool_with(nn.Dropout(0.3))
    dropped, masks = Dropped(pool.net, generator()), []
    for _ in range(2000):
        dropped.draw()
        masks.append(dropped.net.body[3](torch.ones(1, 8)))
    mean = torch.cat(masks).mean(0)
    assert torch.allclose(mean, torch.ones(8), atol=0.08)  # the standard error is 0.015
    assert torch.cat(masks).unique().tolist() == [0, pytest.approx(1 / 0.7)]


def test_dropout_of_whole_channels_drops_whole_channels() -> None:
    pool = pool_with(nn.Dropout2d(0.5), image=True)
    dropped = Dropped(pool.net, generator())
    out: Tensor = dropped.net.body[3](torch.ones(5, 8, 3, 3))
    assert torch.equal(out, out[:1, :, :1, :1].expand_as(out))
    assert set(out.unique().tolist()) == {0.0, 2.0}


def test_a_rate_of_0_is_the_net_itself_and_a_rate_of_1_drops_all() -> None:
    pool = pool_with(nn.Dropout(0.0))
    assert torch.allclose(pool.stochastic(2, generator())[1], pool.probabilities)
    gone = pool_with(nn.Dropout(1.0))
    assert torch.allclose(gone.stochastic(1, generator())[0], gone.net.head.bias.softmax(0).expand(30, -1))
