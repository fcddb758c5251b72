"""Statistics over seeds, thin over scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence


def half_width(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half of the t interval of the mean: t_{n−1} · s / √n. NaN for fewer than three values.

    Two seeds would give an interval of ± 9 standard deviations' worth: a table had better show the points.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    if len(values) < 3:
        return math.nan
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * stats.sem(values))
