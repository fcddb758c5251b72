"""Optimizers by name, and the learning rate at each step of an experience."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from clsim.spec.tables import OptimizerSpec

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)


@functools.cache
def light(kind: type[Kind]) -> type[Kind]:
    """Derive from a class of torch's optimizers one that does not import torch's compiler; its arithmetic is the same.

    torch wraps the methods of its optimizers so that ``torch.compile`` leaves them alone. The wrappers import the
    compiler when an optimizer is made, which takes as long as to import torch itself, and no net is compiled here.

    Args:
        kind: the class of optimizers, such as ``torch.optim.SGD``.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad", "step")
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    bare["step"] = torch.no_grad()(bare["step"])
    return type(kind.__name__, (kind,), bare)


def build(
    spec: OptimizerSpec,
    parameters: Iterable[nn.Parameter],
    head: Iterable[nn.Parameter] = (),
    *,
    on_device: bool = False,
) -> torch.optim.Optimizer:
    """Make a fresh optimizer; ``momentum`` and ``nesterov`` are for SGD and LARS alone.

    Args:
        head: the classifier's parameters among all, which have a learning rate of their own under LARS.
        on_device: whether a step is to run on the device alone, its learning rate a tensor there
            (:func:`set_rate` sets either kind); its arithmetic is fused (NAdam's is not), and may differ in the last
            bit.
    """
    fused = True if on_device else None
    optimizer: torch.optim.Optimizer
    if spec.name == "lars":
        optimizer = light(Lars)(_lars_groups(spec, list(parameters), list(head)), spec, fused=fused)
    elif spec.name == "sgd":
        optimizer = light(torch.optim.SGD)(
            parameters,
            spec.lr,
            momentum=spec.momentum,
            weight_decay=spec.weight_decay,
            nesterov=spec.nesterov,
            fused=fused,
        )
    elif spec.name == "nadam":  # has no fused form, and its capturable form refuses a CPU
        weights = list(parameters)
        capturable = on_device and all(w.device.type != "cpu" for w in weights)
        optimizer = light(torch.optim.NAdam)(weights, spec.lr, weight_decay=spec.weight_decay, capturable=capturable)
    else:
        kind: Any = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.name]
        optimizer = light(kind)(parameters, spec.lr, weight_decay=spec.weight_decay, fused=fused, capturable=on_device)
    if on_device:
        rates_on_device(optimizer)
    return optimizer


def load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a state, whose tensors must have the shapes of the weights that they belong to.

    Raises:
        ValueError: if they do not.
    """
    optimizer.load_state_dict(state)
    for weight, kept in optimizer.state.items():
        for name, value in kept.items():
            known = value is None or type(value) in (bool, int, float)
            if not known and not (isinstance(value, Tensor) and value.shape in (weight.shape, ())):
                found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"optimizer: {name!s:.40}: found {found}, allowed: {tuple(weight.shape)}")


def rates_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Make the learning rate of every group a tensor beside its parameters, as a step that a GPU records reads it."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, times the group's own ``scale`` where it has one; nothing waits for it."""
    for group in optimizer.param_groups:
        scaled = rate * group.get("scale", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled


class Lars(torch.optim.SGD):
    """SGD with momentum, each weight tensor's gradient scaled to the size of the weights. Final.

    g ← (∇L + λw) · trust · ‖w‖ / (‖∇L‖ + λ‖w‖), then v ← μv + g, w ← w − lr · v. So the loss may be scaled without
    changing a step, as long as λ = 0. Where w or its gradient is 0, and in groups that are not ``adapted`` (biases and
    the parameters of norms, but for the classifier's), g is ∇L + λw.

    Args:
        groups: parameter groups as SGD takes them, each also with ``adapted`` (whether its gradients are scaled) and
            ``scale`` (a factor of the learning rate).

    Source: You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks (2017), algorithm 1.
    """

    def __init__(self, groups: list[dict[str, Any]], spec: OptimizerSpec, *, fused: bool | None = None) -> None:
        super().__init__(groups, spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=fused)
        self._trust = spec.trust

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Scale the gradients in place, then a step of SGD."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if not (weights and group["adapted"]):
                continue
            # all weights in one call each: on a GPU, a kernel of many tensors in place of as many kernels
            gradients, decay = [w.grad for w in weights], group["weight_decay"]
            size, slope = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, gradients))
            ratio = self._trust * size / (slope + decay * size).clamp_min(1e-30)
            # SGD adds λw itself: scaled gradient and scaled decay, less the decay to come
            torch._foreach_add_(gradients, weights, alpha=decay)
            torch._foreach_mul_(gradients, torch.where((size > 0) & (slope > 0), ratio, 1.0).unbind())
            torch._foreach_sub_(gradients, weights, alpha=decay)
        return inspect.unwrap(torch.optim.SGD.step)(self, closure)  # see light


def _lars_groups(spec: OptimizerSpec, parameters: list[nn.Parameter], head: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Group weights, vectors (biases, norms: not adapted, no decay), and the head: adapted as a whole, without decay.

    The head is as in the code of NNCSL, which excludes biases of the other layers alone.
    """
    heads = {id(p) for p in head}
    scale = spec.head_lr / spec.lr if spec.head_lr else 1.0
    others = [p for p in parameters if id(p) not in heads]
    kinds = [
        ([p for p in others if p.ndim > 1], spec.weight_decay, True, 1.0),
        ([p for p in others if p.ndim <= 1], 0.0, False, 1.0),
        ([p for p in parameters if id(p) in heads], 0.0, True, scale),
    ]
    return [
        {"params": chosen, "weight_decay": decay, "adapted": adapted, "scale": factor}
        for chosen, decay, adapted, factor in kinds
        if chosen
    ]


@dataclass
class Pace:
    """How far the schedule of the learning rate has come in an experience.

    Attributes:
        step: the number of steps taken.
        steps: the number of steps in the experience.
        epoch: the number of steps in an epoch.
    """

    step: int = 0
    steps: int = 0
    epoch: int = 1


def rate(spec: OptimizerSpec, step: int, steps: int, falls: int = 0, epoch: int = 1) -> float:
    """Compute the learning rate of a step; those of an experience are 0 … steps − 1.

    Linear warm-up from ``lr_start``; then, by ``schedule``, constant; cosine, lr_end + (lr − lr_end) · ½(1 +
    cos(π·progress)) (Loshchilov & Hutter, SGDR, 2017), once or in cycles that follow each other (``restarts``);
    × gamma at each milestone; or × gamma at each of the ``falls`` that :class:`Plateau` counted.

    Args:
        spec: the optimizer's table.
        step: the number of the step.
        steps: the number of steps in the experience.
        falls: how often a plateau was met.
        epoch: the number of steps in an epoch, for ``restarts``, whose rate changes with each epoch alone.

    >>> rate(OptimizerSpec(lr=1.0, schedule="step", milestones=(0.5,)), 5, 10)
    0.1
    >>> round(rate(OptimizerSpec(lr=1.0, schedule="cosine"), 5, 10), 3)
    0.5
    >>> spec = OptimizerSpec(lr=1.0, schedule="restarts", lr_start=0.1)
    >>> [round(rate(spec, step, 12, epoch=1), 2) for step in range(12)]
    [0.1, 1.0, 1.0, 0.5, 1.0, 0.85, 0.5, 0.15, 1.0, 0.96, 0.85, 0.69]
    """
    warmup = spec.warmup * steps
    if step < warmup:
        return spec.lr_start + (spec.lr - spec.lr_start) * (step + 1) / math.ceil(warmup)
    if spec.schedule == "restarts":
        return _restarted(spec, step // epoch)
    if spec.schedule == "cosine":
        return _cosine(spec, (step - warmup) / max(steps - warmup, 1))
    if spec.schedule == "step":
        return spec.lr * spec.gamma ** sum(step >= m * steps for m in spec.milestones)
    if spec.schedule == "plateau":
        return spec.lr * spec.gamma**falls
    return spec.lr


def _restarted(spec: OptimizerSpec, epoch: int) -> float:
    """Compute the rate of an epoch, counted from 0."""
    first = spec.lr_start > 0
    if first and not epoch:
        return spec.lr_start
    within, length = epoch - first, spec.cycle
    while within >= length:
        within, length = within - length, length * spec.cycle_growth
    return _cosine(spec, within / length)


def _cosine(spec: OptimizerSpec, progress: float) -> float:
    return spec.lr_end + (spec.lr - spec.lr_end) * 0.5 * (1 + math.cos(math.pi * progress))


class Average:
    """The running mean of the weights after the last steps of a training. Final.

    w̄ ← (w̄·k + w) / (k + 1) for the k-th weights that enter. With S steps and a share a, these are the weights after the
    last step, after every ``every`` steps before it, as far back as step S − ⌈a·S⌉ exclusive.

    Args:
        spec: the optimizer's table, of which ``average`` and ``average_every`` are read.
        parameters: the weights.
        pace: the number of steps, taken and in all.

    Cost: a copy of the weights in training; in steps that enter, one pass over them.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization (UAI 2018), algorithm 1;
    the share, and the distance counted from the end, are ours.
    """

    def __init__(self, spec: OptimizerSpec, parameters: Sequence[nn.Parameter], pace: Pace) -> None:
        self._spec, self._parameters, self._pace = spec, parameters, pace
        self._mean: list[Tensor] = []
        self._taken = 0

    def begin(self) -> None:
        """Forget the mean, for another training."""
        self._mean, self._taken = [], 0

    @torch.no_grad()
    def step(self) -> None:
        """Let the weights enter, if the step just taken is one of those whose weights do."""
        pace, every = self._pace, self._spec.average_every or self._pace.epoch
        left = pace.steps - pace.step
        if not 0 <= left < math.ceil(self._spec.average * pace.steps) or left % every:
            return
        if not self._taken:
            self._mean = [p.detach().clone() for p in self._parameters]
        torch._foreach_lerp_(self._mean, list(self._parameters), 1 / (self._taken + 1))
        self._taken += 1

    @torch.no_grad()
    def settle(self) -> bool:
        """Put the mean in the place of the weights, and forget it; return whether there was one."""
        for mean, p in zip(self._mean, self._parameters, strict=bool(self._taken)):
            p.copy_(mean)
        found = self._taken > 0
        self.begin()
        return found


class Plateau:
    """A counter of epochs that brought no gain in validation accuracy. Final.

    In the survey of De Lange et al. (TPAMI 2021), the learning rate falls to a tenth after 5 epochs in a row without a
    gain, training stops after more than 10, and the best epoch's model is kept.

    Args:
        fall: number of epochs in a row without a gain after which the rate falls, and at each multiple; 0 = never.
        stop: number of epochs in a row without a gain beyond which training stops; 0 = never.

    Attributes:
        falls: how often the rate has fallen in this experience.
    """

    def __init__(self, fall: int = 0, stop: int = 0) -> None:
        self._fall, self._stop = fall, stop
        self.begin()

    @property
    def watches(self) -> bool:
        """Whether validation accuracies are needed."""
        return bool(self._fall or self._stop)

    def begin(self) -> None:
        """Count anew, for a new experience or for what follows its last epoch: the rate is the full one again."""
        self.falls = self._without = 0
        self._best = -1.0

    def epoch(self, accuracy: float) -> bool:
        """Count an epoch; return whether its accuracy is a gain, that is, above the best so far."""
        if accuracy > self._best:
            self._best, self._without = accuracy, 0
            return True
        self._without += 1
        if self._fall and self._without % self._fall == 0:
            self.falls += 1
        return False

    @property
    def over(self) -> bool:
        """Whether training is to stop."""
        return 0 < self._stop < self._without
