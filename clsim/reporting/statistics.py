"""Statistics over seeds, mostly by scipy.

Values that are not finite are left out. A result that a sample is too small for is NaN, without a warning: below
:data:`FEWEST` seeds there is no interval and no test. If nothing varies, an interval is a point, and
the p of a t test is 0 or 1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

FEWEST = 3
"""Fewest seeds for an interval or a test. With two, an interval would be ± 9 standard deviations."""

ALPHA = 0.05
"""The level of every test, and of the family of tests that Holm's correction covers."""

ROUND_OFF = 1e-12
"""A spread below this share of the largest value is round-off: nothing varies."""

Values = Sequence[float] | np.ndarray
"""One number for each seed."""

Bounds = tuple[float, float]
"""The lower and the upper end of an interval; NaN where none can be given."""


@dataclass(frozen=True)
class Paired:
    """The comparison of two arms on the same seeds.

    Attributes:
        n: number of common seeds.
        difference: mean of a − b; NaN without a common seed.
        deviation: standard deviation of a − b.
        low, high: the t interval of the difference.
        p: p of the paired t test, two-sided.
        p_wilcoxon: p of the signed-rank test, two-sided; at least 2^(1−n), so not below 5 % with fewer than six seeds.
        above, below: number of seeds on which a is above b, and below it.
    """

    n: int
    difference: float
    deviation: float
    low: float
    high: float
    p: float
    p_wilcoxon: float
    above: int
    below: int


def half_width(values: Values, confidence: float = 0.95) -> float:
    """Half of the t interval of the mean: t_{n−1} · s / √n. NaN for fewer than three values.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    sample = finite(values)
    if len(sample) < FEWEST:
        return math.nan
    if constant(sample):
        return 0.0
    from scipy import special  # scipy.stats has the same, but takes half a second to import

    quantile = special.stdtrit(len(sample) - 1, 0.5 + confidence / 2)
    return float(quantile * np.std(sample, ddof=1) / math.sqrt(len(sample)))


def standard_deviation(values: Values) -> float:
    """Standard deviation of the sample: √(Σ (x − mean)² / (n − 1)). NaN for fewer than two values."""
    sample = finite(values)
    if len(sample) < 2:
        return math.nan
    return 0.0 if constant(sample) else float(np.std(sample, ddof=1))


def t_interval(values: Values, confidence: float = 0.95) -> Bounds:
    """Mean ± :func:`half_width`."""
    half = half_width(values, confidence)
    mean = float(np.mean(finite(values))) if half == half else math.nan
    return mean - half, mean + half


def bootstrap_interval(
    values: Sequence[float],
    rng: np.random.Generator,
    confidence: float = 0.95,
    method: Literal["BCa", "percentile"] = "BCa",
    resamples: int = 9999,
) -> Bounds:
    """Interval of the mean, by resampling the seeds. With few seeds it is too narrow: prefer :func:`t_interval`.

    Source: Efron, Better Bootstrap Confidence Intervals (JASA 1987), for BCa.
    """
    sample = finite(values)
    if len(sample) < FEWEST:
        return math.nan, math.nan
    if constant(sample):
        return float(sample[0]), float(sample[0])
    from scipy import stats

    with quiet():
        found = stats.bootstrap(
            (sample,), np.mean, confidence_level=confidence, n_resamples=resamples, method=method, rng=rng
        ).confidence_interval
    return float(found.low), float(found.high)


def paired(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Paired:
    """Compare two arms seed by seed; a seed that either lacks (NaN) is left out.

    Differences that are all zero have p = 1. Differences that are all the same but not zero have p = 0 in the t test,
    whose statistic is infinite; the signed-rank test counts signs and sizes only, and stays as it is.
    """
    d = _differences(a, b)
    n = len(d)
    signs = int((d > 0).sum()), int((d < 0).sum())
    mean = float(d.mean()) if n else math.nan
    low, high = t_interval(d, confidence)
    signed = math.nan
    if n >= FEWEST:
        from scipy import stats

        with quiet():
            signed = float(stats.wilcoxon(d).pvalue) if d.any() else 1.0
    return Paired(n, mean, standard_deviation(d), low, high, _t_test(d), signed, *signs)


def paired_t(a: Sequence[float], b: Sequence[float]) -> float:
    """p of the paired t test, as in :func:`paired`."""
    return _t_test(_differences(a, b))


def _differences(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    """a − b where both are finite; differences that are zero, or all equal, up to round-off are made so exactly."""
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    both = np.isfinite(left) & np.isfinite(right)
    left, right = left[both], right[both]
    d = left - right
    limit = ROUND_OFF * max(np.abs(left).max(initial=0), np.abs(right).max(initial=0))
    d[np.abs(d) <= limit] = 0
    return np.full(len(d), d[0]) if len(d) and np.ptp(d) <= limit else d


def _t_test(d: np.ndarray) -> float:
    """Two-sided p of the hypothesis that the mean is zero: 2 · F_{n−1}(−|t|), t = mean · √n / s."""
    if len(d) < FEWEST:
        return math.nan
    if constant(d):
        return 0.0 if d[0] else 1.0
    from scipy import special

    return float(2 * special.stdtr(len(d) - 1, -abs(d.mean()) / np.std(d, ddof=1) * math.sqrt(len(d))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that the chance of any false finding in the family stays below the level.

    p̃_(i) = max_{j≤i} min(1, (m − j + 1) · p_(j)) over the sorted p values; NaN is no member of the family.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure (Scandinavian Journal of Statistics 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p_values, dtype=float)
    members = np.flatnonzero(~np.isnan(p))
    order = members[np.argsort(p[members], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1) if len(order) else []
    return [float(v) for v in adjusted]


def power(n: int, difference: float, deviation: float, level: float = ALPHA) -> float:
    """Chance that the two-sided paired t test over ``n`` seeds finds a true difference, by the noncentral t."""
    from scipy import special

    shift = abs(difference) / deviation * math.sqrt(n)
    limit = special.stdtrit(n - 1, 1 - level / 2)
    if shift > 20:  # the noncentral t cannot be computed here: only the deviation is still uncertain
        return float(special.chdtr(n - 1, (n - 1) * (shift / limit) ** 2))
    return float(1 - special.nctdtr(n - 1, shift, limit) + special.nctdtr(n - 1, shift, -limit))


def seeds_needed(
    difference: float, deviation: float, power_: float = 0.8, level: float = ALPHA, most: int = 10_000
) -> int | None:
    """The fewest seeds with which a paired t test would find a difference of this size; at least :data:`FEWEST`.

    Args:
        deviation: standard deviation of the differences by seed.
        power_: chance to find the difference (default 0.8).
        most: most seeds; the result is None if more are needed, as for a difference of zero.

    >>> seeds_needed(0.5, 1.0)
    34
    """
    if not (math.isfinite(difference) and math.isfinite(deviation)) or difference == 0:
        return None
    if deviation == 0 or abs(difference) / deviation > 20:
        return FEWEST
    low, high = FEWEST - 1, FEWEST
    while power(high, difference, deviation, level) < power_:
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, difference, deviation, level) >= power_ else (middle, high)
    return high


def variance_components(groups: Sequence[Values]) -> tuple[float, float]:
    """Estimate the variance between groups and that within them, by one-way analysis of variance with random effects.

    within = MS_within; between = max(0, (MS_between − MS_within) / n₀), n₀ = (N − Σ n_i² / N) / (k − 1), for k groups
    of n_i values, N in all. NaN for fewer than two groups, or where no group has two values.

    Source: Searle, Casella & McCulloch, Variance Components (1992), chapter 3.

    >>> variance_components([[1.0, 3.0], [5.0, 7.0]])
    (7.0, 2.0)
    """
    samples = [sample for sample in map(finite, groups) if len(sample)]
    sizes = np.array([len(sample) for sample in samples], dtype=float)
    k, n = len(samples), sizes.sum()
    if k < 2 or n <= k:
        return math.nan, math.nan
    means = np.array([sample.mean() for sample in samples])
    within = sum(((sample - sample.mean()) ** 2).sum() for sample in samples) / (n - k)
    overall = (sizes * means).sum() / n
    between = (sizes * (means - overall) ** 2).sum() / (k - 1)
    each = (n - (sizes**2).sum() / n) / (k - 1)
    return float(max(0.0, (between - within) / each)), float(within)


def finite(values: Values) -> np.ndarray:
    """The values that are neither NaN nor infinite."""
    sample = np.asarray(values, dtype=float)
    return sample[np.isfinite(sample)]


def constant(sample: np.ndarray) -> bool:
    """Tell whether the spread is zero, or only round-off."""
    return bool(np.ptp(sample) <= ROUND_OFF * np.abs(sample).max())


@contextmanager
def quiet() -> Iterator[None]:
    """Silence scipy's warnings about degenerate samples, whose results are set here."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
