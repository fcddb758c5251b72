"""Outsiders: samples of no class that counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from clsim.errors import InputError, nearest
from clsim.streams.natures import Natures
from clsim.streams.part import Part, Parts, grown
from clsim.streams.pools.apply import classes_of


def outsiders(
    parts: Parts,
    *,
    share: float = 0.2,
    classes: Sequence[int] = (),
    dataset: str = "",
    asked: Literal["dropped", "class"] = "dropped",
    dealt: Literal["stream", "own"] = "stream",
    private: Literal["none", "query"] = "none",
    rng: torch.Generator,
) -> Parts:
    """Put samples of no class that counts into the pool: those of some classes, or of another data set.

    The classes that become outsiders are gone from the test set and from the classes of every experience. Of a queried
    outsider, the oracle says that it is of none of the classes; it costs budget like all others. What is asked for is
    then ``dropped`` from training, as in POAL, or learnt as one more ``class``, as in SIMILAR's code: a head with one
    more output, which no test sample is predicted to be. Without choices of labels, outsiders are dropped likewise, or
    learnt; where a part is labelled, they are in the unlabelled part.

    ``pool.query`` of a choice is what is labelled as of a class, and ``pool.private`` the outsiders asked for so far in
    the experience. Before the first one there is no private set, as in the paper; in SIMILAR's public code it then is
    the query set, which ``private = "query"`` repeats.

    The held-out share has no outsiders, unless they are a class. Outsiders commute with ``rare`` and ``step`` where
    all of them name their classes, no class is named twice, and they stay in their ``own`` experience.

    Args:
        share: share of all classes of the stream that become outsiders, drawn so that every experience keeps a class;
            with ``dataset``, how many outsiders there are for each training sample of an experience.
        classes: labels of the classes that become outsiders; empty: they are drawn.
        dataset: a name of ``clsim list datasets`` whose images are the outsiders, each in one experience alone, in the
            size and the channels of the stream's; empty: classes of the stream itself.
        asked: what becomes of an outsider that was asked for: ``dropped`` from training, or a ``class`` of its own.
        dealt: where outsiders are that are classes of the stream: dealt evenly over the whole ``stream``, or in their
            ``own`` experience. Where experiences share their classes, they are in their own.
        private: what is to be avoided before an outsider was asked for: ``none``, or what resembles the ``query``.

    Cost: O(n log n) time, O(n) memory for n samples, and that of the images of another data set.
    Source: Kothawade et al., SIMILAR: Submodular Information Measures Based Active Learning in Realistic Scenarios
        (NeurIPS 2021), section 5.3; Zhan et al., Pareto Optimization for Active Learning under Out-of-Distribution
        Data Scenarios (TMLR 2023).
    """
    for option, found, allowed in (
        ("asked", asked, ("dropped", "class")),
        ("dealt", dealt, ("stream", "own")),
        ("private", private, ("none", "query")),
    ):
        if found not in allowed:
            raise InputError(f"pool: outsiders: {option}: found {found!r}; {nearest(str(found), allowed)}")
    if dataset and len(classes):
        raise InputError("pool: outsiders: found classes and dataset, allowed: one of them")
    label = parts.roles.own
    if asked == "class" and label < 0:
        label = len(parts.names)
        parts = replace(parts, names=(*parts.names, "outsider"))
    if dataset:
        parts = _foreign(parts, dataset, share, label if asked == "class" else -1, rng)
        gone = list[int]()
    else:
        gone = classes_of(parts, classes, share, rng, "outsiders", each=True)
        parts = _insiders(parts, gone, label if asked == "class" else -1, dealt, rng)
    roles = replace(
        parts.roles,
        query=parts.roles.query or "insiders",
        private="outsiders",
        until=private,
        rare=tuple(c for c in parts.roles.rare if c not in gone),
        outside=tuple(sorted({*parts.roles.outside, *gone})),
        own=label if asked == "class" else parts.roles.own,
    )
    classes_now = tuple(
        tuple(sorted({*(c for c in own if c not in gone), *([label] if label in part.y and asked == "class" else [])}))
        for own, part in zip(parts.classes, parts.train, strict=True)
    )
    return replace(parts, roles=roles, classes=classes_now)


def _insiders(parts: Parts, gone: Sequence[int], label: int, dealt: str, rng: torch.Generator) -> Parts:
    """Turn the samples of some classes into outsiders with a label, and take these classes from the tests."""
    keys, marked = parts.keys(rng), list[Part]()
    for own in parts.train:
        outside = np.isin(own.y, gone) & ~own.known.outsider
        natures = own.known.marked(
            truth=np.where(outside, -1, own.known.truth),
            outsider=own.known.outsider | outside,
            rare=own.known.rare & ~outside,
        )
        marked.append(replace(own, y=np.where(outside, label, own.y), natures=natures))
    shared = any(set(a) & set(b) for i, a in enumerate(parts.classes) for b in parts.classes[:i])
    if dealt == "stream" and not shared:
        marked = _dealt(parts, marked, gone, keys)
    tests = [own.of(~np.isin(own.y, gone)) for own in parts.test]
    query = [own.of(~np.isin(own.y, gone)) for own in parts.query]
    return replace(parts, train=tuple(marked), test=tuple(tests), query=tuple(query))


def _dealt(parts: Parts, marked: Sequence[Part], gone: Sequence[int], keys: Sequence[np.ndarray]) -> list[Part]:
    """Deal the new outsiders evenly over all experiences, in the order of their keys."""
    new = [np.isin(own.y, gone) & ~own.known.outsider for own in parts.train]
    moves = [part.of(rows) for part, rows in zip(marked, new, strict=True)]
    order = np.concatenate([drawn[rows] for drawn, rows in zip(keys, new, strict=True)]).argsort(kind="stable")
    whole = moves[0]
    for part in moves[1:]:
        whole = grown(whole, part.rows, part.y, part.known)
    found = []
    for i, (part, rows) in enumerate(zip(marked, new, strict=True)):
        share = whole.of(order[i :: len(marked)])
        found.append(grown(part.of(~rows), share.rows, share.y, share.known))
    return found


def _foreign(parts: Parts, dataset: str, share: float, label: int, rng: torch.Generator) -> Parts:
    """Append images of another data set to the experiences, each in one alone."""
    if not 0 < share < math.inf:
        raise InputError(f"pool: outsiders: share: found {share:g}, allowed: a finite number above 0")
    if parts.load is None:
        raise InputError(
            f"pool: outsiders: dataset: found {dataset!r} where no data set can be loaded, allowed: classes"
        )
    images = parts.load(dataset, "pool: outsiders: dataset")
    counts = [round(share * len(own.rows)) for own in parts.train]
    if sum(counts) > len(images):
        most = math.floor(100 * len(images) / sum(len(own.rows) for own in parts.train)) / 100
        raise InputError(
            f"pool: outsiders: share: found {share:g}, which asks for {sum(counts)} of {len(images)} images of "
            f"{dataset!r}; allowed: above 0, at most {most:g}"
        )
    drawn = torch.randperm(len(images), generator=rng).numpy()[: sum(counts)]
    parts, first = parts.extended(images[drawn])
    groups, train = parts.groups, list[Part]()
    for own, count in zip(parts.train, counts, strict=True):
        no, none = np.zeros(count, dtype=bool), np.full(count, -1)
        natures = Natures(none, none, np.arange(groups, groups + count), np.zeros(count, dtype=np.int64), no, ~no)
        train.append(grown(own, np.arange(first, first + count), np.full(count, label), natures))
        first, groups = first + count, groups + count
    return replace(parts.with_train(train), groups=groups)
