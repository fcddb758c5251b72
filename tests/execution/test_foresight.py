"""What a selection will take: the memory of a formula holds, what does not fit is refused, and no pick changes."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from clsim.data import room
from clsim.errors import InputError
from clsim.execution import candidates, foresight
from clsim.execution.select import select
from clsim.pool.pool import Cost
from clsim.randomness import generator
from clsim.selectors import distances, peaks
from clsim.spec import abilities, registry
from clsim.spec.components import COMPONENTS
from tests.commands import clsim

MB = 10**6
FORK = multiprocessing.get_context("fork")


def rows(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(30, d))[rng.integers(0, 30, n)] + rng.normal(size=(n, d)) / 2).astype(np.float32)


def measured(work: Callable[[], Callable[[], object]]) -> int:
    """Measure what a piece of work takes at its peak, in a process of its own: bytes beyond what it began with."""
    here, there = FORK.Pipe()

    def child() -> None:
        torch.set_num_threads(1)
        done = work()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
        before = status("VmRSS")
        done()
        there.send(status("VmHWM") - before)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    return here.recv() if here.poll() else 0


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


CASES: list[tuple[str, int, int, int, dict, bool]] = [
    ("facility-location", 6000, 32, 50, {}, False),
    ("facility-location", 9000, 32, 50, {"similarities": "dense"}, False),
    ("facility-location", 12_000, 16, 200, {}, False),
    ("log-det", 30_000, 32, 128, {}, False),
    ("log-det", 10_000, 128, 500, {}, False),
    ("mean-of-features", 150_000, 64, 50, {}, False),
    ("centre-of-gravity", 300_000, 32, 50, {}, False),
    ("graph-cut", 100_000, 64, 5, {}, False),
    ("density", 12_000, 128, 50, {}, False),
    ("max-herding", 9000, 32, 50, {}, False),
    ("entropy", 200_000, 32, 50, {}, True),
    ("grad-match", 20_000, 32, 300, {}, True),
    ("per_class(mean-of-features)", 150_000, 64, 50, {}, False),
]
"""Selector, rows, features of each, budget, options, and whether the features are logits."""


def work(case: tuple[str, int, int, int, dict, bool]) -> Callable[[], object]:
    name, n, d, budget, options, logits = case
    y = np.zeros(n, dtype=np.int64) if "per_class" in name else None
    pool, *_ = candidates.of_features(rows(n, d), y, 0, torch.device("cpu"), Cost(), logits=logits)
    pick = registry.component("selectors", name, options, "options")
    return lambda: pick(pool, budget, rng=generator(0, "memory"))


def measured_each() -> None:
    """Print the peak of each case; for a process that has freed nothing yet, which a choice could take again."""
    print(json.dumps([measured(partial(work, case)) for case in CASES]))


@pytest.fixture(scope="module")
def real() -> list[int]:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs the peaks of Linux")
    script = "from tests.execution.test_foresight import measured_each; measured_each()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},  # what is freed is given back, or the peak is of chance
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: f"{CASES[case][0]}-{CASES[case][1]}")
def test_the_estimate_is_within_a_factor_of_two_of_the_peak_and_not_below(case: int, real: list[int]) -> None:
    name, n, d, budget, options, logits = CASES[case]
    estimate = peaks.peak(name, peaks.Size(n, d, budget, d if logits else 0), options)
    assert real[case] > 40 * MB  # else the libraries themselves decide
    assert real[case] <= estimate.kept + estimate.blocks <= 2 * real[case]


def test_every_selector_that_features_are_enough_for_has_a_formula() -> None:
    alone = {name for name in COMPONENTS["selectors"] if "feature" in abilities.needs(name).get(name, "").split(";")[0]}
    alone = {n for n in alone if "probabilities" not in abilities.needs(n)[n] and "logits" not in abilities.needs(n)[n]}
    assert alone - {"balancing"} <= {*peaks.PEAKS}  # balancing needs labelled samples, so it is no single choice


def test_what_cannot_fit_is_refused_before_it_is_built(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "available", lambda: 40 * MB)
    monkeypatch.setattr(candidates, "of_features", lambda *_, **__: pytest.fail("it was built"))
    np.save("x.npy", rows(20_000, 64))
    words = ["select", "--features", "x.npy", "--budget", "10"]
    assert clsim(*words, "--selector", "facility-location") == 2
    said = capsys.readouterr().err
    assert said.startswith("clsim: memory: facility-location among 20,000 × 64 needs up to ")
    assert "40 MB are free; allowed: --parts " in said
    assert said.count("\n") == 1
    assert clsim(*words, "--selector", "log-det") == 2
    assert "--selector 'subsample(log-det," in capsys.readouterr().err


def test_the_parts_that_a_refusal_names_fit_and_fewer_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available", lambda: 60 * MB)
    size = peaks.Size(100_000, 128, 100)
    with pytest.raises(InputError) as refused:
        foresight.foresee(size, "kcenter", {}, torch.device("cpu"))
    parts = int(str(refused.value).split("--parts ")[1].split()[0])
    foresight.refuse_parts(size.n, size.d, "kcenter", {}, size.budget, parts, torch.device("cpu"))
    with pytest.raises(InputError, match=f"--parts {parts} "):
        foresight.refuse_parts(size.n, size.d, "kcenter", {}, size.budget, parts - 1, torch.device("cpu"))


@pytest.mark.parametrize("name", ["density", "prob-cover", "k-medoids", "typiclust", "kcenter"])
def test_blocks_that_fit_make_the_same_picks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(3000, 24)
    usual = select(name, features=x, budget=12, say=None)
    peak = peaks.peak(name, peaks.Size(3000, 24, 12), {})
    free = int(peak.kept + peak.blocks / 3) + peaks.COLUMNS * 3000
    monkeypatch.setattr(room, "available", lambda: free)
    foreseen = foresight.of_features(x, name, {}, 12, None, torch.device("cpu"), "features")
    assert (foreseen.block < distances.BLOCK) == bool(peak.blocks)
    assert foreseen.memory <= free
    assert select(name, features=x, budget=12, say=None).index.tolist() == usual.index.tolist()
    assert distances.in_a_block() == distances.BLOCK  # put back


@pytest.mark.parametrize("name", ["herding", "facility-location", "k-means", "badge"])
def test_an_estimate_of_time_is_said_and_changes_no_pick(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foresight, "WORTH", 1.0)
    monkeypatch.setattr(foresight, "SAID", 0.0)
    monkeypatch.setattr(foresight, "SHARE", 4)
    lines: list[str] = []
    given = {"logits" if name == "badge" else "features": rows(6000, 8)}
    found = select(name, budget=40, say=lines.append, **given)
    silent = select(name, budget=40, say=None, **given)
    assert found.index.tolist() == silent.index.tolist()
    assert found.pool.cost == silent.pool.cost
    (line,) = lines
    assert line.startswith(f"an estimate for {name} of 6,000 × 8: ")
    assert "by a choice among " in line


def test_the_time_is_scaled_by_the_stated_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that counts one second a choice: facility location of all served rows is quadratic in them."""
    now = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    pool, *_ = candidates.of_features(rows(8192, 4), None, 0, torch.device("cpu"), Cost())
    size = peaks.Size(2_000_000, 4, 20_000)
    foreseen = foresight.Foreseen("density", size, {}, 0, 10**12)
    seconds, few = foresight.timed(foreseen, registry.component("selectors", "density"), pool, size.budget)
    assert seconds == pytest.approx((size.n / few) ** 2)


def test_a_small_pool_is_chosen_from_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    select("facility-location", features=rows(200, 4), budget=5)
    assert capsys.readouterr() == ("", "")
