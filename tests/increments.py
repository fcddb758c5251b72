"""Small experiences of two classes each, and nets on them, for the tests of learners that tell old from new."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.data.augmentation import Transform
from clsim.memory.buffer import Buffer
from clsim.models import nets
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.pool.pool import Cost
from clsim.randomness import Randomness
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.spec.tables import MemorySpec, OptimizerSpec, StreamSpec, TrainingSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Setup
from tests.helpers import generator

CPU = torch.device("cpu")
TASKS = torch.tensor([[True, True, False, False], [False, False, True, True]])
ONE_HEAD = torch.ones(2, 4, dtype=torch.bool)
TABLES = {"memory": MemorySpec, "optimizer": OptimizerSpec, "training": TrainingSpec, "stream": StreamSpec}

Body = Callable[[nets.Shape], nn.Module]


def hidden_layers(*sizes: int) -> Body:
    return partial(nets.mlp, hidden=sizes)


MLP = hidden_layers(24)


@dataclass(frozen=True)
class Increments:
    """Experiences of noisy samples about a centre for each class, and what a learner of them is handed.

    ``levels`` are those of uint8 images: the lowest and the highest of a centre, and how far noise reaches; without
    them the samples are float vectors. ``options`` are what a spec holds by default, under the names of their keys.
    """

    shape: nets.Shape = (6,)
    visible: Tensor = ONE_HEAD
    body: Body = MLP
    mean: Sequence[float] = (0.0,) * 6
    std: Sequence[float] = (1.0,) * 6
    levels: tuple[int, int, int] | None = None
    samples: int = 24
    steps: int = 20
    options: dict[str, Any] = dataclasses.field(default_factory=lambda: {"buffer": "none"})

    def setup(
        self,
        visible: Tensor | None = None,
        *,
        body: Body | None = None,
        hidden: tuple[int, ...] | None = None,
        **options: Any,
    ) -> Setup:
        """What a learner is handed; each of ``options`` belongs to the first of :data:`TABLES` that has such a key."""
        tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
        for key, value in (self.options | options).items():
            owner = next(name for name, kind in TABLES.items() if key in {f.name for f in dataclasses.fields(kind)})
            tables[owner][key] = value
        spec = RunSpec(**{name: TABLES[name](**values) for name, values in tables.items()})
        select = None if spec.memory.buffer == "none" else registry.component("buffers", spec.memory.buffer)
        randomness, cost = Randomness(3, CPU), Cost()
        net = body or (self.body if hidden is None else hidden_layers(*hidden))
        shown = self.visible if visible is None else visible

        def fresh(seed: int) -> nets.Net:
            return nets.build(net, self.shape, shown, seed, CPU)

        buffer = Buffer(spec.memory, select, rng=randomness.memory, cost=cost)
        transform = Transform(list(self.mean), list(self.std), [], device=CPU, channels_last=False)
        return Setup(spec, fresh(1), fresh, buffer, transform, randomness, cost)

    def experience(self, position: int, n: int | None = None) -> Experience:
        """Samples of two classes, in turn."""
        n, rng, centres = n or self.samples, generator(position + 5), (self.visible.shape[1], *self.shape)
        y = torch.arange(n) % 2 + 2 * position
        if self.levels is None:
            x = torch.randn(centres, generator=generator(2))[y] + torch.randn(n, *self.shape, generator=rng)
        else:
            low, high, reach = self.levels
            middle = torch.randint(low, high, centres, generator=generator(2))[y]
            x = middle + torch.randint(-reach, reach + 1, (n, *self.shape), generator=rng)
            x = x.clamp(0, 255).to(torch.uint8)
        key = torch.rand(n, generator=rng)
        train = Exemplars(x, y, torch.full((n,), position), key, torch.arange(n) + 1000 * position)
        return Experience(position, (2 * position, 2 * position + 1), train)

    def train(self, learner: Any, *positions: int, steps: int | None = None, setup: Setup | None = None) -> None:
        """Whole experiences as batches, so that no draw matters; with ``setup`` also its memory, as the loop does."""
        for position in positions:
            given = self.experience(position)
            learner.begin(given)
            for _ in range(self.steps if steps is None else steps):
                learner.observe(given.train)
            if setup is not None:
                setup.memory.after_experience(learner.remember(given.train), 2 * position + 2, setup.pool)
            learner.finish(given)


VECTORS = Increments(options={"buffer": "herding", "capacity": 8})
setup_of, experience = VECTORS.setup, VECTORS.experience


def learn(setup: Setup, learner: Any, *positions: int, steps: int = 20) -> None:
    VECTORS.train(learner, *positions, steps=steps, setup=setup)


def into_the_second(objective: Any) -> tuple[Experience, Experience]:
    """Two experiences, the second of which ``objective`` has begun, the net as it was."""
    first, second = experience(0), experience(1)
    objective.begin(first)
    objective.finish(first)
    objective.begin(second)
    return first, second


class Blind(nn.Module):
    """A net of ours as Avalanche calls one."""

    def __init__(self, net: nets.Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, torch.zeros(len(x), dtype=torch.int64))


def plugin_steps(plugin: Any, around: Any, train: Exemplars, steps: int) -> None:
    """Avalanche's ``plugin`` at plain gradient descent on one whole batch; ``around`` is what it reads."""
    for _ in range(steps):
        plugin.before_training_iteration(around)
        around.optimizer.zero_grad()
        around.loss = F.cross_entropy(around.model(train.x), train.y)
        plugin.before_backward(around)
        around.loss.backward()
        around.optimizer.step()
        plugin.after_training_iteration(around)
        around.clock.train_iterations += 1


def batch_of(new: Exemplars, old: Exemplars | None = None) -> Batch:
    parts = new if old is None else concatenate([new, old])
    return Batch(parts.x, parts.y, parts.task, len(new), parts.weight, parts.soft)


def kl_by_hand(logits: Tensor, target: Tensor, columns: list[int], temperature: float) -> float:
    """KL(softmax(target / T) ‖ softmax(logits / T)) of one sample, over some columns alone."""
    p = torch.softmax(logits.double()[columns] / temperature, 0)
    q = torch.softmax(target.double()[columns] / temperature, 0)
    return float(sum(b * (b.log() - a.log()) for a, b in zip(p, q, strict=True)))
