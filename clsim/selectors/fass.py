"""FASS: uncertain samples that represent the other uncertain ones."""

from __future__ import annotations

from typing import Literal

import torch

from clsim.errors import InputError, nearest
from clsim.pool.pool import Pool, Selection
from clsim.selectors import uncertainty as measures
from clsim.selectors.combinators import prefilter
from clsim.selectors.submodular import facility_location

MEASURES = {
    "entropy": measures.entropy,
    "margin": measures.margin,
    "least-confidence": measures.least_confidence,
}


def fass(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    factor: int = 5,
    uncertainty: Literal["entropy", "margin", "least-confidence"] = "entropy",
) -> Selection:
    """Query the samples that best represent the most uncertain ones: filtered active submodular selection.

    Facility location, in which samples labelled already count as chosen, chooses among the ``factor``·b most uncertain
    samples. With the default options it equals ``prefilter(entropy,facility-location,5)``.

    Args:
        factor: number of samples that pass the filter, as a multiple of the budget.
        uncertainty: the measure of uncertainty by which samples are filtered.

    Needs: features, probabilities.
    Cost: O(n·C + (factor·b)²·d) time, O((factor·b)²) memory up to half a gigabyte.
    Source: Wei, Iyer & Bilmes, Submodularity in Data Subset Selection and Active Learning (ICML 2015), section 5.
    """
    if uncertainty not in MEASURES:
        raise InputError(f"fass: uncertainty: unknown {uncertainty!r}; {nearest(uncertainty, MEASURES)}")
    return prefilter(MEASURES[uncertainty], facility_location, factor)(pool, budget, rng=rng)
