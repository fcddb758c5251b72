"""IDC: several small images in the place of one, made by nets that learn from the real samples.

And Acc-DD: IDC in a few early-stage nets instead of many random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.condensers.early import BATCH, LR, EarlyNets, NetSource
from clsim.condensers.inner_steps import freeze_norms, gradient, logits, losses, parts, ready
from clsim.condensers.synthesis import Augment, Making, Material, Synthetic, synthesise
from clsim.data import siamese
from clsim.errors import InputError, at_least, nearest
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool

AUGMENT = ("color", "crop", "cutout")
"""IDC's operations: all of them, one after the other."""


@dataclass(frozen=True)
class Forming:
    """How IDC compares, and what it stores: options of IDC and Acc-DD.

    Attributes:
        lr_scale: what the paper's learning rate is multiplied by where ``lr`` is 0; far fewer steps than its 200,000
            want more.
        real: real samples of each class a step.
        most: small synthetic images of each class a step, at most.
        steps: steps of the images in one net.
        samples: real samples that the net learns from after each step, 64 at once; 0: it stays as it is.
        factor: each stored image holds factor × factor small ones; with 1 it is one image (IDC-I).
        distance: ``l2``: squared differences, as for CIFAR and SVHN; ``l1``: absolute ones, with a learning rate of
            their own, as for MNIST (1e-4 instead of 5e-3 there).
    """

    lr_scale: float = 1.0
    real: int = 64
    most: int = 128
    steps: int = 100
    samples: int = 500
    factor: int = 2
    distance: Literal["l2", "l1"] = "l2"


def idc(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    making: Making = Making(iterations=100, lr=0.0),
    forming: Forming = Forming(),
    augment: Sequence[str] = AUGMENT,
    early: EarlyNets = EarlyNets(),
) -> Exemplars:
    """Store factor² small images in each, and match gradients in nets that learn from real samples.

    L = Σ_c ‖∇_θ ℓ(A_c(T_c); θ) − ∇_θ ℓ(A_c(up(S_c)); θ)‖², the weights of convolutions alone; up cuts each stored image
    into factor × factor tiles and scales them up bilinearly, so that the same bytes hold factor² images. Each iteration
    takes ``steps`` steps of the images in one net, which after each of them learns from ``samples`` real samples under
    CutMix. Pixels are kept in their range. The images take one step for all classes, where the authors' code takes one
    after each.

    Args:
        making: an iteration is one net; the paper has 2000. A learning rate of 0 stands for the paper's,
            5e-3 · (images a class / 10) · (height / 32)², of pixels from 0 to 1.
        forming: how gradients are compared, and how many small images a stored one holds.
        augment: operations, all applied in turn with one set of parameters for a class's real and synthetic images.
        early: early-stage nets instead of random ones.

    As ``--buffer idc`` in a stream, and so for acc-dd: 2 iterations of 10 steps through ConvNet-3, with 16 real and at
    most 8 small synthetic images of each class a step, 64 samples for the net, and 10 times the paper's rate.

    Needs: random nets with convolutions.
    Cost: iterations · steps · (C · ``real`` + ``samples``) samples forward and backward, the synthetic ones about four
        times that a sample.
    Source: Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization (ICML 2022).
    """
    method = Formation(forming, early)
    making = replace(making, lr=making.lr or forming.lr_scale * pixel_rate(pool, budget, 5e-3))
    return synthesise(pool, budget, method, making, augment=augment, clip=True, factor=forming.factor, rng=rng)


def acc_dd(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    making: Making = Making(iterations=100, lr=0.0),
    forming: Forming = Forming(),
    augment: Sequence[str] = AUGMENT,
    early: EarlyNets = EarlyNets(early_nets=5),
) -> Exemplars:
    """IDC in a few early-stage nets whose weights are perturbed each time: fewer iterations for the same accuracy.

    IDC's loss, each iteration at θ + α₁d₁ + α₂d₂ with θ one of ``early_nets`` nets trained for ``early_epochs``, d
    Gaussian directions, each filter as long as the net's, and |α| ~ U(0.01, 0.09).

    Args:
        making: a learning rate of 0 stands for that of :func:`idc`, with 1e-2 in the place of 5e-3.
        early: 5 nets in the paper, 20 where it is fastest; of a small part of the data more than 2 epochs, since nets
            of a few dozen steps have learnt too little to help.

    The others are those of :func:`idc`.

    Needs: random nets with convolutions.
    Cost: as :func:`idc`, and early_nets · early_epochs over the real samples.
    Source: Zhang et al., Accelerating Dataset Distillation via Model Augmentation (CVPR 2023).
    """
    making = replace(making, lr=making.lr or forming.lr_scale * pixel_rate(pool, budget, 1e-2))
    return idc(pool, budget, rng=rng, making=making, forming=forming, augment=augment, early=early)


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

    def __init__(self, forming: Forming = Forming(), early: EarlyNets = EarlyNets()) -> None:
        self._nets = NetSource(early)
        at_least(1, real=forming.real, most=forming.most, steps=forming.steps)
        at_least(0, samples=forming.samples)
        if forming.distance not in ("l2", "l1"):
            raise InputError(f"distance: unknown name {forming.distance!r}; {nearest(forming.distance, ('l2', 'l1'))}")
        self._options = forming

    def __call__(self, iteration: int, synthetic: Synthetic, material: Material) -> Tensor:
        """See :class:`clsim.condensers.synthesis.Method`; the mean of the loss over the steps."""
        net = self._nets(material)
        optimizer = torch.optim.SGD(net.parameters(), LR, momentum=0.9, weight_decay=5e-4)
        filters = [p for p in net.parameters() if p.ndim > 2]
        if not filters:
            raise InputError("idc: the model has no convolution to compare gradients of; allowed: convnet3, resnet18 …")
        total = synthetic.images.new_zeros(())
        steps = 1 if synthetic.still else self._options.steps
        for step in range(steps):
            if step and self._options.samples:
                learn(net, optimizer, material, self._options.samples)
            freeze_norms(net, material)
            synthetic.optimizer.zero_grad()
            for position in range(len(material.counts)):
                total += self._match(net, filters, synthetic, material, position)
            synthetic.step()
        return total / steps

    def _match(
        self, net: Net, filters: Sequence[Tensor], synthetic: Synthetic, material: Material, position: int
    ) -> Tensor:
        x, place = material.real(self._options.real, [position])
        made, made_place = synthetic.of(position)
        most = self._options.most
        if len(made) > most:
            rows = torch.randperm(len(made), generator=material.rng)[:most].to(made.device)
            made, made_place = made[rows], made_place[rows]
        change = all_in_turn(material, material.operations)
        wanted = gradient(net, filters, change(x), place, material)
        ours = gradient(net, filters, change(made), made_place, material, graph=True)
        apart = difference(wanted, ours, squared=self._options.distance == "l2")
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
