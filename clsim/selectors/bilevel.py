"""GLISTER: samples on which a training step lowers the loss of held-out samples."""

from __future__ import annotations

import torch

from clsim.errors import InputError
from clsim.pool.gradients import Gradients
from clsim.pool.pool import Pool, Selection
from clsim.selectors.reference import Served, served, served_by_prediction


def glister(pool: Pool, budget: int, *, rng: torch.Generator, lr: float = 0.1, refresh: int = 1) -> Selection:
    """Keep the samples that lower the loss on held-out samples most, in one step of the last layer.

    The next pick is argmax_i ⟨g_i, ∇L_V(θ − η Σ_{j∈S} g_j)⟩: how fast L_V falls if the step on S also goes along g_i.
    θ is the last layer, so each pick changes the logits of V by a rank-one update, and no net is trained. V consists of
    the held-out samples (``pool.reference``) of each class that the pool has. A class without held-out samples is
    represented by its own labelled candidates, as in DeepCore. Where no candidate has a label, V is the pool, labelled
    as predicted.

    Args:
        lr: η, the learning rate of the step; with η → 0, the picks are those with the b largest ⟨g_i, ∇L_V(θ)⟩.
        refresh: number of picks between two computations of ∇L_V; 1 is exact, more are faster.

    Needs: labels; gradients of the last layer, held-out samples.
    Cost: O(b·(n + v)·C·d) time for v held-out samples, O(n + v·C) memory beside the features.
    Source: Killamsetty et al., GLISTER: Generalization Based Data Subset Selection (AAAI 2021), algorithm 2 with the
        Taylor approximation, last layer.
    """
    labelled = pool.data.y >= 0
    validation = served(
        pool, torch.where(labelled, pool.data.y, pool.predictions), labelled if bool(labelled.any()) else None
    )
    return _greedy(pool.gradients, validation, min(budget, len(pool)), lr, refresh)


def glister_active(pool: Pool, budget: int, *, rng: torch.Generator, lr: float = 0.1, refresh: int = 1) -> Selection:
    """Query the samples that lower the loss on labelled samples most if their predicted labels are true.

    It is :func:`glister` with g_i at the predicted label ŷ_i. V consists of ``pool.reference``, the samples labelled
    already (``pool.labelled``) of classes without reference samples, and the candidates that are predicted to be of a
    known class of which there are neither. Without a reference, V is the samples labelled already; without these, the
    pool itself, labelled as predicted. No candidate's label is read.

    Args:
        lr: η, the learning rate of the step.
        refresh: number of picks between two computations of ∇L_V; 1 is exact, more are faster.

    Needs: gradients of the last layer at predicted labels, labelled samples.
    Cost: O(b·(n + v)·C·d) time for v held-out samples, O(n + v·C) memory beside the features.
    Source: Killamsetty et al., GLISTER: Generalization Based Data Subset Selection (AAAI 2021), section on active
        learning (GLISTER-ACTIVE).
    """
    return _greedy(pool.hypothetical_gradients, served_by_prediction(pool), min(budget, len(pool)), lr, refresh)


def _greedy(gradients: Gradients, validation: Served, budget: int, lr: float, refresh: int) -> Selection:
    if not 0 <= lr < torch.inf or refresh < 1:
        raise InputError(f"glister: found lr {lr} and refresh {refresh}, allowed: lr from 0, refresh from 1")
    features, logits = validation.features, validation.logits
    picks = torch.empty(budget, dtype=torch.int64, device=logits.device)
    for i in range(budget):
        if i % refresh == 0:
            slope = Gradients(validation.errors(logits) / validation.total, features).sum()
            gains = gradients.along(slope)
            gains[picks[:i]] = -torch.inf
        picks[i] = gains.argmax()
        gains[picks[i]] = -torch.inf
        pick = gradients[picks[i : i + 1]]
        logits = logits - lr * (features @ pick.h.T + 1) * pick.q
    return Selection(picks)
