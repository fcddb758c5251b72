"""THE loop: a spec and a stream in, a record out. Read this file first.

For each experience: train batch by batch, replaying from memory; let the memory keep what its selector picks out of
memory ∪ new; test on every experience. Row i of the accuracy matrix is what the learner knows after experience i.
With a controller, the training of an experience is tried several times, and one of them is kept.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from clsim import catalog, models
from clsim.controller import Controller, training_seconds
from clsim.data.augment import Transform
from clsim.errors import InputError
from clsim.evaluation import evaluate, held_out, row_of, share_correct
from clsim.exemplars import batches
from clsim.learners import Learner, Setup, Terms, incoming
from clsim.machine import peak_bytes
from clsim.memory import Buffer
from clsim.plateau import Plateau
from clsim.pool import Cost, Selector
from clsim.progress import Progress as Progress
from clsim.progress import Quiet as Quiet
from clsim.pseudo import offered, refuse_unfit
from clsim.randomness import Randomness, derive
from clsim.readouts import readouts
from clsim.results import Results, record_of
from clsim.snapshots import UNFIT, copied, restore, snapshot
from clsim.specs import RunSpec
from clsim.storage import state_bytes
from clsim.store import RunFolder, RunRecord
from clsim.streams import Experience, Stream


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
    cost = Cost()
    setup, learner = assemble(spec, stream, cost, selector)

    def learn_one(experience: Experience, setup: Setup, learner: Learner) -> list[Terms]:
        return learn(experience, setup, learner, stream.shares(experience.position, spec.memory.per), progress)

    controller = None
    if spec.controller.name != "none":
        controller = Controller(
            spec, lambda changed: assemble(changed, stream, cost, selector), learn_one, cost, folder.path, progress
        )
    results = Results.empty(len(stream))
    state = folder.checkpoint()
    if state is not None:
        results = _resumed(state, setup, learner)
    elif spec.evaluation.rows == "all":
        results.initial = evaluate(learner, stream, len(stream), spec, cost)

    for position in stream.schedule[results.done :]:
        experience = stream.experience(position)
        images = len(incoming(learner, experience)) * spec.training.epochs
        progress.experience(results.done, len(stream.schedule), images)
        if controller is None:
            with training_seconds(cost):
                results.add_losses(learn_one(experience, setup, learner))  # waits for the device
        else:
            setup, learner, losses, search = controller.learn(experience, setup, learner, results.searches)
            results.add_losses(losses)
            results.searches.append(dataclasses.asdict(search))

        tested = len(stream) if spec.evaluation.rows == "all" else position + 1
        results.accuracy[position] = evaluate(learner, stream, tested, spec, cost)
        for name, predict in readouts(learner, setup, stream, position).items():
            results.add_readout(name, position, row_of(predict, stream, tested, spec, cost))
        if experience.unlabelled is not None:
            hidden = dataclasses.replace(experience.unlabelled, y=stream.truth(position))
            hidden = hidden[hidden.y >= 0]  # the others are of no class of the stream
            if len(hidden):
                results.unlabelled[position] = share_correct(learner, hidden, spec, cost)
        if experience.validation is not None:
            results.validation[position] = share_correct(learner, experience.validation, spec, cost)
        cost.memory_bytes = 0 if setup.memory.stored is None else setup.memory.stored.nbytes
        cost.peak_bytes = peak_bytes(stream.device)
        cost.state_bytes = state_bytes(learner.state_dict(), setup.net)
        cost.net_bytes = sum(p.nbytes for p in setup.net.parameters())
        results.cost.append(dataclasses.asdict(cost))
        vars(cost).update(vars(Cost()))
        results.done += 1
        record = folder.save(record_of(spec, stream, results, command), results.losses, _state(setup, learner, results))
        progress.row(position, results.accuracy[position])
    return record


def learn(experience: Experience, setup: Setup, learner: Learner, shares: int, progress: Progress) -> list[Terms]:
    """One experience, from its first batch to what is kept of it. Returns the losses of its steps.

    Args:
        shares: classes, or tasks, so far, this experience's included: what ``memory.per`` counts.
    """
    training, memory, plateau = setup.spec.training, setup.memory, setup.plateau
    best: dict[str, Any] | None = None
    losses: list[Terms] = []
    samples = incoming(learner, experience)
    plateau.begin()
    learner.begin(experience)
    for epoch in range(training.epochs):
        for batch in batches(samples, training.batch_size, setup.randomness.order):
            for _ in range(training.passes):
                losses.append(learner.observe(batch))
            # a sample is offered to the memory once, however often it is learnt
            if not epoch and samples is experience.train:
                memory.after_batch(learner.remember(batch), shares, setup.pool)
            progress.step(len(batch))
        if plateau.watches:
            gained = plateau.epoch(share_correct(learner, held_out(experience), setup.spec, setup.cost))
            if gained and training.patience:
                best = copied(learner.state_dict())
            if plateau.over:
                break
    if training.patience:
        if best is None:
            raise InputError(f"training.patience: learner {setup.spec.learner.name!r} cannot be saved, allowed: 0")
        learner.load_state_dict(best)
    plateau.begin()
    if samples is not experience.train:  # its labelled samples were not among the batches
        for batch in batches(experience.train, training.batch_size, setup.randomness.order):
            memory.after_batch(learner.remember(batch), shares, setup.pool)
    new = learner.remember(offered(experience, setup, learner))
    memory.after_experience(new, shares, setup.pool, reference=experience.validation)
    return losses + learner.finish(experience)


def assemble(spec: RunSpec, stream: Stream, cost: Cost, selector: Selector | None = None) -> tuple[Setup, Learner]:
    """A fresh net, memory and learner, as the spec has them before the first experience.

    Args:
        selector: in place of the one that the spec's buffer names, where it names one.
    """
    refuse_unfit(spec)
    training, randomness = spec.training, Randomness(spec.seed, stream.device)
    model = catalog.component("models", spec.model.name, spec.model.options, "[model.options]")
    channels_last = training.channels_last and len(stream.shape) == 3

    def fresh(seed: int) -> models.Net:
        net = models.build(model, stream.shape, stream.visible, seed, stream.device)
        return net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]

    net = fresh(derive(spec.seed, "weights"))
    transform = Transform(stream.mean, stream.std, spec.data.augment, device=stream.device, channels_last=channels_last)
    condense = None
    if spec.memory.buffer == "none":
        selector = None
    elif selector is None:
        found = catalog.component("buffers", spec.memory.buffer, spec.memory.options, "[memory.options]")
        condense, selector = (found, None) if catalog.is_condenser(spec.memory.buffer) else (None, found)
    retrieve = None
    if spec.memory.retrieval != "random":
        retrieve = catalog.component(
            "selectors", spec.memory.retrieval, spec.memory.retrieval_options, "[memory.retrieval_options]"
        )
    memory = Buffer(spec.memory, selector, rng=randomness.memory, cost=cost, retrieve=retrieve, condense=condense)
    fall = spec.optimizer.patience if spec.optimizer.schedule == "plateau" else 0
    setup = Setup(spec, net, fresh, memory, transform, randomness, cost, Plateau(fall, training.patience))
    learner = catalog.component("learners", spec.learner.name, spec.learner.options, "[learner.options]")(setup)
    return setup, learner


def _state(setup: Setup, learner: Learner, results: Results) -> dict[str, Any] | None:
    """All that the next experience needs; None if the learner cannot be resumed."""
    state = snapshot(setup, learner)
    return None if state is None else {**state, "results": dataclasses.asdict(results)}


def _resumed(state: dict[str, Any], setup: Setup, learner: Learner) -> Results:
    try:
        restore(state, setup, learner)
        return Results(**state["results"])
    except UNFIT as error:
        line = str(error).splitlines()[0]
        raise InputError(f"checkpoint.pt does not fit this run ({line}); run it again with --fresh") from None
