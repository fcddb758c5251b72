"""Distances between the gradients of real and synthetic images, class by class or over all classes together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.condensers.inner_steps import gradient, mean
from clsim.condensers.synthesis import Material, Synthetic
from clsim.models.nets import Net


def distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """Compute Σ_layers Σ_rows (1 − cos(A_row, B_row)), a scalar; two rows of zeros have distance 0.

    Args:
        real, synthetic: gradients of the same parameters, each (out, …), with filters or rows first.

    >>> float(distance([torch.eye(2)], [torch.tensor([[3.0, 0.0], [1.0, 0.0]])]))
    1.0
    """
    total = real[0].new_zeros(())
    for a, b in zip(real, synthetic, strict=True):
        a, b = a.flatten(1), b.flatten(1)
        some = a.ne(0).any(1) | b.ne(0).any(1)
        total = total + ((1 - F.cosine_similarity(a, b, dim=1)) * some).sum()
    return total


Compared = tuple[Tensor, Tensor]
"""The losses of DC and of DCC, detached."""


def classes_apart(net: Net, weights: Sequence[Tensor], synthetic: Synthetic, material: Material, real: int) -> Compared:
    """Add the gradient of Σ_c D(A_c, B_c) to the images, class by class: only one class's graph is in memory."""
    loss = synthetic.images.new_zeros(())
    wanted, found = [], []
    for position in range(len(material.counts)):
        change = material.change()
        x, place = material.real(real, [position])
        made, made_place = synthetic.of(position)
        wanted.append(gradient(net, weights, change(x), place, material))
        ours = gradient(net, weights, change(made), made_place, material, graph=True)
        apart = distance(wanted[-1], ours)
        apart.backward(inputs=[synthetic.images])
        loss += apart.detach()
        found.append([g.detach() for g in ours])
    return loss, distance(mean(wanted), mean(found))


def classes_together(
    net: Net, weights: Sequence[Tensor], synthetic: Synthetic, material: Material, real: int
) -> Compared:
    """Add the gradient of D(1/C Σ_c A_c, 1/C Σ_c B_c) to the images; each class has an augmentation of its own."""
    wanted, shown = [], []
    for position in range(len(material.counts)):
        change = material.change()
        x, place = material.real(real, [position])
        wanted.append(gradient(net, weights, change(x), place, material))
        made, made_place = synthetic.of(position)
        shown.append((change(made), made_place))
    images, places = zip(*shown, strict=True)
    ours = gradient(net, weights, torch.cat(images), torch.cat(places), material, graph=True)
    loss = distance(mean(wanted), ours)
    loss.backward(inputs=[synthetic.images])
    return loss.detach(), loss.detach()
