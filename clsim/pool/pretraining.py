"""Training of a net on images without labels, by one of the losses of :mod:`clsim.models.self_supervised`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from clsim.data.augmentation import Transform
from clsim.errors import InputError
from clsim.models import optimizers
from clsim.models.nets import Net
from clsim.models.self_supervised import barlow_loss, rotation_losses, rotations, simclr_loss
from clsim.randomness import own_draws
from clsim.spec.embedding import EmbeddingSpec
from clsim.spec.tables import OptimizerSpec


def pretrain(
    images: Tensor,
    method: str,
    net: Net,
    transform: Transform,
    rng: torch.Generator,
    *,
    options: EmbeddingSpec,
    optimizer: OptimizerSpec | None = None,
    augment: Sequence[str] = (),
    precision: Callable[[], AbstractContextManager] = nullcontext,
) -> list[float]:
    """Train the body of a net on images without labels; return the mean loss of each epoch.

    ``rotation`` also trains the net's head, which must have four outputs. Under ``simclr`` and ``barlow`` the loss sees
    two layers above the features, with batch norm and ReLU between them, which are thrown away; the net's head stays
    as it is. Both views pass through the net in one batch. The images that fill no whole batch are left out of an
    epoch. torch's global generators stay as they were.

    Args:
        images: raw images (n, c, h, w), at least 2.
        method: ``rotation``, ``simclr`` or ``barlow``.
        net: the net, which is trained in place.
        transform: converts raw images to normalised floats.
        rng: generator of all draws (CPU).
        options: epochs, batch size, projection, temperature and strength.
        optimizer: the optimizer, with its learning rate and schedule; None: that of the options.
        augment: augmentations of each view.
        precision: makes the context of forward passes.

    Raises:
        InputError: for vectors, for a single image, and if training diverges.
    """
    if images.ndim != 4 or len(images) < 2:
        raise InputError(f"{method}: found samples of shape {tuple(images.shape)}, allowed: two images or more")
    device, n = images.device, len(images)
    size, seeds = options.batch(n), torch.randint(2**62, (2,), generator=rng).tolist()
    draws = torch.Generator(device).manual_seed(seeds[0])
    view, count = transform.view(augment, "embedding.augment"), n // size
    with own_draws(seeds[1], device):
        head = net.head if method == "rotation" else _projector(net.head.in_features, options.projection).to(device)
        optimizer = optimizer or options.optimizer
        weights = [*net.body.parameters(), *head.parameters()]
        descent = optimizers.build(optimizer, weights)
        net.train()
        losses = []
        for epoch in range(options.epochs):
            order, total = torch.randperm(n, generator=rng).to(device), torch.zeros((), device=device)
            for i in range(count):
                optimizers.set_rate(
                    descent, optimizers.rate(optimizer, epoch * count + i, options.epochs * count, epoch=count)
                )
                x = images[order[i * size : (i + 1) * size]]
                descent.zero_grad()
                with precision():
                    loss = _loss(x, method, net, head, lambda some: view(some, draws), options)
                loss.backward()
                descent.step()
                total += loss.detach()
            losses.append(total / count)
        net.eval()
    found = torch.stack(losses).tolist()
    if not all(torch.isfinite(w).all() for w in weights):
        raise InputError(f"{method}: its training has diverged; allowed: a smaller embedding.lr than {optimizer.lr:g}")
    return found


def _loss(
    x: Tensor, method: str, net: Net, head: nn.Module, view: Callable[[Tensor], Tensor], options: EmbeddingSpec
) -> Tensor:
    """Compute the loss of a batch of raw images."""
    if method == "rotation":
        return rotation_losses(head(net.features(rotations(view(x))[0]))).mean()
    z1, z2 = head(net.features(torch.cat([view(x), view(x)]))).float().chunk(2)
    if method == "simclr":
        return simclr_loss(z1, z2, options.temperature)
    return barlow_loss(z1, z2, options.strength)


def _projector(width: int, out: int) -> nn.Sequential:
    hidden = min(width, 4 * out)  # wide features would make these layers dearer than the net
    return nn.Sequential(
        nn.Linear(width, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out, bias=False),
    )
