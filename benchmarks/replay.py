"""Experience replay, batch 10 + 10: clsim's loop, a bare tensor loop of the same arithmetic, Avalanche's online Replay.

The contestants take turns in one process, and the median over the rounds of their ratio is printed.

    python -m benchmarks.replay [--rounds 5]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from clsim.compat import import_torchvision
from clsim.data.cache import Dataset, moments
from clsim.models import nets, resnet
from clsim.records.store import Store
from clsim.spec.resolve import resolve
from clsim.streams import build
from clsim.training import loop, machine, progress

CPU = torch.device("cpu")
MEMORY, BATCH, CLASSES = 2000, 10, 10


def synthetic(shape: tuple[int, ...], n: int) -> Dataset:
    """Make random images: what they show does not change how long they take."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    y = np.arange(n) % CLASSES
    mean, std = moments(x)
    return Dataset("synthetic", x, y, x[:100], y[:100], tuple("0123456789"), tuple(mean), tuple(std))


def ours(dataset: Dataset, model: str, memory: int) -> Callable[[], float]:
    """Steps per second of `clsim run` itself: training and selection, without evaluation."""
    tables = {"stream": {"experiences": 1, "setting": "class"}, "model": {"name": model}, "optimizer": {"lr": 0.01}}
    spec = resolve(tables, "er", flags={"memory": {"capacity": memory}})

    def run() -> float:
        with machine.isolated(spec, CPU), tempfile.TemporaryDirectory() as folder:
            stream = build.build(dataset, spec.stream, 0, CPU)
            with Store(Path(folder)).open(spec) as run_folder:
                cost = loop.train(spec, stream, run_folder, progress.Quiet()).data["cost"][0]
        return cost["steps"] / (cost["train_seconds"] + cost["select_seconds"])

    return run


def bare(dataset: Dataset, model: str, memory: int) -> Callable[[], float]:
    """The same arithmetic in one flat loop: index, cat, normalise, step, reservoir."""
    x, y = torch.from_numpy(dataset.train_x), torch.from_numpy(dataset.train_y)
    mean = torch.tensor(dataset.mean).view(-1, 1, 1) * 255
    scale = 1 / (torch.tensor(dataset.std).view(-1, 1, 1) * 255)

    def run() -> float:
        net = nets.build(network(model), tuple(x.shape[1:]), torch.ones(1, CLASSES, dtype=torch.bool), 0, CPU)
        net = net.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        rng = torch.Generator().manual_seed(0)
        kept_x, kept_y = torch.empty(memory, *x.shape[1:], dtype=torch.uint8), torch.empty(memory, dtype=torch.int64)
        seen = steps = 0
        started = time.perf_counter()
        order = torch.randperm(len(x), generator=rng)
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            new_x, new_y = x[rows], y[rows]
            batch_x, batch_y = new_x, new_y
            if seen:
                drawn = torch.randperm(min(seen, memory), generator=rng)[:BATCH]
                batch_x, batch_y = torch.cat([new_x, kept_x[drawn]]), torch.cat([new_y, kept_y[drawn]])
            images = batch_x.to(torch.float32, memory_format=torch.channels_last).sub_(mean).mul_(scale)
            loss = F.cross_entropy(net.head(net.body(images)), batch_y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if seen < memory:
                places = torch.arange(seen, seen + BATCH) % memory
            else:
                places = torch.randint(seen, (BATCH,), generator=rng)
            inside = places < memory
            kept_x[places[inside]], kept_y[places[inside]] = new_x[inside], new_y[inside]
            seen, steps = seen + BATCH, steps + 1
        return steps / (time.perf_counter() - started)

    return run


def avalanche(dataset: Dataset, model: str, memory: int, limit: int) -> Callable[[], float]:
    """Avalanche's Replay on a truly online stream: experiences of one batch, float tensors."""
    import_torchvision()
    from avalanche.benchmarks import nc_benchmark, split_online_stream
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Replay

    scale = torch.tensor(dataset.std).view(-1, 1, 1)
    floats = (torch.from_numpy(dataset.train_x[:limit]) / 255 - torch.tensor(dataset.mean).view(-1, 1, 1)) / scale
    labels = torch.from_numpy(dataset.train_y[:limit])

    def run() -> float:
        net = nets.build(network(model), tuple(floats.shape[1:]), torch.ones(1, CLASSES, dtype=torch.bool), 0, CPU)
        plain = torch.nn.Sequential(net.body, net.head)
        samples = torch.utils.data.TensorDataset(floats, labels)
        samples.targets = labels.tolist()  # type: ignore[attr-defined]
        whole = nc_benchmark(samples, samples, n_experiences=1, task_labels=False)
        online = split_online_stream(whole.train_stream, experience_size=BATCH)
        strategy = Replay(
            model=plain,
            optimizer=torch.optim.SGD(plain.parameters(), lr=0.01),
            criterion=torch.nn.CrossEntropyLoss(),
            mem_size=memory,
            train_mb_size=BATCH,
            train_epochs=1,
            evaluator=EvaluationPlugin(strict_checks=False),
        )
        started, steps = time.perf_counter(), 0
        for experience in online:
            strategy.train(experience)
            steps += 1
        return steps / (time.perf_counter() - started)

    return run


def network(name: str) -> Callable[[nets.Shape], torch.nn.Module]:
    return nets.mlp if name == "mlp" else resnet.slim_resnet18


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--model", choices=("mlp", "slim-resnet18"))
    given = arguments.parse_args()
    rounds = given.rounds
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for model, shape, n, memory, limit in (
        ("mlp", (1, 28, 28), 10000, 2000, 3000),
        ("slim-resnet18", (3, 32, 32), 600, 300, 300),
    ):
        if given.model not in (None, model):
            continue
        dataset = synthetic(shape, n)
        contestants = {
            "clsim": ours(dataset, model, memory),
            "bare loop": bare(dataset, model, memory),
            "Avalanche online Replay": avalanche(dataset, model, memory, limit),
        }
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, run in contestants.items():
                gc.collect()  # what one contestant leaves behind is not to slow the next
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    speeds[name].append(run())
        print(f"{model}, batch {BATCH} + {BATCH}, memory {memory}, one thread, medians over {rounds} rounds:")
        for name, values in speeds.items():
            ratio = statistics.median(a / b for a, b in zip(speeds["clsim"], values, strict=True))
            print(f"  {name:<24} {statistics.median(values):8.1f} steps/s   clsim is {ratio:5.2f} × as fast")


if __name__ == "__main__":
    main()
