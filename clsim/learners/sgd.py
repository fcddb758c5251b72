"""The learner of most methods: a net, an objective, an optimizer."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from clsim.models import optimizers
from clsim.models.nets import Net, evaluating
from clsim.pool.exemplars import Exemplars, batch_count, joint_weight
from clsim.spec import registry
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Stateless, Terms


class Sgd:
    """Gradient steps on an objective of new and replayed samples. Final.

    Fine-tuning without a memory, experience replay with one; joint and cumulative training on a stream that is
    presented so.

    Args:
        setup: net, memory, transform, generators.
        beside: a further module that learns along, such as a projection head.
        objective: the loss: a name of ``clsim list objectives``, ``module:attr`` or ``./file.py:attr`` (a function of
            net and batch, or a class built with the setup); or, from Python, an objective itself.
    """

    def __init__(self, setup: Setup, *, objective: str | Objective = "replay", beside: nn.Module | None = None) -> None:
        self.net: Net = setup.net
        self._beside = nn.Sequential() if beside is None else beside
        self._parameters = [*self.net.parameters(), *self._beside.parameters()]
        self._setup = setup
        self.optimizer = self._fresh_optimizer()
        self.objective = _named(objective, setup) if isinstance(objective, str) else objective
        self._step = self._steps = 0

    def begin(self, experience: Experience) -> None:
        """A fresh optimizer state (unless ``optimizer.restart`` is false) and the schedule from its start."""
        training = self._setup.spec.training
        self.objective.begin(experience)
        batches = batch_count(len(experience.train), training.batch_size)
        self.schedule(batches * training.epochs * training.passes)

    def schedule(self, steps: int) -> None:
        """Start the learning-rate schedule over ``steps`` steps."""
        self._step, self._steps = 0, steps
        if self._setup.spec.optimizer.restart:
            self.optimizer = self._fresh_optimizer()

    def observe(self, batch: Exemplars) -> Terms:
        """One step on ``batch`` and as many exemplars as ``memory.batch_size``, as the retrieval chooses them."""
        return self.step(batch, self._setup.memory.sample(batch, self._setup.pool).exemplars)

    def step(self, new: Exemplars, old: Exemplars | None) -> Terms:
        """One step on the objective of ``new`` and ``old``."""
        terms = self.backward(self.prepare(new, old))
        self.apply()
        return terms

    def backward(self, batch: Batch) -> Terms:
        """Gradients of the objective, in place of those of the step before."""
        if not self.net.training:
            self.net.train()
        with self._setup.precision():
            terms = self.objective(self.net, batch)
        return self._gradients(terms, len(batch.y))

    def descend(self, terms: Terms, passed: int) -> Terms:
        """One step on terms that the learner computed itself.

        Args:
            passed: samples that went forward through the net for them.
        """
        detached = self._gradients(terms, passed)
        self.apply()
        return detached

    def _gradients(self, terms: Terms, passed: int) -> Terms:
        for parameter in self._parameters:
            parameter.grad = None
        reduce(torch.add, terms.values()).backward()
        self._setup.cost.forward_passes += passed
        return {name: term.detach() for name, term in terms.items()}

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        return optimizers.build(self._setup.spec.optimizer, self._parameters, self.net.head.parameters())

    def apply(self) -> None:
        """One step of the optimizer along the gradients, at the rate of the schedule."""
        rate = optimizers.rate(self._setup.spec.optimizer, self._step, self._steps, self._setup.plateau.falls)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.optimizer.step()
        self._step += 1
        self._setup.cost.steps += 1

    def finish(self, experience: Experience) -> list[Terms]:
        """Let the objective keep what it wants to keep of the experience."""
        self.objective.finish(experience)
        return []

    def remember(self, samples: Exemplars) -> Exemplars:
        """What of samples goes to memory, as the objective says."""
        return self.objective.remember(samples)

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits of raw samples, each under its own task."""
        with evaluating(self.net), torch.no_grad(), self._setup.precision():
            return self.net(self._setup.transform.plain(x), task)

    def state_dict(self) -> dict[str, Any]:
        """Weights and statistics of the net, the optimizer's state, the objective's."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            **({"beside": beside} if (beside := self._beside.state_dict()) else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        self._beside.load_state_dict(state.get("beside", {}))

    def prepare(self, new: Exemplars, old: Exemplars | None) -> Batch:
        """Augment new and replayed samples in one go."""
        x, y, task, weight, soft = new.x, new.y, new.task, new.weight, None
        if old is not None:
            x, y, task = torch.cat([x, old.x]), torch.cat([y, old.y]), torch.cat([task, old.task])
            weight = joint_weight([new, old])
            if old.soft is not None:
                soft = torch.cat([old.soft.new_full((len(new), old.soft.shape[1]), torch.nan), old.soft])
        return Batch(self._setup.transform.train(x, self._setup.randomness.augment), y, task, len(new), weight, soft)


def _named(name: str, setup: Setup) -> Objective:
    found: Any = registry.component("objectives", name)
    return found(setup) if isinstance(found, type) else Stateless(found)
