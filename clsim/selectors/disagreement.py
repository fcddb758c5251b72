"""Query samples on which nets disagree: nets drawn by dropout, or a committee."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError, at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import entropies, highest, informations, least_confidences, vote_shares


def bald(pool: Pool, budget: int, *, rng: torch.Generator, passes: int = 10) -> Selection:
    """Query the samples whose label says most about the net: the highest I(y; ω) = H(p̄) − mean_t H(p_t).

    The score is high where each net is sure of another class than the others, and 0 where all nets give the same
    softmax, even an uncertain one.

    Args:
        passes: number of nets drawn by dropout; p̄ is the mean of their softmax p_t.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(T·n·C) memory.
    Source: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning (2011), eq. 2; with
        dropout Gal, Islam & Ghahramani, Deep Bayesian Active Learning with Image Data (ICML 2017).
    """
    at_least(1, passes=passes)
    return Selection(highest(informations(pool.stochastic(passes, rng)), budget))


def ensemble_bald(pool: Pool, budget: int, *, rng: torch.Generator, nets: int = 3) -> Selection:
    """Query the samples on which a committee disagrees: the highest mean_t KL(p_t ‖ p̄).

    This divergence of the members from their consensus is BALD over them: H(p̄) − mean_t H(p_t) = mean_t KL(p_t ‖ p̄).

    Args:
        nets: number of fresh nets that are trained on the pool's labelled samples.

    Needs: a committee.
    Cost: ``nets`` trainings and forward passes, O(T·n·C) memory.
    Source: McCallum & Nigam, Employing EM and Pool-Based Active Learning for Text Classification (ICML 1998).
    """
    at_least(1, nets=nets)
    return Selection(highest(informations(torch.stack([m.probabilities for m in pool.committee(nets)])), budget))


def vote_entropy(pool: Pool, budget: int, *, rng: torch.Generator, nets: int = 3) -> Selection:
    """Query the samples whose committee votes have the highest entropy −Σ_c (v_c / T) log(v_c / T).

    Equal entropies, which are frequent with few members, are ranked by 1 − max_c p̄_c.

    Args:
        nets: number of fresh nets that are trained on the pool's labelled samples.

    Needs: a committee.
    Cost: ``nets`` trainings and forward passes, O(T·n·C) memory.
    Source: Dagan & Engelson, Committee-Based Sampling for Training Probabilistic Classifiers (ICML 1995).
    """
    at_least(1, nets=nets)
    p = torch.stack([member.probabilities for member in pool.committee(nets)])
    return Selection(highest(entropies(vote_shares(p)), budget, ties=least_confidences(p.mean(0))))


def mc_vote_entropy(pool: Pool, budget: int, *, rng: torch.Generator, passes: int = 10) -> Selection:
    """Query the samples whose votes of nets drawn by dropout have the highest entropy −Σ_c (v_c / T) log(v_c / T).

    It is query by committee, with nets that need no training of their own. Equal entropies are ranked by 1 − max_c p̄_c.

    Args:
        passes: T, the number of nets drawn by dropout.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(T·n·C) memory.
    Source: vote entropy of Dagan & Engelson, Committee-Based Sampling for Training Probabilistic Classifiers (ICML
        1995), over the nets of Gal & Ghahramani, Dropout as a Bayesian Approximation (ICML 2016).
    """
    at_least(1, passes=passes)
    p = pool.stochastic(passes, rng)
    return Selection(highest(entropies(vote_shares(p)), budget, ties=least_confidences(p.mean(0))))


def mean_std(pool: Pool, budget: int, *, rng: torch.Generator, passes: int = 10) -> Selection:
    """Query the samples whose softmax varies most over nets drawn by dropout: the highest mean deviation of p_c.

    The score is (1/C) Σ_c √(mean_t p_tc² − p̄_c²), over the C classes of the sample's task.

    Args:
        passes: number of nets drawn by dropout.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(T·n·C) memory.
    Source: Kampffmeyer, Salberg & Jenssen (CVPR workshops 2016), as in Gal, Islam & Ghahramani, Deep Bayesian Active
        Learning with Image Data (ICML 2017), section 4.
    """
    at_least(1, passes=passes)
    deviation = pool.stochastic(passes, rng).std(0, correction=0)
    return Selection(highest(deviation.sum(1) / pool.visible.sum(1), budget))


def power_bald(pool: Pool, budget: int, *, rng: torch.Generator, passes: int = 10, coldness: float = 1.0) -> Selection:
    """Query samples drawn in proportion to a power of their BALD score I(y; ω), so that the batch is less redundant.

    The b largest of log I_i + ε_i, ε_i ∼ Gumbel(0, 1/β), are chosen: the same as drawing b samples one after the other,
    without replacement, with probability ∝ I_i^β among those left. β = 0 is uniform and β = inf is ``bald``. The scores
    are those of one round; they are not updated between the draws, which is why its time is that of ``bald``.

    A sample on whose label all nets agree has I = 0 and is chosen after all others; equal ones then by chance. For β =
    inf, equal scores are ranked by row, as ``bald`` ranks them.

    Args:
        passes: number of nets drawn by dropout.
        coldness: β, from 0; the larger it is, the nearer is the batch to the largest scores, which 1e9 gives.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(T·n·C) memory.
    Source: Kirsch et al., Stochastic Batch Acquisition: A Simple Baseline for Deep Active Learning (TMLR 2023), its
        power acquisition; β = 1 there. Some public code named so uses a fixed power of 5.
    """
    at_least(1, passes=passes)
    check_coldness(coldness)
    return Selection(powered(informations(pool.stochastic(passes, rng)), budget, coldness, rng))


def powered(score: Float[Tensor, " n"], budget: int, coldness: float, rng: torch.Generator) -> Int[Tensor, " m"]:
    """Draw rows without replacement with probability ∝ score^coldness, in the order of their draws: int64 (m,).

    Scores are from 0. Rows of score 0 follow after all others, by chance; NaN counts as 0.
    """
    if coldness == torch.inf:
        return highest(score, budget)
    noise = -torch.empty(len(score), dtype=torch.float64).exponential_(generator=rng).log().to(score.device)
    if coldness == 0:
        return highest(noise, budget)
    return highest(coldness * score.double().nan_to_num(0.0).log() + noise, budget, ties=noise)


def check_coldness(coldness: float) -> None:
    """Refuse a coldness below 0, or NaN."""
    if not coldness >= 0:
        raise InputError(f"coldness: found {coldness}, allowed: from 0 to inf")


def batch_bald(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    passes: int = 10,
    candidates: int = 200,
    configurations: int = 200,
) -> Selection:
    """Query the batch whose labels together say most about the net: greedily the highest I(y_S; ω).

    The next pick is argmax_x I(y_x; ω | y_S) = Σ_ŷ p(ŷ_S) [H(Σ_t w_t p_t(y_x)) − Σ_t w_t H(p_t(y_x))], where
    w_t = p(ω_t | ŷ_S) is the probability of net t given the labels ŷ_S of the picks so far. The first pick is BALD's; a
    duplicate of a pick gains little. All labellings ŷ_S are enumerated while there are at most ``configurations``;
    after that, this number is drawn from p(y_S), and both terms are averaged over them: unbiased, and never negative.

    log T nats identify one of T nets. Where no candidate gains more than 1e-4 nats, a new round begins as if nothing
    were chosen; where the nets agree on all candidates left, the rest follow by BALD.

    Args:
        passes: T, the number of nets drawn by dropout; with more of them, more picks can be distinguished.
        candidates: number of candidates (or the budget, if that is more), those with the highest BALD. A pick's time
            grows with candidates · configurations; more of both are nearer to the exact greedy choice.
        configurations: number of labellings that are enumerated, or drawn.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(b·configurations·candidates·C·T) time, O(T·n·C + 2e7) memory.
    Source: Kirsch, van Amersfoort & Gal, BatchBALD (NeurIPS 2019), algorithm 1 and section 3.3.
    """
    at_least(1, passes=passes, candidates=candidates, configurations=configurations)
    p = pool.stochastic(passes, rng)
    by_bald = highest(informations(p), len(pool))
    rows = by_bald[: max(candidates, budget)]
    picks = rows[greedy_joint(p[:, rows], min(budget, len(rows)), configurations, rng)]
    return Selection(picks)


def greedy_joint(p: Tensor, budget: int, configurations: int, rng: torch.Generator) -> Tensor:
    """Choose rows of (T, n, C) as :func:`batch_bald` does; the rows stand by BALD, best first. int64 (budget,)."""
    n = p.shape[1]
    picks = torch.empty(budget, dtype=torch.int64, device=p.device)
    open_ = torch.ones(n, dtype=torch.bool, device=p.device)
    round_ = Labellings(p, configurations, rng)
    for i in range(budget):
        gains = round_.gains(p).masked_fill_(~open_, -1)
        if gains.amax() <= 1e-4:
            fresh = round_.empty
            round_ = Labellings(p, configurations, rng)
            gains = round_.gains(p).masked_fill_(~open_, -1)
            if fresh or gains.amax() <= 1e-4:
                picks[i:] = open_.nonzero().flatten()[: budget - i]
                break
        picks[i] = gains.argmax()
        open_[picks[i]] = False
        round_.add(p[:, picks[i]])
    return picks


class Labellings:
    """The labellings ŷ_S of the chosen rows, their probabilities, and the probabilities of the nets given each. Final.

    Attributes:
        share: (K,), p(ŷ_S), or 1 / K where they are drawn.
        weight: (K, T), p(ω_t | ŷ_S).
    """

    def __init__(self, p: Tensor, most: int, rng: torch.Generator) -> None:
        self.share = p.new_ones(1)
        self.weight = p.new_full((1, len(p)), 1 / len(p))
        self.empty = True
        self._most, self._rng, self._sampled = most, rng, False

    def gains(self, p: Tensor) -> Tensor:
        """Compute I(y_x; ω | y_S) of each row x of (T, n, C), in blocks of labellings: (n,)."""
        block = max(1, 5_000_000 // max(p[0].numel(), 1))
        parts = zip(self.share.split(block), self.weight.split(block), strict=True)
        return torch.stack([share @ informations(p, weight) for share, weight in parts]).sum(0)

    def add(self, p: Tensor) -> None:
        """Add a row with softmax (T, C) to the chosen ones."""
        self.empty = False
        likely = self.weight @ p  # p(y_x | ŷ_S), (K, C)
        if likely.numel() <= self._most and not self._sampled:
            share = (self.share[:, None] * likely).flatten()
            parent = torch.arange(len(likely), device=p.device).repeat_interleave(p.shape[1])
            label = torch.arange(p.shape[1], device=p.device).repeat(len(likely))
            possible = share > 0
            share, parent, label = share[possible], parent[possible], label[possible]
        else:
            parent = torch.arange(self._most, device=p.device)
            parent = parent if self._sampled else self._drawn(self.share.expand(self._most, -1))
            label = self._drawn(likely[parent])
            share, self._sampled = p.new_ones(self._most), True
        weight = self.weight[parent] * p[:, label].T
        self.share, self.weight = share / share.sum(), weight / weight.sum(1, keepdim=True)

    def _drawn(self, p: Tensor) -> Tensor:
        """Draw one column of each row of (m, k), with probabilities proportional to the row's entries."""
        edges = p.cumsum(1)
        # a hair below the last edge, so that round-off never leads to an entry of probability 0
        at = torch.rand(len(p), 1, generator=self._rng).to(p.device) * edges[:, -1:] * (1 - 1e-6)
        return torch.searchsorted(edges, at, right=True).flatten()
