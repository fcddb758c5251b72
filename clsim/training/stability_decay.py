"""Stability decay: the search for a method's trade-off on the current experience alone, without the training itself.

    for experience t:
      grid = first_rates if t == 1 else rates
      lr*, A* = the best validation accuracy of fine-tuning from the previous model      # maximal plasticity search
      repeat                                                                             # stability decay
        train the method with (H, lr*) from the previous model
        if validation accuracy >= (1 - margin) * A*: accept
        else: H <- factor * H, at most `decays` times, then keep the last model

Source: De Lange et al., A continual learning survey: Defying forgetting in classification tasks (TPAMI 2021)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
from typing import Any

from clsim.errors import InputError, nearest
from clsim.records.search import Trial, Values
from clsim.spec import registry
from clsim.spec.kinds import unbounded
from clsim.spec.options import options_of
from clsim.spec.run import RunSpec
from clsim.spec.tables import ControllerSpec, LearnerSpec, MemorySpec


def search(spec: ControllerSpec, start: Mapping[str, float], *, first: bool, train: Callable[[Trial], float]) -> None:
    """Carry out both phases of the search; the model of the last trial is the one to keep.

    Of equal accuracies in the first phase, the earlier learning rate of the grid wins.

    Args:
        spec: the controller's table.
        start: H, the values that the experience begins with.
        first: whether it is the first experience.
        train: carries out a trial, and returns its validation accuracy.
    """
    rate, best = 0.0, -1.0
    for lr in spec.first_rates if first else spec.rates:
        accuracy = train(Trial("plasticity", lr, {}, best))
        if accuracy > best:
            rate, best = lr, accuracy
    if not start or (first and spec.skip_first):
        train(Trial("once", rate, dict(start), 0.0))
        return
    needed = (1 - spec.margin) * best
    for decays, values in enumerate(chain([dict(start)], decayed(start, spec.factor))):
        trial = Trial("stability", rate, values, needed, last=decays == spec.decays)
        if trial.decision(train(trial)) != "decayed":
            return


def decayed(start: Mapping[str, float], factor: float) -> Iterator[Values]:
    """Yield decayed values: each one decayed alone, then all of them; then the same again from there.

    >>> from itertools import islice
    >>> [tuple(values.values()) for values in islice(decayed({"strength": 5.0, "code": 2.0}, 0.5), 5)]
    [(2.5, 2.0), (5.0, 1.0), (2.5, 1.0), (1.25, 1.0), (2.5, 0.5)]
    >>> [values["margin"] for values in islice(decayed({"margin": 1.0}, 0.5), 3)]
    [0.5, 0.25, 0.125]
    """
    values = dict(start)
    while True:
        lower = {name: type(value)(factor * value) for name, value in values.items()}
        if len(values) > 1:
            yield from ({**values, name: lower[name]} for name in values)
        values = lower
        yield values


def spec_of(spec: RunSpec, trial: Trial) -> RunSpec:
    """Return a run's spec with the learning rate and the values of a trial; in the first phase, that of fine-tuning."""
    spec = replace(spec, optimizer=replace(spec.optimizer, lr=trial.lr))
    if trial.phase == "plasticity":
        return replace(spec, learner=LearnerSpec(), memory=MemorySpec())
    return replace(spec, learner=replace(spec.learner, options={**spec.learner.options, **trial.values}))


def stability(learner: LearnerSpec, names: Sequence[str], first: Mapping[str, Any] = MappingProxyType({})) -> Values:
    """Return the start values of a learner's options: those of ``first``, else the spec's, else the defaults.

    Args:
        learner: the learner's table.
        names: names of the options.
        first: values to begin with, by name.

    Raises:
        InputError: if the learner has no such option, or its value is no number above 0.
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
        whole = unbounded(options[name].annotation) is int
        values[name] = (int if whole else float)(first.get(name, value))
    return values
