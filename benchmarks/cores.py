"""What a second core brings to a single run: a step of experience replay, and the passes of evaluation and selection.

One core and two take turns in one process. A share of a machine that others use is timed by the processor: by the time
of the thread that others wait for, which is what a clock would show on two idle cores. Results are checked to be equal
to the last bit.

    python -m benchmarks.cores [--rounds 20]
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from contextlib import nullcontext

import torch
from torch.nn import functional as F

from clsim.models import nets, resnet
from clsim.models.passes import aside, on_cores, side_by_side
from clsim.training.machine import keep_freed_memory

BATCH, PARTS, PART = 20, 6, 100


def net() -> nets.Net:
    made = nets.build(resnet.slim_resnet18, (3, 32, 32), torch.ones(1, 100, dtype=torch.bool), 0, torch.device("cpu"))
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(n)).to(memory_format=torch.channels_last)


class Steps:
    """Steps of SGD on one batch, on some number of cores."""

    def __init__(self) -> None:
        self.net = net().train()
        self._optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self._x, self._y, self._task = images(BATCH), torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.int64)

    def step(self) -> float:
        started = time.thread_time()
        beside = aside(self.net)
        with nullcontext() if beside is None else beside:
            loss = F.cross_entropy(self.net(self._x, self._task), self._y)
        self._optimizer.zero_grad()
        loss.backward()
        if beside is not None:
            beside.join()
        self._optimizer.step()
        return time.thread_time() - started


def passes(over: nets.Net, parts: list[torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Pass the parts; return the seconds of the thread that took longest, and the features."""
    spent: dict[int, float] = {}

    def passed(part: torch.Tensor) -> torch.Tensor:
        started = time.thread_time()
        with torch.no_grad():
            features = over.features(part)
        mine = threading.get_ident()
        spent[mine] = spent.get(mine, 0.0) + time.thread_time() - started
        return features

    found = torch.cat(side_by_side(over, passed, parts))
    return max(spent.values()), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    keep_freed_memory()
    training, over, parts = {1: Steps(), 2: Steps()}, net().eval(), [images(PART) for _ in range(PARTS)]
    steps: dict[int, list[float]] = {1: [], 2: []}
    passing: dict[int, list[float]] = {1: [], 2: []}
    for i in range(rounds + 1):
        features = []
        for cores in (1, 2):
            with on_cores(cores):
                taken = [training[cores].step() for _ in range(3)]
                seconds, found = passes(over, parts)
            features.append(found)
            if i:  # the first round is for warming up
                steps[cores] += taken
                passing[cores].append(seconds)
        same = zip(training[1].net.state_dict().values(), training[2].net.state_dict().values(), strict=True)
        if not torch.equal(*features) or not all(torch.equal(a, b) for a, b in same):
            raise SystemExit("two cores have other numbers than one")
    for name, times, each in (
        ("step, batch 20", steps, 1),
        (f"passes, {PARTS} × {PART} images", passing, PARTS * PART),
    ):
        one, two = (statistics.median(times[cores]) / each * 1000 for cores in (1, 2))
        print(f"slim ResNet-18, {name}: {one:.2f} ms on one core, {two:.2f} on two: {one / two:.2f} ×")


if __name__ == "__main__":
    main()
