"""BiC: replay and distillation, then a correction of the bias towards new classes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import Tensor

from clsim.errors import InputError, at_least
from clsim.learners.sgd import Sgd
from clsim.models.nets import evaluating
from clsim.objectives.among import members
from clsim.objectives.bias import Correction, Proportional, fitted
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Setup, Terms


class Bic(Around[Sgd]):
    """Bias correction: the logits of the newest classes are rescaled, q = α·o + β, before they are compared. Final.

    1. L = (1 − λ)·CE + λ·KL(softmax(q°/T) ‖ softmax(o/T)) on new ∪ replayed samples, λ = n / (n + m); see
       :class:`clsim.objectives.bias.Proportional`.
    2. With the net fixed, α and β are those under which the labels of a small balanced validation set are likeliest;
       see :func:`clsim.objectives.bias.fitted`. Predictions after the experience are corrected by them, and so are
       the answers that the next experience distils. Each experience corrects its own classes alone.

    The validation set is drawn when an experience begins (from the generator of the order): of each old class a
    ``validation`` share of its part of the memory, at least one and at most half of its exemplars, and as many of each
    new class. Within the experience these samples weigh nothing in the loss; a net with batch norm sees them in its
    statistics. Nothing is kept beside the memory for it: an exemplar drawn may have been learnt from in an earlier
    experience, where the paper sets some exemplars aside for good.

    Where the task is known, old and new classes are never compared: no sample is held out, nothing is corrected. The
    first experience, one without exemplars of old classes, and one that holds all classes again have no correction.
    While an experience is learnt, predictions are the net's logits.

    Args:
        setup: net, memory, transform, generators.
        temperature: The temperature T.
        validation: The share of the exemplars that is held out; 0 means no correction.
        ridge: The strength ρ of a regularisation that the paper does not have. It keeps α and β finite where the
            validation set is predicted without error.

    Cost: 1 M kept; a second forward pass in each step.

    Source: Wu et al., Large Scale Incremental Learning (CVPR 2019), eq. 1-5.
    """

    takes_terms: ClassVar[bool] = True
    takes_average: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, temperature: float = 2.0, validation: float = 0.1, ridge: float = 1e-3) -> None:
        at_least(0, "bic: ", ridge=ridge)
        if not 0 <= validation < 1:
            raise InputError(f"bic: validation: found {validation:g}, allowed: a share from 0 to below 1")
        self._objective = Proportional(setup, temperature=temperature)
        super().__init__(setup, Sgd(setup, objective=self._objective))
        self._validation = validation
        self._ridge = ridge
        self._learning = True
        self.held_out: Exemplars | None = None

    @property
    def correction(self) -> Correction:
        """The correction of the net at the end of the last experience."""
        return self._objective.correction

    def begin(self, experience: Experience) -> None:
        """Draw the validation set."""
        self._learning = True
        super().begin(experience)
        self.held_out = self._split(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step in which held-out samples have weight 0."""
        old = self.setup.memory.sample(batch, self.setup.pool).exemplars
        return self.inner.step(self._weighed(batch), None if old is None else self._weighed(old))

    def finish(self, experience: Experience) -> list[Terms]:
        """Fit the correction."""
        steps = super().finish(experience)
        held_out, old = self.held_out, self._objective.old
        self._learning, self.held_out = False, None
        if held_out is not None:
            new = members(experience.classes, old)
            logits = self._logits(held_out)
            self._objective.correction = fitted(logits, held_out.y, new, old | new, self._ridge)
        return steps

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Return logits of raw samples, corrected where no experience is being learnt."""
        logits = super().predict(x, task)
        return logits if self._learning else self.correction(logits)

    def _logits(self, samples: Exemplars) -> Tensor:
        setup = self.setup
        setup.cost.forward_passes += len(samples)
        with evaluating(setup.net), torch.no_grad(), setup.precision():
            return setup.net(setup.transform.plain(samples.x), samples.task)

    def _split(self, experience: Experience) -> Exemplars | None:
        """Draw equally many samples of each old and new class; None where old and new are not compared."""
        memory, old = self.setup.memory.exemplars, self._objective.old.nonzero().flatten().tolist()
        if memory is None or not old or self.setup.net.masked or not self._validation:
            return None
        most = max(round(self._validation * len(memory) / len(old)), 1)
        kept = self._some(memory, old, most)
        return concatenate([kept, self._some(experience.train, experience.classes, most)]) if len(kept) else None

    def _some(self, samples: Exemplars, classes: list[int] | tuple[int, ...], most: int) -> Exemplars:
        """Draw at most ``most`` samples of each class, and no more than half of the class."""
        order = torch.randperm(len(samples), generator=self.setup.randomness.order).to(samples.device)
        rows = []
        for label in classes:
            members = order[samples.y[order] == label]
            rows.append(members[: min(most, len(members) // 2)])
        return samples[torch.cat(rows)]

    def _weighed(self, samples: Exemplars) -> Exemplars:
        """Return the samples with weight 0 for those held out; shapes stay the same."""
        if self.held_out is None:
            return samples
        held_out = (_identity(samples)[:, None] == _identity(self.held_out)).any(1)
        weight = torch.ones_like(samples.key) if samples.weight is None else samples.weight
        return dataclasses.replace(samples, weight=weight.masked_fill(held_out, 0.0))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the net, the old net and its correction; no validation set is left."""
        return {"sgd": self.inner.state_dict(), "learning": self._learning}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["sgd"])
        self._learning = state["learning"]


def _identity(samples: Exemplars) -> Tensor:
    """Return a number for each sample, int64 (n,), from its row in the data set and its task."""
    return samples.task * 2**40 + samples.index
