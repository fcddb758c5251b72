"""Every acquisition on one pool: seconds, processor seconds, and memory beyond the pool's own.

Candidates are clustered features (float32, as after a ReLU) under a linear head, without labels; some are labelled
beside them. Each acquisition chooses in a process of its own, which is ended when it takes too long. Features and
logits are computed before; the nets of a committee are trained within. Processor time is what other work on the machine
disturbs least.

Acquisitions with a module choose among as many images (1 × 28 × 28) under a perceptron with layers of that width: their
modules read layers, or reconstruct, turn or tell apart images. What they train once a round before a choice (``fit``)
is measured apart. What is trained with the learner is untrained here. A stream policy decides in a run alone.

    python -m benchmarks.acquisitions [--n 10000] [--classes 10] [--width 512] [--budget 100] [--threads 2]
    python -m benchmarks.acquisitions --n 50000 --classes 100 --budget 1000 --only badge
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch import Tensor

from benchmarks.submodular import _memory
from clsim.acquisitions.acquisition import Acquisition
from clsim.acquisitions.bounds import Bound
from clsim.acquisitions.stream_policies import StreamPolicy
from clsim.data.augmentation import Transform
from clsim.models import nets
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool, Selector
from clsim.pool.proxy import Trainer
from clsim.spec import abilities, components, registry
from clsim.spec.tables import ProxySpec

CPU = torch.device("cpu")
COLUMNS = ("acquisition", "seconds", "processor_seconds", "bytes", "fit_seconds", "fit_processor_seconds", "fit_bytes")


def vectors(n: int, classes: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make features around a few centres of each class, in place and in blocks, and their labels."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(4 * classes, width, generator=torch.Generator().manual_seed(0))
    of = torch.randint(len(centres), (n,), generator=rng)
    x = torch.empty(n, width).normal_(generator=rng)
    for start in range(0, n, 4096):
        x[start : start + 4096].add_(centres[of[start : start + 4096]]).relu_()
    return x, of % classes


def exemplars(x: Tensor, y: Tensor, first: int = 0) -> Exemplars:
    n = len(x)
    key = torch.rand(n, generator=torch.Generator().manual_seed(first))
    return Exemplars(x, y, torch.zeros(n, dtype=torch.int64), key, torch.arange(first, first + n))


def images(n: int, classes: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make uint8 images (n, 1, 28, 28), noisy copies of a few for each class, and their labels."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(256, (4 * classes, 1, 7, 7), generator=torch.Generator().manual_seed(0))
    kinds = drawn.repeat_interleave(4, 2).repeat_interleave(4, 3)
    of = torch.randint(len(kinds), (n,), generator=rng)
    x = torch.empty(n, 1, 28, 28, dtype=torch.uint8)
    for start in range(0, n, 4096):
        part = kinds[of[start : start + 4096]]
        x[start : start + 4096] = (part + 40 * torch.randn(part.shape, generator=rng)).clamp_(0, 255).to(torch.uint8)
    return x, of % classes


def pool_of(n: int, classes: int, width: int, labelled: int, *, seen: bool = False) -> tuple[Pool, Tensor, Exemplars]:
    """Make a pool whose net was fitted to what is labelled; return also the hidden labels, and test samples.

    Args:
        seen: whether the candidates are images under a perceptron, and not features under a linear head.
    """
    visible = torch.ones(1, classes, dtype=torch.bool)
    samples = images if seen else vectors

    def fresh(seed: int) -> nets.Net:
        body = partial(nets.mlp, hidden=(width, width)) if seen else nets.linear
        return nets.build(body, (1, 28, 28) if seen else (width,), visible, seed, CPU)

    channels = 1 if seen else width
    transform = Transform([0.5 * seen] * channels, [1.0] * channels, [], device=CPU, channels_last=False)
    rng, cost = torch.Generator().manual_seed(0), Cost()
    spec = ProxySpec(epochs=5)
    trainer = Trainer(spec, fresh, transform, nullcontext, rng, rng, cost)
    x, y = samples(n, classes, width, seed=1)
    beside = exemplars(*samples(labelled, classes, width, seed=2), first=n)
    net = trainer.train(beside)[0]
    pool = Pool(
        exemplars(x, torch.full_like(y, -1)),
        net,
        transform.plain,
        trainer=trainer,
        classes=range(classes),
        labelled=beside,
        cost=cost,
        closed=True,
    )
    return pool, y, exemplars(*samples(2000, classes, width, seed=3), first=n + labelled)


def asker(name: str, pool: Pool, truth: Tensor, test: Exemplars) -> Selector:
    select = registry.component("labellers", name)
    if isinstance(select, type) and issubclass(select, Bound):
        bound: Any = select(pool.net, torch.Generator())
        bound.reads(truth, test)
        return bound
    if isinstance(select, type) and issubclass(select, Acquisition):
        made: Acquisition = select(pool.net, torch.Generator().manual_seed(0))
        made.begin(0, 1)
        return made
    return select


def spent_on(work: Callable[[], Any]) -> tuple[Any, float, float, int]:
    """Do some work; return its result, seconds, processor seconds and bytes beyond those before."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before, started, worked = _memory("VmRSS"), time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - started, time.process_time() - worked, _memory("VmHWM") - before


def measure(select: Selector, pool: Pool, budget: int, threads: int, queue: Any) -> None:
    """Fit and choose in this process; report the number chosen, and for each of both what it took."""
    torch.set_num_threads(threads)
    rng, fitted = torch.Generator().manual_seed(0), (0.0, 0.0, 0)
    if isinstance(select, Acquisition) and not isinstance(select, Bound):
        _, *fitted = spent_on(partial(select.fit, pool, rng))
    chosen, *spent = spent_on(partial(select, pool, budget, rng=rng))
    queue.put((len(chosen.index.unique()), *spent, *fitted))


def apart(
    select: Selector, pool: Pool, budget: int, threads: int, limit: float
) -> tuple[int, float, float, int, float, float, int] | None:
    """Measure in a forked process, which shares the pool; None: it took longer than the limit, or it failed."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=measure, args=(select, pool, budget, threads, queue))
    process.start()
    try:
        return queue.get(timeout=limit)
    except Empty:
        return None
    finally:
        process.kill()
        process.join()


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--labelled", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds after which one is ended")
    parser.add_argument("--only", nargs="*", default=[], help="names; all where there are none")
    parser.add_argument("--csv", type=Path, help="a file for the table")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)  # a fork of a process with several threads may wait for ever
    pool, truth, test = pool_of(arguments.n, arguments.classes, arguments.width, arguments.labelled)
    seen = pool_of(arguments.n, arguments.classes, arguments.width, arguments.labelled, seen=True)[0]
    for part in (pool, pool.labelled, seen, seen.labelled):
        _ = part and part.logits
    every = [name for name in components.COMPONENTS["selectors"] if abilities.acquires(name)]
    every += [*components.COMPONENTS["acquisitions"], *components.BOUNDS]
    print(
        f"{arguments.budget:,} of {arguments.n:,} × {arguments.width}, {arguments.classes} classes, {arguments.threads}"
    )
    print(f"threads; the features take {pool.features.nbytes / 2**20:.0f} MiB")
    print(f"  {'':<26} {'seconds':>8} {'processor':>10} {'MiB':>8} {'fit, s':>8} {'processor':>10} {'MiB':>8}")
    rows = []
    for name in arguments.only or every:
        kind = registry.component("labellers", name)
        if isinstance(kind, type) and issubclass(kind, StreamPolicy):
            print(f"  {name:<26} asks in a run alone: it decides on each batch of a stream")
            continue
        owns = isinstance(kind, type) and not issubclass(kind, Bound)
        of = seen if owns else pool
        found = apart(asker(name, of, truth, test), of, arguments.budget, arguments.threads, arguments.limit)
        if found is None:
            print(f"  {name:<26} more than {arguments.limit:.0f} s, or an error", flush=True)
            continue
        count, seconds, processor, grown, *fitted = found
        short = "" if count == arguments.budget else f"   {count} picks"
        fit = f" {fitted[0]:8.2f} {fitted[1]:10.2f} {fitted[2] / 2**20:8.1f}" if owns else ""
        print(f"  {name:<26} {seconds:8.2f} {processor:10.2f} {grown / 2**20:8.1f}{fit}{short}", flush=True)
        rows.append(dict(zip(COLUMNS, (name, seconds, processor, grown, *fitted), strict=True)))
    if arguments.csv:
        with arguments.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
