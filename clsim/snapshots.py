"""All that the next experience needs, as one state: learner, memory, generators."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from clsim.learners import Learner, Setup

State = dict[str, Any]


def snapshot(setup: Setup, learner: Learner) -> State | None:
    """The state between two experiences; None if the learner cannot be saved.

    Its tensors are the learner's own: :func:`copied` before either is trained on.
    """
    learned = learner.state_dict()
    if learned is None:
        return None
    return {
        "learner": learned,
        "memory": setup.memory.state_dict(),
        "randomness": setup.randomness.state_dict(),
    }


def restore(state: State, setup: Setup, learner: Learner) -> None:
    """The inverse of :func:`snapshot`, into a learner that was just built, which may go on to use its tensors."""
    learner.load_state_dict(state["learner"])
    setup.memory.load_state_dict(state["memory"], setup.device)
    setup.randomness.load_state_dict(state["randomness"])


def copied(state: Any) -> Any:
    """The same, in memory of its own."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(copied(value) for value in state)
    return state


UNFIT = (KeyError, TypeError, ValueError, RuntimeError, AttributeError)
"""What :func:`restore` raises when a state belongs to another learner."""
