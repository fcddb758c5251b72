"""A step that chooses 32 of 320 candidates, against a forward pass over the 320 and a step on 32.

The contestants take turns in one process, and the median over the rounds of their ratio is printed; the goal is 1.05 at
most. On a CPU, the time is that of the process, which other processes change less than that of the clock. The forward
pass is that of augmented candidates, in eval mode and without gradient. An irreducible-loss net is trained before the
first step, so that its time is in neither.

    python -m benchmarks.batch_choice [--rounds 15] [--model slim-resnet18] [--device cpu]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable

import torch

from clsim.checks.samples import exemplars
from clsim.data.augmentation import Transform
from clsim.learners.sgd import Sgd
from clsim.memory.buffer import Buffer
from clsim.models import nets
from clsim.models.nets import evaluating
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.pool.pool import Cost
from clsim.randomness import Randomness
from clsim.spec import registry
from clsim.spec.batch import BatchSpec
from clsim.spec.run import RunSpec
from clsim.spec.tables import OptimizerSpec, TrainingSpec
from clsim.training.batch_choice import BatchChoice
from clsim.training.contract import Setup

CANDIDATES, CHOSEN, CLASSES, BATCHES = 320, 32, 10, 100
SHAPES = {"mlp": (1, 28, 28), "slim-resnet18": (3, 32, 32), "resnet18": (3, 32, 32)}


def setup_of(model: str, selector: str, device: torch.device) -> Setup:
    """The parts of a run with AdamW at 0.001 that chooses its batches."""
    spec = RunSpec(
        batch=BatchSpec(selector, share=CHOSEN / CANDIDATES),
        training=TrainingSpec(batch_size=CHOSEN, device=device.type),
        optimizer=OptimizerSpec("adamw", lr=0.001, weight_decay=0.01),
    )
    body, shape = registry.component("models", model), SHAPES[model]

    def fresh(seed: int) -> nets.Net:
        net = nets.build(body, shape, torch.ones(1, CLASSES, dtype=torch.bool), seed, device)
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    randomness, cost = Randomness(0, device), Cost()
    memory = Buffer(spec.memory, None, rng=randomness.memory, cost=cost)
    names = ["crop", "flip"] if shape[0] == 3 else []
    transform = Transform([0.5] * shape[0], [0.25] * shape[0], names, device=device, channels_last=True)
    return Setup(spec, fresh(0), fresh, memory, transform, randomness, cost)


def candidates(model: str, device: torch.device) -> list[Exemplars]:
    """Batches of random images: what they show does not change how long they take."""
    rng, batches = torch.Generator().manual_seed(0), []
    for first in range(0, BATCHES * CANDIDATES, CANDIDATES):  # a column knows a sample by its index
        x = torch.randint(256, (CANDIDATES, *SHAPES[model]), generator=rng).to(torch.uint8)
        found = exemplars(x, torch.randint(CLASSES, (CANDIDATES,), generator=rng))
        columns = found.columns() | {"index": found.index + first}
        batches.append(Exemplars(**{name: column.to(device) for name, column in columns.items()}))
    return batches


def choosing(model: str, selector: str, device: torch.device) -> Callable[[], None]:
    """A step of clsim's own that chooses."""
    setup, batches = setup_of(model, selector, device), candidates(model, device)
    whole = concatenate(batches)
    setup.columns.put("irreducible", whole, whole.key)
    learner = BatchChoice(setup, Sgd(setup), registry.component("batches", selector))
    turn = itertools.cycle(batches)
    return lambda: void(learner.observe(next(turn)))


def separate(model: str, device: torch.device) -> Callable[[], None]:
    """The forward pass over all candidates, and a step on some of them."""
    setup, turn = setup_of(model, "loss", device), itertools.cycle(candidates(model, device))
    plain = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, batch=BatchSpec()))
    learner = Sgd(plain)

    def step() -> None:
        batch = next(turn)
        with evaluating(setup.net), torch.no_grad():
            setup.net(setup.transform.train(batch.x, setup.randomness.augment), batch.task)
        learner.observe(batch[:CHOSEN])

    return step


def void(found: object) -> None:
    """Drop a result."""


def timed(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Seconds of one step, out of several."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    step()
    wait(device)
    started = clock()
    for _ in range(steps):
        step()
    wait(device)
    return (clock() - started) / steps


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--model", choices=SHAPES)
    arguments.add_argument("--device", default="cpu")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    for model in [given.model] if given.model else ["mlp", "slim-resnet18"]:
        steps = 20 if model == "mlp" or device.type == "cuda" else 1
        contestants = {
            "a forward pass and a step": separate(model, device),
            **{f"a step by {name}": choosing(model, name, device) for name in ("rho-loss", "gradient-norm")},
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(given.rounds):
            for name, step in contestants.items():
                seconds[name].append(timed(step, steps, device))
        where = f"{CHOSEN} of {CANDIDATES}, {device.type}, one thread, medians over {given.rounds} rounds"
        print(f"{model}, {where}:")
        base = seconds["a forward pass and a step"]
        for name, values in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
            print(f"  {name:<26} {1000 * statistics.median(values):8.2f} ms   {ratio:5.3f} × of the former")


if __name__ == "__main__":
    main()
