"""CRAIG: weighted medoids of the gradients of each class."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from clsim.pool.gradients import Gradients
from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import in_a_block
from clsim.selectors.facilities import Dense
from clsim.selectors.greedy import Optimiser, maximise
from clsim.selectors.submodular import DENSE


def craig(
    pool: Pool, budget: int, *, rng: torch.Generator, optimiser: Optimiser = "auto", epsilon: float = 0.1
) -> Selection:
    """Keep medoids of the last-layer gradients of each class, weighted by the mass that each stands for.

    In each class, A maximises F(A) = Σ_i m_i max_{j∈A} (c − ‖g_i − g_j‖) with c = 2·max ‖g‖, which no distance exceeds,
    and the masses m (``pool.mass``; 1 in the paper). The weighted gradients of A then approximate the full gradient to
    within Σ_i m_i min_{j∈A} ‖g_i − g_j‖. A pick's weight is the mass of the samples that it is nearest to, so that the
    weights of a class sum to its mass. Classes get shares of the budget in proportion to their number of samples; a
    class without a pick is not represented. An unlabelled sample counts with its predicted label.

    In a class of more than 11,000 samples, F sums over a random part of them, as large as half a gigabyte of distances
    allows.

    Args:
        optimiser: how each pick is found: ``naive``; ``lazy``, which makes the same picks with fewer gains computed;
            ``stochastic`` and ``approximate-lazy``, which make others sooner; ``auto``: lazy where that saves time. See
            :func:`clsim.selectors.greedy.maximise`.
        epsilon: ε of ``stochastic`` and ``approximate-lazy``, between 0 and 1: the larger, the sooner and the farther
            from the best pick.

    Needs: gradients.
    Cost: O(Σ_c n_c²·d) time, O(max n_c²) memory up to half a gigabyte.
    Source: Mirzasoleiman, Bilmes & Leskovec, Coresets for Data-efficient Training of Machine Learning Models (ICML
        2020), algorithm 1.
    """
    if not min(budget, len(pool)):
        return Selection(pool.data.y[:0], torch.zeros(0, device=pool.data.device))
    gradients = pool.gradients
    y = torch.where(pool.data.y >= 0, pool.data.y, pool.predictions)
    labels, counts = y.unique(return_counts=True)
    picks, places = [], []
    for label, share in zip(labels.tolist(), shares(counts.cpu(), budget).tolist(), strict=True):
        if share:
            rows = (y == label).nonzero().flatten()
            function = Dense(_closeness(gradients[rows], None if pool.data.mass is None else pool.mass[rows], rng))
            picks.append(rows[maximise(function, share, rng=rng, optimiser=optimiser, epsilon=epsilon)])
            places.append((torch.arange(share, device=rows.device) + 0.5) / share)
    index = torch.cat(picks)[torch.cat(places).argsort(stable=True)]  # so that prefixes keep the classes' shares
    nearest = _nearest(gradients, y, index)
    nearest[index] = torch.arange(len(index), device=index.device)  # among equal picks, each stands for itself
    served = pool.mass.double() * torch.isin(y, y[index])
    weight = served.new_zeros(len(index)).index_add_(0, nearest, served)
    return Selection(index, weight.float())


def shares(counts: Int[Tensor, " classes"], budget: int) -> Int[Tensor, " classes"]:
    """Divide the budget in proportion to ``counts``, by the largest remainders: int64 (classes,), sum min(budget, n).

    >>> shares(torch.tensor([10, 25, 65]), 10).tolist(), shares(torch.tensor([1, 2]), 5).tolist()
    ([1, 3, 6], [1, 2])
    """
    total = int(counts.sum())
    exact = min(budget, total) * counts.double() / max(total, 1)
    share = exact.floor().long()
    left = min(budget, total) - int(share.sum())
    share[(exact - share).argsort(descending=True, stable=True)[:left]] += 1
    return share


def _closeness(gradients: Gradients, mass: Tensor | None, rng: torch.Generator) -> Tensor:
    """Compute m_i·(c − ‖g_i − g_j‖), (clients, n); without ``mass`` every m is 1."""
    n = len(gradients)
    clients = gradients
    if n * n > DENSE:
        drawn = torch.randperm(n, generator=rng)[: DENSE // n].to(gradients.q.device)
        clients, mass = gradients[drawn], None if mass is None else mass[drawn]
    largest, size = 2 * gradients.squares.max().sqrt(), max(1, in_a_block() // 2 // n)
    close = gradients.h.new_empty(len(clients), n)
    for start in range(0, len(clients), size):
        distances = clients[start : start + size].squared_distances(gradients).sqrt_()
        torch.sub(largest, distances, out=close[start : start + size])
    close.clamp_(min=0)
    return close if mass is None else close.mul_(mass[:, None])


def _nearest(gradients: Gradients, y: Tensor, index: Tensor) -> Tensor:
    """Find the position of each sample's nearest pick, one of its own class where there is one: int64 (n,)."""
    nearest = torch.empty_like(y)
    of, chosen = y[index], gradients[index]
    size = max(1, in_a_block() // 2 // len(index))
    for start in range(0, len(y), size):
        rows = slice(start, start + size)
        distances = gradients[rows].squared_distances(chosen)
        own = y[rows, None] == of
        foreign = own.any(1, keepdim=True) & ~own
        nearest[rows] = distances.masked_fill_(foreign, torch.inf).argmin(1)
    return nearest
