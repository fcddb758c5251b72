"""A search of hyper-parameters, for people: its trials, what it cost, and the tests of default and winner."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clsim.execution.tune import Tested, Tried, Tuned, TuneSpec, trial_of
from clsim.records.metrics import METRICS
from clsim.records.overview import seconds_of
from clsim.records.store import RunRecord
from clsim.reporting.cells import Cell
from clsim.reporting.listing import SIGNS, Line, Listing, Mark
from clsim.reporting.statistics import ALPHA, FEWEST, Paired, finite, paired
from clsim.spec.flags import as_text
from clsim.spec.space import Axis

COUNTERS = ("steps", "forward_passes", "evaluate_passes")
"""Counters of a record's cost that are summed over a search."""


def settings(values: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Say the value of each axis, in short: what a trial sets, or else the method's own.

    >>> settings({"optimizer.lr": 0.01}, {"optimizer.lr": 0.1, "optimizer.weight_decay": 0.0})
    'lr 0.01, weight_decay 0'
    """
    full = {**own, **values}
    return ", ".join(f"{name} {_text(value)}" for name, value in zip(_names(own), full.values(), strict=True))


def trials(found: Tuned) -> Listing:
    """List the trials, a line for each, with the best one marked."""
    lines, empty = [], list[Mark](itertools.repeat("", len(found.own)))
    for one in found.trials:
        full = {**found.own, **one.values}
        look: Mark = "best" if one is found.best else ""
        accuracy = one.refused or ("diverged" if one.diverged else str(Cell([100 * value for value in one.each])))
        spent = (
            "–" if one.refused else f"as {one.repeated}" if one.repeated is not None else f"{_seconds(one.records):.1f}"
        )
        entries = [*(_text(full[key]) for key in found.own), accuracy, spent]
        marks: list[Mark] = [*empty, look, ""]
        lines.append(Line([f"{one.number}{' (default)' if not one.number else ''}"], entries, marks))
    heads = [*_names(found.own), "held-out accuracy, %", "seconds"]
    notes = [f"Searched: {'; '.join(axis.text for axis in found.axes)}.", _task(found)]
    alike = sum(one.value == found.best.value and one.repeated is None for one in found.trials)
    if alike > 1:
        notes.append(f"{alike} trials share the best accuracy; the earliest is taken.")
    if found.spec.seeds > 1:
        notes.append("Seconds are those of all seeds of a trial.")
    return Listing("Trials", ["trial"], [(head,) for head in heads], lines, notes)


def plan_lines(spec: TuneSpec, axes: Sequence[Axis], done: Sequence[Tried]) -> list[str]:
    """Say what a search tries, and how far it is, a line each."""
    lines = [f"Searched: {axis.text}" for axis in axes]
    lines.append(f"Trials: {spec.trials}, of which {len(done)} are finished")
    lines.append(f"Trial 0: {trial_of(spec, {}, spec.seed)[1]}")
    if spec.tests:
        lines.append(f"Tests: default and winner on seeds {spec.tests[0]} to {spec.tests[-1]}")
    return lines


def compared(found: Tuned) -> Listing | None:
    """List default and winner side by side, on test data; None if nothing was tested."""
    if not found.default.records:
        return None
    arms = [("default", found.default)]
    if found.best.number:
        arms.append((f"trial {found.best.number}", found.winner))
    scores = {name: _scores(arm, "accuracy") for name, arm in arms}
    top, lines = max(scores, key=lambda name: sum(scores[name])), []
    other: Mark = "tied" if len(arms) > 1 and difference(found).p >= ALPHA else ""
    for name, arm in arms:
        cells = [Cell(finite(_scores(arm, metric)).tolist()) for metric in ("accuracy", "forgetting")]
        each = Cell([seconds_of(record.data) for record in arm.records])
        look: Mark = "" if len(arms) == 1 else "best" if name == top else other
        marks: list[Mark] = ["", look, "", ""]
        lines.append(Line([name], [settings(arm.values, found.own), *map(str, cells), str(each)], marks))
    heads = ["settings", *(METRICS[name].heading for name in ("accuracy", "forgetting")), "seconds a run"]
    seeds = found.spec.tests
    notes = [f"The whole stream, test data, seeds {seeds[0]} to {seeds[-1]}, which no trial had."]
    if len(seeds) >= FEWEST:
        notes.append(f"Mean ± half of the 95 % t interval over {len(seeds)} seeds.")
    if len(arms) > 1:
        notes.append(f"{SIGNS['best']} marks the best mean; {SIGNS['tied']} what cannot be told from it.")
    notes.append(verdict(found))
    return Listing("Default and winner", [""], [(head,) for head in heads], lines, notes)


def difference(found: Tuned) -> Paired:
    """Compare the winner's test accuracy with the default's, seed by seed, in percentage points."""
    return paired(_scores(found.winner, "accuracy"), _scores(found.default, "accuracy"))


def verdict(found: Tuned) -> str:
    """Say in a sentence what the search gained, as the tests tell."""
    if not found.best.number:
        return "No trial was better than the default on held-out samples."
    test = difference(found)
    said = f"Trial {found.best.number} − default: {test.difference:+.2f} points"
    if test.n < FEWEST:
        return f"{said}; fewer than three seeds, so no interval and no test."
    said += f", 95 % interval {test.low:+.2f} to {test.high:+.2f}, p = {test.p:.2g} in the paired t test"
    told = "" if test.low > 0 or test.high < 0 else "; the two cannot be told apart"
    return f"{said}; above on {test.above} of {test.n} seeds{told}."


def cost(found: Tuned) -> dict[str, dict[str, float]]:
    """Sum what the runs of the search took, and those of the tests; a run that several trials share counts once.

    Returns:
        For ``search`` and ``tests``: ``runs``, ``seconds``, ``steps`` of the optimizer, ``forward_passes`` (samples
        passed forward), and ``train_passes``: those of them in training, which are passed backward, too, but for those
        that a selector looks at.
    """
    return {
        "search": _spent(itertools.chain(*(one.records for one in found.trials))),
        "tests": _spent([*found.default.records, *found.winner.records]),
    }


def cost_lines(found: Tuned) -> list[str]:
    """Say the cost of the search and of the tests, a line each, and how many runs of the method the search is worth."""
    lines = []
    for name, spent in cost(found).items():
        words = f"{spent['runs']:,} runs, {spent['seconds']:,.1f} s, {spent['steps']:,} optimizer steps, "
        words += f"{spent['forward_passes']:,} samples forward, {spent['train_passes']:,} of them in training"
        lines += [f"Cost of the {name}: {words}."] if spent["runs"] else []
    whole = _spent(found.default.records)
    if whole["train_passes"]:
        each = whole["train_passes"] / whole["runs"]
        times = cost(found)["search"]["train_passes"] / each
        lines.append(f"The search trained as much as {times:.1f} runs of the default on the whole stream.")
    return lines


def as_json(found: Tuned) -> dict[str, Any]:
    """Return the search as plain values: trials, winner, tests, cost."""
    test = difference(found) if found.best.number and len(found.default.records) >= FEWEST else None
    return {
        "search": [axis.text for axis in found.axes],
        "trials": [_plain(one) for one in found.trials],
        "winner": found.best.number,
        "tests": {
            "seeds": list(found.spec.tests),
            "default": _tested(found.default),
            "winner": _tested(found.winner),
            "difference": None
            if test is None
            else {"points": test.difference, "low": test.low, "high": test.high, "p": test.p},
        },
        "cost": cost(found),
    }


def _plain(one: Tried) -> dict[str, Any]:
    return {
        "number": one.number,
        "values": dict(one.values),
        "value": one.value if one.records else None,
        "fingerprints": [record.data["fingerprint"] for record in one.records],
        "repeats": one.repeated,
        "refused": one.refused,
    }


def _tested(arm: Tested) -> dict[str, Any]:
    return {
        "values": dict(arm.values),
        "accuracy": [record.metrics["accuracy"] for record in arm.records],
        "fingerprints": [record.data["fingerprint"] for record in arm.records],
        "command": arm.command,
    }


def _task(found: Tuned) -> str:
    """Say what the trials saw."""
    records = found.trials[0].records
    stream = records[0].data["spec"]["stream"]
    length, whole = len(records[0].data["accuracy"]), stream["experiences"]
    seeds = [record.data["spec"]["seed"] for record in records]
    what = "the whole stream" if length == whole else f"the first {length} of {whole} experiences"
    said = f"Each on {what}, measured on {100 * stream['validation']:g} % of their training samples, held out"
    return f"{said}; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}. No test sample takes part."


def _spent(records: Iterable[RunRecord]) -> dict[str, float]:
    different = {record.data["fingerprint"]: record.data for record in records}.values()
    summed = {name: sum(c.get(name) or 0 for data in different for c in data["cost"]) for name in COUNTERS}
    evaluated = summed.pop("evaluate_passes")
    return {
        "runs": len(different),
        "seconds": sum(map(seconds_of, different)),
        **summed,
        "train_passes": summed["forward_passes"] - evaluated,
    }


def _scores(arm: Tested, metric: str) -> list[float]:
    """Return a metric of each run, in percent; NaN where it is not defined."""
    return [100 * (float("nan") if (v := record.metrics[metric]) is None else v) for record in arm.records]


def _seconds(records: Sequence[RunRecord]) -> float:
    return sum(seconds_of(record.data) for record in records)


def _names(keys: Iterable[str]) -> list[str]:
    """Shorten keys to their last part, where that tells them apart."""
    keys = list(keys)
    last = [key.rpartition(".")[2] for key in keys]
    return [short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)]


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else as_text(value)
