"""Functions of learners that give each task a part of the net: they hold the parts of earlier tasks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net
from clsim.streams.stream import Experience
from clsim.training.contract import Setup

_WITH_STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d)


def need_tasks(setup: Setup, learner: str) -> None:
    """Refuse a stream in which the task is not known when predicting.

    Raises:
        InputError: naming setting and learner.
    """
    setting = setup.spec.stream.setting
    if setting != "task":
        raise InputError(
            f"stream.setting: found {setting!r}, but {learner} predicts with a part of the net that belongs to the "
            "task of the sample; allowed: task"
        )


def apply_within(sgd: Sgd, net: Net, shares: Mapping[str, Tensor]) -> None:
    """Take one step of the optimizer, of which each weight takes its share: θ ← θ + m ⊙ Δθ.

    Under SGD, with or without momentum, this equals scaling the gradient by m, if m is the same in all steps. Weight
    decay is scaled too, and so are the steps of Adam, whose size does not depend on the scale of the gradient. A weight
    of share 0 stays bit for bit.

    Args:
        sgd: The learner, after its :meth:`~clsim.learners.sgd.Sgd.backward`.
        net: The net that it trains.
        shares: The shares m, from 0 to 1, by the parameter's name; other parameters take the whole step.
    """
    held = [(net.get_parameter(name), share) for name, share in shares.items()]
    before = [parameter.detach().clone() for parameter, _ in held]
    sgd.apply()
    with torch.no_grad():
        for (parameter, share), old in zip(held, before, strict=True):
            parameter.copy_(old.lerp_(parameter, share))


def head_shares(net: Net, experience: Experience) -> dict[str, Tensor]:
    """Return shares by which the head's rows of the experience's classes may move, and no others."""
    rows = torch.zeros_like(net.head.bias)
    rows[list(experience.classes)] = 1
    return {"head.weight": rows[:, None], "head.bias": rows}


def hold_statistics(net: Net) -> None:
    """Put the net in train mode, but keep the running statistics of its norms as they are."""
    net.train()
    for module in net.modules():
        if isinstance(module, _WITH_STATISTICS):
            module.eval()


def tasks_of(experience: Experience) -> list[int]:
    """Return the tasks of the experience's samples: one, or several where experiences are presented together."""
    return experience.train.task.unique().tolist()
