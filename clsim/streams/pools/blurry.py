"""Experiences whose classes overlap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from clsim.errors import InputError
from clsim.streams.part import Part, Parts, grown
from clsim.streams.pools.apply import share_of, smallest


def blurry(parts: Parts, *, share: float = 0.1, disjoint: float = 0.0, rng: torch.Generator) -> Parts:
    """Let the classes of experiences overlap: a share of each class's samples is spread over the other experiences.

    Blurry-M: of the n samples of a class, round(M·n) leave the experience that the class is major in and are dealt
    evenly at random over all others. i-Blurry-N-M: round(N·C) of the C classes, drawn, are disjoint and stay; the
    others are blurry at M (published with N = 50 %, M = 10 %). The definitions are recalled from the papers, whose
    public code was not read.

    An experience is tested on its major classes alone. Its minor classes count among its classes in all else. The
    held-out share is drawn from what an experience has then, so that it is blurry too. Blurry commutes with no other
    transform: what leaves goes by what there is.

    Args:
        share: M, the share of each blurry class's samples that is spread.
        disjoint: N, the share of the classes that are not blurry.

    Cost: O(n log n) time, O(n) memory for n samples.
    Source: Bang et al., Rainbow Memory: Continual Learning with a Memory of Diverse Samples (CVPR 2021), blurry-M; Koh
        et al., Online Continual Learning on Class Incremental Blurry Task Configuration with Anytime Inference (ICLR
        2022), i-Blurry-N-M.
    """
    share_of(share, "blurry", "share")
    share_of(disjoint, "blurry", "disjoint")
    if len(parts) < 2 or parts.spec.kind not in ("split", "sequence") or parts.spec.setting != "class":
        found = f"{len(parts)} experiences of kind {parts.spec.kind!r} in the setting {parts.spec.setting!r}"
        raise InputError(
            f"pool: blurry: found {found}, allowed: two or more of kind 'split' or 'sequence', in the setting 'class'"
        )
    order = parts.in_drawn_order(rng)
    fixed, keys = {*order[: round(disjoint * len(order))]}, parts.keys(rng)
    leaving, receives = list[Part](), [list[Part]() for _ in parts.train]
    for i, (own, drawn) in enumerate(zip(parts.train, keys, strict=True)):
        stays, others = np.ones(len(own.rows), dtype=bool), [j for j in range(len(parts)) if j != i]
        for label in sorted({*parts.classes[i]} - fixed):
            rows = np.flatnonzero((own.y == label) & ~own.known.outsider)
            gone = smallest(drawn, rows, round(share * len(rows)))
            stays[gone] = False
            shift = int(torch.randint(len(others), (), generator=rng))  # which of them get one more
            for place, j in enumerate(others):
                receives[j].append(own.of(gone[(place + shift) % len(others) :: len(others)]))
        leaving.append(own.of(stays))
    train, classes = list[Part](), list[tuple[int, ...]]()
    for own, dealt, major in zip(leaving, receives, parts.classes, strict=True):
        for part in dealt:
            own = grown(own, part.rows, part.y, part.known)
        train.append(own)
        classes.append(tuple(sorted({*major, *np.unique(own.y[~own.known.outsider]).tolist()})))
    return replace(parts.with_train(train), classes=tuple(classes))
