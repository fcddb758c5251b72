"""Classes of different sizes: a long tail, or a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clsim.data import datasets
from clsim.errors import InputError
from clsim.streams.part import Parts
from clsim.streams.pools.apply import classes_of, smallest


def long_tail(parts: Parts, *, ratio: float = 0.1, permuted: bool = False, rng: torch.Generator) -> Parts:
    """Give the classes of the stream sizes that fall exponentially: a long tail.

    n_c = ⌊n_max·μ^(c/(C−1))⌋ of the samples of class c of C stay in each experience, at least one and at most those
    that there are, drawn at random; n_max is the size of the largest class in any experience. The papers run μ = 0.1
    and 0.01. The public code of BASE orders the classes by their labels; ``permuted`` draws their order instead.

    The held-out share is drawn from what stays, so that it has the same tail; the test set stays as it is. Long tails
    commute with nothing: sizes go by those that there are.

    Args:
        ratio: μ, the size of the smallest class relative to the largest, above 0 and at most 1.
        permuted: whether the order of the classes is drawn; else they go from head to tail by their labels.

    Cost: O(n log n) time, O(n) memory for n samples.
    Source: Emam et al., Active Learning at the ImageNet Scale (2021), imbalanced CIFAR-10; Cui et al., Class-Balanced
        Loss Based on Effective Number of Samples (CVPR 2019).
    """
    _refuse(ratio, "long-tail")
    labels, largest = parts.labels, _largest(parts)
    drawn = parts.in_drawn_order(rng)
    order = drawn if permuted else labels
    counts = datasets.long_tail([largest] * len(labels), 1 / ratio)
    return _thinned(parts, dict(zip(order, counts, strict=True)), rng)


def step(
    parts: Parts,
    *,
    ratio: float = 0.1,
    classes: Sequence[int] = (),
    part: float = 0.5,
    permuted: bool = False,
    rng: torch.Generator,
) -> Parts:
    """Make some classes small, all of one size: a step.

    ⌊μ·n_max⌋ of the samples of each of these classes stay in each experience, at least one and at most those that
    there are, drawn at random; n_max is the size of the largest class in any experience. The other classes stay as
    they are. Without names they are the last classes by their labels, or drawn if ``permuted``.

    The held-out share is drawn from what stays; the test set stays as it is. The classes are not marked as rare, and
    no query is set aside: see ``rare``. Step commutes with ``rare`` and ``outsiders`` where all of them name their
    classes, no class is named twice, and one class of full size is left.

    Args:
        ratio: μ, the size of a small class relative to the largest, above 0 and at most 1.
        classes: labels of the small classes in the stream; empty: ``part`` of all classes.
        part: share of all classes of the stream that become small, if none are named.
        permuted: whether they are drawn; else they are the last ones.

    Cost: O(n log n) time, O(n) memory for n samples.
    Source: Buda, Maki & Mazurowski, A Systematic Study of the Class Imbalance Problem in Convolutional Neural Networks
        (2018), step imbalance; Emam et al., Active Learning at the ImageNet Scale (2021).
    """
    _refuse(ratio, "step")
    chosen, largest = classes_of(parts, classes, part, rng, "step"), _largest(parts)
    if not len(classes) and not permuted:
        chosen = parts.labels[-len(chosen) :]
    return _thinned(parts, dict.fromkeys(chosen, max(int(ratio * largest + 1e-9), 1)), rng)


def _refuse(ratio: float, name: str) -> None:
    if not 0 < ratio <= 1:
        raise InputError(f"pool: {name}: ratio: found {ratio:g}, allowed: above 0, at most 1")


def _largest(parts: Parts) -> int:
    """Return the number of samples of the largest class in any experience."""
    return max(int(np.unique(own.y[~own.known.outsider], return_counts=True)[1].max()) for own in parts.train)


def _thinned(parts: Parts, counts: Mapping[int, int], rng: torch.Generator) -> Parts:
    """Keep so many samples of each class in each experience; outsiders and classes that are not named stay."""
    train = []
    for own, keys in zip(parts.train, parts.keys(rng), strict=True):
        stays = np.ones(len(own.rows), dtype=bool)
        for label, count in counts.items():
            rows = np.flatnonzero((own.y == label) & ~own.known.outsider)
            stays[rows] = False
            stays[smallest(keys, rows, count)] = True
        train.append(own.of(stays))
    return parts.with_train(train)
