"""Time to begin an attempt of the controller with the same state as the others, against the time to train it.

One thread, slim ResNet-18 on Split CIFAR-100 (20 tasks of 5 classes), a memory of 2000. An attempt assembles a net, a
memory and a learner, and restores a copy of the state into them. Medians; steps are timed after a warm-up. The images
are random, since their content does not change the times.

python -m benchmarks.controller
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from clsim.pool.exemplars import Exemplars, batch_count
from clsim.pool.pool import Cost
from clsim.records import search
from clsim.records.search import Attempt
from clsim.spec import run
from clsim.spec.resolve import resolve
from clsim.streams.part import Part
from clsim.streams.stream import Stream
from clsim.training import assemble
from clsim.training.checkpoint import copied, restore, snapshot
from clsim.training.contract import Learner, Setup

TRAINED = 2000  # images of a task without its validation part
STEPS = 20


def main() -> None:
    torch.set_num_threads(1)
    settings = ["optimizer.momentum=0.9", "optimizer.restart=false"]
    for strategy in ("mas", "er"):
        memory = {"memory": {"capacity": 2000}} if strategy == "er" else {}
        flags = {**memory, "controller": {"name": "stability-decay"}}
        spec = resolve("split-cifar100", strategy, flags=flags, settings=settings)
        stream = random_stream(spec)
        setup, learner = assemble.assemble(spec, stream, Cost())
        experience = stream.experience(0)
        learner.begin(experience)
        learner.observe(experience.train[:10])  # momentum is part of the state
        learner.finish(experience)
        fill(setup, stream)
        state = snapshot(setup, learner)
        snapshots, writes, steps = [], [], []
        for _ in range(7):
            started = time.perf_counter()
            other, another = assemble.assemble(spec, stream, Cost())
            restore(copied(state), other, another)
            snapshots.append(time.perf_counter() - started)
            writes.append(trace_seconds())
            steps.append(step_seconds(other, another, stream))
        restoring, writing, step = map(statistics.median, (snapshots, writes, steps))
        training = step * batch_count(TRAINED, spec.training.batch_size) * spec.training.epochs
        share = (restoring + writing) / training
        print(
            f"{strategy:<4} memory {len(setup.memory):>4}: snapshot and restore {1e3 * restoring:.0f} ms, "
            f"trace {1e3 * writing:.1f} ms, "
            f"training {training:.1f} s ({1e3 * step:.0f} ms a step): {100 * share:.2f} % of an attempt"
        )


def random_stream(spec: run.RunSpec) -> Stream:
    """Make a stream of random images in the shape of Split CIFAR-100."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (2500, 3, 32, 32), dtype=torch.uint8, generator=rng).numpy()
    y = (torch.arange(2500) % 5).numpy()
    rows = torch.arange(2500).numpy()
    classes = [tuple(range(5 * t, 5 * t + 5)) for t in range(20)]
    parts = [Part(x, rows, y + 5 * t) for t in range(20)]
    names = [str(label) for label in range(100)]
    mean, std = [0.5] * 3, [0.25] * 3
    return Stream(
        parts, parts, classes, names, masked=True, mean=mean, std=std, spec=spec.stream, seed=0,
        device=torch.device("cpu"),
    )  # fmt: skip


def fill(setup: Setup, stream: Stream) -> None:
    """Fill the memory as if tasks had been learnt."""
    seen: Exemplars = stream.experience(0).train
    for start in range(0, len(seen), 10):
        setup.memory.after_batch(seen[start : start + 10], 5, setup.pool)
    setup.memory.after_experience(seen, 5, setup.pool)


def step_seconds(setup: Setup, learner: Learner, stream: Stream) -> float:
    """Measure one step in a later experience."""
    train = stream.experience(1).train
    learner.begin(stream.experience(1))
    for i in range(3):
        learner.observe(train[10 * i : 10 * i + 10])
    started = time.perf_counter()
    for i in range(STEPS):
        learner.observe(train[10 * i : 10 * i + 10])
    return (time.perf_counter() - started) / STEPS


def trace_seconds() -> float:
    """Measure writing what eight attempts found."""
    attempts = [Attempt("stability", 0.01, {"strength": 3.0}, 0.5, 0.4, "decayed", {"steps": 200})] * 8
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        search.save(Path(folder), 3, attempts)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
