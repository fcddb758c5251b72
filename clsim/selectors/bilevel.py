"""GLISTER: samples that a step on them makes good on held-out samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.pool.gradients import Gradients
from clsim.pool.pool import Pool, Selection
from clsim.selectors.grad_match import held_out


def glister(pool: Pool, budget: int, *, rng: torch.Generator, lr: float = 0.1, refresh: int = 1) -> Selection:
    """Keep what lowers the loss on held-out samples the most, in one step of the last layer.

    Greedily argmax_i ⟨g_i, ∇L_V(θ − η Σ_{j∈S} g_j)⟩: how fast L_V falls if the step on S also goes along g_i. θ is the
    last layer, so the logits of V follow a pick by a rank-one update, and no net is trained. V: the held-out samples
    (``pool.reference``) of the classes that the pool has; without any the pool's own labelled samples, as in DeepCore;
    without labels all of them, labelled as predicted.

    Args:
        lr: η of the step; a pick far from the others moves θ far. As η → 0, the b largest ⟨g_i, ∇L_V(θ)⟩.
        refresh: picks between two looks at ∇L_V; 1 is exact, more are faster.

    Needs: gradients of the last layer, held-out samples.
    Cost: O(b·(n + v)·C·d) time for v held-out samples, O(n + v·C) memory beside the features.
    Source: Killamsetty et al., GLISTER: Generalization Based Data Subset Selection (AAAI 2021), algorithm 2 with the
        Taylor approximation, last layer.
    """
    validation = held_out(pool)
    if validation is None:
        labelled = (pool.data.y >= 0).nonzero().flatten()
        validation = pool[labelled] if len(labelled) else pool
    y = torch.where(validation.data.y >= 0, validation.data.y, validation.predictions)
    return _greedy(pool.gradients, validation, y, min(budget, len(pool)), lr, refresh)


def glister_active(pool: Pool, budget: int, *, rng: torch.Generator, lr: float = 0.1, refresh: int = 1) -> Selection:
    """Query what lowers the loss on labelled samples the most, if the predicted labels are the true ones.

    :func:`glister` with hypothetical labels: g_i at ŷ_i. V: ``pool.reference``; without it the samples labelled already
    (``pool.labelled``); without these the pool itself, labelled as predicted. No candidate's label is read.

    Args:
        lr: η of the step.
        refresh: picks between two looks at ∇L_V.

    Needs: gradients of the last layer at predicted labels, labelled samples.
    Cost: O(b·(n + v)·C·d) time for v held-out samples, O(n + v·C) memory beside the features.
    Source: Killamsetty et al., GLISTER: Generalization Based Data Subset Selection (AAAI 2021), section on active
        learning (GLISTER-ACTIVE).
    """
    validation = pool if pool.labelled is None else pool.labelled
    validation = validation if pool.reference is None else pool.reference
    y = validation.predictions
    if validation is not pool:
        y = torch.where(validation.data.y >= 0, validation.data.y, y)
    return _greedy(pool.hypothetical_gradients, validation, y, min(budget, len(pool)), lr, refresh)


def _greedy(gradients: Gradients, validation: Pool, y: Tensor, budget: int, lr: float, refresh: int) -> Selection:
    if not 0 <= lr < torch.inf or refresh < 1:
        raise InputError(f"glister: found lr {lr} and refresh {refresh}, allowed: lr from 0, refresh from 1")
    features, logits = validation.features, validation.logits
    target = F.one_hot(y, logits.shape[1])
    picks = torch.empty(budget, dtype=torch.int64, device=logits.device)
    for i in range(budget):
        if i % refresh == 0:
            slope = Gradients((logits.softmax(1) - target) / max(len(y), 1), features).sum()
            gains = gradients.along(slope)
            gains[picks[:i]] = -torch.inf
        picks[i] = gains.argmax()
        gains[picks[i]] = -torch.inf
        pick = gradients[picks[i : i + 1]]
        logits = logits - lr * (features @ pick.h.T + 1) * pick.q
    return Selection(picks)
