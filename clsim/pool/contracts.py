"""The contract of condensers, and checks of what a selector chooses or a condenser makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clsim.data import tiles
from clsim.errors import InputError, in_one_line
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection, Selector
from clsim.spec.options import bind, options_of


@runtime_checkable
class Condenser(Protocol):
    """A function that makes ``min(budget, labelled samples)`` exemplars, balanced by class; only ``rng`` is random."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
        """Make exemplars from the samples of ``pool``."""


def factor_of(condense: Condenser) -> int:
    """Return how many small images each side of a stored image holds: the option ``factor``, or 1 without it."""
    option = options_of(condense).get("factor")
    return 1 if option is None else int(option.default)


def from_samples(condense: Condenser) -> Condenser:
    """Return the condenser; if its option ``start`` is ``noise``, make it begin with samples of the pool instead."""
    option = options_of(condense).get("start")
    return condense if option is None or option.default != "noise" else bind(condense, {"start": "real"})


def made(condense: Condenser, pool: Pool, budget: int, rng: torch.Generator, name: str) -> Exemplars:
    """Return what a condenser makes, checked; the condenser may be a user's own, and its error becomes one line.

    Args:
        condense: the condenser.
        pool: the samples to condense.
        budget: largest number of exemplars.
        rng: the random generator that the condenser uses.
        name: the condenser's name, for messages.

    Raises:
        InputError: if the condenser raises, or returns anything but at most ``budget`` samples like those of the pool.
    """
    with in_one_line(name):
        exemplars = condense(pool, budget, rng=rng)
    like = f"Exemplars, at most {budget}, {pool.data.x.dtype} of shape {tuple(pool.data.x.shape[1:])} each"
    if not isinstance(exemplars, Exemplars):
        raise InputError(f"{name}: the condenser returned a {type(exemplars).__name__}, allowed: {like}")
    x = exemplars.x
    if len(x) > budget or x.dtype != pool.data.x.dtype or x.shape[1:] != pool.data.x.shape[1:]:
        found = f"{len(x)} of {x.dtype}, of shape {tuple(x.shape[1:])} each"
        raise InputError(f"{name}: the condenser returned {found}, allowed: {like}")
    return exemplars


def decoded(exemplars: Exemplars, factor: int) -> Exemplars:
    """Take apart exemplars that hold factor × factor small images each; with ``factor`` 1, return them unchanged."""
    if factor == 1:
        return exemplars
    columns = {name: column.repeat_interleave(factor**2, 0) for name, column in exemplars.columns().items()}
    return Exemplars(**(columns | {"x": tiles.apart(exemplars.x, factor)}))


def chosen(
    select: Selector, pool: Pool, budget: int, rng: torch.Generator, name: str, *, look: bool = True
) -> Selection:
    """Return what a selector chooses, checked; the selector may be a user's own, and its error becomes one line.

    Args:
        select: the selector.
        pool: the candidates.
        budget: largest number of rows.
        rng: the random generator that the selector uses.
        name: the selector's name, for messages.
        look: whether to check the values of the rows too. That waits for the device, so it is not for training steps.

    Raises:
        InputError: if the selector raises, or returns anything but different rows of the pool, at most ``budget``.
    """
    with in_one_line(name, lambda: _why(pool)):
        selection = select(pool, budget, rng=rng)
    if not isinstance(selection, Selection):
        raise invalid(name, f"a {type(selection).__name__}", len(pool), budget)
    index, found = selection.index, ""
    if index.dtype != torch.int64 or index.ndim != 1:
        found = f"an index of type {index.dtype} and shape {tuple(index.shape)}"
    elif len(index) > min(budget, len(pool)):
        found = f"{len(index)} rows"
    elif look and len(index):
        if int(index.min()) < 0 or int(index.max()) >= len(pool):
            found = f"rows from {int(index.min())} to {int(index.max())}"
        elif len(index.unique()) < len(index):
            found = "a row twice"
    if found:
        raise invalid(name, found + _why(pool), len(pool), budget)
    return selection


def pseudo_labelled(
    label: Callable[[Pool], tuple[Tensor, Tensor]], pool: Pool, asked: Tensor, classes: Iterable[int], name: str
) -> tuple[Tensor, Tensor]:
    """Return the candidates that an acquisition labels itself, checked; an error of its own becomes one line.

    Args:
        label: the acquisition's method.
        pool: the candidates.
        asked: int64, the rows that the oracle is asked for, which are dropped.
        classes: the classes that are known in the experience; samples labelled otherwise are dropped.
        name: the acquisition's name, for messages.

    Returns:
        int64 (m,), different rows of the pool, and int64 (m,), their labels.

    Raises:
        InputError: if it raises, or returns anything but different rows and a label for each.
    """
    with in_one_line(name, lambda: _why(pool)):
        rows, labels = label(pool)
    n, whole = len(pool), rows.dtype == labels.dtype == torch.int64
    if not whole or rows.ndim != 1 or rows.shape != labels.shape:
        found = f"{rows.dtype} of shape {tuple(rows.shape)} and {labels.dtype} of shape {tuple(labels.shape)}"
    elif len(rows.unique()) < len(rows) or bool(((rows < 0) | (rows >= n)).any()):
        found = f"a row twice, or rows outside 0 to {n - 1}"
    else:
        known = torch.tensor(list(classes), dtype=torch.int64, device=labels.device)
        kept = ~torch.isin(rows, asked) & torch.isin(labels, known)
        return rows[kept], labels[kept]
    raise InputError(
        f"{name}: its pseudo-labels are {found}, allowed: different rows from 0 to {n - 1}, int64 (m,), and a label "
        "for each, int64 (m,)"
    )


def _why(pool: Pool) -> str:
    return ", from a net whose training has diverged (try a smaller optimizer.lr)" if pool.diverged else ""


def invalid(name: str, found: str, candidates: int, budget: int) -> InputError:
    """Make the error for a selection that is not valid."""
    return InputError(
        f"{name}: the selector returned {found}, "
        f"allowed: a Selection of int64, at most {min(budget, candidates)} different rows of 0 to {candidates - 1}"
    )
