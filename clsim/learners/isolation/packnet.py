"""PackNet: each task takes some of the free weights of the net, and keeps them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from clsim.errors import InputError
from clsim.learners.isolation.protection import apply_within, head_shares, hold_statistics, need_tasks, tasks_of
from clsim.learners.sgd import Sgd
from clsim.models.nets import evaluating
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.streams.stream import Experience
from clsim.training.contract import Learner, Setup, Terms

_MOST = 255
"""The largest number of tasks: owners are stored in a byte, in which 0 means that a weight is free."""


class PackNet(Learner):
    """Train the free weights, prune the smallest of them in each layer, train the others again, keep them. Final.

    Task t trains all weights that are free, beside those of tasks 1 … t − 1, which it uses but does not move. Then, in
    each layer, the share ``prune`` of the free weights of least magnitude is set to 0 and stays free; the others are
    trained again without them and belong to t. A sample of task t is predicted by the weights of tasks 1 … t, all
    others 0, so that nothing learnt later changes its logits by a bit.

    Layers are the weights of two and more dimensions in the net's body. Biases, and weights of norms, are learnt with
    the first experience and fixed afterwards, and so are the statistics of batch norm: as in the paper, so that later
    tasks see their features normalised by those of the first. The head's rows belong to the classes of a task, and are
    not pruned. An experience that holds several tasks (joint, cumulative) is learnt as one. Exemplars, if a memory has
    any, are not replayed.

    Args:
        setup: net, memory, transform, generators.
        prune: The share of the free weights that a task leaves free, the same in each layer.
        retrain_epochs: Epochs over the experience after pruning.
        retrain_rate: The learning rate in these epochs, as a share of ``optimizer.lr``, with the optimizer's schedule.

    Raises:
        InputError: if the task is not known when predicting, or for impossible options.

    Cost: a byte kept for each weight (its owner); 1 M more in a training step; ``retrain_epochs`` more epochs a task.

    Source: Mallya & Lazebnik, PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning (CVPR 2018)
    """

    def __init__(
        self, setup: Setup, *, prune: float = 0.9, retrain_epochs: int = 10, retrain_rate: float = 0.1
    ) -> None:
        need_tasks(setup, "packnet")
        tasks = len(setup.net.visible)
        if not 0 <= prune < 1:
            raise InputError(f"packnet: prune: found {prune:g}, allowed: a share from 0 to below 1")
        if retrain_epochs < 0:
            raise InputError(f"packnet: retrain_epochs: found {retrain_epochs}, allowed: 0 and more")
        if not 0 < retrain_rate < math.inf:
            raise InputError(f"packnet: retrain_rate: found {retrain_rate:g}, allowed: a number above 0")
        if tasks > _MOST:
            raise InputError(f"packnet: found a stream of {tasks} tasks, allowed: at most {_MOST}")
        super().__init__(setup)
        self._prune = prune
        self._epochs = retrain_epochs
        optimizer = setup.spec.optimizer
        slower = dataclasses.replace(optimizer, lr=optimizer.lr * retrain_rate)
        self._retraining = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, optimizer=slower))
        self._sgd = Sgd(setup)
        self._shares: dict[str, Tensor] = {}
        self._done = 0
        self._last = [0] * tasks
        body = [(name, p) for name, p in setup.net.named_parameters() if name.startswith("body.")]
        self._fixed = [name for name, p in body if p.ndim < 2]
        self.owner = {name: torch.zeros_like(p, dtype=torch.uint8) for name, p in body if p.ndim > 1}

    def begin(self, experience: Experience) -> None:
        """Let the tasks of the experience use the whole net, and free weights move, until the net is pruned."""
        for task in tasks_of(experience):
            self._last[task] = 0
        self._sgd.begin(experience)
        self._shares = head_shares(self.setup.net, experience)
        self._shares |= {name: (owner == 0).float() for name, owner in self.owner.items()}
        if self._done:
            self._hold_rest()

    def _hold_rest(self) -> None:
        """Keep biases, norms and their statistics unchanged."""
        parameters = dict(self.setup.net.named_parameters())
        self._shares |= {name: torch.zeros_like(parameters[name]) for name in self._fixed}
        hold_statistics(self.setup.net)

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step of the free weights."""
        return self._step(self._sgd, batch)

    def _step(self, sgd: Sgd, batch: Exemplars) -> Terms:
        terms = sgd.backward(sgd.prepare(batch, None))
        apply_within(sgd, self.setup.net, self._shares)
        return terms

    def finish(self, experience: Experience) -> list[Terms]:
        """Prune, train the remaining weights again, and return the losses of these steps."""
        self._sgd.finish(experience)
        self._done += 1
        with torch.no_grad():
            for name, owner in self.owner.items():
                weight = self.setup.net.get_parameter(name)
                mine = (owner == 0) & ~smallest(weight, owner == 0, self._prune)
                owner[mine] = self._done
                weight[owner == 0] = 0
                self._shares[name] = mine.float()
        losses = []
        sgd, size = Sgd(self._retraining), self.setup.spec.training.batch_size
        epoch = batch_count(len(experience.train), size)
        sgd.schedule(epoch * self._epochs, epoch)
        for _ in range(self._epochs):
            for batch in batches(experience.train, size, self.setup.randomness.order):
                losses.append(self._step(sgd, batch))
        for task in tasks_of(experience):
            self._last[task] = self._done
        return losses

    def features(self, x: Tensor, task: Tensor) -> Tensor:
        """Compute features of raw samples with the weights of their task, or with the whole net before it is pruned."""
        net = self.net
        last = torch.tensor(self._last, device=task.device)[task]
        with evaluating(net), torch.no_grad(), self.setup.precision():
            x = self.setup.transform.plain(x)
            features = x.new_empty(len(x), net.head.in_features, dtype=torch.float32)
            for owner in last.unique().tolist():
                rows = last == owner
                features[rows] = functional_call(net.body, self._weights(owner), (x[rows],)).float()
        return features

    def _weights(self, last: int) -> dict[str, Tensor]:
        """Return the body's weights with those of owners after ``last`` set to 0; nothing to replace where it is 0."""
        if not last:
            return {}
        return {
            name.removeprefix("body."): self.net.get_parameter(name) * ((owner > 0) & (owner <= last))
            for name, owner in self.owner.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the net, the owner of each weight, and the last owner that each task uses."""
        return {"sgd": self._sgd.state_dict(), "owner": self.owner, "done": self._done, "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sgd.load_state_dict(state["sgd"])
        self._done, self._last = state["done"], list(state["last"])
        for name, owner in self.owner.items():
            owner.copy_(state["owner"][name])


def smallest(weight: Tensor, among: Tensor, share: float) -> Tensor:
    """Find the ``share`` of least magnitude of the weights where ``among`` is true: bool, in the shape of ``weight``.

    Their number is rounded to the nearest whole number; of equal weights the first are taken.

    >>> smallest(torch.tensor([3.0, -1.0, 0.5, 2.0]), torch.tensor([True, True, False, True]), 0.67)
    tensor([False,  True, False,  True])
    """
    count = round(share * int(among.sum()))
    magnitude = weight.detach().abs().masked_fill(~among, math.inf)
    chosen = torch.zeros_like(among).flatten()
    chosen[magnitude.flatten().argsort(stable=True)[:count]] = True
    return chosen.view(among.shape)
