"""GEM and A-GEM: the gradient of new samples, projected so that it does not oppose those of exemplars."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Setup, Terms

Project = Callable[[Tensor, Tensor], Tensor]
"""A gradient (p,) and reference gradients (k, p) → the gradient to follow, (p,)."""


class Projected(Around[Sgd]):
    """A gradient of new samples alone, projected by reference gradients of exemplars. Final.

    The exemplars are not learnt from; they bound the step. References and gradient are of the mean cross-entropy, in
    train mode and under augmentation, each from a forward pass of its own: batch norm's running statistics move with
    the exemplars too, its batch statistics never mix old and new. Without exemplars it is fine-tuning.

    Args:
        setup: net, memory, transform, generators.
        project: The projection.
        by_task: Whether there is one reference for each earlier task, from all its exemplars in memory; otherwise there
            is a single one, from ``memory.batch_size`` exemplars that the retrieval chooses.
    """

    takes_average: ClassVar[bool] = True
    steps_together = False  # several passes a step, of batches that differ from seed to seed

    def __init__(self, setup: Setup, project: Project, *, by_task: bool) -> None:
        super().__init__(setup, Sgd(setup))
        self._project = project
        self._by_task = by_task
        self._position = 0
        self._parameters = [p for p in setup.net.parameters() if p.requires_grad]

    def begin(self, experience: Experience) -> None:
        """Note the experience, whose exemplars GEM does not use as a reference."""
        self._position = experience.position
        super().begin(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step along the projected gradient."""
        rows = [self._gradient(exemplars)[1] for exemplars in self._references(batch)]
        terms, gradient = self._gradient(batch)
        if rows:
            projected = self._project(gradient, torch.stack(rows))
            sizes = [p.numel() for p in self._parameters]
            for parameter, part in zip(self._parameters, projected.split(sizes), strict=True):
                parameter.grad = part.view_as(parameter)
        self.inner.apply()
        return terms

    def _references(self, batch: Exemplars) -> list[Exemplars]:
        """Return the exemplars of each reference gradient."""
        memory = self.setup.memory
        if not self._by_task:
            drawn = memory.sample(batch, self.setup.pool).exemplars
            return [] if drawn is None else [drawn]
        exemplars = memory.exemplars
        if exemplars is None:
            return []
        tasks = [task for task in exemplars.task.unique().tolist() if task != self._position]
        return [exemplars[exemplars.task == task] for task in tasks]

    def _gradient(self, samples: Exemplars) -> tuple[Terms, Tensor]:
        """Return the loss of samples and its gradient (p,), 0 for weights that the loss does not depend on."""
        terms = self.inner.backward(self.inner.prepare(samples, None))
        slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        return terms, torch.cat([slope.flatten() for slope in slopes])


def gem(setup: Setup, *, margin: float = 0.5, damping: float = 1e-3) -> Projected:
    """Gradient episodic memory: the nearest step that opposes no earlier task's gradient.

    Where ⟨g, g_k⟩ < 0 for any earlier task k in memory, g gives way to g̃ = g + Gᵀv (G: the g_k, a row each), with
    v = argmin_{v ≥ γ} ½ vᵀ(GGᵀ + εI)v + (Gg)ᵀv, the dual of min ½‖g̃ − g‖² so that Gg̃ ≥ 0. With γ = 0 and ε → 0 it is
    that projection; in general ⟨g̃, g_k⟩ ≥ −ε·v_k, and γ > 0 leans towards the earlier tasks. Else the step is
    fine-tuning's. The margin follows the authors' code, not the paper: it bounds v from below within the program, where
    the paper adds it to the program's solution.

    Tasks are experiences; every exemplar of a task counts in each step. Any buffer will do that keeps something of each
    task: class-balanced does; ring does only where classes do not come back.

    Args:
        margin: The memory strength γ.
        damping: The constant ε, which is absolute: it has more effect where gradients are short.

    Cost: a forward and backward pass of the whole memory each step, T gradients beside the net, and one wait for the
    device, since the dual (T variables) is solved on the CPU in double precision.
    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory for Continual Learning (NeurIPS 2017).

    Raises:
        InputError: if the margin is negative, or the damping is not above 0.
    """
    if not 0 <= margin < math.inf or not 0 < damping < math.inf:
        raise InputError(f"gem: found margin {margin} and damping {damping}, allowed: margin from 0, damping above 0")
    return Projected(setup, partial(nearest_agreeing, margin=margin, damping=damping), by_task=True)


def a_gem(setup: Setup) -> Projected:
    """Averaged GEM: one reference gradient, of a batch from memory, in closed form.

    g̃ = g − min(⟨g, r⟩, 0)/⟨r, r⟩ · r, the nearest step to g with ⟨g̃, r⟩ ≥ 0; r is the gradient of
    ``memory.batch_size`` exemplars. Nothing waits for the device. A buffer that is updated with every batch puts the
    current task into the reference too; the paper's memory holds earlier tasks alone (``update = "experience"``).

    Cost: a forward and backward pass of the memory batch, one gradient beside the net.
    Source: Chaudhry et al., Efficient Lifelong Learning with A-GEM (ICLR 2019).
    """
    return Projected(setup, not_opposing, by_task=False)


def nearest_agreeing(gradient: Tensor, references: Tensor, *, margin: float, damping: float) -> Tensor:
    """GEM's projection of a gradient (p,) by references (k, p); the gradient itself where none is opposed.

    With LLᵀ = GGᵀ + εI and u = v − γ ≥ 0 the dual is min ‖Lᵀu + L⁻¹b‖² with b = Gg + γ(GGᵀ + εI)1: non-negative least
    squares, whose active-set method is exact.
    """
    # one transfer; double, since the squares of gradients lose half the digits
    inner = np.asarray((references.double() @ torch.cat([references, gradient[None]]).double().T).cpu())
    gram, opposed = inner[:, :-1], inner[:, -1]
    if not np.isfinite(inner).all() or (opposed >= 0).all():  # a run that diverges is reported as such, later
        return gradient
    quadratic = gram + max(damping, 1e-12 * np.trace(gram)) * np.eye(len(gram))  # definite, however long the gradients
    lower = np.linalg.cholesky(quadratic)
    target = -np.linalg.solve(lower, opposed + margin * quadratic.sum(1))
    excess, _ = nnls(lower.T, target, maxiter=100 * len(gram))
    return gradient + torch.from_numpy(excess + margin).to(references) @ references


def not_opposing(gradient: Tensor, references: Tensor) -> Tensor:
    """A-GEM's projection of a gradient (p,) by one reference (1, p); the gradient itself where it is not opposed."""
    reference = references[0]
    length = reference.square().sum().clamp_min(torch.finfo(reference.dtype).tiny)
    return gradient - (gradient @ reference).clamp_max(0) / length * reference
