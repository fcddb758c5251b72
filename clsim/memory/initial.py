"""The memory before the first experience: empty, or with a set in a file, as ``clsim condense`` makes one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from clsim.data import npz
from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost
from clsim.randomness import generator
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.streams.stream import Stream


def start_of(spec: RunSpec, stream: Stream, factor: int) -> Exemplars:
    """Read the set of ``memory.start``, as a memory stores it.

    The file names its classes, as ``clsim condense`` writes them; without names, its labels count the classes of the
    stream's data set from 0. Each exemplar belongs to the first experience with its class (``task``), even one still
    to come, and has the label of that experience; it is of no row of the data set (``index`` below 0).

    Args:
        spec: the run, which names the file and its hash.
        stream: the stream that the memory is for.
        factor: each image of the memory holds factor × factor small ones.

    Raises:
        InputError: if the file cannot be read, is not the one that the spec was made with, or does not fit the stream.
    """
    name = spec.memory.start
    where = f"memory.start: {name}"
    if stream.source is None:
        raise InputError(
            f"{where}: found with a benchmark, whose classes have no names; allowed: a scenario's data set"
        )
    try:
        content = Path(name).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from None
    if hashlib.sha256(content).hexdigest() != dict(spec.sources).get(name):
        raise InputError(f"{where}: it has changed since this run was planned; start the run again")
    x, labels = npz.condensed(content, where, factor, stream.source.classes)
    kind = torch.uint8 if len(stream.shape) == 3 else torch.float32
    samples = torch.from_numpy(x)
    if samples.dtype != kind or samples.shape[1:] != stream.shape:
        found = f"{samples.dtype} of shape {tuple(samples.shape[1:])}"
        raise InputError(f"{where}: found {found} each, allowed: {kind} of shape {stream.shape}, as the stream's")
    homes, n = stream.homes(), len(x)
    tasks, y = torch.tensor([homes[label] for label in labels.tolist()]).unbind(1)
    return Exemplars(
        x=samples.to(stream.device),
        y=y.to(stream.device),
        task=tasks.to(stream.device),
        key=torch.rand(n, generator=generator(spec.seed, "start")).to(stream.device),
        index=torch.full((n,), -1, device=stream.device),
    )


def memory_of(spec: RunSpec, stream: Stream, select: Any, *, rng: torch.Generator, cost: Cost) -> Buffer:
    """Make the memory of a run as it is before the first experience.

    Args:
        spec: the resolved spec.
        stream: the stream.
        select: a selector in place of the one that the spec names; None: the latter. Without effect for ``none``.
        rng: draws the replayed batches, and is passed to the selector.
        cost: the counters to which the time of selection is added.
    """
    memory, condense, retrieve = spec.memory, None, None
    if memory.buffer == "none":
        select = None
    elif select is None:
        found = registry.component("buffers", memory.buffer, memory.options, "[memory.options]")
        condense, select = (found, None) if registry.is_condenser(memory.buffer) else (None, found)
    if memory.retrieval != "random":
        options, where = memory.retrieval_options, "[memory.retrieval_options]"
        retrieve = registry.component("selectors", memory.retrieval, options, where)
    made = Buffer(memory, select, rng=rng, cost=cost, retrieve=retrieve, condense=condense, tasks=stream.tasks)
    if memory.start:
        made.begin(start_of(spec, stream, made.factor))
    return made
