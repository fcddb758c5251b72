"""Distances to the nearest neighbours of a large pool, by an index where one is installed."""

from __future__ import annotations

import math
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clsim.selectors.distances import blocks, nearest

EXACT = 100_000
"""Number of rows up to which all distances are computed."""

SHARE = 16
"""One of this many cells of the index is searched."""


def neighbour_distances(
    features: Float[Tensor, "n width"], k: int, *, exact: int = EXACT, share: int = SHARE
) -> Float[Tensor, "n k"]:
    """Compute the distances of each row to its k nearest other rows, the nearest first.

    Up to ``exact`` rows, and where faiss is not installed (``pip install 'clsim[neighbours]'``), they are exact. Else
    an index divides the rows into 4·√n cells by k-means, and the neighbours of a row are looked for in the cells whose
    centres are nearest to it, one of ``share``. The distances are those of the neighbours found, so none is below the
    exact one. The same rows give the same distances, on one machine with one number of threads;
    a record names the index in its environment.

    Args:
        features: (n, d), on any device; the index is made on the processor.
        k: number of neighbours; reduced to n − 1.

    Source: Sivic & Zisserman, Video Google (ICCV 2003), for the inverted file; Douze et al., The Faiss Library (2024).
    """
    n, k = len(features), max(min(k, len(features) - 1), 0)
    if n <= exact or not k or find_spec("faiss") is None:
        return nearest(features, None, k)[0]
    found = _found(features, k, max(round(4 * math.sqrt(n)), 1), share)
    distance = features.new_empty(n, k)
    for rows in blocks(n, k * features.shape[1]):
        distance[rows] = (features[found[rows].clamp_min(0)] - features[rows, None]).norm(dim=2)
    short = (found < 0).any(1).nonzero().flatten()  # the cells looked at had too few rows
    if len(short):
        distance[short] = nearest(features[short], features, k + 1)[0][:, 1:]  # but the row itself
    return distance.sort(1).values


def index_version() -> str:
    """Name the index that large pools use here, with its version, or say that they use none: for a record."""
    if find_spec("faiss") is None:
        return "exact"
    try:
        return f"faiss {version('faiss-cpu')}"
    except PackageNotFoundError:  # installed by another name
        return "faiss"


def _found(features: Tensor, k: int, cells: int, share: int) -> Tensor:
    """Find k other rows near each row, int64 (n, k), in no order; −1 where too few were found."""
    import faiss  # an optional extra

    rows = np.asarray(features.detach().float().cpu().contiguous())
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.index_factory(rows.shape[1], f"IVF{cells},Flat")
    index.nprobe = max(math.ceil(cells / share), 1)
    index.train(rows)
    index.add(rows)
    found = torch.from_numpy(index.search(rows, k + 1)[1])
    itself = found == torch.arange(len(found))[:, None]
    itself[~itself.any(1), k] = True  # duplicates came before it: one of them too many
    return found[~itself].view(-1, k).to(features.device)
