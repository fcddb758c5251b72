"""A transform of the pool of your own: it changes the training samples of a stream."""

import numpy as np
import torch

from clsim.streams.part import Parts


def NAME(parts: Parts, *, share: float = 0.5, rng: torch.Generator) -> Parts:
    """Keep a share of the samples of each class in each experience.

    Args:
        share: share of the samples that stay, from 0 to 1.
    """
    train = []
    # a number from 0 to 1 for each sample of each experience, whatever other transforms do
    for part, keys in zip(parts.train, parts.keys(rng), strict=True):
        # CHANGE THIS: part.y are the labels, part.x[part.rows] the samples.
        kept = np.zeros(len(part.rows), dtype=bool)
        for label in np.unique(part.y):
            rows = np.flatnonzero(part.y == label)
            kept[rows[np.argsort(keys[rows])[: max(round(share * len(rows)), 1)]]] = True
        train.append(part.of(kept))
    return parts.with_train(train)
