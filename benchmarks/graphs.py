"""A GPU's training steps: one kernel at a time, and recorded once as a CUDA graph and replayed.

With ``training.capturable`` a GPU records a step, in which nothing waits for the device or counts. This script holds
clsim to that. For each strategy, two learners start equal and see the same batches; one takes its steps kernel by
kernel, the other records the step after a few and replays it. Printed: steps a second of both, their ratio, and the
largest difference between the losses of the two, beside that of two runs kernel by kernel (a GPU may add up in any
order).

The shapes are those of an online Split CIFAR-100 (5 classes an experience, 32 × 32 colour images, batches of 10 new and
10 replayed samples, crop and flip). The images are random, since their content changes no time; neither a network nor
a folder of data is needed. ``--tiny`` takes a small net and few steps on whatever processor there is, without a graph
where there is no GPU.

python -m benchmarks.graphs [--steps 400] [--strategies er,ewc,…] [--model slim-resnet18] [--csv FILE] [--tiny]
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost
from clsim.spec.resolve import keeps_memory, resolve
from clsim.spec.run import RunSpec
from clsim.streams.labels import known_rows
from clsim.streams.part import Part
from clsim.streams.stream import Stream
from clsim.training.assemble import assemble
from clsim.training.contract import Setup, Take, Terms
from clsim.training.experience import learn
from clsim.training.graph import RUN_FIRST, Graph
from clsim.training.machine import device_of, isolated
from clsim.training.progress import Quiet

STRATEGIES = "finetune,er,er-ace,der,ewc,lwf,icarl,ss-il,bic"
EXPERIENCES, CLASSES, PER_CLASS = 3, 5, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--model", default="slim-resnet18")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    if not (gpu or arguments.tiny):
        raise SystemExit("benchmarks.graphs: no GPU here; --tiny runs on any processor")
    steps, model = (6, "mlp") if arguments.tiny else (arguments.steps, arguments.model)
    card = torch.cuda.get_device_name() if gpu else "no GPU"
    print(f"{card}, torch {torch.__version__}, {model}, {steps} steps an experience")
    print(
        f"{'strategy':<10} {'steps/s':>9} {'replayed':>9} {'ratio':>6}  largest difference of a loss (of two without)"
    )
    rows = []
    for strategy in arguments.strategies.split(","):
        spec = spec_of(strategy, steps, model, "cuda" if gpu else "cpu")
        rate, losses = measured(spec, record=False)
        _, repeated = measured(spec, record=False)
        faster, replayed = measured(spec, record=True)
        differences = [f"{(losses - other).abs().max().item():.3g}" for other in (replayed, repeated)]
        rows.append([strategy, round(rate), round(faster), round(faster / rate, 2), *differences])
        print("{:<10} {:9} {:9} {:6}  {} ({})".format(*rows[-1]), flush=True)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            file.write(
                f"# python -m benchmarks.graphs --steps {steps} --model {model}; {card}, torch {torch.__version__}\n"
            )
            writer = csv.writer(file)
            writer.writerow(
                ["strategy", "steps_per_second", "replayed_per_second", "ratio", "difference", "difference_without"]
            )
            writer.writerows(rows)


def spec_of(strategy: str, steps: int, model: str, device: str, further: Sequence[str] = ()) -> RunSpec:
    """Resolve the spec of a strategy whose step can be recorded, with further settings."""
    settings = [
        f"training.steps={steps}",
        "training.last_batch=drop",
        "training.capturable=true",
        f"training.device={device}",
        f"model.name={model}",
        f"stream.experiences={EXPERIENCES}",
        *further,
    ]
    scenario = "split-cifar100-class"
    flags = {"memory": {"buffer": "random"}} if keeps_memory(scenario, strategy) else {}
    return resolve(scenario, strategy, flags=flags, settings=settings)


def measured(
    spec: RunSpec, *, record: bool, classes: int = CLASSES, width: int = EXPERIENCES * CLASSES
) -> tuple[float, torch.Tensor]:
    """Train on the stream, and measure the steps of the last experience.

    Args:
        spec: the spec.
        record: whether steps are recorded and replayed.
        classes, width: number of classes of an experience, and of the head.

    Returns:
        The steps a second, and the sum of the loss's terms at every step of all experiences.
    """
    stream = random_stream(spec, classes=classes, width=width)
    setup, learner = assemble(spec, stream, Cost())
    plain, losses, rate = Sgd.step, list[torch.Tensor](), 0.0

    def recorder(self: Setup) -> Take | None:
        return Graph(self.device, [self.randomness.augment]).step if record else None

    for position in range(len(stream)):
        experience = stream.experience(position)
        setup.classes.update(stream.labels_seen(position), setup.memory.begun)
        clock = Clock(spec)

        def timed(self: Sgd, new: Exemplars, old: Exemplars | None, clock: Clock = clock) -> Terms:
            with clock:
                return plain(self, new, old)

        with (
            mock.patch.object(Sgd, "step", timed),
            mock.patch.object(Setup, "recorder", recorder),
            isolated(spec, stream.device),
        ):
            terms = learn(experience, setup, learner, classes * (position + 1), Quiet())
        losses.append(torch.tensor(list(terms.columns().values())).sum(0))
        rate = clock.rate
    return rate, torch.cat(losses)


class Clock:
    """A stopwatch over the steps of an experience that follow the recorded one. Final."""

    def __init__(self, spec: RunSpec) -> None:
        self._cuda, self._last = torch.cuda.is_available() and spec.training.device != "cpu", spec.training.steps
        self._taken, self._started, self.rate = 0, 0.0, 0.0

    def __enter__(self) -> None:
        if self._taken == RUN_FIRST + 1:
            self._started = self._now()

    def __exit__(self, *error: object) -> None:
        self._taken += 1
        if self._taken == self._last:
            self.rate = (self._last - RUN_FIRST - 1) / (self._now() - self._started)

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def random_stream(
    spec: RunSpec, *, classes: int = CLASSES, per_class: int = PER_CLASS, width: int = EXPERIENCES * CLASSES
) -> Stream:
    """Make a stream of random images, without Avalanche.

    Args:
        spec: the number of experiences, the device, and which labels are known.
        classes: number of classes of an experience.
        per_class: number of images of a class.
        width: number of classes of the head.
    """
    own = [tuple(range(i * classes, (i + 1) * classes)) for i in range(spec.stream.experiences)]
    y = np.arange(len(own) * classes * per_class) % (len(own) * classes)
    x = np.random.default_rng(0).integers(0, 256, (len(y), 3, 32, 32), dtype=np.uint8)
    rows = [np.flatnonzero(np.isin(y, classes)) for classes in own]
    parts = [Part(x, chosen, y[chosen]) for chosen in rows]
    return Stream(
        parts,
        parts,
        own,
        [str(c) for c in range(width)],
        masked=False,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        spec=spec.stream,
        seed=0,
        device=device_of(spec.training.device),
        labelled=known_rows(parts, spec.stream, 0, spec.labels),
        labels=spec.labels,
    )


if __name__ == "__main__":
    main()
