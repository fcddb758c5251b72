"""Exemplars: columns of equal length. A memory, a pool, an experience and a batch are all exemplars."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from clsim import notebook


@dataclass(frozen=True)
class Exemplars:
    """Samples as tensors on one device, one row each.

    Attributes:
        x: uint8 images (n, c, h, w), or float32 vectors (n, d) for streams of embeddings.
        y: int64 (n,), the label; −1 = unlabelled.
        task: int64 (n,), the experience that the sample belongs to.
        key: float32 (n,), U(0, 1), drawn when the sample is first seen. Keeping the largest keys of everything seen
            so far *is* a reservoir (Efraimidis & Spirakis, 2006, with equal weights).
        index: int64 (n,), the number of the sample in its stream, by which an exemplar can be traced and columns be
            keyed: its row in the data set's training part; with a realistic pool, where the row would show copies and
            outsiders, an opaque number that no other sample of the stream has.
        weight: float32 (n,), the sample's weight in the loss; None: all weigh the same.
        soft: float32 (n, k), soft labels or logits, with a row of NaN for a sample without any; None: no sample has
            any.
        score: float32 (n,), the score that a selector gave an exemplar when it kept it, NaN for a new sample; None: no
            sample has one.
        mass: float32 (n,), how many samples of the stream the sample stands for, by the selector that kept it; 1 for a
            new sample; None: each stands for itself alone.
    """

    x: Shaped[Tensor, "n ..."]
    y: Int[Tensor, " n"]
    task: Int[Tensor, " n"]
    key: Float[Tensor, " n"]
    index: Int[Tensor, " n"]
    weight: Float[Tensor, " n"] | None = None
    soft: Float[Tensor, "n k"] | None = None
    score: Float[Tensor, " n"] | None = None
    mass: Float[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def __repr__(self) -> str:
        return f"<Exemplars: {self.words} on {self.device}>"

    def _repr_html_(self) -> str:
        columns = {name: f"{str(c.dtype)[6:]} {tuple(c.shape)}" for name, c in self.columns().items()}
        return notebook.facts(f"Exemplars: {self.words} on {self.device}", columns)

    @property
    def words(self) -> str:
        """How many samples there are, of which shape, with how many labels, for people; waits for the device."""
        known = self.y[self.y >= 0]
        shape = " × ".join(map(str, self.x.shape[1:]))
        return f"{len(self)} samples of {shape}, {len(known)} labelled, {len(known.unique())} classes"

    def __getitem__(self, rows: Tensor | slice) -> Exemplars:
        """Take these rows: a slice shares memory, a tensor (int64, or a bool mask) copies."""
        columns = tuple(getattr(self, name) for name in COLUMNS)
        if isinstance(rows, slice) or rows.dtype == torch.bool:
            return Exemplars(*(None if column is None else column[rows] for column in columns))  # type: ignore[arg-type]
        return Exemplars(*(None if column is None else column.index_select(0, rows) for column in columns))  # type: ignore[arg-type]

    def overwrite(self, rows: Int[Tensor, " m"], other: Exemplars) -> None:
        """Put ``other`` into these rows, in place."""
        self.x[rows] = other.x
        self.y[rows] = other.y
        self.task[rows] = other.task
        self.key[rows] = other.key
        self.index[rows] = other.index
        if self.weight is not None:
            self.weight[rows] = 1.0 if other.weight is None else other.weight
        if self.soft is not None:  # soft labels of the samples before do not stay
            self.soft[rows] = torch.nan if other.soft is None else other.soft
        if self.score is not None:
            self.score[rows] = torch.nan if other.score is None else other.score
        if self.mass is not None:
            self.mass[rows] = 1.0 if other.mass is None else other.mass

    def with_soft(self, width: int) -> Exemplars:
        """Return the same samples with a column of soft labels: their own, or NaN (n, width) where they have none."""
        if self.soft is not None:
            return self
        return dataclasses.replace(self, soft=self.key.new_full((len(self), width), torch.nan))

    def columns(self) -> dict[str, Tensor]:
        """Return the columns that are not None, by name."""
        named = {name: getattr(self, name) for name in COLUMNS}
        return {name: column for name, column in named.items() if column is not None}

    def with_notes(
        self,
        rows: Int[Tensor, " m"],
        weight: Shaped[Tensor, " m"] | None,
        score: Shaped[Tensor, " m"] | None,
        mass: Float[Tensor, " m"] | None,
    ) -> Exemplars:
        """Return the same samples with a selection's notes at ``rows``, (m,) each, and no earlier notes.

        The other rows have weight 1, no score and mass 1.
        """
        n = len(self)
        return dataclasses.replace(
            self,
            weight=_placed(n, rows, weight, 1.0),
            score=_placed(n, rows, score, torch.nan),
            mass=_placed(n, rows, mass, 1.0),
        )

    @property
    def device(self) -> torch.device:
        """The device of the columns."""
        return self.x.device

    @property
    def nbytes(self) -> int:
        """Bytes of the samples themselves (images or vectors, and soft labels)."""
        return self.x.nbytes + (0 if self.soft is None else self.soft.nbytes)


COLUMNS = tuple(f.name for f in dataclasses.fields(Exemplars))
"""Names of the columns of exemplars, in order."""


def _placed(n: int, rows: Tensor, values: Tensor | None, other: float) -> Tensor | None:
    if values is None:
        return None
    return torch.full((n,), other, device=rows.device).index_copy_(0, rows, values.to(rows.device, torch.float32))


def concatenate(parts: Sequence[Exemplars]) -> Exemplars:
    """Concatenate exemplars. Parts without soft labels, scores or masses get NaN or 1 where another part has them."""
    widths = [p.soft.shape[1] for p in parts if p.soft is not None]
    x, y, task, key, index = (
        torch.cat([getattr(p, name) for p in parts]) for name in ("x", "y", "task", "key", "index")
    )
    soft = [p.with_soft(widths[0]).soft for p in parts] if widths else []
    joint_soft = torch.cat(soft) if soft else None  # type: ignore[arg-type]
    score, mass = _joint(parts, "score", torch.nan), _joint(parts, "mass", 1.0)
    return Exemplars(x, y, task, key, index, joint_weight(parts), joint_soft, score, mass)


def joint_weight(parts: Sequence[Exemplars]) -> Float[Tensor, " n"] | None:
    """Concatenate the weights of all parts, 1 where a part has none; None if no part has any."""
    return _joint(parts, "weight", 1.0)


def joined(columns: Sequence[Tensor | None], lengths: Sequence[int], missing: float) -> Shaped[Tensor, " n"] | None:
    """Join columns, one after the other, with ``missing`` where there is none; None if there is none at all."""
    device = next((column.device for column in columns if column is not None), None)
    if device is None:
        return None
    filled = [
        torch.full((n,), missing, device=device) if column is None else column
        for column, n in zip(columns, lengths, strict=True)
    ]
    return torch.cat(filled)


def _joint(parts: Sequence[Exemplars], name: str, missing: float) -> Tensor | None:
    return joined([getattr(part, name) for part in parts], [len(part) for part in parts], missing)


def groups(samples: Exemplars) -> list[Tensor]:
    """Find the labelled rows of each class, by task and label: a label that occurs in two tasks is two classes."""
    known = (samples.y >= 0).nonzero().flatten()
    if not len(known):
        return []
    pairs = torch.stack([samples.task[known], samples.y[known]], 1)
    member = pairs.unique(dim=0, return_inverse=True)[1]
    return list(known[member.argsort(stable=True)].split(member.bincount().tolist()))


def of_each_class(
    values: Shaped[Tensor, " m"], y: Int[Tensor, " m"], total: Float[Tensor, " n"], of: Int[Tensor, " n"]
) -> Float[Tensor, " m"]:
    """Scale values so that those of each class sum to its total.

    Args:
        values: (m,), from 0; where all values of a class are 0, they become equal.
        y: int64 (m,), the class of each value.
        total: (n,), numbers whose sum over a class is its total.
        of: int64 (n,), the class of each number of ``total``; each class of ``y`` occurs.

    Returns:
        float32 (m,).

    >>> of = torch.tensor([0, 0, 1, 1, 1])
    >>> of_each_class(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([0, 0, 1]), torch.ones(5), of)
    tensor([0.5000, 1.5000, 3.0000])
    """
    labels, member = torch.cat([y, of]).unique(return_inverse=True)
    own, every = member[: len(y)], member[len(y) :]
    values = values.double()

    def summed(rows: Tensor, part: Tensor) -> Tensor:
        return part.new_zeros(len(labels)).index_add_(0, rows, part)

    found, count, wanted = summed(own, values), summed(own, torch.ones_like(values)), summed(every, total.double())
    exact = values * wanted[own] / found[own].where(found[own] > 0, 1)
    return torch.where(found[own] > 0, exact, wanted[own] / count[own]).float()


LastBatch = Literal["short", "drop", "pad"]
"""What becomes of the samples of an epoch that fill no whole batch; see :func:`batches`."""


def batches(
    samples: Exemplars, size: int, rng: torch.Generator, last_batch: LastBatch = "short"
) -> Iterator[Exemplars]:
    """Yield the batches of one epoch, in an order drawn from ``rng`` (on the CPU).

    Args:
        samples: the samples of the epoch, at least one.
        size: number of samples in each batch.
        last_batch: ``short``: the samples left over are a smaller batch, but a single one joins the batch before it,
            since batch norm needs two. ``drop``: they are left out of this epoch. ``pad``: samples from the beginning
            of the epoch fill their batch, with weight 0; every batch has weights then. Under ``drop`` and ``pad`` all
            batches have ``size`` samples; of fewer samples than that, ``drop`` makes one smaller batch.
    """
    n = len(samples)
    order = torch.randperm(n, generator=rng).to(samples.device)
    count = batch_count(n, size, last_batch)
    if last_batch == "pad":
        padded = samples[order[torch.arange(count * size, device=samples.device) % n]]
        weight = padded.key.new_ones(len(padded)) if padded.weight is None else padded.weight.clone()
        weight[n:] = 0
        shuffled = dataclasses.replace(padded, weight=weight)
    else:
        shuffled = samples[order if last_batch == "short" else order[: count * size]]
    for i in range(count - 1):
        yield shuffled[i * size : (i + 1) * size]
    yield shuffled[(count - 1) * size :]


def batch_count(n: int, size: int, last_batch: LastBatch = "short") -> int:
    """Count the batches that :func:`batches` makes of n samples.

    >>> batch_count(30, 10), batch_count(31, 10), batch_count(32, 10), batch_count(1, 10)
    (3, 3, 4, 1)
    >>> [(batch_count(n, 10, "drop"), batch_count(n, 10, "pad")) for n in (30, 31, 1)]
    [(3, 3), (3, 4), (1, 1)]
    """
    whole, rest = divmod(n, size)
    further = {"short": rest > (whole > 0 and size > 1), "drop": False, "pad": rest > 0}[last_batch]
    return max(whole + further, 1)


_APART = 1 << 40
"""More than the number of samples of an experience: an index may come back in another experience."""


class Columns:
    """Columns of values, each with a name, that are looked up for any samples. Final."""

    def __init__(self) -> None:
        self._columns: dict[str, tuple[Tensor, Tensor]] = {}  # name -> sorted places, and the value of each
        self._tables: dict[str, tuple[int, Tensor]] = {}  # name -> a place, and the values from there on

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def put(self, name: str, samples: Exemplars, values: Float[Tensor, " n"]) -> None:
        """Keep a value of each of these samples, in place of an earlier one of the same sample."""
        places = places_of(samples)
        if name in self._columns:
            old, kept = self._columns[name]
            others = ~torch.isin(old, places)
            places, values = torch.cat([old[others], places]), torch.cat([kept[others], values])
        places, order = places.sort()
        self._columns[name] = places, values[order]
        self._tables.pop(name, None)

    def of(self, name: str, samples: Exemplars) -> Float[Tensor, " n"]:
        """Look up the values of samples, float32 (n,); NaN where a sample has none."""
        places, values = self._columns[name]
        wanted = places_of(samples)
        if not len(places):
            return torch.full_like(samples.key, torch.nan)
        if name not in self._tables:
            self._tables[name] = _table(places, values)
        first, table = self._tables[name]
        if len(table):
            return table.index_select(0, wanted.sub_(first).clamp_(0, len(table) - 1))
        at = torch.searchsorted(places, wanted).clamp_max_(len(places) - 1)
        missing = places.index_select(0, at) != wanted
        return values.index_select(0, at).masked_fill_(missing, torch.nan)

    def state_dict(self, kept: Exemplars | None) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what there is of these samples, which is all that the next experience needs; None: of none."""
        found = {}
        for name, (places, values) in self._columns.items():
            among = torch.isin(places, places[:0] if kept is None else places_of(kept))
            found[name] = places[among], values[among]
        return found

    def load_state_dict(self, state: dict[str, tuple[Tensor, Tensor]], device: torch.device) -> None:
        """Take over what :meth:`state_dict` returned."""
        self._columns = {name: (places.to(device), values.to(device)) for name, (places, values) in state.items()}
        self._tables = {}


def _table(places: Tensor, values: Tensor) -> tuple[int, Tensor]:
    """Lay out the values of sorted places one beside the other, where few are missing; waits for the device.

    Returns:
        The place of the first row, and a row for each place from there on: NaN where there is none, at both ends too.
        Where places lie far apart, as those of several tasks do, there are no rows.
    """
    first, last = int(places[0]) - 1, int(places[-1]) + 1
    if last - first > 4 * len(places) + 1000:
        return first, values[:0]
    return first, values.new_full((last - first + 1,), torch.nan).index_copy_(0, places - first, values)


def places_of(samples: Exemplars) -> Tensor:
    """Return a whole number for each sample, int64 (n,), which no other sample of the stream has."""
    return torch.add(samples.index, samples.task, alpha=_APART)
