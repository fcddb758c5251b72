"""Gradient matching: a net learns from the synthetic images what it would learn from the real ones.

Gradients are compared in float32: the cosines of small gradients are what it is about.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clsim.condensers.early import EarlyNets
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


def dc(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    iterations: int = 100,
    lr: float = 0.1,
    momentum: float = 0.5,
    real: int = 256,
    steps: int = 0,
    epochs: int = 0,
    net_lr: float = 0.01,
    start: str = "noise",
    early_nets: int = 0,
    early_epochs: float = 2.0,
    perturb: bool = True,
    clip: bool = False,
    model: str = "",
) -> Exemplars:
    """Match the gradients of each class, real and synthetic, while a net learns from the synthetic ones.

    L = Σ_c D(∇_θ ℓ(T_c; θ), ∇_θ ℓ(S_c; θ)) with D(A, B) = Σ_layers Σ_rows (1 − cos(A_row, B_row)): a row is a filter of
    a convolution or an output of a linear layer, one-dimensional parameters are left out. In each iteration the images
    take ``steps`` steps in a fresh net, which trains on them for ``epochs`` between one and the next.

    Args:
        iterations: nets, one after the other; the paper has 1000.
        lr, momentum: of the images.
        real: samples of each class a step.
        steps, epochs: 0: the paper's by images a class, (1, 1) for 1, (10, 50) from 10, (50, 10) from 50 on.
        net_lr: of the net, with momentum 0.5.
        start: ``noise``, ``real`` samples, or a selector's picks.
        early_nets: so many nets at an early stage of training take turns instead of random ones: model augmentation,
            of :func:`~clsim.condensers.formation.acc_dd`.
        early_epochs: that they are trained for on the real samples.
        perturb: the early nets' weights, anew each time.
        clip: keep pixels in the range that can be stored after each step; else they are cut off at the end.
        model: of the random nets, a name of ``clsim list models``; empty, and for vectors: the run's.

    As ``--buffer dc`` in a stream, and so for dsa, dcc and dsac: 2 iterations of 10 steps through ConvNet-3, 5 epochs
    between two of them, with 64 real samples of each class.

    Needs: random nets.
    Cost: iterations · steps · C · ``real`` samples forward and backward, the synthetic ones about four times that a
        sample, and iterations · (steps − 1) · epochs over the synthetic ones.
    Source: Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching (ICLR 2021),
        algorithm 1.
    """
    nets = EarlyNets(early_nets, early_epochs, perturb)
    method = GradientMatching(LOOPS, nets, real=real, steps=steps, epochs=epochs, net_lr=net_lr)
    making = Making(iterations, lr, momentum, start, clip, model, ())
    return synthesise(pool, budget, method, making, rng=rng)


def dsa(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    iterations: int = 100,
    lr: float = 0.1,
    momentum: float = 0.5,
    real: int = 256,
    steps: int = 0,
    epochs: int = 0,
    net_lr: float = 0.01,
    start: str = "real",
    augment: Sequence[str] = siamese.ALL,
    early_nets: int = 0,
    early_epochs: float = 2.0,
    perturb: bool = True,
    clip: bool = False,
    model: str = "",
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
    nets = EarlyNets(early_nets, early_epochs, perturb)
    method = GradientMatching(LOOPS, nets, real=real, steps=steps, epochs=epochs, net_lr=net_lr)
    making = Making(iterations, lr, momentum, start, clip, model, augment)
    return synthesise(pool, budget, method, making, rng=rng)


def dcc(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    iterations: int = 100,
    lr: float = 0.1,
    momentum: float = 0.5,
    real: int = 256,
    steps: int = 0,
    epochs: int = 0,
    net_lr: float = 0.01,
    warm_iterations: int = -1,
    warm_steps: int = 10,
    start: str = "real",
    early_nets: int = 0,
    early_epochs: float = 2.0,
    perturb: bool = True,
    clip: bool = False,
    model: str = "",
) -> Exemplars:
    """Match the gradients of all classes together, so that what tells them apart counts.

    L = D(1/C Σ_c ∇_θ ℓ(T_c; θ), 1/C Σ_c ∇_θ ℓ(S_c; θ)), D as in :func:`dc`: the sum over classes comes first. In the
    bi-level warm-up, while iteration < ``warm_iterations`` and step < ``warm_steps``, it is DC's loss that is
    descended; the loss that is reported is always the one above.

    Args:
        steps, epochs: 0: the paper's by images a class, (10, 5) for 1, (10, 50) from 10, (50, 10) from 50 on.
        net_lr: of the net, without momentum.
        warm_iterations, warm_steps: of the warm-up; below 0, a quarter of the iterations, as the paper's 250 of 1000.

    The others are those of :func:`dc`.

    Needs: random nets.
    Cost: as :func:`dc`; outside the warm-up, the graph of all synthetic images is in memory at once.
    Source: Lee, Chun, Jung, Yun & Yoon, Dataset Condensation with Contrastive Signals (ICML 2022).
    """
    nets = EarlyNets(early_nets, early_epochs, perturb)
    warm = (iterations // 4 if warm_iterations < 0 else warm_iterations), warm_steps
    method = GradientMatching(
        CONTRASTIVE_LOOPS, nets, real=real, steps=steps, epochs=epochs, net_lr=net_lr, net_momentum=0.0, warm=warm
    )
    making = Making(iterations, lr, momentum, start, clip, model, ())
    return synthesise(pool, budget, method, making, rng=rng)


def dsac(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    iterations: int = 100,
    lr: float = 0.1,
    momentum: float = 0.5,
    real: int = 256,
    steps: int = 0,
    epochs: int = 0,
    net_lr: float = 0.01,
    warm_iterations: int = -1,
    warm_steps: int = 10,
    start: str = "real",
    augment: Sequence[str] = siamese.ALL,
    early_nets: int = 0,
    early_epochs: float = 2.0,
    perturb: bool = True,
    clip: bool = False,
    model: str = "",
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
    nets = EarlyNets(early_nets, early_epochs, perturb)
    warm = (iterations // 4 if warm_iterations < 0 else warm_iterations), warm_steps
    method = GradientMatching(
        CONTRASTIVE_LOOPS, nets, real=real, steps=steps, epochs=epochs, net_lr=net_lr, net_momentum=0.0, warm=warm
    )
    making = Making(iterations, lr, momentum, start, clip, model, augment)
    return synthesise(pool, budget, method, making, rng=rng)


class GradientMatching:
    """One iteration: a net, some steps of the images in it, and its training on them in between. Final.

    Args:
        loops: what 0 ``steps`` or ``epochs`` stand for.
        nets: where the net comes from.
        warm: sum over classes first, but not while iteration and step are both below these; None: never.
    """

    def __init__(
        self,
        loops: Schedule,
        nets: EarlyNets,
        *,
        real: int = 256,
        steps: int = 0,
        epochs: int = 0,
        net_lr: float = 0.01,
        net_momentum: float = 0.5,
        warm: tuple[int, int] | None = None,
    ) -> None:
        at_least(0, steps=steps)
        at_least(0, epochs=epochs)
        at_least(1, real=real)
        self._loops, self._nets, self._warm = loops, nets, warm
        self._real, self._steps, self._epochs = real, steps, epochs
        self._net_lr, self._net_momentum = net_lr, net_momentum

    def __call__(self, iteration: int, synthetic: Synthetic, material: Material) -> Tensor:
        """See :class:`clsim.condensers.synthesis.Method`; the mean of the loss over the steps."""
        steps, epochs = self._loop(len(synthetic) // len(material.counts))
        steps = 1 if synthetic.still else steps
        net = self._nets(material)
        optimizer = torch.optim.SGD(net.parameters(), self._net_lr, momentum=self._net_momentum)
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
            by_class, summed = compare(net, weights, synthetic, material, self._real)
            synthetic.step()
            total += by_class if self._warm is None else summed
        return total / steps

    def _loop(self, images: int) -> tuple[int, int]:
        steps, epochs = self._loops[max(key for key in self._loops if key <= max(images, 1))]
        return self._steps or steps, self._epochs or epochs
