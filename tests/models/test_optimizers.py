"""Optimizers by name: the step that each source gives them."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from clsim.models import optimizers
from clsim.spec.tables import OptimizerSpec
from tests.helpers import assert_same, generator


def dozat(start: float, gradients: list[float], lr: float, decay: float) -> float:
    """Compute where steps along ``gradients`` lead: Nadam with its schedule of momentum (Dozat, 2016)."""
    w, m, v, product = start, 0.0, 0.0, 1.0
    for t, gradient in enumerate(gradients, 1):
        g = gradient + decay * w
        now, ahead = (0.9 * (1 - 0.5 * 0.96 ** (step * 0.004)) for step in (t, t + 1))
        product *= now
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        looked_ahead = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        w -= lr * looked_ahead / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("on_device", [False, True])
def test_nadam_takes_the_steps_of_its_paper(decay: float, on_device: bool) -> None:
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    spec = OptimizerSpec("nadam", 0.05, weight_decay=decay)
    optimizer = optimizers.build(spec, iter([weight]), on_device=on_device)  # an iterator is read once
    gradients = [0.3, -1.2, 0.05, 0.7, 2.0]
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert float(weight.detach()) == pytest.approx(dozat(1.0, gradients, 0.05, decay), rel=1e-6)
    optimizers.set_rate(optimizer, 0.0)
    before = float(weight.detach())
    optimizer.step()
    assert float(weight.detach()) == before


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam", "lars"])
def test_a_saved_state_goes_on_where_it_was(name: str) -> None:
    spec = OptimizerSpec(name, 0.05, momentum=0.9, weight_decay=0.01)  # type: ignore[arg-type]
    net = nn.Linear(4, 3)
    optimizer = optimizers.build(spec, net.parameters(), net.parameters())

    def walk(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> torch.Tensor:
        for step in steps:
            net.zero_grad()
            net(torch.randn(5, 4, generator=generator(step))).square().sum().backward()
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    walk(net, optimizer, range(3))
    other, state = copy.deepcopy(net), copy.deepcopy(optimizer.state_dict())
    resumed = optimizers.build(spec, other.parameters(), other.parameters())
    fresh = copy.deepcopy(other)
    resumed.load_state_dict(state)
    went_on = walk(net, optimizer, range(3, 6))
    assert torch.equal(walk(other, resumed, range(3, 6)), went_on)
    forgetful = optimizers.build(spec, fresh.parameters(), fresh.parameters())
    assert not torch.equal(walk(fresh, forgetful, range(3, 6)), went_on)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
        (torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.01}),
        (torch.optim.AdamW, {"lr": 0.05}),
        (torch.optim.NAdam, {"lr": 0.05}),
        (torch.optim.Adadelta, {"lr": 0.5}),
        (torch.optim.LBFGS, {"lr": 0.5, "max_iter": 3}),
    ],
)
def test_a_light_optimizer_is_torchs_bit_for_bit(kind: type[torch.optim.Optimizer], options: dict[str, float]) -> None:
    first = nn.Linear(4, 3)
    nets = [first, copy.deepcopy(first)]
    made = [kind(nets[0].parameters(), **options), optimizers.light(kind)(nets[1].parameters(), **options)]  # type: ignore[call-arg]
    assert isinstance(made[1], kind)
    for step in range(4):
        if step == 2:  # a state goes from one to the other
            made[1].load_state_dict(copy.deepcopy(made[0].state_dict()))
        for net, optimizer in zip(nets, made, strict=True):

            def loss(net: nn.Module = net, optimizer: torch.optim.Optimizer = optimizer, step: int = step) -> float:
                optimizer.zero_grad()
                found = net(torch.randn(5, 4, generator=generator(step))).square().sum()
                found.backward()
                return found

            loss()
            optimizer.step(loss)
        assert_same(*(net.state_dict() for net in nets))
        assert_same(*(optimizer.state_dict() for optimizer in made))
    made[1].zero_grad()
    assert all(p.grad is None for p in nets[1].parameters())


class Calls(TorchDispatchMode):
    """Counts the operations that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in ("detach", "unbind")  # views, for which no kernel starts
        return func(*args, **(kwargs or {}))


def many(n: int) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(2 + i % 3, 4, generator=generator(i))) for i in range(n)]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
def test_a_step_on_the_device_asks_for_as_many_operations_whatever_the_number_of_weights(name: str) -> None:
    counts = []
    for n in (3, 30):
        weights = many(n)
        spec = OptimizerSpec(name, 0.05, momentum=0.9, weight_decay=0.01)  # type: ignore[arg-type]
        optimizer = optimizers.build(spec, weights, on_device=True)
        for _ in range(2):  # the first step makes the state
            for w in weights:
                w.grad = torch.ones_like(w)
            with Calls() as calls:
                optimizer.step()
        counts.append(calls.count)
    assert counts[0] == counts[1]


def test_weights_that_lars_takes_together_get_the_steps_that_each_would_get_alone() -> None:
    spec = OptimizerSpec("lars", 0.5, momentum=0.9, weight_decay=0.01, trust=0.02)
    weights = [*many(5), nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.ones(2, 2))]
    alone = copy.deepcopy(weights)
    optimizer, mine = optimizers.build(spec, weights), [torch.optim.SGD([w], 0.5, momentum=0.9) for w in alone]
    for step in range(3):
        for i, (w, own) in enumerate(zip(weights, alone, strict=True)):
            gradient = torch.randn(w.shape, generator=generator(10 * step + i)) * (i != 6)
            w.grad, own.grad = gradient, gradient.clone()
            size, slope = own.detach().norm(), gradient.norm()
            if size > 0 and slope > 0:
                own.grad = (gradient + 0.01 * own.detach()) * (0.02 * size / (slope + 0.01 * size))
            else:
                own.grad = gradient + 0.01 * own.detach()
            mine[i].step()
        optimizer.step()
    for w, own in zip(weights, alone, strict=True):
        torch.testing.assert_close(w, own, rtol=1e-6, atol=1e-7)
