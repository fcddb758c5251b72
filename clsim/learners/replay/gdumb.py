"""GDumb: training on the memory alone, at the end of each experience."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net
from clsim.objectives.guesses import beta
from clsim.objectives.replay import by_origin, losses, replay
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.spec.kinds import Count, Share
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Batch, Setup, Terms


class Gdumb(Around[Sgd]):
    """After each experience, train the net from its first weights on the memory alone. Final.

    With a class-balanced memory it is GDumb, a baseline for any method with the same memory; with another buffer it
    measures that selector's coreset.

    With ``cutmix``, a batch is mixed with probability ``cutmix``: a rectangle of each image is replaced by that of
    another image of the batch, and L = λ·CE(y) + (1 − λ)·CE(y'), with λ the share of the image that is left, near a
    draw of Beta(1, 1), and y' the label of the other, each under its own task.

    Args:
        setup: net, memory, transform, generators.
        epochs: Epochs over the memory. On a partly labelled stream they do not count: there are as many steps as in an
            experience of any other learner.
        batch_size: Exemplars in each step.
        cutmix: The probability that a batch is mixed by CutMix; 0.5 in the paper, but 0 on MNIST.

    Source: Prabhu, Torr & Dokania, GDumb: A Simple Approach that Questions Our Progress in Continual Learning (ECCV
    2020); Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features (ICCV
    2019).
    """

    trains_at_end: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, epochs: Count = 30, batch_size: Count = 16, cutmix: Share = 0.0) -> None:
        if not 0 <= cutmix <= 1:
            raise InputError(f"gdumb: cutmix: found {cutmix:g}, allowed: a probability from 0 to 1")
        self._cutmix = cutmix
        super().__init__(setup, Sgd(setup, objective=self._loss))
        self._epochs = epochs
        self._batch_size = batch_size
        self._first = {name: value.clone() for name, value in setup.net.state_dict().items()}

    def observe(self, batch: Exemplars) -> Terms:
        """Learn nothing from the stream itself."""
        return {}

    def finish(self, experience: Experience) -> list[Terms]:
        """Train from the first weights on everything in memory."""
        exemplars = self.setup.memory.exemplars
        if exemplars is None:
            return []
        self.inner.net.load_state_dict(self._first)
        self.inner = Sgd(self.setup, objective=self._loss)
        size, order = self._batch_size, self.setup.randomness.order
        epoch = batch_count(len(exemplars), size)
        steps = epoch * self._epochs
        spec = self.setup.spec
        if spec.partly_labelled and spec.labelling.epoch == "larger":  # as its rivals, who learn from that part
            steps = self.setup.steps(experience)
        self.inner.schedule(steps, epoch)
        passes = itertools.chain.from_iterable(batches(exemplars, size, order) for _ in itertools.count())
        return [self.inner.step(batch, None) for batch in itertools.islice(passes, steps)]

    def _loss(self, net: Net, batch: Batch) -> Terms:
        rng = self.setup.randomness.order
        if not self._cutmix or float(torch.rand((), generator=rng)) >= self._cutmix:
            return replay(net, batch)
        if batch.x.ndim != 4:
            raise InputError(f"gdumb: cutmix: found {self._cutmix:g} with vectors, allowed: 0, or images")
        x, other, share = cut_and_mixed(batch.x, rng)
        features, rest = net.features(x), Batch(x, batch.y[other], batch.task[other], batch.new)
        own = losses(net.logits(features, batch.task), batch)
        return by_origin(share * own + (1 - share) * losses(net.logits(features, rest.task), rest), batch)


def cut_and_mixed(x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Replace a rectangle of each image by that of another one: the images, the other's row, the share that is left.

    The rectangle is the same for all images. Its sides are √(1 − λ) of the image's, λ ~ Beta(1, 1); its middle is
    uniform, and what lies outside the image is cut off. The share is that of the pixels left.

    Args:
        x: Images (n, c, h, w).
        rng: A generator on the CPU; nothing waits for the device.
    """
    n, _, h, w = x.shape
    side = math.sqrt(1 - float(beta(1, 1.0, rng)))
    middle, other = torch.rand(2, generator=rng).tolist(), torch.randperm(n, generator=rng).to(x.device)
    top, bottom, left, right = (
        min(max(int(share * size) + sign * (int(size * side) // 2), 0), size)
        for share, size in zip(middle, (h, w), strict=True)
        for sign in (-1, 1)
    )
    x = x.clone()
    x[:, :, top:bottom, left:right] = x[other, :, top:bottom, left:right]
    return x, other, 1 - (bottom - top) * (right - left) / (h * w)
