"""Parts of a data set, before they are gathered; and all parts of a stream, which transforms of the pool change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from clsim.pool.exemplars import Exemplars
from clsim.randomness import generator
from clsim.spec.tables import StreamSpec
from clsim.streams.natures import Natures, together

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """The samples of one experience before they are gathered.

    Attributes:
        x: the whole data set's array (uint8 images or float32 vectors), shared by all parts.
        rows: positions of this part's samples in ``x``, int64 (n,).
        y: labels of these samples in the stream, int64 (n,).
        change: what is done to the samples (a permutation, a rotation); None leaves them as they are.
        natures: what the samples of a realistic pool are; None: a clean pool. It is not gathered.
        numbers: int64 (n,), the number of each sample by which the rest of a run knows it, which tells nothing of what
            it is; None: that is its row.
    """

    x: np.ndarray
    rows: np.ndarray
    y: np.ndarray
    change: Change | None = None
    natures: Natures | None = None
    numbers: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> Part:
        """Take some of the samples.

        Args:
            rows: a boolean mask, or positions.
        """
        natures = None if self.natures is None else self.natures.of(rows)
        numbers = None if self.numbers is None else self.numbers[rows]
        return replace(self, rows=self.rows[rows], y=self.y[rows], natures=natures, numbers=numbers)

    @property
    def index(self) -> np.ndarray:
        """The number of each sample by which the rest of a run knows it, int64 (n,)."""
        return (self.rows if self.numbers is None else self.numbers).astype(np.int64)

    @property
    def origin(self) -> np.ndarray:
        """The row of each sample in the data set, int64 (n,); −1 of what is not of it."""
        return (self.rows if self.natures is None else self.natures.origin).astype(np.int64)

    @property
    def counting(self) -> np.ndarray:
        """The label of each sample, int64 (n,); −1 of an outsider, even if outsiders form a class."""
        return self.y if self.natures is None else np.where(self.natures.outsider, -1, self.y)

    @property
    def known(self) -> Natures:
        """The natures of the samples; those of a clean pool are made up."""
        return Natures.plain(self.y, self.rows, 0) if self.natures is None else self.natures

    def gather(self, task: int, device: torch.device, keys: Tensor) -> Exemplars:
        """Copy the samples to tensors on ``device``.

        Args:
            task: the number that all samples get as their task.
            keys: the random key of each sample, (n,).
        """
        x = torch.from_numpy(self.x[self.rows])
        n = len(self.rows)
        return Exemplars(
            x=(x if self.change is None else self.change(x)).to(device),
            y=torch.from_numpy(self.y.astype(np.int64)).to(device),
            task=torch.full((n,), task, device=device),
            key=keys.to(device),
            index=torch.from_numpy(self.index).to(device),
        )


@dataclass(frozen=True)
class Roles:
    """What a choice of labels in a realistic pool is to resemble and to avoid, and what tests have to know of it.

    Attributes:
        query: ``rare``: the set aside, and what was asked for and told to be of a rare class; ``insiders``: what is
            labelled as of a class; empty: nothing.
        private: ``labelled``: all that is labelled; ``outsiders``: what was asked for and told to be of no class;
            empty: nothing.
        until: what the private set is as long as it is empty: ``none``, or the ``query``.
        rare: the classes that were made rare.
        outside: the classes that became outsiders, as they were before.
        own: the label of the class that outsiders form; −1: they are of none.
        clean: whether labels of held-out samples are the true ones.
    """

    query: Literal["", "rare", "insiders"] = ""
    private: Literal["", "labelled", "outsiders"] = ""
    until: Literal["none", "query"] = "none"
    rare: tuple[int, ...] = ()
    outside: tuple[int, ...] = ()
    own: int = -1
    clean: bool = False


@dataclass(frozen=True)
class Parts:
    """All samples of a stream, as transforms of the pool get and return them.

    Attributes:
        train, test: the training and the test part of each experience, in the given order of the tasks.
        classes: the labels of each experience.
        names: the names of all classes.
        spec: how the stream was made.
        source: number of samples in the data set's training part; what transforms add to the arrays comes after these.
        query: what was set aside of each experience.
        roles: what choices are to resemble and to avoid.
        load: loads images of another data set, uint8 (n, c, h, w) with h, w and c of the stream's, by its name and the
            key that names it.
        groups: number of different images so far.
        width: number of labels of the clean stream.
    """

    train: tuple[Part, ...]
    test: tuple[Part, ...]
    classes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    spec: StreamSpec
    source: int
    query: tuple[Part, ...] = ()
    roles: Roles = Roles()
    load: Callable[[str, str], np.ndarray] | None = None
    groups: int = 0
    width: int = 0

    @staticmethod
    def begun(
        train: Sequence[Part],
        test: Sequence[Part],
        classes: Sequence[tuple[int, ...]],
        names: Sequence[str],
        spec: StreamSpec,
        load: Callable[[str, str], np.ndarray] | None = None,
    ) -> Parts:
        """Begin with a clean stream: every sample is an original of the data set, labelled right."""
        found, first = [], 0
        for part in train:
            found.append(replace(part, natures=Natures.plain(part.y, part.rows, first)))
            first += len(part.rows)
        empty = tuple(part.of(np.empty(0, dtype=np.int64)) for part in found)
        named: dict[str, Any] = {"load": load, "groups": first, "width": len(names)}
        return Parts(tuple(found), tuple(test), tuple(classes), tuple(names), spec, len(train[0].x), empty, **named)

    def __len__(self) -> int:
        return len(self.train)

    @property
    def labels(self) -> list[int]:
        """The labels that occur among the training samples and count, in their order."""
        return sorted({label for part in self.train for label in np.unique(part.y[~part.known.outsider]).tolist()})

    def with_train(self, train: Sequence[Part]) -> Parts:
        """Return the same stream with other training parts."""
        return replace(self, train=tuple(train))

    def keys(self, rng: torch.Generator) -> list[np.ndarray]:
        """Draw a number from 0 to 1 for each training sample of each experience, float32 (n,).

        An image of the data set has the same number in the same experience, whatever other transforms made of the
        pool; what they added draws after these. So the last draws of a transform depend on the others: what it draws
        in a fixed number comes first.
        """
        return self.several_keys(rng, 1)[0]

    def several_keys(self, rng: torch.Generator, count: int) -> list[list[np.ndarray]]:
        """Draw ``count`` times as :meth:`keys` does, all numbers of images of the data set first."""
        drawn = torch.rand(count, len(self), self.source, generator=rng).numpy()
        found = []
        for each in drawn:
            keys = []
            for part, own in zip(self.train, each, strict=True):
                added = (part.rows >= self.source) | (part.known.copy > 0)
                numbers = own[np.where(part.rows < self.source, part.rows, 0)]
                numbers[added] = torch.rand(int(added.sum()), generator=rng).numpy()
                keys.append(numbers)
            found.append(keys)
        return found

    def in_drawn_order(self, rng: torch.Generator) -> list[int]:
        """Return the labels that count in an order that is drawn, the same whatever other transforms did to classes."""
        keys = torch.rand(self.width, generator=rng).tolist()
        return sorted(self.labels, key=keys.__getitem__)

    def extended(self, images: np.ndarray) -> tuple[Parts, int]:
        """Append samples to the array that all training parts share; return the stream, and the first new row."""
        x = np.concatenate([self.train[0].x, images])
        train, query = (tuple(replace(part, x=x) for part in side) for side in (self.train, self.query))
        return replace(self, train=train, query=query), len(x) - len(images)


def grown(part: Part, rows: np.ndarray, y: np.ndarray, natures: Natures) -> Part:
    """Append samples to a part.

    Args:
        rows: int64 (m,), positions of the samples in the array of the part.
        y, natures: their labels and what they are.
    """
    own = part.known
    return replace(
        part,
        rows=np.concatenate([part.rows, rows]),
        y=np.concatenate([part.y, y.astype(part.y.dtype)]),
        natures=together([own, natures]),
    )


def numbered(sides: Sequence[Sequence[Part]], seed: int) -> list[list[Part]]:
    """Give each sample of a stream a number of its own that tells nothing of it: a permutation drawn from the seed."""
    sizes = [len(part.rows) for side in sides for part in side]
    drawn = torch.randperm(sum(sizes), generator=generator(seed, "pool numbers")).numpy()
    numbers = iter(np.split(drawn, np.cumsum(sizes)[:-1]))
    return [[replace(part, numbers=next(numbers)) for part in side] for side in sides]
