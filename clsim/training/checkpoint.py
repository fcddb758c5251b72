"""The state between two experiences: learner, memory, generators; and whether saved label rounds are those of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from clsim.models.nets import Net
from clsim.pool.pool import Cost
from clsim.records.batch_record import batches
from clsim.records.label_record import COUNTS, problem
from clsim.records.schema import listing
from clsim.spec.labelling import LabellingSpec
from clsim.training import fits
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
    columns = setup.columns.state_dict(setup.memory.stored)
    return {
        "learner": learned,
        "memory": setup.memory.state_dict(),
        "randomness": setup.randomness.state_dict(),
        **acquisition,
        **({"columns": columns} if columns else {}),
    }


def restore(state: State, setup: Setup, learner: Learner) -> None:
    """Load a state of :func:`snapshot` into a learner that was just built; it may share the state's tensors."""
    if setup.acquisition is not None:  # before the learner, which has the module that is trained with its net
        setup.acquisition.load_state_dict(state["acquisition"])
    learner.load_state_dict(state["learner"])
    setup.memory.load_state_dict(state["memory"], setup.device)
    setup.randomness.load_state_dict(state["randomness"])
    setup.columns.load_state_dict(state.get("columns", {}), setup.device)


def refuse_unlike(saved: Any, fresh: Any, where: str) -> None:
    """Refuse a state that is unlike a fresh one; see :func:`clsim.training.fits.unlike`.

    Raises:
        ValueError: saying where.
    """
    if wrong := fits.unlike(saved, fresh, where):
        raise ValueError(wrong)


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


def misfit(saved: State, labelling: LabellingSpec, position: int, samples: int, first: int) -> str:
    """Say why a state of ``rounds.pt`` cannot be that of an experience; empty if it can.

    Args:
        saved: the state, whose ``entries``, ``cost`` and ``position`` have the right types.
        labelling: how labels are asked for.
        position: the position of the experience.
        samples: the number of its training samples.
        first: the number of its first round: 0 with an initial set, else 1.
    """
    rounds = [{**entry, "rows": entry["places"], "labels": entry["places"]} for entry in saved["entries"]]
    for entry in rounds:
        tested = [None if share != share else share for share in entry["accuracy"]]  # NaN where it was not
        entry |= {"accuracy": tested} if tested else {"accuracy": [None] * (position + 1), "labelled": samples}
    if wrong := problem(
        {"rounds": rounds, **{kind: [0] * (position + 1) for kind in COUNTS}}, position + 1, finished=True
    ):
        return wrong
    sizes = labelling.asked(samples, samples - sum(len(entry["rows"]) for entry in rounds[: first == 0]))
    found = [(entry["experience"], entry["round"]) for entry in rounds]
    planned = [(position, number) for number in range(first, len(sizes) + 1)]
    if saved["position"] != position or not found or found != planned[: len(found)]:
        return f"rounds of {found} at position {saved['position']}, allowed: some of {planned}, from the first on"
    if any(len(entry["rows"]) > sizes[entry["round"] - 1] for entry in rounds if entry["round"]):
        return f"more labels in a round than {sizes}"
    cost = saved["cost"]
    counted = set(vars(Cost()))
    if not counted - {"candidate_passes"} <= set(cost) <= counted or not all(
        n is None or type(n) in (int, float) for n in cost.values()
    ):
        return "cost: not the counters of a run"
    if wrong := listing(batches(position + 1))(saved.get("batches", []), "batches"):
        return wrong
    continues = labelling.start == "warm" and len(rounds) > 1
    return "" if isinstance(saved["state"], dict) == continues else "state: not what a round begins with"


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
