"""Query samples whose prediction a small change of the input flips."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from clsim.errors import at_least
from clsim.models.nets import Net, evaluating
from clsim.pool.pool import Pool, Selection
from clsim.selectors.boundary import boundary_distances
from clsim.selectors.scores import filled, highest

Logits = Callable[[Tensor], Tensor]
"""Inputs (m, …) → logits (m, C)."""


def deepfool(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    iterations: int = 50,
    classes: int = 10,
    candidates: int = 0,
) -> Selection:
    """Query the samples whose prediction flips under the smallest perturbation: the lowest ‖Σ r‖₂.

    With f'_k = f_k − f_ŷ and w'_k = ∇f_k − ∇f_ŷ at x + 1.02·Σ r, each step adds r = |f'_k| / ‖w'_k‖² · w'_k of the
    class k with the lowest |f'_k| / ‖w'_k‖, until the prediction changes. For a linear net, one step is the exact
    distance to the boundary. Samples whose prediction does not change within ``iterations`` come last; equal norms are
    ranked by ``boundary-margin``. Norms are in units of the net's normalised input.

    Args:
        iterations: steps per sample at most.
        classes: number of likeliest classes that are tried; the nearest class is nearly always among them.
        candidates: number of samples that are tried, those with the lowest boundary margin; the others follow in the
            order of that margin; 0: all are tried.

    Needs: input gradients.
    Cost: up to ``iterations``·(``classes`` + 1) backward passes, usually two to five steps.
    Source: Moosavi-Dezfooli, Fawzi & Frossard, DeepFool (CVPR 2016), algorithm 2; as an acquisition Ducoffe & Precioso,
        Adversarial Active Learning for Deep Networks (2018).
    """
    at_least(1, iterations=iterations)
    at_least(2, classes=classes)

    def step(logits: Logits, x: Tensor, change: Tensor, predicted: Tensor, top: Tensor) -> Tensor:
        moved = (x + 1.02 * change).requires_grad_()
        out = logits(moved)
        gradients = torch.stack(
            [torch.autograd.grad(out.gather(1, c).sum(), moved, retain_graph=True)[0] for c in top.T[..., None]], 1
        )  # (m, classes, …), that of the prediction first
        towards = (gradients[:, 1:] - gradients[:, :1]).flatten(2)
        ahead = (out.gather(1, top[:, 1:]) - out.gather(1, predicted[:, None])).detach().abs()
        length = towards.norm(dim=2)
        distance = torch.where(length > 0, ahead / length, torch.inf)
        nearest = distance.argmin(1)[:, None]
        by = (distance / length).gather(1, nearest)  # ∞ where no class can be reached: that sample stays
        r = by.where(by.isfinite(), 0.0) * towards.gather(1, nearest[..., None].expand(-1, -1, towards.shape[2]))[:, 0]
        return change + r.view_as(change)

    return _least_changed(pool, budget, step, iterations, classes, candidates, overshoot=1.02)


def adversarial_bim(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    epsilon: float = 0.05,
    iterations: int = 50,
    candidates: int = 0,
) -> Selection:
    """Query the samples whose prediction flips after the fewest sign-gradient steps: the lowest ‖η‖₂.

    η += ε·sign ∇_x CE(f(x + η), ŷ), until the prediction changes. The gradient's sign is that of
    logsumexp_{c≠ŷ} f_c − f_ŷ, of which the cross-entropy is a rising function, but which does not vanish where the
    softmax is certain. Samples whose prediction does not change within ``iterations`` come last; equal norms are
    ranked by ``boundary-margin``.

    Args:
        epsilon: ε, the size of a step in units of the net's normalised input.
        iterations: steps per sample at most.
        candidates: number of samples that are tried, those with the lowest boundary margin; the others follow in the
            order of that margin; 0: all are tried.

    Needs: input gradients.
    Cost: up to ``iterations`` backward passes.
    Source: Kurakin, Goodfellow & Bengio, Adversarial Examples in the Physical World (ICLR workshops 2017); as an
        acquisition Zhan et al., A Comparative Survey of Deep Active Learning (2022).
    """
    at_least(1, iterations=iterations)

    def step(logits: Logits, x: Tensor, change: Tensor, predicted: Tensor, top: Tensor) -> Tensor:
        moved = (x + change).requires_grad_()
        out = logits(moved)
        others = out.scatter(1, predicted[:, None], -math.inf).logsumexp(1)
        lead = others - out.gather(1, predicted[:, None])[:, 0]
        return change + epsilon * torch.autograd.grad(lead.sum(), moved)[0].sign()

    return _least_changed(pool, budget, step, iterations, 2, candidates, overshoot=1.0)


def _logits(net: Net, task: Tensor, x: Tensor) -> Tensor:
    return net(x.clone(), task)  # a copy: a net may begin in place, which a leaf does not allow


def _least_changed(
    pool: Pool,
    budget: int,
    step: Callable[[Logits, Tensor, Tensor, Tensor, Tensor], Tensor],
    iterations: int,
    classes: int,
    candidates: int,
    overshoot: float,
) -> Selection:
    """Rank the pool by the norm of the change that flips the prediction, the smallest first."""
    margin = boundary_distances(pool).amin(1)
    rows = highest(-margin, max(candidates, budget) if candidates else len(pool))
    sizes = [least_changes(pool, part, step, iterations, classes, overshoot) for part in rows.split(250)]
    size = torch.cat([*sizes, margin[:0]])
    # rows stand by margin, which decides where sizes are equal
    return Selection(filled(rows[highest(-size, budget)], -margin, min(budget, len(pool))))


def least_changes(
    pool: Pool,
    rows: Tensor,
    step: Callable[[Logits, Tensor, Tensor, Tensor, Tensor], Tensor],
    iterations: int,
    classes: int,
    overshoot: float,
) -> Tensor:
    """Compute ‖change‖₂ of the change that flips each row's prediction; ∞ where none was found."""
    net, task = pool.net, pool.data.task[rows]
    x = pool.inputs(rows).float()
    sizes = torch.full((len(rows),), torch.inf, device=x.device)
    with evaluating(net):
        with torch.no_grad():
            first = net(x, task)
        top = first.topk(min(classes, first.shape[1]), 1).indices
        active = (net.visible[task].sum(1) > 1).nonzero().flatten()
        change = torch.zeros_like(x)[active]
        for _ in range(iterations):
            if not len(active):
                break
            kind = task[active]
            predicted = top[active, 0]
            new = step(partial(_logits, net, kind), x[active], change, predicted, top[active])
            stuck = (new == change).flatten(1).all(1)  # no class can be reached from there
            change = new
            with torch.no_grad():
                flipped = net(x[active] + overshoot * change, kind).argmax(1) != predicted
            pool.cost.forward_passes += 2 * len(active)
            sizes[active[flipped]] = change[flipped].flatten(1).norm(dim=1)
            going_on = ~(flipped | stuck)
            active, change = active[going_on], change[going_on]
    return sizes
