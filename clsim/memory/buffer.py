"""The buffer: the exemplars that a learner keeps of the past."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim import notebook
from clsim.errors import InputError
from clsim.pool.contracts import Condenser, chosen, decoded, factor_of, from_samples, invalid, made
from clsim.pool.exemplars import Exemplars, concatenate, groups, of_each_class
from clsim.pool.pool import Cost, Pool, Selection, Selector
from clsim.selectors.combinators import quotas
from clsim.spec.tables import MemorySpec


@runtime_checkable
class MakePool(Protocol):
    """A function that puts samples under the learner's net; see :meth:`clsim.training.contract.Setup.pool`."""

    def __call__(
        self, samples: Exemplars, *, reference: Exemplars | None = None, incoming: Exemplars | None = None
    ) -> Pool:
        """Make a pool of ``samples``."""


class Drawn(NamedTuple):
    """A batch from memory.

    Attributes:
        exemplars: the exemplars to replay; None while the memory is empty.
        rows: int64 (m,), their rows in the memory, as :attr:`Buffer.stored` counts them.
    """

    exemplars: Exemplars | None
    rows: Int[Tensor, " m"]


class Buffer:
    """At most ``capacity`` exemplars: chosen by a selector out of memory ∪ new, or made by a condenser of new. Final.

    The store of exemplars is one batch larger than the memory; ``kept`` lists the rows in memory and ``free`` the
    others, which the next batch overwrites. So an update moves only the new batch, and no shape depends on the data:
    the program never waits for a GPU.

    Args:
        spec: capacity, batch size, and when to select.
        select: the selector, its options bound; None keeps nothing.
        condense: a condenser in place of the selector. It makes exemplars of those classes of an experience that the
            memory does not hold; classes in memory shrink with their shares, as ``memory.shrink`` says.
        retrieve: the selector of the exemplars to replay; None: at random.
        rng: draws the replayed batches, and is passed to the selector; on the CPU.
        cost: the counters to which the time of selection is added.
        tasks: number of tasks of the stream, which ``memory.reserve`` divides the capacity by.

    Attributes:
        factor: each stored image holds factor × factor small ones.
        begun: labels that the memory held before the first experience.
        known: what the memory grows with among the exemplars held then: labels, or tasks, or nothing.
    """

    def __init__(
        self,
        spec: MemorySpec,
        select: Selector | None,
        *,
        rng: torch.Generator,
        cost: Cost,
        retrieve: Selector | None = None,
        condense: Condenser | None = None,
        tasks: int = 1,
    ) -> None:
        if condense is not None and spec.update == "batch":
            raise InputError(f"memory.update: found 'batch' with the condenser {spec.buffer!r}, allowed: experience")
        self.spec = spec
        self.rng = rng
        self._select = select
        self._retrieve = retrieve
        self._condense = condense
        self.factor = 1 if condense is None else factor_of(condense)
        self._cost = cost
        self._tasks = tasks
        self._store: Exemplars | None = None
        self._used = 0  # rows of the store that hold a sample; those behind them are room to grow
        self._seen = 0  # training samples that an update has been offered
        self._kept = self._free = torch.empty(0, dtype=torch.int64)
        self._ahead: Iterator[Tensor] = iter(())
        self.known: frozenset[int] = frozenset()
        self.begun: frozenset[int] = frozenset()

    def begin(self, exemplars: Exemplars) -> None:
        """Hold these before the first experience.

        Raises:
            InputError: if they are more than the capacity for their number of classes (or tasks).
        """
        if self.spec.counted != "total":
            self.known = frozenset((exemplars.task if self.spec.counted == "task" else exemplars.y).tolist())
        self.begun = frozenset(exemplars.y.tolist())
        budget = self._budget(len(self.known))
        if len(exemplars) > budget:
            found = f"{len(exemplars)} exemplars with a memory of {self.spec.size}"
            raise InputError(f"memory.start: found {found}, allowed: {budget} at most")
        self._fill(_told_apart(exemplars))

    def __repr__(self) -> str:
        return f"<Buffer {self.spec.buffer}: {len(self)} exemplars, capacity {self.spec.size}>"

    def _repr_html_(self) -> str:
        held = None if self.stored is None else self.stored.words
        facts = {"buffer": self.spec.buffer, "capacity": self.spec.size, "holds": held or "nothing"}
        return notebook.facts("Buffer", facts | {"updated after each": self.spec.update})

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def stored(self) -> Exemplars | None:
        """The exemplars in memory, as they are kept; None while it is empty."""
        return None if self._store is None else self._store[self._kept]

    @property
    def exemplars(self) -> Exemplars | None:
        """The exemplars in memory, as a learner sees them: several images where a stored one holds several."""
        stored = self.stored
        return None if stored is None else decoded(stored, self.factor)

    def sample(self, new: Exemplars, make_pool: MakePool) -> Drawn:
        """Draw a batch to replay with ``new``, no exemplar twice, and its rows in the memory.

        The batch is uniformly at random, or the retrieval selector's choice out of ``memory.candidates`` random
        exemplars. Weights that this selector gives replace those in memory.
        """
        if self._store is None:
            return Drawn(None, self._kept)
        size, retrieve = self.spec.batch_size, self._retrieve
        parts = self.factor**2
        candidates = size if retrieve is None else self.spec.candidates or len(self) * parts
        drawn = next(self._ahead, None)
        if drawn is None:
            drawn = self._permuted(candidates).to(self._kept.device)
        rows = drawn if parts == 1 else drawn // parts
        exemplars = self._store[self._kept[rows]]
        if parts > 1:
            first = torch.arange(len(drawn), device=drawn.device) * parts
            exemplars = decoded(exemplars, self.factor)[first + drawn % parts]
        if retrieve is None:
            return Drawn(exemplars, rows)
        started = time.perf_counter()
        pool = make_pool(exemplars, incoming=new)
        name = f"memory.retrieval {self.spec.retrieval!r}"
        selection = chosen(retrieve, pool, size, self.rng, name, look=False)
        try:
            if selection.weight is not None:
                exemplars = self._noted(exemplars, selection.index, selection, pool)
            replayed = Drawn(exemplars[selection.index], rows[selection.index])
        except IndexError as error:
            raise invalid(name, str(error), len(pool), size) from None
        self._cost.select_seconds += time.perf_counter() - started
        return replayed

    def draw_ahead(self, steps: int) -> None:
        """Draw at once the rows for the next ``steps`` calls of :meth:`sample`, and move them to the device.

        They are the same draws, in the same order. Nothing is drawn ahead of a retrieval selector, and an update of the
        memory discards the draws that are left.
        """
        if self._store is not None and self._retrieve is None and steps:
            drawn = torch.stack([self._permuted(self.spec.batch_size) for _ in range(steps)])
            self._ahead = iter(drawn.to(self._kept.device))

    def _permuted(self, most: int) -> Int[Tensor, " m"]:
        """Draw different small images of the memory at random: int64 (m,), m = min(most, number of small images)."""
        return torch.randperm(len(self) * self.factor**2, generator=self.rng)[:most]

    def revise(self, rows: Int[Tensor, " m"], *, soft: Float[Tensor, "_ k"]) -> None:
        """Overwrite the soft labels of exemplars in place; the exemplars and their order stay the same.

        Args:
            rows: int64 (m,), different rows of the memory, as :meth:`sample` returns them; they are valid until the
                next update of the memory.
            soft: (m, k), the new soft labels or logits of these rows. The other exemplars keep theirs, or have none.

        Raises:
            InputError: if the soft labels are not one row per exemplar, or differ in width from those in memory; or if
                each image holds several small ones, whose labels one row cannot hold.
        """
        if self._store is None or self.factor > 1:
            found = "an empty memory" if self._store is None else f"a memory of images that hold {self.factor**2} each"
            raise InputError(f"memory.revise: found {found}, allowed: exemplars, an image each")
        store = self._store.with_soft(soft.shape[-1])
        width = (len(rows), store.soft.shape[1])  # type: ignore[union-attr]
        if soft.shape != width:
            raise InputError(f"memory.revise: found soft labels of shape {tuple(soft.shape)}, allowed: {width}")
        store.soft.index_copy_(0, self._kept[rows], soft.to(store.soft))  # type: ignore[union-attr]
        self._store = store

    def after_batch(self, new: Exemplars, shares: int, make_pool: MakePool) -> None:
        """Select out of memory ∪ the batch, if the memory is updated with every batch.

        Args:
            new: the batch.
            shares: number of classes or tasks seen, where the memory grows with those.
            make_pool: makes the selector's pool.
        """
        if self._select is not None and self.spec.update == "batch":
            self._update(new, shares, make_pool)

    def after_experience(
        self, new: Exemplars, shares: int, make_pool: MakePool, *, reference: Exemplars | None = None
    ) -> None:
        """Select out of memory ∪ the experience, if the memory is updated then; drop the rows that are not kept.

        Args:
            new: the samples of the experience.
            shares: number of classes or tasks seen, where the memory grows with those.
            make_pool: makes the selector's pool.
            reference: the experience's held-out share, for selectors that ask for one.
        """
        if self._condense is not None:
            self._make(new, shares, make_pool, reference)
        elif self._select is not None and self.spec.update == "experience":
            self._update(new, shares, make_pool, reference)
        if self._store is not None:
            self._fill(self._store[self._kept])

    def state_dict(self) -> dict[str, Any]:
        """Return the exemplars' columns and the number of samples seen; complete at the end of an experience."""
        stored = self.stored
        return {"columns": {} if stored is None else stored.columns(), "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        self._seen = state["seen"]
        if state["columns"]:
            columns = {name: column.to(device) for name, column in state["columns"].items()}
            if "weight" in columns:  # states older than masses hold weights alone
                columns.setdefault("mass", columns["weight"])
            self._fill(Exemplars(**columns))

    def _fill(self, exemplars: Exemplars) -> None:
        """Replace the memory by these exemplars."""
        self._ahead = iter(())
        self._store, self._used = exemplars, len(exemplars)
        self._kept = torch.arange(len(exemplars), device=exemplars.device)
        self._free = self._kept[:0]

    def _update(self, new: Exemplars, shares: int, make_pool: MakePool, reference: Exemplars | None = None) -> None:
        started = time.perf_counter()
        self._seen += len(new)
        budget = self._budget(shares)
        store, place = self._write(new, budget)
        used = store if len(store) == self._used else store[: self._used]
        # where every used row is a candidate, they are the pool, and nothing is copied
        rows = None if len(self._kept) + len(new) == self._used else torch.cat([self._kept.to(new.device), place])
        pool = make_pool(used if rows is None else used[rows], reference=reference)
        look = self.spec.update == "experience"
        selection = chosen(self._select, pool, budget, self.rng, self._name, look=look)  # type: ignore[arg-type]
        try:
            self._kept = selection.index if rows is None else rows[selection.index]
            is_free = torch.ones(self._used, dtype=torch.int8, device=store.device).index_fill_(0, self._kept, 0)
            self._store = self._noted(store, self._kept, selection, pool)
        except IndexError as error:
            raise invalid(self._name, str(error), len(pool), budget) from None
        self._free = is_free.topk(self._used - len(self._kept), sorted=False).indices
        self._cost.select_seconds += time.perf_counter() - started

    def _noted(self, samples: Exemplars, rows: Tensor, selection: Selection, pool: Pool) -> Exemplars:
        """Return the samples with the selection's notes on its picks, which are at ``rows``; see ``memory.weights``.

        The masses of the picks of a class sum to the mass of all its candidates, so that no class loses mass over time,
        whatever the scale of the selection's weights.
        """
        weight = mass = None
        if selection.weight is not None:
            y = pool.data.y
            of = y[selection.index]
            mass = of_each_class(selection.weight, of, pool.mass, y)
            if self.spec.weights == "class":
                weight = of_each_class(mass, of, torch.ones_like(mass), of)
            elif self.spec.weights == "all":
                weight = mass / mass.mean().clamp_min(torch.finfo(mass.dtype).tiny)
        return samples.with_notes(rows, weight, selection.score, mass)

    def _budget(self, shares: int) -> int:
        return self.spec.most(shares, self._seen, self._tasks)

    def _make(self, new: Exemplars, shares: int, make_pool: MakePool, reference: Exemplars | None) -> None:
        """Condense the classes that memory does not hold, and shrink each class that it holds to its share."""
        started = time.perf_counter()
        self._seen += len(new)
        old = self.stored
        held = [] if old is None else groups(old)
        known = set() if old is None else set(zip(old.task.tolist(), old.y.tolist(), strict=True))
        fresh = [g for g in groups(new) if (int(new.task[g[0]]), int(new.y[g[0]])) not in known]
        most = self.spec.capacity if self.spec.per == "class" else len(new)
        counts = torch.tensor([*map(len, held), *(min(len(g), most) for g in fresh)], dtype=torch.int64)
        amounts = quotas(counts, self._budget(shares), self.rng).tolist()
        parts = [] if old is None else self._less(old, held, amounts[: len(held)], make_pool)
        budget = sum(amounts[len(held) :])
        if budget:
            pool = make_pool(new[torch.cat(fresh)], reference=reference)
            parts.append(made(self._condense, pool, budget, self.rng, self._name))  # type: ignore[arg-type]
        if parts:
            self._fill(_told_apart(concatenate(parts)))
        self._cost.select_seconds += time.perf_counter() - started

    def _less(
        self, old: Exemplars, held: Sequence[Tensor], amounts: Sequence[int], make_pool: MakePool
    ) -> list[Exemplars]:
        """Reduce each class in memory to its amount, as ``memory.shrink`` says; return one part or two."""
        stay, go, budget = [], [], 0
        for rows, amount in zip(held, amounts, strict=True):
            if amount == len(rows) or self.spec.shrink == "drop":
                stay.append(rows[:amount])
            else:
                go.append(rows)
                budget += amount
        parts = [old[torch.cat(stay).sort().values]] if stay else []
        if budget:
            pool = make_pool(decoded(old[torch.cat(go)], self.factor))
            parts.append(made(from_samples(self._condense), pool, budget, self.rng, self._name))  # type: ignore[arg-type]
        return parts

    def _write(self, new: Exemplars, budget: int) -> tuple[Exemplars, Tensor]:
        """Put ``new`` into free rows, and the rest behind the used ones. Return the store and the rows of ``new``."""
        place = self._free[: len(new)].to(new.device)
        further = len(new) - len(place)
        if further:
            place = torch.cat([place, torch.arange(self._used, self._used + further, device=new.device)])
            self._used += further
        if self._store is not None and new.soft is not None:
            self._store = self._store.with_soft(new.soft.shape[1])
        if self._store is None or len(self._store) < self._used:
            rows = max(self._used, min(2 * self._used, budget + len(new)))
            self._store = _resized(new if self._store is None else self._store, rows)
        self._store.overwrite(place, new)
        return self._store, place

    @property
    def _name(self) -> str:
        return f"memory.buffer {self.spec.buffer!r}"


def _resized(exemplars: Exemplars, rows: int) -> Exemplars:
    """Copy the exemplars into columns of ``rows`` rows; the added rows hold arbitrary values."""
    columns = {
        name: torch.cat([column, column.new_empty(rows - len(column), *column.shape[1:])])
        for name, column in exemplars.columns().items()
    }
    return Exemplars(**columns)


def _told_apart(exemplars: Exemplars) -> Exemplars:
    """Give exemplars that are of no row of the data set (``index`` below 0) different indices, all below 0."""
    index = exemplars.index
    other = -1 - torch.arange(len(index), device=index.device)
    return dataclasses.replace(exemplars, index=torch.where(index < 0, other, index))
