"""Going on with a run from its checkpoint: whether it fits is checked before anything is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from clsim.errors import InputError, first_line, raised
from clsim.records.doubts import LATER, UNCHECKED, changes, is_later
from clsim.records.store import RunFolder
from clsim.records.validity import wrong_record
from clsim.spec.run import RunSpec
from clsim.streams.stream import Stream
from clsim.training import fits
from clsim.training.checkpoint import State, refuse_unlike, restore, snapshot
from clsim.training.contract import Learner, Setup
from clsim.training.record import Results, record_of

CURE = "run it again with --fresh"

STATES = ("checkpoint.pt", "rounds.pt", "search.json")
"""Files of a run's folder that a run goes on from."""


def saved(setup: Setup, learner: Learner, results: Results) -> State | None:
    """Return all that the next experience needs; None if the learner cannot be resumed."""
    state = snapshot(setup, learner)
    if state is None:
        return None
    return {**state, "results": vars(results).copy(), "finite": fits.is_finite(state["learner"])}


def resumed(
    state: State, folder: RunFolder, setup: Setup, learner: Learner, stream: Stream, *, own_code: bool
) -> Results:
    """Load a state of :func:`saved` into a setup and a learner that were just built; return the results so far.

    Args:
        state: the state, as it was read.
        folder: the run's folder.
        setup, learner: the setup and the learner.
        stream: the stream, whose oracle is told again what it told before.
        own_code: whether code of the user's takes part, whose state may have any form.

    Raises:
        InputError: in one line, if the state is not one of this run.
    """
    try:
        _refuse_device(state, setup)
        if wrong := _unfit(state, setup, learner, stream, own_code=own_code):
            raise ValueError(wrong)
        restore(state, setup, learner)
        refuse_unlike(state["learner"], learner.state_dict(), "learner")
        results = Results(**state["results"])
        for entry in results.rounds:
            stream.oracle.tell(entry["experience"], np.asarray(entry["places"]), entry["by"], entry["round"])
        if wrong := _wrong_results(results, folder, setup.spec, stream):
            raise ValueError(wrong)
        return results
    except Exception as error:  # whatever a loader raises, the state is not what it can load
        raise InputError(
            f"{folder.path / 'checkpoint.pt'} does not fit this run ({first_line(error)}); {CURE}"
        ) from None


def _refuse_device(state: State, setup: Setup) -> None:
    """Refuse a state of a GPU on a processor, and the other way: their generators draw other numbers."""
    begun, here = "cuda" if "cuda" in state["randomness"] else "cpu", setup.device.type
    if begun != here:
        raise ValueError(f"it was begun on {begun}, and this is {here}, which draws other numbers; --device {begun}")


def _unfit(state: State, setup: Setup, learner: Learner, stream: Stream, *, own_code: bool) -> str:
    """Say why a state is not one of this run, before it is loaded; empty if nothing is found."""
    fresh = snapshot(setup, learner) or {}
    shapes = {name: tensor.shape for name, tensor in setup.net.state_dict().items()}
    parts = ("randomness",) if own_code else ("learner", "randomness", "acquisition")
    found = [fits.unlike(state[part], fresh[part], part) for part in parts if part in fresh]
    found += [fits.misplaced(state["learner"], shapes, "learner"), fits.wrong_memory(state["memory"], setup, stream)]
    found.append(fits.wrong_columns(state.get("columns", {})))
    if wrong := next(filter(None, found), ""):
        return wrong
    net = state["learner"].get("net") if isinstance(state["learner"], dict) else None
    if state.get("finite", not _diverged(state["results"])) and not fits.is_finite(
        state["learner"] if "finite" in state else net
    ):
        return "learner: found a weight that is not finite, in a run that did not diverge"
    return ""


def _diverged(results: Any) -> bool:
    """Tell whether the last losses of a run are no numbers, as the losses of earlier versions' states say."""
    last = [value for column in results["losses"].values() for value in column[-1:]]
    return not all(map(math.isfinite, last))


def _wrong_results(results: Results, folder: RunFolder, spec: RunSpec, stream: Stream) -> str:
    """Say why these cannot be the results so far; empty if they can."""
    for name, value in vars(Results.empty(len(stream))).items():
        if type(vars(results)[name]) is not type(value):
            return f"results.{name}: found {type(vars(results)[name]).__name__}, allowed: {type(value).__name__}"
    done, steps = results.done, results.steps
    if type(done) is not int or not 0 < done <= len(stream.schedule) or len(results.cost) != done:
        return f"results.done: found {done!r:.20} with {len(results.cost)} costs, allowed: 1 to {len(stream.schedule)}"
    columns = results.losses.values()
    if type(steps) is not int or any(
        type(column) is not list or len(column) != steps or {*map(type, column)} - {float} for column in columns
    ):
        return "results.losses: allowed: a list of numbers for each term, all of one length"
    record = json.loads(json.dumps(record_of(spec, stream, results.known, ""), allow_nan=False))
    if wrong := wrong_record(record, spec.fingerprint):
        return f"results: {wrong}"
    before = [] if (found := folder.record()) is None else found.data["accuracy"]
    for position in stream.schedule[:done] if before else ():
        known = any(share is not None for share in before[position])
        # a record is written after its checkpoint, and may wait for the evaluation of the experience before, too
        if (known or position < stream.schedule[max(done - 2, 0)]) and before[position] != record["accuracy"][position]:
            return f"results.accuracy: experience {position + 1} has other accuracies in record.json"
    return ""


def said(folder: RunFolder, state: State | None, results: Results) -> str:
    """Say in one line what a user should know of a run that goes on; empty if there is nothing.

    It is said of its files, of its dates, and of the machines that trained it, if this is another one.
    """
    unchecked, _ = folder.audit(STATES)
    facts = [f"{', '.join(unchecked)}: {UNCHECKED}"] if unchecked else []
    if is_later(results.started):
        facts.append(LATER)
    if results.moved and (moved := changes(results.machines[-2:])):
        facts.append(f"another machine than before: {moved}")
    begun = f"goes on after {results.done} of {len(results.accuracy)} experiences" if state else "goes on"
    return f"{folder.path}: {begun}; {'; '.join(facts)}" if facts else ""


@contextmanager
def guarded(folder: RunFolder) -> Iterator[None]:
    """Train; what fails in the first experience after a state was read says that the state may be why.

    Args:
        folder: the run's folder.

    Raises:
        InputError: in one line, with the place of the error.
    """
    begun = [name for name in STATES if (folder.path / name).exists()]
    before = _changed(folder)
    try:
        yield
    except (InputError, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if not begun or _changed(folder) != before:
            raise
        raise InputError(
            f"{folder.path}: training that goes on from {' and '.join(begun)} {raised(error)}: they do not fit this "
            f"run, or the code is at fault; {CURE}"
        ) from error


def _changed(folder: RunFolder) -> int:
    """Tell when the checkpoint was written; 0 if there is none."""
    path = folder.path / "checkpoint.pt"
    return path.stat().st_mtime_ns if path.exists() else 0
