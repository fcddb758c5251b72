"""The learner of most methods: a net, an objective, an optimizer."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from clsim import catalog, optimizers
from clsim.exemplars import Exemplars, batch_count, joint_weight
from clsim.learners import Setup, Terms
from clsim.models import Net, evaluating
from clsim.objectives import Batch, Objective
from clsim.streams import Experience


class Sgd:
    """Gradient steps on an objective of new and replayed samples. Final.

    Fine-tuning without a memory, experience replay with one; joint and cumulative training on a stream that is
    presented so.

    Args:
        setup: net, memory, transform, generators.
        objective: the loss: a name of ``clsim list objectives``, ``module:attr`` or ``./file.py:attr``.
    """

    def __init__(self, setup: Setup, *, objective: str = "replay") -> None:
        self.net: Net = setup.net
        self.optimizer = optimizers.build(setup.spec.optimizer, self.net.parameters())
        self._parameters = list(self.net.parameters())
        self._setup = setup
        self._objective: Objective = catalog.component("objectives", objective)
        self._step = self._steps = 0

    def begin(self, experience: Experience) -> None:
        """A fresh optimizer state (unless ``optimizer.restart`` is false) and the schedule from its start."""
        training = self._setup.spec.training
        batches = batch_count(len(experience.train), training.batch_size)
        self.schedule(batches * training.epochs * training.passes)

    def schedule(self, steps: int) -> None:
        """Start the learning-rate schedule over ``steps`` steps."""
        self._step, self._steps = 0, steps
        if self._setup.spec.optimizer.restart:
            self.optimizer = optimizers.build(self._setup.spec.optimizer, self.net.parameters())

    def observe(self, batch: Exemplars) -> Terms:
        """One step on ``batch`` and as many exemplars as ``memory.batch_size``, as the retrieval chooses them."""
        return self.step(batch, self._setup.memory.sample(batch, self._setup.pool))

    def step(self, new: Exemplars, old: Exemplars | None) -> Terms:
        """One step on the objective of ``new`` and ``old``."""
        if not self.net.training:
            self.net.train()
        batch = self._prepare(new, old)
        with self._setup.precision():
            terms = self._objective(self.net, batch)
        for group in self.optimizer.param_groups:
            group["lr"] = optimizers.rate(self._setup.spec.optimizer, self._step, self._steps)
        for parameter in self._parameters:
            parameter.grad = None
        reduce(torch.add, terms.values()).backward()
        self.optimizer.step()
        self._step += 1
        self._setup.cost.steps += 1
        self._setup.cost.forward_passes += len(batch.y)
        return {name: term.detach() for name, term in terms.items()}

    def finish(self, experience: Experience) -> list[Terms]:
        """Nothing more to do."""
        return []

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits of raw samples, each under its own task."""
        with evaluating(self.net), torch.no_grad(), self._setup.precision():
            return self.net(self._setup.transform.plain(x), task)

    def state_dict(self) -> dict[str, Any]:
        """Weights and statistics of the net, and the optimizer's state."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _prepare(self, new: Exemplars, old: Exemplars | None) -> Batch:
        """Augment new and replayed samples in one go."""
        x, y, task, weight = new.x, new.y, new.task, new.weight
        if old is not None:
            x, y, task = torch.cat([x, old.x]), torch.cat([y, old.y]), torch.cat([task, old.task])
            weight = joint_weight([new, old])
        return Batch(self._setup.transform.train(x, self._setup.randomness.augment), y, task, len(new), weight)
