"""Proxies: fresh nets trained on a pool's own samples, for selectors that ask for more than the learner's net.

Proxies are the members of a committee and the nets in GraNd's expectation. They give training dynamics and, with
``proxy.source = "proxy"``, the features and scores of a coreset study.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.data.augmentation import Transform
from clsim.models import optimizers
from clsim.models.nets import Net, evaluating
from clsim.models.passes import pieces, side_by_side
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.pool.pool import Cost
from clsim.pool.scoring import History
from clsim.randomness import own_draws
from clsim.spec.tables import OptimizerSpec, ProxySpec


@dataclass(frozen=True)
class Trainer:
    """Trainer of proxies. Final.

    Attributes:
        spec: epochs, batch size and optimizer of a proxy.
        fresh: makes a net of the run's architecture with weights drawn from a seed.
        transform: prepares inputs, with the run's augmentation in training.
        precision: makes the context of forward passes (autocast, or nothing).
        rng: draws the weights and the order of samples, on the CPU.
        augment: draws the augmentation, on the device.
        cost: counters to which steps and forward passes are added.
    """

    spec: ProxySpec
    fresh: Callable[[int], Net]
    transform: Transform
    precision: Callable[[], AbstractContextManager]
    rng: torch.Generator
    augment: torch.Generator
    cost: Cost

    def train(self, samples: Exemplars) -> tuple[Net, History]:
        """Train a proxy on the labelled samples; return it with the outcome of every sample after each epoch.

        After each epoch, one pass in eval mode tests all samples, so that the dynamics of a sample do not depend on its
        augmentation. Layers that draw (dropout) draw from a seed of the proxy's own, and torch's global generator stays
        as it was.
        """
        weights, layers = torch.randint(2**62, (2,), generator=self.rng).tolist()
        with own_draws(layers, samples.device):
            return self._train(self.fresh(weights), samples)

    def _train(self, net: Net, samples: Exemplars) -> tuple[Net, History]:
        spec = self.spec
        rate = OptimizerSpec(
            lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, nesterov=True, schedule="cosine"
        )
        optimizer = optimizers.build(rate, net.parameters())
        known = samples[samples.y >= 0]
        steps, step = batch_count(len(known), spec.batch_size) * spec.epochs, 0
        outcomes: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(spec.epochs):
            for batch in batches(known, spec.batch_size, self.rng) if len(known) > 1 else ():
                net.train()
                for group in optimizer.param_groups:
                    group["lr"] = optimizers.rate(rate, step, steps)
                with self.precision():
                    logits = net(self.transform.train(batch.x, self.augment), batch.task)
                optimizer.zero_grad()
                F.cross_entropy(logits, batch.y).backward()
                optimizer.step()
                step += 1
                self.cost.proxy_steps += 1
                self.cost.forward_passes += len(batch)
            outcomes.append(self._outcome(net, samples))
        return net, History(*map(torch.stack, zip(*outcomes, strict=True)))

    def _outcome(self, net: Net, samples: Exemplars) -> tuple[Tensor, Tensor, Tensor]:
        def passed(rows: slice) -> Tensor:
            part = samples[rows]
            with torch.no_grad(), self.precision():
                return net(self.transform.plain(part.x), part.task)

        with evaluating(net):
            logits = side_by_side(net, passed, pieces(net, len(samples), 500))
        self.cost.forward_passes += len(samples)
        scores, y = torch.cat(logits), samples.y.clamp_min(0)
        error = scores.softmax(1) - F.one_hot(y, scores.shape[1])
        unknown = samples.y < 0
        loss = F.cross_entropy(scores, y, reduction="none").masked_fill(unknown, torch.nan)
        return (scores.argmax(1) == y) & ~unknown, loss, error.norm(dim=1).masked_fill(unknown, torch.nan)
