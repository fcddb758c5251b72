"""Streams: experiences in order, as tensors.

The samples of an experience are gathered from the cached arrays by index, one experience at a time, and never pass
through a data loader. :mod:`clsim.divide` makes streams of data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.exemplars import Exemplars, concatenate
from clsim.randomness import generator
from clsim.specs import StreamSpec

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Experience:
    """One step of the stream.

    Attributes:
        position: in the stream, from 0; also the task id of its samples.
        classes: labels that occur in it.
        train: what to learn from.
        validation: held out from it; None without a validation share.
    """

    position: int
    classes: tuple[int, ...]
    train: Exemplars
    validation: Exemplars | None = None


@dataclass(frozen=True)
class Part:
    """The samples of one experience before they are gathered.

    Attributes:
        x: the whole data set's array (uint8 images or float32 vectors), shared by all parts.
        rows: int64, those of this part.
        y: int64, their labels in the stream.
        change: what is done to the images (a permutation, a rotation); None leaves them.
    """

    x: np.ndarray
    rows: np.ndarray
    y: np.ndarray
    change: Change | None = None

    def gather(self, task: int, device: torch.device, keys: Tensor) -> Exemplars:
        """As tensors on ``device``."""
        x = torch.from_numpy(self.x[self.rows])
        n = len(self.rows)
        return Exemplars(
            x=(x if self.change is None else self.change(x)).to(device),
            y=torch.from_numpy(self.y.astype(np.int64)).to(device),
            task=torch.full((n,), task, device=device),
            key=keys.to(device),
            index=torch.from_numpy(self.rows.astype(np.int64)).to(device),
        )


class Stream:
    """Experiences in order, each gathered when it is asked for. Final.

    Args:
        train: a part an experience.
        test: likewise.
        classes: labels of each experience.
        names: of all classes; their number is the width of the head.
        masked: whether a task sees its own classes alone (task-incremental).
        mean, std: per channel or dimension, of the training data.
        spec: presentation and validation share.
        seed: of the keys and the validation split.
        given: where each experience stood before the tasks were ordered; its keys and its held-out share stay with it.

    Raises:
        InputError: if an experience has nothing to train or to test on.
    """

    def __init__(
        self,
        train: Sequence[Part],
        test: Sequence[Part],
        classes: Sequence[tuple[int, ...]],
        names: Sequence[str],
        *,
        masked: bool,
        mean: Sequence[float],
        std: Sequence[float],
        spec: StreamSpec,
        seed: int,
        device: torch.device,
        given: Sequence[int] | None = None,
    ) -> None:
        for side, parts in (("training", train), ("test", test)):
            for i, part in enumerate(parts):
                if not len(part.rows):
                    where = f"experience {i + 1} of {len(parts)} (classes {', '.join(map(str, classes[i]))})"
                    raise InputError(f"stream: {where} has no {side} samples, allowed: at least one")
        self.classes = tuple(classes)
        self.names = tuple(names)
        self.mean, self.std = tuple(mean), tuple(std)
        self.shape = tuple(train[0].x.shape[1:])
        self.device = device
        self.visible = torch.ones(len(train), len(names), dtype=torch.bool)
        if masked:
            for task, labels in enumerate(classes):
                self.visible[task] = torch.tensor([label in labels for label in range(len(names))])
        self._train, self._test = train, test
        self._spec, self._seed = spec, seed
        self._given = range(len(train)) if given is None else given

    def __len__(self) -> int:
        return len(self._train)

    @property
    def schedule(self) -> range:
        """Positions to train on: all, or only the last when everything is presented at once."""
        return range(len(self) - 1, len(self)) if self._spec.presentation == "joint" else range(len(self))

    def experience(self, position: int) -> Experience:
        """The experience at ``position``, with all earlier ones in it if the stream is presented so."""
        first = position if self._spec.presentation == "separate" else 0
        pieces = [self._piece(i) for i in range(first, position + 1)]
        held_out = [v for _, v in pieces if v is not None]
        labels = sorted({label for i in range(first, position + 1) for label in self.classes[i]})
        return Experience(
            position,
            tuple(labels),
            concatenate([t for t, _ in pieces]),
            concatenate(held_out) if held_out else None,
        )

    @cached_property
    def tests(self) -> Exemplars:
        """The test samples of all experiences, one experience after the other."""
        parts = enumerate(self._test)
        return concatenate([p.gather(i, self.device, torch.zeros(len(p.rows))) for i, p in parts])

    @property
    def test_sizes(self) -> list[int]:
        """How many of them belong to each experience."""
        return [len(part.rows) for part in self._test]

    def content(self) -> Iterator[bytes]:
        """Every sample and label, for a digest."""
        for part in (*self._train, *self._test):
            yield np.ascontiguousarray(part.x[part.rows]).tobytes()
            yield part.y.tobytes()

    def shares(self, position: int, per: str) -> int:
        """Among how many a memory is shared after ``position``: the classes seen so far, or (``task``) the tasks."""
        return position + 1 if per == "task" else self.classes_seen(position)

    def classes_seen(self, position: int) -> int:
        """Different labels up to and including ``position``."""
        return len({label for labels in self.classes[: position + 1] for label in labels})

    def _piece(self, position: int) -> tuple[Exemplars, Exemplars | None]:
        """Training and validation part of one experience; the same whenever it is gathered."""
        part = self._train[position]
        rng = generator(self._seed, f"experience {self._given[position]}")
        held_out = _stratified(part.y, self._spec.validation, rng)
        keys = torch.rand(len(part.rows), generator=rng)
        whole = part.gather(position, self.device, keys)
        if not self._spec.validation:
            return whole, None
        chosen = torch.from_numpy(held_out).to(self.device)
        return whole[~chosen], whole[chosen]


def _stratified(y: np.ndarray, share: float, rng: torch.Generator) -> np.ndarray:
    """A boolean mask of the held-out rows: ``share`` of each class, rounded; at least one sample is left."""
    chosen = np.zeros(len(y), dtype=bool)
    for label in np.unique(y) if share else ():
        rows = np.flatnonzero(y == label)
        count = min(round(share * len(rows)), len(rows) - 1)
        chosen[rows[torch.randperm(len(rows), generator=rng)[:count].numpy()]] = True
    return chosen
