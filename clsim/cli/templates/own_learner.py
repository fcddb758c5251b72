"""A learner of your own: experience replay, with a loss that remembers something."""

from typing import Any

from clsim import Batch, Experience, Learner, Objective, Setup, Sgd, Terms, replay


class Near(Objective):
    """The loss of experience replay, and the distance to the weights that the experience began with."""

    def __init__(self, setup: Setup, strength: float) -> None:
        self.net, self.strength = setup.net, strength
        self.before: list[Any] = []

    def begin(self, experience: Experience) -> None:
        """Prepare for an experience, before its first batch."""
        self.before = [weights.detach().clone() for weights in self.net.parameters()]

    def __call__(self, net: Any, batch: Batch) -> Terms:
        """Compute the terms of the loss of one batch, each a scalar."""
        # CHANGE THIS. What outlives an experience must be in `state_dict` and `load_state_dict`.
        away = sum((now - then).square().sum() for now, then in zip(net.parameters(), self.before, strict=True))
        return {**replay(net, batch), "away": self.strength * away}


def NAME(setup: Setup, *, strength: float = 0.01) -> Learner:
    """Make the learner; arguments after `*` are options: --set learner.options.strength=0.1."""
    return Sgd(setup, objective=Near(setup, strength))
