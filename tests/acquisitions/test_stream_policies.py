"""Stream policies against a slow second implementation of their equations, and the bounds of their budget managers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from clsim.acquisitions.acquisition import Acquisition
from clsim.acquisitions.nearest_windows import NearestWindow
from clsim.acquisitions.stream_policies import StreamPolicy
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.pool import Pool, Selection
from clsim.spec import registry
from clsim.spec.components import ALIASES, COMPONENTS
from clsim.training.checkpoint import copied
from tests.helpers import assert_same, generator, vectors

CLASSES, WIDTH, W = 4, 7, 100
POLICIES = (
    "fixed-uncertainty",
    "variable-uncertainty",
    "random-variable-uncertainty",
    "split",
    "density-based",
    "cognitive-dual-query",
)
FADING = [name for name in POLICIES if name != "density-based"]


class Stream:
    """Samples whose first coordinates are their logits; the others are where they lie."""

    def __init__(self, n: int, seed: int) -> None:
        rng = generator(seed)
        sharp = torch.rand(n, 1, generator=rng) * 8  # from unsure to sure
        place = torch.randn(n, WIDTH - CLASSES, generator=rng) + 3 * torch.randint(3, (n, 1), generator=rng)
        self.x = torch.cat([sharp * torch.randn(n, CLASSES, generator=rng), place], 1)
        net = nets.build(lambda shape: nn.Identity(), (WIDTH,), torch.ones(1, CLASSES, dtype=torch.bool), 0, CPU)
        with torch.no_grad():
            net.head.weight.copy_(torch.eye(CLASSES, WIDTH))
            net.head.bias.zero_()
        self.net = net
        self.pool = Pool(vectors(self.x), net, lambda x: x)

    def part(self, start: int, stop: int) -> Pool:
        return self.pool[torch.arange(start, min(stop, len(self.x)))]


CPU = torch.device("cpu")


def built(name: str, stream: Stream, budget: float = 0.2, seed: int = 5, **options: Any) -> Acquisition:
    return registry.component("acquisitions", name, options)(stream.net, generator(seed), budget=budget)


def decisions(policy: Acquisition, stream: Stream, size: int = 10**6, start: int = 0, limit: int = 10**9) -> list[bool]:
    """What a policy decides on a stream that comes in batches."""
    asked: list[bool] = []
    for first in range(start, len(stream.x), size):
        pool = stream.part(first, first + size)
        picks = set(policy(pool, limit - sum(asked), rng=generator()).index.tolist())
        asked += [row in picks for row in range(len(pool))]
    return asked


# ------------------------------------------------------------------ the equations again, one sample after the other


def softmax(logits: Sequence[float]) -> list[float]:
    e = [math.exp(value - max(logits)) for value in logits]
    return [value / sum(e) for value in e]


def normal(rng: torch.Generator) -> float:
    return 1 + float(torch.randn(1, generator=rng))


def uniform(rng: torch.Generator) -> float:
    return float(torch.rand(1, generator=rng))


def with_memory(p: list[list[float]], b: float, ask: Callable[[float], bool]) -> list[bool]:
    u, asked = 0.0, []
    for row in p:
        now = u / W < b and ask(max(row))
        u = u * (W - 1) / W + now
        asked.append(now)
    return asked


class Theta:
    def __init__(self) -> None:
        self.value = 1.0

    def ask(self, score: float, eta: float = 1.0) -> bool:
        now = score < self.value * eta
        self.value = self.value * (1 - 0.01) if now else self.value * (1 + 0.01)
        return now


def fixed(p: list[list[float]], x: list[list[float]], b: float, rng: torch.Generator) -> list[bool]:
    return with_memory(p, b, lambda top: top <= 1 / CLASSES + b * (1 - 1 / CLASSES))


def variable(p: list[list[float]], x: list[list[float]], b: float, rng: torch.Generator) -> list[bool]:
    theta = Theta()
    return with_memory(p, b, theta.ask)


def random_variable(p: list[list[float]], x: list[list[float]], b: float, rng: torch.Generator) -> list[bool]:
    theta = Theta()
    return with_memory(p, b, lambda top: theta.ask(top, normal(rng)))


def split(p: list[list[float]], x: list[list[float]], b: float, rng: torch.Generator) -> list[bool]:
    theta = Theta()
    return with_memory(p, b, lambda top: uniform(rng) < b if uniform(rng) < 0.1 else theta.ask(top))


def density_based(p: list[list[float]], x: list[list[float]], b: float, rng: torch.Generator) -> list[bool]:
    theta, window, asked = Theta(), [], []
    for t, (row, place) in enumerate(zip(p, x, strict=True), start=1):
        near = 0
        for member in window:
            distance = math.dist(member["place"], place)
            if distance < member["nearest"]:
                member["nearest"] = distance
                near += 1
        nearest = min((math.dist(member["place"], place) for member in window), default=math.inf)
        window = [*window, {"place": place, "nearest": nearest}][-100:]
        first, second = sorted(row)[-1], sorted(row)[-2]
        asked.append(sum(asked) / t < b and near > 0 and theta.ask(first - second, normal(rng)))
    return asked


def cognitive(p: list[list[float]], x: list[list[float]], b: float, rng: torch.Generator) -> list[bool]:
    theta, window, asked, u = Theta(), [], [], 0.0
    for t, (row, place) in enumerate(zip(p, x, strict=True)):
        distances = [math.dist(member["place"], place) for member in window]
        near = 0
        for member, distance in zip(window, distances, strict=True):
            if distance < member["nearest"]:
                member.update(nearest=distance, hits=member["hits"] + 1, last=t)
                near += 1
        if len(window) == 10:
            strength = [math.exp(-(t - member["last"]) / (member["hits"] + 1)) for member in window]
            window.pop(strength.index(min(strength)))
        window.append({"place": place, "nearest": min(distances, default=math.inf), "hits": 0, "last": t})
        now = False
        if near >= 1:
            now = u / W < b and theta.ask(max(row), normal(rng))
            u = u * (W - 1) / W + now
        asked.append(now)
    return asked


REFERENCES = dict(zip(POLICIES, (fixed, variable, random_variable, split, density_based, cognitive), strict=True))


def check_agrees(policy: Acquisition, name: str, stream: Stream, budget: float, seed: int = 5) -> None:
    p = [softmax(row) for row in stream.x[:, :CLASSES].double().tolist()]
    asked = decisions(policy, stream)
    assert any(asked)
    assert not all(asked)
    assert asked == REFERENCES[name](p, stream.x.double().tolist(), budget, generator(seed))


class AtRandom(StreamPolicy):
    """Asks for a share of all samples, whatever they are. Final."""

    def asks(self, confidence: float, classes: int) -> bool:
        return float(torch.rand(1, generator=self._rng)) < self.budget


class Wild(Acquisition):
    """Asks at random, with the generator of the call, and keeps no account. Final."""

    def __init__(self, budget: float) -> None:
        self.budget = budget

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection((torch.rand(len(pool), generator=rng) < self.budget).nonzero().flatten())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("budget", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("name", POLICIES)
def test_policies_follow_their_equations(name: str, budget: float, seed: int) -> None:
    stream = Stream(700, seed)
    check_agrees(built(name, stream, budget), name, stream, budget)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_asks_at_random_does_not_follow_them(name: str) -> None:
    stream = Stream(700, 0)
    with pytest.raises(AssertionError):
        check_agrees(AtRandom(stream.net, generator(5), budget=0.2), name, stream, 0.2)
    with pytest.raises(AssertionError):
        check_agrees(Wild(0.2), name, stream, 0.2)


def test_all_shipped_policies_are_tested_and_no_selector_has_their_name() -> None:
    assert {*POLICIES} <= {*COMPONENTS["acquisitions"]}
    assert not {*POLICIES} & {*COMPONENTS["selectors"], *ALIASES}


# ------------------------------------------------------------------ budgets


def greediest(n: int, budget: float) -> list[int]:
    """Labels asked for in the first 1 to n samples by one that asks whenever it may: no policy asks for its k-th label
    earlier, since of two equal numbers of labels the earlier ones have faded more."""
    u, total, counts = 0.0, 0, []
    for _ in range(n):
        now = u / W < budget
        u, total = u * (W - 1) / W + now, total + now
        counts.append(total)
    return counts


def check_within(asked: Sequence[bool], most: Sequence[float]) -> None:
    totals = torch.tensor(asked).cumsum(0).tolist()
    assert all(total <= bound for total, bound in zip(totals, most, strict=True))


@pytest.mark.parametrize("budget", [0.01, 0.2, 0.5, 0.97])
def test_the_closed_form_bounds_what_the_budget_manager_lets_through(budget: float) -> None:
    counts = greediest(5000, budget)
    closed = [(W * budget + 1 - budget) * (1 + n / W) for n in range(1, 5001)]
    assert all(count < bound for count, bound in zip(counts, closed, strict=True))
    late = (counts[-1] - counts[999]) / 4000  # in the long run from B − B/w to B + (1 − B)/w
    assert budget - budget / W - 1e-3 <= late <= budget + (1 - budget) / W + 1e-3


@pytest.mark.parametrize("budget", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("name", POLICIES)
def test_no_stream_is_asked_for_more_than_the_budget_lets_through(name: str, budget: float) -> None:
    n = 1500
    exact = [math.ceil(budget * t) for t in range(1, n + 1)]
    for seed in (0, 1):
        stream = Stream(n, seed)
        check_within(decisions(built(name, stream, budget), stream), greediest(n, budget) if name in FADING else exact)
    unsure = Stream(n, 2)
    unsure.x[:, :CLASSES] = 0
    check_within(decisions(built(name, unsure, budget), unsure), greediest(n, budget) if name in FADING else exact)


def test_the_bound_is_reached_where_the_net_is_never_sure() -> None:
    stream = Stream(1500, 0)
    stream.x[:, :CLASSES] = 0
    for name in ("fixed-uncertainty", "variable-uncertainty"):
        asked = decisions(built(name, stream, 0.2), stream)
        totals = torch.tensor(asked).cumsum(0).tolist()
        if name == "fixed-uncertainty":  # the other one's threshold may fall to 1/C
            assert totals == greediest(1500, 0.2)
        assert asked[:23] == [True] * 23  # 100·(1 − .99^22) < 20 <= 100·(1 − .99^23)
        assert not asked[23]


def test_one_that_asks_at_random_breaks_both_bounds() -> None:
    n = 4000
    stream = Stream(n, 0)
    asked = decisions(Wild(0.2), stream)
    with pytest.raises(AssertionError):
        check_within(asked, [math.ceil(0.2 * t) for t in range(1, n + 1)])
    often = decisions(Wild(0.25), stream)
    with pytest.raises(AssertionError):
        check_within(often, greediest(n, 0.2))


@pytest.mark.parametrize("name", POLICIES)
def test_the_budget_of_the_call_is_never_exceeded(name: str) -> None:
    stream = Stream(400, 0)
    for limit in (0, 1, 7):
        for size in (400, 9):
            assert sum(decisions(built(name, stream, 0.6), stream, size, limit=limit)) == limit


def test_fixed_uncertainty_asks_for_all_where_the_budget_is_all() -> None:
    stream = Stream(6000, 0)  # so long that the memory of spending is rounded to w
    stream.x[:, :CLASSES] *= 100  # certain of most
    assert all(decisions(built("fixed-uncertainty", stream, 1.0), stream))
    assert not all(decisions(built("fixed-uncertainty", stream, 0.97), stream))
    assert not all(decisions(AtRandom(stream.net, generator(5), budget=0.97), stream))


# ------------------------------------------------------------------ batches and resumes


def check_batches(make: Callable[[], Acquisition], stream: Stream) -> None:
    whole = decisions(make(), stream)
    assert 0 < sum(whole) < len(whole)
    for size in (1, 3, 64, 150):
        assert decisions(make(), stream, size) == whole


@pytest.mark.parametrize("name", POLICIES)
def test_where_a_batch_ends_does_not_change_decisions(name: str) -> None:
    stream = Stream(500, 3)
    check_batches(lambda: built(name, stream), stream)


def test_one_that_asks_at_random_depends_on_where_a_batch_ends() -> None:
    stream = Stream(500, 3)
    with pytest.raises(AssertionError):
        check_batches(lambda: Wild(0.2), stream)


def check_resumes(make: Callable[[int], Acquisition], stream: Stream) -> None:
    whole = decisions(make(5), stream)
    for cut in (0, 1, 11, 130, 250):
        first, second = make(5), make(6)
        until = Stream(cut, 0)
        until.x, until.pool = stream.x[:cut], stream.pool
        begun = decisions(first, until, 7)
        state = copied(first.state_dict())
        second.load_state_dict(state)
        assert_same(second.state_dict(), state)
        assert begun + decisions(second, stream, 7, start=cut) == whole


@pytest.mark.parametrize("name", POLICIES)
def test_a_stream_that_is_cut_goes_on_as_if_it_were_not(name: str) -> None:
    stream = Stream(300, 4)
    check_resumes(lambda seed: built(name, stream, seed=seed), stream)


def test_a_policy_without_its_state_does_not_go_on() -> None:
    stream = Stream(300, 4)

    class Forgetful(AtRandom):
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    with pytest.raises(AssertionError):
        check_resumes(lambda seed: Forgetful(stream.net, generator(seed), budget=0.2), stream)


# ------------------------------------------------------------------ what is particular


def test_the_random_share_of_split_is_asked_for_with_probability_b() -> None:
    stream = Stream(3000, 0)
    stream.x[:, 0] = 300.0  # the net is certain of all, so that no threshold asks
    asked = decisions(built("split", stream, 0.5, v=1.0, w=10**6), stream)
    assert abs(sum(asked) - 1500) < 4 * math.sqrt(3000 / 4)
    few = decisions(built("split", stream, 0.5, v=0.1, theta=0.5, s=0.0), stream)
    assert abs(sum(few) - 150) < 4 * math.sqrt(150)


def test_fixed_uncertainty_counts_the_classes_of_the_task() -> None:
    visible = torch.tensor([[True, True, False, False], [True, True, True, True]])
    net = nets.build(lambda shape: nn.Identity(), (CLASSES,), visible, 0, CPU)
    with torch.no_grad():
        net.head.weight.copy_(torch.eye(CLASSES))
        net.head.bias.zero_()
    x = torch.tensor([[0.575, 0.425, 1e-9, 1e-9]]).log().repeat(2, 1)  # with B = .2: .6 of two classes, .4 of four
    data = vectors(x)
    data.task[1] = 1
    policy = registry.component("acquisitions", "fixed-uncertainty")(net, generator(), budget=0.2)
    assert policy(Pool(data, net, lambda x: x), 2, rng=generator()).index.tolist() == [0]


def test_windows_count_what_brute_force_counts() -> None:
    x = torch.randn(400, 3, generator=generator(1))
    x[100:120] = x[:20]  # copies: their distance is 0, and a second copy is no nearer
    window, members = NearestWindow(25, "oldest"), []
    counts = [count for part in x.split(37) for count in window.counts(part)]
    expected = []
    for i in range(400):
        distances = {j: math.dist(x[i].tolist(), x[j].tolist()) for j in members}
        others = {
            j: min((math.dist(x[j].tolist(), x[k].tolist()) for k in range(max(0, j - 25), i) if k != j), default=9e9)
            for j in members
        }
        expected.append(sum(distances[j] < others[j] for j in members))
        members = [*members, i][-25:]
    assert counts == expected


def test_the_window_of_the_dual_query_forgets_the_weakest() -> None:
    """Far samples are never hit and leave; one that is hit again and again stays, though it is the oldest."""
    window = NearestWindow(3, "weakest")
    place = torch.tensor([0.0, 1000.0, 0.9, -2000.0, 0.8, 5000.0, 0.7, 9000.0, 0.6])
    assert window.counts(place[:, None]) == [0, 1, 2, 0, 1, 0, 2, 0, 1]  # by hand, as what is left
    assert window.state_dict()["members"].flatten().tolist() == place[[0, 7, 8]].tolist()


@pytest.mark.parametrize(
    ("name", "option", "found"),
    [
        ("split", {"v": 1.5}, "v: found 1.5"),
        ("variable-uncertainty", {"s": -0.1}, "s: found -0.1"),
        ("fixed-uncertainty", {"w": 0}, "w: found 0"),
        ("density-based", {"space": "pixels"}, "option 'space' of density-based: found 'pixels'"),
        ("cognitive-dual-query", {"rule": "variabel"}, "did you mean 'variable'"),
    ],
)
def test_wrong_options_are_refused(name: str, option: dict[str, Any], found: str) -> None:
    stream = Stream(5, 0)
    with pytest.raises(InputError, match=found):
        built(name, stream, **option)
    with pytest.raises(InputError, match="budget: found 2, allowed: a share from 0 to 1"):
        built(name, stream, 2.0)


@pytest.mark.parametrize("rule", ["fixed", "variable", "random"])
def test_the_dual_query_takes_every_rule(rule: str) -> None:
    """With a window that lets all but the first sample through, it is that rule alone."""
    stream = Stream(400, 6)
    plain = {"fixed": "fixed-uncertainty", "variable": "variable-uncertainty"}
    policy = built("cognitive-dual-query", stream, rule=rule, density_threshold=0)
    alone = built(plain[rule], stream) if rule in plain else AtRandom(stream.net, generator(5), budget=0.2)
    assert decisions(policy, stream) == decisions(alone, stream)


def test_the_full_budget_of_the_dual_query_lets_more_through() -> None:
    stream = Stream(3000, 7)
    few, more = (
        sum(decisions(built("cognitive-dual-query", stream, force_full_budget=full), stream)) for full in (False, True)
    )
    assert few < more <= greediest(3000, 0.2)[-1]
