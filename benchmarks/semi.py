"""The time of one step of NNCSL by section: four views of 64 images, slim ResNet-18, the second of two experiences.

There are two large and two small views of each sample, and five labelled samples of each of four classes in two large
views; the net of the first experience is the teacher. The views are those of the paper on CIFAR-10, those of the small
Fashion-MNIST setting, and strong ones. Printed are medians over the steps, and their shares of the sum of the medians.
One thread is timed by its CPU time, which excludes other work on the machine; several threads by the clock.

    python -m benchmarks.semi [--threads 1] [--steps 12]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import nn

from benchmarks.replay import synthetic
from clsim.data.augmentation import Transform
from clsim.learners.semi.labelled import Labelled
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net
from clsim.objectives import soft_neighbours
from clsim.pool.exemplars import Exemplars, batches
from clsim.pool.pool import Cost
from clsim.spec.resolve import resolve
from clsim.streams import build
from clsim.training import assemble, progress
from clsim.training.experience import learn

VIEWS = {
    "CIFAR-10 (crops, flip, jitter, solarize, equalize)": ((3, 32, 32), ("flip", "jitter", "solarize", "equalize")),
    "Fashion-MNIST (crops, flip)": ((1, 28, 28), ("flip",)),
    "strong (crops, flip, RandAugment, cutout)": ((3, 32, 32), ("flip", "rand-augment", "cutout")),
}
STEP = ("forward", "losses", "backward", "optimizer")
OUTSIDE = ("views", "support draw", "bookkeeping")


class Profile:
    """A count of seconds by section; a section within another is taken off the outer one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*STEP, *OUTSIDE), 0.0)
        self._open: list[str] = ["bookkeeping"]
        self._since = clock()

    def section(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time is counted."""

        @functools.wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            self._turn()
            self._open.append(name)
            result = function(*args, **options)
            self._turn()
            self._open.pop()
            return result

        return timed

    def _turn(self) -> None:
        now = clock()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def step(self) -> dict[str, float]:
        """Return the seconds counted since the last call."""
        self._turn()
        done, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return done


def clock() -> float:
    """Read the clock, in seconds: CPU time with one thread."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def steps(shape: tuple[int, ...], changes: tuple[str, ...], count: int) -> list[dict[str, float]]:
    """Measure steps: section → seconds, for each step."""
    dataset = synthetic(shape, 2560)
    tables = {
        "data": {"augment": list(changes)},
        "labels": {"fraction": 0.05},
        "stream": {"experiences": 5, "setting": "class"},
        "model": {"name": "slim-resnet18"},
        "training": {"batch_size": 64},
        "optimizer": {"name": "lars", "lr": 0.1, "momentum": 0.9},
        "learner": {
            "options": {"large": ["large-crop", *changes], "small": ["small-crop", *changes], "small_views": 2}
        },
    }
    spec = resolve(tables, "nncsl", flags={"memory": {"capacity": 20}})
    stream = build.build(dataset, spec.stream, 0, torch.device("cpu"), labels=spec.labels)
    setup, learner = assemble.assemble(spec, stream, Cost())
    learn(stream.experience(0), setup, learner, 2, progress.Quiet())
    experience = stream.experience(1)
    learner.begin(experience)
    profile, found = Profile(), []
    with ExitStack() as stack:
        for owner, attribute, name in (
            (Transform, "view", "views"),
            (Labelled, "support", "support draw"),
            (Net, "features", "forward"),
            (Net, "logits", "forward"),
            (nn.Sequential, "forward", "forward"),
            (soft_neighbours, "posterior", "losses"),
            (soft_neighbours, "consistency", "losses"),
            (soft_neighbours, "mean_entropy", "losses"),
            (soft_neighbours, "cross_entropy", "losses"),
            (torch.nn.functional, "cross_entropy", "losses"),
            (torch.Tensor, "backward", "backward"),
            (Sgd, "apply", "optimizer"),
        ):
            stack.enter_context(mock.patch.object(owner, attribute, profile.section(name, getattr(owner, attribute))))
        for view in ("_large", "_small"):  # they were made before
            stack.enter_context(mock.patch.object(learner, view, profile.section("views", getattr(learner, view))))
        for batch in itertools.islice(endless(learner.incoming(experience), setup), count + 2):
            learner.observe(batch)
            found.append(profile.step())
    return found[2:]


def endless(samples: Exemplars, setup: Any) -> Iterator[Exemplars]:
    """Yield batches, epoch after epoch, without an end."""
    while True:
        yield from batches(samples, setup.spec.training.batch_size, setup.randomness.order)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for title, (shape, changes) in VIEWS.items():
        found = steps(shape, changes, asked.steps)
        seconds = {name: statistics.median(step[name] for step in found) for name in found[0]}
        whole = sum(seconds.values())
        print(f"\n{title}: {1000 * whole:.1f} ms a step, {asked.threads} thread{'s' * (asked.threads > 1)}")
        for name, spent in seconds.items():
            print(f"  {name:<16} {1000 * spent:>8.2f} ms {spent / whole:>7.1%}")
        outside = sum(seconds[name] for name in OUTSIDE) / whole
        print(f"  outside forward, losses, backward and optimizer: {outside:.1%}")


if __name__ == "__main__":
    main()
