"""A classifier of what is labelled so far, and the pool that a selector then chooses from: for an annotator's loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars, batch_count
from clsim.pool.logistic import LogisticTrainer, no_dynamics
from clsim.pool.pool import Cost, Pool
from clsim.pool.proxy import Trainer
from clsim.pool.scoring import History, Trains
from clsim.randomness import generator
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.training.workshop import workshop

STEPS = 200
"""Fewest gradient steps of a net by default: ten epochs of a hundred labels would be ten steps."""

RATE = 0.03
"""Learning rate of a net, under the cosine schedule of proxies; a tenth, or a hundredth, where training diverges."""


@dataclass(frozen=True)
class Classifier:
    """A net that was trained on the labelled samples alone. Final.

    Attributes:
        net: the net; it gives a class to every sample.
        prepare: uint8 images, or vectors → the input of the net.
        trainer: trains further nets, for a committee.
        cost: counters that are added to.
    """

    net: Net
    prepare: Callable[[Tensor], Tensor]
    trainer: Trains
    cost: Cost

    def pool(self, samples: Exemplars) -> Pool:
        """Make a pool of samples under the net; further nets are trained on those of them that are labelled."""
        classes = range(self.net.head.out_features)
        return Pool(samples, self.net, self.prepare, cost=self.cost, trainer=self.trainer, classes=classes)


def of_images(
    samples: Exemplars,
    classes: int,
    spec: RunSpec,
    *,
    model: str,
    mean: Sequence[float],
    std: Sequence[float],
    augment: Sequence[str],
    epochs: int | None,
    cost: Cost,
) -> Classifier:
    """Train a net on the labelled ones of ``samples``.

    Args:
        samples: images, y = −1 where there is no label.
        classes: number of classes.
        spec: the spec, as :func:`clsim.training.workshop.spec_of_call` makes it.
        model: the architecture, a name of ``clsim list models``.
        mean, std: mean and standard deviation of all samples, per channel.
        augment: names of the operations of augmentation in training.
        epochs: number of epochs; None: ten, or as many as make :data:`STEPS` gradient steps.
        cost: counters that are added to.
    """
    labelled = samples[samples.y >= 0]
    if epochs is None:
        epochs = max(10, math.ceil(STEPS / batch_count(len(labelled), spec.proxy.batch_size)))
    for rate in (RATE, RATE / 10, RATE / 100):
        spec = replace(spec, proxy=replace(spec.proxy, epochs=epochs, lr=rate))
        shop = workshop(
            spec,
            registry.component("models", model, {}, "model options"),
            shape=tuple(samples.x.shape[1:]),
            visible=torch.ones(1, classes, dtype=torch.bool),
            mean=mean,
            std=std,
            augment=augment,
            precision="fp32",
            channels_last=True,
            device=samples.device,
            cost=cost,
        )
        trainer = shop.trainer()
        net = trainer.train(labelled)[0]
        if all(bool(weight.isfinite().all()) for weight in net.parameters()):
            break
    return Classifier(net, shop.transform.plain, _OnLabelled(trainer), cost)


def of_features(samples: Exemplars, classes: int, spec: RunSpec, *, cost: Cost) -> Classifier:
    """Fit a logistic regression to the labelled ones of ``samples``, as a net with a linear head.

    Args:
        samples: vectors, y = −1 where there is no label.
        classes: number of classes.
        spec: the spec, of which the seed is used.
        cost: counters that are added to.
    """
    rng = generator(spec.seed, "proxy")
    trainer = LogisticTrainer(samples.x.shape[1], classes, rng, samples.device)
    return Classifier(trainer.fit(samples), unchanged, trainer, cost)


def unchanged(x: Tensor) -> Tensor:
    """Return vectors as they are: the input of a net on features."""
    return x


class _OnLabelled:
    """A trainer that is shown the labelled samples alone: others have no dynamics, and testing them takes time."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def fresh(self) -> Callable[[int], Net]:
        return self._trainer.fresh

    def train(self, samples: Exemplars) -> tuple[Net, History]:
        return self._trainer.train(samples[samples.y >= 0])[0], no_dynamics(samples)
