"""A step that a GPU records once and replays, against the same step one kernel at a time.

Split CIFAR-100's shapes (experiences of 5 classes, 32 × 32 colour images), slim ResNet-18, batches of 10 new and 10
replayed samples, crop and flip. The images are random, since their content changes no time. For each strategy: steps a
second of both, their ratio, and the largest difference between the losses of the two runs.

python -m benchmarks.recorded [--steps 400] [--strategies er,ewc,…]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from clsim.pool.pool import Cost
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.streams.part import Part
from clsim.streams.stream import Stream
from clsim.training.assemble import assemble
from clsim.training.loop import learn
from clsim.training.progress import Quiet

STRATEGIES = "finetune,er,er-ace,der,ewc,mas,lwf,icarl,ss-il,bic"
EXPERIENCES, CLASSES, PER_CLASS = 3, 5, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--model", default="slim-resnet18")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.recorded: no GPU here")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    print(f"{'strategy':<10} {'steps/s':>9} {'recorded':>9} {'ratio':>6}  largest difference of a loss")
    for strategy in arguments.strategies.split(","):
        settings = [
            f"training.steps={arguments.steps}",
            "training.last_batch=drop",
            "training.device=cuda",
            f"model.name={arguments.model}",
            "stream.experiences=3",
        ]
        flags = {} if strategy in ("finetune", "ewc", "mas", "lwf") else {"memory": {"buffer": "random"}}
        rates, losses = [], []
        for recorded in ("false", "true"):
            words = [*settings, f"training.recorded={recorded}"]
            spec = resolve("split-cifar100-class", strategy, flags=flags, settings=words)
            rate, found = measured(spec)
            rates.append(rate)
            losses.append(found)
        away = (losses[0] - losses[1]).abs().max().item()
        print(f"{strategy:<10} {rates[0]:9.0f} {rates[1]:9.0f} {rates[1] / rates[0]:6.2f}  {away:.3g}", flush=True)


def measured(spec: RunSpec) -> tuple[float, torch.Tensor]:
    """Steps a second of the last experience, and the sum of the terms of the loss at every step of all."""
    stream = random_stream(spec)
    setup, learner = assemble(spec, stream, Cost())
    losses, seconds = [], 0.0
    for position in range(len(stream)):
        experience = stream.experience(position)
        torch.cuda.synchronize()
        started = time.perf_counter()
        terms = learn(experience, setup, learner, CLASSES * (position + 1), Quiet())
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        losses += [torch.stack(list(term.values())).sum() for term in terms]
    return spec.training.steps / seconds, torch.stack(losses)


def random_stream(spec: RunSpec) -> Stream:
    n = EXPERIENCES * CLASSES * PER_CLASS
    x = np.random.default_rng(0).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    y = np.arange(n) % (EXPERIENCES * CLASSES)
    own = [tuple(range(i * CLASSES, (i + 1) * CLASSES)) for i in range(EXPERIENCES)]
    rows = [np.flatnonzero(np.isin(y, classes)) for classes in own]
    parts = [Part(x, chosen, y[chosen]) for chosen in rows]
    names = [str(c) for c in range(EXPERIENCES * CLASSES)]
    half = [0.5] * 3
    device = torch.device("cuda")
    return Stream(parts, parts, own, names, masked=False, mean=half, std=half, spec=spec.stream, seed=0, device=device)


if __name__ == "__main__":
    main()
