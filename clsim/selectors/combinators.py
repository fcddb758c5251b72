"""Selectors made of selectors."""

from __future__ import annotations

import torch
from torch import Tensor

from clsim.pool import Pool, Selection, Selector


def whole(select: Selector) -> Selector:
    """The selector over all candidates at once, where a buffer's name would apply it to each class."""
    return select


def per_class(select: Selector) -> Selector:
    """The selector, applied to each class apart, with equal quotas.

    A class that has fewer samples than its quota leaves the rest to the others. Where the budget does not divide,
    ``rng`` decides which classes get one more. Picks are interleaved, the best of each class first, so that any
    prefix is balanced too.
    """

    def balanced(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        classes, counts = pool.data.y.unique(return_counts=True)
        picks, weights, ranks = [], [], []
        for label, quota in zip(classes.tolist(), quotas(counts.cpu(), budget, rng).tolist(), strict=True):
            if not quota:
                continue
            rows = (pool.data.y == label).nonzero().flatten()
            part = select(pool[rows], quota, rng=rng)
            picks.append(rows[part.index])
            weights.append(part.weight)
            ranks.append(torch.arange(len(part.index), device=rows.device))
        if not picks:
            return Selection(pool.data.y[:0])
        order = torch.cat(ranks).argsort(stable=True)
        weighted = [w for w in weights if w is not None]
        return Selection(torch.cat(picks)[order], torch.cat(weighted)[order] if len(weighted) == len(weights) else None)

    return balanced


def quotas(counts: Tensor, budget: int, rng: torch.Generator) -> Tensor:
    """How many of each class: the fairest split of ``budget`` that no class exceeds. int64 (classes,).

    >>> quotas(torch.tensor([2, 9, 9]), 10, torch.Generator()).tolist()
    [2, 4, 4]
    """
    quota = torch.zeros_like(counts)
    left = min(budget, int(counts.sum()))
    while left:
        open_classes = (counts > quota).nonzero().flatten()
        share = left // len(open_classes)
        if share:
            quota[open_classes] += torch.minimum(counts - quota, torch.tensor(share))[open_classes]
        else:
            lucky = torch.randperm(len(open_classes), generator=rng)[:left]
            quota[open_classes[lucky]] += 1
        left = min(budget, int(counts.sum())) - int(quota.sum())
    return quota
