"""Model augmentation: nets at an early stage of their training, their weights perturbed, instead of random ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def perturb(module: nn.Module, rng: torch.Generator) -> None:
    """Move the weights to θ + α₁d₁ + α₂d₂, in place.

    d₁ and d₂ are :func:`direction`\\ s, and |α| ~ U(0.01, 0.09), its sign as likely either way, one α a direction for
    the whole net.

    Source: Zhang et al., Accelerating Dataset Distillation via Model Augmentation (CVPR 2023); the norm-matched
        directions are those of Li et al., Visualizing the Loss Landscape of Neural Nets (NeurIPS 2018).
    """
    parameters = list(module.parameters())
    where = parameters[0].device
    size, sign = torch.rand(2, 2, generator=rng, device=rng.device).to(where)
    alpha = (0.01 + 0.08 * size) * torch.where(sign < 0.5, -1, 1)
    first, second = direction(parameters, rng), direction(parameters, rng)
    with torch.no_grad():
        for theta, d, e in zip(parameters, first, second, strict=True):
            theta.add_(alpha[0] * d + alpha[1] * e)


def direction(parameters: Sequence[Tensor], rng: torch.Generator) -> list[Tensor]:
    """A Gaussian direction in the space of the weights, each filter of it as long as the filter of the net.

    d_f ← d_f · ‖θ_f‖ / ‖d_f‖ with f a filter of a convolution or a row of a linear layer. One-dimensional parameters
    (biases, norms) stay where they are: their d is 0.

    Returns:
        Tensors of the parameters' shapes, on their devices.
    """
    found = []
    for theta in parameters:
        if theta.ndim < 2:
            found.append(torch.zeros_like(theta))
            continue
        d = torch.randn(theta.shape, generator=rng, device=rng.device).to(theta)
        dims = tuple(range(1, theta.ndim))
        length = theta.detach().square().sum(dims, keepdim=True).sqrt()
        found.append(d * (length / d.square().sum(dims, keepdim=True).sqrt().clamp_min(1e-12)))
    return found
