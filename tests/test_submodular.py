"""Each set function against its formula, each optimiser against its bound, each selector against brute force."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.selectors import facilities
from clsim.selectors.greedy import SetFunction, maximise
from clsim.selectors.similarity import cosine
from clsim.selectors.submodular import facility_location
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
