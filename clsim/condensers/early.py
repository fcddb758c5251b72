"""Model augmentation: nets at an early stage of training, with perturbed weights, in place of random nets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clsim.condensers.inner_steps import losses, parts, ready
from clsim.condensers.synthesis import Material
from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.randomness import own_draws


def perturb(module: nn.Module, rng: torch.Generator) -> None:
    """Move the weights of a net to θ + α₁d₁ + α₂d₂, in place.

    d₁ and d₂ come from :func:`direction`. Each has one α for the whole net: |α| ~ U(0.01, 0.09), with a random sign.

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
    """Draw a Gaussian direction in the space of the weights, each filter scaled to the norm of the net's filter.

    d_f ← d_f · ‖θ_f‖ / ‖d_f‖ with f a filter of a convolution or a row of a linear layer. One-dimensional parameters
    (biases, norms) are not moved: their d is 0.

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


@dataclass(frozen=True)
class EarlyNets:
    """Model augmentation: options of the methods that compare gradients.

    Attributes:
        early_nets: number of nets at an early stage of training, one of which is drawn each time; 0: random nets
            instead.
        early_epochs: epochs on the real samples for each early net (the paper: 2; fractions are allowed).
        perturb: whether :func:`perturb` moves the weights of an early net each time that it is used.

    Source: Zhang et al., Accelerating Dataset Distillation via Model Augmentation (CVPR 2023).
    """

    early_nets: int = 0
    early_epochs: float = 2.0
    perturb: bool = True


class NetSource:
    """Source of a method's nets: random ones, or a few at an early stage of training, one drawn each time. Final.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(self, options: EarlyNets = EarlyNets()) -> None:
        if options.early_nets < 0:
            raise InputError(f"early_nets: found {options.early_nets}, allowed: from 0")
        if not 0 <= options.early_epochs < math.inf:
            raise InputError(f"early_epochs: found {options.early_epochs}, allowed: from 0")
        self._options = options
        self._states: list[dict[str, Tensor]] = []

    def __call__(self, material: Material) -> Net:
        """Return the next net, in train mode; it is the same object each time.

        The early nets are trained when they are first needed. They depend on the material's seed alone, so that a
        resumed run has the same ones.
        """
        net = material.fresh()
        count = self._options.early_nets
        if not count:
            return net
        while len(self._states) < count:
            self._states.append(self._trained(material, len(self._states)))
        net.load_state_dict(self._states[int(torch.randint(count, (), generator=material.rng))])
        if self._options.perturb:
            perturb(net, material.rng)
        return net

    def _trained(self, material: Material, number: int) -> dict[str, Tensor]:
        net = material.build(material.seed(f"early net {number}"))
        rng = torch.Generator().manual_seed(material.seed(f"early order {number}"))
        optimizer = torch.optim.SGD(net.parameters(), LR, momentum=0.9, weight_decay=5e-4)
        rows, place = material.everything()
        pool, steps = material.pool, round(self._options.early_epochs * len(parts(rows, BATCH)))
        ready(net.eval(), len(rows))
        with own_draws(material.seed(f"early layers {number}"), rows.device):
            order: list[Tensor] = []
            for _ in range(steps):
                order = order or list(parts(torch.randperm(len(rows), generator=rng), BATCH))
                part = order.pop().to(rows.device)
                optimizer.zero_grad()
                losses(net, pool.prepare(pool.data.x[rows[part]]), place[part], material).mean().backward()
                optimizer.step()
                pool.cost.proxy_steps += 1
                pool.cost.forward_passes += len(part)
        return {name: value.clone() for name, value in net.state_dict().items()}


LR, BATCH = 0.01, 64
"""Learning rate and batch size of nets that are trained on real samples (momentum 0.9, weight decay 5e-4)."""
