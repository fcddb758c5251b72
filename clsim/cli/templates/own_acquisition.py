"""An acquisition of your own: a selector of labels that keeps a state from one round to the next."""

from typing import Any

import torch
from torch import nn

from clsim import Acquisition, Pool, Selection


class NAME(Acquisition):
    """Ask for random samples in the first round, and more and more for what the net is unsure of."""

    def __init__(self, net: nn.Module, rng: torch.Generator, *, first: float = 0.0) -> None:
        self.unsure = first  # arguments after `*` are options: --set labelling.options.first=0.5

    def begin(self, number: int, rounds: int) -> None:
        """Learn that training `number` of `rounds` of an experience begins, counted from 0."""
        self.unsure = max(self.unsure, number / max(rounds - 1, 1))

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to `budget` rows of the pool, best first; labels of its candidates are hidden."""
        # CHANGE THIS. A pool also has features, logits and gradients, and pool.labelled.
        doubt = 1 - pool.probabilities.amax(1)
        chance = torch.rand(len(pool), generator=rng).to(doubt)
        score = self.unsure * doubt + (1 - self.unsure) * chance
        return Selection(score.argsort(descending=True, stable=True)[:budget])

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next round needs, so that a stopped run can go on."""
        return {**super().state_dict(), "unsure": self.unsure}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self.unsure = state["unsure"]
