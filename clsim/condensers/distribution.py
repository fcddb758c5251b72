"""DM: synthetic images whose mean features, class by class in random nets, are those of the real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from clsim.condensers.synthesis import Augment, Making, Material, Synthetic, synthesise
from clsim.data import siamese
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.exemplars import groups as classes
from clsim.pool.pool import Pool
from clsim.spec.kinds import Count


def dm(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    making: Making = Making(iterations=200, lr=0.0),
    real: Count = 256,
    augment: Sequence[str] = siamese.ALL,
    clip: bool = False,
) -> Exemplars:
    """Match the mean features of real and synthetic images of each class, in random nets.

    L = Σ_c ‖mean_{x∈T_c} f(A_c(x)) − mean_{x∈S_c} f(A_c(x))‖². Each iteration draws a random net f and, for
    each class, one augmentation A_c, which is the same for its real and its synthetic images. All classes pass through
    the net in one batch, so that nets with batch norm see what they would see in training.

    Args:
        making: how the images are made. An iteration is one step of the images, in a net of its own; the paper takes
            20,000. A learning rate of 0 stands for that of :func:`rate`, which is the paper's for 20,000 iterations.
        real: number of real samples of each class in an iteration.
        augment: operations to draw from; leave ``flip`` out for digits.
        clip: whether to put pixels back into the range that can be stored after each step. Without it they are cut off
            at the end, as in the paper.

    ``--buffer dm`` takes 50 iterations through ConvNet-3, at that rate, with 64 real samples of each class. A memory of
    fixed size condenses old classes again when their shares become smaller (``memory.shrink``).

    Needs: random nets.
    Cost: ``iterations`` forward passes of C · real samples, and forward and backward of the synthetic ones.
    Source: Zhao & Bilen, Dataset Condensation with Distribution Matching (WACV 2023).
    """
    images = budget / max(len(classes(pool.data)), 1)
    making = replace(making, lr=making.lr or rate(images, making.iterations))
    return synthesise(pool, budget, MeanMatching(real), making, augment=augment, clip=clip, rng=rng)


def rate(images: float, iterations: int) -> float:
    """Compute the learning rate max(r, min(n, 20,000 / iterations)) of n images per class.

    r is the paper's rate for 20,000 iterations: 1, and 10 from n = 100 on. Fewer iterations need larger steps. The
    gradient of an image falls with n, since it is a share 1/n of its class's mean: a rate of n moves it as far as 1
    moves a class's only image. 20,000 / iterations keeps the sum of all rates within that of the paper.

    >>> rate(10, 20_000), rate(100, 20_000), rate(10, 300), rate(50, 1000), rate(1, 50)
    (1.0, 10.0, 10.0, 20.0, 1.0)
    """
    published = 10.0 if images >= 100 else 1.0
    return max(published, min(float(images), 20_000 / max(iterations, 1)))


class MeanMatching:
    """One iteration of DM, all classes in one batch. Final.

    Args:
        real: number of real samples of each class.
    """

    def __init__(self, real: int = 256) -> None:
        self._real = real

    def __call__(self, iteration: int, synthetic: Synthetic, material: Material) -> Tensor:
        """See :class:`clsim.condensers.synthesis.Method`."""
        net, classes = material.fresh().requires_grad_(False), len(material.counts)
        changes = [material.change() for _ in range(classes)]
        x, place = material.real(self._real)
        made, made_place = synthetic.decoded()
        if min(len(x), len(made)) == 1:
            net.eval()  # a single sample has no batch statistics
        x = by_class(changes, x, [min(n, self._real) for n in material.counts])
        made = by_class(changes, made, synthetic.sizes)
        with torch.no_grad():
            target = means(_features(net, x, material), place, classes)
        loss = (target - means(_features(net, made, material), made_place, classes)).square().sum()
        synthetic.optimizer.zero_grad()
        loss.backward()
        synthetic.step()
        material.pool.cost.forward_passes += len(x) + len(made)
        return loss.detach()


def by_class(changes: Sequence[Augment], x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Augment the images of each class by the class's own change.

    Args:
        x: the images, one class after the other.
        sizes: number of images of each class.

    >>> by_class([torch.neg, torch.square], torch.tensor([1.0, 2.0, 3.0]), [1, 2]).tolist()
    [-1.0, 4.0, 9.0]
    """
    return torch.cat([change(part) for change, part in zip(changes, x.split(list(sizes)), strict=True)])


def means(features: Tensor, place: Tensor, classes: int) -> Tensor:
    """Compute the mean of the rows of each class, (classes, d), in one sum over all rows.

    >>> means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), 2).tolist()
    [[2.0], [5.0]]
    """
    sums = features.new_zeros(classes, features.shape[1]).index_add(0, place, features)
    counts = features.new_zeros(classes).index_add(0, place, features.new_ones(len(place)))
    return sums / counts[:, None]


def _features(net: Net, x: Tensor, material: Material) -> Tensor:
    """Compute features, float32 (n, d); on a CPU in blocks that stay in its cache, unless the net has batch norm."""
    together = x.device.type != "cpu" or any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
    size = len(x) if together else BLOCK * torch.get_num_threads()
    with material.pool.precision():
        return torch.cat([net.features(part).float() for part in x.split(size)])


BLOCK = 16
"""Images per thread in a forward pass on a CPU: 16 of them take up less than 8 MB in the widest layer."""
