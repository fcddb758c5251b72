"""Query samples near a decision boundary of the last layer, or with neighbours that are predicted differently."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clsim.errors import at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import filled, highest

LOG_TINY = -87.3
"""Lowest value of log p, at the end of float32's range: divergences stay finite at p = 0."""


def boundary_margin(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Query the samples nearest to a boundary of the last layer, by distance in feature space.

    min_{c ≠ ŷ} ((w_ŷ − w_c)ᵀh + b_ŷ − b_c) / ‖w_ŷ − w_c‖, over the classes of the sample's task that are known so far:
    how far h must move for the logits of ŷ and c to tie.

    Needs: features, logits.
    Cost: O(n·C) time and memory.
    Source: MASE of Emam et al., Active Learning at the ImageNet Scale (2021).
    """
    return Selection(highest(-_to_known(pool).amin(1), budget))


def base(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Query the samples nearest to the boundaries of each class, equally many for each class.

    For each class c in turn, the samples not yet taken with the smallest D(x, c) = min_{c' ≠ ŷ} d(x; ŷ, c') if ŷ = c,
    else d(x; ŷ, c), where d is the distance of ``boundary-margin``: ⌊b/C⌋ of them, and one more for the first b mod C
    classes. C counts the known classes that any candidate's task has. The nearest of each class come first. Where no
    remaining sample can be of a class, the samples nearest to any boundary fill its share.

    Needs: features, logits.
    Cost: O(n·C + C·n log n) time, O(n·C) memory.
    Source: BASE of Emam et al., Active Learning at the ImageNet Scale (2021), algorithm 1.
    """
    distances = _to_known(pool)
    nearest = distances.amin(1)
    own = torch.arange(distances.shape[1], device=distances.device) == pool.predictions[:, None]
    distances = torch.where(own, nearest[:, None], distances).clamp_max(torch.finfo(nearest.dtype).max)
    distances = distances.where(pool.known, torch.nan)  # NaN: not available
    classes = pool.known.any(0).nonzero().flatten()
    budget = min(budget, len(pool))
    picks, ranks = [own.new_empty(0, dtype=torch.int64)], [own.new_empty(0, dtype=torch.int64)]
    for i, c in enumerate(classes.tolist()):
        quota = budget // len(classes) + (i < budget % len(classes))
        open_to = int((~distances[:, c].isnan()).sum())
        chosen = highest(-distances[:, c], min(quota, open_to))
        distances[chosen] = torch.nan
        picks.append(chosen)
        ranks.append(torch.arange(len(chosen), device=chosen.device))
    order = torch.cat(ranks).argsort(stable=True)
    return Selection(filled(torch.cat(picks)[order], -nearest, budget))


def cal(pool: Pool, budget: int, *, rng: torch.Generator, neighbours: int = 10) -> Selection:
    """Query samples that the net predicts differently from their nearest neighbours in feature space.

    The score is the mean over the neighbours x' of ½[KL(p(x') ‖ p(x)) + KL(p(x) ‖ p(x'))], the highest first.
    Neighbours are samples labelled already (as in the paper), or where there are none, other candidates (as in
    DeepCore).

    Args:
        neighbours: number of neighbours per sample, the nearest by Euclidean distance.

    Needs: features, probabilities; labelled samples, if there are any.
    Cost: O(n·m·d) time, O(1000·m) memory, for m possible neighbours.
    Source: Margatina et al., Active Learning by Acquiring Contrastive Examples (EMNLP 2021), algorithm 1; the symmetric
        form of Guo et al., DeepCore (DEXA 2022).
    """
    at_least(1, neighbours=neighbours)
    other = pool.labelled or pool
    count = min(neighbours, len(other) - (other is pool))
    if count < 1:
        return Selection(torch.arange(min(budget, len(pool)), device=pool.data.device))
    p, log_p, log_other, p_other = pool.probabilities, log_softmax(pool), log_softmax(other), other.probabilities
    score = torch.empty(len(pool), device=p.device)
    for rows in torch.arange(len(pool), device=p.device).split(1000):
        distance = torch.cdist(pool.features[rows], other.features)
        if other is pool:
            distance[torch.arange(len(rows)), rows] = torch.inf
        near = distance.topk(count, largest=False).indices
        difference = (p_other[near] - p[rows, None]) * (log_other[near] - log_p[rows, None])
        score[rows] = difference.sum(2).mean(1) / 2
    return Selection(highest(score, budget))


def contextual_diversity(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Query samples by k-center under the symmetric divergence of the softmax.

    Each pick is argmax_x min_{s ∈ S} ½[KL(p(x) ‖ p(s)) + KL(p(s) ‖ p(x))]. S begins with the samples labelled already,
    or where there are none, with the sample nearest to the mean softmax.

    Needs: probabilities; labelled samples, if there are any.
    Cost: O((b + l)·n·C) time, O(n·C) memory, for l labelled samples.
    Source: CDAL-CS of Agarwal et al., Contextual Diversity for Active Learning (ECCV 2020), in the form of Guo et al.,
        DeepCore (DEXA 2022).
    """
    p, log_p = pool.probabilities, log_softmax(pool)
    own = (p * log_p).sum(1)

    def divergence(q: Tensor, log_q: Tensor) -> Tensor:
        """Compute the divergence of each sample from each row of q (m, C): (n, m), never below 0."""
        return ((own[:, None] + (q * log_q).sum(1) - p @ log_q.T - log_p @ q.T) / 2).clamp_min_(0)

    nearest = torch.full_like(own, torch.inf)
    if pool.labelled is not None:
        q, log_q = pool.labelled.probabilities, log_softmax(pool.labelled)
        for part, log_part in zip(q.split(256), log_q.split(256), strict=True):
            nearest = torch.minimum(nearest, divergence(part, log_part).amin(1))
    picks = torch.empty(min(budget, len(pool)), dtype=torch.int64, device=p.device)
    for i in range(len(picks)):
        if i == 0 and pool.labelled is None:
            mean = p.mean(0, keepdim=True)
            picks[i] = divergence(mean, mean.log().clamp_min(LOG_TINY))[:, 0].argmin()
        else:
            picks[i] = nearest.argmax()
        last = picks[i : i + 1]
        nearest = torch.minimum(nearest, divergence(p[last], log_p[last])[:, 0])
        nearest[last] = -1  # below every duplicate of it, so that no row is chosen twice
    return Selection(picks)


def boundary_distances(pool: Pool) -> Float[Tensor, "n classes"]:
    """Compute the distance of each sample's features to a tie of its likeliest class with each other class, (n, C).

    The distance is ∞ for the class itself, for classes that the sample's task does not have, and where no movement
    leads to a tie.
    """
    weight, predictions, logits = pool.net.head.weight.detach().float(), pool.predictions, pool.logits
    apart = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist")[predictions]
    ahead = logits.gather(1, predictions[:, None]) - logits
    distances = torch.where(ahead > 0, ahead / apart, 0.0)  # x / 0 = ∞
    return distances.scatter(1, predictions[:, None], torch.inf)


def _to_known(pool: Pool) -> Tensor:
    """Compute the boundary distances, with ∞ for classes that the stream has not shown yet."""
    return boundary_distances(pool).masked_fill(~pool.known, torch.inf)


def log_softmax(pool: Pool) -> Float[Tensor, "n classes"]:
    """Compute log p, (n, C), not below :data:`LOG_TINY`."""
    return pool.logits.log_softmax(1).clamp_min(LOG_TINY)
