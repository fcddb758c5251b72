"""The results that accumulate over a run, and the record that is made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from clsim.pool.exemplars import Exemplars
from clsim.records import metrics
from clsim.records.store import FORMAT
from clsim.spec.run import RunSpec
from clsim.streams.census import Census
from clsim.streams.stream import Stream
from clsim.training.contract import Losses
from clsim.training.evaluations import HEAD, Evaluated
from clsim.training.machine import VERSIONS, machine_facts, processor
from clsim.version import code_state


@dataclass
class Results:
    """The results that accumulate over a run, and go into its record.

    Attributes:
        done: number of experiences trained so far.
        accuracy: accuracy matrix, T rows of T; NaN = not tested.
        initial: accuracy of the untrained net on each experience; NaN = not tested.
        validation: accuracy on each experience's validation part at its end; NaN = there is none.
        unlabelled: share of each experience's unlabelled samples predicted right at its end; NaN = there are none.
        readouts: accuracy matrix of each further way to predict.
        diagnostics: what the learner says of itself after each experience, by name; NaN = nothing so far.
        cost: the counters of each experience.
        losses: the losses of all steps, one list for each term, with NaN in steps without the term; of a controller's
            search, those of the attempt that was kept.
        rounds: the label rounds, an entry for each training; see :class:`clsim.training.label_rounds.LabelRounds`.
        searches: the controller's trace of each experience, a :class:`clsim.records.search.Search` as a dictionary.
        pretraining: an entry for each net that learnt without labels: experience, use, images, steps, seconds.
        batches: an entry for each experience whose batches were chosen, or that was tested on the way; see
            :meth:`clsim.training.course.Course.end`.
        accuracy_rare: accuracy on the rare classes' test samples after each experience; NaN = there are none so far.
        trained, kept: what the labelled part and the memory hold at the end of each experience, counted by nature.
        crowded: warnings of the last evaluation by each way to predict: a class took more than three times its share.
        steps: number of steps so far.
        waiting: whether what the evaluation after the last experience finds is still to come.
        code: the states of the code that trained it, in their order: several if it was resumed with another one.
        processors: the processors that trained it, likewise.
        machines: the facts of the machines that trained it, with versions, likewise; of earlier versions not all.
        started: when the run began, in UTC.
    """

    done: int
    accuracy: list[list[float]]
    initial: list[float]
    validation: list[float]
    unlabelled: list[float] = field(default_factory=list)
    readouts: dict[str, list[list[float]]] = field(default_factory=dict)
    diagnostics: dict[str, list[float]] = field(default_factory=dict)
    cost: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    searches: list[dict[str, Any]] = field(default_factory=list)
    pretraining: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    accuracy_rare: list[float] = field(default_factory=list)
    trained: list[dict[str, int]] = field(default_factory=list)
    kept: list[dict[str, int]] = field(default_factory=list)
    crowded: dict[str, str] = field(default_factory=dict)
    steps: int = 0
    waiting: bool = False
    code: list[str] = field(default_factory=list)
    processors: list[str] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)
    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    @staticmethod
    def empty(experiences: int) -> Results:
        """Make results in which nothing is tested yet."""
        unknown = [math.nan] * experiences
        return Results(0, [unknown.copy() for _ in unknown], unknown.copy(), unknown.copy(), unlabelled=unknown.copy())

    @property
    def moved(self) -> bool:
        """Whether the run goes on with another machine or version than the one before."""
        return len(self.machines) > 1

    def goes_on_here(self, device: torch.device) -> None:
        """Note the machine and the versions of this process; earlier versions did not note all that began a run."""
        here = machine_facts(device)
        if self.done and not self.machines:
            named = {"code": self.code[-1:], "processor": self.processors[-1:]}
            self.machines.append({name: values[0] for name, values in named.items() if values})
        before = self.machines[-1] if self.machines else None
        if before is None or any(here[name] != before.get(name, here[name]) for name in here):
            self.machines.append(here)
        for names, name in ((self.code, code_state()), (self.processors, processor())):
            if self.done and not names:
                names.append("not recorded")
            if name not in names:
                names.append(name)

    @property
    def known(self) -> Results:
        """The results without an experience whose evaluation is still to come."""
        return replace(self, cost=self.cost[:-1]) if self.waiting else self

    def add(self, found: Evaluated) -> None:
        """Note what an evaluation found; its experience is trained, and its cost noted."""
        outcomes, position, cost = dict(found.outcomes), found.position, self.cost[found.number]
        if found.due:
            self.crowded = {name: outcome.crowded for name, outcome in outcomes.items() if outcome.crowded}
        self.accuracy[position] = outcomes.pop(HEAD).row
        for name, outcome in outcomes.items():
            self.add_readout(name, position, outcome.row)
        self.unlabelled[position], self.validation[position] = found.unlabelled, found.validation
        cost["forward_passes"] += found.passes
        cost["evaluate_passes"] += found.passes
        cost["evaluate_seconds"] += found.seconds

    def end_rounds(self, found: Evaluated) -> None:
        """Note the accuracy at the end of an experience with its last label round."""
        seen = found.position + 1
        row, rare = self.accuracy[found.position][:seen], found.outcomes[HEAD].rare
        unseen = [math.nan] * (len(self.accuracy) - seen)
        self.rounds[-1] |= {"accuracy": row + unseen, "accuracy_rare": rare}

    def add_readout(self, name: str, position: int, row: list[float]) -> None:
        """Set a row of the accuracy matrix of a further way to predict."""
        unknown = [math.nan] * len(self.accuracy)
        self.readouts.setdefault(name, [unknown.copy() for _ in unknown])[position] = row

    def add_diagnostics(self, position: int, found: Mapping[str, float]) -> None:
        """Note what the learner says of itself after an experience."""
        for name, value in found.items():
            self.diagnostics.setdefault(name, [math.nan] * len(self.accuracy))[position] = value

    def count(self, stream: Stream, found: Evaluated, train: Exemplars, memory: Exemplars | None) -> None:
        """Count the natures of what an experience left, in a stream with a realistic pool.

        Args:
            stream: the stream.
            found: what the evaluation after the experience found.
            train: the labelled part of the experience.
            memory: the exemplars; None: there is no memory.
        """
        census, position, missing = Census(stream), found.position, found.position - len(self.accuracy_rare)
        self.accuracy_rare += [math.nan] * missing + [found.outcomes[HEAD].rare]
        self.trained.append({"experience": position, **census.of(train)})
        self.kept.append({"experience": position, **census.of(memory)})

    def add_losses(self, steps: Losses) -> None:
        """Fetch the losses of an experience from the device, all at once."""
        for name, values in steps.columns().items():
            self.losses.setdefault(name, [math.nan] * self.steps).extend(values)
        self.steps += len(steps)
        for column in self.losses.values():
            column += [math.nan] * (self.steps - len(column))


def record_of(spec: RunSpec, stream: Stream, results: Results, command: str) -> dict[str, Any]:
    """Make the record of a run, as plain values for JSON."""
    losses = [value for column in results.losses.values() for value in column[-1:]]
    further: dict[str, Any] = {}  # keys that not all runs have
    if not all(map(math.isnan, results.unlabelled)):
        further["unlabelled"] = _nullable(results.unlabelled)
    if results.readouts:
        further["readouts"] = {name: [_nullable(row) for row in rows] for name, rows in results.readouts.items()}
    sizes = {"spec": spec.as_dict(), "test_sizes": stream.test_sizes}
    here = machine_facts(stream.device)
    if results.crowded:
        further["crowded"] = results.crowded
    if results.diagnostics:
        further["diagnostics"] = {name: _nullable(values) for name, values in results.diagnostics.items()}
    if results.pretraining:
        further["pretraining"] = results.pretraining
    if results.batches:
        further["batches"] = results.batches
    if stream.asks:
        further["labelling"] = _labelling(stream, results)
    if stream.parts is not None:
        further["natures"] = _natures(stream, results)
    return {
        "format": FORMAT,
        "fingerprint": spec.fingerprint,
        "finished": results.done == len(stream.schedule),
        **sizes,
        "accuracy": [_nullable(row) for row in results.accuracy],
        "initial": _nullable(results.initial),
        "validation": _nullable(results.validation),
        **further,
        "classes": [list(labels) for labels in stream.classes],
        "cost": results.cost,
        **({"searches": results.searches} if results.searches else {}),
        "metrics": metrics.summary(results.accuracy, results.initial, sizes=metrics.weights(sizes)),
        "diverged": any(math.isinf(v) for v in losses) or (bool(losses) and all(map(math.isnan, losses))),
        "versions": {name: here[name] for name in VERSIONS} | {"code": ", then ".join(results.code)},
        "environment": {name: here[name] for name in here if name not in VERSIONS}
        | {"processor": ", then ".join(results.processors)},
        **({"machines": results.machines} if len(results.machines) > 1 else {}),
        "command": command,
        "started": results.started,
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _labelling(stream: Stream, results: Results) -> dict[str, Any]:
    """Return who asked for which labels, how many of each kind there are, and what each round led to."""
    counts = {kind: [0] * len(stream) for kind in ("initial", "asked", "validation")}
    rounds = []
    for entry in results.rounds:
        position, places = entry["experience"], entry["places"]
        counts["asked" if entry["round"] else "initial"][position] += len(places)
        told = stream.told(position, places)
        kept = {k: v for k, v in entry.items() if k not in ("places", "guesses", "accuracy_rare")}
        if guesses := entry.get("guesses"):
            truth = stream.oracle.truth(position, np.asarray(guesses["places"], dtype=np.int64)).tolist()
            right = sum(label == true for label, true in zip(guesses["labels"], truth, strict=True))
            kept |= {"guessed": len(truth), "guessed_right": right}
        rounds.append({**kept, **told, "accuracy": _nullable(entry["accuracy"])})
    counts["validation"][: results.done] = stream.held_out_sizes[: results.done]
    sizes = zip(stream.train_sizes, stream.held_out_sizes, counts["initial"], strict=True)
    trained, named = {entry["experience"] for entry in results.rounds}, stream.oracle.classes
    counts["without_label"] = [len(set(own) - named(i)) if i in trained else 0 for i, own in enumerate(stream.classes)]
    counts["candidates"] = [samples - held_out - initial for samples, held_out, initial in sizes]
    return {**counts, "bound": any(entry["bound"] for entry in results.rounds), "rounds": rounds}


def _natures(stream: Stream, results: Results) -> dict[str, Any]:
    """Return what the samples of a realistic pool are, as counts: for reports alone.

    ``rare_classes``, ``outsider_classes``: labels of the stream. ``pool``: the counts of each experience's training
    part, held-out share included: ``all``, ``rare``, ``outsider``, ``copy`` (samples that are a copy of another one),
    ``unique`` (different images), ``wrong`` (labels that are not the true ones), and ``query`` (samples set aside,
    which are in none of the others). ``rounds``: one entry for each of ``labelling.rounds``, with ``experience``,
    ``round`` (0: the initial set), the same counts of what was asked for, of which ``wrong`` are wrong answers,
    ``unique_so_far`` (different images among all that was asked for in the experience) and ``accuracy_rare``.
    ``accuracy_rare``: accuracy on the test samples of the rare classes of the experiences so far, after each
    experience; null where there are none. ``trained``: the counts of the labelled part that each experience was trained
    on last. ``memory``: those of the memory at its end.

    Columns of tables: ``rare_found`` is the sum of ``rare`` and ``outsiders_asked`` that of ``outsider`` over rounds
    from 1; ``unique_share`` the sum over experiences of the last ``unique_so_far`` over that of ``all`` in all rounds;
    ``wrong_in_memory`` and ``accuracy_rare`` are the last values.
    """
    rounds = Census(stream).asked(results.rounds) if stream.asks else []
    for counts, entry in zip(rounds, results.rounds, strict=bool(rounds)):
        counts["accuracy_rare"] = _nullable([entry.get("accuracy_rare", math.nan)])[0]
    return {
        "rare_classes": list(stream.roles.rare),
        "outsider_classes": list(stream.roles.outside),
        "pool": Census(stream).pool,
        "rounds": rounds,
        "accuracy_rare": _nullable(results.accuracy_rare),
        "trained": results.trained,
        "memory": results.kept,
    }


def _nullable(values: list[float]) -> list[float | None]:
    """Replace NaN, which JSON does not have, by None."""
    return [None if math.isnan(v) else v for v in values]
