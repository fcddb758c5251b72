"""Dark experience replay: exemplars are stored with the logits that the net computed for them."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.models.nets import Net, evaluating
from clsim.objectives.replay import losses
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Terms


class Dark(Objective):
    """Cross-entropy on new samples, and the distance to stored logits on exemplars. Final.

    L = CE(new) + α · mean_i mean_c (f_c(x_i) − z_ic)² + β · CE(exemplars that carry no logits), each a weighted mean
    over its samples; c runs over the classes that the exemplar's task may use (all, where it is unknown).
    α belongs to this mean; with a squared norm ‖·‖², which is larger by the number of classes, it would be smaller.

    With ``memory.update = "batch"`` the memory stores the logits of the step itself (of its last pass; augmented, in
    train mode, before the weights moved), as in the paper. With ``"experience"`` it stores the logits of the net at the
    end of the experience, in eval mode and without augmentation; so it does after each step whose samples were chosen
    out of candidates (table ``batch``), since the memory is offered all of these. A sample is offered to the memory
    once; with several epochs, ``"batch"`` therefore stores logits of the first epoch. Logits that a task does not have
    are stored as 0 and never read. New and replayed samples pass through the net together: batch norm sees both.

    Args:
        setup: net, memory, transform.
        alpha: The weight α ≥ 0 of the distance to the stored logits.
        beta: The weight β ≥ 0 of the labels of exemplars without logits.

    Cost: a row of float32 logits for each exemplar.
    Source: Buzzega et al., Dark Experience for General Continual Learning: a Strong, Simple Baseline (NeurIPS 2020):
    DER; with β, on a second batch from memory, DER++.
    """

    one_pass: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, alpha: float, beta: float = 0.0) -> None:
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not 0 <= value < math.inf:
                raise InputError(f"der: {name}: found {value}, allowed: a finite number from 0")
        self._setup = setup
        self._alpha = alpha
        self._beta = beta
        self._whole: Exemplars | None = None
        self._logits: Tensor | None = None

    def begin(self, experience: Experience) -> None:
        """Note the samples of the experience, so that :meth:`remember` can tell them from a batch."""
        self._whole, self._logits = experience.train, None

    def told(self, experience: Experience) -> None:
        """Note the samples of the experience anew."""
        self._whole = experience.train

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return the term ``new``; with exemplars also ``logits`` and, if β > 0, ``memory``."""
        n, new = len(batch.y), batch.new
        out = net(batch.x, batch.task)
        finite = out.masked_fill(~net.visible[batch.task], 0.0)
        self._logits = finite[:new].detach()
        weight = out.new_ones(n) if batch.weight is None else batch.weight
        by_label = losses(out, batch)
        terms = {"new": _mean(by_label[:new], weight[:new])}
        if new == n:
            return terms
        old = weight[new:]
        stored = torch.zeros_like(old, dtype=torch.bool)
        if batch.soft is not None:
            stored = ~batch.soft[new:, 0].isnan()
            visible = net.visible[batch.task[new:]]
            gap = (finite[new:] - batch.soft[new:]).masked_fill(~(visible & stored[:, None]), 0.0)
            distance = gap.square().sum(1) / visible.sum(1)
            terms["logits"] = self._alpha * _mean(distance, old * stored)
        if self._beta:
            terms["memory"] = self._beta * _mean(by_label[new:], old * ~stored)
        return terms

    def finish(self, experience: Experience) -> None:
        """Let go of the samples and logits of the experience."""
        self._whole = self._logits = None

    def remember(self, samples: Exemplars) -> Exemplars:
        """Return the samples with their logits, if the memory is about to choose among them."""
        whole = samples is self._whole
        if whole != (self._setup.spec.memory.update == "experience") or self._setup.spec.memory.buffer == "none":
            return samples
        chosen = self._setup.spec.batch.chooses  # then the step was taken on some of the samples alone
        soft = self._of_the_net(samples) if whole or chosen else self._logits
        return dataclasses.replace(samples, soft=soft)

    def _of_the_net(self, samples: Exemplars) -> Tensor:
        """Return logits in eval mode, without augmentation; 0 for classes that a task does not have."""
        setup, size = self._setup, self._setup.spec.evaluation.batch_size
        parts = []
        with evaluating(setup.net), torch.no_grad(), setup.precision():
            for start in range(0, len(samples), size):
                some = samples[start : start + size]
                out = setup.net(setup.transform.plain(some.x), some.task)
                parts.append(out.masked_fill(~setup.net.visible[some.task], 0.0))
        setup.cost.forward_passes += len(samples)
        return torch.cat(parts)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of values; 0 if all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)
