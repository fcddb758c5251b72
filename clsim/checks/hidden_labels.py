"""The check that a learner does not depend on hidden labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from clsim.checks.learners import snapshot, train_on
from clsim.checks.samples import CLASSES, CPU, CheckFailed, clusters
from clsim.checks.setups import setup_of
from clsim.spec.labelling import LabelsSpec
from clsim.spec.tables import StreamSpec
from clsim.streams.part import Part
from clsim.streams.stream import Stream
from clsim.training.contract import Learner, Setup


def check_hidden_labels(make: Callable[[Setup], Learner], *, foreign: bool = False) -> None:
    """Check that hidden labels do not change a learner's final weights and memory, bit for bit.

    Two streams hold the same samples, and the same of them labelled; the labels of the others are permuted. The truth
    of both is where metrics find it.

    Args:
        make: the learner's class, its options bound.
        foreign: whether the unlabelled part also holds samples that are of no class.

    Raises:
        CheckFailed: if they change.
    """
    ends, truths = [], []
    for permuted in (False, True):
        stream = partly_labelled(permuted, foreign=foreign)
        setup = setup_of(buffered=True)
        learner = make(setup)
        for position in stream.schedule:
            train_on(setup, learner, stream.experience(position))
        memory = setup.memory.exemplars
        ends.append(torch.cat([snapshot(setup), *_flat([] if memory is None else memory.columns().values())]))
        truths.append(torch.cat([stream.truth(position) for position in stream.schedule]))
    if torch.equal(*truths):
        raise CheckFailed("the hidden labels of both streams are the same: this check shows nothing")
    if not torch.equal(*ends):
        raise CheckFailed("learnt otherwise when labels that it was not shown were permuted")


def partly_labelled(permuted: bool, *, foreign: bool = False) -> Stream:
    """Four clusters in two experiences, a quarter of the samples labelled; if asked for, beside others of no class."""
    x, y = (column.numpy() for column in clusters(96, seed=4))
    known = np.arange(96) % 16 < CLASSES
    parts, shown = [], []
    for position in (0, 1):
        rows = np.flatnonzero(y // 2 == position)
        labels = y[rows].copy()
        if permuted:
            hidden = np.flatnonzero(~known[rows])
            labels[hidden] = labels[np.random.default_rng(1).permutation(hidden)]
        parts.append(Part(x, rows, labels))
        shown.append(known[rows])
    outside, _ = clusters(48, seed=5)
    strangers = [Part(255 - outside.numpy(), np.arange(24) + first, np.full(24, -1)) for first in (0, 24)]
    return Stream(
        parts,
        parts,
        [(0, 1), (2, 3)],
        [str(label) for label in range(CLASSES)],
        masked=True,
        mean=[0.5],
        std=[0.25],
        spec=dataclasses.replace(StreamSpec(), experiences=2),
        seed=0,
        device=CPU,
        labelled=shown,
        labels=LabelsSpec(fraction=0.25, include_labelled=True),
        foreign=strangers if foreign else None,
    )


def _flat(columns: Iterable[Tensor]) -> list[Tensor]:
    return [column.flatten().double() for column in columns]
