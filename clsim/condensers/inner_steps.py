"""Losses and gradients of a net on images, among the classes that are condensed, and its training on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from clsim.condensers.synthesis import Material
from clsim.models.nets import Net

BLOCK = 128
"""Real images per forward pass on a CPU, so that a block stays in its cache."""

NORM_SAMPLES = 16
"""Real images of each class that batch norms take their statistics from."""


def logits(net: Net, x: Tensor, material: Material) -> Tensor:
    """Compute the logits of the labels that are condensed, (n, k), in the order of ``material.columns``.

    The head's other outputs, of classes that are not condensed now, have no part in the softmax.

    Args:
        x: float32 (n, \\*shape), normalised.
    """
    return net.head(net.features(x))[:, material.columns]


def losses(net: Net, x: Tensor, place: Tensor, material: Material) -> Tensor:
    """Compute the cross-entropy of each input, (n,).

    Args:
        place: int64 (n,), the position of each input's class.
    """
    return F.cross_entropy(logits(net, x, material), material.targets[place], reduction="none")


def gradient(
    net: Net, weights: Sequence[Tensor], x: Tensor, place: Tensor, material: Material, *, graph: bool = False
) -> list[Tensor]:
    """Compute the gradient of the loss with respect to ``weights``.

    The loss is the mean over classes of the mean loss of each class.

    Args:
        x, place: the images and the positions of their classes, as for :func:`losses`.
        graph: whether to keep the graph, so that the gradient can be differentiated; otherwise the images pass through
            the net block by block.
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
    """Average the gradients of all classes, parameter by parameter."""
    return [torch.stack(of_one).mean(0) for of_one in zip(*gradients, strict=True)]


def train(
    net: Net, optimizer: torch.optim.Optimizer, x: Tensor, place: Tensor, material: Material, epochs: int
) -> None:
    """Train a net on images, at most 256 in a step, each augmented with parameters of its own."""
    ready(net, len(x))
    for _ in range(epochs):
        for rows in parts(torch.randperm(len(x), generator=material.rng).to(x.device), 256):
            optimizer.zero_grad()
            losses(net, material.change(len(rows))(x[rows]), place[rows], material).mean().backward()
            optimizer.step()
            material.pool.cost.proxy_steps += 1
            material.pool.cost.forward_passes += len(rows)


def ready(net: Net, n: int) -> None:
    """Set train mode for ``n`` samples; a single one has no variance, so batch norms stay as they are for it."""
    if n > 1:
        net.train()


def parts(rows: Tensor, most: int) -> tuple[Tensor, ...]:
    """Split rows into batches of at most ``most`` and almost equal sizes, so that no single row is left over."""
    return torch.tensor_split(rows, max(-(-len(rows) // most), 1))


def freeze_norms(net: Net, material: Material) -> None:
    """Give batch norms the statistics of a few real images of each class, and put them into eval mode.

    Those of a few synthetic images would be noise. Train mode takes the statistics of each batch again.
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
