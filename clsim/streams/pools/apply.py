"""The transforms of a spec, carried out one after the other on the parts of a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from clsim.errors import InputError, in_one_line, nearest
from clsim.randomness import generator
from clsim.spec import registry
from clsim.spec.pools import PoolSpec
from clsim.streams.part import Parts

Transform = Callable[..., Parts]


def bound(entries: Sequence[PoolSpec]) -> list[tuple[str, Transform]]:
    """Load the transforms of a spec, with their options bound.

    Raises:
        InputError: for an unknown name or option, with the nearest, or an option of another type.
    """
    return [(one.name, registry.component("pools", one.name, one.options, f"[pool] {one.name}")) for one in entries]


def transformed(parts: Parts, transforms: Sequence[tuple[str, Transform]], seed: int) -> Parts:
    """Carry out transforms, in their order.

    The generator of a transform is that of the seed, its name, and the number of transforms of the same name before
    it: another transform in the list changes none of its draws.

    Raises:
        InputError: if one returns something else, or leaves an experience without training or test samples.
    """
    before: Counter[str] = Counter()
    for name, transform in transforms:
        with in_one_line(f"pool {name!r}") if ":" in name else nullcontext():
            found = transform(parts, rng=generator(seed, f"pool {name} {before[name]}"))
        before[name] += 1
        if not isinstance(found, Parts):
            raise InputError(f"pool: {name!r} returned a {type(found).__name__}, allowed: the Parts that it changed")
        parts = found
        _refuse_empty(parts, name)
    return parts


def _refuse_empty(parts: Parts, name: str) -> None:
    for i in range(len(parts)):
        own = parts.train[i]
        kept = (~own.known.outsider).sum()
        for side, count in (("training", kept), ("test", len(parts.test[i].rows))):
            if not count:
                raise InputError(
                    f"pool: {name!r} leaves experience {i + 1} of {len(parts)} (classes "
                    f"{', '.join(map(str, parts.classes[i])) or 'none'}) without {side} samples of a class; "
                    "allowed: at least one (name other classes, or a smaller share)"
                )


def classes_of(
    parts: Parts, given: Sequence[int], share: float, rng: torch.Generator, name: str, *, each: bool = False
) -> list[int]:
    """Choose classes of a stream: those that are given, or a share of all, drawn.

    Args:
        given: labels; empty: they are drawn.
        share: the share of all classes that is drawn, rounded, at least one.
        name: the transform, for messages.
        each: whether one class of every experience must stay out of the choice.

    Raises:
        InputError: for a label that is not there or is named twice, if no class is left, or if too few can be drawn.
    """
    labels, order = parts.labels, parts.in_drawn_order(rng)
    if len(given):
        for label in given:
            if label not in labels:
                raise InputError(f"pool: {name}: classes: found {label}; {nearest(str(label), map(str, labels))}")
        if len(set(given)) < len(given) or len(given) == len(labels):
            allowed = f"each once, and fewer than all {len(labels)} of the stream"
            raise InputError(f"pool: {name}: classes: found {list(given)}, allowed: classes of the stream, {allowed}")
        return sorted(given)
    if not 0 < share < 1:
        raise InputError(f"pool: {name}: the share of the classes is {share:g}, allowed: above 0 and below 1")
    wanted, chosen = max(round(share * len(labels)), 1), list[int]()
    for label in order:
        left = [[c for c in own if c in labels and c not in (*chosen, label)] for own in parts.classes]
        if len(chosen) < wanted and (all(left) or not each):
            chosen.append(label)
    if len(chosen) < min(wanted, len(labels) - 1) or not chosen:
        sizes = sorted({len(own) for own in parts.classes})
        raise InputError(
            f"pool: {name}: {wanted} of {len(labels)} classes cannot be chosen so that each experience keeps one (they "
            f"have {', '.join(map(str, sizes))} classes); allowed: a smaller share, or experiences of more classes"
        )
    return sorted(chosen)


def smallest(keys: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return those ``count`` of some rows that have the smallest keys, in the order of the keys."""
    return rows[np.argsort(keys[rows], kind="stable")[:count]]


def share_of(value: float, name: str, option: str, *, least: float = 0.0, most: float = 1.0) -> float:
    """Return an option that is a share; refuse it outside its bounds.

    Raises:
        InputError: naming transform and option.
    """
    if not least <= value <= most:
        raise InputError(f"pool: {name}: {option}: found {value:g}, allowed: from {least:g} to {most:g}")
    return value
