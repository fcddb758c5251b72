"""Whether a state that was read is one of a run: held against the state that the run has at that point by itself.

A file may have been damaged, or changed with intent. Types, dtypes and shapes are compared where the fresh state
decides them: a tensor that begins empty, a list and what begins as None may have become anything that the loaders take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from clsim.pool.exemplars import COLUMNS
from clsim.streams.stream import Stream
from clsim.training.contract import Setup

State = Mapping[str, Any]

_FAR = 2**62
"""Numbers of samples are below this."""


def unlike(saved: Any, fresh: Any, where: str) -> str:
    """Say where a state differs from a fresh one in what the fresh one decides; empty if it does not.

    Args:
        saved: the state that was read.
        fresh: the state of the same parts, just built.
        where: what the state is that of, for the message.
    """
    if isinstance(fresh, Tensor):
        return _unlike_tensor(saved, fresh, where)
    if isinstance(fresh, Mapping):
        if not isinstance(saved, Mapping):
            return _found(saved, where, "a table")
        if _is_optimizer(fresh) and _is_optimizer(saved):
            return _unlike_optimizer(saved, fresh, where)
        common = (key for key in fresh if key in saved)
        return next((wrong for key in common if (wrong := unlike(saved[key], fresh[key], f"{where}.{key}"))), "")
    if isinstance(fresh, (list, tuple)):
        if not isinstance(saved, (list, tuple)):
            return _found(saved, where, "a list")
        if len(saved) != len(fresh):
            return ""
        pairs = enumerate(zip(saved, fresh, strict=True))
        return next((wrong for i, (s, f) in pairs if (wrong := unlike(s, f, f"{where}[{i}]"))), "")
    if isinstance(fresh, (bool, str)) or type(fresh) is int:
        return "" if type(saved) is type(fresh) else _found(saved, where, type(fresh).__name__)
    if isinstance(fresh, float):
        return "" if type(saved) in (int, float) else _found(saved, where, "a number")
    return ""


def misplaced(saved: Any, shapes: Mapping[str, torch.Size], where: str) -> str:
    """Say where a tensor that is named after a weight of the net has another shape than the weight; empty if none has.

    Args:
        saved: the state that was read.
        shapes: the shapes of the net's weights and statistics, by name.
        where: what the state is that of, for the message.
    """
    if isinstance(saved, Mapping):
        for key, value in saved.items():
            spot = f"{where}.{key}"
            if isinstance(value, Tensor):
                if key in shapes and value.shape != shapes[key]:
                    return f"{spot}: found shape {tuple(value.shape)}, allowed: {tuple(shapes[key])}"
            elif wrong := misplaced(value, shapes, spot):
                return wrong
    elif isinstance(saved, (list, tuple)):
        found = (misplaced(value, shapes, f"{where}[{i}]") for i, value in enumerate(saved))
        return next(filter(None, found), "")
    return ""


def is_finite(state: Any) -> bool:
    """Tell whether all numbers of all tensors of a state are finite."""
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(state) if tensor.is_floating_point())


def wrong_memory(memory: Any, setup: Setup, stream: Stream) -> str:
    """Say why this cannot be the state of a run's memory; empty if it can.

    Args:
        memory: the state that was read.
        setup: the setup of the run, just built.
        stream: its stream.
    """
    if not isinstance(memory, Mapping) or type(memory.get("seen")) is not int or not 0 <= memory["seen"] < _FAR:
        return "memory.seen: allowed: a whole number from 0"
    columns = memory.get("columns")
    if not isinstance(columns, Mapping) or not all(isinstance(column, Tensor) for column in columns.values()):
        return "memory.columns: allowed: columns of numbers"
    if not columns:
        return ""
    if {*columns} - {*COLUMNS} or {"x", "y", "task", "key", "index"} - {*columns}:
        return f"memory.columns: found {', '.join(map(str, columns)):.80}, allowed: {', '.join(COLUMNS)}"
    size, classes = len(columns["y"]) if columns["y"].ndim else -1, stream.visible.shape[1]
    bounds = {"y": (-1, classes - 1), "task": (0, len(stream) - 1), "index": (-_FAR, _FAR)}
    for name, column in columns.items():
        whole = name in bounds
        kind = torch.int64 if whole else torch.float32
        kinds = (torch.uint8, torch.float32) if name == "x" else (kind,)
        shape = (size, *stream.shape) if name == "x" else (size,)
        fits = column.shape == shape or (name == "soft" and column.ndim == 2 and len(column) == size)
        if not fits or column.dtype not in kinds:
            return f"memory.{name}: found {_kind(column)}, allowed: {_words(kinds[0], shape)}"
        if whole and size and not bounds[name][0] <= int(column.min()) <= int(column.max()) <= bounds[name][1]:
            return f"memory.{name}: found a number outside {bounds[name][0]} to {bounds[name][1]}"
        if name in ("weight", "mass", "x") and not is_finite(column):
            return f"memory.{name}: found a number that is not finite"
    spec = setup.spec.memory
    most = spec.most(max(len(stream), len(stream.names)), memory["seen"], 1 if spec.reserve != "task" else stream.tasks)
    if spec.reserve == "task":
        most = spec.capacity
    return "" if size <= most else f"memory: found {size} exemplars, allowed: {most}"


def wrong_columns(columns: Any) -> str:
    """Say why this cannot be the state of a run's columns; empty if it can."""
    if not isinstance(columns, Mapping):
        return _found(columns, "columns", "a table")
    for name, pair in columns.items():
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(one, Tensor) for one in pair):
            return f"columns.{name}: allowed: places and values"
        places, values = pair
        if places.dtype != torch.int64 or not values.is_floating_point() or places.ndim != 1:
            return f"columns.{name}: found {_kind(places)} and {_kind(values)}, allowed: places and values"
        if places.shape != values.shape or not bool((places[1:] >= places[:-1]).all()):
            return f"columns.{name}: allowed: a value for each place, in order"
    return ""


def _unlike_tensor(saved: Any, fresh: Tensor, where: str) -> str:
    if not isinstance(saved, Tensor):
        return _found(saved, where, "a tensor")
    grows = not fresh.numel() and saved.ndim == fresh.ndim
    if saved.dtype != fresh.dtype or (saved.shape != fresh.shape and not grows):
        return f"{where}: found {_kind(saved)}, allowed: {_kind(fresh)}"
    return ""


def _unlike_optimizer(saved: State, fresh: State, where: str) -> str:
    """Compare the states of optimizers: the learning rate may differ, what the spec decides may not."""
    if not isinstance(saved["state"], Mapping):
        return _found(saved["state"], f"{where}.state", "a table")
    own, groups = fresh["param_groups"], saved["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(own):
        return f"{where}.param_groups: allowed: a list of {len(own)}"
    for i, (group, mine) in enumerate(zip(groups, own, strict=True)):
        spot = f"{where}.param_groups[{i}]"
        if not isinstance(group, Mapping):
            return _found(group, spot, "a table")
        for key in mine:
            value = group.get(key, mine[key])
            if key == "lr":
                rate = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
                if type(rate) not in (int, float) or not 0 <= rate < math.inf:
                    return _found(value, f"{spot}.lr", "a number from 0")
            elif type(value) is not type(mine[key]) or (not isinstance(value, Tensor) and value != mine[key]):
                return _found(value, f"{spot}.{key}", f"{mine[key]!r:.40}")
    known = {number for group in own for number in group["params"]}
    others = [number for number in saved["state"] if number not in known]
    return f"{where}.state: found the weight {others[0]!r:.20}, allowed: one of {len(known)}" if others else ""


def _is_optimizer(state: State) -> bool:
    return {"state", "param_groups"} <= set(state)


def _found(value: Any, where: str, allowed: str) -> str:
    found = _kind(value) if isinstance(value, Tensor) else type(value).__name__
    if isinstance(value, (bool, int, float, str)):
        found = f"{value!r:.40}"
    return f"{where}: found {found}, allowed: {allowed}"


def _kind(tensor: Tensor) -> str:
    return _words(tensor.dtype, tuple(tensor.shape))


def _words(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {shape}"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)
