"""Five seeds of experience replay: together, one after another, and in five processes.

Each way trains the same five seeds for some steps on an experience (batches of 10 new and 10 replayed samples,
reservoir memory, random 32 × 32 colour images, whose content changes no time), from their assembly to the last step.
The ways take turns. On a GPU a clock times them, from the moment at which all processes stand ready; on a processor,
which others may use too, the processor's time does: of the process that takes longest, as if each had an idle core.
Printed: the median seconds of each way, how many times as fast as one after another it is, and the largest difference
of a loss of the first three steps to that of the seed alone.

    python -m benchmarks.together [--seeds 5] [--steps 200] [--rounds 5] [--device cuda] [--models mlp,slim-resnet18]
                                  [--tiny]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.graphs import random_stream
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.training.experiment import Experiment
from clsim.training.machine import device_of, isolated
from clsim.training.progress import Quiet
from clsim.training.together import Together

Losses = list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", default="mlp,slim-resnet18")
    parser.add_argument("--tiny", action="store_true", help="Few steps, two rounds, two seeds.")
    arguments = parser.parse_args()
    seeds, steps, rounds = (2, 5, 2) if arguments.tiny else (arguments.seeds, arguments.steps, arguments.rounds)
    device = device_of(arguments.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor's time of one thread"
    print(f"{where}, torch {torch.__version__}, {seeds} seeds, {steps} steps, median of {rounds}")
    print(f"{'model':<15} {'way':<18} {'seconds':>8} {'ratio':>6}  difference of a loss")
    for model in arguments.models.split(","):
        specs = [spec_of(seed, steps, model, str(device)) for seed in range(seeds)]
        with_processes = Processes(specs)
        ways: dict[str, Callable[[], tuple[float, list[Losses]]]] = {
            "one after another": partial(timed, one_by_one, specs, device),
            "together": partial(timed, together, specs, device),
            f"in {seeds} processes": with_processes.run,
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        losses: dict[str, list[Losses]] = {}
        for i in range(rounds + 1):
            for name, way in ways.items():
                seconds, losses[name] = way()
                if i:  # the first round is for warming up
                    taken[name].append(seconds)
        with_processes.close()
        usual = statistics.median(taken["one after another"])
        for name, each in taken.items():
            seconds, apart = statistics.median(each), difference(losses[name], losses["one after another"])
            print(f"{model:<15} {name:<18} {seconds:8.2f} {usual / seconds:6.2f}  {apart:.1e}", flush=True)


def spec_of(seed: int, steps: int, model: str, device: str) -> RunSpec:
    settings = [f"training.steps={steps}", f"training.device={device}", f"model.name={model}", "stream.experiences=3"]
    return resolve("split-cifar100-class", "er", settings=settings, seed=seed)


def learnt(spec: RunSpec, seat: Any = None) -> Losses:
    """Train on the first experience; return the losses of new samples of the first steps."""
    stream = random_stream(spec)
    experiment = Experiment(spec, stream, Quiet(), seat=seat)
    setup, learner = experiment.assemble()
    return experiment.learn(stream.experience(0), setup, learner).columns()["new"][:3]  # waits for the device


def one_by_one(specs: list[RunSpec], device: torch.device) -> list[Losses]:
    return [learnt(spec) for spec in specs]


def together(specs: list[RunSpec], device: torch.device) -> list[Losses]:
    found = Together(len(specs), device).run([partial(learnt, spec) for spec in specs])
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


def timed(
    way: Callable[[list[RunSpec], torch.device], list[Losses]], specs: list[RunSpec], device: torch.device
) -> tuple[float, list[Losses]]:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    with isolated(specs[0], device):
        started = clock()
        losses = way(specs, device)
        return clock() - started, losses


class Processes:
    """A process for each seed, which waits for the word to begin. Final."""

    def __init__(self, specs: list[RunSpec]) -> None:
        self._gpu = specs[0].training.device.startswith("cuda")
        context = multiprocessing.get_context("spawn")
        self._ends, self._processes = [], []
        for spec in specs:
            ours, theirs = context.Pipe()
            self._processes.append(context.Process(target=serve, args=(spec, theirs), daemon=True))
            self._processes[-1].start()
            self._ends.append(ours)

    def run(self) -> tuple[float, list[Losses]]:
        for end in self._ends:
            end.send(True)
        found = [end.recv() for end in self._ends]
        wall = max(one["ended"] for one in found) - min(one["began"] for one in found)
        return wall if self._gpu else max(one["spent"] for one in found), [one["losses"] for one in found]

    def close(self) -> None:
        for end in self._ends:
            end.send(False)
        for process in self._processes:
            process.join()


def serve(spec: RunSpec, end: Connection) -> None:
    device = device_of(spec.training.device)
    with isolated(spec, device):
        while end.recv():
            began, spent = time.perf_counter(), time.process_time()
            losses = learnt(spec)
            spent = time.process_time() - spent
            end.send({"began": began, "ended": time.perf_counter(), "spent": spent, "losses": losses})


def difference(found: list[Losses], expected: list[Losses]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
