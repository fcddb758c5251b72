"""Submodular selectors, and the two dispersion functions that go with them."""

from __future__ import annotations

from typing import Literal

import torch

from clsim.errors import InputError
from clsim.pool import Pool, Selection
from clsim.selectors import facilities
from clsim.selectors.greedy import Optimiser, SetFunction, maximise
from clsim.selectors.similarity import Cosine, Representation, represented

Similarities = Literal["auto", "dense", "blocks", "sparse"]


def facility_location(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    representation: Representation = "features",
    similarities: Similarities = "auto",
    neighbours: int | None = None,
    clients: int | None = None,
    optimiser: Optimiser = "auto",
    epsilon: float = 0.1,
) -> Selection:
    """Keeps the samples that best stand for all others, each by the most similar of them.

    f(A) = Σ_i max_{j∈A} s_ij with s = ½ + ½·cos, at least (1 − 1/e) of the optimum where nothing is approximated.

    Args:
        representation: what the cosine is of: ``features``, which read no labels and are defined for every sample;
            ``gradients`` of the last layer at the label, as DeepCore has it; or ``hypothetical`` ones at the predicted
            label.
        similarities: ``dense``, all in memory, exact; ``blocks``, computed anew when needed, exact and slow, in O(n)
            memory; ``sparse``: only the most similar candidates of each sample count for a gain, which is exact once
            every sample is served as well as by the last of these, and too low before. ``auto``: dense up to half a
            gigabyte, else sparse.
        neighbours: of a sample, when sparse; None: four times the n / budget that a pick serves on average, at least
            64, within half a gigabyte.
        clients: so many drawn samples are to be served instead of all, when sparse or in blocks; any set's f over n
            moves by less than √(ln(2/δ) / (2·clients)) with probability 1 − δ. None: all up to 100,000, else 10,000.
        optimiser, epsilon: see :func:`clsim.selectors.greedy.maximise`.

    Needs: features.
    Cost: O(n²·d) time, O(n²) memory up to half a gigabyte, then O(n).
    Source: Wei, Iyer & Bilmes, Submodularity in Data Subset Selection and Active Learning (ICML 2015); the greedy
        bound of Nemhauser, Wolsey & Fisher (1978); the sampled sum of Mirzasoleiman et al. (NeurIPS 2013), section 5.
    """
    samples = represented(pool, representation)
    function = located(samples, budget, similarities, neighbours, clients, rng)
    return Selection(maximise(function, budget, rng=rng, optimiser=optimiser, epsilon=epsilon))


def located(
    samples: Cosine,
    budget: int,
    similarities: Similarities,
    neighbours: int | None,
    clients: int | None,
    rng: torch.Generator,
) -> SetFunction:
    """Facility location in the form that the size asks for; the arguments are those of :func:`facility_location`."""
    n = len(samples)
    if similarities not in ("auto", "dense", "blocks", "sparse"):
        raise InputError(f"facility-location: similarities is {similarities!r}, allowed: auto, dense, blocks, sparse")
    for name, value in (("neighbours", neighbours), ("clients", clients)):
        if value is not None and value < 1:
            raise InputError(f"facility-location: {name} is {value}, allowed: 1 and more")
    if similarities == "auto":
        similarities = "dense" if n * n <= DENSE and clients is None else "sparse"
    if similarities == "dense":
        return facilities.Dense(samples.matrix(), symmetric=True)
    drawn = min(n, clients or (n if n <= 100_000 else 10_000))
    served = samples if drawn == n else samples[torch.randperm(n, generator=rng)[:drawn].to(samples.device)]
    if similarities == "blocks":
        return facilities.Blocks(served, samples)
    count = neighbours or min(max(64, 4 * n // max(budget, 1)), max(64, SPARSE // drawn))
    return facilities.Sparse(served, samples, min(count, n))


DENSE = 125_000_000
"""Similarities that may be in memory at once: half a gigabyte of float32."""

SPARSE = 62_500_000
"""Similarities with their indices that may be in memory at once: half a gigabyte."""
