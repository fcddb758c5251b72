"""k-center and herding against the time to read all features once for each pick: k products features @ v.

Contestants take turns in one process. Printed are the median over the rounds of the ratio of their times, and the
largest growth of the memory in use, as a share of the memory of the features.

    python -m benchmarks.coverage [--rounds 3] [--threads 2] [--large]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from clsim.models.nets import build
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection, Selector
from clsim.selectors.herding import herding
from clsim.selectors.kcenter import k_center, k_center_pca, k_center_robust

KINDS = ("isotropic", "clustered", "low rank")


def features(kind: str, n: int, d: int) -> Tensor:
    """Make features in place, in blocks, so that this takes no more memory than the features do."""
    rng = torch.Generator().manual_seed(0)
    x = torch.empty(n, d)
    centres, basis = 3 * torch.randn(100, d, generator=rng), torch.randn(16, d, generator=rng)
    for block in x.split(4096):
        block.normal_(generator=rng)
        if kind == "clustered":
            block += centres[torch.randint(100, (len(block),), generator=rng)]
        if kind == "low rank":
            block.mul_(0.1).addmm_(torch.randn(len(block), 16, generator=rng), basis)
    return x


def pool_of(x: Tensor) -> Pool:
    """Make a pool whose features are these vectors."""
    n = len(x)
    none = torch.zeros(n, dtype=torch.int64)
    net = build(lambda shape: torch.nn.Identity(), (x.shape[1],), torch.ones(1, 1, dtype=torch.bool), 0, x.device)
    return Pool(Exemplars(x, none, none, torch.rand(n, generator=torch.Generator()), none), net, lambda x: x)


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def status(key: str) -> int:
    """Read a value of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def growth(work: Callable[[], object]) -> int:
    """Measure by how many bytes the memory in use grew at most; 0 if the system does not say."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    except OSError:
        return 0
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def picks(select: Selector, pool: Pool, k: int) -> Selection:
    return select(pool, k, rng=torch.Generator().manual_seed(0))


def compare(kind: str, n: int, d: int, k: int, rounds: int, contestants: dict[str, Selector]) -> None:
    pool = pool_of(features(kind, n, d))
    x = pool.features
    took: dict[str, list[float]] = {name: [] for name in contestants}
    took["streaming"] = []
    for _ in range(rounds):
        took["streaming"].append(seconds(lambda: [x @ x[i] for i in range(k)]))
        for name, select in contestants.items():
            took[name].append(seconds(lambda select=select: picks(select, pool, k)))  # type: ignore[misc]
    print(
        f"{kind}, {n:,} × {d}, {k} picks; reading the features {k} times {statistics.median(took['streaming']):.2f} s:"
    )
    for name, select in contestants.items():
        grown = growth(lambda select=select: picks(select, pool, k)) / x.nbytes  # type: ignore[misc]
        ratio = statistics.median(a / b for a, b in zip(took[name], took["streaming"], strict=True))
        print(f"  {name:<16} {statistics.median(took[name]):7.2f} s   {ratio:5.2f} × that   memory + {grown:.2f} ×")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--large", action="store_true", help="1,000,000 × 128 alone")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    if given.large:
        for kind in ("isotropic", "clustered"):
            compare(kind, 1_000_000, 128, 1000, 1, {"kcenter": k_center})
        return
    for kind in KINDS:
        contestants: dict[str, Selector] = {"kcenter": k_center, "herding": herding}
        if kind == "clustered":
            contestants |= {"kcenter-pca": k_center_pca, "kcenter-robust": k_center_robust}
        compare(kind, 50_000, 512, 1000, given.rounds, contestants)


if __name__ == "__main__":
    main()
