"""Distances between many rows of features, in blocks: nearest neighbours, principal components, the metric of a choice.

No function here makes an n × n matrix: it compares a block of rows with all others, and keeps the result it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.errors import nearest as nearest_name

Metric = Literal["euclidean", "cosine"]
"""The distance between features, or between features scaled to length 1: √(2 − 2·cos)."""

BLOCK = 2**23
"""Number of distances in a block: 32 MiB of float32."""

SMALLEST = 2**16
"""Least number of distances in a block where memory is short."""

_LARGEST: ContextVar[int] = ContextVar("largest block", default=BLOCK)


@contextmanager
def blocks_of(largest: int) -> Iterator[None]:
    """Let blocks inside hold at most this many numbers, for a choice that would not fit into the memory otherwise.

    What is computed is the same but for the round-off of float32.
    """
    token = _LARGEST.set(largest)
    try:
        yield
    finally:
        _LARGEST.reset(token)


def in_a_block() -> int:
    """Return the largest number of distances in a block now: :data:`BLOCK`, or what :func:`blocks_of` says."""
    return _LARGEST.get()


def scales(metric: Metric) -> bool:
    """Tell whether a metric scales features to length 1 first.

    Raises:
        InputError: if there is no such metric.
    """
    if metric not in get_args(Metric):
        raise InputError(f"metric: found {metric!r}; {nearest_name(str(metric), get_args(Metric))}")
    return metric == "cosine"


def measured(features: Float[Tensor, "n width"], metric: Metric) -> Float[Tensor, "n width"]:
    """Scale features so that their Euclidean distances are the metric's, (n, d); for ``euclidean``, return them."""
    return F.normalize(features) if scales(metric) else features


def blocks(n: int, width: int) -> Iterator[slice]:
    """Divide rows 0 to n into slices of at most :func:`in_a_block` numbers, with ``width`` numbers in each row.

    >>> [s.start for s in blocks(3, BLOCK)], list(blocks(0, 1))
    ([0, 1, 2], [])
    """
    rows = max(in_a_block() // max(width, 1), 1)
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def squared_distances(a: Float[Tensor, "n width"], b: Float[Tensor, "m width"]) -> Float[Tensor, "n m"]:
    """Compute ‖a_i − b_j‖², (n, m), never below 0.

    One product computes it, with the round-off of ‖a‖² + ‖b‖²; centre the rows first.
    """
    return torch.addmm(b.square().sum(1), a, b.T, alpha=-2).add_(a.square().sum(1)[:, None]).clamp_min_(0)


def nearest(
    queries: Float[Tensor, "n width"], candidates: Float[Tensor, "m width"] | None, k: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Find the k nearest candidates of each query, exactly, the nearest first: distances and rows, (n, k) each.

    Args:
        queries: (n, d), on any device.
        candidates: (m, d); None: the queries themselves, where a row is not its own neighbour.
        k: number of neighbours; reduced to the number of candidates (less one where they are the queries).

    The neighbours come from ‖a‖² + ‖b‖² − 2⟨a, b⟩ of centred rows; their distances, and so their order, are then
    computed from differences, so that those of duplicates are exactly 0. O(n·m·d) time; O(n·k) memory and a block.
    """
    themselves = candidates is None
    others = queries if candidates is None else candidates
    k = max(min(k, len(others) - themselves), 0)
    distance = queries.new_empty(len(queries), k)
    index = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    if not k or not len(queries):
        return distance, index
    mean = others.mean(0)
    centred = others - mean
    for rows in blocks(len(queries), len(others)):
        squares = squared_distances(queries[rows] - mean, centred)
        if themselves:
            row = torch.arange(rows.start, rows.stop, device=queries.device)
            squares[row - rows.start, row] = torch.inf
        found = squares.topk(k, largest=False, sorted=False).indices.sort(1).values
        exact = torch.empty_like(squares[:, :k])
        for part in blocks(len(found), k * queries.shape[1]):
            exact[part] = (others[found[part]] - queries[rows][part, None]).norm(dim=2)
        order = exact.argsort(dim=1, stable=True)  # of equals, the earlier row
        distance[rows], index[rows] = exact.gather(1, order), found.gather(1, order)
    return distance, index


def nearest_of(
    features: Float[Tensor, "n width"], centres: Float[Tensor, "m width"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Find each row's nearest centre: the squared distance and the centre's row, (n,) each; O(n·m·d) time."""
    mean = centres.mean(0)
    centred = centres - mean
    square, which = features.new_empty(len(features)), features.new_empty(len(features), dtype=torch.int64)
    for rows in blocks(len(features), max(len(centres), features.shape[1])):
        square[rows], which[rows] = squared_distances(features[rows] - mean, centred).min(1)
    return square, which


def principal(features: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Compute the principal components: the mean (d,), and the directions of largest variance (d, min(width, d)).

    ``(features - mean) @ directions`` are the scores. The d × d covariance is summed in blocks in float64: O(n·d²).
    """
    mean = features.mean(0)
    covariance = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)
    for rows in blocks(len(features), features.shape[1]):
        centred = features[rows] - mean
        covariance += centred.T @ centred
    directions = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :width]
    return mean, directions.to(features.dtype)
