"""What a learner keeps between two experiences beside its net, in bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from clsim.models import Net


def state_bytes(state: Mapping[str, Any] | None, net: Net) -> int | None:
    """Bytes of the tensors in a learner's state, without those of the net itself and of the optimizer.

    What a method needs to go on: importances, masks, statistics, earlier nets, stored logits. The exemplars of the
    buffer are counted apart, and so are gradients, which no method keeps from one experience to the next. A tensor
    that stands in the state twice is counted once.

    Args:
        state: of :meth:`clsim.learners.Learner.state_dict`; optimizers stand in it under the name ``optimizer``. None
            gives None: nobody knows.
        net: the one that is trained.
    """
    if state is None:
        return None
    counted = {_place(tensor) for tensor in net.state_dict().values()}
    total = 0
    for tensor in _tensors(state):
        if _place(tensor) not in counted:
            counted.add(_place(tensor))
            total += tensor.nbytes
    return total


def _place(tensor: Tensor) -> tuple[int, int]:
    """Which stretch of memory: where it begins, and its bytes."""
    return tensor.data_ptr(), tensor.nbytes


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if name != "optimizer":
                yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
