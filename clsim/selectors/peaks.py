"""The peak of memory of a selection: for each selector a formula of its size, an upper estimate.

A formula counts what the selector keeps while it chooses, beside the candidates' own columns. Those that compare rows
in blocks count the blocks apart: their size may be smaller where memory is short. What the C library keeps of memory
that was freed is not counted: it is a matter of chance, and rarely more than four blocks of 32 MiB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clsim.errors import InputError
from clsim.selectors import max_herding, submodular
from clsim.selectors.distances import BLOCK
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.spec.definitions import definition
from clsim.spec.options import options_of

COLUMNS = 28
"""Bytes of each candidate beside its features: label, task, key and index."""

LIBRARIES = 12 * 2**20
"""Bytes that linear algebra takes for itself when it first works."""

_BLOCK = 4 * BLOCK
"""Bytes of a block of distances in float32."""


@dataclass(frozen=True)
class Size:
    """The size of a selection.

    Attributes:
        n: number of candidates.
        d: number of features of each.
        budget: number of picks.
        classes: number of classes that a candidate has logits of; 0: features have no net behind them.
    """

    n: int
    d: int
    budget: int
    classes: int = 0

    @property
    def features(self) -> float:
        """The bytes of the features."""
        return 4.0 * self.n * self.d


@dataclass(frozen=True)
class Peak:
    """The memory of a selection at its peak, in bytes.

    Attributes:
        kept: what it keeps.
        blocks: its blocks, where each has the usual size.
    """

    kept: float
    blocks: float = 0.0


Options = Mapping[str, Any]
"""Every option of a selector, those of its defaults included."""


def peak(name: str, size: Size, options: Options) -> Peak:
    """Estimate the memory of a selection.

    Args:
        name: the selector, as users type it; one's own, and one that no formula is known of, counts as nothing.
        size: its size.
        options: the selector's options that are given; in combinators, those of the first selector inside.
    """
    combinator, inner = registry.taken_apart(registry.canonical(name))
    if inner:
        return _combined(combinator, inner, size, options)
    if combinator not in PEAKS:
        return Peak(0.0)
    found = PEAKS[combinator](replace(size, budget=min(size.budget, size.n)), _every(combinator, options))
    logits = 4.0 * size.n * size.classes
    return replace(found, kept=found.kept + 3 * logits + LIBRARIES)


def letters(name: str, size: Size, options: Options) -> dict[str, float]:
    """Return what the letters stand for in the order of time that a selector's docstring states."""
    found: dict[str, float] = {"n": size.n, "d": size.d, "b": min(size.budget, size.n), "C": size.classes or size.d}
    inner = registry.canonical(name)
    if inner in _SERVED:
        found["m"] = _SERVED[inner](size, _every(inner, options))
    return found


def cost(name: str) -> str:
    """Return what a selector's docstring says under ``Cost:``; empty for combinators and for code of one's own."""
    target = COMPONENTS["selectors"].get(registry.canonical(name))
    return "" if target is None else definition(target).docstring.cost


def same_way(name: str, size: Size, options: Options) -> dict[str, Any]:
    """Return options by which a smaller selection goes the same way as one of this size."""
    if registry.canonical(name) != "facility-location":
        return {}
    every = _every("facility-location", options)
    return {"similarities": _similarities(size, every)} if every["similarities"] == "auto" else {}


def _every(name: str, options: Options) -> dict[str, Any]:
    try:
        known = options_of(registry.component("selectors", name))
    except InputError:  # an extra is missing: said where it is loaded to be used
        return dict(options)
    return {key: option.default for key, option in known.items()} | dict(options)


def _combined(combinator: str, inner: list[str], size: Size, options: Options) -> Peak:
    """Estimate the memory of a selector inside a combinator."""
    copied = size
    if combinator == "subsample" and len(inner) == 2 and inner[1].isdecimal():
        copied = replace(size, n=min(size.n, max(int(inner[1]), size.budget)))
    first = peak(inner[0], copied, options)
    if copied.n < size.n:
        first = replace(first, kept=first.kept + copied.features)
    if combinator == "per_class":  # at worst, all are of one class: then its rows are copied
        first = replace(first, kept=first.kept + size.features)
    if combinator != "prefilter" or len(inner) < 2:
        return first
    factor = int(inner[2]) if len(inner) > 2 and inner[2].isdecimal() else 5
    kept = replace(size, n=min(size.n, factor * size.budget))
    second = peak(inner[1], kept, {})
    second = replace(second, kept=second.kept + kept.features)
    return max(first, second, key=lambda one: one.kept + one.blocks)


def _rows(size: Size, options: Options) -> Peak:
    """Scores and orders of rows."""
    return Peak(48.0 * size.n)


def _farthest(size: Size, options: Options) -> Peak:
    """A copy of the rows that may be the farthest, all of them at worst."""
    return Peak(2 * size.features + 48 * size.n + 8 * size.budget * size.d)


def _components(size: Size, options: Options) -> Peak:
    """k-center on principal components."""
    if size.d <= options["width"]:
        return _farthest(size, options)
    own = _farthest(replace(size, d=options["width"]), options).kept
    return Peak(own + 2.2 * size.features + 32 * size.d**2)


def _copies(times: float, each: float = 48.0) -> Callable[[Size, Options], Peak]:
    """Copies of the features, and bytes of each row."""
    return lambda size, options: Peak(times * size.features + each * size.n)


def _log_det(size: Size, options: Options) -> Peak:
    """A factor of the kernel, in float64, which doubles when it is full."""
    columns = max(64 * 2 ** math.ceil(math.log2(max(size.budget / 64, 1))), 64)
    return Peak(8.8 * size.n * columns + 3.7 * size.features + 60 * size.n)


def _feature_based(size: Size, options: Options) -> Peak:
    """Positive and negative activations apart."""
    return Peak(6 * size.features + 100 * size.n, 1.5 * _BLOCK)


def _clusters(size: Size, options: Options) -> Peak:
    """k-means: a centred copy, distances to the candidates of the first centres, and centres."""
    k = min(size.budget, size.n)
    return Peak(2.7 * size.features + (40 + 8 * (2 + math.log(max(k, 1)))) * size.n + 16 * k * size.d)


def _similarities(size: Size, options: Options) -> str:
    """Tell how facility location holds its similarities."""
    if options["similarities"] != "auto":
        return options["similarities"]
    dense = size.n**2 <= submodular.DENSE and options["clients"] is None and options["neighbours"] is None
    return "dense" if dense else "sparse"


def _served(size: Size, options: Options) -> float:
    """Count the samples that facility location serves."""
    if _similarities(size, options) == "dense":
        return size.n
    return min(size.n, options["clients"] or (size.n if size.n <= 100_000 else 10_000))


def _facility_location(size: Size, options: Options) -> Peak:
    """All similarities, the most similar ones of each client, or none."""
    n, how, clients = size.n, _similarities(size, options), _served(size, options)
    if how == "dense":
        return Peak(4.0 * n * n + 2.2 * size.features + 6 * 512 * n + 40 * n)
    held = 3.5 * size.features + 60 * n
    if how == "blocks":
        return Peak(held + 2 * size.features, 2.5 * _BLOCK)
    least = max(64, submodular.SPARSE // max(int(clients), 1))
    count = min(options["neighbours"] or min(max(64, 4 * n // max(size.budget, 1)), least), n)
    return Peak(held + 8.8 * clients * count + 48 * 2**20, 1.1 * 4 * min(1024.0 * n, 8 * BLOCK))


def _covering(size: Size, options: Options) -> float:
    """Count the samples that the herding of kernels covers."""
    usual = max(max_herding.DENSE // max(size.n, 1), max_herding.LEAST)
    return min(size.n, usual if options["clients"] is None else options["clients"])


def _kernels(size: Size, options: Options) -> Peak:
    """The kernel of all covered samples with all candidates."""
    held = 4.0 * size.n * _covering(size, options)
    return Peak(held + 2.5 * size.features + 60 * size.n, min(3.5 * _BLOCK, 3.5 * held))


def _neighbours(size: Size, options: Options) -> Peak:
    """Distances of a block of rows to all others, with the exact ones of the nearest."""
    each = 32 + 12 * min(options.get("neighbours", 20), size.n)
    return Peak(2.2 * size.features + each * size.n, min(4.8 * _BLOCK, 20.0 * size.n**2))


def _density_then_farthest(size: Size, options: Options) -> Peak:
    """Neighbours, then k-center in groups of equal density."""
    near = _neighbours(size, options)
    return replace(near, kept=near.kept + size.features + 160 * size.n)


def _typical(size: Size, options: Options) -> Peak:
    """Clusters, then the neighbours in each."""
    k = max(min(size.budget, options["clusters"]), 1)
    largest = min(4.0 * size.n / k, size.n)
    kept = _clusters(replace(size, budget=k), options).kept + 1.8 * size.features
    return Peak(kept, min(4.8 * _BLOCK, 20 * largest**2))


def _dense_in_clusters(size: Size, options: Options) -> Peak:
    """Clusters, then the neighbours of all, kept."""
    near = _neighbours(size, options)
    return replace(near, kept=near.kept + _clusters(size, options).kept)


def _balls(size: Size, options: Options) -> Peak:
    """Clusters, then the rows within a radius of each."""
    return Peak(_clusters(size, options).kept + 2.2 * size.features, min(4 * _BLOCK, 16.0 * size.n**2))


def _swaps(size: Size, options: Options) -> Peak:
    """Distances of all rows to a block that is tried."""
    return Peak(3.2 * size.features + 64 * size.n, 1.7 * _BLOCK)


def _tree(size: Size, options: Options) -> Peak:
    """All distances of the rows that are clustered."""
    m = min(size.n, max(options["largest"], size.budget))
    return Peak(2.2 * size.features + 64 * size.n + 8.0 * m * m, _BLOCK)


def _scores(times: float) -> Callable[[Size, Options], Peak]:
    """Copies of the logits."""
    return lambda size, options: Peak(4.0 * times * size.n * size.classes + 48 * size.n)


def _passes(size: Size, options: Options) -> Peak:
    """The softmax of each pass, and what is made of it."""
    return Peak(12.8 * options["passes"] * size.n * size.classes + 48 * size.n)


def _pursuit(size: Size, options: Options) -> Peak:
    """Gradients, and their products with those that are chosen."""
    return Peak(4.0 * size.n * (9 * size.classes + size.budget) + 48 * size.n)


_SERVED: dict[str, Callable[[Size, Options], float]] = {
    "facility-location": _served,
    "max-herding": _covering,
    "uncertainty-herding": _covering,
}
"""Name → the number of served samples, m in its docstring."""

PEAKS: dict[str, Callable[[Size, Options], Peak]] = {
    **dict.fromkeys(("random", "reservoir", "class-balanced", "task-balanced", "balanced-random"), _rows),
    **dict.fromkeys(("herding", "kcenter-robust"), _rows),
    "kcenter": _farthest,
    "kcenter-pca": _components,
    "mean-of-features": _copies(2.3),
    "centre-of-gravity": _copies(1.3),
    **dict.fromkeys(("graph-cut", "disparity-min", "disparity-sum"), _copies(3.7, 60)),
    "log-det": _log_det,
    "feature-based": _feature_based,
    "k-means": _clusters,
    "density": _neighbours,
    "dacs": _density_then_farthest,
    "typiclust": _typical,
    "usl": _dense_in_clusters,
    "prob-cover": _balls,
    "k-medoids": _swaps,
    "agglomerative": _tree,
    "facility-location": _facility_location,
    "max-herding": _kernels,
    "uncertainty-herding": _kernels,
    **dict.fromkeys(("entropy", "least-confidence"), _scores(2)),
    "margin": _scores(2.5),
    "contextual-diversity": _scores(3.3),
    "variation-ratio": _scores(4.5),
    **dict.fromkeys(("boundary-margin", "base"), _scores(5)),
    "badge": _scores(5.5),
    "grad-match": _pursuit,
    **dict.fromkeys(("bald", "mc-entropy", "mc-margin", "mc-least-confidence", "mc-variation-ratio"), _passes),
}
"""Name of a selector → the formula of its memory."""
