"""Uniform choice: over all samples seen, or balanced over the classes or tasks."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import ranks_within


def random(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keep samples uniformly at random over all samples seen so far: those with the largest keys.

    Each sample draws one key when it is first seen. Exemplars in memory and new samples compete by key, so the memory
    is at any time a uniform sample, without replacement, of the whole stream.

    Needs: nothing.
    Cost: O(n log n) time.
    Source: Vitter, Random Sampling with a Reservoir (ACM TOMS 1985), in the form of Efraimidis & Spirakis, Weighted
    Random Sampling with a Reservoir (IPL 2006).
    """
    return Selection(pool.data.key.argsort(descending=True, stable=True)[:budget])


def reservoir(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keep the same samples as ``random``, in no particular order: meant for an update with every batch.

    Without an order, a partition replaces the sort.

    Needs: nothing.
    Cost: O(n) time.
    Source: Vitter, Random Sampling with a Reservoir (ACM TOMS 1985).
    """
    return Selection(pool.data.key.topk(min(budget, len(pool)), sorted=False).indices)


def class_balanced(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keep equally many samples of each class, as far as they last, uniformly at random within a class.

    It is the same memory as ``per_class(random)``, in three sorts instead of a loop over classes, so that it can be
    updated with every batch. Unlabelled samples stand as one more class.

    Needs: labels.
    Cost: O(n log n) time.
    Source: the balanced memories of Chrysakis & Moens, Online Continual Learning from Imbalanced Data (ICML 2020), and
    of Prabhu et al., GDumb (ECCV 2020).
    """
    by_key = pool.data.key.argsort(descending=True, stable=True)
    return Selection(by_key[in_turn(pool.data.y[by_key])][:budget])


def task_balanced(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keep equally many samples of each task, as far as they last; within a task as ``class_balanced``.

    With ``memory.reserve = "task"`` each task keeps a share of fixed size, however many classes it has.

    Unlabelled samples of a task stand as one more class of it.

    Needs: labels; the tasks.
    Cost: O(n log n) time.
    Source: the memories of Lopez-Paz & Ranzato, Gradient Episodic Memory (NeurIPS 2017), here random
    samples, not the newest.
    """
    by_key = pool.data.key.argsort(descending=True, stable=True)
    y, task = pool.data.y[by_key], pool.data.task[by_key]
    each = task * (y.max() + 2) + y + 1 if len(y) else y  # unlabelled ones are none of another task's classes
    rows = by_key[in_turn(each)]  # the first of each class of each task, …
    return Selection(rows[in_turn(pool.data.task[rows])][:budget])


def in_turn(y: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Order places so that the first of each class comes before the second of any, and so on: int64 (n,).

    >>> in_turn(torch.tensor([7, 7, 7, 2, 7, 2])).tolist()
    [0, 3, 1, 5, 2, 4]
    """
    return ranks_within(y).argsort(stable=True)
