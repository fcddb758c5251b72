"""Four classes of vectors in two experiences, and nets on them, for the tests of learners that tell old from new."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clsim.data.augmentation import Transform
from clsim.memory.buffer import Buffer
from clsim.models import nets
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.pool.pool import Cost
from clsim.randomness import Randomness
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.spec.tables import MemorySpec, OptimizerSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Setup
from tests.helpers import generator

CPU = torch.device("cpu")
TASKS = torch.tensor([[True, True, False, False], [False, False, True, True]])
ONE_HEAD = torch.ones(2, 4, dtype=torch.bool)


def setup_of(visible: Tensor = ONE_HEAD, *, lr: float = 0.1, hidden: tuple[int, ...] = (24,), **memory: Any) -> Setup:
    spec = RunSpec(optimizer=OptimizerSpec(lr=lr), memory=MemorySpec(**({"buffer": "herding", "capacity": 8} | memory)))
    select = None if spec.memory.buffer == "none" else registry.component("buffers", spec.memory.buffer)
    randomness, cost = Randomness(3, CPU), Cost()

    def fresh(seed: int) -> nets.Net:
        return nets.build(lambda shape: nets.mlp(shape, hidden=hidden), (6,), visible, seed, CPU)

    buffer = Buffer(spec.memory, select, rng=randomness.memory, cost=cost)
    transform = Transform([0.0] * 6, [1.0] * 6, [], device=CPU, channels_last=False)
    return Setup(spec, fresh(1), fresh, buffer, transform, randomness, cost)


def experience(position: int, n: int = 24) -> Experience:
    """Vectors of two noisy classes."""
    rng = generator(position + 5)
    y = torch.arange(n) % 2 + 2 * position
    x = torch.randn(4, 6, generator=generator(2))[y] + torch.randn(n, 6, generator=rng)
    key = torch.rand(n, generator=rng)
    train = Exemplars(x, y, torch.full((n,), position), key, torch.arange(n) + 100 * position)
    return Experience(position, (2 * position, 2 * position + 1), train)


def learn(setup: Setup, learner: Any, *positions: int, steps: int = 20) -> None:
    """Whole experiences as batches, and the memory, as the loop does."""
    for position in positions:
        given = experience(position)
        learner.begin(given)
        for _ in range(steps):
            learner.observe(given.train)
        setup.memory.after_experience(learner.remember(given.train), 2 * position + 2, setup.pool)
        learner.finish(given)


def batch_of(new: Exemplars, old: Exemplars | None = None) -> Batch:
    parts = new if old is None else concatenate([new, old])
    return Batch(parts.x, parts.y, parts.task, len(new), parts.weight, parts.soft)


def kl_by_hand(logits: Tensor, target: Tensor, columns: list[int], temperature: float) -> float:
    """KL(softmax(target / T) ‖ softmax(logits / T)) of one sample, over some columns alone."""
    p = torch.softmax(logits.double()[columns] / temperature, 0)
    q = torch.softmax(target.double()[columns] / temperature, 0)
    return float(sum(b * (b.log() - a.log()) for a, b in zip(p, q, strict=True)))
