"""Each set function against its formula, each optimiser against its bound, each selector against brute force."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.checks.selectors import check_selector
from clsim.errors import InputError
from clsim.selectors import facilities, functions
from clsim.selectors.craig import craig, shares
from clsim.selectors.greedy import SetFunction, maximise
from clsim.selectors.similarity import cosine
from clsim.selectors.submodular import (
    cut,
    disparity_min,
    disparity_sum,
    facility_location,
    feature_based,
    graph_cut,
    log_det,
)
from clsim.spec import registry
from tests.helpers import generator, pool_of

Formula = Callable[[Sequence[int]], float]


def clustered(n: int, d: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points around a dozen centres: on isotropic ones, ties decide."""
    rng = generator(seed)
    centres = 2 * torch.randn(12, d, generator=rng, dtype=dtype)
    return centres[torch.randint(12, (n,), generator=rng)] + torch.randn(n, d, generator=rng, dtype=dtype)


def similar(x: Tensor) -> Tensor:
    return (1 + F.normalize(x) @ F.normalize(x).T) / 2


def located(s: Tensor) -> Formula:
    return lambda chosen: float(s[:, list(chosen)].max(1).values.sum()) if len(chosen) else 0.0


def optimum(formula: Formula, n: int, budget: int) -> float:
    return max(formula(chosen) for chosen in combinations(range(n), budget))


def assert_greedy(formula: Formula, n: int, picks: Tensor, tolerance: float = 1e-9) -> None:
    """Each pick has the largest gain, evaluated from scratch."""
    taken: list[int] = []
    for pick in picks.tolist():
        values = [formula([*taken, j]) for j in range(n) if j not in taken]
        taken.append(pick)
        assert formula(taken) >= max(values) - tolerance


def assert_gains(function: SetFunction, formula: Formula, picks: Sequence[int], tolerance: float = 1e-9) -> None:
    """All gains are differences of the formula, at every set on the way."""
    taken: list[int] = []
    for pick in picks:
        left = [j for j in range(len(function)) if j not in taken]
        expected = torch.tensor([formula([*taken, j]) - formula(taken) for j in left], dtype=torch.float64)
        assert torch.allclose(function.gains()[left], expected, atol=tolerance, rtol=0)
        assert torch.allclose(function.gains(torch.tensor(left[::2])), expected[::2], atol=tolerance, rtol=0)
        function.add(torch.tensor(pick))
        taken.append(pick)


BOUND = 1 - 1 / math.e


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("optimiser", ["naive", "lazy"])
def test_facility_location_is_within_its_bound_of_the_best(seed: int, optimiser: str) -> None:
    x = clustered(12, seed=seed)
    picks = facility_location(pool_of(x.float()), 3, rng=generator(), optimiser=optimiser).index
    formula = located(similar(x))
    assert formula(picks.tolist()) >= BOUND * optimum(formula, 12, 3)
    assert_greedy(formula, 12, picks, 1e-5)


@pytest.mark.parametrize("floored", [False, True])
def test_gains_of_facility_location_are_those_of_its_formula(floored: bool) -> None:
    x = clustered(40)
    s, rng = similar(x), generator(1)
    floor, cap = torch.rand(2, 40, generator=rng, dtype=torch.float64)
    modular = torch.rand(40, generator=rng, dtype=torch.float64)

    def formula(chosen: Sequence[int]) -> float:
        best = s[:, list(chosen)].max(1).values if chosen else torch.zeros(40)
        return float((torch.minimum(best, cap) - floor).clamp_min(0).sum() + modular[list(chosen)].sum())

    picks = [3, 17, 0, 30, 8]
    if floored:
        assert_gains(facilities.Dense(s, floor, cap, modular), formula, picks)
    else:
        for function in (
            facilities.Dense(cosine(x).matrix()),
            facilities.Blocks(cosine(x), cosine(x)),
            facilities.Sparse(cosine(x), cosine(x), 40),
        ):
            assert_gains(function, located(s), picks)


def test_sparse_gains_are_lower_bounds_until_all_are_served_and_exact_from_then() -> None:
    x = clustered(60)
    s = similar(x)
    sparse, exact = facilities.Sparse(cosine(x), cosine(x), 12), facilities.Dense(s)
    last, exact_at = s.topk(12, 1).values[:, -1], None
    for step, pick in enumerate(torch.randperm(60, generator=generator()).tolist()):
        assert bool((sparse.gains() <= exact.gains() + 1e-12).all())
        assert torch.allclose(sparse.service, exact.service)
        if bool((exact.service >= last).all()):
            exact_at = step if exact_at is None else exact_at
            assert torch.allclose(sparse.gains(), exact.gains(), atol=1e-12)
        sparse.add(torch.tensor(pick))
        exact.add(torch.tensor(pick))
    assert exact_at is not None
    assert 1 < exact_at < 50


class Counted:
    """Facility location asked anew each time; counts how many gains it gave."""

    submodular = True
    incremental = False
    device = torch.device("cpu")

    def __init__(self, s: Tensor) -> None:
        self.s, self.service, self.asked = s, s.new_zeros(len(s)), 0

    def __len__(self) -> int:
        return self.s.shape[1]

    def gains(self, rows: Tensor | None = None) -> Tensor:
        s = self.s if rows is None else self.s[:, rows]
        self.asked += s.shape[1]
        return (s - self.service[:, None]).clamp_min(0).sum(0)

    def add(self, row: Tensor) -> None:
        self.service = torch.maximum(self.service, self.s[:, row])


@pytest.mark.parametrize("seed", range(3))
def test_lazy_takes_what_naive_takes_and_asks_far_fewer(seed: int) -> None:
    s = (similar(clustered(200, seed=seed)) * 1024).round() / 1024  # sums are exact, so that ties are ties
    naive = maximise(facilities.Dense(s), 80, rng=generator(), optimiser="naive")
    counted = Counted(s)
    assert torch.equal(maximise(counted, 80, rng=generator()), naive)
    assert 200 <= counted.asked < 80 * 200 / 5
    assert torch.equal(maximise(facilities.Dense(s), 80, rng=generator(), optimiser="lazy"), naive)


def test_lazy_blocks_reach_what_naive_reaches_at_every_size() -> None:
    x = clustered(150)
    formula = located(similar(x))
    naive = maximise(facilities.Dense(similar(x)), 60, rng=generator(), optimiser="naive").tolist()
    lazy = maximise(facilities.Blocks(cosine(x), cosine(x)), 60, rng=generator(), optimiser="lazy").tolist()
    assert [formula(lazy[:k]) for k in range(61)] == pytest.approx([formula(naive[:k]) for k in range(61)], rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_stochastic_and_approximate_greedy_keep_their_bounds(epsilon: float) -> None:
    ratios = []
    for seed in range(20):
        s = similar(clustered(14, seed=seed))
        formula = located(s)
        best = optimum(formula, 14, 3)
        drawn = maximise(facilities.Dense(s), 3, rng=generator(seed), optimiser="stochastic", epsilon=epsilon)
        ratios.append(formula(drawn.tolist()) / best)
        near = maximise(facilities.Dense(s), 3, rng=generator(), optimiser="approximate-lazy", epsilon=epsilon)
        assert formula(near.tolist()) >= (1 - math.exp(epsilon - 1)) * best
    assert sum(ratios) / len(ratios) >= BOUND - epsilon


@pytest.mark.parametrize("optimiser", ["stochastic", "approximate-lazy"])
def test_cheaper_optimisers_come_close_to_greedy_and_not_by_being_it(optimiser: str) -> None:
    s = similar(clustered(400))
    formula = located(s)
    greedy = maximise(facilities.Dense(s), 40, rng=generator())
    cheap = maximise(facilities.Dense(s), 40, rng=generator(), optimiser=optimiser)
    assert len(cheap.unique()) == 40
    assert not torch.equal(cheap, greedy)
    assert formula(cheap.tolist()) >= 0.99 * formula(greedy.tolist())


def test_stochastic_draws_from_its_generator_and_reaches_every_candidate() -> None:
    s = similar(clustered(30))
    one, same, other = (
        maximise(facilities.Dense(s), 10, rng=generator(seed), optimiser="stochastic") for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    everything = maximise(facilities.Dense(s), 30, rng=generator(), optimiser="stochastic")
    assert everything.sort().values.tolist() == list(range(30))


class Broken:
    """Modular, with a gain that is NaN; said not to be submodular."""

    submodular = False
    incremental = True
    device = torch.device("cpu")

    def __len__(self) -> int:
        return 4

    def gains(self, rows: Tensor | None = None) -> Tensor:
        gains = torch.tensor([-1.0, torch.nan, 2.0, 2.0], dtype=torch.float64)
        return gains if rows is None else gains[rows]

    def add(self, row: Tensor) -> None:
        pass


def test_ties_go_to_the_earlier_row_and_nan_goes_last() -> None:
    assert maximise(Broken(), 4, rng=generator()).tolist() == [2, 3, 0, 1]


def test_lazy_refuses_what_is_not_submodular() -> None:
    with pytest.raises(InputError, match="needs a submodular function; allowed: naive, stochastic"):
        maximise(Broken(), 2, rng=generator(), optimiser="lazy")
    with pytest.raises(InputError, match="epsilon is 1, allowed: above 0 and below 1"):
        maximise(Broken(), 2, rng=generator(), epsilon=1)


@pytest.mark.parametrize("similarities", ["dense", "blocks", "sparse"])
def test_facility_location_reaches_the_same_value_in_every_form(similarities: str) -> None:
    x = clustered(500, 16, dtype=torch.float32)
    formula = located(similar(x.double()))
    reference = formula(facility_location(pool_of(x), 50, rng=generator()).index.tolist())
    kept = facility_location(pool_of(x), 50, rng=generator(), similarities=similarities).index
    assert formula(kept.tolist()) == pytest.approx(reference, rel=1e-3)
    drawn = torch.randperm(500, generator=generator())[:50].tolist()
    assert formula(drawn) < 0.99 * reference


def test_facility_location_of_drawn_clients_is_near_that_of_all() -> None:
    x = clustered(2000, 8, dtype=torch.float32)
    formula = located(similar(x.double()))
    whole = formula(facility_location(pool_of(x), 12, rng=generator()).index.tolist())
    part = facility_location(pool_of(x), 12, rng=generator(), similarities="sparse", clients=300).index
    assert formula(part.tolist()) >= 0.98 * whole


def formulas(s: Tensor, x: Tensor) -> dict[str, Formula]:
    """Of one kernel, straight from the definitions."""
    d = 1 - s

    def sub(matrix: Tensor, chosen: Sequence[int]) -> Tensor:
        return matrix[list(chosen)][:, list(chosen)]

    def closest(chosen: Sequence[int]) -> float:
        return float(min(d[i, j] for i in chosen for j in chosen if i != j)) if len(chosen) > 1 else 0.0

    return {
        "graph-cut": lambda a: float(s[:, list(a)].sum() - 0.5 * sub(s, a).sum()),
        "graph-cut of 0.2": lambda a: float(s[:, list(a)].sum() - 0.2 * sub(s, a).sum()),
        "log-det": lambda a: float(torch.logdet(torch.eye(len(a), dtype=s.dtype) + sub(s, a))) if len(a) else 0.0,
        "disparity-sum": lambda a: float(sub(d, a).triu(1).sum()),
        "disparity-min": closest,
        "feature-based": lambda a: float(x[list(a)].sum(0).sqrt().sum()),
        "feature-based by log": lambda a: float(x[list(a)].sum(0).log1p().sum()),
        "feature-based by inverse": lambda a: float((1 - 1 / (1 + x[list(a)].sum(0))).sum()),
    }


def set_function(name: str, x: Tensor) -> SetFunction:
    samples = cosine(x)
    none = torch.zeros(len(x), dtype=torch.float64)
    makers: dict[str, Callable[[], SetFunction]] = {
        "graph-cut": lambda: cut(samples, 0.5),
        "graph-cut of 0.2": lambda: cut(samples, 0.2),
        "log-det": lambda: functions.LogDet(samples.diagonal(), samples.column, 1.0),
        "disparity-sum": lambda: functions.Quadratic(none, lambda row: 1 - samples.column(row), 1.0),
        "disparity-min": lambda: functions.DisparityMin(len(x), samples.column, x.device),
        "feature-based": lambda: functions.Concave(x, "sqrt"),
        "feature-based by log": lambda: functions.Concave(x, "log"),
        "feature-based by inverse": lambda: functions.Concave(x, "inverse"),
    }
    return makers[name]()


NAMES = list(formulas(torch.eye(1), torch.ones(1, 1)))
SUBMODULAR = [name for name in NAMES if not name.startswith("disparity")]


@pytest.mark.parametrize("name", NAMES)
def test_gains_are_those_of_the_formula(name: str) -> None:
    x = clustered(30).abs()
    assert_gains(set_function(name, x), formulas(similar(x), x)[name], [4, 29, 0, 11, 12, 7, 20])


@pytest.mark.parametrize("name", SUBMODULAR)
@pytest.mark.parametrize("seed", range(3))
def test_greedy_is_within_its_bound_of_the_best(name: str, seed: int) -> None:
    x = clustered(11, seed=seed).abs()
    formula = formulas(similar(x), x)[name]
    picks = maximise(set_function(name, x), 4, rng=generator())
    assert formula(picks.tolist()) >= BOUND * optimum(formula, 11, 4)


@pytest.mark.parametrize("name", ["facility-location", *SUBMODULAR])
def test_returns_diminish_for_what_is_called_submodular(name: str) -> None:
    x = clustered(8).abs()
    s = similar(x)
    formula = located(s) if name == "facility-location" else formulas(s, x)[name]
    assert name == "facility-location" or set_function(name, x).submodular
    for a in range(
        1 << 8
    ):  # every A and every pair j, k outside of it: f(j | A) ≥ f(j | A ∪ k), which is submodularity
        inside = [i for i in range(8) if a >> i & 1]
        outside = [i for i in range(8) if not a >> i & 1]
        for j, k in combinations(outside, 2):
            both = formula([*inside, j, k]) + formula(inside)
            assert both <= formula([*inside, j]) + formula([*inside, k]) + 1e-9


def test_disparity_min_and_sum_are_not_submodular_and_lazy_refuses_them() -> None:
    x = clustered(8).abs()
    for name in ("disparity-min", "disparity-sum"):
        formula = formulas(similar(x), x)[name]  # alone each adds nothing; beside another one it does
        assert formula([0, 1]) - formula([1]) > formula([0]) - formula([]) == 0
        assert not set_function(name, x).submodular
        with pytest.raises(InputError, match="needs a submodular function"):
            maximise(set_function(name, x), 3, rng=generator(), optimiser="lazy")


def test_a_lazy_walk_would_be_wrong_for_disparity_min() -> None:
    x = clustered(30).abs()
    formula = formulas(similar(x), x)["disparity-min"]
    function = set_function("disparity-min", x)
    bounds = function.gains().clone()
    function.add(torch.tensor(0))
    assert bool((function.gains()[1:] > bounds[1:]).all())  # what lazy takes for upper bounds are none
    assert formula([0, 1]) > 0


@pytest.mark.parametrize("name", SUBMODULAR)
def test_lazy_reaches_what_naive_reaches(name: str) -> None:
    x = clustered(120).abs()
    formula = formulas(similar(x), x)[name]
    naive, lazy = (maximise(set_function(name, x), 25, rng=generator(), optimiser=o) for o in ("naive", "lazy"))
    assert [formula(naive[:k].tolist()) for k in (5, 12, 25)] == pytest.approx(
        [formula(lazy[:k].tolist()) for k in (5, 12, 25)], rel=1e-9
    )


@pytest.mark.parametrize("name", ["graph-cut", "log-det", "disparity-sum", "disparity-min", "feature-based"])
def test_a_selector_takes_the_best_of_its_formula_each_time(name: str) -> None:
    select = {
        "graph-cut": graph_cut,
        "log-det": log_det,
        "disparity-sum": disparity_sum,
        "disparity-min": disparity_min,
        "feature-based": feature_based,
    }[name]
    x = clustered(40, dtype=torch.float32)
    unit = F.normalize(x.double())
    both_signs = torch.cat([unit.clamp_min(0), (-unit).clamp_min(0)], 1)
    formula = formulas(similar(x.double()), both_signs)[name]
    picks = select(pool_of(x), 12, rng=generator()).index  # type: ignore[operator]
    assert_greedy(formula, 40, picks, 1e-5)
    drawn = [formula(torch.randperm(40, generator=generator(seed))[:12].tolist()) for seed in range(20)]
    assert formula(picks.tolist()) > max(drawn)


@pytest.mark.parametrize("seed", range(5))
def test_disparity_min_is_within_half_of_the_best_distance(seed: int) -> None:
    x = clustered(12, seed=seed)
    formula = formulas(similar(x), x)["disparity-min"]
    picks = disparity_min(pool_of(x.float()), 4, rng=generator()).index.tolist()
    assert formula(picks) ** 0.5 >= optimum(formula, 12, 4) ** 0.5 / 2 - 1e-6


@pytest.mark.parametrize("ridge", [0.01, 1.0, 10.0])
def test_log_det_with_a_ridge_is_greedy_for_either_form(ridge: float) -> None:
    x = clustered(30, dtype=torch.float32)
    s = similar(x.double())
    picks = log_det(pool_of(x), 10, rng=generator(), ridge=ridge).index

    def normalised(chosen: Sequence[int]) -> float:
        return float(torch.logdet(torch.eye(len(chosen)).double() + s[list(chosen)][:, list(chosen)] / ridge))

    assert_greedy(normalised, 30, picks, 1e-5)


def test_log_det_leaves_exact_duplicates_for_last() -> None:
    x = clustered(10, d=20).repeat(3, 1)
    picks = log_det(pool_of(x.float()), 30, rng=generator(), ridge=1e-3).index
    assert (picks[:10] % 10).sort().values.tolist() == list(range(10))


@pytest.mark.parametrize("representation", ["features", "gradients", "hypothetical"])
def test_the_representation_is_what_is_compared(representation: str) -> None:
    x, y = clustered(40, dtype=torch.float32), torch.arange(40) % 3
    pool = pool_of(x, y)
    compared = {
        "features": lambda: x,
        "gradients": lambda: pool.gradients.dense().flatten(1),
        "hypothetical": lambda: pool.hypothetical_gradients.dense().flatten(1),
    }[representation]()
    picks = graph_cut(pool, 8, rng=generator(), representation=representation).index  # type: ignore[arg-type]
    assert_greedy(formulas(similar(compared.double()), x)["graph-cut"], 40, picks, 1e-4)
    picks = facility_location(pool, 8, rng=generator(), representation=representation).index  # type: ignore[arg-type]
    assert_greedy(located(similar(compared.double())), 40, picks, 1e-4)


@pytest.mark.parametrize("factors", [1, 2])
def test_the_kernel_in_all_its_forms(factors: int) -> None:
    q, h = clustered(1300, 5), clustered(1300, 7, seed=1)
    q[3] = 0
    samples = cosine(q) if factors == 1 else cosine(q, h)
    dense = q if factors == 1 else (q[:, :, None] * h[:, None, :]).flatten(1)
    s = similar(dense)
    assert torch.allclose(samples.matrix(), s)
    assert torch.equal(samples.matrix(), samples.matrix().T)
    assert torch.allclose(samples[:50].similarity(samples[40:]), s[:50, 40:])
    assert torch.allclose(samples.sums(), s.sum(0))
    assert torch.allclose(samples.column(torch.tensor(7)), s[:, 7])
    assert torch.allclose(samples.diagonal(), s.diagonal())


@pytest.mark.parametrize("budget", [10, 30, 60])
def test_craig_weighs_each_pick_by_the_samples_nearest_to_it(budget: int) -> None:
    x, y = clustered(60, dtype=torch.float32), (torch.arange(60) % 10).clamp_max(2)
    pool = pool_of(x, y)
    selection = craig(pool, budget, rng=generator())
    index, weight = selection.index, selection.weight
    assert weight is not None
    assert weight.sum() == 60
    assert bool((weight >= 1).all())
    dense = pool.gradients.dense().flatten(1).double()
    distances = torch.cdist(dense, dense[index])
    for label in range(3):
        mine = y == label
        assert weight[y[index] == label].sum() == mine.sum()
        inside = distances[mine][:, y[index] == label]
        assert inside.argmin(1).bincount(minlength=inside.shape[1]).tolist() == weight[y[index] == label].tolist()
    assert y[index].bincount().tolist() == shares(y.bincount(), budget).tolist()


def test_craig_is_greedy_in_each_class_and_its_bound_on_the_gradient_holds() -> None:
    x, y = clustered(60, dtype=torch.float32), torch.arange(60) % 2
    pool = pool_of(x, y)
    selection = craig(pool, 12, rng=generator())
    dense = pool.gradients.dense().flatten(1).double()
    for label in (0, 1):
        rows = (y == label).nonzero().flatten()
        distances = torch.cdist(dense[rows], dense[rows])
        closeness = 2 * dense[rows].norm(dim=1).max() - distances
        mine = selection.index[y[selection.index] == label]
        assert_greedy(located(closeness), 30, torch.searchsorted(rows, mine), 1e-4)
    assert selection.weight is not None
    own = y[:, None] == y[selection.index]
    error = (dense.sum(0) - (selection.weight.double()[:, None] * dense[selection.index]).sum(0)).norm()
    bound = torch.cdist(dense, dense[selection.index]).masked_fill(~own, torch.inf).min(1).values.sum()
    assert error <= bound + 1e-6
    drawn = torch.randperm(60, generator=generator())[:12]
    assert bound < torch.cdist(dense, dense[drawn]).min(1).values.sum()


def test_craig_stands_for_the_classes_that_got_a_pick_and_for_the_unlabelled() -> None:
    x, y = clustered(40, dtype=torch.float32), torch.arange(40) % 4
    selection = craig(pool_of(x, y), 2, rng=generator())
    assert selection.weight is not None
    assert selection.weight.tolist() == [10, 10]
    pool = pool_of(x, y)
    hidden = pool_of(x, pool.predictions.where(torch.arange(40) % 2 == 0, -1))
    told = pool_of(x, pool.predictions)
    assert torch.equal(craig(hidden, 8, rng=generator()).index, craig(told, 8, rng=generator()).index)


def test_no_option_is_taken_that_makes_no_sense() -> None:
    pool = pool_of(clustered(10, dtype=torch.float32))
    with pytest.raises(InputError, match="ridge is 0, allowed: above 0"):
        log_det(pool, 3, rng=generator(), ridge=0)
    with pytest.raises(InputError, match="penalty is -1, allowed: 0 and more"):
        graph_cut(pool, 3, rng=generator(), penalty=-1)
    with pytest.raises(InputError, match="psi is 'cube', allowed: sqrt, log, inverse"):
        feature_based(pool, 3, rng=generator(), psi="cube")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="similarities is 'all', allowed: auto, dense, blocks, sparse"):
        facility_location(pool, 3, rng=generator(), similarities="all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="optimiser is 'fast', allowed: auto, naive"):
        facility_location(pool, 3, rng=generator(), optimiser="fast")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="clients is 0, allowed: 1 and more"):
        facility_location(pool, 3, rng=generator(), clients=0)


@pytest.mark.parametrize("optimiser", ["naive", "lazy", "approximate-lazy", "stochastic"])
@pytest.mark.parametrize("similarities", ["dense", "blocks", "sparse"])
def test_the_contract_holds_in_every_form(similarities: str, optimiser: str) -> None:
    options = {"similarities": similarities, "optimiser": optimiser}
    check_selector(registry.component("selectors", "facility-location", options), reads_labels=False)


@pytest.mark.parametrize("name", ["graph-cut", "log-det", "feature-based", "craig"])
@pytest.mark.parametrize("optimiser", ["lazy", "approximate-lazy", "stochastic"])
def test_the_contract_holds_with_every_optimiser(name: str, optimiser: str) -> None:
    check_selector(registry.component("selectors", name, {"optimiser": optimiser}))
