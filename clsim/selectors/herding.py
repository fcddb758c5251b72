"""Herding: exemplars whose mean is close to the pool's mean."""

from __future__ import annotations

import torch

from clsim.pool.pool import Pool, Selection
from clsim.selectors.points import points


def herding(pool: Pool, budget: int, *, rng: torch.Generator, normalise: bool = True) -> Selection:
    """Keep samples whose mean stays close to the mean μ of all features, greedily.

    p_{i+1} = argmin_x ‖(i+1)·μ − Σ_{j≤i} φ(p_j) − φ(x)‖, each x at most once. Every prefix is itself the herding of
    that length, so a memory may shrink to a prefix. A pick reads the features once, and copies none.

    Args:
        normalise: whether each feature vector is scaled to length 1 first, as in iCaRL.

    Needs: features.
    Cost: O(n·b·d) time, O(n) memory.
    Source: Welling, Herding Dynamical Weights to Learn (ICML 2009); Rebuffi et al., iCaRL (CVPR 2017), algorithm 4.
    """
    about_mean = points(pool.features, normalise=normalise)
    # about the mean, z = φ − μ: the target is 0, and ‖Σz + z_x‖² = ‖Σz‖² + 2⟨Σz, z_x⟩ + ‖z_x‖²
    chosen = torch.zeros_like(about_mean.mean)
    squares = about_mean.squares.clone()
    picks = torch.empty(min(budget, len(pool)), dtype=torch.int64, device=squares.device)
    for i in range(len(picks)):
        best = torch.add(squares, about_mean.along(chosen), alpha=2).argmin()
        picks[i] = best
        squares[best] = torch.inf
        chosen += about_mean[best[None]][0]
    return Selection(picks)
