"""THE loop: a spec and a stream in, a record out. Read this file first.

For each experience: train batch by batch, replaying from memory; let the memory keep what its selector picks out of
memory ∪ new; test on every experience. Row i of the accuracy matrix is what the learner knows after experience i.
"""

from __future__ import annotations

import dataclasses
import math
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any, Protocol

import torch

import clsim
from clsim import catalog, metrics, models
from clsim.data.augment import Transform
from clsim.errors import InputError
from clsim.exemplars import Exemplars, batches
from clsim.learners import Learner, Setup, Terms
from clsim.memory import Buffer
from clsim.pool import Cost, Selector
from clsim.randomness import Randomness, derive
from clsim.specs import RunSpec
from clsim.store import FORMAT, RunFolder, RunRecord
from clsim.streams import Stream


class Progress(Protocol):
    """Somebody who watches a run; see :mod:`clsim.reporting.terminal`."""

    def experience(self, position: int, total: int, images: int) -> None:
        """Training on ``images`` samples (epochs counted) of an experience begins."""

    def step(self, images: int) -> None:
        """A batch was learnt."""

    def row(self, position: int, accuracy: list[float]) -> None:
        """An experience is done; NaN where nothing was tested."""


class Quiet:
    """Nobody watches."""

    def experience(self, position: int, total: int, images: int) -> None:
        """Silence."""

    def step(self, images: int) -> None:
        """Silence."""

    def row(self, position: int, accuracy: list[float]) -> None:
        """Silence."""


@dataclass
class Results:
    """What accumulates over a run, and goes into its record.

    Attributes:
        done: experiences trained so far.
        accuracy: T rows of T, NaN = not tested.
        losses: a list a term, of equal lengths, NaN in steps without the term.
    """

    done: int
    accuracy: list[list[float]]
    initial: list[float]
    validation: list[float]
    cost: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    steps: int = 0
    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    @staticmethod
    def empty(experiences: int) -> Results:
        """Nothing tested yet."""
        unknown = [math.nan] * experiences
        return Results(0, [unknown.copy() for _ in unknown], unknown.copy(), unknown.copy())

    def add_losses(self, steps: list[Terms]) -> None:
        """Fetch the losses of an experience from the device, all at once."""
        for name in {name for terms in steps for name in terms}:
            column = self.losses.setdefault(name, [math.nan] * self.steps)
            values = [terms[name] for terms in steps if name in terms]
            fetched = iter(torch.stack(values).float().tolist())
            column += [next(fetched) if name in terms else math.nan for terms in steps]
        self.steps += len(steps)
        for column in self.losses.values():
            column += [math.nan] * (self.steps - len(column))


def train(
    spec: RunSpec,
    stream: Stream,
    folder: RunFolder,
    progress: Progress,
    *,
    selector: Selector | None = None,
    command: str = "",
) -> RunRecord:
    """Run one spec to its end, from its checkpoint if there is one.

    The same spec gives the same numbers on the same machine, whether it was interrupted or not, and however often it
    is evaluated.
    """
    training = spec.training
    randomness = Randomness(spec.seed, stream.device)
    cost = Cost()
    model = catalog.component("models", spec.model.name, spec.model.options, "[model.options]")
    channels_last = training.channels_last and len(stream.shape) == 3

    def fresh(seed: int) -> models.Net:
        net = models.build(model, stream.shape, stream.visible, seed, stream.device)
        return net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]

    net = fresh(derive(spec.seed, "weights"))
    transform = Transform(stream.mean, stream.std, spec.data.augment, device=stream.device, channels_last=channels_last)
    condense = None
    if selector is None and spec.memory.buffer != "none":
        found = catalog.component("buffers", spec.memory.buffer, spec.memory.options, "[memory.options]")
        condense, selector = (found, None) if catalog.is_condenser(spec.memory.buffer) else (None, found)
    retrieve = None
    if spec.memory.retrieval != "random":
        retrieve = catalog.component(
            "selectors", spec.memory.retrieval, spec.memory.retrieval_options, "[memory.retrieval_options]"
        )
    memory = Buffer(spec.memory, selector, rng=randomness.memory, cost=cost, retrieve=retrieve, condense=condense)
    setup = Setup(spec, net, fresh, memory, transform, randomness, cost)
    learner: Learner = catalog.component("learners", spec.learner.name, spec.learner.options, "[learner.options]")(
        setup
    )

    results = Results.empty(len(stream))
    state = folder.checkpoint()
    if state is not None:
        results = _restore(state, setup, learner)
    elif spec.evaluation.rows == "all":
        results.initial = evaluate(learner, stream, len(stream), spec, cost)

    for position in stream.schedule[results.done :]:
        experience = stream.experience(position)
        started, seen = time.perf_counter(), stream.classes_seen(position)
        progress.experience(results.done, len(stream.schedule), len(experience.train) * training.epochs)
        learner.begin(experience)
        losses: list[Terms] = []
        for epoch in range(training.epochs):
            for batch in batches(experience.train, training.batch_size, randomness.order):
                for _ in range(training.passes):
                    losses.append(learner.observe(batch))
                if not epoch:  # a sample is offered to the memory once, however often it is learnt
                    memory.after_batch(learner.remember(batch), seen, setup.pool)
                progress.step(len(batch))
        memory.after_experience(learner.remember(experience.train), seen, setup.pool, reference=experience.validation)
        losses += learner.finish(experience)
        results.add_losses(losses)  # waits for the device
        cost.train_seconds += time.perf_counter() - started - cost.select_seconds

        tested = len(stream) if spec.evaluation.rows == "all" else position + 1
        results.accuracy[position] = evaluate(learner, stream, tested, spec, cost)
        if experience.validation is not None:
            results.validation[position] = _share_correct(learner, experience.validation, spec, cost)
        cost.memory_bytes = 0 if memory.stored is None else memory.stored.nbytes
        cost.peak_bytes = _peak_bytes(stream.device)
        results.cost.append(dataclasses.asdict(cost))
        vars(cost).update(vars(Cost()))
        results.done += 1
        record = folder.save(_record(spec, stream, results, command), results.losses, _state(setup, learner, results))
        progress.row(position, results.accuracy[position])
    return record


def evaluate(learner: Learner, stream: Stream, experiences: int, spec: RunSpec, cost: Cost) -> list[float]:
    """Accuracy on the test samples of the first ``experiences``; NaN for the others. Training notices nothing."""
    started = time.perf_counter()
    sizes = stream.test_sizes[:experiences]
    correct = _correct(learner, stream.tests[: sum(sizes)], spec, cost)
    shares = torch.stack([part.float().mean() for part in correct.split(sizes)]).tolist()
    cost.evaluate_seconds += time.perf_counter() - started
    return shares + [math.nan] * (len(stream) - experiences)


def _share_correct(learner: Learner, samples: Exemplars, spec: RunSpec, cost: Cost) -> float:
    return _correct(learner, samples, spec, cost).float().mean().item()


def _correct(learner: Learner, samples: Exemplars, spec: RunSpec, cost: Cost) -> torch.Tensor:
    """Which samples are predicted right, bool (n,)."""
    cost.forward_passes += len(samples)
    cuda = [samples.device] if samples.device.type == "cuda" else []
    hits = []
    with torch.random.fork_rng(devices=cuda):  # a net that draws even in eval mode must not disturb training
        for start in range(0, len(samples), spec.evaluation.batch_size):
            batch = samples[start : start + spec.evaluation.batch_size]
            hits.append(learner.predict(batch.x, batch.task).argmax(1) == batch.y)
    return torch.cat(hits)


def _state(setup: Setup, learner: Learner, results: Results) -> dict[str, Any] | None:
    """All that the next experience needs; None if the learner cannot be resumed."""
    learned = learner.state_dict()
    if learned is None:
        return None
    return {
        "learner": learned,
        "memory": setup.memory.state_dict(),
        "randomness": setup.randomness.state_dict(),
        "results": dataclasses.asdict(results),
    }


def _restore(state: dict[str, Any], setup: Setup, learner: Learner) -> Results:
    try:
        learner.load_state_dict(state["learner"])
        setup.memory.load_state_dict(state["memory"], setup.device)
        setup.randomness.load_state_dict(state["randomness"])
        return Results(**state["results"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"checkpoint.pt does not fit this run ({line}); run it again with --fresh") from None


def _record(spec: RunSpec, stream: Stream, results: Results, command: str) -> dict[str, Any]:
    losses = [value for column in results.losses.values() for value in column[-1:]]
    return {
        "format": FORMAT,
        "fingerprint": spec.fingerprint,
        "finished": results.done == len(stream.schedule),
        "spec": spec.as_dict(),
        "accuracy": [_nullable(row) for row in results.accuracy],
        "initial": _nullable(results.initial),
        "validation": _nullable(results.validation),
        "classes": [list(labels) for labels in stream.classes],
        "cost": results.cost,
        "metrics": metrics.summary(results.accuracy, results.initial),
        "diverged": any(math.isinf(v) for v in losses) or (bool(losses) and all(map(math.isnan, losses))),
        "versions": {
            "clsim": clsim.__version__,
            "torch": torch.__version__,
            "avalanche": version("avalanche-lib"),
            "python": platform.python_version(),
        },
        "environment": {
            "device": torch.cuda.get_device_name(stream.device) if stream.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "system": platform.system(),
        },
        "command": command,
        "started": results.started,
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _nullable(values: list[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [None if math.isnan(v) else v for v in values]


def _peak_bytes(device: torch.device) -> int:
    """Most memory that was in use: of the device, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


@contextmanager
def isolated(spec: RunSpec, device: torch.device) -> Iterator[None]:
    """Torch's own state (threads, global generators, determinism) set for a run, and as it was afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(spec.seed, "torch"))
        torch.set_num_threads(spec.training.threads)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic = deterministic


def device_of(name: str) -> torch.device:
    """The device that ``training.device`` names.

    Raises:
        InputError: if the machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    there = device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
    if device.type != "cpu" and not there:
        raise InputError(
            f"training.device: found {name!r}, allowed: auto, cpu, or cuda:N with N < {torch.cuda.device_count()}"
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device
