"""Herding: exemplars whose mean is the pool's mean."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from clsim.pool import Pool, Selection


def herding(pool: Pool, budget: int, *, rng: torch.Generator, normalise: bool = True) -> Selection:
    """Greedily keep the mean of what is chosen close to the mean μ of all features.

    p_{i+1} = argmin_x ‖(i+1)·μ − Σ_{j≤i} φ(p_j) − φ(x)‖, each x at most once. O(n · width) a pick; every prefix is
    itself the herding of that length.

    Args:
        normalise: scale each feature vector to length 1 first, as iCaRL does.

    Source: Welling, Herding Dynamical Weights to Learn (ICML 2009); Rebuffi et al., iCaRL (CVPR 2017), algorithm 4.
    """
    features = F.normalize(pool.features) if normalise else pool.features
    mean = features.mean(0)
    # ‖target − φ‖² = ‖target‖² − 2⟨target, φ⟩ + ‖φ‖², and ‖target‖² is the same for every candidate
    squares = features.square().sum(1)
    target = mean.clone()
    picks = torch.empty(min(budget, len(pool)), dtype=torch.int64, device=features.device)
    for i in range(len(picks)):
        best = torch.add(squares, features @ target, alpha=-2).argmin()
        picks[i] = best
        squares[best] = torch.inf
        target += mean - features[best]
    return Selection(picks)
