"""DM: synthetic images whose mean features, class by class in random nets, are those of the real images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clsim.condensers.synthesis import Making, Material, Synthetic, synthesise
from clsim.data import siamese
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool


def dm(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    making: Making = Making(iterations=200, lr=1.0),
    real: int = 256,
    augment: Sequence[str] = siamese.ALL,
    clip: bool = False,
) -> Exemplars:
    """Match the mean features of real and synthetic images of each class, in random nets.

    L = Σ_c ‖mean_{x∈T_c} f(A(x)) − mean_{x∈S_c} f(A(x))‖². Each iteration draws a random net f and one augmentation A,
    which is the same for real and synthetic images. All classes pass through the net in one batch, so that nets with
    batch norm see what they would see in training.

    Args:
        making: how the images are made. An iteration is one step of the images, in a net of its own. The paper takes
            20,000 iterations, and a learning rate of 10 from 100 images per class on.
        real: number of real samples of each class in an iteration.
        augment: operations to draw from; leave ``flip`` out for digits.
        clip: whether to put pixels back into the range that can be stored after each step. Without it they are cut off
            at the end, as in the paper.

    ``--buffer dm`` takes 50 iterations through ConvNet-3, with 64 real samples of each class. A memory of fixed size
    condenses old classes again when their shares become smaller (``memory.shrink``).

    Needs: random nets.
    Cost: ``iterations`` forward passes of C · real samples, and forward and backward of the synthetic ones.
    Source: Zhao & Bilen, Dataset Condensation with Distribution Matching (WACV 2023).
    """
    return synthesise(pool, budget, MeanMatching(real), making, augment=augment, clip=clip, rng=rng)


class MeanMatching:
    """One iteration of DM, all classes in one batch. Final.

    Args:
        real: number of real samples of each class.
    """

    def __init__(self, real: int = 256) -> None:
        self._real = real

    def __call__(self, iteration: int, synthetic: Synthetic, material: Material) -> Tensor:
        """See :class:`clsim.condensers.synthesis.Method`."""
        net, change = material.fresh().requires_grad_(False), material.change()
        x, place = material.real(self._real)
        made, made_place = synthetic.decoded()
        if min(len(x), len(made)) == 1:
            net.eval()  # a single sample has no batch statistics
        classes = len(material.counts)
        with torch.no_grad():
            target = means(_features(net, change(x), material), place, classes)
        loss = (target - means(_features(net, change(made), material), made_place, classes)).square().sum()
        synthetic.optimizer.zero_grad()
        loss.backward()
        synthetic.step()
        material.pool.cost.forward_passes += len(x) + len(made)
        return loss.detach()


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
