"""The controller: carries out the search of :mod:`clsim.training.stability_decay` for each experience.

Every attempt begins with the same state, bit for bit (weights, optimizer, memory, generators), in which the experience
before ended, in a net and a learner of its own. Validation accuracy is measured on the experience's own held-out part,
after the learner has finished; an attempt whose net diverges before counts as 0. No sample of an earlier experience is
read, other than those in the method's memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clsim.errors import Diverged, InputError
from clsim.records import search
from clsim.records.search import Attempt, Search, Trial
from clsim.streams.stream import Experience
from clsim.training import stability_decay
from clsim.training.checkpoint import UNFIT, copied, restore, snapshot
from clsim.training.contract import Learner, Losses, Setup
from clsim.training.evaluation import held_out, share_correct
from clsim.training.experiment import Experiment


class Controller:
    """Search by maximal plasticity, then stability decay; see :mod:`clsim.training.stability_decay`. Final.

    Args:
        experiment: the steps of the run, whose spec has the controller's table.
        folder: the run's folder, which keeps the results of an unfinished search, so that it can be resumed.

    Raises:
        InputError: if an option to decay is not one of the learner's, or is not a number.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self._experiment, self._folder = experiment, folder
        self._spec, self._cost, self._progress = (spec := experiment.spec), experiment.cost, experiment.progress
        self._given = stability_decay.stability(spec.learner, spec.controller.decay, spec.controller.first)

    def learn(
        self, experience: Experience, setup: Setup, learner: Learner, earlier: Sequence[Mapping[str, Any]]
    ) -> tuple[Setup, Learner, Losses, Search]:
        """Search on one experience; return the setup and learner to continue with, the losses and the trace.

        Args:
            experience: the experience.
            setup, learner: the setup and the learner as the experience before left them.
            earlier: the traces of the experiences before.

        Raises:
            InputError: if the learner cannot be saved, if its state does not fit a learner with another value, or if
                the experience has no validation part.
        """
        state = snapshot(setup, learner)
        if state is None:
            raise InputError(
                f"controller: learner {self._spec.learner.name!r} cannot be saved, so no attempt can begin"
            )
        validation = held_out(experience)
        weights, done = setup.net.state_dict(), len(earlier)
        known, found = search.load(self._folder, done), list[Attempt]()
        losses = Losses()

        def train(trial: Trial) -> float:
            nonlocal setup, learner, losses
            read = len(found) < len(known)
            if read:
                attempt = self._known(trial, known[len(found)])
            else:
                self._progress.trial(trial)
                setup, learner = self._begin(trial, state, weights)
                before = dataclasses.asdict(self._cost)
                accuracy, diverged = 0.0, None
                with self._experiment.training():
                    try:
                        losses = self._experiment.learn(experience, setup, learner)
                        accuracy = share_correct(learner, validation, self._spec, self._cost)
                    except Diverged as error:  # before its accuracy could be measured: it is no better than none
                        diverged = error
                spent = {name: value - before[name] for name, value in vars(self._cost).items()}
                decision = trial.decision(accuracy)
                needed = max(trial.needed, 0.0)
                attempt = Attempt(trial.phase, trial.lr, trial.values, needed, accuracy, decision, spent)
                if diverged is not None and attempt.final:  # there is no model to go on with
                    raise diverged
            found.append(attempt)
            if not read:  # else the file would lose those that come next
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
        """Return an attempt of before the interruption, and count its cost."""
        if (attempt.phase, attempt.lr, attempt.values) != (trial.phase, trial.lr, trial.values):
            raise InputError(f"{self._folder / 'search.json'}: does not fit this run; run it again with --fresh")
        for name, value in attempt.cost.items():
            vars(self._cost)[name] += value
        return attempt

    def _begin(self, trial: Trial, state: dict[str, Any], weights: dict[str, Any]) -> tuple[Setup, Learner]:
        """Make the setup and the learner of a trial, in the state in which the experience before ended."""
        spec = stability_decay.spec_of(self._spec, trial)
        if trial.phase == "plasticity":
            setup, learner = self._experiment.assemble(spec)
            setup.net.load_state_dict(weights)
            setup.randomness.load_state_dict(state["randomness"])
            return setup, learner
        named = f"learner {spec.learner.name!r} with {_listed(trial.values)}"
        try:
            setup, learner = self._experiment.assemble(spec)
            restore(copied(state), setup, learner)
        except InputError as error:
            raise InputError(f"controller: {named}: {error}") from error
        except UNFIT as error:
            line = str(error).splitlines()[0]
            raise InputError(f"controller: the state before the experience does not fit {named} ({line})") from error
        return setup, learner


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in values.items()) or "its own options"
