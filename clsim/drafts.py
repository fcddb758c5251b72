"""Condensers, who watches them at work, and what they make."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from clsim.data import tiles
from clsim.errors import InputError, raised
from clsim.exemplars import Exemplars

if TYPE_CHECKING:
    from clsim.pool import Pool


class Condenser(Protocol):
    """Makes ``min(budget, labelled samples)`` exemplars, the classes balanced. All randomness comes from ``rng``."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
        """Out of ``pool``."""


class Draft(Protocol):
    """Images in the making; see :class:`clsim.condensers.synthesis.Synthetic`."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration needs, as tensors and plain values."""

    def exemplars(self) -> Exemplars:
        """The images as they would be kept now."""


class Watch(Protocol):
    """Somebody who watches a condenser at work, and keeps its state."""

    def resume(self) -> dict[str, Any] | None:
        """A draft's state, with the number of iterations done as ``iteration``; None: begin."""

    def step(self, done: int, total: int, loss: Tensor, draft: Draft) -> None:
        """An iteration is done; the loss is on the device."""

    def finish(self, loss: float, stored: float) -> None:
        """The loss of what was made, and the loss of what of it is stored (as uint8)."""


def factor_of(condense: Condenser) -> int:
    """How many small images a side of each stored one holds: the condenser's option ``factor``; 1 if it has none."""
    parameter = inspect.signature(condense).parameters.get("factor")
    return 1 if parameter is None else int(parameter.default)


def from_samples(condense: Condenser) -> Condenser:
    """The condenser, beginning with samples of the pool where its option ``start`` is ``noise``."""
    parameter = inspect.signature(condense).parameters.get("start")
    return condense if parameter is None or parameter.default != "noise" else partial(condense, start="real")  # type: ignore[call-arg]


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
