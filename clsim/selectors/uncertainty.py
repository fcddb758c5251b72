"""What a net, or several, are least sure of: four measures, each of the net, of its dropout, and of a committee.

None reads a candidate's label. A net that is trained on its candidates is least sure of what it fits worst: label noise
and outliers come first, and a small memory of those alone teaches little (Guo et al., DeepCore, DEXA 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from clsim.errors import at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import entropies, highest, least_confidences, margins, vote_shares


def least_confidence(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """What the net is least confident of: the highest 1 − max_c p_c.

    Needs: probabilities.
    Cost: O(n·C) time and memory.
    Source: Lewis & Gale, A Sequential Algorithm for Training Text Classifiers (SIGIR 1994).
    """
    return _least_confident(pool.probabilities, budget)


def entropy(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """What the net spreads its probability over: the highest −Σ_c p_c log p_c.

    Needs: probabilities.
    Cost: O(n·C) time and memory.
    Source: Shannon, A Mathematical Theory of Communication (1948); Settles, Active Learning Literature Survey (2009),
        section 3.1.
    """
    return _most_entropic(pool.probabilities, budget)


def margin(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """What the net cannot decide between two classes: the lowest p₍₁₎ − p₍₂₎.

    Needs: probabilities.
    Cost: O(n·C) time and memory.
    Source: Scheffer, Decomain & Wrobel, Active Hidden Markov Models for Information Extraction (IDA 2001).
    """
    return _narrowest(pool.probabilities, budget)


def variation_ratio(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """What the net is least confident of: with one net there is one vote, and this is ``least-confidence``.

    Needs: probabilities.
    Cost: O(n·C) time and memory.
    Source: Freeman, Elementary Applied Statistics (1965); the softmax form of Gal, Islam & Ghahramani, Deep Bayesian
        Active Learning with Image Data (ICML 2017), section 4.
    """
    return _most_divided(pool.probabilities[None], budget)


def mc_least_confidence(pool: Pool, budget: int, *, rng: torch.Generator, passes: int = 10) -> Selection:
    """What nets drawn by dropout are least confident of, on average: the highest 1 − max_c p̄_c.

    Args:
        passes: nets drawn; p̄ is the mean of their softmax.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(T·n·C) memory.
    Source: Gal, Islam & Ghahramani, Deep Bayesian Active Learning with Image Data (ICML 2017).
    """
    return _least_confident(_dropout(pool, passes, rng).mean(0), budget)


def mc_entropy(pool: Pool, budget: int, *, rng: torch.Generator, passes: int = 10) -> Selection:
    """What nets drawn by dropout spread their probability over, on average: the highest H(p̄).

    Args:
        passes: nets drawn; p̄ is the mean of their softmax.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(T·n·C) memory.
    Source: Gal, Islam & Ghahramani, Deep Bayesian Active Learning with Image Data (ICML 2017), section 4.
    """
    return _most_entropic(_dropout(pool, passes, rng).mean(0), budget)


def mc_margin(pool: Pool, budget: int, *, rng: torch.Generator, passes: int = 10) -> Selection:
    """What nets drawn by dropout cannot decide between two classes, on average: the lowest p̄₍₁₎ − p̄₍₂₎.

    Args:
        passes: nets drawn; p̄ is the mean of their softmax.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(T·n·C) memory.
    Source: margin on the p̄ of Gal, Islam & Ghahramani, Deep Bayesian Active Learning with Image Data (ICML 2017).
    """
    return _narrowest(_dropout(pool, passes, rng).mean(0), budget)


def mc_variation_ratio(pool: Pool, budget: int, *, rng: torch.Generator, passes: int = 10) -> Selection:
    """What the votes of nets drawn by dropout are divided on: the highest 1 − f_mode / T.

    f_mode of the T nets vote for the class with most votes. Equal ratios are ranked by 1 − max_c p̄_c, so that one pass
    is ``least-confidence``.

    Args:
        passes: nets drawn.

    Needs: passes with dropout.
    Cost: ``passes`` forward passes, O(T·n·C) memory.
    Source: Freeman, Elementary Applied Statistics (1965); Gal, Uncertainty in Deep Learning (2016), section 3.3.
    """
    return _most_divided(_dropout(pool, passes, rng), budget)


def ensemble_least_confidence(pool: Pool, budget: int, *, rng: torch.Generator, nets: int = 3) -> Selection:
    """What a committee is least confident of, on average: the highest 1 − max_c p̄_c.

    Args:
        nets: fresh ones, trained on the pool's labelled samples.

    Needs: a committee.
    Cost: ``nets`` trainings and forward passes, O(T·n·C) memory.
    Source: Beluch et al., The Power of Ensembles for Active Learning in Image Classification (CVPR 2018).
    """
    return _least_confident(_committee(pool, nets).mean(0), budget)


def ensemble_entropy(pool: Pool, budget: int, *, rng: torch.Generator, nets: int = 3) -> Selection:
    """What a committee spreads its probability over, on average: the highest H(p̄).

    Args:
        nets: fresh ones, trained on the pool's labelled samples.

    Needs: a committee.
    Cost: ``nets`` trainings and forward passes, O(T·n·C) memory.
    Source: Beluch et al., The Power of Ensembles for Active Learning in Image Classification (CVPR 2018).
    """
    return _most_entropic(_committee(pool, nets).mean(0), budget)


def ensemble_margin(pool: Pool, budget: int, *, rng: torch.Generator, nets: int = 3) -> Selection:
    """What a committee cannot decide between two classes, on average: the lowest p̄₍₁₎ − p̄₍₂₎.

    Args:
        nets: fresh ones, trained on the pool's labelled samples.

    Needs: a committee.
    Cost: ``nets`` trainings and forward passes, O(T·n·C) memory.
    Source: margin on the p̄ of Beluch et al., The Power of Ensembles for Active Learning in Image Classification
        (CVPR 2018).
    """
    return _narrowest(_committee(pool, nets).mean(0), budget)


def ensemble_variation_ratio(pool: Pool, budget: int, *, rng: torch.Generator, nets: int = 3) -> Selection:
    """What the votes of a committee are divided on: the highest 1 − f_mode / T.

    f_mode of the T nets vote for the class with most votes; equal ratios are ranked by 1 − max_c p̄_c.

    Args:
        nets: fresh ones, trained on the pool's labelled samples.

    Needs: a committee.
    Cost: ``nets`` trainings and forward passes, O(T·n·C) memory.
    Source: Beluch et al., The Power of Ensembles for Active Learning in Image Classification (CVPR 2018).
    """
    return _most_divided(_committee(pool, nets), budget)


def _dropout(pool: Pool, passes: int, rng: torch.Generator) -> Tensor:
    at_least(1, passes=passes)
    return pool.stochastic(passes, rng)


def _committee(pool: Pool, nets: int) -> Tensor:
    at_least(1, nets=nets)
    return torch.stack([member.probabilities for member in pool.committee(nets)])


def _least_confident(p: Tensor, budget: int) -> Selection:
    return Selection(highest(least_confidences(p), budget))


def _most_entropic(p: Tensor, budget: int) -> Selection:
    return Selection(highest(entropies(p), budget))


def _narrowest(p: Tensor, budget: int) -> Selection:
    return Selection(highest(-margins(p), budget))


def _most_divided(p: Tensor, budget: int) -> Selection:
    return Selection(highest(least_confidences(vote_shares(p)), budget, ties=least_confidences(p.mean(0))))
