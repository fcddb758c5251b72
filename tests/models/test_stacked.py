"""Stacked nets pass as each does alone, whatever passes beside them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clsim.models import nets, resnet, vgg
from clsim.models.stacked import Passing, Stack, draw
from tests.helpers import generator

CPU = torch.device("cpu")
TASK = torch.zeros(10, dtype=torch.int64)
Y = torch.arange(10) % 5

MODELS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "mlp": (partial(nets.mlp, hidden=(20,)), (7,)),
    "mlp, batch norm": (partial(nets.mlp, hidden=(20,), norm="batch"), (7,)),
    "linear": (nets.linear, (7,)),
    "slim-resnet18": (partial(resnet.slim_resnet18, width=4), (3, 8, 8)),
    "convnet3": (partial(nets.convnet3, width=4), (1, 8, 8)),
    "pooled-convnet3": (partial(nets.pooled_convnet3, width=4), (1, 8, 8)),
    "strided-convnet3": (partial(nets.strided_convnet3, width=4), (1, 16, 16)),
    "vgg-small": (vgg.vgg_small, (3, 32, 32)),
}


def made(name: str, seed: int) -> nets.Net:
    model, shape = MODELS[name]
    net = nets.build(model, shape, torch.ones(1, 5, dtype=torch.bool), seed, CPU).double()
    return net.to(memory_format=torch.channels_last) if len(shape) == 3 else net  # type: ignore[call-overload]


def batch(name: str, seed: int) -> torch.Tensor:
    x = torch.randn(10, *MODELS[name][1], generator=generator(seed), dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


@pytest.mark.parametrize("name", MODELS)
def test_many_steps_of_a_stack_are_those_of_each_net(name: str) -> None:
    """In double precision, since some nets make much of a rounding: so they do alone."""
    alone = [made(name, seed).train() for seed in range(3)]
    together = [copy.deepcopy(net) for net in alone]
    optimizers = [torch.optim.SGD(net.parameters(), 0.05, momentum=0.5) for net in [*alone, *together]]
    stack = Stack(together[0], 3)
    for i in range(2 if name == "vgg-small" else 6):
        x = [batch(name, 10 * i + row) for row in range(3)]
        passes = [Passing(net, one, {}) for net, one in zip(together, x, strict=True)]
        for optimizer in optimizers:
            optimizer.zero_grad()
        features = stack.features(passes)
        losses = [F.cross_entropy(net.logits(f, TASK), Y) for net, f in zip(together, features, strict=True)]
        losses += [F.cross_entropy(net(one, TASK), Y) for net, one in zip(alone, x, strict=True)]
        torch.autograd.backward(losses)
        stack.give_gradients(passes)
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(losses[:3], losses[3:])
    for net, other in zip(alone, together, strict=True):
        torch.testing.assert_close(dict(net.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize("name", ["mlp, batch norm", "slim-resnet18"])
def test_a_row_does_not_depend_on_what_passes_in_the_others(name: str) -> None:
    found = []
    for there in ((0, 1, 2), (1,), (1, 2)):
        members = [made(name, seed).float().train() for seed in range(3)]
        stack = Stack(members[0], 3)
        passes = [Passing(members[row], batch(name, row).float(), {}) if row in there else None for row in range(3)]
        features = stack.features(passes)
        torch.autograd.backward([features[row].square().sum() for row in there])
        stack.give_gradients(passes)
        gradients = [w.grad for w in members[1].body.parameters()]
        found.append([features[1], *gradients, *members[1].body.buffers()])
        silent = [net for row, net in enumerate(members) if row not in there]
        untouched = [made(name, members.index(net)).float() for net in silent]
        for net, fresh in zip(silent, untouched, strict=True):
            assert all(w.grad is None for w in net.parameters())
            assert all(map(torch.equal, net.buffers(), fresh.buffers()))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True) if a is not None)


def test_dropout_leaves_out_what_it_would_alone() -> None:
    model = partial(nets.mlp, hidden=(20, 30), dropout=0.4)
    members = [nets.build(model, (7,), torch.ones(1, 5, dtype=torch.bool), seed, CPU).train() for seed in range(2)]
    x = [torch.randn(10, 7, generator=generator(seed)) for seed in range(2)]
    outs: list[Any] = []
    with torch.random.fork_rng(devices=[]):
        for stacked in (False, True):
            torch.default_generator.manual_seed(3)
            if stacked:
                passes = [Passing(net, one, draw(net, 10)) for net, one in zip(members, x, strict=True)]
                outs.append(Stack(members[0], 2).features(passes))
            else:
                outs.append([net.features(one) for net, one in zip(members, x, strict=True)])
    torch.testing.assert_close(outs[0], outs[1])
    assert all((out == 0).any() for out in outs[0])


def test_dropout_within_a_layer_is_refused() -> None:
    def model(shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(nn.Sequential(nn.Linear(7, 20), nn.Dropout(0.5)))

    net = nets.build(model, (7,), torch.ones(1, 5, dtype=torch.bool), 0, CPU).train()
    with pytest.raises(RuntimeError, match="random"):
        Stack(net, 2).features([Passing(net, torch.ones(10, 7), draw(net, 10)), None])


def test_features_that_are_given_are_used_once_and_not_forgotten() -> None:
    net, x = made("mlp", 0), batch("mlp", 0)
    given = torch.ones(10, 20, dtype=torch.float64)
    with net.answering(x, given):
        assert net.features(x) is given
        assert net.features(x) is not given
    with pytest.raises(RuntimeError, match="nobody asks"), net.answering(x, given):
        net.features(x.clone())
    assert net.features(x) is not given
