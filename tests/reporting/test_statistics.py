"""Statistics agree with scipy, published examples and brute force; degenerate samples have defined answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clsim.reporting import ranks, statistics
from clsim.reporting.comparisons import comparisons
from clsim.reporting.report import ReportSpec

pytestmark = pytest.mark.filterwarnings("error")


def sample(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 3, n)


@pytest.mark.parametrize("n", [3, 5, 40])
def test_the_t_interval_is_scipys(n: int) -> None:
    x = sample(n)
    expected = stats.t.interval(0.9, n - 1, loc=x.mean(), scale=stats.sem(x))
    assert statistics.t_interval(x, 0.9) == pytest.approx(expected)
    assert statistics.half_width(x, 0.9) == pytest.approx((expected[1] - expected[0]) / 2)
    assert statistics.standard_deviation(x) == pytest.approx(stats.tstd(x))


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_the_bootstrap_interval_is_scipys_and_the_generator_decides(method: str) -> None:
    x = sample(8)
    found = statistics.bootstrap_interval(x, np.random.default_rng(3), 0.9, method, 999)
    expected = stats.bootstrap(
        (x,), np.mean, confidence_level=0.9, n_resamples=999, method=method, rng=np.random.default_rng(3)
    ).confidence_interval
    assert found == (expected.low, expected.high)
    assert found[0] < x.mean() < found[1]
    assert found == statistics.bootstrap_interval(x, np.random.default_rng(3), 0.9, method, 999)
    assert found != statistics.bootstrap_interval(x, np.random.default_rng(4), 0.9, method, 999)


@pytest.mark.parametrize("n", [3, 5, 6, 20])
def test_paired_tests_are_scipys(n: int) -> None:
    a, b = sample(n, 1), sample(n, 2) + 1
    found = statistics.paired(a, b)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert statistics.paired_t(a, b) == found.p
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert found.difference == pytest.approx((a - b).mean())
    assert (found.n, found.above, found.below) == (n, (a > b).sum(), (a < b).sum())


def test_the_signed_rank_test_is_exact_with_ties_and_zeros() -> None:
    d = np.asarray([1.0, 1.0, 2.0, -1.0, 0.0, 3.0])
    order = stats.rankdata(np.abs(d[d != 0]))
    observed = abs((np.sign(d[d != 0]) * order).sum())
    signs = np.asarray(list(itertools.product([1, -1], repeat=5)))
    expected = (np.abs(signs @ order) >= observed - 1e-9).mean()
    assert statistics.paired(d, np.zeros(6)).p_wilcoxon == pytest.approx(expected)


def test_holm_of_the_textbook() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]) == []
    found = statistics.holm([0.02, math.nan, 0.04])
    assert found[0::2] == pytest.approx([0.04, 0.04])
    assert math.isnan(found[1])


def test_holm_rejects_what_the_sequential_procedure_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.uniform(0, 0.1, 6)
        rejected = set()
        for step, i in enumerate(np.argsort(p)):
            if p[i] >= 0.05 / (6 - step):
                break
            rejected.add(i)
        assert {i for i, q in enumerate(statistics.holm(p)) if q < 0.05} == rejected


@pytest.mark.parametrize(
    ("difference", "power", "seeds"), [(0.5, 0.8, 34), (0.5, 0.95, 54), (0.8, 0.8, 15), (0.2, 0.8, 199)]
)
def test_seeds_needed_are_those_of_the_published_tables(difference: float, power: float, seeds: int) -> None:
    # Faul et al., G*Power 3 (Behavior Research Methods 2007): matched pairs, two-sided, 5 %
    assert statistics.seeds_needed(difference, 1.0, power) == seeds
    assert statistics.seeds_needed(-difference, 1.0, power) == seeds
    assert statistics.power(seeds, difference, 1.0) >= power > statistics.power(seeds - 1, difference, 1.0)


@pytest.mark.parametrize("n", [3, 5, 100, 9999])
@pytest.mark.parametrize("effect", [0.01, 0.5, 3.0, 20.0])
def test_the_power_is_that_of_scipys_noncentral_t(n: int, effect: float) -> None:
    limit = stats.t.isf(0.025, n - 1)
    shift = effect * math.sqrt(n)
    expected = stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift) if shift < 20 else 1
    assert statistics.power(n, effect, 1.0) == pytest.approx(expected, abs=1e-9)


def test_the_power_is_that_of_simulated_tests() -> None:
    x = np.random.default_rng(0).normal(1.0, 1.0, (4000, 8))
    found = int((stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05).sum())
    low, high = stats.binom.interval(0.999, 4000, statistics.power(8, 1.0, 1.0))
    assert low <= found <= high


def test_seeds_needed_at_the_ends() -> None:
    assert statistics.seeds_needed(0.0, 1.0) is None
    assert statistics.seeds_needed(1e-3, 1.0) is None
    assert statistics.seeds_needed(1.0, 0.0) == 3
    assert statistics.seeds_needed(1e9, 1.0) == 3
    assert statistics.seeds_needed(math.nan, 1.0) is None


DEMSAR = """
4 3 2 1
1 2 3 4
4 1 2 3
4 1 3 2
4 2 3 1
1 2.5 4 2.5
3 2 4 1
2.5 2.5 4 1
4 3 2 1
2.5 2.5 2.5 2.5
4 2.5 1 2.5
3 2 4 1
4 1 2 3
3 1 4 2
"""
"""Ranks of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets: Demšar (JMLR 2006), table 6."""


def test_friedman_and_nemenyi_of_demsar() -> None:
    table = np.asarray([line.split() for line in DEMSAR.split("\n") if line], dtype=float)
    found = ranks.friedman(table, higher_is_better=False)
    assert found.average == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    n, k = table.shape
    plain = 12 * n / (k * (k + 1)) * (np.square(found.average).sum() - k * (k + 1) ** 2 / 4)
    assert plain == pytest.approx(9.28, abs=5e-3)
    ties = sum((c**3 - c).sum() for c in (np.unique(row, return_counts=True)[1] for row in table))
    assert found.statistic == pytest.approx(plain / (1 - ties / (n * (k**3 - k))))
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert found.wins[3][0] == 11
    assert found.wins[0][3] == 2


@pytest.mark.parametrize(("arms", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
def test_the_critical_difference_has_demsars_constants(arms: int, q: float) -> None:
    scores = np.random.default_rng(arms).random((12, arms))
    assert ranks.friedman(scores).critical_difference == pytest.approx(q * math.sqrt(arms * (arms + 1) / 72), rel=5e-4)


def test_friedman_is_scipys_and_nemenyis_p_agrees_with_the_critical_difference() -> None:
    scores = np.random.default_rng(1).normal(size=(10, 5)).round(1) + 0.5 * np.arange(5)
    found = ranks.friedman(scores)
    expected = stats.friedmanchisquare(*scores.T)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.average == pytest.approx(stats.rankdata(-scores, axis=1).mean(0))
    for i, j in itertools.permutations(range(5), 2):
        gap = abs(found.average[i] - found.average[j])
        assert (found.p_pairs[i][j] < 0.05) == (gap > found.critical_difference)
        assert found.wins[i][j] == (scores[:, i] > scores[:, j]).sum()
    assert ranks.friedman(-scores, higher_is_better=False).average == found.average


def test_cliques_are_the_longest_runs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        average = np.sort(rng.uniform(1, 6, 6))
        close = [(i, j) for i in range(6) for j in range(i + 1, 6) if average[j] - average[i] < 1.5]
        longest = [(i, j) for i, j in close if not any((a, b) != (i, j) and a <= i and j <= b for a, b in close)]
        assert ranks.cliques(list(average), 1.5) == longest


def test_kruskal_is_scipys() -> None:
    groups = [sample(n, n) for n in (4, 5, 7)]
    assert ranks.kruskal(groups) == pytest.approx(tuple(stats.kruskal(*groups)))


def test_games_howell_follows_its_equation() -> None:
    # t = |m1 − m2| / √(s1²/n1 + s2²/n2), Welch's degrees of freedom, studentised range of t·√2
    groups = [sample(n, n) * scale for n, scale in ((4, 1.0), (5, 1.03), (9, 1.1))]
    found = ranks.games_howell(groups)
    for i, j in itertools.combinations(range(3), 2):
        a, b = groups[i], groups[j]
        u, v = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        degrees = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
        p = stats.studentized_range.sf(abs(a.mean() - b.mean()) / math.sqrt(u + v) * math.sqrt(2), 3, degrees)
        assert found[i][j] == found[j][i] == pytest.approx(p, abs=1e-6)


def test_few_seeds_give_no_interval_and_no_test() -> None:
    for few in ([], [1.0], [1.0, 2.0], [1.0, 2.0, math.nan]):
        assert math.isnan(statistics.half_width(few))
        assert all(map(math.isnan, statistics.t_interval(few)))
        assert all(map(math.isnan, statistics.bootstrap_interval(few, np.random.default_rng(0))))
        found = statistics.paired(few, [0.0] * len(few))
        assert all(map(math.isnan, (found.low, found.high, found.p, found.p_wilcoxon)))
    assert math.isnan(statistics.paired([], []).difference)
    assert statistics.paired([3.0], [1.0]).difference == 2.0
    assert math.isnan(statistics.standard_deviation([1.0]))


def test_constant_values_are_certain() -> None:
    assert statistics.t_interval([0.1] * 5) == pytest.approx((0.1, 0.1))
    assert statistics.bootstrap_interval([0.1] * 5, np.random.default_rng(0)) == (0.1, 0.1)
    same = statistics.paired(sample(5), sample(5))
    assert (same.difference, same.low, same.high, same.p, same.p_wilcoxon) == (0, 0, 0, 1, 1)
    apart = statistics.paired([0.1 + 0.2, 0.5, 0.7], [0.2 + 0.2, 0.6, 0.8])  # − 0.1 each, but for round-off
    assert apart.difference == apart.low == apart.high == pytest.approx(-0.1)
    assert (apart.p, apart.deviation, apart.p_wilcoxon) == (0, 0, 0.25)
    one = statistics.paired([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    assert one.p == pytest.approx(stats.ttest_rel([1, 2, 4], [1, 2, 3]).pvalue)
    assert one.p_wilcoxon == 1


def test_what_is_missing_is_left_out() -> None:
    a, b = sample(6, 1), sample(6, 2)
    gaps = a.copy()
    gaps[[1, 4]] = math.nan, math.inf
    kept = [0, 2, 3, 5]
    assert statistics.paired(gaps, b) == statistics.paired(a[kept], b[kept])
    assert statistics.half_width([*a, math.nan]) == statistics.half_width(a)


def test_degenerate_arms() -> None:
    tie = ranks.friedman([[1.0, 1.0, 1.0]] * 3)
    assert (tie.statistic, tie.p, tie.average) == (0, 1, (2, 2, 2))
    assert ranks.kruskal([[1.0, 1.0], [1.0]]) == (0, 1)
    assert all(map(math.isnan, ranks.kruskal([[1.0], []])))
    found = ranks.games_howell([[1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 2.0], [1.0, 2.0], [5.0]])
    assert found[0][1] == 1
    assert found[0][2] == 0
    assert 0 < found[0][3] < 1
    assert math.isnan(found[0][4])


def study(rng: np.random.Generator, arms: int, seeds: int, better: float = 0.0) -> pd.DataFrame:
    """Runs of equal arms, but for the first; a seed has an effect of its own."""
    of_seed = rng.normal(0, 0.05, seeds)
    rows = [
        {
            "scenario": "s",
            "strategy": "er",
            "label": "–",
            "buffer": f"b{arm}",
            "memory": 100,
            "controller": "–",
            "seed": seed,
            "fingerprint": f"{arm}-{seed}",
            "version": "0",
            "sources": "[]",
            "stream.presentation": "separate",
            "accuracy": 0.5 + of_seed[seed] + rng.normal(0, 0.01) + (better if arm == 0 else 0),
        }
        for arm in range(arms)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("arms", "seeds"), [(2, 5), (3, 5), (4, 6)])
def test_a_null_study_finds_something_in_five_percent_at_most(arms: int, seeds: int) -> None:
    rng = np.random.default_rng(0)
    spec = ReportSpec(metrics=("accuracy",))
    found = 0
    for _ in range(200):
        (contest,) = comparisons(spec, study(rng, arms, seeds))
        assert len(contest.pairs) == arms * (arms - 1) // 2
        found += any(pair.p_holm < 0.05 for pair in contest.pairs)
    low, high = stats.binom.interval(0.95, 200, 0.05)
    assert low <= found <= high, f"{found} of 200"


def test_a_study_with_a_difference_finds_it() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        (contest,) = comparisons(ReportSpec(metrics=("accuracy",)), study(rng, 3, 5, better=0.05))
        first = ("er", "b0", "100")
        found += contest.arms[0] == first and all(pair.p_holm < 0.05 for pair in contest.pairs if pair.a == first)
    assert found >= 45
