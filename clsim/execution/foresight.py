"""What a selection over a large pool will take: its memory, before anything large is built, and its time.

The memory is an upper estimate by formulas (:mod:`clsim.selectors.peaks`). Where it does not fit, blocks are made
smaller if the selector works in blocks; what still does not fit is refused. The time is that of a choice among a few
rows, scaled by the order that the selector's docstring states.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from clsim.data import arrays, room
from clsim.errors import InputError, duration
from clsim.execution.parts import METHODS
from clsim.pool.contracts import chosen
from clsim.pool.pool import Cost, Pool, Selection, Selector
from clsim.randomness import generator
from clsim.selectors import distances, peaks
from clsim.spec.orders import at_most, steps

SAID = 10.0
"""Seconds from which a selection is long enough to say so."""

LARGE = 10**9
"""Bytes from which the memory of a selection is said."""

TRIED = 16_384
"""Most rows of the choice that is timed."""

WORTH = 2e10
"""Order of the time, in multiplications, from which a choice is timed: below, it takes no more than some seconds."""

LEAST = 512
"""Fewest rows of the choice that is timed."""

SHARE = 200
"""The timed choice takes one of this many parts of the work."""

Say = Callable[[str], object]
"""Is told a line."""


def tell(line: str) -> None:
    """Print a line on the standard error."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Foreseen:
    """What a selection will take.

    Attributes:
        name: the selector.
        size: its size.
        options: the selector's options.
        memory: bytes at the peak beside what the process holds now, an upper estimate; 0: not known.
        free: bytes that are free.
        block: largest number of values of a block of pairs.
    """

    name: str
    size: peaks.Size
    options: Mapping[str, Any]
    memory: float
    free: int
    block: int = distances.BLOCK

    @property
    def words(self) -> str:
        """The memory in words; empty where it is not worth a line."""
        if self.memory < min(LARGE, self.free / 4) or not self.memory:
            return ""
        smaller = "" if self.block == distances.BLOCK else f", in blocks of {self.block:,} distances"
        return f"up to {room.in_words(self.memory)} of memory ({room.in_words(self.free)} are free{smaller})"


def of_features(
    given: Any,
    name: str,
    options: Mapping[str, Any],
    budget: int | None,
    fraction: float | None,
    device: torch.device,
    where: str,
) -> Foreseen:
    """Foresee a selection from features or logits, of which the shape alone is read.

    Args:
        given: the features, as :func:`clsim.data.arrays.features` takes them.
        name: the selector.
        options: its options.
        budget, fraction: number of picks, or share of the rows.
        device: where the pool will be.
        where: ``features`` or ``logits``, what they are.

    Raises:
        InputError: if it does not fit into the memory.
    """
    array, _ = arrays.array_of(given, where)
    if array.ndim != 2 or array.dtype.kind != "f":
        return Foreseen(name, peaks.Size(0, 0, 0), options, 0, room.free_on(device))  # refused where they are read
    n, d = array.shape
    size = peaks.Size(n, d, wanted(n, budget, fraction), d if where == "logits" else 0)
    values = 0 if array.dtype.itemsize == 4 and device.type == "cpu" else 4 * n * d  # else they are copied
    return foresee(size, name, options, device, held=values + peaks.COLUMNS * n)


def of_pool(pool: Pool, name: str, options: Mapping[str, Any], budget: int | None, fraction: float | None) -> Foreseen:
    """Foresee a selection from a pool whose features a net will make; arguments as for :func:`of_features`.

    Raises:
        InputError: if it does not fit into the memory.
    """
    head, n = pool.fresh(0).head, len(pool)
    size = peaks.Size(n, head.in_features, wanted(n, budget, fraction), head.out_features)
    return foresee(size, name, options, pool.data.device, held=size.features if peaks.cost(name) else 0)


def wanted(n: int, budget: int | None, fraction: float | None) -> int:
    """Count the picks of n candidates by a number or by a share."""
    return max(round((fraction or 0) * n), 1) if budget is None else budget


def foresee(
    size: peaks.Size, name: str, options: Mapping[str, Any], device: torch.device, *, held: float = 0.0
) -> Foreseen:
    """Foresee a selection, with blocks that fit.

    Args:
        size: its size.
        name: the selector.
        options: its options.
        device: the device of the pool.
        held: bytes of what must be built before.

    Raises:
        InputError: if it does not fit into the memory, saying what would help.
    """
    free = room.free_on(device)
    peak = peaks.peak(name, size, options)
    memory = held + peak.kept + peak.blocks
    found = Foreseen(name, size, options, memory, free)
    if memory <= free:
        return found
    share = (free - held - peak.kept) / peak.blocks if peak.blocks else 0.0
    if share * distances.BLOCK < distances.SMALLEST:
        raise InputError(_refusal(found, held))
    block = 2 ** int(math.log2(share * distances.BLOCK))
    return replace(found, memory=held + peak.kept + peak.blocks * block / distances.BLOCK, block=block)


def select(
    foreseen: Foreseen, pick: Selector, pool: Pool, budget: int, seed: int, where: str, say: Say | None
) -> tuple[Selection, float]:
    """Select, in blocks that fit, after saying what it will take; what is said changes no pick.

    Args:
        foreseen: what was foreseen.
        pick: the selector.
        pool: the candidates.
        budget: number of picks.
        seed: the seed of what is drawn.
        where: how messages name the selector.
        say: is told a line where the pool is large; None: nothing is said, and nothing is timed.

    Returns:
        The selection, and its seconds.
    """
    with distances.blocks_of(foreseen.block):
        if say is not None:
            seconds, rows = timed(foreseen, pick, pool, budget)
            about = "at most about" if at_most(peaks.cost(foreseen.name)) else "about"
            parts = [foreseen.words] if foreseen.words else []
            parts += [f"{about} {duration(seconds)}, by a choice among {rows:,}"] if seconds >= SAID else []
            if parts:
                n, d = foreseen.size.n, foreseen.size.d
                say(f"an estimate for {foreseen.name} of {n:,} × {d:,}: {'; '.join(parts)}")
        started = time.perf_counter()
        selection = chosen(pick, pool, budget, generator(seed, "memory"), where)
        selection.index.cpu()  # waits for the device
        return selection, time.perf_counter() - started


def timed(foreseen: Foreseen, pick: Selector, pool: Pool, budget: int) -> tuple[float, int]:
    """Time a choice among a few rows, scaled to all; return the seconds and the rows: 0 where it is not known.

    The rows are a pool of their own, with a generator and counters of its own.

    Args:
        foreseen: what was foreseen.
        pick: the selector.
        pool: the candidates, of which the few are taken at equal steps.
        budget: number of picks among all.
    """
    name, options, size = foreseen.name, foreseen.options, foreseen.size
    whole = _order(foreseen, size)
    if whole < WORTH:
        return 0.0, 0
    few = replace(size, n=TRIED)
    while few.n >= LEAST:
        few = replace(few, budget=max(math.ceil(budget * few.n / size.n), 1))
        if few.n <= size.n and _order(foreseen, few) <= whole / SHARE:
            break
        few = replace(few, n=few.n // 2)
    else:
        return 0.0, 0
    if same := peaks.same_way(name, size, options):
        pick = partial(pick, **same)
    rows = torch.arange(few.n, device=pool.data.device) * len(pool) // few.n
    seconds = 0.0
    for n in (64, few.n):  # the first choice loads what it needs
        part = pool[rows[:n]]
        part.cost = Cost()
        started = time.perf_counter()
        try:
            chosen(pick, part, min(few.budget, n), generator(0, "estimate"), name).index.cpu()
        except InputError:  # of so few: what is wrong with all is said later
            return 0.0, 0
        seconds = time.perf_counter() - started
    return seconds * whole / _order(foreseen, few), few.n


def _order(foreseen: Foreseen, size: peaks.Size) -> float:
    """Compute the order of the time that the selector's docstring states; 0 where it states none of these letters."""
    name, options = (
        foreseen.name,
        {**foreseen.options, **peaks.same_way(foreseen.name, foreseen.size, foreseen.options)},
    )
    return steps(peaks.cost(name), peaks.letters(name, size, options)) or 0.0


def _refusal(foreseen: Foreseen, held: float) -> str:
    """Say what is needed, what there is, and what would help."""
    size, name = foreseen.size, foreseen.name
    needed, free = room.in_words(foreseen.memory), room.in_words(foreseen.free)
    return (
        f"memory: {name} among {size.n:,} × {size.d:,} needs up to {needed}, and {free} are free; allowed: "
        f"{_help(foreseen, held)}"
    )


def _help(foreseen: Foreseen, held: float) -> str:
    """Say what needs less memory."""
    size, name, free = foreseen.size, foreseen.name, foreseen.free
    if name in METHODS:
        for parts in range(2, max(size.n // max(size.budget, 1), 1) + 1):
            if in_parts(size, name, foreseen.options, parts) <= free:
                return f"--parts {parts} with features in a file (parts={parts} in Python), or fewer rows"
    if foreseen.options.get("similarities") == "dense":
        return "--option similarities=auto"
    rows = size.n
    while rows > max(size.budget, LEAST):
        rows = _two_digits(rows * 9 // 10)
        within = f"subsample({name},{rows})"
        peak = peaks.peak(within, size, foreseen.options)
        if peak.kept and held + peak.kept + peak.blocks <= free:
            return f"--selector '{within}', or fewer rows"
    return "fewer rows, or a machine with more memory"


def refuse_parts(
    n: int, d: int, name: str, options: Mapping[str, Any], budget: int, parts: int, device: torch.device
) -> None:
    """Refuse a choice in parts, one part at a time, that does not fit into the memory.

    Args:
        n, d: number of rows, and of their features.
        name: the selector.
        options: its options.
        budget: number of picks.
        parts: number of parts.
        device: where parts are chosen from.

    Raises:
        InputError: saying how many parts would fit.
    """
    size, free = peaks.Size(n, d, budget), room.free_on(device)
    needed = in_parts(size, name, options, parts)
    if needed > free:
        raise InputError(_refusal(Foreseen(name, size, options, needed, free), 0.0))


def in_parts(size: peaks.Size, name: str, options: Mapping[str, Any], parts: int) -> float:
    """Estimate the memory of a choice in parts, one part at a time: of the largest part, or of what the parts chose."""
    rows = max(math.ceil(size.n / parts), parts * min(size.budget, math.ceil(size.n / parts)))
    part = replace(size, n=min(rows, size.n))
    peak = peaks.peak(name, part, options)
    return part.features + peaks.COLUMNS * part.n + peak.kept + peak.blocks


def _two_digits(number: int) -> int:
    """
    >>> _two_digits(48_765), _two_digits(7)
    (48000, 7)
    """
    unit = 10 ** max(len(str(number)) - 2, 0)
    return number // unit * unit
