"""Rare classes, as SIMILAR has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from clsim.errors import at_least
from clsim.streams.part import Part, Parts, grown
from clsim.streams.pools.apply import classes_of, share_of, smallest


def rare(
    parts: Parts,
    *,
    share: float = 0.1,
    classes: Sequence[int] = (),
    part: float = 0.5,
    query: int = 5,
    rng: torch.Generator,
) -> Parts:
    """Make some classes rare, and set a few samples of each aside as the query set of choices of labels.

    Of the n training samples of a rare class in an experience, max(1, round(share·n)) stay, drawn at random, and
    min(query, what is left) others are set aside with their labels; the rest is gone. The set aside is ``pool.query``
    of the choices in that experience: a selector that goes by a query looks for more of its kind. It grows with what
    was asked for since and told to be of a rare class, as in the public code. Nothing of it is trained on.

    SIMILAR's CIFAR-10 has 5 of 10 rare classes with a tenth of the samples of a common one, and a query of 5 each. The
    held-out share is drawn from what stays; the test set keeps all samples of all classes. In an experience without a
    rare class there is no set aside, and a measure falls back to what its docstring says.

    Rare commutes with ``step`` and ``outsiders`` where all of them name their classes, and no class is named twice.

    Args:
        share: share of the samples of a rare class that stay, from 0 (one sample) to 1.
        classes: labels of the rare classes in the stream; empty: ``part`` of all classes, drawn.
        part: share of all classes of the stream that become rare, if none are named.
        query: samples of each rare class of an experience that are set aside, from 0.

    Cost: O(n log n) time, O(n) memory for n samples.
    Source: Kothawade et al., SIMILAR: Submodular Information Measures Based Active Learning in Realistic Scenarios
        (NeurIPS 2021), section 5.1.
    """
    share_of(share, "rare", "share")
    at_least(0, "pool: rare: ", query=query)
    chosen, keys = classes_of(parts, classes, part, rng, "rare"), parts.keys(rng)
    train, aside = list[Part](), list[Part]()
    for own, drawn, known in zip(parts.train, keys, parts.query, strict=True):
        stays, taken = np.ones(len(own.rows), dtype=bool), [np.empty(0, dtype=np.int64)]
        marks = np.isin(own.y, chosen) & ~own.known.outsider
        for label in chosen:
            rows = np.flatnonzero(marks & (own.y == label))
            order = smallest(drawn, rows, len(rows))
            count = min(max(1, round(share * len(rows))), len(rows))
            stays[order[count:]] = False
            taken.append(order[count : count + query])
        marked = replace(own, natures=own.known.marked(rare=own.known.rare | marks))
        train.append(marked.of(stays))
        set_aside = marked.of(np.concatenate(taken))
        aside.append(grown(known, set_aside.rows, set_aside.y, set_aside.known))
    roles = replace(parts.roles, query="rare", rare=tuple(sorted({*parts.roles.rare, *chosen})))
    return replace(parts.with_train(train), query=tuple(aside), roles=roles)
