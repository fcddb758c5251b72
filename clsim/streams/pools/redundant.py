"""Copies: a pool in which some images occur many times."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from clsim.errors import InputError, at_least, nearest
from clsim.streams.part import Part, Parts, grown
from clsim.streams.pools.apply import share_of, smallest


def redundant(
    parts: Parts,
    *,
    times: int = 10,
    share: float = 0.2,
    kind: Literal["exact", "moved"] = "exact",
    shift: int = 4,
    rng: torch.Generator,
) -> Parts:
    """Repeat some samples many times, so that a pool holds less than its size.

    round(share·n) of the n training samples of an experience, drawn at random, occur ``times`` times in all. SIMILAR's
    CIFAR-10 has 1,000 images 10 times beside 4,000 others, which are the defaults: a fifth, 10 times. Its text names
    copies, its public code makes exact ones; ``moved`` copies are cropped and translated: each is moved by −shift to
    shift pixels in both directions, not by 0 in both, with black at the edge. All draws are uniform.

    A copy has the label of its original: later ``noise`` draws for it anew, noise before copies a wrong label too. The
    held-out share is drawn afterwards, so that it holds copies as well, some of samples that are trained on; the test
    set has none. What is labelled is ``pool.private`` of choices of labels. Copies commute with no other transform: how
    many samples are repeated goes by those that there are.

    Args:
        times: how often a repeated sample occurs in all, at least 1.
        share: share of the samples of each experience that are repeated.
        kind: ``exact`` copies, or ``moved`` ones, of images alone.
        shift: pixels that a moved copy is moved by at most, at least 1.

    Cost: O(n log n) time; no memory for exact copies before they are gathered, that of the images for moved ones.
    Source: Kothawade et al., SIMILAR: Submodular Information Measures Based Active Learning in Realistic Scenarios
        (NeurIPS 2021), section 5.2.
    """
    at_least(1, "pool: redundant: ", times=times, shift=shift)
    share_of(share, "redundant", "share")
    if kind not in ("exact", "moved"):
        raise InputError(f"pool: redundant: kind: found {kind!r}; {nearest(str(kind), ('exact', 'moved'))}")
    shape = parts.train[0].x.shape[1:]
    if kind == "moved" and len(shape) != 3:
        raise InputError("pool: redundant: kind: found 'moved' with vectors, allowed: 'exact', or images")
    repeated = [
        smallest(keys, np.arange(len(own.rows)), round(share * len(own.rows)))
        for own, keys in zip(parts.train, parts.keys(rng), strict=True)
    ]
    copies = [np.repeat(rows, times - 1) for rows in repeated]
    places = [own.rows[rows] for own, rows in zip(parts.train, copies, strict=True)]
    if kind == "moved" and any(len(part) for part in places):
        originals = np.concatenate(places)
        parts, first = parts.extended(moved(parts.train[0].x, originals, shift, rng))
        new = np.arange(first, first + len(originals))
        places = np.split(new, np.cumsum([len(part) for part in places])[:-1])
    train = list[Part]()
    for own, rows, at in zip(parts.train, copies, places, strict=True):
        natures = own.known.of(rows)
        which = natures.copy + np.tile(np.arange(1, times), len(rows) // max(times - 1, 1))
        train.append(grown(own, at, own.y[rows], natures.marked(copy=which)))
    roles = parts.roles if parts.roles.private else replace(parts.roles, private="labelled")
    return replace(parts.with_train(train), roles=roles)


def moved(x: np.ndarray, rows: np.ndarray, shift: int, rng: torch.Generator) -> np.ndarray:
    """Copy images at ``rows`` of ``x``, each moved at random, with black at the edge.

    Args:
        x: images (n, c, h, w).
        rows: int64 (m,), positions, which may repeat.
        shift: pixels that an image is moved by at most, in each direction.
    """
    side = 2 * shift + 1
    middle = side * side // 2  # both moves are 0
    drawn = torch.randint(side * side - 1, (len(rows),), generator=rng).numpy()
    drawn += drawn >= middle
    found = np.empty((len(rows), *x.shape[1:]), dtype=x.dtype)
    height, width = x.shape[2:]
    for move in np.unique(drawn):
        at = np.flatnonzero(drawn == move)
        padded = np.pad(x[rows[at]], ((0, 0), (0, 0), (shift, shift), (shift, shift)))
        down, right = divmod(int(move), side)
        found[at] = padded[:, :, down : down + height, right : right + width]
    return found
