"""Streams from benchmarks that a user made with Avalanche."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsim.compat import import_torchvision
from clsim.errors import InputError
from clsim.spec.labelling import LabellingSpec, LabelsSpec
from clsim.spec.tables import StreamSpec
from clsim.streams.labels import known_rows, oracle_of
from clsim.streams.part import Part
from clsim.streams.stream import Stream

import_torchvision()  # before Avalanche, which imports it too

from avalanche.benchmarks import CLScenario  # noqa: E402


def from_benchmark(
    benchmark: Any,
    spec: StreamSpec,
    seed: int,
    device: torch.device,
    labels: LabelsSpec | None = None,
    labelling: LabellingSpec | None = None,
) -> tuple[Stream, StreamSpec]:
    """Make the stream of a benchmark that a user made with Avalanche; return it, and its table of the spec.

    The samples are read one by one, once. Images must come as PIL images, uint8 tensors, or floats in [0, 1]; vectors
    as one-dimensional floats. The benchmark decides the setting, whatever the spec says: where each experience has a
    task label of its own, the stream is task-incremental, and labels that several tasks use become classes of their
    own; where all have the same task label, it is class-incremental, or domain-incremental if every experience has the
    same classes.

    Raises:
        InputError: if the samples are of another form, if the test stream does not match the training stream, or if
            some experiences share a task label and others do not.
    """
    if not isinstance(benchmark, CLScenario):
        kind = type(benchmark).__name__
        raise InputError(f"scenario: found a {kind}, allowed: a name, a path, or a benchmark made with Avalanche")
    if spec.tasks != "given":
        raise InputError(f"stream.tasks: found {spec.tasks!r} with a benchmark, allowed: 'given'")
    if labels is not None and labels.foreign:
        raise InputError(f"labels.foreign: found {labels.foreign!r} with a benchmark, allowed: with data.dataset")
    train, test = list(benchmark.train_stream), list(benchmark.test_stream)
    if len(test) not in (1, len(train)):
        raise InputError(
            f"benchmark: found {len(train)} training and {len(test)} test experiences, "
            "allowed: as many of both, or 1 test experience"
        )
    test = test * len(train) if len(test) == 1 else test
    tasks = [tuple(sorted(set(map(int, e.task_labels)))) for e in train]
    if len(set(tasks)) not in (1, len(tasks)):
        given = [list(labels) for labels in tasks]
        raise InputError(f"benchmark: task labels {given}, allowed: another one in each experience, or the same in all")
    masked = len(set(tasks)) == len(tasks) > 1
    classes = [tuple(sorted(map(int, e.classes_in_this_experience))) for e in train]
    shift = [0] * len(train)
    if masked and len({c for labels in classes for c in labels}) < sum(map(len, classes)):
        shift = np.cumsum([0, *(max(labels) + 1 for labels in classes[:-1])]).tolist()
        classes = [tuple(c + by for c in labels) for labels, by in zip(classes, shift, strict=True)]
    names = [str(label) for label in range(max(c for labels in classes for c in labels) + 1)]
    read = {id(e): _read(e.dataset) for e in {id(e): e for e in [*train, *test]}.values()}
    parts = [
        [
            Part(read[id(e)][0], np.arange(len(read[id(e)][1])), read[id(e)][1] + by)
            for e, by in zip(side, shift, strict=True)
        ]
        for side in (train, test)
    ]
    everything = np.concatenate([p.x for p in parts[0]])
    axes = (0, 2, 3) if everything.ndim == 4 else 0
    scale = 255 if everything.dtype == np.uint8 else 1
    mean, std = everything.mean(axes) / scale, everything.std(axes) / scale
    repeated = len(classes) > 1 and len(set(classes)) == 1
    setting: Any = "task" if masked else "domain" if repeated else "class"
    found = replace(spec, setting=setting, experiences=len(train), kind="split", first=0, sizes=())
    labels, labelling = labels or LabelsSpec(), labelling or LabellingSpec()
    asks, split = labelling.asks, seed if labelling.split < 0 else labelling.split
    stream = Stream(
        parts[0],
        parts[1],
        classes,
        names,
        masked=masked,
        mean=np.atleast_1d(mean).tolist(),
        std=np.atleast_1d(std).tolist(),
        spec=found,
        seed=seed,
        device=device,
        labelled=None if asks else known_rows(parts[0], spec, split, labels),
        labels=labels,
        oracle=oracle_of(parts[0], classes, spec, split, labels, labelling, range(len(train))) if asks else None,
        split=None if split == seed else split,
    )
    return stream, found


def _read(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read a data set of Avalanche: images, uint8 (n, c, h, w), or vectors, float32 (n, d), and labels, int64 (n,)."""
    xs, ys = [], []
    for sample in samples:
        xs.append(_as_array(sample[0]))
        ys.append(int(sample[1]))
    if len({x.shape for x in xs}) != 1:
        raise InputError(f"benchmark: samples of shapes {sorted({x.shape for x in xs})[:3]}, allowed: one shape")
    return np.stack(xs), np.asarray(ys, dtype=np.int64)


def _as_array(x: Any) -> np.ndarray:
    array = np.asarray(x)
    if not isinstance(x, Tensor) and array.dtype == np.uint8:  # a PIL image: (h, w) or (h, w, c)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if array.ndim == 3 and array.dtype == np.uint8:
        return array
    if array.ndim == 1 and np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    if array.ndim == 3 and np.issubdtype(array.dtype, np.floating) and 0 <= array.min() <= array.max() <= 1:
        return (array * 255).round().astype(np.uint8)
    raise InputError(
        f"benchmark: a sample of type {array.dtype}, shape {array.shape}, values from {array.min()} to {array.max()}; "
        "allowed: PIL images, uint8 (c, h, w), floats in [0, 1] (no normalisation), or float vectors"
    )
