"""The search of hyper-parameters that is fair to continual learning: it sees neither test data nor the whole stream.

    trial n:  settings x_n = the method's own (n = 0), else what Optuna proposes after trials 0 … n − 1
              an ordinary run with x_n on the first experiences of the stream, without the held-out share of each
              value = average accuracy on the held-out shares of these experiences, after the last of them
    winner:   the settings with the highest value, of equal ones the earliest
    test:     winner and default on the whole stream, with seeds that no trial had; test samples are read here only

The store is the only memory of a search. Each proposal follows from the seed and from the trials before it, so that a
search that is called again proposes the same settings, finds their records, and goes on where there is none.

Source of the protocol: Chaudhry et al., Efficient Lifelong Learning with A-GEM (ICLR 2019), which sets hyper-parameters
on the first experiences of a stream; the searcher is Optuna's TPE (Akiba et al., Optuna, KDD 2019).
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.errors import DiskError, InputError, RunBusy, first_line
from clsim.execution.execute import execute
from clsim.execution.plan import split
from clsim.records.store import RunRecord, Store
from clsim.spec.flags import as_text, command
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.spec.space import Axis, combinations, default_of, read_axis, usual_axes

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from clsim.training.progress import Progress

    Watch = Callable[[RunSpec], AbstractContextManager[Progress]]

FIRST = 3
"""Experiences of a trial by default: the first ones of the stream."""

SHARE = 0.1
"""Share of each experience that a trial holds out by default, where its scenario holds out none."""

MOST_TRIALS = 10_000
"""Most trials of a search: each looks at all before it."""


@dataclass(frozen=True)
class TuneSpec:
    """What is searched, and how it is tested.

    Attributes:
        scenario, strategy: names or paths.
        flags, settings: what the user sets besides, in trials and tests alike; see :func:`clsim.spec.resolve.resolve`.
        axes: what is searched; empty: :func:`clsim.spec.space.usual_axes`.
        trials: number of trials, the default among them.
        experiences: number of experiences of a trial, the first ones of the stream; 0: all.
        validation: share that a trial holds out of each experience; None: the scenario's own, or :data:`SHARE`.
        seed: the first seed of the trials, from which proposals are drawn, too.
        seeds: seeds of each trial, whose mean is its value.
        test_seeds: seeds of the tests: those that follow on the trials' seeds.
    """

    scenario: str = "split-digits"
    strategy: str = "er"
    flags: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()
    trials: int = 20
    experiences: int = FIRST
    validation: float | None = None
    seed: int = 0
    seeds: int = 1
    test_seeds: int = 5

    def __post_init__(self) -> None:
        for name, least, most in (
            ("trials", 1, MOST_TRIALS),
            ("seeds", 1, 1000),
            ("test_seeds", 0, 1000),
            ("experiences", 0, math.inf),
        ):
            found = vars(self)[name]
            if not least <= found <= most:
                upper = "or more" if most == math.inf else f"to {most:,}"
                flag = {"seeds": "trial-seeds"}.get(name, name).replace("_", "-")
                raise InputError(f"--{flag}: found {found}, allowed: {least} {upper}")
        if self.validation is not None and not 0 < self.validation < 1:
            raise InputError(f"--validation: found {self.validation:g}, allowed: a share above 0 and below 1")
        keys = [axis.key for axis in self.axes]
        if twice := next((key for key in keys if keys.count(key) > 1), ""):
            raise InputError(f"--search {twice}: found twice, allowed: once")

    @property
    def tests(self) -> range:
        """The seeds of the tests, none of which is a seed of a trial."""
        return range(self.seed + self.seeds, self.seed + self.seeds + self.test_seeds)


@dataclass(frozen=True)
class Tried:
    """A trial.

    Attributes:
        number: its number, from 0: the method's own settings.
        values: what it sets, by key; empty for trial 0.
        records: its runs, one for each seed.
        repeated: the number of the trial that had the same settings before, whose runs these are; None: there is none.
        refused: why the values cannot be those of a run; such a trial has no runs.
    """

    number: int
    values: Mapping[str, Any]
    records: tuple[RunRecord, ...] = ()
    repeated: int | None = None
    refused: str = ""

    @property
    def diverged(self) -> bool:
        """Whether the losses of a run are not finite at its end."""
        return any(record.data.get("diverged") for record in self.records)

    @property
    def each(self) -> list[float]:
        """Average accuracy on the held-out shares, of each run; 0 for one that diverged."""
        found = (0.0 if record.data.get("diverged") else record.metrics["accuracy"] for record in self.records)
        return [0.0 if value is None else value for value in found]

    @property
    def value(self) -> float:
        """What trials are compared by: the mean over seeds; −∞ for a trial that was refused."""
        return statistics.fmean(self.each) if self.records else -math.inf


@dataclass(frozen=True)
class Tested:
    """Settings on the whole stream, with test data.

    Attributes:
        values: what is set, by key; empty for the method's own settings.
        records: a run for each seed.
        command: the command that makes the first of them.
    """

    values: Mapping[str, Any]
    records: tuple[RunRecord, ...]
    command: str


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        spec: what was asked for.
        axes: what was searched.
        own: the method's own value of each axis, by key; None where its source does not tell it.
        trials: the trials, in order.
        default, winner: the tests of the method's own settings, and of the best trial; the same if trial 0 is the best.
    """

    spec: TuneSpec
    axes: tuple[Axis, ...]
    own: Mapping[str, Any]
    trials: tuple[Tried, ...]
    default: Tested
    winner: Tested

    @property
    def best(self) -> Tried:
        """The best trial, of equal ones the earliest."""
        return best_of(self.trials)


def best_of(trials: Sequence[Tried]) -> Tried:
    """Return the trial with the highest value, of equal ones the earliest."""
    return max(trials, key=lambda tried: tried.value)


def tune(
    spec: TuneSpec,
    store: Store,
    *,
    data_root: str | Path | None = None,
    fresh: bool = False,
    watch: Watch | None = None,
    tried: Callable[[Tried], None] = lambda found: None,
) -> Tuned:
    """Search, then test the method's own settings and the best ones.

    Args:
        spec: what is searched.
        store: the store of all runs, in which those of an earlier call are found.
        data_root: folder of the data sets; None: ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        fresh: whether to run all of it anew.
        watch: makes the progress display of a run; None: no display.
        tried: takes each trial once it is done.

    Raises:
        InputError: if Optuna is not installed; for what cannot be searched; or from a run of the default settings.
    """
    require_optuna()
    axes, own = searched(spec)
    done = dict[str, RunRecord]()

    def run(one: RunSpec, words: str) -> RunRecord:
        """Carry out a run, once a call."""
        if one.fingerprint not in done:
            how: dict[str, Any] = {"data_root": data_root, "fresh": fresh, "watch": watch, "command": words}
            done[one.fingerprint] = execute(one, store, scenario=spec.scenario, **how)
        return done[one.fingerprint]

    trials = list[Tried]()
    for found in _trials(spec, axes, own, trials, run):
        tried(found)

    def tested(values: Mapping[str, Any]) -> Tested:
        runs = [final_of(spec, values, seed) for seed in spec.tests]
        return Tested(values, tuple(run(*one) for one in runs), runs[0][1] if runs else "")

    return Tuned(spec, axes, own, tuple(trials), tested({}), tested(best_of(trials).values))


def known(spec: TuneSpec, store: Store) -> list[Tried]:
    """Return the trials of a search up to the first one that is not finished; nothing is run."""
    axes, own = searched(spec)
    found = list[Tried]()

    def read(one: RunSpec, words: str) -> RunRecord:
        record = store.folder(one).record()
        if record is None or not record.data["finished"]:
            raise _Unfinished
        return record

    with contextlib.suppress(_Unfinished):
        for _ in _trials(spec, axes, own, found, read):
            pass
    return found


class _Unfinished(Exception):
    """A run that is not in the store."""


def _trials(
    spec: TuneSpec,
    axes: Sequence[Axis],
    own: Mapping[str, Any],
    trials: list[Tried],
    run: Callable[[RunSpec, str], RunRecord],
) -> Iterator[Tried]:
    """Yield the trials one by one; each is added to ``trials`` first, from which the next one is proposed."""
    for number, values in enumerate(proposals(spec, axes, own, trials)):
        records, refused = tuple[RunRecord, ...](), ""
        try:
            records = tuple(run(*trial_of(spec, values, spec.seed + i)) for i in range(spec.seeds))
        except (DiskError, RunBusy):
            raise
        except InputError as error:  # a value that the learner does not take, which its annotation did not say
            if not any(re.search(rf"\b{re.escape(key.rpartition('.')[2])}\b", str(error)) for key in values):
                raise
            refused = first_line(error)
        repeated = next((one.number for one in trials if {**own, **one.values} == {**own, **values}), None)
        trials.append(Tried(number, values, records, repeated, refused))
        yield trials[-1]


def asked_axis(text: str) -> Axis:
    """Read an argument of ``--search``, whose values may hold commas inside brackets or quotes.

    Raises:
        InputError: if it has another form than :func:`clsim.spec.space.read_axis` takes.
    """
    values = text.partition("=")[2]
    return read_axis(text, split(values, "--search") if values.strip() else None)


def require_optuna() -> None:
    """Refuse a search without Optuna.

    Raises:
        InputError: naming the extra that installs it.
    """
    if importlib.util.find_spec("optuna") is None:
        raise InputError("tune: optuna is not installed; pip install 'clsim[tune]'")


def searched(spec: TuneSpec) -> tuple[tuple[Axis, ...], dict[str, Any]]:
    """Return what is searched, and the method's own value of each axis.

    Raises:
        InputError: for a key that the run does not have, for a value of another type, or if the user's own settings
            already measure on held-out samples.
    """
    base, _ = _run(spec, (), spec.seed)
    if base.evaluation.on != "test":
        raise InputError(f"evaluation.on: found {base.evaluation.on!r}, allowed: 'test', as the tests need it")
    axes = spec.axes or usual_axes(base)
    for axis in spec.axes:
        for value in axis.choices or (axis.low, axis.high):
            final_of(spec, {axis.key: value}, spec.seed)
    own = {axis.key: default_of(base, axis.key) for axis in axes}
    return tuple(replace(axis, whole=axis.whole and type(own[axis.key]) is not float) for axis in axes), own


def trial_of(spec: TuneSpec, values: Mapping[str, Any], seed: int) -> tuple[RunSpec, str]:
    """Return the spec of a run of a trial, and the command that makes it."""
    stream = _run(spec, (), seed)[0].stream
    there = stream.length or stream.experiences
    length = min(spec.experiences or there, there)
    share = spec.validation or stream.validation or SHARE
    task = [f"stream.validation={share}", "evaluation.on=validation", "evaluation.rows=seen"]
    ends = [f"stream.length={length}"] if length < there else []
    return _run(spec, ends + task + _settings(values), seed)


def final_of(spec: TuneSpec, values: Mapping[str, Any], seed: int) -> tuple[RunSpec, str]:
    """Return the spec of a test, and the command that makes it."""
    return _run(spec, _settings(values), seed)


def proposals(
    spec: TuneSpec, axes: Sequence[Axis], own: Mapping[str, Any], trials: Sequence[Tried]
) -> Iterator[dict[str, Any]]:
    """Yield the settings of one trial after the other: those of the method itself, then what is proposed.

    If all axes have choices and no more combinations are left than trials, each of them is tried once, in order.

    Args:
        spec: how many trials there are, and the seed.
        axes: what is searched.
        own: the method's own value of each axis.
        trials: the trials so far; the list grows between two proposals.
    """
    yield {}
    if all(axis.choices for axis in axes):
        left = [values for values in combinations(axes, spec.trials + 1) if values != own]
        if len(left) < spec.trials:
            yield from left
            return
    while len(trials) < spec.trials:
        yield proposed(spec.seed, axes, own, trials)


def proposed(seed: int, axes: Sequence[Axis], own: Mapping[str, Any], trials: Sequence[Tried]) -> dict[str, Any]:
    """Let Optuna propose the settings of the next trial, from the seed and the trials so far alone.

    Args:
        seed: the seed of the search.
        axes, own, trials: as for :func:`proposals`.
    """
    import optuna

    from clsim.randomness import derive  # with torch

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it notes each study on stderr
    state, spaces = optuna.trial.TrialState, {axis.key: _distribution(axis) for axis in axes}
    sampler = optuna.samplers.TPESampler(seed=derive(seed, f"trial {len(trials)}") % 2**32)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for one in trials:
        full = {**own, **one.values}
        if not all(axis.holds(full[axis.key]) for axis in axes):
            continue  # a default that is not among what is searched
        study.add_trial(
            optuna.trial.create_trial(
                state=state.FAIL if one.refused else state.COMPLETE,
                value=None if one.refused else one.value,
                params={axis.key: axis.place(full[axis.key]) for axis in axes},
                distributions=spaces,
            )
        )
    params = study.ask(spaces).params
    return {axis.key: axis.at(params[axis.key]) for axis in axes}


def _distribution(axis: Axis) -> Any:
    """Say an axis in Optuna's words; choices by their places, since they may be lists."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choices:
        return CategoricalDistribution(tuple(range(len(axis.choices))))
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _run(spec: TuneSpec, further: Sequence[str], seed: int) -> tuple[RunSpec, str]:
    """Resolve a run with settings behind those of the user; return its spec, and the command that makes it."""
    settings = [*spec.settings, *further]
    found = resolve(spec.scenario, spec.strategy, flags=spec.flags, settings=settings, seed=seed)
    return found, command(spec.scenario, spec.strategy, spec.flags, settings, seed)


def _settings(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={as_text(value)}" for key, value in values.items()]
