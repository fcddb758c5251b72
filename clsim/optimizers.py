"""Optimizers by name, and the learning rate at each step of an experience."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from clsim.specs import OptimizerSpec


def build(spec: OptimizerSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """A fresh optimizer; ``momentum`` and ``nesterov`` are SGD's."""
    if spec.name == "sgd":
        return torch.optim.SGD(
            parameters, spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, nesterov=spec.nesterov
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.name]
    return kind(parameters, spec.lr, weight_decay=spec.weight_decay)


def rate(spec: OptimizerSpec, step: int, steps: int, falls: int = 0) -> float:
    """The learning rate of step 0 … steps − 1 of an experience.

    Linear warm-up, then constant; cosine, lr · ½(1 + cos(π·progress)) (Loshchilov & Hutter, SGDR, 2017);
    × gamma at each milestone; or × gamma at each of the ``falls`` that a plateau brought.

    >>> rate(OptimizerSpec(lr=1.0, schedule="step", milestones=(0.5,)), 5, 10)
    0.1
    >>> round(rate(OptimizerSpec(lr=1.0, schedule="cosine"), 5, 10), 3)
    0.5
    """
    warmup = spec.warmup * steps
    if step < warmup:
        return spec.lr * (step + 1) / math.ceil(warmup)
    if spec.schedule == "cosine":
        progress = (step - warmup) / max(steps - warmup, 1)
        return spec.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if spec.schedule == "step":
        return spec.lr * spec.gamma ** sum(step >= m * steps for m in spec.milestones)
    if spec.schedule == "plateau":
        return spec.lr * spec.gamma**falls
    return spec.lr
