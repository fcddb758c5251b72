"""Build a stream from a data set: which samples belong to which experience, and in which order the tasks come.

Avalanche divides the classes (:mod:`clsim.streams.division`); the samples are gathered later, by index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.data import superclasses
from clsim.data.cache import Dataset
from clsim.errors import InputError
from clsim.randomness import generator
from clsim.spec.labelling import LabellingSpec, LabelsSpec
from clsim.spec.tables import StreamSpec
from clsim.streams.division import divide
from clsim.streams.labels import foreign_parts, known_rows, oracle_of
from clsim.streams.part import Change, Part, Parts, numbered
from clsim.streams.stream import Stream


def build(
    dataset: Dataset,
    spec: StreamSpec,
    seed: int,
    device: torch.device,
    difficulty: Sequence[float | None] | None = None,
    labels: LabelsSpec | None = None,
    foreign: np.ndarray | None = None,
    labelling: LabellingSpec | None = None,
    divisions: Path | None = None,
    pooled: Callable[[Parts], Parts] | None = None,
    load: Callable[[str, str], np.ndarray] | None = None,
) -> Stream:
    """Build the stream of a data set.

    Args:
        difficulty: a joint model's accuracy on each task, in the order of ``tasks = "given"``; needed for the orders
            ``easy-first`` and ``hard-first`` alone.
        labels: which labels are revealed; None: all.
        foreign: images of another data set, uint8 (n, c, h, w) with the stream's h and w.
        labelling: how labels are asked for; None: nobody asks.
        divisions: folder of the divisions that Avalanche made before; None: it divides the classes anew.
        pooled: makes a realistic pool of the parts of the clean stream; None: it stays clean.
        load: loads images of another data set for it, by name and by the key that names it.

    Raises:
        InputError: if the classes cannot be divided, the tasks not ordered, or the labels not drawn, as the spec asks.
    """
    width = len(dataset.classes)
    order = list(range(width))
    if spec.order == "seeded":
        order = torch.randperm(width, generator=generator(seed, "class order")).tolist()
    elif spec.order == "superclass":
        order = superclasses.order(dataset.classes)
    if spec.kind == "sequence":
        train, test, classes, names = _split(dataset, _whole_sets(dataset, spec), order, divisions)
    elif spec.kind == "split":
        train, test, classes, names = _split(dataset, spec, order, divisions)
    else:
        train, test = _changed(dataset, spec, seed)
        classes, names = [tuple(range(width))] * spec.experiences, dataset.classes
    tasks = order_of_tasks(spec, seed, difficulty)
    labels, labelling = labels or LabelsSpec(), labelling or LabellingSpec()
    split = seed if labelling.split < 0 else labelling.split
    oracle = known = None
    pool = None
    if pooled is not None:
        pool = pooled(Parts.begun(train, test, classes, names, spec, load))
        train, test, classes, names = list(pool.train), list(pool.test), list(pool.classes), pool.names
    outside: list[Part] | None = None
    if foreign is not None:
        outside = foreign_parts(train, labels, seed, foreign, dataset.train_x.shape[1])
    query: list[Part] = []
    if pool is not None:
        train, query, strangers = numbered([train, pool.query, outside or []], seed)
        outside = None if outside is None else strangers
    if labelling.asks or pool is not None:  # what a sample is must not show in the order of the samples
        train = [part.of(np.argsort(part.index, kind="stable")) for part in train]
    oracle = known = None
    if labelling.asks:
        oracle = oracle_of(train, classes, spec, split, labels, labelling, tasks)
    else:
        known = known_rows(train, spec, split, labels)
    stream = Stream(
        [train[task] for task in tasks],
        [test[task] for task in tasks],
        [classes[task] for task in tasks],
        names,
        masked=spec.setting == "task",
        mean=dataset.mean,
        std=dataset.std,
        spec=spec,
        seed=seed,
        device=device,
        given=tasks,
        labelled=None if known is None else [known[task] for task in tasks],
        labels=labels,
        foreign=None if outside is None else [outside[task] for task in tasks],
        source=dataset,
        oracle=oracle,
        split=None if split == seed else split,
        query=[query[task] for task in tasks] if pool is not None else None,
        roles=None if pool is None else pool.roles,
    )
    _refuse_unheld(stream, spec)
    return stream


def _refuse_unheld(stream: Stream, spec: StreamSpec) -> None:
    """Refuse a share to be held out of which nothing is left in any experience."""
    if spec.validation and not any(stream.held_out_sizes):
        raise InputError(
            f"stream.validation: found {spec.validation:g}, which holds out nothing of experiences of "
            f"{max(stream.train_sizes)} training samples at most; allowed: 0, or a share that holds out one sample of "
            "a class or more"
        )


def order_of_tasks(spec: StreamSpec, seed: int, difficulty: Sequence[float | None] | None) -> list[int]:
    """Order the tasks, as places in the given order; equally easy tasks keep that order.

    >>> order_of_tasks(StreamSpec(experiences=3, tasks="hard-first"), 0, [0.9, 0.5, 0.9])
    [1, 0, 2]

    Source: De Lange et al., A Continual Learning Survey (TPAMI 2021), its experiments on the order of tasks.

    Raises:
        InputError: if the order follows accuracies, and there is not one for each task.
    """
    if spec.tasks == "seeded":
        return torch.randperm(spec.experiences, generator=generator(seed, "task order")).tolist()
    if not spec.by_difficulty:
        return list(range(spec.experiences))
    accuracy = [a for a in difficulty or () if a is not None]
    if len(accuracy) != spec.experiences:
        raise InputError(
            f"stream.difficulty: found {len(accuracy)} accuracies for {spec.experiences} tasks, "
            "allowed: a run on the same tasks, with one for each"
        )
    sign = -1 if spec.tasks == "easy-first" else 1
    return sorted(range(spec.experiences), key=lambda task: sign * accuracy[task])


def _whole_sets(dataset: Dataset, spec: StreamSpec) -> StreamSpec:
    """Make each data set of a sequence an experience."""
    if not dataset.groups:
        found = f"'sequence' with the data set {dataset.name!r}"
        raise InputError(f"stream.kind: found {found}, allowed: data.dataset = 'sequence'")
    if spec.experiences != len(dataset.groups):
        found = f"{spec.experiences} with {len(dataset.groups)} data sets"
        raise InputError(f"stream.experiences: found {found}, allowed: {len(dataset.groups)}")
    return replace(spec, kind="split", sizes=dataset.groups)


def _split(
    dataset: Dataset, spec: StreamSpec, order: list[int], folder: Path | None
) -> tuple[list[Part], list[Part], list[tuple[int, ...]], Sequence[str]]:
    """Divide the classes, and so the samples."""
    _refuse_uneven(spec, len(order))
    for side, y in (("training", dataset.train_y), ("test", dataset.test_y)):
        for label in np.flatnonzero(np.bincount(y, minlength=len(order)) == 0)[:1]:
            raise InputError(f"data: class {dataset.classes[label]!r} has no {side} samples, allowed: at least one")
    sizes = dict(enumerate(spec.sizes or [spec.first] * bool(spec.first)))
    division = divide(dataset, order, spec.experiences, sizes, folder)
    classes = division.classes
    names: Sequence[str] = dataset.classes
    renumbered = np.arange(len(order))
    if spec.setting == "domain":  # labels are counted from zero within each experience, in the order of the classes
        for members in classes:
            renumbered[[c for c in order if c in members]] = np.arange(len(members))
        widest = max(map(len, classes))
        classes, names = [tuple(range(len(c))) for c in classes], [str(i) for i in range(widest)]

    def parts(x: np.ndarray, y: np.ndarray, divided: np.ndarray) -> list[Part]:
        return [Part(x, rows, renumbered[y[rows]]) for rows in division.parted(divided, y)]

    train = parts(dataset.train_x, dataset.train_y, division.train)
    return train, parts(dataset.test_x, dataset.test_y, division.test), classes, names


def _refuse_uneven(spec: StreamSpec, labels: int) -> None:
    """Refuse a number of classes (``labels``) that cannot be divided as the spec asks."""
    found, first = f"stream.experiences: found {spec.experiences}", spec.first
    rest, others = (labels - first, spec.experiences - 1) if first else (labels, spec.experiences)
    if spec.sizes:
        if sum(spec.sizes) != labels:
            total = f"{list(spec.sizes)}, {sum(spec.sizes)} classes"
            raise InputError(f"stream.sizes: found {total}, allowed: {labels} in all")
    elif first >= labels and others:
        raise InputError(f"stream.first: found {first} with {labels} classes, allowed: 1 to {labels - others}")
    elif others > rest:
        raise InputError(f"{found} with {labels} classes, allowed: 1 to {labels}")
    elif (rest % others) if others else rest:
        even = ", ".join(str(n + bool(first)) for n in range(1, rest + 1) if rest % n == 0)
        raise InputError(f"{found}, which does not divide {rest} classes evenly; allowed: {even}, or stream.sizes")


def _changed(dataset: Dataset, spec: StreamSpec, seed: int) -> tuple[list[Part], list[Part]]:
    """Put the whole data set into every experience, permuted or rotated; into the first one, as it is."""
    shape = dataset.train_x.shape[1:]
    if spec.kind == "rotated" and len(shape) != 3:
        raise InputError("stream.kind: found 'rotated' with a data set of vectors, allowed: images")
    rng = generator(seed, "permutations")
    changes: list[Change | None] = [None]
    for i in range(1, spec.experiences):
        if spec.kind == "permuted":
            changes.append(permutation(torch.randperm(math.prod(shape), generator=rng)))
        else:
            changes.append(rotation(180 * i / spec.experiences))
    sides = [(dataset.train_x, np.asarray(dataset.train_y)), (dataset.test_x, np.asarray(dataset.test_y))]
    train, test = ([Part(x, np.arange(len(y)), y, change) for change in changes] for x, y in sides)
    return train, test


def permutation(order: Tensor) -> Change:
    """Make a change that reorders the pixels of all channels. Source: Goodfellow et al. (2013), permuted MNIST."""
    return lambda x: x.flatten(1)[:, order].view_as(x)


def rotation(degrees: float) -> Change:
    """Make a change that turns images (n, c, h, w) counter-clockwise about their centre, bilinear, black outside.

    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory (NeurIPS 2017), MNIST rotations.
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])

    def rotate(x: Tensor) -> Tensor:
        grid = F.affine_grid(turn, [1, *x.shape[1:]], align_corners=False)
        batches = x.split(1000)  # float copies of a whole data set would take gigabytes
        turned = [F.grid_sample(b.float(), grid.expand(len(b), -1, -1, -1), align_corners=False) for b in batches]
        return torch.cat([t.round().clamp(0, 255).to(x.dtype) for t in turned])

    return rotate
