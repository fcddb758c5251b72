"""A selector of your own: it chooses what a memory keeps, what is labelled, or what is replayed."""

import torch

from clsim import Pool, Selection


def NAME(pool: Pool, budget: int, *, rng: torch.Generator, farthest: bool = False) -> Selection:
    """Select the samples nearest to the mean of all features.

    Args:
        farthest: Whether to select the farthest ones instead: --set memory.options.farthest=true.
    """
    # CHANGE THIS. A pool also has probabilities, logits, losses, gradients, and labels in pool.data.y.
    features = pool.features  # (samples, width)
    distance = (features - features.mean(0)).norm(dim=1)
    # `stable` leaves ties in their order, so that a run can be repeated; if you draw, draw with `rng` alone
    order = distance.argsort(descending=farthest, stable=True)
    return Selection(order[:budget])  # rows of the pool, best first, `budget` of them if there are as many
