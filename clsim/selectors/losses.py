"""Losses of candidates under the present net and under an irreducible-loss net: what is worth a step, or a place."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import highest


def rho_loss(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Choose the samples whose loss can be reduced most: those that are learnable, worth learning and not learnt yet.

    The score is the reducible loss L[y | x; θ_t] − L[y | x; θ_IL], of the present net and of the irreducible-loss net
    (table ``irreducible``). A wrong label has a high loss under both. The ``budget`` samples with the highest score are
    chosen, below 0 too, and are not weighted. A sample without a label, or without an irreducible loss, comes last.

    Needs: labels; probabilities; irreducible losses.
    Cost: O(n·C) time, beside the training of the irreducible-loss net.
    Source: Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt
        (ICML 2022), eq. 3 and algorithm 1.
    """
    return Selection(highest(pool.losses - irreducible(pool, "rho-loss"), budget, ties=pool.data.key))


def loss(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Choose the samples with the highest cross-entropy under the present net.

    Samples with a wrong label have a high loss for as long as the net does not learn them by heart. A sample without a
    label comes last.

    Needs: labels; probabilities.
    Cost: O(n·C) time.
    Source: Loshchilov & Hutter, Online Batch Selection for Faster Training of Neural Networks (ICLR workshop 2016),
        without its ranks; as in Mindermann et al. (ICML 2022), section 4.
    """
    return Selection(highest(pool.losses, budget, ties=pool.data.key))


def gradient_norm(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Choose the samples with the largest gradient at the logits, ‖p − e_y‖₂, under the present net.

    It bounds the norm of the gradient with respect to all weights from above, up to a factor that all samples share. A
    sample without a label counts with its predicted one.

    Needs: labels; probabilities.
    Cost: O(n·C) time.
    Source: Katharopoulos & Fleuret, Not All Samples Are Created Equal: Deep Learning with Importance Sampling (ICML
        2018), its upper bound; as in Mindermann et al. (ICML 2022), section 4: the largest, without weights.
    """
    return Selection(highest(pool.gradients.q.norm(dim=1), budget, ties=pool.data.key))


def low_irreducible_loss(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keep the samples with the lowest loss under the irreducible-loss net: those that others like them explain best.

    The score is −L[y | x; θ_IL], which each sample got once, in the experience that it came in. A wrong label has a
    high irreducible loss, so that a memory of these samples holds few. They are also the most typical ones. A sample
    without an irreducible loss comes last.

    Needs: labels; irreducible losses.
    Cost: O(n log n) time, beside the training of the irreducible-loss net.
    Source: small losses as a sign of right labels, Han et al., Co-teaching (NeurIPS 2018); the net is that of
        Mindermann et al. (ICML 2022).
    """
    return Selection(highest(-irreducible(pool, "low-irreducible-loss"), budget, ties=pool.data.key))


def irreducible(pool: Pool, name: str) -> Float[Tensor, " n"]:
    """Return the irreducible loss of each candidate, float32 (n,); NaN where there is none.

    Raises:
        InputError: if no irreducible-loss net was trained.
    """
    found = pool.columns.get("irreducible")
    if found is None:
        raise InputError(
            f"{name}: found a pool without irreducible losses, allowed: in a run (--batch or --buffer), which trains "
            "the net that has them, or a pool with the column 'irreducible'"
        )
    return found
