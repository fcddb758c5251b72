"""THE loop: a spec and a stream in, a record out. Read this file first.

For each experience: train batch by batch, replaying from memory; let the memory keep what its selector picks out of
memory ∪ new; test on every experience. Row i of the accuracy matrix is what the learner knows after experience i.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any, Protocol

import torch

from clsim import catalog, models
from clsim.data.augment import Transform
from clsim.errors import InputError
from clsim.exemplars import Exemplars, batches
from clsim.learners import Learner, Readout, Setup, SeveralReadouts, Terms, incoming
from clsim.machine import peak_bytes
from clsim.memory import Buffer
from clsim.pool import Cost, Selector
from clsim.randomness import Randomness, derive
from clsim.results import Results, record_of
from clsim.specs import RunSpec
from clsim.store import RunFolder, RunRecord
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
    if selector is None and spec.memory.buffer != "none":
        selector = catalog.component("buffers", spec.memory.buffer, spec.memory.options, "[memory.options]")
    retrieve = None
    if spec.memory.retrieval != "random":
        retrieve = catalog.component(
            "selectors", spec.memory.retrieval, spec.memory.retrieval_options, "[memory.retrieval_options]"
        )
    memory = Buffer(spec.memory, selector, rng=randomness.memory, cost=cost, retrieve=retrieve)
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
        samples = incoming(learner, experience)
        progress.experience(results.done, len(stream.schedule), len(samples) * training.epochs)
        learner.begin(experience)
        losses: list[Terms] = []
        for epoch in range(training.epochs):
            for batch in batches(samples, training.batch_size, randomness.order):
                for _ in range(training.passes):
                    losses.append(learner.observe(batch))
                # a sample is offered to the memory once, however often it is learnt
                if not epoch and samples is experience.train:
                    memory.after_batch(learner.remember(batch), seen, setup.pool)
                progress.step(len(batch))
        if samples is not experience.train:  # its labelled samples were not among the batches
            for batch in batches(experience.train, training.batch_size, randomness.order):
                memory.after_batch(learner.remember(batch), seen, setup.pool)
        memory.after_experience(learner.remember(experience.train), seen, setup.pool, reference=experience.validation)
        losses += learner.finish(experience)
        results.add_losses(losses)  # waits for the device
        cost.train_seconds += time.perf_counter() - started - cost.select_seconds

        tested = len(stream) if spec.evaluation.rows == "all" else position + 1
        results.accuracy[position] = evaluate(learner, stream, tested, spec, cost)
        if isinstance(learner, SeveralReadouts):
            for name, predict in learner.readouts().items():
                results.add_readout(name, position, _tested(predict, stream, tested, spec, cost))
        if experience.unlabelled is not None:
            hidden = dataclasses.replace(experience.unlabelled, y=stream.truth(position))
            results.unlabelled[position] = _share_correct(learner, hidden, spec, cost)
        if experience.validation is not None:
            results.validation[position] = _share_correct(learner, experience.validation, spec, cost)
        cost.memory_bytes = 0 if memory.exemplars is None else memory.exemplars.nbytes
        cost.peak_bytes = peak_bytes(stream.device)
        results.cost.append(dataclasses.asdict(cost))
        vars(cost).update(vars(Cost()))
        results.done += 1
        record = folder.save(record_of(spec, stream, results, command), results.losses, _state(setup, learner, results))
        progress.row(position, results.accuracy[position])
    return record


def evaluate(learner: Learner, stream: Stream, experiences: int, spec: RunSpec, cost: Cost) -> list[float]:
    """Accuracy on the test samples of the first ``experiences``; NaN for the others. Training notices nothing."""
    return _tested(learner.predict, stream, experiences, spec, cost)


def _tested(predict: Readout, stream: Stream, experiences: int, spec: RunSpec, cost: Cost) -> list[float]:
    started = time.perf_counter()
    sizes = stream.test_sizes[:experiences]
    correct = _correct(predict, stream.tests[: sum(sizes)], spec, cost)
    shares = torch.stack([part.float().mean() for part in correct.split(sizes)]).tolist()
    cost.evaluate_seconds += time.perf_counter() - started
    return shares + [math.nan] * (len(stream) - experiences)


def _share_correct(learner: Learner, samples: Exemplars, spec: RunSpec, cost: Cost) -> float:
    return _correct(learner.predict, samples, spec, cost).float().mean().item()


def _correct(predict: Readout, samples: Exemplars, spec: RunSpec, cost: Cost) -> torch.Tensor:
    """Which samples are predicted right, bool (n,)."""
    cost.forward_passes += len(samples)
    cuda = [samples.device] if samples.device.type == "cuda" else []
    hits = []
    with torch.random.fork_rng(devices=cuda):  # a net that draws even in eval mode must not disturb training
        for start in range(0, len(samples), spec.evaluation.batch_size):
            batch = samples[start : start + spec.evaluation.batch_size]
            hits.append(predict(batch.x, batch.task).argmax(1) == batch.y)
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
