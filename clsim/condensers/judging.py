"""Evaluation of a condensed set: the test accuracy of fresh nets that are trained on it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from clsim.data import siamese
from clsim.models import optimizers
from clsim.models.nets import Net, evaluating
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.pool.pool import Pool
from clsim.randomness import derive, generator, own_draws
from clsim.spec.tables import OptimizerSpec


@dataclass(frozen=True)
class Training:
    """How a net is trained on a set.

    SGD with momentum 0.9 and weight decay 5·10⁻⁴ in batches of 256; the learning rate falls to a tenth after half of
    the epochs. The papers train 1000 epochs with augmentation and 300 without.

    Attributes:
        epochs: number of epochs over the set.
        augment: operations to draw one from for each batch, each image with its own parameters; none: no augmentation.
        lr: learning rate at the start.
        batch_size: number of images in a step.

    Source: Zhao & Bilen, Dataset Condensation with Distribution Matching (WACV 2023), and its authors' protocol in
        Dataset Condensation with Differentiable Siamese Augmentation (ICML 2021).
    """

    epochs: int = 1000
    augment: Sequence[str] = siamese.ALL
    lr: float = 0.01
    batch_size: int = 256


def protocol(epochs: int, *, augment: bool, digits: bool) -> Training:
    """Return the papers' training: 1000 epochs with augmentation, 300 without.

    Args:
        epochs: another number of epochs; 0: that of the papers.
        augment: whether to augment the images.
        digits: whether the images are digits, which are not mirrored.
    """
    operations = () if not augment else siamese.DIGITS if digits else siamese.ALL
    return Training(epochs or (1000 if augment else 300), operations)


def accuracy(samples: Exemplars, tests: Exemplars, pool: Pool, training: Training, seed: int, number: int = 0) -> float:
    """Measure the accuracy on ``tests`` of a fresh net that is trained on ``samples``.

    Args:
        samples: the set, decoded.
        pool: the pool, for the architecture, the normalisation and the precision.
        seed: seed of the set.
        number: number of the net, from 0; each has its own weights, order and augmentation.
    """
    seed = derive(seed, f"evaluation {number}")
    with own_draws(derive(seed, "layers"), samples.device):
        net = pool.fresh(derive(seed, "weights"))
        _train(net, samples, pool, training, seed)
        correct = torch.zeros((), dtype=torch.int64, device=tests.device)
        with evaluating(net), torch.no_grad(), pool.precision():
            for start in range(0, len(tests), 100):
                part = tests[start : start + 100]
                correct += (net(pool.prepare(part.x), part.task).argmax(1) == part.y).sum()
        pool.cost.forward_passes += len(tests)
    return int(correct) / len(tests)


def _train(net: Net, samples: Exemplars, pool: Pool, training: Training, seed: int) -> None:
    spec = OptimizerSpec(lr=training.lr, momentum=0.9, weight_decay=5e-4, schedule="step", milestones=(0.5,))
    optimizer = optimizers.build(spec, net.parameters())
    order, draws = generator(seed, "order"), generator(seed, "augment")
    operations = training.augment if samples.x.ndim == 4 else ()
    steps, step = batch_count(len(samples), training.batch_size) * training.epochs, 0
    net.train()
    for _ in range(training.epochs):
        for batch in batches(samples, training.batch_size, order):
            for group in optimizer.param_groups:
                group["lr"] = optimizers.rate(spec, step, steps)
            x = siamese.draw(operations, len(batch), draws)(pool.prepare(batch.x))
            with pool.precision():
                logits = net(x, batch.task)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), batch.y).backward()
            optimizer.step()
            step += 1
            pool.cost.forward_passes += len(batch)
