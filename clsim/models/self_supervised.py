"""Losses of nets that learn images without labels: rotation, SimCLR, Barlow Twins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError

TINY = 1e-5
"""What a variance is raised by before its root divides, as in batch norm."""


def rotations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each square image by 0, 1, 2 and 3 quarter turns, counter-clockwise.

    Args:
        x: (n, c, h, h), of any type.

    Returns:
        The images (4n, c, h, h), all n of one turn after all n of the turn before, and the turns: int64 (4n,).

    Raises:
        InputError: for vectors, and for images that are not square, whose shape would tell how they are turned.

    Source: Gidaris, Singh & Komodakis, Unsupervised Representation Learning by Predicting Image Rotations (ICLR 2018).
    """
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise InputError(f"rotations: found samples of shape {tuple(x.shape[1:])}, allowed: square images (c, h, h)")
    turned = torch.cat([torch.rot90(x, turn, (2, 3)) for turn in range(4)])
    return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))


def rotation_losses(logits: Tensor) -> Tensor:
    """Compute the loss of each image: the mean cross-entropy of its four turns, float (n,).

    Args:
        logits: (4n, 4), of the images in the order of :func:`rotations`.

    Source: Gidaris, Singh & Komodakis, Unsupervised Representation Learning by Predicting Image Rotations (ICLR 2018),
    eqs. 2 and 3.
    """
    turns = torch.arange(4, device=logits.device).repeat_interleave(len(logits) // 4)
    return F.cross_entropy(logits.float(), turns, reduction="none").view(4, -1).mean(0)


def barlow_loss(z1: Tensor, z2: Tensor, strength: float = 0.005) -> Tensor:
    """Compute Barlow Twins' loss: Σ_i (1 − C_ii)² + λ Σ_i Σ_{j≠i} C_ij².

    C_ij is the correlation, over the batch, of dimension i of one view with dimension j of the other. It is 0 where
    all views of the batch agree in each dimension and no two dimensions are correlated. A dimension that does not vary
    has the correlation 0.

    Args:
        z1, z2: embeddings (n, width) of two views of the same n ≥ 2 images.
        strength: the weight λ of the redundancy (default .005).

    Source: Zbontar, Jing, Misra, LeCun & Deny, Barlow Twins: Self-Supervised Learning via Redundancy Reduction (ICML
    2021), eqs. 1 and 2.
    """
    correlation = _standard(z1.float()).T @ _standard(z2.float()) / len(z1)
    diagonal = correlation.diagonal()
    return (1 - diagonal).square().sum() + strength * (correlation.square().sum() - diagonal.square().sum())


def simclr_loss(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
    """Compute NT-Xent: the mean over all 2n views i of −log (exp(s_ij / τ) / Σ_{k≠i} exp(s_ik / τ)).

    s is the cosine of two embeddings, j the other view of the image of i, and k runs over the 2n − 1 other views.

    Args:
        z1, z2: embeddings (n, width) of two views of the same n images.
        temperature: the temperature τ (default .5).

    Source: Chen, Kornblith, Norouzi & Hinton, A Simple Framework for Contrastive Learning of Visual Representations
    (ICML 2020), eq. 1 and algorithm 1.
    """
    z = F.normalize(torch.cat([z1, z2]).float(), dim=1)
    similar = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    n = len(z1)
    other = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similar.masked_fill(itself, -torch.inf), other)


def _standard(z: Tensor) -> Tensor:
    """Shift and scale each dimension to mean 0 and variance 1 over the batch; one that does not vary becomes 0."""
    about_mean = z - z.mean(0)
    return about_mean * torch.rsqrt(about_mean.square().mean(0) + TINY)
