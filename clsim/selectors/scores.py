"""Measures of the uncertainty of a softmax and of the disagreement of several; the rows with the highest score."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.errors import nearest as nearest_name

Uncertainty = Literal["margin", "least-confidence", "entropy"]
"""1 − (p₍₁₎ − p₍₂₎), 1 − max p, or −Σ p log p."""

_FEW = 4096
"""Up to so many rows, numpy sorts by two keys in less time than torch by each."""


def highest(score: Float[Tensor, " n"], budget: int, ties: Float[Tensor, " n"] | None = None) -> Int[Tensor, " m"]:
    """Find the rows with the highest score, best first, then by ``ties``, then by row: int64 (min(budget, n),).

    NaN is below every number.

    >>> highest(torch.tensor([0.0, torch.nan, 2.0, 2.0]), 3, ties=torch.tensor([0.0, 0.0, 1.0, 2.0]))
    tensor([3, 2, 0])
    """
    keys = [score] if ties is None else [ties, score]
    if len(score) <= _FEW and all(key.device.type == "cpu" and key.dtype == torch.float32 for key in keys):
        return torch.from_numpy(np.lexsort([-np.fmax(np.asarray(key.detach()), -np.inf) for key in keys])[:budget])
    if ties is None:
        return _falling(score)[:budget]
    order = _falling(ties)  # a stable sort by the lesser key first
    return order.index_select(0, _falling(score.index_select(0, order))[:budget])


def _falling(key: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Order rows by a key, the highest first, equal ones by row, NaN as −inf."""
    return key.nan_to_num(-torch.inf, torch.inf, -torch.inf).argsort(descending=True, stable=True)


def least_confidences(p: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """Compute 1 − max_c p_c of (…, C)."""
    return 1 - p.amax(-1)


def entropies(p: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """Compute −Σ_c p_c log p_c of (…, C), in nats; 0·log 0 = 0.

    >>> entropies(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([0.0000, 0.6931])
    """
    return torch.special.entr(p).sum(-1)


def margins(p: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """Compute p₍₁₎ − p₍₂₎ of (…, C): small is uncertain; 1 where there is a single class."""
    top = F.pad(p, (0, 1)).topk(2, -1).values
    return top[..., 0] - top[..., 1]


def discrepancies(p: Float[Tensor, "n classes"], q: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """Compute ‖p − q‖₂ of each row: how far apart two nets' outputs for a sample are.

    >>> discrepancies(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    tensor([1.4142, 0.0000])
    """
    return torch.linalg.vector_norm(p - q, dim=1)


def uncertainties(
    logits: Float[Tensor, "n classes"], measure: Uncertainty = "entropy", temperature: float = 1.0
) -> Float[Tensor, " n"]:
    """Compute how uncertain the softmax of logits / temperature is, as weights: (n,), from 0 to 1.

    They are in parts of the largest, so that equal ones are all 1; where all are 0, all are 1.

    Raises:
        InputError: if there is no such measure, or the temperature is not a positive number.
    """
    if not 0 < temperature < torch.inf:
        raise InputError(f"temperature: found {temperature}, allowed: above 0, finite")
    if measure not in get_args(Uncertainty):
        raise InputError(f"uncertainty: found {measure!r}; {nearest_name(str(measure), get_args(Uncertainty))}")
    p = (logits / temperature).softmax(1)
    of = {"margin": lambda p: 1 - margins(p), "least-confidence": least_confidences, "entropy": entropies}
    found = of[measure](p).clamp_min(0)
    most = found.amax() if len(found) else 0.0
    return found / most if most > 0 else torch.ones_like(found)


def vote_shares(p: Float[Tensor, "nets n classes"]) -> Float[Tensor, "n classes"]:
    """Compute the share of nets that vote for each class, (n, C), from the nets' softmax (T, n, C)."""
    return F.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype).mean(0)


def informations(p: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute I(y; ω) = H(Σ_t w_t p_t) − Σ_t w_t H(p_t) in nats, never below 0: how much the nets disagree.

    Args:
        p: (T, n, C), the softmax of each net.
        weight: (…, T), the weight of each net, with sum 1; None: all are equal.

    Returns:
        (…, n).
    """
    if weight is None:
        weight = p.new_full((len(p),), 1 / len(p))
    mixed = torch.einsum("...t,tnc->...nc", weight, p)
    return (entropies(mixed) - weight @ entropies(p)).clamp_min(0)


def filled(picks: Int[Tensor, " k"], score: Float[Tensor, " n"], budget: int) -> Int[Tensor, " m"]:
    """Fill the picks up to the budget with the other rows that have the highest score."""
    if len(picks) == budget:
        return picks
    rest = torch.ones(len(score), dtype=torch.bool, device=score.device)
    rest[picks] = False
    rows = rest.nonzero().flatten()
    return torch.cat([picks, rows[highest(score[rows], budget - len(picks))]])


def ranks_within(group: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Count, for each row, the rows of its group that stand before it: int64 (n,).

    >>> ranks_within(torch.tensor([5, 2, 5, 5, 2]))
    tensor([0, 0, 1, 2, 1])
    """
    by_group = group.argsort(stable=True)
    first = torch.searchsorted(group[by_group], group[by_group])  # where each one's group begins
    ranks = torch.empty_like(by_group)
    ranks[by_group] = torch.arange(len(group), device=group.device) - first
    return ranks
