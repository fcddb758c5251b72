"""An estimate of the memory that a run needs, before anything large is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from clsim.data import room
from clsim.data.cache import Dataset
from clsim.errors import InputError
from clsim.spec import registry
from clsim.spec.options import options_of
from clsim.spec.run import RunSpec

_FLOAT = 4
_STATES = {"sgd": 0, "lars": 1, "adam": 2, "adamw": 2, "nadam": 2}


def refuse_too_large(spec: RunSpec, dataset: Dataset, device: torch.device, extra: Mapping[str, Any] = {}) -> None:
    """Refuse a run, or a single choice, that does not fit into memory.

    The estimate is a low one: what it refuses cannot run, and what it lets pass may still turn out to be too large.

    Args:
        spec: the spec.
        dataset: its data set.
        device: where nets and samples will be.
        extra: a selector of a single choice → its options.

    Raises:
        InputError: naming what is needed, what there is, and the key that asks for most.
    """
    room.refuse_beyond(needed(spec, dataset, extra), room.free_on(device))


def needed(spec: RunSpec, dataset: Dataset, extra: Mapping[str, Any] = {}) -> dict[str, float]:
    """Estimate the bytes that a run needs: the key that says how many → bytes.

    Args:
        spec, dataset, extra: as for :func:`refuse_too_large`.
    """
    samples, classes = len(dataset.train_x), len(dataset.classes)
    each = math.prod(dataset.train_x.shape[1:]) * dataset.train_x.dtype.itemsize
    apart = spec.stream.kind in ("split", "sequence") and spec.stream.presentation == "separate" and not extra
    largest = math.ceil(samples / spec.stream.experiences) if apart else samples
    weights = _weights(spec.model.name, spec.model.options, tuple(dataset.train_x.shape[1:]))
    states = 2 + _STATES[spec.optimizer.name] + bool(spec.optimizer.momentum and spec.optimizer.name == "sgd")
    found: dict[str, float] = {"data": largest * each, "model.options": weights * states * _FLOAT}
    memory = spec.memory
    if memory.buffer != "none":
        times = {"class": classes, "task": spec.stream.experiences}.get(memory.per, 1)
        found["memory.capacity"] = min(memory.capacity * times, samples) * each
    for where, kind, name, options in _choosers(spec, extra):
        rows = largest
        if where == "memory.retrieval_options":
            rows = min(rows, int(found["memory.capacity"] // each))
        elif where == "labelling.options" and spec.labelling.candidates:
            rows = min(rows, max(spec.labelling.candidates, spec.labelling.budget))
        known = _options(kind, name, options)
        for key, size in (("nets", rows * classes + weights), ("passes", rows * classes)):
            if isinstance(value := known.get(key), int):
                found[f"{where}.{key}"] = value * size * _FLOAT
    return found


def _choosers(spec: RunSpec, extra: Mapping[str, Any]) -> list[tuple[str, str, str, Mapping[str, Any]]]:
    """List the table, the kind, the name and the options of each selector."""
    found = [("options", "selectors", name, options) for name, options in extra.items()]
    if spec.labelling.asks:
        found.append(("labelling.options", "labellers", spec.labelling.selector, spec.labelling.options))
    if spec.memory.buffer != "none":
        found.append(("memory.options", "buffers", spec.memory.buffer, spec.memory.options))
        if spec.memory.retrieval != "random":
            found.append(
                ("memory.retrieval_options", "selectors", spec.memory.retrieval, spec.memory.retrieval_options)
            )
    return found


def _options(kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the options of a selector, those of its defaults included; given ones of what is unknown."""
    try:
        found = options_of(registry.component(kind, name))
    except (InputError, TypeError, ValueError):  # said where it is loaded to be used
        return dict(options)
    return {key: option.default for key, option in found.items()} | dict(options)


def _weights(name: str, options: Mapping[str, Any], shape: tuple[int, ...]) -> float:
    """Count the weights of a body without making them; 0 where that is not possible, infinity where they overflow."""
    if ":" in name:  # one's own code may not expect tensors without values
        return 0
    body = registry.component("models", name, options, "[model.options]")
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in body(shape).parameters())
    except InputError:
        raise
    except RuntimeError as error:
        return math.inf if "overflow" in str(error) else 0
