"""The loop: trains a spec's learner on a stream and makes the record. Read this file first.

For each experience it trains batch by batch, with replay from memory; the memory keeps what its selector picks out of
memory ∪ new; then every experience is tested. Row i of the accuracy matrix is the learner's accuracy after
experience i. With a controller, an experience is trained on several times, and one of the results is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from clsim.pool.pool import Cost
from clsim.records.store import RunFolder, RunRecord
from clsim.spec.run import NAMED, Given, RunSpec
from clsim.streams.stream import Stream
from clsim.training import resume
from clsim.training.batch_choice import refuse_unlabelled
from clsim.training.checkpoint import state_bytes
from clsim.training.contract import Seat
from clsim.training.evaluation import evaluate
from clsim.training.evaluations import Evaluations, evaluated
from clsim.training.experiment import Experiment
from clsim.training.machine import peak_bytes
from clsim.training.progress import Progress
from clsim.training.record import Results, record_of

if TYPE_CHECKING:
    from clsim.training.controller import Controller
    from clsim.training.label_rounds import LabelRounds
    from clsim.training.label_stream import LabelStream


def train(
    spec: RunSpec,
    stream: Stream,
    folder: RunFolder,
    progress: Progress,
    *,
    given: Given = NAMED,
    command: str = "",
    kept: Path | None = None,
    say: Callable[[str], None] | None = None,
    seat: Seat | None = None,
) -> RunRecord:
    """Run one spec to its end, from its checkpoint if there is one.

    The same spec gives the same numbers on the same machine, whether or not it was interrupted, and however often it
    is evaluated.

    Args:
        spec: the resolved spec.
        stream: the stream of the spec.
        folder: the run's folder.
        progress: display of the progress.
        given: objects in place of those that the spec names.
        command: the command that makes this run, which is kept in its record.
        kept: folder of nets that learnt without labels, which the runs of a study share; None: none is kept.
        say: takes a line for the user about a run that goes on; None: nobody is told.
        seat: its place among the seeds that advance together; None: it advances alone.

    Raises:
        InputError: if what the folder holds is not of this run.
    """
    with resume.guarded(folder):
        return _trained(spec, stream, folder, progress, given, command, kept, say, seat)


def _trained(
    spec: RunSpec,
    stream: Stream,
    folder: RunFolder,
    progress: Progress,
    given: Given,
    command: str,
    kept: Path | None,
    say: Callable[[str], None] | None,
    seat: Seat | None,
) -> RunRecord:
    experiment = Experiment(spec, stream, progress, given, kept, seat)
    cost = experiment.cost
    setup, learner = experiment.assemble()
    refuse_unlabelled(setup, learner, stream)
    controller = _controller(experiment, folder)
    rounds = _rounds(experiment, folder)
    results = Results.empty(len(stream))
    state = folder.checkpoint()
    if state is not None:
        results = resume.resumed(state, folder, setup, learner, stream, own_code=experiment.own_code)
    results.goes_on_here(stream.device)
    if say is not None and (line := resume.said(folder, state, results)):
        say(line)
    if state is None and spec.evaluation.rows == "all":
        results.initial = evaluate(learner, stream, len(stream), spec, cost)
        cost.evaluate_passes = cost.forward_passes

    if results.done == len(stream.schedule):  # it was killed after its last checkpoint
        return folder.save(record_of(spec, stream, results, command), results.losses, None)
    if results.waiting:  # it was interrupted before the last evaluation was done
        position = stream.schedule[results.done - 1]
        results.waiting = False
        results.add(evaluated(learner, setup, stream, stream.experience(position), results.done - 1))

    # nothing but the record reads what is found, unless a further round or a report by nature does
    beside = rounds is None and stream.parts is None
    with Evaluations(stream, beside=beside) as evaluations:
        for position in stream.schedule[results.done :]:
            results.pretraining += experiment.embed(position)
            experience = stream.experience(position)
            images = experiment.images(len(learner.incoming(experience)), experience, setup)
            progress.experience(results.done, len(stream.schedule), images)
            if rounds is not None:
                setup, learner, experience, losses, asked = rounds.learn(position, setup, learner)
                with experiment.training():
                    losses.extend(experiment.end(experience, setup, learner))
                    results.add_losses(losses)
                results.rounds += asked
            elif controller is None:
                with experiment.training():
                    results.add_losses(experiment.learn(experience, setup, learner))  # waits for the device
            else:
                setup, learner, losses, search = controller.learn(experience, setup, learner, results.searches)
                results.add_losses(losses)
                results.searches.append(dataclasses.asdict(search))

            results.batches += experiment.course(position)
            results.add_diagnostics(position, learner.diagnostics())
            known = evaluations.make(learner, setup, experience, results.done)
            cost.memory_bytes = 0 if setup.memory.stored is None else setup.memory.stored.nbytes
            cost.peak_bytes = peak_bytes(stream.device)
            cost.state_bytes = state_bytes(learner.state_dict(), setup.net)
            cost.net_bytes = sum(p.nbytes for p in setup.net.parameters())
            results.cost.append(dataclasses.asdict(cost))
            vars(cost).update(vars(Cost()))
            results.done, results.waiting = results.done + 1, evaluations.waiting
            for found in known:
                results.add(found)
            if rounds is not None:
                results.end_rounds(known[-1])
            if stream.parts is not None:
                results.count(stream, known[-1], experience.train, setup.memory.exemplars)
            record = folder.save(
                record_of(spec, stream, results.known, command), results.losses, resume.saved(setup, learner, results)
            )
            for found in known:
                progress.row(found.position, results.accuracy[found.position])
    return record


def _controller(experiment: Experiment, folder: RunFolder) -> Controller | None:
    if experiment.spec.controller.name == "none":
        return None
    from clsim.training.controller import Controller  # most runs need none

    return Controller(experiment, folder.path)


def _rounds(experiment: Experiment, folder: RunFolder) -> LabelRounds | LabelStream | None:
    if not experiment.spec.labelling.asks:
        return None
    if experiment.spec.labelling.update == "batch":
        from clsim.training.label_stream import LabelStream  # needed for this kind only

        return LabelStream(experiment)
    from clsim.training.label_rounds import LabelRounds

    return LabelRounds(experiment, folder)
