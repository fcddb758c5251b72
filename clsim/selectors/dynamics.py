"""Training dynamics: samples that are forgotten, and samples with large gradients early in training."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.pool.scoring import History
from clsim.selectors.scores import highest


def forgetting(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keep the samples that a net forgets most often while it is trained on the pool.

    The score is the number of forgetting events, Σ_t [right after epoch t, wrong after epoch t + 1]. A sample that is
    never right counts as forgotten infinitely often; an unlabelled one comes last. Ties, which are frequent with few
    epochs, go to the larger mean loss over the epochs; the paper leaves them open. The paper tests a sample each time
    it is trained on; here every sample is tested after each epoch, in eval mode, so that its augmentation does not
    matter.

    Needs: labels; training dynamics of a proxy.
    Cost: a proxy's training, then O(epochs·n) time.
    Source: Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning (ICLR 2019),
        definition 1 and algorithm 1.
    """
    history = pool.history
    return Selection(highest(forgetting_events(history), budget, ties=history.losses.mean(0)))


def forgetting_events(history: History) -> Float[Tensor, " n"]:
    """Count how often each sample was forgotten: float32 (n,); ∞ if it was never learnt, −1 if it is unlabelled.

    >>> right = torch.tensor([[True, False, False, True], [False, True, False, True], [True, True, False, True]])
    >>> forgetting_events(History(right, right.float(), right.float()))
    tensor([1., 0., inf, 0.])
    """
    right = history.correct
    events = (right[:-1] & ~right[1:]).sum(0).float()
    return events.masked_fill(~right.any(0), torch.inf).masked_fill(history.losses.isnan().all(0), -1)


def grand(pool: Pool, budget: int, *, rng: torch.Generator, nets: int = 10) -> Selection:
    """Keep the samples whose gradients are large early in training.

    The score is GraNd, E‖g‖ over nets that were trained for a few epochs (``proxy.epochs``) from different first
    weights, where g is the gradient of the last layer, ‖g‖ = ‖p − e_y‖·√(1 + ‖h‖²). The paper uses the gradient of all
    layers, after no or few epochs; the last layer is DeepCore's form. An unlabelled sample counts with its predicted
    label.

    Args:
        nets: number of fresh nets to average over; 0: the pool's own net instead.

    Needs: labels; a committee of proxies.
    Cost: ``nets`` trainings, then O(nets·n·(C + d)) time, O(n) memory beside the features.
    Source: Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet (NeurIPS 2021), definition 2.1.
    """
    members = _members(pool, nets, "grand")
    norms = torch.stack([m.gradients.squares.sqrt() for m in members])
    return Selection(highest(norms.mean(0), budget, ties=pool.data.key))


def el2n(pool: Pool, budget: int, *, rng: torch.Generator, nets: int = 10) -> Selection:
    """Keep the samples whose predictions are far from their labels early in training.

    The score is EL2N, E‖p − e_y‖₂ over nets that were trained for a few epochs (``proxy.epochs``) from different first
    weights. An unlabelled sample counts with its predicted label.

    Args:
        nets: number of fresh nets to average over; 0: the pool's own net instead.

    Needs: labels; a committee of proxies.
    Cost: ``nets`` trainings, then O(nets·n·C) time, O(n) memory.
    Source: Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet (NeurIPS 2021), definition 2.2.
    """
    members = _members(pool, nets, "el2n")
    errors = torch.stack([m.gradients.q.norm(dim=1) for m in members])
    return Selection(highest(errors.mean(0), budget, ties=pool.data.key))


def _members(pool: Pool, nets: int, name: str) -> list[Pool]:
    if nets < 0:
        raise InputError(f"{name}: nets: found {nets}, allowed: 0 or more")
    return pool.committee(nets) if nets else [pool]
