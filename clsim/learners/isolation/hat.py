"""HAT: hard attention to the task. Each task learns which units it uses, and later tasks do not change them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.learners.isolation.gates import Gated
from clsim.learners.isolation.protection import apply_within, head_shares, hold_statistics, need_tasks, tasks_of
from clsim.learners.sgd import Sgd
from clsim.models import optimizers
from clsim.models.nets import Net, evaluating
from clsim.pool.exemplars import Exemplars
from clsim.randomness import generator
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Learner, Setup, Stateless, Terms

_FAR = 6.0
"""Embeddings stay within ±6, where their sigmoid still has a slope."""
_STEEP = 50.0
"""s·e in the compensation stays within ±50: cosh of larger values exceeds float32."""


class Hat(Learner):
    """Each task learns hard gates on the hidden units; the weights that its units need are held later. Final.

    a = σ(s·e_t) with e_t an embedding of task t, learnt with the weights on L = CE + c · Σ a(1 − a_<t) / Σ(1 − a_<t).
    Here a_<t is the largest gate that any earlier task has on the unit: units that an earlier task uses cost nothing,
    others in proportion to their gate. In each epoch s = 1/s_max + (s_max − 1/s_max)(b − 1)/(B − 1) in batch b of B;
    predictions use s_max. The gradient of e is changed to that of an s that does not anneal,
    ∂L/∂e · s_max (cosh(s·e) + 1) / (s (cosh(e) + 1)), and e stays within ±6. The step of weight ij is scaled by
    1 − min(a_<t[i], a_<t[j]), that of a bias by 1 − a_<t[i]; weight decay and momentum with it (see
    :func:`~clsim.learners.isolation.protection.apply_within`), so that as s_max → ∞ nothing that an earlier task needs
    moves.

    The body must be a sequence of layers (see :class:`clsim.learners.isolation.gates.Gated`): no skip connections.
    Statistics of batch norm are learnt with the first experience and fixed afterwards. The head's rows belong to the
    classes of a task. An experience that holds several tasks (joint, cumulative) is learnt as one. Exemplars, if a
    memory has any, are not replayed.

    Embeddings begin at U(0, 2), all gates open, as in the survey's code. Their optimizer and rate are those of the
    weights, but without weight decay and, as in the authors' code, without momentum: with momentum the
    penalty closes every gate before the cross-entropy can act, and the slope of a gate at −6 is too small to open it
    again. If c is too large for the learning rate, all gates close even so, and predictions do not depend on the
    sample.

    Args:
        setup: net, memory, transform, generators.
        s_max: The largest steepness s of the gates, which predictions use.
        c: The weight c of the penalty on units that no earlier task uses.

    Raises:
        InputError: if the task is not known when predicting, if the net cannot be gated, or for impossible options.

    Cost: tasks × units kept, and a product for each unit in a forward pass; 1 M more in a training step.

    Source: Serrà et al., Overcoming Catastrophic Forgetting with Hard Attention to the Task (ICML 2018)
    """

    def __init__(self, setup: Setup, *, s_max: float = 400.0, c: float = 0.75) -> None:
        need_tasks(setup, "hat")
        if not 0 < s_max < math.inf:
            raise InputError(f"hat: s_max: found {s_max:g}, allowed: a number above 0")
        if not 0 <= c < math.inf:
            raise InputError(f"hat: c: found {c:g}, allowed: 0 and more")
        super().__init__(setup)
        self._s_max = s_max
        self._price = c
        self._gated = Gated(setup.net.body, setup.spec.model.name)
        self._sgd = Sgd(setup, objective=Stateless(self._losses))
        shape = len(setup.net.visible), sum(self._gated.units)
        first = torch.rand(shape, generator=generator(setup.spec.seed, "task embeddings")) * 2
        self.embeddings = first.to(setup.device)
        self.used = torch.zeros(shape[1], device=setup.device)
        self._hardest = torch.full((shape[0], 1), s_max, device=setup.device)
        self._learnt_as = list(range(shape[0]))
        self._done = 0
        self._step = 0
        self._batches = 1
        self._s = s_max
        self._shares: dict[str, Tensor] = {}
        self._attend(0)

    def _attend(self, position: int) -> None:
        """Take one embedding, a view of its row, as the one that is learnt, with an optimizer of its own."""
        plain = dataclasses.replace(self.setup.spec.optimizer, momentum=0.0, nesterov=False, weight_decay=0.0)
        self._embedding = nn.Parameter(self.embeddings[position])
        self._optimizer = optimizers.build(plain, [self._embedding])

    def begin(self, experience: Experience) -> None:
        """Take the embedding of the experience, and compute from earlier tasks' gates how far each weight may move."""
        training, net = self.setup.spec.training, self.setup.net
        self._sgd.begin(experience)
        for task in tasks_of(experience):
            self._learnt_as[task] = experience.position
        self._attend(experience.position)
        self._hardest[experience.position] = self._s_max
        self._step = 0
        self._batches = self.setup.batches(experience)
        if training.steps:  # where they are fewer than an epoch has, the gates harden within them
            self._batches = min(self._batches, training.steps)
        self._shares = {f"body.{name}": share for name, share in self._gated.shares(self.used).items()}
        self._shares |= head_shares(net, experience)
        if self._done:
            hold_statistics(net)

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step of weights and embedding."""
        batch_number = self._step // self.setup.spec.training.passes % self._batches
        self._s = hardness(batch_number, self._batches, self._s_max)
        self._step += 1
        terms = self._sgd.backward(self._sgd.prepare(batch, None))
        apply_within(self._sgd, self.setup.net, self._shares)
        self._apply_to_embedding()
        return terms

    def _apply_to_embedding(self) -> None:
        e, gradient = self._embedding, self._embedding.grad
        if gradient is None:
            return
        for group, weights in zip(self._optimizer.param_groups, self._sgd.optimizer.param_groups, strict=True):
            group["lr"] = weights["lr"]
        gradient *= compensation(e.detach(), self._s, self._s_max)
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            e.clamp_(-_FAR, _FAR)

    def _losses(self, net: Net, batch: Batch) -> Terms:
        gates = torch.sigmoid(self._s * self._embedding)
        logits = net.logits(self._gated.features(batch.x, gates), batch.task)
        free = 1 - self.used
        price = (gates * free).sum() / free.sum().clamp_min(torch.finfo(free.dtype).tiny)
        return {"new": F.cross_entropy(logits, batch.y), "attention": self._price * price}

    def finish(self, experience: Experience) -> list[Terms]:
        """Count the units of the task as used: a_≤t = max(a_t, a_<t)."""
        self._done += 1
        self.used = torch.maximum(self.used, self.gates(experience.position))
        return self._sgd.finish(experience)

    def gates(self, position: int) -> Tensor:
        """Return the gates σ(s_max·e) of a task, (Σ units,), with the s_max that it was learnt with."""
        return torch.sigmoid(self._hardest[position] * self.embeddings[position])

    def features(self, x: Tensor, task: Tensor) -> Tensor:
        """Compute features of raw samples, each with the gates of its own task."""
        with evaluating(self.net), torch.no_grad(), self.setup.precision():
            learnt_as = torch.tensor(self._learnt_as, device=task.device)[task]
            gates = torch.sigmoid(self._hardest * self.embeddings)[learnt_as]
            return self._gated.features(self.setup.transform.plain(x), gates).float()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the net, the embeddings with their s_max, the used units, and each task's embedding."""
        return {
            "sgd": self._sgd.state_dict(),
            **self._tensors(),
            "learnt_as": self._learnt_as,
            "done": self._done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sgd.load_state_dict(state["sgd"])
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])
        self._learnt_as, self._done = list(state["learnt_as"]), state["done"]

    def _tensors(self) -> dict[str, Tensor]:
        return {"embeddings": self.embeddings, "used": self.used, "hardest": self._hardest}


def hardness(batch: int, batches: int, s_max: float) -> float:
    """Return s in a batch of an epoch, counted from 0: from 1/s_max to s_max, in equal steps.

    >>> [round(hardness(batch, 5, 100.0), 4) for batch in range(5)]
    [0.01, 25.0075, 50.005, 75.0025, 100.0]
    """
    return 1 / s_max + (s_max - 1 / s_max) * batch / max(batches - 1, 1)


def compensation(e: Tensor, s: float, s_max: float) -> Tensor:
    """Return the factor of an embedding's gradient, s_max (cosh(s·e) + 1) / (s (cosh(e) + 1)), with s·e within ±50."""
    return s_max / s * (torch.cosh((s * e).clamp(-_STEEP, _STEEP)) + 1) / (torch.cosh(e) + 1)
