"""What a net makes of images: its losses and gradients among the classes at hand, and its training on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from clsim.condensers.synthesis import Material
from clsim.models.nets import Net

BLOCK = 128
"""Real images a pass on a CPU, so that a block stays in its cache."""

NORM_SAMPLES = 16
"""Real images a class that batch norms take their statistics from."""


def logits(net: Net, x: Tensor, material: Material) -> Tensor:
    """Of the material's own labels, (n, k), its columns.

    The head's other columns, of classes that are not condensed now, have no part in the softmax.

    Args:
        x: float32 (n, \\*shape), normalised.
    """
    return net.head(net.features(x))[:, material.columns]


def losses(net: Net, x: Tensor, place: Tensor, material: Material) -> Tensor:
    """Cross-entropy of each input, (n,).

    Args:
        place: int64 (n,), positions of the classes.
    """
    return F.cross_entropy(logits(net, x, material), material.targets[place], reduction="none")


def gradient(
    net: Net, weights: Sequence[Tensor], x: Tensor, place: Tensor, material: Material, *, graph: bool = False
) -> list[Tensor]:
    """The gradient of the loss, the mean over the classes of each one's mean, with respect to ``weights``.

    Args:
        x, place: as of :func:`losses`.
        graph: keep the graph, to differentiate once more; otherwise the pass goes block by block.
    """
    count = x.new_zeros(len(material.counts)).index_add_(0, place, x.new_ones(len(place)))
    share = 1 / (count[place] * (count > 0).sum())
    material.pool.cost.forward_passes += len(x)
    if graph:
        loss = (losses(net, x, place, material) * share).sum()
        return list(torch.autograd.grad(loss, weights, create_graph=True))
    total = [torch.zeros_like(w) for w in weights]
    for part in torch.arange(len(x), device=x.device).split(len(x) if x.is_cuda else BLOCK):
        loss = (losses(net, x[part], place[part], material) * share[part]).sum()
        torch._foreach_add_(total, torch.autograd.grad(loss, weights))
    return total


def mean(gradients: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Of the gradients of all classes, parameter by parameter."""
    return [torch.stack(of_one).mean(0) for of_one in zip(*gradients, strict=True)]


def train(
    net: Net, optimizer: torch.optim.Optimizer, x: Tensor, place: Tensor, material: Material, epochs: int
) -> None:
    """Train a net on images, at most 256 a step, each augmented with parameters of its own."""
    ready(net, len(x))
    for _ in range(epochs):
        for rows in parts(torch.randperm(len(x), generator=material.rng).to(x.device), 256):
            optimizer.zero_grad()
            losses(net, material.change(len(rows))(x[rows]), place[rows], material).mean().backward()
            optimizer.step()
            material.pool.cost.proxy_steps += 1
            material.pool.cost.forward_passes += len(rows)


def ready(net: Net, n: int) -> None:
    """Train mode for n samples; batch norms stay frozen where there is a single one, which has no variance."""
    if n > 1:
        net.train()


def parts(rows: Tensor, most: int) -> tuple[Tensor, ...]:
    """Batches of at most ``most``, as equal as can be, so that none is a single sample left over."""
    return torch.tensor_split(rows, max(-(-len(rows) // most), 1))


def freeze_norms(net: Net, material: Material) -> None:
    """Batch norms: statistics of a few real images of each class, kept from then on; those of few images are noise.

    A net in train mode again goes back to the statistics of its batches.
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics of this one batch
    x, _ = material.real(NORM_SAMPLES)
    if len(x) > 1:
        with torch.no_grad():
            net.features(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
