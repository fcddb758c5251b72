"""The loop: trains a spec's learner on a stream and makes the record. Read this file first.

For each experience it trains batch by batch, with replay from memory; the memory keeps what its selector picks out of
memory ∪ new; then every experience is tested. Row i of the accuracy matrix is the learner's accuracy after
experience i. With a controller, an experience is trained on several times, and one of the results is kept.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.pool.pool import Cost, Selector
from clsim.records.store import RunFolder, RunRecord
from clsim.spec.run import RunSpec
from clsim.spec.tables import TrainingSpec
from clsim.streams.stream import Experience, Stream
from clsim.training.assemble import assemble
from clsim.training.checkpoint import UNFIT, copied, restore, snapshot, state_bytes
from clsim.training.contract import Learner, Setup, Terms
from clsim.training.controller import Controller, training_seconds
from clsim.training.evaluation import evaluate, held_out, measured, readouts, share_correct
from clsim.training.label_rounds import LabelRounds
from clsim.training.label_stream import LabelStream
from clsim.training.machine import peak_bytes
from clsim.training.offered import offered
from clsim.training.progress import Progress
from clsim.training.record import HEAD, Results, record_of


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

    The same spec gives the same numbers on the same machine, whether or not it was interrupted, and however often it
    is evaluated.

    Args:
        spec: the resolved spec.
        stream: the stream of the spec.
        folder: the run's folder.
        progress: display of the progress.
        selector: a selector in place of the one that ``memory.buffer`` names.
        command: the command that makes this run, which is kept in its record.
    """
    cost = Cost()
    setup, learner = assemble(spec, stream, cost, selector)

    def learn_one(experience: Experience, setup: Setup, learner: Learner) -> list[Terms]:
        shares = stream.shares(experience.position, spec.memory.counted, setup.memory.known)
        setup.classes.update(stream.labels_seen(experience.position), setup.memory.begun)
        return learn(experience, setup, learner, shares, progress)

    controller = None
    if spec.controller.name != "none":
        controller = Controller(
            spec, lambda changed: assemble(changed, stream, cost, selector), learn_one, cost, folder.path, progress
        )
    label_rounds: LabelRounds | LabelStream | None = None
    if spec.labelling.asks:

        def fit_one(experience: Experience, setup: Setup, learner: Learner, *, offers: bool) -> list[Terms]:
            shares = stream.shares(experience.position, spec.memory.counted, setup.memory.known)
            setup.classes.update(stream.labels_seen(experience.position), setup.memory.begun)
            with training_seconds(cost):
                return fit(experience, setup, learner, shares, progress, offers=offers)

        def end_one(experience: Experience, setup: Setup, learner: Learner) -> None:
            shares = stream.shares(experience.position, spec.memory.counted, setup.memory.known)
            with training_seconds(cost):
                conclude(experience, setup, learner, shares)

        def after_round(learner: Learner, position: int) -> list[float]:
            passed = cost.forward_passes
            row = evaluate(learner, stream, position + 1, spec, cost)
            cost.evaluate_passes += cost.forward_passes - passed
            return row

        def show(number: int, rounds: int, experience: Experience, setup: Setup) -> None:
            images = images_of(len(experience.train), spec.training, setup.batches(experience))
            progress.asked(number, rounds, len(experience.train), images)

        label_rounds = (
            LabelStream(stream, measure=after_round, show=progress.asked, step=progress.step)
            if spec.labelling.update == "batch"
            else LabelRounds(
                spec,
                stream,
                assemble=lambda: assemble(spec, stream, cost, selector),
                fit=fit_one,
                end=end_one,
                measure=after_round,
                folder=folder,
                show=show,
            )
        )
    results = Results.empty(len(stream))
    state = folder.checkpoint()
    if state is not None:
        results = _resumed(state, setup, learner, stream)
    results.goes_on_here()
    if state is None and spec.evaluation.rows == "all":
        results.initial = evaluate(learner, stream, len(stream), spec, cost)
        cost.evaluate_passes = cost.forward_passes

    for position in stream.schedule[results.done :]:
        experience = stream.experience(position)
        images = images_of(len(learner.incoming(experience)), spec.training, setup.batches(experience))
        progress.experience(results.done, len(stream.schedule), images)
        if label_rounds is not None:
            setup, learner, experience, losses, asked = label_rounds.learn(position, setup, learner)
            with training_seconds(cost):
                shares = stream.shares(position, spec.memory.counted, setup.memory.known)
                ends = conclude(experience, setup, learner, shares) if len(experience.train) else []
                results.add_losses(losses + ends)
            results.rounds += asked
        elif controller is None:
            with training_seconds(cost):
                results.add_losses(learn_one(experience, setup, learner))  # waits for the device
        else:
            setup, learner, losses, search = controller.learn(experience, setup, learner, results.searches)
            results.add_losses(losses)
            results.searches.append(dataclasses.asdict(search))

        results.add_diagnostics(position, learner.diagnostics())
        trained, seen = cost.forward_passes, position + 1
        extent = len(stream) if spec.evaluation.rows == "all" else seen
        found = measured({HEAD: learner.predict}, stream, extent, seen, spec, cost)
        found |= measured(readouts(learner, setup, stream, position), stream, extent, seen, spec, cost)
        results.crowded = {name: outcome.crowded for name, outcome in found.items() if outcome.crowded}
        results.accuracy[position] = found.pop(HEAD).row
        if label_rounds is not None:
            unseen = [math.nan] * (len(stream) - seen)
            results.rounds[-1]["accuracy"] = results.accuracy[position][:seen] + unseen
        for name, outcome in found.items():
            results.add_readout(name, position, outcome.row)
        if experience.unlabelled is not None:
            hidden = dataclasses.replace(experience.unlabelled, y=stream.truth(position))
            hidden = hidden[hidden.y >= 0]  # foreign samples have no class
            if len(hidden):
                results.unlabelled[position] = share_correct(learner, hidden, spec, cost)
        if experience.validation is not None and len(experience.validation):
            results.validation[position] = share_correct(learner, experience.validation, spec, cost)
        cost.evaluate_passes += cost.forward_passes - trained
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
    """Train a learner on one experience, and update the memory; return the losses of the steps.

    Args:
        experience: the experience.
        setup, learner: the setup and its learner.
        shares: number of classes (or tasks, by ``memory.per``) so far, with those of this experience.
        progress: display of the progress.
    """
    return fit(experience, setup, learner, shares, progress) + conclude(experience, setup, learner, shares)


def fit(
    experience: Experience, setup: Setup, learner: Learner, shares: int, progress: Progress, *, offers: bool = True
) -> list[Terms]:
    """Train a learner on one experience, but do not end it; return the losses of the steps.

    Args:
        experience, setup, learner, shares, progress: as for :func:`learn`.
        offers: whether a memory that every batch updates is offered the batches.
    """
    training, memory, plateau = setup.spec.training, setup.memory, setup.plateau
    best: dict[str, Any] | None = None
    losses: list[Terms] = []
    samples = learner.incoming(experience)
    plateau.begin()
    learner.begin(experience)
    # the memory is offered each sample once, in the first pass
    own = samples is experience.train
    new = batch_count(len(samples), training.batch_size, training.last_batch) if own and offers else 0
    for part in epochs_of(samples, training, setup.randomness.order, setup.batches(experience)):
        for batch in part:
            for _ in range(training.passes):
                losses.append(learner.observe(batch))
            if new:
                memory.after_batch(learner.remember(batch), shares, learner.pool)
                new -= 1
            progress.step(len(batch))
        if plateau.watches:
            gained = plateau.epoch(share_correct(learner, held_out(experience), setup.spec, setup.cost))
            if gained and training.patience:
                best = copied(learner.state_dict())
            if plateau.over:
                break
        if training.until and share_correct(learner, experience.train, setup.spec, setup.cost) >= training.until:
            break
    if training.patience:
        if best is None:
            raise InputError(f"training.patience: learner {setup.spec.learner.name!r} cannot be saved, allowed: 0")
        learner.load_state_dict(best)
    plateau.begin()
    return losses


def conclude(experience: Experience, setup: Setup, learner: Learner, shares: int) -> list[Terms]:
    """End an experience: update the memory, then let the learner finish; return the losses of the steps taken there.

    Args:
        experience, setup, learner, shares: as for :func:`learn`.
    """
    training, memory = setup.spec.training, setup.memory
    if learner.incoming(experience) is not experience.train:  # its labelled samples were not among the batches
        for batch in batches(experience.train, training.batch_size, setup.randomness.order):
            memory.after_batch(learner.remember(batch), shares, learner.pool)
    kept = learner.remember(offered(experience, setup, learner))
    memory.after_experience(kept, shares, learner.pool, reference=experience.validation)
    return learner.finish(experience)


def epochs_of(
    samples: Exemplars, training: TrainingSpec, rng: torch.Generator, count: int = 0
) -> Iterator[Iterator[Exemplars]]:
    """Yield the batches of each epoch: ``training.epochs`` epochs, or ``training.steps`` batches, a pass an epoch.

    Args:
        samples: the samples, which are newly ordered for each pass.
        training: number of epochs or steps, and the batches.
        rng: generator of the order.
        count: number of batches in an epoch, in as many passes as they take, where ``training.epochs`` counts; 0: those
            of one pass.
    """
    size, last = training.batch_size, training.last_batch
    passes = itertools.chain.from_iterable(batches(samples, size, rng, last) for _ in itertools.count())
    each = batch_count(len(samples), size, last) if training.steps or not count else count
    left = training.steps or training.epochs * each
    while left > 0:
        yield itertools.islice(passes, min(each, left))
        left -= each


def images_of(n: int, training: TrainingSpec, count: int = 0) -> int:
    """Count the samples that :func:`epochs_of` yields from ``n``, each as often as it occurs."""
    size, one = training.batch_size, batch_count(n, training.batch_size, training.last_batch)
    epoch = {"short": n, "drop": min(n, one * size), "pad": one * size}[training.last_batch]
    whole, rest = divmod(training.steps or training.epochs * (count or one), one)
    return epoch * whole + rest * size


def _state(setup: Setup, learner: Learner, results: Results) -> dict[str, Any] | None:
    """Return all that the next experience needs; None if the learner cannot be resumed."""
    state = snapshot(setup, learner)
    return None if state is None else {**state, "results": dataclasses.asdict(results)}


def _resumed(state: dict[str, Any], setup: Setup, learner: Learner, stream: Stream) -> Results:
    try:
        restore(state, setup, learner)
        results = Results(**state["results"])
        for entry in results.rounds:
            stream.oracle.tell(entry["experience"], np.asarray(entry["places"]), entry["by"], entry["round"])
        return results
    except UNFIT as error:
        line = str(error).splitlines()[0]
        raise InputError(f"checkpoint.pt does not fit this run ({line}); run it again with --fresh") from None
