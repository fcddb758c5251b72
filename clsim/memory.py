"""The buffer: what a learner may keep of the past."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.exemplars import Exemplars, concatenate
from clsim.pool import Cost, Pool, Selection, Selector
from clsim.specs import MemorySpec

MakePool = Callable[[Exemplars], Pool]


class Buffer:
    """At most ``capacity`` exemplars, chosen by a selector out of memory ∪ new. Final.

    The exemplars live in a store of capacity + batch rows; ``kept`` names the rows in memory and ``free`` the others,
    which the next batch overwrites. So an update moves only the new batch, and no shape depends on the data: a GPU
    is never waited for.

    Args:
        spec: capacity, batch size, and when to select.
        select: the selector, its options bound; None keeps nothing.
        rng: draws the replayed batches, and is handed to the selector; on the CPU.
        cost: the counter for the time of selection.
    """

    def __init__(self, spec: MemorySpec, select: Selector | None, *, rng: torch.Generator, cost: Cost) -> None:
        self.spec = spec
        self.rng = rng
        self._select = select
        self._cost = cost
        self._store: Exemplars | None = None
        self._kept = self._free = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def exemplars(self) -> Exemplars | None:
        """What is in memory; None while it is empty."""
        return None if self._store is None else self._store[self._kept]

    def sample(self) -> Exemplars | None:
        """A batch to replay: uniformly out of the memory, no exemplar twice; None while the memory is empty."""
        if self._store is None:
            return None
        drawn = torch.randperm(len(self), generator=self.rng)[: self.spec.batch_size]
        return self._store[self._kept[drawn.to(self._kept.device)]]

    def after_batch(self, new: Exemplars, classes_seen: int, make_pool: MakePool) -> None:
        """Select out of memory ∪ the batch, if the memory is updated with every batch."""
        if self._select is not None and self.spec.update == "batch":
            self._update(new, classes_seen, make_pool)

    def after_experience(self, new: Exemplars, classes_seen: int, make_pool: MakePool) -> None:
        """Select out of memory ∪ the experience, if that is the time; then drop what is not kept."""
        if self._select is not None and self.spec.update == "experience":
            self._update(new, classes_seen, make_pool)
        if self._store is not None:
            self._fill(self._store[self._kept])

    def state_dict(self) -> dict[str, Tensor]:
        """The exemplars, column by column; complete at the end of an experience."""
        return {} if self._store is None else self._store[self._kept].columns()

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """The inverse of :meth:`state_dict`."""
        if state:
            self._fill(Exemplars(**{name: column.to(device) for name, column in state.items()}))

    def _fill(self, exemplars: Exemplars) -> None:
        self._store = exemplars
        self._kept = torch.arange(len(exemplars), device=exemplars.device)
        self._free = self._kept[:0]

    def _update(self, new: Exemplars, classes_seen: int, make_pool: MakePool) -> None:
        started = time.perf_counter()
        store, rows = self._write(new)
        # without gaps the store itself is the pool, and nothing is copied
        whole = len(rows) == len(store)
        pool = make_pool(store if whole else store[rows])
        budget = self.spec.capacity * (classes_seen if self.spec.per == "class" else 1)
        selection = self._select(pool, budget, rng=self.rng)  # type: ignore[misc]
        self._refuse_invalid(selection, len(pool), budget)
        self._kept = selection.index if whole else rows[selection.index]
        if selection.weight is not None:
            store.weight[self._kept] = selection.weight
        is_free = torch.ones(len(store), dtype=torch.bool, device=store.device)
        is_free[self._kept] = False
        self._free = is_free.argsort(descending=True, stable=True)[: len(store) - len(self._kept)]
        self._cost.select_seconds += time.perf_counter() - started

    def _write(self, new: Exemplars) -> tuple[Exemplars, Tensor]:
        """Put ``new`` into free rows, and the rest behind them. Returns the store, and the rows kept or new."""
        if self._store is None:
            store = new[torch.arange(len(new), device=new.device)]  # a copy: the store is written to
            place = torch.arange(len(store), device=store.device)
        else:
            store = self._store
            fits = min(len(new), len(self._free))
            place = self._free[:fits]
            for name, column in new.columns().items():
                store.columns()[name][place] = column[:fits]
            if fits < len(new):
                end = torch.arange(len(store), len(store) + len(new) - fits, device=store.device)
                store, place = concatenate([store, new[fits:]]), torch.cat([place, end])
        self._store = store
        return store, torch.cat([self._kept.to(store.device), place])

    def _refuse_invalid(self, selection: Selection, candidates: int, budget: int) -> None:
        index = selection.index
        found = ""
        if index.dtype != torch.int64 or index.ndim != 1:
            found = f"an index of type {index.dtype} and shape {tuple(index.shape)}"
        elif len(index) > min(budget, candidates):
            found = f"{len(index)} rows"
        elif self.spec.update == "experience" and len(index):  # a look at the values waits for the device
            if int(index.min()) < 0 or int(index.max()) >= candidates:
                found = f"rows from {int(index.min())} to {int(index.max())}"
            elif len(index.unique()) < len(index):
                found = "a row twice"
        if found:
            raise InputError(
                f"memory.buffer {self.spec.buffer!r}: the selector returned {found}, "
                f"allowed: int64, at most {min(budget, candidates)} different rows of 0 to {candidates - 1}"
            )
