"""IDC: several small images in the place of one, made by nets that learn from the real samples.

And Acc-DD: IDC in a few early-stage nets instead of many random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.condensers.early import BATCH, LR, EarlyNets
from clsim.condensers.inner_steps import freeze_norms, gradient, logits, losses, parts, ready
from clsim.condensers.synthesis import Augment, Making, Material, Synthetic, synthesise
from clsim.data import siamese
from clsim.errors import InputError, at_least, nearest
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool

AUGMENT = ("color", "crop", "cutout")
"""IDC's operations: all of them, one after the other."""


def idc(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    iterations: int = 100,
    lr: float = 0.0,
    lr_scale: float = 1.0,
    momentum: float = 0.5,
    real: int = 64,
    most: int = 128,
    steps: int = 100,
    samples: int = 500,
    factor: int = 2,
    distance: Literal["l2", "l1"] = "l2",
    start: str = "real",
    augment: Sequence[str] = AUGMENT,
    early_nets: int = 0,
    early_epochs: float = 2.0,
    perturb: bool = True,
    model: str = "",
) -> Exemplars:
    """Store factor² small images in each, and match gradients in nets that learn from real samples.

    L = Σ_c ‖∇_θ ℓ(A_c(T_c); θ) − ∇_θ ℓ(A_c(up(S_c)); θ)‖², the weights of convolutions alone; up cuts each stored image
    into factor × factor tiles and scales them up bilinearly, so that the same bytes hold factor² images. Each iteration
    takes ``steps`` steps of the images in one net, which after each of them learns from ``samples`` real samples under
    CutMix. Pixels are kept in their range. The images take one step for all classes, where the authors' code takes one
    after each.

    Args:
        iterations: nets, one after the other; the paper has 2000.
        lr: of the images; 0: the paper's 5e-3 · (images a class / 10) · (height / 32)², of pixels from 0 to 1.
        lr_scale: what the paper's rate is multiplied by where ``lr`` is 0; far fewer steps than its 200,000 want more.
        real, most: real samples of each class a step, and the most of its small synthetic images.
        steps: of the images in one net.
        samples: real ones that the net learns from after each step, 64 at once; 0: it stays as it is.
        factor: 1: a stored image is one image (IDC-I).
        distance: ``l2``: squared differences, as for CIFAR and SVHN; ``l1``: absolute ones, with a learning rate of
            their own, as for MNIST (1e-4 instead of 5e-3 there).
        start: ``real`` samples scaled down, ``noise``, or a selector's picks.
        augment: operations, all applied in turn with one set of parameters for a class's real and synthetic images.
        early_nets: so many nets at an early stage of training take turns instead of random ones: model augmentation.
        early_epochs: that they are trained for on the real samples.
        perturb: the early nets' weights, anew each time.
        model: of the nets, a name of ``clsim list models``; empty: the run's.

    As ``--buffer idc`` in a stream, and so for acc-dd: 2 iterations of 10 steps through ConvNet-3, with 16 real and at
    most 8 small synthetic images of each class a step, 64 samples for the net, and 10 times the paper's rate.

    Needs: random nets with convolutions.
    Cost: iterations · steps · (C · ``real`` + ``samples``) samples forward and backward, the synthetic ones about four
        times that a sample.
    Source: Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization (ICML 2022).
    """
    nets = EarlyNets(early_nets, early_epochs, perturb)
    method = Formation(nets, real=real, most=most, steps=steps, samples=samples, distance=distance)
    rate = lr or lr_scale * pixel_rate(pool, budget, 5e-3)
    making = Making(iterations, rate, momentum, start, True, model, augment, factor)
    return synthesise(pool, budget, method, making, rng=rng)


def acc_dd(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    iterations: int = 100,
    lr: float = 0.0,
    lr_scale: float = 1.0,
    momentum: float = 0.5,
    real: int = 64,
    most: int = 128,
    steps: int = 100,
    samples: int = 500,
    factor: int = 2,
    distance: Literal["l2", "l1"] = "l2",
    start: str = "real",
    augment: Sequence[str] = AUGMENT,
    early_nets: int = 5,
    early_epochs: float = 2.0,
    perturb: bool = True,
    model: str = "",
) -> Exemplars:
    """IDC in a few early-stage nets whose weights are perturbed each time: fewer iterations for the same accuracy.

    IDC's loss, each iteration at θ + α₁d₁ + α₂d₂ with θ one of ``early_nets`` nets trained for ``early_epochs``, d
    Gaussian directions, each filter as long as the net's, and |α| ~ U(0.01, 0.09).

    Args:
        lr: 0: as :func:`idc`, with 1e-2 in the place of 5e-3.
        early_nets: 5 in the paper, 20 where it is fastest.
        early_epochs: of a small part of the data more than 2: nets of a few dozen steps have learnt too little to help.

    The others are those of :func:`idc`.

    Needs: random nets with convolutions.
    Cost: as :func:`idc`, and early_nets · early_epochs over the real samples.
    Source: Zhang et al., Accelerating Dataset Distillation via Model Augmentation (CVPR 2023).
    """
    return idc(
        pool,
        budget,
        rng=rng,
        iterations=iterations,
        lr=lr or lr_scale * pixel_rate(pool, budget, 1e-2),
        momentum=momentum,
        real=real,
        most=most,
        steps=steps,
        samples=samples,
        factor=factor,
        distance=distance,
        start=start,
        augment=augment,
        early_nets=early_nets,
        early_epochs=early_epochs,
        perturb=perturb,
        model=model,
    )


def pixel_rate(pool: Pool, budget: int, base: float) -> float:
    """base · (images a class / 10) · (height / 32)² · mean(1 / σ²), a learning rate in the normalised space.

    A step of lr · ∂L/∂p of pixels p from 0 to 1 is one of lr / σ² · ∂L/∂x of x = (p − μ) / σ.
    """
    like = pool.data.x[:1]
    if like.ndim != 4 or not len(like):
        raise InputError(f"idc: found samples of shape {tuple(like.shape[1:])}, allowed: images (c, h, w)")
    most = 1 if like.is_floating_point() else 255
    inverse = pool.prepare(torch.full_like(like, most)) - pool.prepare(torch.zeros_like(like))
    each = budget / max(len(pool.data.y[pool.data.y >= 0].unique()), 1)
    return base * each / 10 * (like.shape[2] / 32) ** 2 * float(inverse.square().mean())


class Formation:
    """One iteration of IDC: a net, some steps of the images in it, and its training on real samples. Final."""

    def __init__(
        self,
        nets: EarlyNets,
        *,
        real: int = 64,
        most: int = 128,
        steps: int = 100,
        samples: int = 500,
        distance: str = "l2",
    ) -> None:
        at_least(1, real=real, most=most, steps=steps)
        at_least(0, samples=samples)
        if distance not in ("l2", "l1"):
            raise InputError(f"distance: unknown name {distance!r}; {nearest(distance, ('l2', 'l1'))}")
        self._nets, self._squared = nets, distance == "l2"
        self._real, self._most, self._steps, self._samples = real, most, steps, samples

    def __call__(self, iteration: int, synthetic: Synthetic, material: Material) -> Tensor:
        """See :class:`clsim.condensers.synthesis.Method`; the mean of the loss over the steps."""
        net = self._nets(material)
        optimizer = torch.optim.SGD(net.parameters(), LR, momentum=0.9, weight_decay=5e-4)
        filters = [p for p in net.parameters() if p.ndim > 2]
        if not filters:
            raise InputError("idc: the model has no convolution to compare gradients of; allowed: convnet3, resnet18 …")
        total = synthetic.images.new_zeros(())
        steps = 1 if synthetic.still else self._steps
        for step in range(steps):
            if step and self._samples:
                learn(net, optimizer, material, self._samples)
            freeze_norms(net, material)
            synthetic.optimizer.zero_grad()
            for position in range(len(material.counts)):
                total += self._match(net, filters, synthetic, material, position)
            synthetic.step()
        return total / steps

    def _match(
        self, net: Net, filters: Sequence[Tensor], synthetic: Synthetic, material: Material, position: int
    ) -> Tensor:
        x, place = material.real(self._real, [position])
        made, made_place = synthetic.of(position)
        if len(made) > self._most:
            rows = torch.randperm(len(made), generator=material.rng)[: self._most].to(made.device)
            made, made_place = made[rows], made_place[rows]
        change = all_in_turn(material, material.operations)
        wanted = gradient(net, filters, change(x), place, material)
        ours = gradient(net, filters, change(made), made_place, material, graph=True)
        apart = difference(wanted, ours, squared=self._squared)
        apart.backward(inputs=[synthetic.images])
        return apart.detach()


def difference(real: Sequence[Tensor], synthetic: Sequence[Tensor], *, squared: bool) -> Tensor:
    """Σ‖A − B‖² over the layers, or Σ‖A − B‖₁; a scalar."""
    between = [b - a for a, b in zip(real, synthetic, strict=True)]
    return torch.stack([(d.square() if squared else d.abs()).sum() for d in between]).sum()


def all_in_turn(material: Material, names: Sequence[str], n: int | None = None) -> Augment:
    """All the operations, one after the other, drawn now; as :meth:`Material.change`."""
    draws = [siamese.draw([name], n, material.rng) for name in names]

    def change(x: Tensor) -> Tensor:
        for draw in draws:
            x = draw(x)
        return x

    return change


def learn(net: Net, optimizer: torch.optim.Optimizer, material: Material, samples: int) -> None:
    """Train a net on random real samples, 64 a step: augmented without cutout, half of the time under CutMix.

    CutMix: a box of 1 − λ of the image, λ ~ U(0, 1), its centre uniform, comes from another image of the batch, and the
    loss is shared between the two labels by area.

    Source: Yun et al., CutMix (ICCV 2019).
    """
    rows, place = material.everything()
    names = [name for name in material.operations if name != "cutout"]
    drawn = torch.randperm(len(rows), generator=material.rng)[:samples].to(rows.device)
    ready(net, len(drawn))
    for part in parts(drawn, BATCH):
        x = material.pool.prepare(material.pool.data.x[rows[part]])
        x = all_in_turn(material, names, len(x))(x)
        draws = torch.rand(4, generator=material.rng).tolist()
        if draws[0] < 0.5:
            other = torch.randperm(len(x), generator=material.rng).to(x.device)
            box, share = boxed(x, *draws[1:])
            scores, targets = logits(net, torch.where(box, x[other], x), material), material.targets[place[part]]
            mixed = share * F.cross_entropy(scores, targets[other])
            loss = (1 - share) * F.cross_entropy(scores, targets) + mixed
        else:
            loss = losses(net, x, place[part], material).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        material.pool.cost.proxy_steps += 1
        material.pool.cost.forward_passes += len(x)


def boxed(x: Tensor, lam: float, down: float, across: float) -> tuple[Tensor, float]:
    """A box of 1 − ``lam`` of the image about a centre in [0, 1)², cut off at the edges: bool (h, w), and its share."""
    height, width = x.shape[2:]
    side = (1 - lam) ** 0.5
    top, left = int(down * height) - int(side * height) // 2, int(across * width) - int(side * width) // 2
    bottom, right = min(top + int(side * height), height), min(left + int(side * width), width)
    box = torch.zeros(height, width, dtype=torch.bool, device=x.device)
    box[max(top, 0) : bottom, max(left, 0) : right] = True
    return box, (bottom - max(top, 0)) * (right - max(left, 0)) / (height * width)
