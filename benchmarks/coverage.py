"""k-center and herding beside one pass through all features for each pick, and beside plain references.

Contestants take turns in one process. The floor is k products ``features @ v``, measured on some of them. Printed are
for each contestant the processor seconds, the median over the rounds of the ratio to the floor, the bytes of features
and points that its products read, gathered rows among them, against those of k passes, and the largest growth of the
memory in use, as a share of the memory of the features. The plain references read all features at each pick; their
picks are compared with those of the selectors.

    python -m benchmarks.coverage [--rounds 3] [--threads 2] [--k 2000] [--large]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clsim.models.nets import build
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection, Selector
from clsim.selectors.farthest import plain_farthest_first
from clsim.selectors.herding import herding
from clsim.selectors.kcenter import k_center, k_center_pca, k_center_robust
from clsim.selectors.points import points

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
    """Measure processor time, which other work on the machine disturbs less than the clock's."""
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started


class Read(TorchDispatchMode):
    """Counts the bytes of the matrices of width ``d`` that products and gathers read."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.bytes, self._d = 0, d

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "mv", "addmm", "addmv", "index", "index_select", "clone", "_cdist_forward"):
            gathers = name in ("index", "index_select", "clone")
            for matrix in [out] if gathers else [a for a in args if isinstance(a, Tensor)]:
                if matrix.dim() >= 2 and self._d in matrix.shape[-2:]:
                    self.bytes += matrix.nbytes
        return out


@contextmanager
def counted(d: int) -> Iterator[Read]:
    with Read(d) as read:
        yield read


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


def plain_k_center(pool: Pool, k: int, *, rng: torch.Generator) -> Selection:
    """k-center with every row at every pick, in float32."""
    return Selection(plain_farthest_first(points(pool.features), k, None))


PLAIN: dict[str, Selector] = {"kcenter": plain_k_center}


def compare(
    kind: str, n: int, d: int, k: int, rounds: int, contestants: dict[str, Selector], references: bool = False
) -> None:
    pool = pool_of(features(kind, n, d))
    x = pool.features
    took: dict[str, list[float]] = {name: [] for name in contestants}
    floor, some = [], min(k, 200)
    for _ in range(rounds):
        floor.append(seconds(lambda: [x @ x[i] for i in range(some)]) * k / some)
        for name, select in contestants.items():
            took[name].append(seconds(lambda select=select: picks(select, pool, k)))  # type: ignore[misc]
    passes = k * x.nbytes
    print(f"{kind}, {n:,} × {d}, {k} picks; {k} passes {statistics.median(floor):.2f} s, {passes / 1e9:.0f} GB:")
    for name, select in contestants.items():
        grown = growth(lambda select=select: picks(select, pool, k)) / x.nbytes  # type: ignore[misc]
        with counted(d) as read:
            chosen = picks(select, pool, k).index
        ratio = statistics.median(a / b for a, b in zip(took[name], floor, strict=True))
        print(
            f"  {name:<16} {statistics.median(took[name]):7.2f} s   {ratio:6.3f} × that   "
            f"read {read.bytes / 1e9:6.1f} GB, {read.bytes / passes:6.3f} × that   memory + {grown:.2f} ×",
            flush=True,
        )
        if references and name in PLAIN:
            other = picks(PLAIN[name], pool, k).index
            moved, apart = int((other != chosen).sum()), len(set(other.tolist()) ^ set(chosen.tolist()))
            print(f"    beside the plain form: {moved} picks at another place, {apart} in one of the two alone")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--k", type=int, default=2000)
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments.add_argument("--references", action="store_true", help="compare picks with the plain forms'")
    arguments.add_argument("--large", action="store_true", help="1,000,000 × 128 alone")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    if given.large:
        for kind in ("isotropic", "clustered"):
            compare(kind, 1_000_000, 128, 1000, 1, {"kcenter": k_center})
        return
    for kind in given.kinds:
        contestants: dict[str, Selector] = {"kcenter": k_center, "herding": herding}
        if kind == "clustered":
            contestants |= {"kcenter-pca": k_center_pca, "kcenter-robust": k_center_robust}
        compare(kind, 50_000, 512, given.k, given.rounds, contestants, given.references)


if __name__ == "__main__":
    main()
