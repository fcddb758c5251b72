"""Guessed labels of unlabelled samples, and what is made of them: confidence, mixing, alignment.

Guesses are probabilities (n, classes) that no gradient reaches. Logits may be −inf where a task does not have a class.
"""

from __future__ import annotations

import numpy as np
import scipy.special
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.objectives.replay import by_origin
from clsim.training.contract import Batch, Terms


def one_hot(y: Tensor, classes: int) -> Tensor:
    """float32 (n, classes); zeros where the label is −1."""
    return (y[:, None] == torch.arange(classes, device=y.device)).float()


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(n,): H(target, softmax(logits)) = −Σ_k target_k log p_k; classes of target 0 count nothing, whatever p is."""
    logs = logits.float().log_softmax(1)
    return -(target.detach() * logs.masked_fill(target == 0, 0)).sum(1)


def soft_replay(logits: Tensor, target: Tensor, batch: Batch) -> Terms:
    """The terms of :func:`clsim.objectives.replay.replay`, with probabilities (n, classes) in place of labels."""
    return by_origin(soft_cross_entropy(logits, target), batch)


def confident(guess: Tensor, logits: Tensor, threshold: float, *, hard: bool = True) -> Tensor:
    """Mean over all samples of [max q ≥ τ] · H(argmax q, p), or of H(q, p).

    Args:
        guess: q.
        logits: of p, of another view of the same samples.
        hard: whether the target is the likeliest class, or all of q.

    Source: Sohn et al., FixMatch (NeurIPS 2020), eq. 4.
    """
    confidence, label = guess.max(1)
    target = one_hot(label, guess.shape[1]) if hard else guess
    return (soft_cross_entropy(logits, target) * (confidence >= threshold)).mean()


def squared_error(guess: Tensor, logits: Tensor) -> Tensor:
    """Mean over samples and classes of (p − q)²: bounded, so that a wrong guess costs less than by cross-entropy."""
    return (logits.float().softmax(1) - guess.detach()).square().mean()


def beta(n: int, alpha: float, rng: torch.Generator) -> Tensor:
    """float32 (n,) on the CPU, Beta(α, α), each by the inverse of its distribution at a uniform draw."""
    u = torch.rand(n, generator=rng, dtype=torch.float64)
    return torch.from_numpy(np.asarray(scipy.special.betaincinv(alpha, alpha, np.asarray(u)), dtype=np.float32))


def mixed(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """λ·a + (1 − λ)·b, sample by sample.

    Args:
        share: λ, (n,).
    """
    return torch.lerp(b, a, share.view(-1, *[1] * (a.ndim - 1)))


class Alignment:
    """Guesses scaled so that, on average, classes are as frequent as they should be. Final.

    q̃ = q · p(y) / p̃(y), scaled to sum 1, with p̃ the mean guess of the last batches, this one's included. What is not
    among the classes of p(y) is guessed no more.

    Args:
        marginal: p(y), float32 (classes,).
        window: how many batches.

    Source: Berthelot et al., ReMixMatch (ICLR 2020), section 3.1.
    """

    def __init__(self, marginal: Tensor, window: int) -> None:
        self._marginal = marginal
        self._recent = marginal.new_zeros(window, len(marginal))
        self._seen = 0

    def __call__(self, guess: Tensor) -> Tensor:
        """The aligned guesses; notes this batch."""
        self._recent[self._seen % len(self._recent)] = guess.mean(0)
        self._seen += 1
        scaled = guess * self._marginal / self._recent[: self._seen].mean(0).clamp_min(1e-6)
        return F.normalize(scaled, p=1, dim=1)
