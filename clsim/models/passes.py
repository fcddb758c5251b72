"""Forward passes side by side: batches that go through one net at the same time, each on threads of its own.

A thread of Python takes a whole batch with as many threads of torch as the run has, so that each number is computed as
it would be without the others: results are equal to the last bit, whatever the number of cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from clsim.models.aside import Aside
from clsim.models.nets import Net, evaluating

MOST = 4
"""Largest number of parts at a time: each holds the maps of its layers in memory."""

_CORES: ContextVar[int] = ContextVar("cores", default=1)
_ASIDE: ContextVar[ThreadPoolExecutor | None] = ContextVar("aside", default=None)

_CONVOLVE: WeakKeyDictionary[Net, bool] = WeakKeyDictionary()

P = TypeVar("P")
R = TypeVar("R")

CACHED = 100
"""Largest number of samples whose maps stay in a core's cache: more take longer each."""


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let the passes inside use ``count`` cores; no number depends on it."""
    with _threads(1) as thread:  # it begins with its first work
        tokens = _CORES.set(count), _ASIDE.set(thread)
        try:
            yield
        finally:
            _CORES.reset(tokens[0])
            _ASIDE.reset(tokens[1])


def aside(net: Net) -> Aside | None:
    """Return what computes the weights' gradients of one pass on a core that is left; None: there is none.

    A net whose modules may do anything is left alone: one that is passed again in its backward pass would not bear it.
    """
    thread = _ASIDE.get()
    return None if thread is None or spare() < 2 or not can_share(net) else Aside(thread)


def spare() -> int:
    """Return how many times the threads of the run fit its cores."""
    return _CORES.get() // torch.get_num_threads()


def at_a_time() -> int:
    """Return the largest number of parts that :func:`side_by_side` passes at a time."""
    return min(max(spare(), 1), MOST)


def _threads(count: int) -> ThreadPoolExecutor:
    """Make threads of Python, each with as many of torch's as this one has: it would begin with other ones."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),))


def pieces(net: Net | None, n: int, most: int) -> list[slice]:
    """Divide the rows of n samples among passes of ``most`` samples at most; n = 0 is one pass of none.

    Where the maps of a net that can be shared (:func:`can_share`) would not fit a core's cache, passes are smaller and
    of about one size. Neither cores nor threads matter to it, and the outputs of a sample do not depend on the others.

    Args:
        net: the net, if the passes work with it alone; None: the passes are as large as they may be.
        n: the number of samples.
        most: the largest number of samples of a pass.
    """
    if net is None or n <= CACHED or not can_share(net):
        return [slice(start, start + most) for start in range(0, max(n, 1), most)]
    size = -(-n // -(-n // min(CACHED, most)))
    return [slice(start, start + size) for start in range(0, n, size)]


def side_by_side(net: Net | None, passed: Callable[[P], R], parts: Sequence[P]) -> list[R]:
    """Return what a function returns for each part, in order; with several cores, several parts pass at a time.

    Args:
        net: the net, if ``passed`` works with it alone and only reads it. With None, or if a module of the net may
            change in a pass (:func:`can_share`), parts pass one by one.
        passed: passes one part forward. Threads inherit neither autocast nor ``no_grad``: it enters what it needs.
        parts: the parts.
    """
    workers = min(at_a_time(), len(parts))
    if net is None or workers < 2 or not can_share(net):
        return [passed(part) for part in parts]
    threads = _threads(workers)
    with evaluating(net):  # for all: the mode that one thread restores would be that of the others, too
        try:
            return list(threads.map(passed, parts))
        finally:
            threads.shutdown(cancel_futures=True)


def can_share(net: Net) -> bool:
    """Tell whether threads may and should share a net in eval mode.

    All of its modules are of PyTorch or clsim and have no hook, so that a pass changes nothing; it is on the CPU; and
    it has convolutions: Python calls the layers of other nets faster than a second thread could begin.
    """
    if net.noting or net.head.weight.device.type != "cpu" or not _convolves(net):
        return False
    ours = ("torch.nn.modules.", "clsim.models.")
    return all(
        type(m).__module__.startswith(ours) and not m._forward_hooks and not m._forward_pre_hooks for m in net.modules()
    )


def _convolves(net: Net) -> bool:
    """Tell whether a net had convolutions when it was first looked at: a step that chooses its batch asks each time."""
    if net not in _CONVOLVE:
        _CONVOLVE[net] = any(isinstance(m, nn.Conv2d) for m in net.modules())
    return _CONVOLVE[net]
