"""Streams: experiences in order, as tensors.

The samples of an experience are gathered from the cached arrays by index, one experience at a time, and never pass
through a data loader. :mod:`clsim.streams.build` makes streams of data sets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from clsim.data.cache import Dataset
from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.randomness import generator
from clsim.spec.labelling import LabelsSpec
from clsim.spec.tables import StreamSpec
from clsim.streams.labels import stratified
from clsim.streams.oracle import Oracle
from clsim.streams.part import Part, Roles


@dataclass(frozen=True)
class Experience:
    """One step of the stream.

    Attributes:
        position: its position in the stream, from 0; also the task id of its samples.
        classes: the labels that occur in it.
        train: the samples to learn from; on a partly labelled stream, the labelled part.
        validation: the samples held out from training; None without a validation share.
        unlabelled: the unlabelled part, y = −1; None where all samples are labelled.
        again: whether the learner goes on from an earlier round of labels on the same experience: its weights are not
            those that the experience before left.
        extent: the numbers of labelled and of unlabelled samples when all labels are there, where some come during
            training; None: those of its parts.
    """

    position: int
    classes: tuple[int, ...]
    train: Exemplars
    validation: Exemplars | None = None
    unlabelled: Exemplars | None = None
    again: bool = False
    extent: tuple[int, int] | None = None


class Stream:
    """Experiences in order, each gathered when needed. Final.

    Args:
        train: the training part of each experience.
        test: the test part of each experience.
        classes: the labels of each experience.
        names: the names of all classes; their number is the width of the head.
        masked: whether a task sees its own classes alone (task-incremental).
        mean, std: mean and standard deviation of the training data, per channel or dimension.
        spec: presentation, validation share, and length: experiences beyond it are left out.
        seed: the seed of the keys and of the validation split.
        device: the device of the samples.
        labelled: bool, the rows of each training part whose labels are known; None: all. Only :meth:`truth` reads the
            labels of the others.
        labels: which of the other rows form the unlabelled part.
        given: the position of each experience before the tasks were ordered; its keys and its held-out share stay with
            it.
        foreign: samples of no class, in the unlabelled part of each experience; None: there are none.
        source: the data set whose rows the training parts have; None: there is none.
        oracle: tells labels that are asked for, in place of ``labelled``; None: nobody asks.
        split: the seed of the held-out share; None: ``seed``.
        query: samples of each experience that were set aside for choices of labels; None: the pool is a clean one.
        roles: what choices of labels in a realistic pool are to resemble and to avoid; None: nothing is said.

    Attributes:
        tasks: number of experiences, those that are left out included.

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
        labelled: Sequence[np.ndarray] | None = None,
        labels: LabelsSpec | None = None,
        given: Sequence[int] | None = None,
        foreign: Sequence[Part] | None = None,
        source: Dataset | None = None,
        oracle: Oracle | None = None,
        split: int | None = None,
        query: Sequence[Part] | None = None,
        roles: Roles | None = None,
    ) -> None:
        self.tasks, every, there = len(classes), classes, slice(spec.length or None)
        train, test, classes = train[there], test[there], classes[there]
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
        self.source = source
        self.visible = torch.ones(len(every), len(names), dtype=torch.bool)
        if masked:
            for task, own in enumerate(every):
                self.visible[task] = torch.tensor([label in own for label in range(len(names))])
        self._train, self._masked = train, masked
        self._test: Sequence[Part] | None = test
        self._spec, self._seed, self._split = spec, seed, split
        self._labelled = None if labelled is None else labelled[there]
        self._labels = labels or LabelsSpec()
        self._oracle = oracle
        self._foreign = None if foreign is None else foreign[there]
        self._query, self.roles = None if query is None else query[there], roles or Roles()
        self._given = range(len(train)) if given is None else given[there]

    def __len__(self) -> int:
        return len(self._train)

    def tested_on_held_out(self) -> Stream:
        """Return the same stream without its test samples: those that are held out of each experience are the tests.

        Raises:
            InputError: if nothing is held out of an experience.
        """
        for position, size in enumerate(self.held_out_sizes):
            if not size:
                raise InputError(
                    f"evaluation.on: found 'validation', and nothing is held out of experience {position + 1}, "
                    "allowed: a stream.validation that holds out one sample of each or more"
                )
        found = copy.copy(self)
        found._test = None
        return found

    @property
    def schedule(self) -> range:
        """Positions to train on: all, or only the last when everything is presented at once."""
        return range(len(self) - 1, len(self)) if self._spec.presentation == "joint" else range(len(self))

    def experience(self, position: int) -> Experience:
        """Gather the experience at ``position``, with all earlier ones if the stream is presented cumulatively."""
        pieces = [self._piece(i) for i in self._included(position)]
        held_out = [v for _, v in pieces if v is not None]
        unlabelled = self._hidden(position)
        return Experience(
            position,
            tuple(sorted({label for i in self._included(position) for label in self._known_classes(i)})),
            concatenate([t for t, _ in pieces]),
            concatenate(held_out) if held_out else None,
            None if unlabelled is None else replace(unlabelled, y=torch.full_like(unlabelled.y, -1)),
        )

    def images(self, position: int) -> Tensor:
        """Gather the training samples of an experience, labelled or not, without those that are held out.

        They stand in the order of their numbers, as in the data set, so that no label shows in it.
        """
        found = []
        for i in self._included(position):
            held_out, keys = self._drawn(i)
            rows = np.flatnonzero(~held_out)
            rows = rows[self._train[i].index[rows].argsort(kind="stable")]
            found.append(self._train[i].of(rows).gather(i, self.device, keys[rows]).x)
        return torch.cat(found)

    @property
    def asks(self) -> bool:
        """Whether labels are asked for."""
        return self._oracle is not None

    @property
    def oracle(self) -> Oracle:
        """The oracle of a stream whose labels are asked for.

        Raises:
            InputError: if nobody asks.
        """
        if self._oracle is None:
            raise InputError("labelling: found a stream whose labels are known, allowed: one with an oracle")
        return self._oracle

    def candidates(self, position: int) -> tuple[Exemplars, np.ndarray]:
        """Return the samples of an experience whose labels can be asked for, y = −1, and their places among all.

        They stand in an order drawn from the run's seed, since a data set may be sorted by class.
        """
        held_out, keys = self._drawn(position)
        rows = np.flatnonzero(~held_out & ~self.oracle.revealed(position))
        rows = rows[keys[rows].argsort(stable=True).numpy()]
        found = self._train[position].of(rows).gather(position, self.device, keys[rows])
        return replace(found, y=torch.full_like(found.y, -1)), rows

    def guessed(self, position: int, places: Sequence[int], labels: Sequence[int]) -> Exemplars:
        """Return samples of an experience whose label nobody has told, labelled as somebody guessed.

        Args:
            position: the position of the experience.
            places: different places of samples whose labels can be asked for.
            labels: their labels, each of a class that is known in the experience.

        Raises:
            InputError: if there is no such sample, or no such label.
        """
        samples, free = self.candidates(position)
        wanted, y = np.asarray(places, dtype=np.int64), np.asarray(labels, dtype=np.int64)
        order = free.argsort()
        at = np.searchsorted(free, wanted, sorter=order)
        known = np.isin(wanted, free) & np.isin(y, list(self._known_classes(position)))
        if len(np.unique(wanted)) < len(wanted) or not known.all():
            raise InputError(
                f"labelling: found a pseudo-label in experience {position + 1} for a sample that is labelled or not "
                "there, or of a class that is not known there; allowed: candidates, each once, and known classes"
            )
        found = samples[torch.from_numpy(order[at]).to(samples.device)]
        return replace(found, y=torch.from_numpy(y).to(samples.device))

    def told(self, position: int, places: Sequence[int]) -> dict[str, list[int]]:
        """Return the rows in the data set, and the labels told, of samples at some places of an experience.

        A moved copy has the row of its original; what is not of the data set has row −1, and an outsider label −1.
        """
        chosen = np.asarray(places, dtype=np.int64)
        rows, labels = self._train[position].origin[chosen], self.oracle.labels(position)[chosen]
        return {"rows": rows.tolist(), "labels": labels.tolist()}

    def rows(self, position: int, places: Sequence[int]) -> Tensor:
        """Return the rows of the labelled part of an experience, int64, at which samples at some of its places are."""
        known = self.oracle.labels(position) >= 0  # an outsider that was asked for is not among them
        known[self._drawn(position)[0]] = False
        wanted = np.asarray(places, dtype=np.int64)
        return torch.from_numpy(known.cumsum()[wanted[known[wanted]]] - 1).to(self.device)

    def query(self, position: int) -> Exemplars | None:
        """Return what a choice of labels in an experience is to resemble; None: nothing is said, see :class:`Roles`."""
        found = [self._asked(position, self.roles.rare)] if self.roles.query == "rare" else []
        if self.roles.query == "rare" and self._query is not None:
            part = self._query[position]
            found.insert(0, part.gather(position, self.device, torch.zeros(len(part.rows))))
        elif self.roles.query == "insiders":
            labelled = self._piece(position)[0]
            found.append(labelled[labelled.y != self.roles.own])
        found = [part for part in found if len(part)]
        return concatenate(found) if found else None

    def private(self, position: int) -> Exemplars | None:
        """Return what a choice of labels in an experience is to avoid, if it is outsiders; None: there are none."""
        if self.roles.private != "outsiders":
            return None
        found = self._asked(position, [self.roles.own])
        if not len(found):
            return self.query(position) if self.roles.until == "query" else None
        return found

    def roles_at(self, position: int, labelled: Exemplars) -> dict[str, Exemplars | None]:
        """Return the roles ``query`` and ``private`` of the pool of a choice of labels in an experience.

        Args:
            position: the position of the experience.
            labelled: what is labelled in the experience and in memory.
        """
        private = labelled if self.roles.private == "labelled" and len(labelled) else self.private(position)
        return {"query": self.query(position), "private": private}

    def asked_outsiders(self, position: int) -> bool:
        """Whether something of an experience turned out to be of no class, so that nobody trains on it."""
        oracle = self.oracle
        return bool((oracle.labels(position)[oracle.revealed(position)] < 0).any())

    def _asked(self, position: int, labels: Sequence[int]) -> Exemplars:
        """Gather what a selector asked for in an experience and was told to have one of these labels."""
        oracle, keys = self.oracle, self._drawn(position)[1]
        rows = [question.rows for question in oracle.asked if question.position == position and question.round]
        places = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *rows]))
        told = replace(self._train[position], y=oracle.labels(position))
        places = places[np.isin(told.y[places], labels)]
        return told.of(places).gather(position, self.device, keys[places])

    def rows_of(self, numbers: Tensor) -> Tensor:
        """Return the rows in the data set of samples by their numbers, int64 (n,).

        Raises:
            InputError: if a sample is not an image of the data set as it is there.
        """
        if self._query is None:
            return numbers
        return self._row_of[numbers]

    @cached_property
    def _row_of(self) -> Tensor:
        """Map the number of each sample to its row."""
        parts = [*self._train, *(self._query or ())]
        size = len(parts[0].x) if self.source is None else len(self.source.train_y)
        total = 1 + max(int(part.index.max(initial=-1)) for part in (*parts, *(self._foreign or ())))
        found = np.full(total, -1)
        for part in parts:
            found[part.index] = part.rows
        if (found >= size).any():
            raise InputError(
                "embedding.name: found a file, whose rows are those of the data set's own images, with a pool that "
                "holds others; allowed: exact copies, outsiders that are classes of the stream, or an embedding that "
                "is learnt"
            )
        return torch.from_numpy(found).to(self.device)

    @property
    def parts(self) -> Sequence[Part] | None:
        """The training parts of a realistic pool, with the natures of their samples: for reports; None: a clean one."""
        return None if self._query is None else self._train

    @property
    def aside(self) -> Sequence[Part]:
        """The samples that were set aside of each experience."""
        return self._query or ()

    @property
    def train_sizes(self) -> list[int]:
        """The number of training samples of each experience, those that are held out included."""
        return [len(part.rows) for part in self._train]

    @property
    def held_out_sizes(self) -> list[int]:
        """The number of samples that are held out of each experience, whose labels are known too."""
        return [int(self._drawn(i)[0].sum()) for i in range(len(self))] if self._spec.validation else [0] * len(self)

    def truth(self, position: int) -> Tensor:
        """Return the hidden labels of an experience's unlabelled part, int64: for metrics, never for learning.

        They stand in its order; a sample of no class of the stream has −1. The result is empty where all samples are
        labelled.
        """
        hidden = self._hidden(position)
        return torch.empty(0, dtype=torch.int64, device=self.device) if hidden is None else hidden.y

    @cached_property
    def tests(self) -> Exemplars:
        """The test samples of all experiences, one experience after the other."""
        if self._test is None:
            return concatenate([held for i in range(len(self)) if (held := self._piece(i)[1]) is not None])
        parts = enumerate(self._test)
        return concatenate([p.gather(i, self.device, torch.zeros(len(p.rows))) for i, p in parts])

    @property
    def test_sizes(self) -> list[int]:
        """The number of test samples of each experience."""
        return self.held_out_sizes if self._test is None else [len(part.rows) for part in self._test]

    def content(self) -> Iterator[bytes]:
        """Yield the bytes of every sample and label, for a digest."""
        for part in (*self._train, *(self._test or ())):
            yield np.ascontiguousarray(part.x[part.rows]).tobytes()
            yield part.y.tobytes()

    def homes(self) -> dict[int, tuple[int, int]]:
        """Find where each class first occurs: its label in the data set → position, and label in the stream."""
        found: dict[int, tuple[int, int]] = {}
        if self.source is None:
            return found
        for position, part in enumerate(self._train):
            counts = part.known.outsider | (part.origin < 0)
            part = part.of(~counts)
            known = np.asarray(self.source.train_y)[part.origin]
            for label in np.unique(known).tolist():
                found.setdefault(label, (position, int(part.known.truth[known == label][0])))
        return found

    def shares(self, position: int, per: str, known: Iterable[int] = ()) -> int:
        """Count the shares of a memory after ``position``: the classes seen so far, or (``task``) the tasks.

        Args:
            position: the last experience that counts.
            per: what the shares are for: ``task``, or else classes.
            known: labels (or tasks) that count as seen from the beginning.
        """
        seen = range(position + 1) if per == "task" else self.labels_seen(position)
        return len({*seen, *known})

    def classes_seen(self, position: int) -> int:
        """Count the different labels up to and including ``position``."""
        return len(self.labels_seen(position))

    def labels_seen(self, position: int) -> set[int]:
        """Collect the labels that occur up to and including ``position``: the classes known then.

        Where labels are asked for, these are the labels revealed so far; the classes of a task are known with the task.
        """
        return {label for i in range(position + 1) for label in self._known_classes(i)}

    def _known_classes(self, position: int) -> Iterable[int]:
        return self.classes[position] if self._oracle is None or self._masked else self._oracle.classes(position)

    def _known(self, position: int) -> np.ndarray | None:
        """Return which training samples of an experience are labelled, bool (n,); None: all."""
        if self._oracle is not None:
            return self._oracle.revealed(position)
        return None if self._labelled is None else self._labelled[position]

    def _piece(self, position: int) -> tuple[Exemplars, Exemplars | None]:
        """Gather the training (labelled) and validation part of one experience; the same each time."""
        part, (held_out, keys) = self._train[position], self._drawn(position)
        known = self._known(position)
        if known is None and not self._spec.validation and self._query is None:
            return part.gather(position, self.device, keys), None
        told = part if self._oracle is None else replace(part, y=self._oracle.labels(position))
        train = ~held_out if known is None else known & ~held_out
        train &= told.y >= 0  # outsiders are dropped from training
        learnt = told.of(train).gather(position, self.device, keys[train])
        if not self._spec.validation:
            return learnt, None
        if self.roles.clean:
            part = replace(part, y=np.where(part.known.outsider, part.y, part.known.truth))
        return learnt, part.of(held_out).gather(position, self.device, keys[held_out])

    def _hidden(self, position: int) -> Exemplars | None:
        """Gather the unlabelled part of an experience with its true labels; None where all samples are labelled."""
        if self._known(position) is None:
            return None
        pieces = []
        for i in self._included(position):
            for j in range(len(self)) if self._labels.unlabelled == "stream" else [i]:
                held_out, keys = self._drawn(j)
                known = self._known(j)
                free = ~held_out & (self._labels.include_labelled | ~known)  # type: ignore[operator]
                if self._oracle is not None:  # what turned out to be an outsider is no unlabelled sample any more
                    free &= ~(known & (self._oracle.labels(j) < 0))  # type: ignore[operator]
                # what is told in a round must not deal the others anew
                open_ = np.flatnonzero(free if self._oracle is None else ~held_out)
                if self._labels.unlabelled == "stream":  # every experience has its share of every class
                    order = torch.randperm(
                        len(open_), generator=generator(self._seed, f"shares {self._given[j]}")
                    ).numpy()
                    open_ = np.sort(open_[order[i :: len(self)]])
                open_ = open_[free[open_]]
                pieces.append(self._train[j].of(open_).gather(i, self.device, keys[open_]))
            if self._foreign is not None:
                pieces.append(self._outside(i, self._foreign[i]))
        found = concatenate(pieces)
        return found if len(found) else None

    def _outside(self, position: int, part: Part) -> Exemplars:
        """Gather foreign samples; in a clean pool, their index continues that of the data set."""
        rng = generator(self._seed, f"foreign {self._given[position]}")
        found = part.gather(position, self.device, torch.rand(len(part.rows), generator=rng))
        beyond = len(self._train[position].x) if part.numbers is None else 0
        return replace(found, index=found.index + beyond)

    def _drawn(self, position: int) -> tuple[np.ndarray, Tensor]:
        """Draw which samples of an experience are held out, and the keys of all."""
        y, name = self._train[position].y, f"experience {self._given[position]}"
        rng = generator(self._seed, name)
        held_out, keys = stratified(y, self._spec.validation, rng), torch.rand(len(y), generator=rng)
        if self._split is not None:
            held_out = stratified(y, self._spec.validation, generator(self._split, name))
        return held_out, keys

    def _included(self, position: int) -> range:
        """Return the positions of the experiences whose samples are presented at ``position``."""
        return range(position if self._spec.presentation == "separate" else 0, position + 1)
