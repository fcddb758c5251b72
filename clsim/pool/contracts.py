"""Condensers, who watches them at work, and what they make."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from clsim.data import tiles
from clsim.errors import InputError, raised
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection, Selector
from clsim.spec.options import bind, options_of


@runtime_checkable
class Condenser(Protocol):
    """Makes ``min(budget, labelled samples)`` exemplars, the classes balanced. All randomness comes from ``rng``."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
        """Out of ``pool``."""


def factor_of(condense: Condenser) -> int:
    """How many small images a side of each stored one holds: the condenser's option ``factor``; 1 if it has none."""
    option = options_of(condense).get("factor")
    return 1 if option is None else int(option.default)


def from_samples(condense: Condenser) -> Condenser:
    """The condenser, beginning with samples of the pool where its option ``start`` is ``noise``."""
    option = options_of(condense).get("start")
    return condense if option is None or option.default != "noise" else bind(condense, {"start": "real"})


def made(condense: Condenser, pool: Pool, budget: int, rng: torch.Generator, name: str) -> Exemplars:
    """What a condenser, which may be a user's own, makes; what is wrong with it is one line.

    Raises:
        InputError: if it raises, or returns anything but at most ``budget`` samples like those of the pool.
    """
    try:
        exemplars = condense(pool, budget, rng=rng)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:
        raise InputError(f"{name}: {raised(error)}") from error
    like = f"Exemplars, at most {budget}, {pool.data.x.dtype} of shape {tuple(pool.data.x.shape[1:])} each"
    if not isinstance(exemplars, Exemplars):
        raise InputError(f"{name}: the condenser returned a {type(exemplars).__name__}, allowed: {like}")
    x = exemplars.x
    if len(x) > budget or x.dtype != pool.data.x.dtype or x.shape[1:] != pool.data.x.shape[1:]:
        found = f"{len(x)} of {x.dtype}, of shape {tuple(x.shape[1:])} each"
        raise InputError(f"{name}: the condenser returned {found}, allowed: {like}")
    return exemplars


def decoded(exemplars: Exemplars, factor: int) -> Exemplars:
    """What a learner sees of exemplars that hold factor × factor small images each; with ``factor`` 1, themselves."""
    if factor == 1:
        return exemplars
    columns = {name: column.repeat_interleave(factor**2, 0) for name, column in exemplars.columns().items()}
    return Exemplars(**(columns | {"x": tiles.apart(exemplars.x, factor)}))


def chosen(
    select: Selector, pool: Pool, budget: int, rng: torch.Generator, name: str, *, look: bool = True
) -> Selection:
    """What a selector, which may be a user's own, chooses; what is wrong with it is one line.

    Args:
        name: of the selector, for messages.
        look: at the rows themselves too, which waits for the device: not in a step.

    Raises:
        InputError: if it raises, or returns anything but different rows of the pool, at most ``budget`` of them.
    """
    try:
        selection = select(pool, budget, rng=rng)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:
        raise InputError(f"{name}: {raised(error)}{_why(pool)}") from error
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


def _why(pool: Pool) -> str:
    return ", from a net whose training has diverged (try a smaller optimizer.lr)" if pool.diverged else ""


def invalid(name: str, found: str, candidates: int, budget: int) -> InputError:
    """What is raised for a selection that is none."""
    return InputError(
        f"{name}: the selector returned {found}, "
        f"allowed: a Selection of int64, at most {min(budget, candidates)} different rows of 0 to {candidates - 1}"
    )
