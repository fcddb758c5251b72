"""The controller: carries out the search of :mod:`clsim.training.stability_decay` around one experience.

Every attempt begins with the bit-identical state (weights, optimizer, memory, generators) that the experience before
ended with, in a net and a learner of its own; the state itself is trained by none. Validation accuracy is that of the
experience's own held-out part, once the learner has finished: no sample of an earlier experience is read, but for what
the method itself keeps in memory.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clsim.errors import InputError, nearest
from clsim.pool.pool import Cost
from clsim.records import search
from clsim.records.search import Attempt, Search, Trial, Values
from clsim.spec import registry
from clsim.spec.options import options_of
from clsim.spec.run import RunSpec
from clsim.spec.tables import LearnerSpec, MemorySpec
from clsim.streams.stream import Experience
from clsim.training import stability_decay
from clsim.training.checkpoint import UNFIT, copied, restore, snapshot
from clsim.training.contract import Learner, Setup, Terms
from clsim.training.evaluation import held_out, share_correct
from clsim.training.progress import Progress

Assemble = Callable[[RunSpec], tuple[Setup, Learner]]
Learn = Callable[[Experience, Setup, Learner], list[Terms]]


class Controller:
    """Maximal plasticity search, then stability decay; see :mod:`clsim.training.stability_decay`. Final.

    Args:
        spec: with the controller's table.
        assemble: a spec → a fresh net, memory and learner.
        learn: an experience, trained on from beginning to end.
        cost: shared by all that ``assemble`` makes.
        folder: keeps what a search has found, so that it can be taken up again.

    Raises:
        InputError: if an option to decay is none of the learner's, or no number.
    """

    def __init__(
        self, spec: RunSpec, assemble: Assemble, learn: Learn, cost: Cost, folder: Path, progress: Progress
    ) -> None:
        self._spec = spec
        self._assemble, self._learn = assemble, learn
        self._cost, self._folder, self._progress = cost, folder, progress
        self._given = stability(spec.learner, spec.controller.decay, spec.controller.first)

    def learn(
        self, experience: Experience, setup: Setup, learner: Learner, earlier: Sequence[Mapping[str, Any]]
    ) -> tuple[Setup, Learner, list[Terms], Search]:
        """The setup and learner to go on with, the losses of its steps, and the trace.

        Args:
            setup, learner: as the experience before left them.
            earlier: the traces of the experiences before.

        Raises:
            InputError: if the learner cannot be saved, its state does not fit it with another value, or nothing is held
                out.
        """
        state = snapshot(setup, learner)
        if state is None:
            raise InputError(
                f"controller: learner {self._spec.learner.name!r} cannot be saved, so no attempt can begin"
            )
        validation = held_out(experience)
        weights, done = setup.net.state_dict(), len(earlier)
        known, found = search.load(self._folder, done), list[Attempt]()
        losses = list[Terms]()

        def train(trial: Trial) -> float:
            nonlocal setup, learner, losses
            if len(found) < len(known):
                attempt = self._known(trial, known[len(found)])
            else:
                self._progress.trial(trial)
                setup, learner = self._begin(trial, state, weights)
                before = dataclasses.asdict(self._cost)
                with training_seconds(self._cost):
                    losses = self._learn(experience, setup, learner)
                    accuracy = share_correct(learner, validation, self._spec, self._cost)
                spent = {name: value - before[name] for name, value in vars(self._cost).items()}
                decision = trial.decision(accuracy)
                needed = max(trial.needed, 0.0)
                attempt = Attempt(trial.phase, trial.lr, trial.values, needed, accuracy, decision, spent)
            found.append(attempt)
            search.save(self._folder, done, found)
            return attempt.accuracy

        start = {**self._given, **earlier[-1]["attempts"][-1]["values"]} if self._carries(earlier) else self._given
        stability_decay.search(self._spec.controller, start, first=not done, train=train)
        trace = Search(experience.position, tuple(found))
        self._progress.searched(trace)
        return setup, learner, losses, trace

    def _carries(self, earlier: Sequence[Mapping[str, Any]]) -> bool:
        return self._spec.controller.carry and bool(earlier)

    def _known(self, trial: Trial, attempt: Attempt) -> Attempt:
        """An attempt of before the interruption, its cost counted; decisions follow from it as they did then."""
        if (attempt.phase, attempt.lr, attempt.values) != (trial.phase, trial.lr, trial.values):
            raise InputError(f"{self._folder / 'search.json'}: does not fit this run; run it again with --fresh")
        for name, value in attempt.cost.items():
            vars(self._cost)[name] += value
        return attempt

    def _begin(self, trial: Trial, state: dict[str, Any], weights: dict[str, Any]) -> tuple[Setup, Learner]:
        """A learner as the trial asks for it, in the state that the experience before ended with."""
        spec = dataclasses.replace(self._spec, optimizer=dataclasses.replace(self._spec.optimizer, lr=trial.lr))
        if trial.phase == "plasticity":
            setup, learner = self._assemble(dataclasses.replace(spec, learner=LearnerSpec(), memory=MemorySpec()))
            setup.net.load_state_dict(weights)
            setup.randomness.load_state_dict(state["randomness"])
            return setup, learner
        named = f"learner {spec.learner.name!r} with {_listed(trial.values)}"
        options = {**spec.learner.options, **trial.values}
        try:
            setup, learner = self._assemble(
                dataclasses.replace(spec, learner=dataclasses.replace(spec.learner, options=options))
            )
            restore(copied(state), setup, learner)
        except InputError as error:
            raise InputError(f"controller: {named}: {error}") from error
        except UNFIT as error:
            line = str(error).splitlines()[0]
            raise InputError(f"controller: the state before the experience does not fit {named} ({line})") from error
        return setup, learner


@contextmanager
def training_seconds(cost: Cost) -> Iterator[None]:
    """Counts the time inside, selection apart."""
    started, selected = time.perf_counter(), cost.select_seconds
    yield
    cost.train_seconds += time.perf_counter() - started - (cost.select_seconds - selected)


def stability(learner: LearnerSpec, names: Sequence[str], first: Mapping[str, Any] = MappingProxyType({})) -> Values:
    """The values of a learner's options: those to begin with, else as the spec gives them, else its own defaults.

    Raises:
        InputError: if it has no such option, or one that is no number above 0.
    """
    made = registry.component("learners", learner.name, learner.options, "[learner.options]")
    options = options_of(made)
    values: Values = {}
    for name in names:
        if name not in options:
            hint = nearest(name, options) if options else "it has no options; allowed: []"
            raise InputError(f"[controller] decay: unknown option {name!r} of learner {learner.name}; {hint}")
        value = options[name].default
        if type(value) not in (int, float) or not value > 0:
            found = "no value" if value is inspect.Parameter.empty else repr(value)
            raise InputError(f"[controller] decay: {name}: found {found}, allowed: an option that is a number above 0")
        whole = str(options[name].annotation) in ("int", str(int))
        values[name] = (int if whole else float)(first.get(name, value))
    return values


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in values.items()) or "its own options"
