"""Losses on guessed labels of unlabelled samples, and how guesses are mixed and aligned.

Guesses are probabilities (n, classes) that no gradient reaches. Logits may be −inf for classes that a task does not
have.
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
    """Return labels as rows of one 1, float32 (n, classes); a row of zeros for the label −1."""
    return (y[:, None] == torch.arange(classes, device=y.device)).float()


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return H(target, p) = −Σ_k target_k log p_k, p = softmax(logits), (n,); classes of target 0 contribute 0."""
    logs = logits.float().log_softmax(1)
    return -(target.detach() * logs.masked_fill(target == 0, 0)).sum(1)


def soft_replay(logits: Tensor, target: Tensor, batch: Batch) -> Terms:
    """Return the terms of :func:`clsim.objectives.replay.replay` with probabilities (n, classes) in place of labels."""
    return by_origin(soft_cross_entropy(logits, target), batch)


def confident(guess: Tensor, logits: Tensor, threshold: float, *, hard: bool = True) -> Tensor:
    """Return the mean over all samples of [max q ≥ τ] · H(argmax q, p), or with H(q, p) in its place.

    Args:
        guess: The guesses q (n, classes).
        logits: The logits (n, classes) of p, from another view of the same samples.
        threshold: The least confidence τ of a guess that counts.
        hard: Whether the target is the likeliest class alone; otherwise it is q.

    Source: Sohn et al., FixMatch (NeurIPS 2020), eq. 4.
    """
    confidence, label = guess.max(1)
    target = one_hot(label, guess.shape[1]) if hard else guess
    return (soft_cross_entropy(logits, target) * (confidence >= threshold)).mean()


def squared_error(guess: Tensor, logits: Tensor) -> Tensor:
    """Return the mean over samples and classes of (p − q)², p = softmax(logits), which is bounded."""
    return (logits.float().softmax(1) - guess.detach()).square().mean()


def beta(n: int, alpha: float, rng: torch.Generator) -> Tensor:
    """Draw n values of Beta(α, α), float32 (n,) on the CPU, by the inverse distribution at uniform draws."""
    u = torch.rand(n, generator=rng, dtype=torch.float64)
    return torch.from_numpy(np.asarray(scipy.special.betaincinv(alpha, alpha, np.asarray(u)), dtype=np.float32))


def mixed(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Return λ·a + (1 − λ)·b, sample by sample.

    Args:
        a: The first samples, (n, …).
        b: The second samples, of the same shape.
        share: The share λ of each first sample, (n,).
    """
    return torch.lerp(b, a, share.view(-1, *[1] * (a.ndim - 1)))


class Alignment:
    """A scaling of guesses that brings the average frequency of classes to a given one. Final.

    q̃ = q · p(y) / p̃(y), scaled to sum 1, with p̃ the mean guess of the last batches, the current one included. Classes
    with p(y) = 0 get probability 0.

    Args:
        marginal: The wanted frequencies p(y), float32 (classes,).
        window: The number of batches that p̃ is the mean of.

    Source: Berthelot et al., ReMixMatch (ICLR 2020), section 3.1.
    """

    def __init__(self, marginal: Tensor, window: int) -> None:
        self._marginal = marginal
        self._recent = marginal.new_zeros(window, len(marginal))
        self._seen = 0

    def aim(self, marginal: Tensor) -> None:
        """Want other frequencies from here on."""
        self._marginal = marginal

    def __call__(self, guess: Tensor) -> Tensor:
        """Return the aligned guesses, after adding this batch to the mean."""
        self._recent[self._seen % len(self._recent)] = guess.mean(0)
        self._seen += 1
        scaled = guess * self._marginal / self._recent[: self._seen].mean(0).clamp_min(1e-6)
        return F.normalize(scaled, p=1, dim=1)
