"""What a net computes inside a learner's step, before the step changes its weights, and what steps are taken on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars

_AT_ONCE = 32
"""Number of steps whose samples are noted at once."""


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
    """The samples that steps were taken on since an experience began. Final.

    They stand in one tensor, which doubles when it is full: a small tensor a step, kept between the large ones that a
    step allocates and frees, would leave holes that no later step fits into. Those of the last few steps wait for it.
    """

    def __init__(self) -> None:
        self._noted: Tensor | None = None  # int64 (3, room): index, label, what the net said or −1
        self._size = 0
        self._waiting: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def add(self, samples: Exemplars, logits: Tensor | None) -> None:
        """Note the new samples of a step, and what the net said of them before it; None: nobody knows."""
        self._waiting.append((samples.index, samples.y, logits))
        if len(self._waiting) >= _AT_ONCE:
            self._write()

    def _write(self) -> None:
        """Note the samples that wait."""
        if not self._waiting:
            return
        index = torch.cat([one for one, _, _ in self._waiting])
        y = torch.cat([one for _, one, _ in self._waiting])
        known = [logits for _, _, logits in self._waiting if logits is not None]
        if len(known) == len(self._waiting):
            said = torch.cat(known).argmax(1)
        else:
            said = torch.cat([y.new_full(y.shape, -1) if x is None else x.argmax(1) for _, y, x in self._waiting])
        end = self._size + len(index)
        if self._noted is None or end > self._noted.shape[1]:
            room = index.new_empty(3, max(2 * end, 4096))
            if self._noted is not None:
                room[:, : self._size] = self._noted[:, : self._size]
            self._noted = room
        for row, column in zip(self._noted, (index, y, said), strict=True):
            row[self._size : end] = column
        self._size, self._waiting = end, []

    @property
    def index(self) -> Tensor:
        """int64, the ``index`` of each of them, in their order."""
        return self._column(0)

    @property
    def y(self) -> Tensor:
        """int64, the label that each of them was learnt with."""
        return self._column(1)

    def counts(self) -> dict[str, Any]:
        """Count them; waits for the device.

        Returns:
            ``trained``: how many there are; ``different``: how many different ones; ``learnt``: the share that the net
            predicted right before it learnt them, None where nobody knows.
        """
        index, said = self.index, self._column(2)
        known = len(index) > 0 and bool((said >= 0).all())
        learnt = int((said == self.y).sum()) / len(index) if known else None
        return {"trained": len(index), "different": len(index.unique()), "learnt": learnt}

    def _column(self, number: int) -> Tensor:
        self._write()
        return torch.empty(0, dtype=torch.int64) if self._noted is None else self._noted[number, : self._size]
