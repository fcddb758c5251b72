"""The setup of a small run, for checks of what learns."""

from __future__ import annotations

from dataclasses import replace

import torch

from clsim.checks.samples import CPU, SHAPE, Model, body
from clsim.data.augmentation import Transform
from clsim.memory.buffer import Buffer
from clsim.models import nets
from clsim.pool.pool import Cost
from clsim.randomness import Randomness
from clsim.selectors.random import random as random_selector
from clsim.spec.run import RunSpec
from clsim.spec.tables import MemorySpec, OptimizerSpec, TrainingSpec
from clsim.training.contract import Setup


def setup_of(model: Model = body, *, buffered: bool) -> Setup:
    """Small net, transform and memory of a run on two tasks of two classes."""
    spec = RunSpec(
        training=TrainingSpec(epochs=5),
        optimizer=OptimizerSpec(lr=0.05, momentum=0.9),
        memory=MemorySpec(buffer="random" if buffered else "none", capacity=20),
        labels=replace(RunSpec().labels, fraction=1.0),
    )
    randomness, cost = Randomness(7, CPU), Cost()
    memory = Buffer(spec.memory, random_selector if buffered else None, rng=randomness.memory, cost=cost)
    visible = torch.tensor([[True, True, False, False], [False, False, True, True]])
    transform = Transform([0.5], [0.25], [], device=CPU, channels_last=False)

    def fresh(seed: int) -> nets.Net:
        return nets.build(model, SHAPE, visible, seed, CPU)

    return Setup(spec, fresh(0), fresh, memory, transform, randomness, cost)
