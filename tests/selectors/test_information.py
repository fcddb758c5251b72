"""SIMILAR's ten measures against their formulas and submodlib; where their query and private sets come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.pool import Pool, Selection
from clsim.selectors import information, targets
from clsim.selectors.greedy import SetFunction
from tests.helpers import generator, vectors
from tests.selectors.test_submodular import assert_greedy, clustered

N, CLASSES, DIM = 24, 4, 6
ETA, NU, RIDGE = 0.8, 0.6, 0.7
TEN = ["flvmi", "flqmi", "gcmi", "logdetmi", "com", "flcg", "gccg", "logdetcg", "flcmi", "logdetcmi"]
OPTIONS: dict[str, dict[str, Any]] = {
    "flvmi": {"eta": ETA},
    "flqmi": {"eta": ETA},
    "gcmi": {},
    "logdetmi": {"eta": ETA, "ridge": RIDGE},
    "com": {"eta": ETA},
    "flcg": {"nu": NU},
    "gccg": {"nu": NU, "penalty": 0.3},
    "logdetcg": {"nu": NU, "ridge": RIDGE},
    "flcmi": {"eta": ETA, "nu": NU},
    "logdetcmi": {"eta": ETA, "nu": NU, "ridge": RIDGE},
}


def pool_with(**beside: Any) -> Pool:
    visible = torch.ones(1, CLASSES, dtype=torch.bool)
    net = nets.build(lambda shape: nn.Identity(), (DIM,), visible, 0, torch.device("cpu"))
    x = clustered(N, DIM, dtype=torch.float32)
    return Pool(vectors(x, torch.arange(N) % CLASSES), net, lambda x: x, **beside)


def pool_and_sets() -> Pool:
    x = clustered(9, DIM, seed=5, dtype=torch.float32)
    query, private = vectors(x[:5], torch.tensor([0, 1, 0, 2, 1])), vectors(x[5:], torch.tensor([3, 2, 3, 3]))
    return pool_with(query=query, private=private)


def embedded(pool: Pool, *, predicted: bool) -> Tensor:
    gradients = pool.hypothetical_gradients if predicted else pool.gradients
    return F.normalize(gradients.dense().flatten(1).double())


def kernels(pool: Pool) -> tuple[Tensor, ...]:
    """S, SQ, SP, QQ, QP, PP, float64, from dense gradients."""
    assert pool.query is not None
    assert pool.private is not None
    v, q, p = (
        embedded(pool, predicted=True),
        embedded(pool.query, predicted=False),
        embedded(pool.private, predicted=False),
    )
    return tuple((1 + a @ b.T) / 2 for a, b in ((v, v), (v, q), (v, p), (q, q), (q, p), (p, p)))


def logdet(matrix: Tensor) -> float:
    return float(torch.logdet(matrix)) if len(matrix) else 0.0


def formula(name: str, pool: Pool) -> Callable[[Sequence[int]], float]:
    s, sq, sp, qq, qp, pp = kernels(pool)

    def best(chosen: list[int]) -> Tensor:
        return s[:, chosen].amax(1) if chosen else torch.zeros(len(s)).double()

    def ridged(matrix: Tensor) -> Tensor:
        return matrix + RIDGE * torch.eye(len(matrix)).double()

    def conditioned(a: list[int], cross: Tensor, within: Tensor) -> Tensor:
        return ridged(s[a][:, a]) - cross[a] @ ridged(within).inverse() @ cross[a].T

    def joint(a: list[int], with_query: bool) -> float:
        blocks = [[s[a][:, a], NU * sp[a], ETA * sq[a]], [NU * sp[a].T, pp, qp.T], [ETA * sq[a].T, qp, qq]]
        size = 3 if with_query else 2
        return logdet(ridged(torch.cat([torch.cat(row[:size], 1) for row in blocks[:size]])))

    def com(a: list[int]) -> float:
        return float(ETA * sq[a].sum(1).sqrt().sum() + sq[a].sum(0).sqrt().sum())

    measures: dict[str, Callable[[list[int]], float]] = {
        "flvmi": lambda a: float(torch.minimum(best(a), ETA * sq.amax(1)).sum()),
        "flqmi": lambda a: float(sq[a].amax(0).sum() + ETA * sq[a].amax(1).sum()) if a else 0.0,
        "gcmi": lambda a: float(2 * sq[a].sum()),
        "logdetmi": lambda a: logdet(ridged(s[a][:, a])) - logdet(conditioned(a, ETA * sq, qq)),
        "com": com,
        "flcg": lambda a: float((best(a) - NU * sp.amax(1)).clamp_min(0).sum()),
        "gccg": lambda a: float(s[:, a].sum() - 0.3 * s[a][:, a].sum() - 2 * 0.3 * NU * sp[a].sum()),
        "logdetcg": lambda a: logdet(conditioned(a, NU * sp, pp)),
        "flcmi": lambda a: float((torch.minimum(best(a), ETA * sq.amax(1)) - NU * sp.amax(1)).clamp_min(0).sum()),
        "logdetcmi": lambda a: (
            joint(a, False)
            + logdet(ridged(torch.cat([torch.cat([qq, qp], 1), torch.cat([qp.T, pp], 1)])))
            - logdet(ridged(pp))
            - joint(a, True)
        ),
    }
    return lambda chosen: measures[name](list(chosen))


def function_of(name: str, pool: Pool, monkeypatch: pytest.MonkeyPatch, **options: Any) -> SetFunction:
    """The set function that the selector maximises."""
    found: list[SetFunction] = []

    def caught(function: SetFunction, budget: int, *, rng: torch.Generator, start: Tensor | None = None) -> Tensor:
        found.append(function)
        return torch.arange(budget)

    monkeypatch.setattr(information, "maximise", caught)
    vars(information)[name](pool, 1, rng=generator(), **options)
    monkeypatch.undo()
    return found[0]


def submodlib_value(name: str, pool: Pool, chosen: Sequence[int]) -> float:
    submodlib = pytest.importorskip("submodlib", reason="submodlib-py is not installed: pip install clsim[peers]")
    psi = pytest.importorskip("submodlib_cpp").ConcaveOverModular.Type.squareRoot
    s, sq, sp, qq, qp, pp = (k.numpy() for k in kernels(pool))
    data, query, private = {"data_sijs": s}, {"query_sijs": sq}, {"private_sijs": sp}
    q, p = {"num_queries": sq.shape[1], **query}, {"num_privates": sp.shape[1], **private}
    eta, nu, ridge = {"magnificationEta": ETA}, {"privacyHardness": NU}, {"lambdaVal": RIDGE}
    kind, arguments = {
        "flvmi": ("FacilityLocationMutualInformation", {**data, **q, **eta}),
        "flqmi": ("FacilityLocationVariantMutualInformation", {**q, "queryDiversityEta": ETA}),
        "gcmi": ("GraphCutMutualInformation", q),
        "logdetmi": ("LogDeterminantMutualInformation", {**data, **q, "query_query_sijs": qq, **eta, **ridge}),
        "com": ("ConcaveOverModular", {**q, "queryDiversityEta": ETA, "mode": psi}),
        "flcg": ("FacilityLocationConditionalGain", {**data, **p, **nu}),
        "gccg": ("GraphCutConditionalGain", {**data, **p, **nu, "lambdaVal": 0.3}),
        "logdetcg": ("LogDeterminantConditionalGain", {**data, **p, "private_private_sijs": pp, **nu, **ridge}),
        "flcmi": ("FacilityLocationConditionalMutualInformation", {**data, **q, **p, **eta, **nu}),
        "logdetcmi": (
            "LogDeterminantConditionalMutualInformation",
            {
                **data,
                **q,
                **p,
                "query_query_sijs": qq,
                "private_private_sijs": pp,
                "query_private_sijs": qp,
                **eta,
                **nu,
                **ridge,
            },
        ),
    }[name]
    value = vars(submodlib)[f"{kind}Function"](n=N, **arguments).evaluate(set(chosen))
    return 2 * value if name == "gcmi" else value  # theirs leaves out the constant 2 of 2λ·Σ


SETS = [[3], [7, 0, 12], [1, 5, 9, 20, 23, 4, 16]]


@pytest.mark.parametrize("name", TEN)
def test_the_ten_agree_with_submodlib(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_and_sets()
    for chosen in SETS:
        function, value = function_of(name, pool, monkeypatch, **OPTIONS[name]), 0.0
        for row in chosen:
            value += float(function.gains()[row])
            function.add(torch.tensor(row))
        assert value == pytest.approx(submodlib_value(name, pool, chosen), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", TEN)
def test_gains_of_the_ten_are_those_of_their_formulas(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_and_sets()
    function, direct = function_of(name, pool, monkeypatch, **OPTIONS[name]), formula(name, pool)
    taken: list[int] = []
    for pick in SETS[-1]:
        left = [j for j in range(N) if j not in taken]
        expected = np.array([direct([*taken, j]) - direct(taken) for j in left])
        assert function.gains()[left].tolist() == pytest.approx(expected, abs=3e-6)
        assert function.gains(torch.tensor(left[:4])).tolist() == pytest.approx(expected[:4], abs=3e-6)
        function.add(torch.tensor(pick))
        taken.append(pick)


@pytest.mark.parametrize("name", TEN)
def test_each_pick_of_the_ten_is_the_best_of_their_formulas(name: str) -> None:
    pool = pool_and_sets()
    picks = vars(information)[name](pool, 8, rng=generator(), **OPTIONS[name]).index
    direct = formula(name, pool)
    assert_greedy(direct, N, picks, 1e-5)
    drawn = [direct(torch.randperm(N, generator=generator(seed))[:8].tolist()) for seed in range(20)]
    if name in ("flvmi", "flcmi"):  # eight picks give all that there is to gain, as some drawn ones do
        assert direct(picks.tolist()) >= max(drawn)
        assert direct(picks.tolist()) > sum(drawn) / 20
    else:
        assert direct(picks.tolist()) > max(drawn)


def test_logdetmi_is_not_submodular() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).double()
    s, q = x @ x.T, (x @ torch.tensor([1.0, -0.2]).double())[:, None]

    def value(a: list[int]) -> float:
        mine = s[a][:, a] + 0.1 * torch.eye(len(a)).double()
        return logdet(mine) - logdet(mine - q[a] @ q[a].T / (1.04 + 0.1))

    steps = [(i, j) for i in range(3) for j in range(3) if i != j]
    assert any(value([i, j]) - value([i]) > value([j]) + 1e-6 for i, j in steps)


def run(name: str, pool: Pool, **options: Any) -> list[int]:
    selection: Selection = vars(information)[name](pool, 6, rng=generator(), **options)
    return selection.index.tolist()


@pytest.mark.parametrize("name", ["flvmi", "flqmi", "gcmi", "logdetmi", "com", "flcmi", "logdetcmi"])
def test_where_the_query_comes_from(name: str) -> None:
    others = vectors(clustered(7, DIM, seed=8, dtype=torch.float32), torch.arange(7) % CLASSES)
    data = pool_with().data
    zeros = data[data.y == 0]
    assert run(name, pool_with(reference=others)) == run(name, pool_with(query=others))
    assert run(name, pool_with(), query=[0]) == run(name, pool_with(query=zeros))
    assert run(name, pool_with(reference=others), query=[0]) == run(name, pool_with(query=zeros))
    assert run(name, pool_with(query=others), query=[0]) == run(name, pool_with(query=others))
    itself = pool_with()
    predicted = dataclasses.replace(itself.data, y=itself.predictions)
    assert run(name, itself) == run(name, pool_with(query=predicted))
    labelled = others[others.y == 1]
    assert run(name, pool_with(labelled=others), query=[1]) == run(name, pool_with(query=labelled))


@pytest.mark.parametrize("name", ["flcg", "gccg", "logdetcg", "flcmi", "logdetcmi"])
def test_where_the_private_set_comes_from(name: str) -> None:
    data = pool_with().data
    others = data[data.y == 3]
    assert run(name, pool_with(), private=[3]) == run(name, pool_with(private=others))


@pytest.mark.parametrize("name", ["flcg", "gccg", "logdetcg", "flcmi", "logdetcmi"])
def test_without_a_private_set_a_measure_loses_its_condition(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from clsim.selectors.submodular import facility_location, graph_cut, log_det

    bare = pool_with()
    picks = {
        "flcg": lambda: facility_location(bare, 6, rng=generator(), representation="hypothetical").index.tolist(),
        "gccg": lambda: graph_cut(bare, 6, rng=generator(), representation="hypothetical").index.tolist(),
        "logdetcg": lambda: log_det(bare, 6, rng=generator(), representation="hypothetical").index.tolist(),
        "flcmi": lambda: run("flvmi", bare),
        "logdetcmi": lambda: run("logdetmi", bare),
    }[name]()
    assert run(name, bare) == picks


def test_query_attracts_and_private_repels() -> None:
    liked = torch.tensor(run("gcmi", pool_and_sets()))
    s = kernels(pool_and_sets())
    assert s[1][liked].sum() > s[1].sum(1).sort().values[:6].sum()
    avoided = torch.tensor(run("gccg", pool_and_sets(), nu=20.0))
    assert s[2][avoided].sum(1).max() <= s[2].sum(1).sort().values[8]


def test_a_large_query_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "MOST", 10)
    pool = pool_with()
    assert len(targets.query_set(pool, (), generator())) == 10
    assert run("flqmi", pool) == run("flqmi", pool)


def test_wrong_sets_and_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"query is \[9\], but no labelled sample is of these; there are: 0, 1, 2, 3"):
        run("flqmi", pool_with(), query=[9])
    with pytest.raises(InputError, match="eta: found -1, allowed: 0 or more"):
        run("flvmi", pool_with(), eta=-1)
    with pytest.raises(InputError, match=r"nu is 1\.5, allowed: from 0 to 1"):
        run("logdetcg", pool_with(), nu=1.5)
