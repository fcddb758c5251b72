"""Detection of comparisons that NaN wins: torch counts NaN as the largest number, without an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class NanWins(Exception):
    """A comparison that NaN wins."""


@contextmanager
def no_nan_wins() -> Iterator[None]:
    """Raise :class:`NanWins` at an argmax, a top-k or a falling sort over numbers with NaN among them.

    A rising sort does not: there NaN comes last.
    """
    with _Comparisons():
        yield


class _Comparisons(TorchFunctionMode):
    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _FALLING and args and _FALLING[name](args, kwargs):
            values = args[0]
            if isinstance(values, Tensor) and values.is_floating_point() and bool(torch.isnan(values).any()):
                raise NanWins(f"compared {int(torch.isnan(values).sum())} NaN with {name}")
        return func(*args, **kwargs)


def _always(args: Any, kwargs: Any) -> bool:
    return True


def _along_a_dimension(args: Any, kwargs: Any) -> bool:
    """Whether a call has a dimension, as in ``x.max(1)``; without one, the result itself is NaN if any value is."""
    return "dim" in kwargs or (len(args) > 1 and isinstance(args[1], int))


def _flag(name: str, place: int, usual: bool) -> Callable[[Any, Any], bool]:
    return lambda args, kwargs: bool(kwargs.get(name, args[place] if len(args) > place else usual))


_FALLING: dict[str, Callable[[Any, Any], bool]] = {
    "argmax": _always,
    "argmin": _always,
    "max": _along_a_dimension,
    "min": _along_a_dimension,
    "topk": _flag("largest", 3, True),
    "sort": _flag("descending", 2, False),
    "argsort": _flag("descending", 2, False),
}
