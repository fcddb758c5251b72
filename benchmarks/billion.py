"""What a choice from a billion rows would cost: an estimate from the speed of single parts on this machine.

It times, on one thread, one part of about 64 MiB (131,072 × 128 clustered features) as round one does it, reading and
checks included: k-center and facility location with one pick and with 1,000; and a pass over the edges of a neighbour
graph, as a round of bounding makes. The cost of all parts is the time of one, linear in the number of picks, times the
number of parts, over the number of cores; reading is the bytes over the speed of the disks, which is given. No network,
no waiting for the slowest core and no making of the graph is in it.

    python -m benchmarks.billion [--rows 1e9] [--cores 64] [--gigabytes-per-second 2]
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clsim.data.shards import shards
from clsim.execution.parts import DRAWN, PART, Plan, first_round

WIDTH, PICKS, CLIENTS, NEIGHBOURS = 128, 1000, 2000, 10
ROWS = PART // (4 * WIDTH)


@dataclass(frozen=True)
class Line:
    """Seconds of a part: ``first`` with one pick, ``each`` for each further pick."""

    first: float
    each: float

    def seconds(self, picks: float) -> float:
        return self.first + self.each * (picks - 1)


def written(folder: Path) -> Path:
    """Write two parts: clusters of unequal size, as in ``benchmarks.shards``."""
    rng, n = np.random.default_rng(0), 2 * ROWS
    centres = 2 * rng.normal(size=(2000, WIDTH)).astype(np.float32)
    np.save(folder / "x.npy", centres[rng.zipf(1.3, n) % 2000] + rng.standard_normal((n, WIDTH), np.float32))
    return folder / "x.npy"


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def line(file: Path, selector: str, **options: int) -> Line:
    """Time round one of one part."""

    def choose(picks: int) -> object:
        plan = Plan(shards(file), False, selector, tuple(options.items()), picks, 2, 0, "cpu", 1)
        return first_round(plan, 0)

    choose(1)  # pages, caches
    first, all_ = seconds(lambda: choose(1)), seconds(lambda: choose(PICKS))
    return Line(first, max(all_ - first, 0) / (PICKS - 1))


def edges_a_second() -> float:
    """Sum the weights of each row's neighbours, as the bounds of its gain need: edges a second."""
    rng = torch.Generator().manual_seed(0)
    ends = torch.randint(ROWS, (ROWS, NEIGHBOURS), generator=rng)
    weight, kept = torch.rand(ROWS, NEIGHBOURS, generator=rng), torch.ones(ROWS)
    return 10 * ends.numel() / seconds(lambda: [(weight * kept[ends]).sum(1) for _ in range(10)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--cores", type=int, default=64)
    parser.add_argument("--gigabytes-per-second", type=float, default=2.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder))
        centre, serve = line(file, "kcenter"), line(file, "facility-location", clients=CLIENTS)
    rng = torch.Generator().manual_seed(0)
    draw = seconds(lambda: [torch.randint(7, (DRAWN,), generator=rng) for _ in range(10)]) / (10 * DRAWN)
    edges = edges_a_second()
    print(f"one part of {ROWS:,} rows, one core: k-center {centre.first:.2f} s + {centre.each * 1e3:.2f} ms a pick;")
    print(f"facility location, {CLIENTS:,} clients: {serve.first:.2f} s + {serve.each * 1e3:.2f} ms a pick;")
    print(f"neighbours of rows: {edges / 1e6:.0f} million edges a second\n")
    n, parts = given.rows, math.ceil(given.rows / ROWS)
    read = 4 * WIDTH * n / given.gigabytes_per_second / 1e9

    def hours(core_seconds: float, rounds: float = 1) -> str:
        return (
            f"{core_seconds / 3600:9.1f} core hours  {(core_seconds / given.cores + rounds * read) / 3600:6.1f} hours"
        )

    print(f"drawing the part of each of {n:.0e} rows anew for each part: {draw * n * parts / 3600:.0f} core hours")
    print(f"{n:.0e} rows, {parts:,} parts, {given.cores} cores; one reading of all rows {read / 3600:.2f} hours")
    for budget in (1e3, 1e4):
        union = parts * budget * 4 * WIDTH / 1e9
        print(f"two rounds, {budget:9,.0f} picks, union of {union:6.1f} GB in one memory:")
        for name, speed in (("k-center", centre), ("facility location", serve)):
            last = speed.seconds(budget) * parts * budget / ROWS
            print(
                f"  {name:18} round one {hours(parts * speed.seconds(budget))}   round two, one core, {last / 3600:.1f}"
            )
    print(f"bounding, 20 rounds over {NEIGHBOURS} neighbours of each row: {hours(20 * NEIGHBOURS * n / edges, 0)}")
    for left in (1.0, 0.3):
        for rounds in (2, 3):
            share = (1e6 / (left * n)) ** (1 / rounds)  # of each part that stays, in each round
            each = [left * n * share**i / ROWS for i in range(rounds)]  # parts in each round
            cost = sum(many * serve.seconds(share * ROWS) for many in each)
            what = f"{rounds} rounds of partitioned greedy, 1,000,000 picks of {left:.0%} of the rows"
            print(f"{what}: {hours(cost, left * sum(share**i for i in range(rounds)))}")


if __name__ == "__main__":
    main()
