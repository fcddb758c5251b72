"""Gradient matching: a net learns from the synthetic images what it would learn from the real ones.

Gradients are compared in float32: the cosines of small gradients are what it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clsim.condensers.early import EarlyNets, NetSource
from clsim.condensers.gradient_distance import classes_apart, classes_together
from clsim.condensers.inner_steps import freeze_norms, train
from clsim.condensers.synthesis import Making, Material, Synthetic, synthesise
from clsim.data import siamese
from clsim.errors import at_least
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool

Schedule = dict[int, tuple[int, int]]

LOOPS: Schedule = {1: (1, 1), 10: (10, 50), 50: (50, 10)}
"""DC's and DSA's: images a class → steps of the images in one net, epochs of the net between two of them."""

CONTRASTIVE_LOOPS: Schedule = {1: (10, 5), 10: (10, 50), 50: (50, 10)}
"""Those of DCC and DSAC."""


@dataclass(frozen=True)
class Matching:
    """How gradients are compared: options of DC and of those that are like it.

    Attributes:
        real: real samples of each class a step.
        steps: steps of the images in one net; 0: the paper's, by images a class.
        epochs: epochs of the net on the images between two steps; 0: the paper's, by images a class.
        net_lr: learning rate of the net.
    """

    real: int = 256
    steps: int = 0
    epochs: int = 0
    net_lr: float = 0.01


@dataclass(frozen=True)
class WarmUp:
    """The bi-level warm-up of DCC and DSAC, in which DC's loss is descended.

    Attributes:
        warm_iterations: iterations with a warm-up; below 0, a quarter of all, as the paper's 250 of 1000.
        warm_steps: steps of each of them that belong to it.
    """

    warm_iterations: int = -1
    warm_steps: int = 10

    def bounds(self, iterations: int) -> tuple[int, int]:
        """The iteration and the step that the warm-up ends before."""
        return iterations // 4 if self.warm_iterations < 0 else self.warm_iterations, self.warm_steps


def dc(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    making: Making = Making(iterations=100, lr=0.1, start="noise"),
    matching: Matching = Matching(),
    early: EarlyNets = EarlyNets(),
    clip: bool = False,
) -> Exemplars:
    """Match the gradients of each class, real and synthetic, while a net learns from the synthetic ones.

    L = Σ_c D(∇_θ ℓ(T_c; θ), ∇_θ ℓ(S_c; θ)) with D(A, B) = Σ_layers Σ_rows (1 − cos(A_row, B_row)): a row is a filter of
    a convolution or an output of a linear layer, one-dimensional parameters are left out. In each iteration the images
    take ``steps`` steps in a fresh net, which trains on them for ``epochs`` between one and the next.

    Args:
        making: an iteration is one net; the paper has 1000.
        matching: the paper's steps and epochs are (1, 1) for 1 image a class, (10, 50) from 10, (50, 10) from 50 on;
            the net has momentum 0.5.
        early: early-stage nets instead of random ones, as in :func:`~clsim.condensers.formation.acc_dd`.
        clip: keep pixels in the range that can be stored after each step; else they are cut off at the end.

    As ``--buffer dc`` in a stream, and so for dsa, dcc and dsac: 2 iterations of 10 steps through ConvNet-3, 5 epochs
    between two of them, with 64 real samples of each class.

    Needs: random nets.
    Cost: iterations · steps · C · ``real`` samples forward and backward, the synthetic ones about four times that a
        sample, and iterations · (steps − 1) · epochs over the synthetic ones.
    Source: Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching (ICLR 2021),
        algorithm 1.
    """
    method = GradientMatching(LOOPS, matching, early)
    return synthesise(pool, budget, method, making, clip=clip, rng=rng)


def dsa(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    making: Making = Making(iterations=100, lr=0.1),
    matching: Matching = Matching(),
    augment: Sequence[str] = siamese.ALL,
    early: EarlyNets = EarlyNets(),
    clip: bool = False,
) -> Exemplars:
    """DC under an augmentation that is the same for real and synthetic images.

    L = Σ_c D(∇_θ ℓ(A_c(T_c); θ), ∇_θ ℓ(A_c(S_c); θ)), D as in :func:`dc`: one operation with its parameters A_c is
    drawn for each class and step. The net trains on augmented synthetic images too, each with its own parameters.

    Args:
        augment: operations to draw from; leave ``flip`` out for digits.

    The others are those of :func:`dc`.

    Needs: random nets.
    Cost: as :func:`dc`.
    Source: Zhao & Bilen, Dataset Condensation with Differentiable Siamese Augmentation (ICML 2021).
    """
    method = GradientMatching(LOOPS, matching, early)
    return synthesise(pool, budget, method, making, augment=augment, clip=clip, rng=rng)


def dcc(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    making: Making = Making(iterations=100, lr=0.1),
    matching: Matching = Matching(),
    warm: WarmUp = WarmUp(),
    early: EarlyNets = EarlyNets(),
    clip: bool = False,
) -> Exemplars:
    """Match the gradients of all classes together, so that what tells them apart counts.

    L = D(1/C Σ_c ∇_θ ℓ(T_c; θ), 1/C Σ_c ∇_θ ℓ(S_c; θ)), D as in :func:`dc`: the sum over classes comes first. In the
    bi-level warm-up, while iteration < ``warm_iterations`` and step < ``warm_steps``, it is DC's loss that is
    descended; the loss that is reported is always the one above.

    Args:
        matching: the paper's steps and epochs are (10, 5) for 1 image a class, (10, 50) from 10, (50, 10) from 50 on;
            the net has no momentum.
        warm: how long the warm-up is.

    The others are those of :func:`dc`.

    Needs: random nets.
    Cost: as :func:`dc`; outside the warm-up, the graph of all synthetic images is in memory at once.
    Source: Lee, Chun, Jung, Yun & Yoon, Dataset Condensation with Contrastive Signals (ICML 2022).
    """
    method = _contrastive(matching, early, warm.bounds(making.iterations))
    return synthesise(pool, budget, method, making, clip=clip, rng=rng)


def dsac(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    making: Making = Making(iterations=100, lr=0.1),
    matching: Matching = Matching(),
    warm: WarmUp = WarmUp(),
    augment: Sequence[str] = siamese.ALL,
    early: EarlyNets = EarlyNets(),
    clip: bool = False,
) -> Exemplars:
    """DCC under an augmentation that is the same for real and synthetic images.

    L = D(1/C Σ_c ∇_θ ℓ(A_c(T_c); θ), 1/C Σ_c ∇_θ ℓ(A_c(S_c); θ)), one operation A_c drawn for each class and step.

    Args:
        augment: operations to draw from; leave ``flip`` out for digits.

    The others are those of :func:`dcc`.

    Needs: random nets.
    Cost: as :func:`dcc`.
    Source: Lee, Chun, Jung, Yun & Yoon, Dataset Condensation with Contrastive Signals (ICML 2022).
    """
    method = _contrastive(matching, early, warm.bounds(making.iterations))
    return synthesise(pool, budget, method, making, augment=augment, clip=clip, rng=rng)


class GradientMatching:
    """One iteration: a net, some steps of the images in it, and its training on them in between. Final.

    Args:
        loops: what 0 ``steps`` or ``epochs`` stand for.
        early: where the net comes from.
        net_momentum: momentum of the net's SGD.
        warm: sum over classes first, but not while iteration and step are both below these; None: never.
    """

    def __init__(
        self,
        loops: Schedule,
        matching: Matching = Matching(),
        early: EarlyNets = EarlyNets(),
        *,
        net_momentum: float = 0.5,
        warm: tuple[int, int] | None = None,
    ) -> None:
        self._nets = NetSource(early)
        at_least(0, steps=matching.steps, epochs=matching.epochs)
        at_least(1, real=matching.real)
        self._loops, self._options, self._warm = loops, matching, warm
        self._net_momentum = net_momentum

    def __call__(self, iteration: int, synthetic: Synthetic, material: Material) -> Tensor:
        """See :class:`clsim.condensers.synthesis.Method`; the mean of the loss over the steps."""
        steps, epochs = self._loop(len(synthetic) // len(material.counts))
        steps = 1 if synthetic.still else steps
        net = self._nets(material)
        optimizer = torch.optim.SGD(net.parameters(), self._options.net_lr, momentum=self._net_momentum)
        weights = [p for p in net.parameters() if p.ndim > 1]
        total = synthetic.images.new_zeros(())
        for step in range(steps):
            if step:
                made, place = synthetic.decoded()
                train(net, optimizer, made.detach(), place, material, epochs)
            freeze_norms(net, material)
            synthetic.optimizer.zero_grad()
            apart = self._warm is None or (iteration < self._warm[0] and step < self._warm[1])
            compare = classes_apart if apart else classes_together
            by_class, summed = compare(net, weights, synthetic, material, self._options.real)
            synthetic.step()
            total += by_class if self._warm is None else summed
        return total / steps

    def _loop(self, images: int) -> tuple[int, int]:
        steps, epochs = self._loops[max(key for key in self._loops if key <= max(images, 1))]
        return self._options.steps or steps, self._options.epochs or epochs


def _contrastive(matching: Matching, early: EarlyNets, warm: tuple[int, int]) -> GradientMatching:
    return GradientMatching(CONTRASTIVE_LOOPS, matching, early, net_momentum=0.0, warm=warm)
