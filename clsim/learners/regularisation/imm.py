"""IMM: an average of the nets of all tasks, weight by weight."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from clsim.errors import at_least
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net, evaluating
from clsim.objectives.importance import Weights, distance, fisher, on_device, weights
from clsim.objectives.replay import replay
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Batch, Learner, Objective, Setup, Terms

_LEAST = 1e-12
"""Added to each precision, so that all tasks weigh the same where none has any."""

HEAD = ("head.weight", "head.bias")
"""The net's weights that are not merged."""


def mean_imm(setup: Setup, *, strength: float = 0.01) -> Learner:
    """Mean-IMM: predict with the mean of the weights after each experience, θ = 1/t Σ θ_k.

    Each net is learnt from the one before with the L2-transfer CE + λ Σ (θ − θ_{t−1})²; see :class:`Imm`.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the L2-transfer.

    Cost: 1 M kept (the mean so far), 1 M more in training.

    Source: Lee et al., Overcoming Catastrophic Forgetting by Incremental Moment Matching (NeurIPS 2017)
    """
    at_least(0, "mean-imm: ", strength=strength)
    return Imm(setup, strength=strength)


def mode_imm(setup: Setup, *, strength: float = 0.01, samples: int = 0) -> Learner:
    """Mode-IMM: ``mean-imm`` with each weight averaged by its diagonal Fisher, θ = Σ F_k θ_k / Σ F_k.

    The Fisher is the empirical one at the given labels; where it is 0 for all tasks, the mean is unweighted.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the L2-transfer.
        samples: Samples of each experience that the Fisher is measured on, drawn uniformly; 0 means all.

    Cost: 2 M kept (the average and the Fishers' sum), 1 M more in training; a forward and backward pass of each sample.

    Source: Lee et al., Overcoming Catastrophic Forgetting by Incremental Moment Matching (NeurIPS 2017)
    """
    at_least(0, "mode-imm: ", strength=strength, samples=samples)
    return Imm(setup, strength=strength, measure=partial(fisher, most=samples))


class Transfer(Objective):
    """L = CE + λ Σ (θ − θ_{t−1})², a penalty on moving any weight from the last net. Final.

    Args:
        setup: the net.
        strength: The weight λ of the penalty.
    """

    one_pass: ClassVar[bool] = True

    def __init__(self, setup: Setup, strength: float) -> None:
        self._setup = setup
        self._strength = strength
        self._anchor: Weights = {}
        self._learnt = False

    def begin(self, experience: Experience) -> None:
        """Copy the weights as the anchor; the first net has none, and a further round keeps it."""
        if experience.again:
            return
        self._anchor = weights(self._setup.net) if self._learnt else {}

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return the cross-entropy and, from the second experience on, the transfer."""
        terms = replay(net, batch)
        if self._anchor:
            terms["transfer"] = self._strength * distance(net, self._anchor)
        return terms

    def finish(self, experience: Experience) -> None:
        """Note that a net has been learnt."""
        self._learnt = True

    def state_dict(self) -> dict[str, Any]:
        """Return whether a net has been learnt; between two experiences the anchor is the net itself."""
        return {"learnt": self._learnt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._learnt = state["learnt"]


class Imm(Around[Sgd]):
    """A learner of one net after the other that predicts with their average. Final.

    Each net begins at the one learnt before it, not at the average. While an experience is learnt, predictions are
    those of its own net. The average is updated after each experience, m ← m + p_t/Σp · (θ_t − m), so that memory does
    not grow with the tasks.

    Heads are not merged: the head's row of a class is that of the last experience that held the class (where all
    experiences share their classes, the last head). Running statistics of batch norm are no weights: they are those
    of the last net.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the L2-transfer.
        measure: The function that measures the precision p_t of each weight; None means equal precisions.
    """

    takes_terms: ClassVar[bool] = True
    takes_average: ClassVar[bool] = True

    def __init__(
        self,
        setup: Setup,
        *,
        strength: float,
        measure: Callable[[Setup, Exemplars], Weights] | None = None,
    ) -> None:
        super().__init__(setup, Sgd(setup, objective=Transfer(setup, strength)))
        self._measure = measure
        self._learning = True
        self._done = 0
        self._precision: Weights = {}
        self.merged: Weights = {}

    def begin(self, experience: Experience) -> None:
        """Begin at the net learnt last, not at the average."""
        self._learning = True
        super().begin(experience)

    def finish(self, experience: Experience) -> list[Terms]:
        """Merge the net just learnt into the average."""
        steps = super().finish(experience)
        self._learning = False
        self._done += 1
        new, share = weights(self.setup.net), self._share(experience)
        rows = torch.tensor(experience.classes, device=self.setup.device)
        for name, value in new.items():
            if self._done == 1:
                self.merged[name] = value
            elif name in HEAD:
                self.merged[name] = self.merged[name].index_copy(0, rows, value[rows])
            else:
                self.merged[name] = self.merged[name] + share[name] * (value - self.merged[name])
        return steps

    def _share(self, experience: Experience) -> Weights:
        """Return the share of the new net in each weight of the average, from 0 to 1."""
        if self._measure is None:
            return {name: torch.full_like(p, 1 / self._done) for name, p in weights(self.setup.net).items()}
        share = {}
        for name, value in self._measure(self.setup, experience.train).items():
            if name not in HEAD:
                old = self._precision.get(name)
                self._precision[name] = value + _LEAST if old is None else old + value + _LEAST
                share[name] = (value + _LEAST) / self._precision[name]
        return share

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Return logits of raw samples by the average, or by the net that is being learnt."""
        if self._learning:
            return super().predict(x, task)
        net = self.setup.net
        with evaluating(net), torch.no_grad(), self.setup.precision():
            return functional_call(net, self.merged, (self.setup.transform.plain(x), task))

    def features(self, x: Tensor, task: Tensor) -> Tensor:
        """Return features of raw samples by the average, or by the net that is being learnt."""
        if self._learning:
            return super().features(x, task)
        body = {name.removeprefix("body."): value for name, value in self.merged.items() if name not in HEAD}
        with evaluating(self.net), torch.no_grad(), self.setup.precision():
            return functional_call(self.net.body, body, (self.setup.transform.plain(x),)).float()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the net, the average and the precisions so far."""
        return {
            "sgd": self.inner.state_dict(),
            "done": self._done,
            "learning": self._learning,
            "merged": self.merged,
            "precision": self._precision,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["sgd"])
        self._done, self._learning = state["done"], state["learning"]
        self.merged, self._precision = (on_device(self.setup.net, state[name]) for name in ("merged", "precision"))
