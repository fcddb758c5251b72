"""The state between two experiences: learner, memory, generators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from clsim.models.nets import Net
from clsim.training.contract import Learner, Setup

State = dict[str, Any]


def snapshot(setup: Setup, learner: Learner) -> State | None:
    """Return the state between two experiences; None if the learner cannot be saved.

    The state shares its tensors with the learner. Copy it by :func:`copied` before the learner is trained on.
    """
    learned = learner.state_dict()
    if learned is None:
        return None
    acquisition = {} if setup.acquisition is None else {"acquisition": setup.acquisition.state_dict()}
    return {
        "learner": learned,
        "memory": setup.memory.state_dict(),
        "randomness": setup.randomness.state_dict(),
        **acquisition,
    }


def restore(state: State, setup: Setup, learner: Learner) -> None:
    """Load a state of :func:`snapshot` into a learner that was just built; it may share the state's tensors."""
    learner.load_state_dict(state["learner"])
    setup.memory.load_state_dict(state["memory"], setup.device)
    setup.randomness.load_state_dict(state["randomness"])
    if setup.acquisition is not None:
        setup.acquisition.load_state_dict(state["acquisition"])


def copied(state: Any) -> Any:
    """Copy a state, its tensors included."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(copied(value) for value in state)
    return state


UNFIT = (KeyError, TypeError, ValueError, RuntimeError, AttributeError)
"""The exceptions that :func:`restore` raises when a state belongs to another learner."""


def state_bytes(state: Mapping[str, Any] | None, net: Net) -> int | None:
    """Count the bytes of the tensors in a learner's state, without those of the net itself and of the optimizer.

    These are what a method keeps from one experience to the next: importances, masks, statistics, earlier nets, stored
    logits. The exemplars of the buffer are not counted here, nor are gradients, which no method keeps. A tensor that
    occurs twice in the state is counted once.

    Args:
        state: the state of :meth:`clsim.training.contract.Learner.state_dict`, in which optimizers have the name
            ``optimizer``; None: the result is None too.
        net: the net that is trained.
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
    """Return the place of a tensor in memory: its address and its bytes."""
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
