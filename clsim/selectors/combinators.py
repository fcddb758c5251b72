"""Combinators: selectors made of other selectors."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from clsim.errors import InputError
from clsim.models.passes import at_a_time
from clsim.pool.exemplars import joined, of_each_class
from clsim.pool.pool import Pool, Selection, Selector


def whole(select: Selector) -> Selector:
    """Apply the selector to all candidates at once, where a buffer would apply it to each class."""
    return select


def per_class(select: Selector) -> Selector:
    """Apply the selector to each class apart, with equal quotas.

    Within a class, the selector sees the reference samples of that class or none. A class that has fewer samples than
    its quota leaves the rest to the others. Where the budget does not divide, ``rng`` decides which classes get one
    more. Picks are interleaved, the best of each class first, so that any prefix is balanced too. Weights and scores
    are passed on: the weights of a class sum to its mass, which its picks share equally where the selector gave no
    weights; a class without scores has NaN.

    Needs: labels.
    """

    def balanced(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        classes, counts = pool.data.y.unique(return_counts=True)
        parts, amounts = [], quotas(counts.cpu(), budget, rng).tolist()
        chosen_from = [(label, quota) for label, quota in zip(classes.tolist(), amounts, strict=True) if quota]
        size = at_a_time()  # classes in hand, which hold a copy of their candidates
        for i in range(0, len(chosen_from), size):
            groups = [(label, (pool.data.y == label).nonzero().flatten()) for label, _ in chosen_from[i : i + size]]
            of_classes = zip(pool.parts(groups), groups, chosen_from[i : i + size], strict=True)
            for own, (_, rows), (_, quota) in of_classes:
                part = select(own, quota, rng=rng)
                parts.append(replace(part, index=rows[part.index]))
        if not parts:
            return Selection(pool.data.y[:0])
        index, sizes = torch.cat([part.index for part in parts]), [len(part.index) for part in parts]
        order = torch.cat([torch.arange(size, device=index.device) for size in sizes]).argsort(stable=True)
        weight = joined([part.weight for part in parts], sizes, 1.0)
        score = joined([part.score for part in parts], sizes, torch.nan)
        if weight is not None:
            weight = of_each_class(weight, pool.data.y[index], pool.mass, pool.data.y)[order]
        return Selection(index[order], weight, None if score is None else score[order])

    return balanced


def prefilter(first: Selector, then: Selector, factor: int = 5) -> Selector:
    """Apply the second selector to the ``factor``·budget samples that the first one chooses.

    ``prefilter(entropy,kcenter,5)`` spreads its picks over the uncertain samples. With a budget as large as the pool,
    nothing is filtered out.
    """
    for name, select in (("first", first), ("then", then)):
        if not callable(select):
            raise InputError(f"prefilter: {name}: found {select!r}, allowed: a selector")
    if not isinstance(factor, int) or factor < 1:
        raise InputError(f"prefilter: factor: found {factor!r}, allowed: a whole number from 1")

    def filtered(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        rows = first(pool, factor * budget, rng=rng).index
        part = then(pool[rows], budget, rng=rng)
        return replace(part, index=rows[part.index])

    return filtered


def subsample(select: Selector, size: int) -> Selector:
    """Apply the selector to ``size`` candidates drawn uniformly at random.

    Its cost then no longer grows with the pool. Where the budget is larger than ``size``, as many candidates as the
    budget are drawn.
    """
    if size < 1:
        raise InputError(f"subsample: size: found {size}, allowed: from 1")

    def on_a_part(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        if len(pool) <= max(size, budget):
            return select(pool, budget, rng=rng)
        drawn = torch.randperm(len(pool), generator=rng)[: max(size, budget)]
        rows = drawn.sort().values.to(pool.data.device)
        part = select(pool[rows], budget, rng=rng)
        return replace(part, index=rows[part.index])

    return on_a_part


def topped_up(select: Selector) -> Selector:
    """Apply the selector, and fill the budget at random (by the largest keys) where it chooses fewer samples.

    An added sample weighs as much as the least of the chosen ones (1 where none was chosen) and has no score.
    """

    def full(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        chosen = select(pool, budget, rng=rng)
        missing = min(budget, len(pool)) - len(chosen.index)
        if missing <= 0:
            return chosen
        left = torch.ones(len(pool), dtype=torch.bool, device=pool.data.device).index_fill_(0, chosen.index, False)
        rows = left.nonzero().flatten()
        added = rows[pool.data.key[rows].argsort(descending=True, stable=True)[:missing]]
        weight, score = chosen.weight, chosen.score
        if weight is not None:
            least = weight.min() if len(weight) else weight.new_tensor(1.0)
            weight = torch.cat([weight, least.expand(missing)])
        if score is not None:
            score = torch.cat([score, score.new_full((missing,), torch.nan)])
        return Selection(torch.cat([chosen.index, added]), weight, score)

    return full


def quotas(counts: Int[Tensor, " classes"], budget: int, rng: torch.Generator) -> Int[Tensor, " classes"]:
    """Split ``budget`` over the classes as evenly as their sample counts allow: int64 (classes,).

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
