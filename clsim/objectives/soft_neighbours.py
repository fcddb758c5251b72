"""Losses of PAWS and NNCSL on soft nearest-neighbour labels, which embeddings get from a labelled support.

Source: Kang et al., A soft nearest-neighbor framework for continual semi-supervised learning (ICCV 2023); Assran et
al., Semi-Supervised Learning of Visual Features by Non-Parametrically Predicting View Assignments with Support Samples
(ICCV 2021), PAWS.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sharpen(p: Tensor, temperature: float = 0.25) -> Tensor:
    """Sharpen probabilities row by row: ρ(p) = p^(1/T) / Σ p^(1/T).

    >>> print(sharpen(torch.tensor([[0.5, 0.3, 0.2]])))
    tensor([[0.8657, 0.1122, 0.0222]])
    """
    return p.clamp_min(_TINY).log().div(temperature).softmax(1)


def cross_entropy(target: Tensor, p: Tensor) -> Tensor:
    """Return H(target, p) = −Σ_k target_k log p_k, (n,). No gradient reaches the target."""
    return -(target.detach() * p.clamp_min(_TINY).log()).sum(1)


def consistency(large: Sequence[Tensor], small: Sequence[Tensor], temperature: float = 0.25) -> Tensor:
    """Return L_SNN, the mean over views and samples of H(ρ(p of the other large view), p of the view).

    A small view's target is the mean of both sharpened large views. Entries of a target below 1e-4 are set to 0, and no
    gradient reaches a target.

    Args:
        large: The posteriors of the two large views, (n, k) each.
        small: The posteriors of any number of small views, (n, k) each.
        temperature: The temperature T of the sharpening ρ.
    """
    first, second = (sharpen(p.detach(), temperature) for p in large)
    targets = [second, first, *[(first + second) / 2] * len(small)]
    losses = [
        cross_entropy(target.where(target >= 1e-4, 0), p) for target, p in zip(targets, [*large, *small], strict=True)
    ]
    return torch.stack(losses).mean()


def mean_entropy(posteriors: Sequence[Tensor], temperature: float = 0.25) -> Tensor:
    """Return L_MER = Σ_k p̄_k log p̄_k, p̄ the mean of ρ(p) over samples and views.

    It ranges from −ln k, where all classes are equally likely, to 0.
    """
    mean = sharpen(torch.cat(list(posteriors)), temperature).mean(0)
    return (mean * mean.clamp_min(_TINY).log()).sum()


_TINY = 1e-30
