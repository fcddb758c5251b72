"""Wrong labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from clsim.errors import InputError, nearest
from clsim.streams.part import Part, Parts
from clsim.streams.pools.apply import share_of, smallest


def noise(
    parts: Parts,
    *,
    share: float = 0.1,
    kind: Literal["uniform", "pairwise", "instance"] = "uniform",
    among: Literal["all", "others"] = "all",
    held_out: Literal["noisy", "clean"] = "noisy",
    rng: torch.Generator,
) -> Parts:
    """Give a share of the training samples another label.

    Of the n samples of an experience, round(share·n) are drawn and get a label anew, one of the classes of their
    experience, since a label of a class that is still to come would give the stream away:

    ``uniform``: any class with equal probability, the true one included, as RHO-LOSS has it (``among = "all"``, so that
    a share of share/C stays right), or any but the one that the sample has (``others``).
    ``pairwise``: the next class of the experience, the last one the first.
    ``instance``: the samples are not drawn: they are those with the smallest margin s_y − max_{c≠y} s_c of a proxy, and
    each takes the class that is its maximum. This is a construction of ours after instance-dependent noise. The proxy
    is a nearest-class-mean model on pixels, s_c = −‖x − μ_c‖², fitted to the labels as they are; it is cheap and needs
    no training, and confuses what looks alike.

    An image of the data set has the same draws whatever other transforms do. What the oracle of label rounds answers is
    the label given here, the same each time; ``labelling.noise`` comes on top. Outsiders get no label. The held-out
    share is noisy too, since an annotator of it errs alike; ``clean`` gives it the true labels, which RHO-LOSS's code
    treats apart from those of training. A query set aside and the test set are never noisy. Noise commutes with no
    other transform: its counts go by what there is.

    Args:
        share: share of the samples of each experience that get a label anew.
        kind: ``uniform``, ``pairwise`` or ``instance``.
        among: for ``uniform``, the classes that a label is drawn from: ``all``, or the ``others``.
        held_out: labels of the held-out share: ``noisy``, or ``clean``.

    Cost: O(n log n) time, O(n) memory for n samples; ``instance`` O(n·d·C) time for d pixels and C classes.
    Source: Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt
        (ICML 2022), uniform noise over all classes; Patrini et al., Making Deep Neural Networks Robust to Label Noise
        (CVPR 2017), pairwise noise.
    """
    share_of(share, "noise", "share")
    for option, found, allowed in (
        ("kind", kind, ("uniform", "pairwise", "instance")),
        ("among", among, ("all", "others")),
        ("held_out", held_out, ("noisy", "clean")),
    ):
        if found not in allowed:
            raise InputError(f"pool: noise: {option}: found {found!r}; {nearest(str(found), allowed)}")
    picked, drawn = parts.several_keys(rng, 2)
    train = [
        _noisy(i, own, share, kind, among, keys, labels)
        for i, (own, keys, labels) in enumerate(zip(parts.train, picked, drawn, strict=True))
    ]
    roles = replace(parts.roles, clean=held_out == "clean" or parts.roles.clean)
    return replace(parts.with_train(train), roles=roles)


def _noisy(i: int, own: Part, share: float, kind: str, among: str, picked: np.ndarray, drawn: np.ndarray) -> Part:
    free = np.flatnonzero(~own.known.outsider)
    classes, now = np.unique(own.y[free], return_inverse=True)
    count = round(share * len(free))
    if count and len(classes) < 2 and (kind, among) != ("uniform", "all"):
        raise InputError(
            f"pool: noise: found experience {i + 1} with the one class {classes[0]}, where no label can be wrong; "
            "allowed: experiences of two classes or more, or among = 'all', which leaves it"
        )
    if not count:
        return own
    if kind == "instance":
        margins, others = proxy_margins(own.of(free), now, len(classes))
        rows = np.argsort(margins, kind="stable")[:count]
        new = others[rows]
    else:
        rows = np.searchsorted(free, smallest(picked, free, count))
        steps = len(classes) - (among == "others")
        offset = np.minimum((drawn[free[rows]] * steps).astype(np.int64), steps - 1) + (among == "others")
        new = (now[rows] + (1 if kind == "pairwise" else offset)) % len(classes)
    y = own.y.copy()
    y[free[rows]] = classes[new]
    return replace(own, y=y)


def proxy_margins(own: Part, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the margin of each sample under class means of pixels, float32 (n,), and its best other class.

    Args:
        own: the samples.
        y: int64 (n,), their labels from 0.
        classes: the number of classes, each with a sample.
    """
    sums = np.zeros((classes, int(np.prod(own.x.shape[1:]))), dtype=np.float64)
    blocks = np.array_split(np.arange(len(y)), max(len(y) // 2048, 1))
    for block in blocks:
        np.add.at(sums, y[block], _pixels(own, block))
    means = torch.from_numpy(sums / np.bincount(y, minlength=classes)[:, None]).float()
    margins, others = np.empty(len(y), dtype=np.float32), np.empty(len(y), dtype=np.int64)
    for block in blocks:
        scores = -torch.cdist(
            torch.from_numpy(_pixels(own, block)), means, compute_mode="donot_use_mm_for_euclid_dist"
        ).square()
        label = torch.from_numpy(y[block])[:, None]
        best = scores.scatter(1, label, -torch.inf).max(1)
        margins[block] = (scores.gather(1, label)[:, 0] - best.values).numpy()
        others[block] = best.indices.numpy()
    return margins, others


def _pixels(own: Part, rows: np.ndarray) -> np.ndarray:
    return own.x[own.rows[rows]].reshape(len(rows), -1).astype(np.float32)
