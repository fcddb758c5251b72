"""Bounds: they read hidden labels by the oracle alone, say so wherever they are shown, and are bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clsim
from clsim.acquisitions.bounds import BalancedRandom, GreedyOracle, Readout
from clsim.checks.samples import label_pools
from clsim.errors import InputError
from clsim.pool.pool import Pool
from clsim.records import frame
from clsim.reporting import grids
from clsim.reporting.cells import bounds
from clsim.reporting.report import ReportSpec
from clsim.spec.resolve import resolve
from tests.helpers import generator, points, vectors
from tests.selectors.test_label_pools import net_on


def told(bound: Any, pool: Pool, truth: Tensor, test: Any) -> Any:
    bound.reads(truth, test)
    return bound


def blobs(n: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    y = torch.arange(n) % classes
    centres = 3 * torch.randn(classes, 4, generator=generator(9))
    return centres[y] + torch.randn(n, 4, generator=generator(seed)), y


@pytest.mark.parametrize("budget", [1, 5, 9, 20])
def test_balanced_random_leaves_no_class_behind(budget: int) -> None:
    """No other choice of as many has a smaller distance between the largest and the smallest class."""
    x, y = points(60), torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    beside = torch.tensor([0, 0, 0, 1])
    pool = Pool(vectors(x, torch.full((60,), -1)), net_on(4, 3), lambda x: x, labelled=vectors(points(4, 4, 1), beside))
    bound = told(BalancedRandom(pool.net, generator()), pool, y, pool.data)
    picks = bound(pool, budget, rng=generator()).index
    count = beside.bincount(minlength=3) + y[picks].bincount(minlength=3)
    best = beside.bincount(minlength=3)
    left = y.bincount(minlength=3)
    for _ in range(budget):  # fill the lowest that still has samples
        open_ = torch.where(left > 0, best, 10**6)
        best[open_.argmin()] += 1
        left[open_.argmin()] -= 1
    assert count.sort().values.tolist() == best.sort().values.tolist()


def test_the_readout_is_the_least_squares_solution_after_each_addition() -> None:
    """By recursive updates, against a solution from scratch."""
    x, y, tested, of = *blobs(40, 1), *blobs(30, 2)
    x, tested = x.double(), tested.double()
    readout = Readout(tested, of, 3, 0.3)
    for rows in torch.arange(40).split(7):
        readout.add(x[rows], y[rows])
        seen = slice(0, int(rows[-1]) + 1)
        targets = torch.nn.functional.one_hot(y[seen], 3).double()
        w = torch.linalg.solve(x[seen].T @ x[seen] + 0.3 * torch.eye(4, dtype=torch.float64), x[seen].T @ targets)
        assert torch.allclose(readout.scores, tested @ w, atol=1e-8)


def test_the_best_set_is_the_best_by_trying_each() -> None:
    x, y, tested, of = *blobs(60, 1), *blobs(50, 2)
    x, tested = x.double(), tested.double()
    sets = torch.arange(48).view(16, 3)
    found = []
    for rows in sets:
        readout = Readout(tested, of, 3, 0.3)
        readout.add(x[48:51], y[48:51])
        readout.add(x[rows], y[rows])
        found.append((readout.scores.argmax(1) == of).double().mean())
    readout = Readout(tested, of, 3, 0.3)
    readout.add(x[48:51], y[48:51])
    assert found[int(readout.best(x[sets], y[sets]))] == max(found) > min(found)


@pytest.mark.parametrize("bound", [BalancedRandom, GreedyOracle])
def test_a_bound_gives_exactly_what_is_asked_for(bound: Any) -> None:
    for name, pool in label_pools().items():
        truth, test = torch.arange(len(pool)) % 4, vectors(torch.zeros(1, 1, 6, 6).to(torch.uint8))
        for budget in (1, 7, len(pool) + 5):
            made = told(bound(pool.net, generator()), pool, truth, test)
            picks = made(pool, budget, rng=generator()).index
            assert len(picks.unique()) == len(picks) == min(budget, len(pool)), name


def test_a_bound_that_was_told_nothing_does_not_choose() -> None:
    pool = label_pools()["some labelled"]
    bound = BalancedRandom(pool.net, generator())
    with pytest.raises(InputError, match="found no labels of 40 candidates"):
        bound(pool, 3, rng=generator())
    bound.reads(torch.zeros(5, dtype=torch.int64), pool.data)
    with pytest.raises(InputError, match="found 5 labels of 40"):
        bound(pool, 3, rng=generator())


def test_the_oracle_tries_no_more_than_it_may() -> None:
    """With few tries, its sets are larger; all come out."""
    x, y = blobs(60, 1)
    pool = Pool(vectors(x, torch.full((60,), -1)), net_on(4, 3), lambda x: x)
    tried = []

    class Counting(GreedyOracle):
        pass

    bound = Counting(pool.net, generator(), tries=10, most=40)
    best = Readout.best
    try:
        Readout.best = lambda self, x, y: tried.append(x.shape) or best(self, x, y)  # type: ignore[func-returns-value,assignment]
        picks = told(bound, pool, y, vectors(*blobs(30, 2)))(pool, 24, rng=generator()).index
    finally:
        Readout.best = best  # type: ignore[method-assign]
    assert len(picks.unique()) == 24
    assert [shape[:2] for shape in tried] == [(10, 6)] * 4


def test_initial_sets_are_not_for_bounds() -> None:
    with pytest.raises(
        InputError, match=r"labelling\.initial: found 'balanced-random', which needs its candidates' lab"
    ):
        resolve(
            "split-digits",
            "er",
            flags={"labelling": {"selector": "entropy", "budget": 10}},
            settings=["labelling.initial=balanced-random", "labelling.initial_count=5"],
        )
    for name in ("el2n", "class-balanced", "per_class(kcenter)", "glister"):
        with pytest.raises(InputError, match=r"labelling\.selector: found "):
            resolve("split-digits", "er", flags={"labelling": {"selector": name, "budget": 10}})


SMALL = [
    "stream.experiences=1",
    "training.epochs=150",
    "labelling.epoch=labelled",
    "model.options.hidden=[64]",
    "memory.capacity=20",
]


def run(folder: Path, label: str, seed: int, *settings: str) -> clsim.RunRecord:
    return clsim.run(
        "split-digits", "er", label=label, label_budget=20, seed=seed, settings=[*SMALL, *settings], runs=folder
    )


def test_the_greedy_oracle_beats_random_clearly(tmp_path: Path) -> None:
    """On digits, with 20 labels, in each of five seeds, and by ten points on average."""
    found = {
        label: np.array([run(tmp_path, label, seed).metrics["accuracy"] for seed in range(5)])
        for label in ("random", "greedy-oracle")
    }
    assert (found["greedy-oracle"] > found["random"]).all()
    assert (found["greedy-oracle"] - found["random"]).mean() > 0.1


def test_records_and_tables_say_that_a_bound_chose(tmp_path: Path) -> None:
    short = ("training.epochs=1", "data.per_class=20")
    records = [run(tmp_path, label, 0, *short) for label in ("random", "balanced-random")]
    assert [record.data["labelling"]["bound"] for record in records] == [False, True]
    assert [entry["bound"] for entry in records[1].data["labelling"]["rounds"]] == [True]
    rows = frame.frame([record.data for record in records])
    assert bounds(rows).tolist() == [False, True]
    spec = ReportSpec(rows=("labelling.selector",), columns=("strategy",), metrics=("accuracy",))
    table = grids.tables(spec, rows)[0]
    assert any("balanced-random" in note for note in table.notes)
    cells = {key: cell for key, found in table.rows.items() for cell in found.values()}
    assert {key[0]: cell.bound for key, cell in cells.items()} == {"random": False, "balanced-random": True}
    assert cells[("random",)].best or not cells[("balanced-random",)].best
    picked = records[1].data["labelling"]["rounds"][0]["labels"]
    assert np.bincount(picked, minlength=10).tolist() == [2] * 10


def test_the_keys_of_a_choice_are_not_those_of_a_random_memory(tmp_path: Path) -> None:
    """Of 400 and of 20 samples 20 are asked for at random: in a memory of 20, both experiences have about half."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2, 3], [200, 200, 10, 10])
    x = rng.normal(size=(420, 6)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    settings = [
        *("data.dataset=npz", f"data.path={tmp_path / 'a.npz'}", "stream.experiences=2", "training.epochs=1"),
        *("memory.capacity=20", "memory.buffer=random", "model.options.hidden=[8]"),
    ]
    record = clsim.run("split-digits", "er", label="random", label_budget=20, settings=settings, runs=tmp_path / "runs")
    assert record.data["labelling"]["asked"] == [20, 20]
    state = torch.load(record.folder / "checkpoint.pt", weights_only=True)  # type: ignore[operator]
    held = _labels(state)
    assert 4 <= int((held > 1).sum()) <= 16


def _labels(state: dict[str, Any]) -> Tensor:
    """The labels of the memory in a checkpoint."""
    found = [value for value in state.values() if isinstance(value, dict)]
    for value in found:
        if "columns" in value:
            return value["columns"]["y"]
    return _labels({str(i): inner for i, value in enumerate(found) for inner in value.values()})
