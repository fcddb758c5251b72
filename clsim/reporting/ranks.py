"""Tests over more than two arms: Friedman with Nemenyi's ranks, Kruskal–Wallis with Games–Howell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clsim.reporting.statistics import ALPHA, constant, finite, quiet

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Friedman:
    """Ranks of arms in each block (a data set, a condition); rank 1 is the best, ties share their mean rank.

    Attributes:
        average: average rank of each arm over blocks, in the order of the arms given.
        statistic, p: Friedman's χ², corrected for ties, and its p.
        critical_difference: average ranks closer than this cannot be told apart, by Nemenyi's test at 5 %.
        p_pairs: Nemenyi's p of each pair, (k, k).
        wins: number of blocks in which the arm of the row is strictly better than that of the column, (k, k).
    """

    average: tuple[float, ...]
    statistic: float
    p: float
    critical_difference: float
    p_pairs: Matrix
    wins: tuple[tuple[int, ...], ...]


def friedman(scores: Sequence[Sequence[float]], *, higher_is_better: bool = True) -> Friedman:
    """Test whether arms differ over blocks (Friedman), and which do (Nemenyi).

    CD = q_{0.05,k} / √2 · √(k(k+1) / (6N)), q of the studentised range with infinite degrees of freedom.

    Args:
        scores: (N blocks, k arms), all finite; k ≥ 3, N ≥ 2.

    Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 2006), section 3.2.2.
    """
    from scipy import stats

    x = np.asarray(scores, dtype=float)
    blocks, arms = x.shape
    ranks = stats.rankdata(-x if higher_is_better else x, axis=1)
    average = ranks.mean(0)
    with quiet():
        statistic, p = stats.friedmanchisquare(*ranks.T)
    if np.isnan(p):  # every block is one tie
        statistic, p = 0.0, 1.0
    unit = math.sqrt(arms * (arms + 1) / (6 * blocks))
    gaps = np.abs(average[:, None] - average[None]) / unit * math.sqrt(2)
    upper = np.triu_indices(arms, 1)
    pairs = np.ones((arms, arms))
    pairs[upper] = stats.studentized_range.sf(gaps[upper], arms, np.inf)
    pairs = np.minimum(pairs, pairs.T)
    limit = float(stats.studentized_range.isf(ALPHA, arms, np.inf) / math.sqrt(2) * unit)
    wins = (ranks[:, :, None] < ranks[:, None, :]).sum(0)
    return Friedman(
        tuple(map(float, average)),
        float(statistic),
        float(p),
        limit,
        _rows(pairs),
        tuple(tuple(map(int, w)) for w in wins),
    )


def cliques(average: Sequence[float], critical_difference: float) -> list[tuple[int, int]]:
    """Find the first and last arm of each bar of a critical-difference diagram, arms sorted by rank.

    A bar spans a longest run of arms whose ends are closer than the critical difference.

    >>> cliques([1.0, 1.5, 2.8, 3.0], 1.6)
    [(0, 1), (1, 3)]
    """
    bars: list[tuple[int, int]] = []
    for first in range(len(average)):
        last = max(i for i in range(first, len(average)) if average[i] - average[first] < critical_difference)
        if last > first and (not bars or last > bars[-1][1]):
            bars.append((first, last))
    return bars


def kruskal(samples: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Kruskal–Wallis test: H and p of independent samples; (0, 1) if all values are the same, NaN below two samples."""
    from scipy import stats

    groups = [g for g in map(finite, samples) if len(g)]
    if len(groups) < 2:
        return math.nan, math.nan
    if constant(np.concatenate(groups)):
        return 0.0, 1.0
    with quiet():
        statistic, p = stats.kruskal(*groups)
    return float(statistic), float(p)


def games_howell(samples: Sequence[Sequence[float]]) -> Matrix:
    """p of each pair of independent samples of unequal variance, corrected for all pairs, (k, k).

    NaN where a sample has fewer than two values. Two constant samples: 1 if they agree, else 0.

    Source: Games & Howell, Pairwise Multiple Comparison Procedures with Unequal N's and/or Variances (1976).
    """
    from scipy import stats

    groups = [finite(s) for s in samples]
    usable = [i for i, g in enumerate(groups) if len(g) >= 2]
    p = np.full((len(groups), len(groups)), np.nan)
    if len(usable) >= 2:
        with quiet():
            p[np.ix_(usable, usable)] = stats.tukey_hsd(*(groups[i] for i in usable), equal_var=False).pvalue
    for i in usable:
        for j in usable:
            if constant(groups[i]) and constant(groups[j]):
                p[i, j] = float(constant(np.concatenate([groups[i], groups[j]])))
    return _rows(p)


def _rows(matrix: np.ndarray) -> Matrix:
    return tuple(tuple(map(float, row)) for row in matrix)
