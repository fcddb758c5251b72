"""Cost-effective active learning: any selector asks for labels, and what the net is sure of gets pseudo-labels."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.acquisitions.acquisition import Acquisition
from clsim.errors import InputError, at_least, nearest
from clsim.models.nets import Net
from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import entropies
from clsim.spec import abilities, registry

Variant = Literal["paper", "code"]
"""The schedule of the paper, or the one of public code."""


class CostEffective(Acquisition):
    """Query what another selector chooses, and train on what the net is sure of as if it was labelled. Final.

    After the choice that follows training t of an experience (from 0), a candidate with the entropy H(p) < δ_t of the
    softmax p gets the label argmax p, where δ_t = δ₀ − r·t. Such samples join the next training alone. They stay in the
    pool, where each choice decides anew, count as no labels, and are never offered to the memory. A sample whose p is
    exactly one-hot has H = 0, and is among them as long as δ_t is above 0.

    Only classes that were told of some sample of the experience are given to others. The choice before the first
    training of an experience gives no pseudo-labels, since its classes are new to the net. That t begins anew with each
    experience is ours: the paper has one.

    ``variant = "code"`` is what public code does: it lowers δ by r·t in each round, so that δ_t = δ₀ − r·t(t + 1)/2,
    and computes H with 0·log 0 = NaN, so that a one-hot p gets no pseudo-label.

    Args:
        base: the selector of what is asked for, by a name of ``clsim list selectors``, with its defaults.
        delta: δ₀, the entropy in nats below which a sample gets a pseudo-label; 0: none does. One public
            implementation begins with 0.005.
        decay: r, how much the threshold falls from one training to the next.
        variant: ``paper``, or what public code does: ``code``.

    Needs: probabilities, and what the base needs; a learner that is trained on each batch.
    Cost: that of the base; a training with pseudo-labels passes over these samples too.
    Source: Wang, Zhang, Li, Zhang & Lin, Cost-Effective Active Learning for Deep Image Classification (TCSVT 2017).

    Raises:
        InputError: if the base is unknown or keeps a state from round to round, or an option is out of its range.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        base: str = "entropy",
        delta: float = 5e-5,
        decay: float = 0.033e-5,
        variant: Variant = "paper",
    ) -> None:
        at_least(0, "ceal: ", delta=delta, decay=decay)
        if variant not in get_args(Variant):
            raise InputError(f"ceal: variant: found {variant!r}; {nearest(variant, get_args(Variant))}")
        if ":" in base:  # the run's fingerprint would not know when the file changes
            raise InputError(f"ceal: base: found {base!r}, allowed: a name of `clsim list selectors`")
        abilities.check_acquires(base, "ceal: base")
        self._select = registry.component("labellers", base)
        if isinstance(self._select, type):
            raise InputError(
                f"ceal: base: found {base!r}, which keeps a state from round to round; allowed: a selector without one"
            )
        self._delta, self._decay, self._code, self._number = delta, decay, variant == "code", 0

    def begin(self, number: int, rounds: int) -> None:
        self._number = number

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select what the base selects."""
        return self._select(pool, budget, rng=rng)

    def pseudo_labels(self, pool: Pool) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Label the candidates of which the net is sure, by its prediction."""
        rows = (self._entropies(pool.probabilities) < self.threshold).nonzero().flatten()
        return rows, pool.predictions[rows]

    @property
    def threshold(self) -> float:
        """δ_t of the present training."""
        t = self._number
        return self._delta - self._decay * (t * (t + 1) / 2 if self._code else t)

    def state_dict(self) -> dict[str, Any]:
        return {"number": self._number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._number = state["number"]

    def _entropies(self, p: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        return -(p * p.log()).sum(1) if self._code else entropies(p)
