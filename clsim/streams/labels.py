"""Which samples of a stream are labelled: drawn class by class, from the run's seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from clsim.data.foreign import in_channels
from clsim.errors import InputError
from clsim.randomness import generator
from clsim.spec.labelling import LabellingSpec, LabelsSpec
from clsim.spec.tables import StreamSpec
from clsim.streams.oracle import Oracle
from clsim.streams.part import Change, Part


def known_rows(
    parts: Sequence[Part], spec: StreamSpec, seed: int, labels: LabelsSpec | None
) -> list[np.ndarray] | None:
    """Draw a mask of the labelled rows of each part; None means that all are labelled.

    Rows that are held out for validation are not among them, nor are outsiders, whether or not they form a class.

    Raises:
        InputError: see :func:`revealed`.
    """
    if labels is None or not labels.partial:
        return None
    if labels.unlabelled == "stream" and spec.kind not in ("split", "sequence"):
        raise InputError(f"labels.unlabelled: found 'stream' with stream.kind {spec.kind!r}, allowed: 'own'")
    rngs = (generator(seed, f"experience {i}") for i in range(len(parts)))
    free = [~stratified(part.y, spec.validation, rng) for part, rng in zip(parts, rngs, strict=True)]
    known = revealed([part.counting[rows] for part, rows in zip(parts, free, strict=True)], labels, seed)
    for rows, chosen in zip(free, known, strict=True):
        rows[rows] = chosen
    return free


def oracle_of(
    parts: Sequence[Part],
    classes: Sequence[Sequence[int]],
    spec: StreamSpec,
    seed: int,
    labels: LabelsSpec,
    labelling: LabellingSpec,
    order: Sequence[int],
) -> Oracle:
    """Make the oracle of a stream whose labels are asked for, and draw the initial set of each experience.

    A set that a selector chooses is not drawn here.

    Args:
        parts: the training part of each experience.
        classes: the labels of each experience.
        spec: the held-out share, of which no sample is in the initial set.
        seed: the seed of held-out share, initial set and wrong answers.
        labels: what draws the initial set where ``labelling`` draws none.
        labelling: the initial set, and the share of wrong answers.
        order: the place of each experience of the stream among ``parts``.
    """
    count = labelling.initial_count
    if count and labelling.initial == "class":
        labels = LabelsSpec(per_class=count)
    drawn: Sequence[np.ndarray] | None = None
    if not count or labelling.initial == "class":
        masks = known_rows(parts, spec, seed, labels)
        drawn = None if masks is None else [np.flatnonzero(mask) for mask in masks]
    elif labelling.initial == "random":
        drawn = []
        for i, part in enumerate(parts):
            free = np.flatnonzero(~stratified(part.y, spec.validation, generator(seed, f"experience {i}")))
            drawing = torch.randperm(len(free), generator=generator(seed, f"initial {i}")).numpy()
            drawn.append(free[drawing[:count]])
    y, names = [parts[i].y for i in order], [classes[i] for i in order]
    return Oracle(y, names, seed, labelling.noise, None if drawn is None else [drawn[i] for i in order])


def foreign_parts(parts: Sequence[Part], spec: LabelsSpec, seed: int, images: np.ndarray, channels: int) -> list[Part]:
    """Deal foreign samples, with label −1, to the unlabelled parts of the experiences: each sample to one at most.

    Args:
        images: the foreign samples, (n, \\*shape).
        channels: the channels of the stream's images, which these get; then the change of the experience's own samples
            is applied.

    Raises:
        InputError: if there are too few foreign samples.
    """
    counts = [round(spec.foreign_share * len(part.rows)) for part in parts]
    if sum(counts) > len(images):
        most = math.floor(100 * len(images) / sum(len(part.rows) for part in parts)) / 100
        raise InputError(
            f"labels.foreign_share: found {spec.foreign_share:g}, which asks for {sum(counts)} of {len(images)} images "
            f"of {spec.foreign!r}; allowed: above 0, at most {most:g}"
        )
    order = torch.randperm(len(images), generator=generator(seed, "foreign")).numpy()
    dealt = np.split(order[: sum(counts)], np.cumsum(counts)[:-1])
    fit = partial(in_channels, channels=channels)
    return [
        Part(
            images,
            np.sort(rows),
            np.full(len(rows), -1),
            partial(_in_turn, fit, part.change),
        )
        for rows, part in zip(dealt, parts, strict=True)
    ]


def _in_turn(first: Change, second: Change | None, x: Tensor) -> Tensor:
    return first(x) if second is None else second(first(x))


def revealed(y: Sequence[np.ndarray], spec: LabelsSpec, seed: int) -> list[np.ndarray]:
    """Draw the rows of each experience whose labels are known.

    Each class of each experience draws its labelled samples from a generator of its own, so that neither the strategy
    nor anything else of a run changes them. ``count`` labels in all are divided evenly; if that leaves a remainder,
    earlier classes have one more.

    Args:
        y: int64 (n_i,), the labels of each experience's training samples.

    Returns:
        A mask for each experience, bool (n_i,).

    Raises:
        InputError: if a class would have no labelled sample, or has fewer samples than are to be labelled.
    """
    cells = [(i, int(label)) for i, labels in enumerate(y) for label in np.unique(labels) if label >= 0]
    masks = [np.zeros(len(labels), dtype=bool) for labels in y]
    if spec.count and spec.count < len(cells):
        raise InputError(
            f"labels.count: found {spec.count}, which leaves a class without a label; "
            f"allowed: {len(cells)} or more, one for each class of each experience"
        )
    for place, (i, label) in enumerate(cells):
        rows = np.flatnonzero(y[i] == label)
        count = spec.per_class
        if spec.fraction:
            count = round(spec.fraction * len(rows))
            if not count:
                raise InputError(
                    f"labels.fraction: found {spec.fraction}, which leaves class {label} of experience {i + 1} "
                    f"({len(rows)} samples) without a label; allowed: {1 / len(rows):.2g} or more"
                )
        elif spec.count:
            count = spec.count // len(cells) + (place < spec.count % len(cells))
        if count > len(rows):
            raise InputError(
                f"labels: {count} samples of class {label} are to be labelled, but experience {i + 1} has "
                f"{len(rows)}; allowed: {len(rows)} or fewer"
            )
        order = torch.randperm(len(rows), generator=generator(seed, f"labels {i} {label}")).numpy()
        masks[i][rows[order[:count]]] = True
    return masks


def stratified(y: np.ndarray, share: float, rng: torch.Generator) -> np.ndarray:
    """Draw a boolean mask of held-out rows: ``share`` of each class, rounded; at least one of each is not held out."""
    chosen = np.zeros(len(y), dtype=bool)
    for label in np.unique(y[y >= 0]) if share else ():  # outsiders, with −1, are not held out
        rows = np.flatnonzero(y == label)
        count = min(round(share * len(rows)), len(rows) - 1)
        chosen[rows[torch.randperm(len(rows), generator=rng)[:count].numpy()]] = True
    return chosen
