"""Gradient matching: a net learns from the synthetic images what it would learn from the real ones.

Gradients are compared in float32, since cosines of small gradients need the precision.
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
from clsim.spec.kinds import Count, NotNegative

Schedule = dict[int, tuple[int, int]]

LOOPS: Schedule = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Loops of DC and DSA: images per class → (steps of the images in one net, epochs of the net between two steps)."""

CONTRASTIVE_LOOPS: Schedule = {**LOOPS, 1: (10, 5)}
"""Loops of DCC and DSAC."""


@dataclass(frozen=True)
class Matching:
    """Options of DC, DSA, DCC and DSAC: how they compare gradients.

    Attributes:
        real: number of real samples of each class in a step.
        steps: number of steps of the images in one net; 0: the paper's for the images per class; see :func:`loop`.
        epochs: epochs of the net on the images between two steps; 0: the paper's, as for ``steps``.
        net_lr: learning rate of the net.
    """

    real: Count = 256
    steps: int = 0
    epochs: int = 0
    net_lr: NotNegative = 0.01


@dataclass(frozen=True)
class WarmUp:
    """Bi-level warm-up of DCC and DSAC, which minimises DC's loss.

    Attributes:
        warm_iterations: number of iterations with a warm-up; below 0: a quarter of all, as the paper's 250 of 1000.
        warm_steps: number of warm-up steps in each of these iterations.
    """

    warm_iterations: int = -1
    warm_steps: int = 10

    def bounds(self, iterations: int) -> tuple[int, int]:
        """Return the first iteration and the first step that no longer belong to the warm-up."""
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
    """Match the gradients of real and synthetic images of each class, while a net learns from the synthetic ones.

    L = Σ_c D(∇_θ ℓ(T_c; θ), ∇_θ ℓ(S_c; θ)) with D(A, B) = Σ_layers Σ_rows (1 − cos(A_row, B_row)): a row is a filter of
    a convolution or an output of a linear layer; one-dimensional parameters are left out. In each iteration the images
    take ``steps`` steps in a fresh net, which is trained on them for ``epochs`` between two steps.

    Args:
        making: how the images are made. An iteration is one net; the paper takes 1000.
        matching: how gradients are compared. The authors' (steps, epochs) are (1, 1) for 1 image per class, (10, 50)
            for 10, (20, 25) for 20, (30, 20) for 30, (40, 15) for 40 and (50, 10) for 50. They give none for other
            numbers: what lies between is interpolated, and what lies above 50 is as for 50. The net has no momentum, as
            in the authors' joint code of DC and DSA.
        early: early-stage nets in place of random ones, as in :func:`~clsim.condensers.formation.acc_dd`.
        clip: whether to keep pixels in the range that can be stored after each step; else they are cut off at the end.

    ``--buffer`` dc, dsa, dcc and dsac begin with real samples and take 2 iterations of 10 steps through ConvNet-3, at a
    rate of 1, with 5 epochs between two steps and 64 real samples of each class.

    Needs: random nets.
    Cost: iterations · steps · C · ``real`` samples forward and backward, where a synthetic sample costs about four
        times as much, and iterations · (steps − 1) · epochs over the synthetic samples.
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
    """Make images by DC under an augmentation that is the same for real and synthetic images.

    L = Σ_c D(∇_θ ℓ(A_c(T_c); θ), ∇_θ ℓ(A_c(S_c); θ)), D as in :func:`dc`: one operation A_c with its parameters is
    drawn for each class and step. The net, too, is trained on augmented synthetic images, each with its own parameters.

    Args:
        augment: operations to draw from; leave ``flip`` out for digits.
        clip: whether to keep pixels in the range that can be stored after each step; else they are cut off at the end.

    The other arguments are those of :func:`dc`.

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
    """Match the gradients of all classes together, so that the differences between classes count.

    L = D(1/C Σ_c ∇_θ ℓ(T_c; θ), 1/C Σ_c ∇_θ ℓ(S_c; θ)), D as in :func:`dc`: the sum over classes comes first. In the
    bi-level warm-up, while iteration < ``warm_iterations`` and step < ``warm_steps``, DC's loss is minimised instead;
    the reported loss is always the one above.

    Args:
        matching: how gradients are compared. The authors' (steps, epochs) are (10, 5) for 1 image per class, and those
            of :func:`dc` from 10 on. The net has no momentum.
        warm: length of the warm-up.
        clip: whether to keep pixels in the range that can be stored after each step; else they are cut off at the end.

    The other arguments are those of :func:`dc`.

    Needs: random nets.
    Cost: as :func:`dc`; outside the warm-up, the graph of all synthetic images is in memory at once.
    Source: Lee, Chun, Jung, Yun & Yoon, Dataset Condensation with Contrastive Signals (ICML 2022).
    """
    method = GradientMatching(CONTRASTIVE_LOOPS, matching, early, warm=warm.bounds(making.iterations))
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
    """Make images by DCC under an augmentation that is the same for real and synthetic images.

    L = D(1/C Σ_c ∇_θ ℓ(A_c(T_c); θ), 1/C Σ_c ∇_θ ℓ(A_c(S_c); θ)): one operation A_c is drawn for each class and step.

    Args:
        augment: operations to draw from; leave ``flip`` out for digits.
        clip: whether to keep pixels in the range that can be stored after each step; else they are cut off at the end.

    The other arguments are those of :func:`dcc`.

    Needs: random nets.
    Cost: as :func:`dcc`.
    Source: Lee, Chun, Jung, Yun & Yoon, Dataset Condensation with Contrastive Signals (ICML 2022).
    """
    method = GradientMatching(CONTRASTIVE_LOOPS, matching, early, warm=warm.bounds(making.iterations))
    return synthesise(pool, budget, method, making, augment=augment, clip=clip, rng=rng)


class GradientMatching:
    """One iteration of DC, DSA, DCC or DSAC: a net, steps of the images in it, and its training in between. Final.

    Args:
        loops: the paper's numbers of steps and epochs, which stand in for 0.
        matching: how gradients are compared.
        early: early-stage nets in place of random ones.
        warm: (iterations, steps) of the warm-up of DCC and DSAC, outside which the sum over classes comes first; None:
            DC and DSA.
    """

    def __init__(
        self,
        loops: Schedule,
        matching: Matching = Matching(),
        early: EarlyNets = EarlyNets(),
        *,
        warm: tuple[int, int] | None = None,
    ) -> None:
        self._nets = NetSource(early)
        at_least(0, steps=matching.steps, epochs=matching.epochs)
        at_least(1, real=matching.real)
        self._loops, self._options, self._warm = loops, matching, warm

    def __call__(self, iteration: int, synthetic: Synthetic, material: Material) -> Tensor:
        """Carry out an iteration (:class:`clsim.condensers.synthesis.Method`); return its mean loss over the steps."""
        steps, epochs = loop(self._loops, len(synthetic) // len(material.counts))
        steps, epochs = self._options.steps or steps, self._options.epochs or epochs
        steps = 1 if synthetic.still else steps
        net = self._nets(material)
        optimizer = torch.optim.SGD(net.parameters(), self._options.net_lr)
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


def loop(published: Schedule, images: int) -> tuple[int, int]:
    """Return the steps of the images in one net, and the epochs of the net between two of them.

    Between two published numbers of images per class, both are interpolated linearly and rounded to whole numbers;
    below the first and above the last, they are those of the first and the last.

    >>> loop(LOOPS, 10), loop(LOOPS, 5), loop(LOOPS, 25), loop(LOOPS, 100)
    ((10, 50), (5, 23), (25, 22), (50, 10))
    """
    below = max((n for n in published if n <= images), default=min(published))
    above = min((n for n in published if n >= images), default=below)
    share = (images - below) / (above - below) if above > below else 0.0
    steps, epochs = (round(a + share * (b - a)) for a, b in zip(published[below], published[above], strict=True))
    return steps, epochs
