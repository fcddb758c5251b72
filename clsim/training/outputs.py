"""What a net computes inside a learner's step, before the step changes its weights, and what steps are taken on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars


class Noted:
    """The outputs of a net's head, in order. Final."""

    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def first(self, size: int) -> Tensor | None:
        """Return the logits of the first ``size`` samples of the first pass that has so many; None: there is none."""
        whole = next((logits for logits in self.found if len(logits) >= size), None)
        return None if whole is None else whole[:size]


@contextmanager
def noted(net: Net, ready: Callable[[], bool] | None = None) -> Iterator[Noted]:
    """Note the outputs of a net's head inside, once ``ready`` says so (None: at once); no hook stays behind."""
    found = Noted()

    def note(head: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if ready is None or ready():
            found.found.append(logits.detach())

    handle = net.head.register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()


class Taken:
    """The samples that steps were taken on since an experience began. Final."""

    def __init__(self) -> None:
        self._index: list[Tensor] = []
        self._y: list[Tensor] = []
        self._right: list[Tensor] = []

    def add(self, samples: Exemplars, logits: Tensor | None) -> None:
        """Note the new samples of a step, and what the net said of them before it; None: nobody knows."""
        self._index.append(samples.index)
        self._y.append(samples.y)
        if logits is not None:
            self._right.append((logits.argmax(1) == samples.y).sum())

    @property
    def index(self) -> Tensor:
        """int64, the ``index`` of each of them, in their order."""
        return torch.cat(self._index) if self._index else torch.empty(0, dtype=torch.int64)

    @property
    def y(self) -> Tensor:
        """int64, the label that each of them was learnt with."""
        return torch.cat(self._y) if self._y else torch.empty(0, dtype=torch.int64)

    def counts(self) -> dict[str, Any]:
        """Count them; waits for the device.

        Returns:
            ``trained``: how many there are; ``different``: how many different ones; ``learnt``: the share that the net
            predicted right before it learnt them, None where nobody knows.
        """
        index = self.index
        known = len(self._right) == len(self._index) and len(index) > 0
        learnt = int(torch.stack(self._right).sum()) / len(index) if known else None
        return {"trained": len(index), "different": len(index.unique()), "learnt": learnt}
