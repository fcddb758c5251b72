"""Iterations per second of DM: all classes in one pass, against one class after the other.

The data has the shape of CIFAR-10, and there are 10 images per class.

python -m benchmarks.condensation [threads] [repeats]; by default with one thread, then with two, in about a minute.

Every contestant sees the same real samples, the same nets and the same images, and takes the same step. None of them
augments: a loop would draw an augmentation for each class, and nothing else would differ. The loop does what public
code does: a new net in each iteration, contiguous images, and features of real samples with a graph that is then thrown
away. The second loop makes no such graph; its arithmetic is the same. The contestants take turns, and their fastest
iterations are compared, so that other work on the machine disturbs all of them, and as little as possible.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from clsim.condensers.distribution import MeanMatching
from clsim.condensers.synthesis import Material, Synthetic
from clsim.models import nets
from clsim.pool.exemplars import Exemplars, groups
from clsim.pool.pool import Pool
from clsim.pool.scoring import History

CLASSES, IPC, REAL = 10, 10, 256
CPU = torch.device("cpu")


class Untrained:
    """A builder of nets that are not trained."""

    def __init__(self, channels_last: bool, device: torch.device) -> None:
        self._format, self._device = torch.channels_last if channels_last else torch.contiguous_format, device

    def fresh(self, seed: int) -> nets.Net:
        visible = torch.ones(1, CLASSES, dtype=torch.bool)
        net = nets.build(nets.convnet3, (3, 32, 32), visible, seed, self._device)
        return net.to(memory_format=self._format)  # type: ignore[call-overload]

    def train(self, samples: Exemplars) -> tuple[nets.Net, History]:
        raise NotImplementedError


def pool_of(channels_last: bool, precision: Callable[[], AbstractContextManager], device: torch.device = CPU) -> Pool:
    n, rng = CLASSES * REAL, torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=rng)
    y, zeros = torch.arange(n) % CLASSES, torch.zeros(n, dtype=torch.int64)
    columns = (x, y, zeros, torch.zeros(n), torch.arange(n))
    samples = Exemplars(*(column.to(device) for column in columns))
    kind = torch.channels_last if channels_last else torch.contiguous_format

    def prepare(x: Tensor) -> Tensor:
        return (x.float() / 255 - 0.5).div_(0.25).contiguous(memory_format=kind)

    return Pool(samples, None, prepare, precision=precision, trainer=Untrained(channels_last, device))


def bf16() -> AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16)


def class_by_class(graph: bool) -> Callable[[int, Synthetic, Material], Tensor]:
    """DM as its algorithm is written: a forward pass of each class's real samples, and one of its images."""

    def iteration(number: int, synthetic: Synthetic, material: Material) -> Tensor:
        net = material.build(int(torch.randint(2**62, (), generator=material.rng)))
        net.requires_grad_(False)
        loss = torch.zeros(())
        for c in range(CLASSES):
            real, made = material.real(REAL, [c])[0], synthetic.of(c)[0]
            # with a graph: the parameters require gradients in this pass, as in public code
            net.requires_grad_(graph)
            with material.pool.precision(), nullcontext() if graph else torch.no_grad():
                target = net.features(real).float().detach().mean(0)
            net.requires_grad_(False)
            with material.pool.precision():
                features = net.features(made).float().mean(0)
            loss = loss + (target - features).square().sum()
        synthetic.optimizer.zero_grad()
        loss.backward()
        synthetic.optimizer.step()
        return loss.detach()

    return iteration


def measure(threads: int, repeats: int) -> None:
    torch.set_num_threads(threads)
    contestants: dict[str, tuple[Callable[[int, Synthetic, Material], Tensor], Pool]] = {
        "class by class, fp32, with a graph": (class_by_class(True), pool_of(False, nullcontext)),
        "class by class, fp32": (class_by_class(False), pool_of(False, nullcontext)),
        "class by class, bf16, with a graph": (class_by_class(True), pool_of(False, bf16)),
        "clsim, fp32": (MeanMatching(REAL), pool_of(True, nullcontext)),
        "clsim, bf16": (MeanMatching(REAL), pool_of(True, bf16)),
    }
    works, seconds, losses = {}, {name: [] for name in contestants}, {}
    for name, (method, pool) in contestants.items():
        material = Material(pool, groups(pool.data), 1)
        rng = torch.Generator().manual_seed(2)
        place = torch.arange(CLASSES).repeat_interleave(IPC)
        images = torch.randn(CLASSES * IPC, 3, 32, 32, generator=rng)
        works[name] = method, Synthetic(images, place, material, lr=1.0, momentum=0.5), material
    for i in range(repeats + 1):
        for name, (method, synthetic, material) in works.items():
            material.begin(i)
            started = time.perf_counter()
            loss = float(method(i, synthetic, material))
            if i:  # the first iteration allocates memory
                seconds[name].append(time.perf_counter() - started)
            else:
                losses[name] = loss
    best = {name: min(values) for name, values in seconds.items()}
    print(f"{threads} thread(s), torch {torch.__version__}, the fastest of {repeats}")
    for name, least in best.items():
        print(f"{name:<36} {1 / least:6.2f} iterations/s   first loss {losses[name]:.4f}")
    graph, plain, halved, ours, ours_halved = best.values()
    print(
        f"fp32 against public code's loop: {graph / ours:.2f} ×, against one that wastes nothing {plain / ours:.2f} ×"
    )
    print(f"bf16 against public code's loop: in fp32, as it is, {graph / ours_halved:.2f} ×; ", end="")
    print(f"in bf16 {halved / ours_halved:.2f} ×", flush=True)


def main() -> None:
    threads = [int(sys.argv[1])] if len(sys.argv) > 1 else [1, 2]
    for count in threads:
        measure(count, int(sys.argv[2]) if len(sys.argv) > 2 else 2)


if __name__ == "__main__":
    main()
