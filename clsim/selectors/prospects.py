"""Query samples whose label would tell most about the predictions elsewhere, over nets drawn by dropout.

Both methods here compare candidates with a set of samples X*, by passes of the same drawn nets. BALD asks what a label
tells about the net; these ask what it tells about the labels of X*, which the net is for.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError, at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.clusters import by_turns, k_means_clusters, means
from clsim.selectors.disagreement import check_coldness, powered
from clsim.selectors.distances import blocks
from clsim.selectors.scores import entropies, filled, highest

SAME = 1e-4
"""Distances from a centre that differ by less are equal, so that round-off does not decide between two members."""


def epig(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    passes: int = 10,
    targets: int = 100,
    coldness: float = 1.0,
) -> Selection:
    """Query the samples whose label says most about the labels of target samples: the highest E_x* I(y; y*).

    I(y; y*) = KL(p(y, y*) ‖ p(y) p(y*)) with p(y, y*) = mean_t p_t(y|x) p_t(y*|x*), over T nets drawn by dropout, the
    same for both. The targets x* are drawn uniformly from ``pool.query``, or from the pool itself where there is none.
    A target is a further sample even where it is the candidate. The paper asks for one label at a time, the highest.
    The b highest are much alike, so a batch is drawn as ``power-bald`` draws it, which is a choice of ours.

    Args:
        passes: T, the number of nets drawn by dropout.
        targets: number of targets, at most as many as there are to draw from.
        coldness: β, from 0: a batch is drawn with probability ∝ score^β; 1e9 gives the largest scores.

    Needs: passes with dropout, query if there is one.
    Cost: ``passes`` forward passes, O(n·m·C²·T) time for m targets, O(T·n·C) memory and a block of 32 MiB.
    Source: Bickford Smith et al., Prediction-Oriented Bayesian Active Learning (AISTATS 2023).
    """
    at_least(1, passes=passes, targets=targets)
    check_coldness(coldness)
    of_query = torch.Generator().set_state(rng.get_state())  # draws the same nets
    p = pool.stochastic(passes, rng)
    others = p if pool.query is None else pool.query.stochastic(passes, of_query)
    return Selection(powered(shared_informations(p, drawn(others, targets, rng)), budget, coldness, rng))


def core_mse(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    passes: int = 10,
    targets: int = 100,
    share: float = 0.5,
) -> Selection:
    """Query samples whose label would change the predictions for other samples most, in different ways (CoreMSE).

    v_x(x*) = Σ_y p̄(y|x) ‖p̄(·|x*) − p(·|x*, x, y)‖² is the expected squared change of the mean prediction for x* once
    the label of x is known: p(·|x*, x, y) = Σ_t w_t p_t(·|x*), w_t ∝ p_t(y|x), over T nets drawn by dropout. The
    targets x* are drawn uniformly from the pool. Of the ``share`` of candidates with the largest mean of v_x, the
    vectors v_x, scaled to length 1, are divided into b clusters by k-means; the sample nearest each centre is chosen,
    that of the largest cluster first, and of equally near ones that with the largest change.

    The equation is recalled, and was held against the authors' code. The paper's nets are an ensemble; those of dropout
    are as in ``bald``. v_x of a pair is the inner product of two
    T × T matrices, one of the candidate and one of the target. The code of the authors adds to each v_x(x*) the spread
    of the nets at x*, which is the same for all candidates: the same ranking, but vectors that differ less once scaled.

    Args:
        passes: T, the number of nets drawn by dropout.
        targets: number of targets, at most as many as the pool has samples.
        share: share of the candidates that are clustered, above 0 up to 1, but at least the budget; those with the
            largest expected change.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(n·T²·(C + m)) time for m targets and O(n·b·m) an iteration of k-means,
        O(n·(T·C + m)) memory.
    Source: Tan, Du & Buntine, Diversity Enhanced Active Learning with Strictly Proper Scoring Rules (NeurIPS 2021), the
        Brier score, and its clusters for a batch; its code for ``share``.
    """
    at_least(1, passes=passes, targets=targets)
    if not 0 < share <= 1:
        raise InputError(f"share: found {share}, allowed: above 0, up to 1")
    p = pool.stochastic(passes, rng)
    changes = expected_changes(p, drawn(p, targets, rng))
    score = changes.mean(1)
    rows = highest(score, max(round(share * len(pool)), budget))
    ways = F.normalize(changes[rows], eps=torch.finfo(changes.dtype).tiny)
    cluster = k_means_clusters(ways, budget, rng)
    far = (ways - means(ways, cluster)[cluster]).norm(dim=1).div(SAME).round()
    picks = rows[by_turns(cluster, far, cluster.bincount())[:budget]]
    return Selection(filled(picks, score, min(budget, len(pool))))


def drawn(p: Float[Tensor, "nets n classes"], targets: int, rng: torch.Generator) -> Float[Tensor, "nets m classes"]:
    """Draw ``targets`` samples of (T, n, C) uniformly, or take all, in their order."""
    rows = torch.randperm(p.shape[1], generator=rng)[:targets].sort().values
    return p[:, rows.to(p.device)]


def shared_informations(
    p: Float[Tensor, "nets n classes"], others: Float[Tensor, "nets m classes"]
) -> Float[Tensor, " n"]:
    """Compute mean_x* I(y; y*) = H(y) + mean_x* [H(y*) − H(y, y*)] in nats, never below 0: float32 (n,).

    Args:
        p: the softmax of each net for the candidates.
        others: the softmax of the same nets for the targets x*.
    """
    nets, n, classes = p.shape
    theirs = others.reshape(nets, -1) / nets  # (T, m·C)
    alone = entropies(p.mean(0)) + entropies(others.mean(0)).mean()
    joint = torch.empty_like(alone)
    for rows in blocks(n, classes * theirs.shape[1]):
        pairs = torch.einsum("tnc,tk->nck", p[:, rows], theirs)
        joint[rows] = torch.special.entr(pairs).sum((1, 2)) / others.shape[1]
    return (alone - joint).clamp_min(0)


def expected_changes(
    p: Float[Tensor, "nets n classes"], others: Float[Tensor, "nets m classes"]
) -> Float[Tensor, "n m"]:
    """Compute Σ_y p̄(y|x) ‖p̄(·|x*) − Σ_t w_t(x, y) p_t(·|x*)‖² of all pairs, float32 (n, m), never below 0.

    With w_t − 1/T = (p_t(y|x) − p̄(y|x)) / (T·p̄(y|x)), it is Σ_ts A_ts(x) G_ts(x*), with A_ts = Σ_y (p_t − p̄)(p_s − p̄) /
    (T²·p̄) of the candidate and G_ts = ⟨p_t − p̄, p_s − p̄⟩ of the target.
    """
    nets, n, _ = p.shape
    apart = others - others.mean(0)
    theirs = torch.einsum("tmc,smc->mts", apart, apart).flatten(1)
    changes = p.new_empty(n, len(theirs))
    for rows in blocks(n, nets * nets):
        mean = p[:, rows].mean(0)
        mine = (p[:, rows] - mean) / (nets * mean.clamp_min(torch.finfo(p.dtype).tiny).sqrt())
        changes[rows] = torch.einsum("tnc,snc->nts", mine, mine).flatten(1) @ theirs.T
    return changes.clamp_min_(0)
