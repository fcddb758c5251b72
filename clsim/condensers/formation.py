"""IDC, which stores several small images in the place of one, and Acc-DD, which is IDC in a few early-stage nets."""

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
from clsim.spec.kinds import Count

AUGMENT = ("color", "crop", "cutout")
"""IDC's augmentation: these operations, one after the other."""


@dataclass(frozen=True)
class Forming:
    """Options of IDC and Acc-DD: how they compare gradients, and what they store.

    Attributes:
        lr_scale: factor on the paper's learning rate, used where ``lr`` is 0. Runs of far fewer steps than the paper's
            200,000 need a larger one.
        real: number of real samples of each class in a step.
        most: largest number of small synthetic images of each class in a step.
        steps: number of steps of the images in one net.
        samples: number of real samples, in batches of 64, that the net is trained on after each step; 0: no training.
        factor: each stored image holds factor × factor small ones; with 1 it is one image (IDC-I).
        distance: ``l2``: squared differences, as the paper takes for CIFAR and SVHN; ``l1``: absolute differences, as
            for MNIST, where the paper's learning rate is 1e-4 instead of 5e-3.
    """

    lr_scale: float = 1.0
    real: Count = 64
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
    """Store factor² small images in each stored one, and match gradients in nets that learn from real samples.

    L = Σ_c ‖∇_θ ℓ(A_c(T_c); θ) − ∇_θ ℓ(A_c(up(S_c)); θ)‖², θ the weights of the convolutions alone. up cuts each stored
    image into factor × factor tiles and scales them up bilinearly, so that the same bytes hold factor² images. Each
    iteration takes ``steps`` steps of the images in one net; after each step the net is trained on ``samples`` real
    samples under CutMix. Pixels are kept in their range. The images take one step for all classes together; the
    authors' code takes one step after each class.

    Args:
        making: how the images are made. An iteration is one net; the paper takes 2000. A learning rate of 0 stands for
            the paper's, 5e-3 · (images per class / 10) · (height / 32)² for pixels from 0 to 1.
        forming: how gradients are compared, and how many small images a stored one holds.
        augment: operations, all applied in turn with one set of parameters for a class's real and synthetic images.
        early: early-stage nets in place of random ones.

    ``--buffer idc`` and ``--buffer acc-dd`` take 2 iterations of 10 steps through ConvNet-3, with 16 real and at most 8
    small synthetic images of each class in a step, 64 samples for the net, and 10 times the paper's learning rate.

    Needs: random nets with convolutions.
    Cost: iterations · steps · (C · ``real`` + ``samples``) samples forward and backward; a synthetic sample costs about
        four times as much.
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
    """Make images by IDC in a few early-stage nets with perturbed weights: fewer iterations for the same accuracy.

    Each iteration takes IDC's loss at θ + α₁d₁ + α₂d₂, where θ is one of ``early_nets`` nets trained for
    ``early_epochs``, d are Gaussian directions with the norm of the net's weights in each filter, and
    |α| ~ U(0.01, 0.09).

    Args:
        making: how the images are made. A learning rate of 0 stands for that of :func:`idc`, with 1e-2 in the place of
            5e-3.
        augment: operations to draw from, of which each step takes all in turn; leave ``flip`` out for digits.
        early: the early-stage nets. The paper takes 5, and 20 for its fastest variant. On a small part of the data
            they need more than 2 epochs, since nets of a few dozen steps have learnt too little to help.

    The other arguments are those of :func:`idc`.

    Needs: random nets with convolutions.
    Cost: as :func:`idc`, plus early_nets · early_epochs over the real samples.
    Source: Zhang et al., Accelerating Dataset Distillation via Model Augmentation (CVPR 2023).
    """
    making = replace(making, lr=making.lr or forming.lr_scale * pixel_rate(pool, budget, 1e-2))
    return idc(pool, budget, rng=rng, making=making, forming=forming, augment=augment, early=early)


def pixel_rate(pool: Pool, budget: int, base: float) -> float:
    """Compute base · (images per class / 10) · (height / 32)² · mean(1 / σ²), a learning rate in normalised space.

    A step of lr · ∂L/∂p of pixels p from 0 to 1 is a step of lr / σ² · ∂L/∂x of x = (p − μ) / σ.
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
        """Carry out an iteration (:class:`clsim.condensers.synthesis.Method`); return its mean loss over the steps."""
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
    """Compute Σ‖A − B‖² over the layers, or Σ‖A − B‖₁ if not ``squared``; a scalar."""
    between = [b - a for a, b in zip(real, synthetic, strict=True)]
    return torch.stack([(d.square() if squared else d.abs()).sum() for d in between]).sum()


def all_in_turn(material: Material, names: Sequence[str], n: int | None = None) -> Augment:
    """Draw all the operations, to be applied one after the other; otherwise as :meth:`Material.change`."""
    draws = [siamese.draw([name], n, material.rng) for name in names]

    def change(x: Tensor) -> Tensor:
        for draw in draws:
            x = draw(x)
        return x

    return change


def learn(net: Net, optimizer: torch.optim.Optimizer, material: Material, samples: int) -> None:
    """Train a net on random real samples, 64 in a step: augmented without cutout, half of the time under CutMix.

    In CutMix, a box of 1 − λ of the image, with λ ~ U(0, 1) and a uniform centre, comes from another image of the
    batch. The loss is shared between the two labels by area.

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
    """Return a box of 1 − ``lam`` of the image, bool (h, w), and its share of the area after it is cut at the edges.

    Args:
        down, across: the centre, in [0, 1).
    """
    height, width = x.shape[2:]
    side = (1 - lam) ** 0.5
    top, left = int(down * height) - int(side * height) // 2, int(across * width) - int(side * width) // 2
    bottom, right = min(top + int(side * height), height), min(left + int(side * width), width)
    box = torch.zeros(height, width, dtype=torch.bool, device=x.device)
    box[max(top, 0) : bottom, max(left, 0) : right] = True
    return box, (bottom - max(top, 0)) * (right - max(left, 0)) / (height * width)
