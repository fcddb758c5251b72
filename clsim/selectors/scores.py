"""How uncertain a softmax is, and how much several disagree; and the rows with the highest score."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def highest(score: Float[Tensor, " n"], budget: int, ties: Float[Tensor, " n"] | None = None) -> Int[Tensor, " m"]:
    """The rows with the highest score, best first; then by ``ties``, then the earlier row. int64 (min(budget, n),).

    NaN is below every number.

    >>> highest(torch.tensor([0.0, torch.nan, 2.0, 2.0]), 3, ties=torch.tensor([0.0, 0.0, 1.0, 2.0]))
    tensor([3, 2, 0])
    """
    order = torch.arange(len(score), device=score.device)
    for key in (ties, score):  # a stable sort by the lesser key first
        if key is not None:
            known = key.masked_fill(key.isnan(), -torch.inf)
            order = order[known[order].argsort(descending=True, stable=True)]
    return order[:budget]


def least_confidences(p: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """1 − max_c p_c of (…, C)."""
    return 1 - p.amax(-1)


def entropies(p: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """−Σ_c p_c log p_c of (…, C), in nats; 0·log 0 = 0.

    >>> entropies(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([0.0000, 0.6931])
    """
    return torch.special.entr(p).sum(-1)


def margins(p: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    """p₍₁₎ − p₍₂₎ of (…, C): small is uncertain; 1 where there is a single class."""
    top = F.pad(p, (0, 1)).topk(2, -1).values
    return top[..., 0] - top[..., 1]


def vote_shares(p: Float[Tensor, "nets n classes"]) -> Float[Tensor, "n classes"]:
    """Of the nets' softmax (T, n, C), the share of nets that vote for each class: (n, C)."""
    return F.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype).mean(0)


def informations(p: Tensor, weight: Tensor | None = None) -> Tensor:
    """I(y; ω) = H(Σ_t w_t p_t) − Σ_t w_t H(p_t) of (T, n, C) in nats, never below 0: how much the nets disagree.

    Args:
        weight: (…, T), of each net, sums to 1; None: all alike.

    Returns:
        (…, n).
    """
    if weight is None:
        weight = p.new_full((len(p),), 1 / len(p))
    mixed = torch.einsum("...t,tnc->...nc", weight, p)
    return (entropies(mixed) - weight @ entropies(p)).clamp_min(0)


def filled(picks: Int[Tensor, " k"], score: Float[Tensor, " n"], budget: int) -> Int[Tensor, " m"]:
    """The picks, and the rows with the highest score after them, up to the budget."""
    if len(picks) == budget:
        return picks
    rest = torch.ones(len(score), dtype=torch.bool, device=score.device)
    rest[picks] = False
    rows = rest.nonzero().flatten()
    return torch.cat([picks, rows[highest(score[rows], budget - len(picks))]])


def ranks_within(group: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Of each row, how many rows of its group stand before it. int64 (n,).

    >>> ranks_within(torch.tensor([5, 2, 5, 5, 2]))
    tensor([0, 0, 1, 2, 1])
    """
    by_group = group.argsort(stable=True)
    first = torch.searchsorted(group[by_group], group[by_group])  # where each one's group begins
    ranks = torch.empty_like(by_group)
    ranks[by_group] = torch.arange(len(group), device=group.device) - first
    return ranks
