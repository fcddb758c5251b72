"""The learner of semi-supervised methods whose steps are on labelled, replayed and unlabelled samples."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clsim.errors import InputError
from clsim.learners.semi.heads import freeze_norm
from clsim.learners.semi.labelled import Labelled
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net
from clsim.objectives.guesses import soft_replay
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Learner, Setup, Terms


@dataclass(frozen=True)
class SemiStep:
    """The raw samples of one step.

    Attributes:
        labelled: The labelled samples of the current experience, then those from memory.
        new: The number of labelled samples that are of the current experience.
        unlabelled: The unlabelled samples, with y = −1.
        allowed: The classes among which each unlabelled sample is guessed and learnt, bool (n, classes), of those that
            its task may use; see :class:`SemiSgd`.
        progress: The share of the experience's steps that have been taken, from 0 to below 1.
    """

    labelled: Exemplars
    new: int
    unlabelled: Exemplars
    allowed: Tensor
    progress: float

    def among(self, logits: Tensor) -> Tensor:
        """Return the unlabelled samples' logits (n, classes) with −inf for classes that are not allowed."""
        return logits.float().masked_fill(~self.allowed, -torch.inf)

    def guess(self, logits: Tensor) -> Tensor:
        """Return the unlabelled samples' probabilities (n, classes) among the classes allowed, without gradient."""
        return self.among(logits.detach()).softmax(1)

    def supervised(self, logits: Tensor, target: Tensor) -> Terms:
        """Return the weighted mean cross-entropy of labelled samples; see :func:`clsim.objectives.replay.replay`."""
        known = self.labelled
        batch = Batch(known.x, known.y, known.task, self.new, known.weight)
        return soft_replay(logits, target, batch)


@dataclass(frozen=True)
class SemiOptions:
    """Options of :class:`SemiSgd`, which the methods that use it share.

    Attributes:
        labelled: Labelled samples of the experience in each step; 0 means as many as unlabelled ones, at most all.
        ema: The largest β of the averaged net; 0 means that the net itself predicts.
        freeze_norm: Whether the statistics of batch norm stay as the first experience left them, as in NNCSL's released
            code but in no paper; scales and shifts still learn.
    """

    labelled: int = 0
    ema: float = 0.999
    freeze_norm: bool = False


class Loss(ABC):
    """The loss that a method minimises. Abstract.

    A loss keeps no state from one experience to the next, except in modules that the learner saves.
    """

    def begin(self, experience: Experience) -> None:  # noqa: B027 - most losses have nothing to prepare
        """Prepare for an experience, before its first step."""

    def told(self, experience: Experience) -> None:  # noqa: B027 - most losses go by the samples of a step
        """Take note that labels have come during training; see :meth:`clsim.training.contract.Learner.told`."""

    @abstractmethod
    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """Return the terms, and the number of samples that went forward through the net for them."""


class SemiSgd(Learner):
    """Gradient steps on labelled samples, exemplars from memory, and unlabelled samples. Final.

    Batches hold unlabelled samples. Each step adds labelled samples of the same experience, and ``memory.batch_size``
    exemplars that the retrieval chooses; without the unlabelled terms it is a step of experience replay on the labelled
    part. Without a memory nothing is replayed.

    Unlabelled samples are guessed and learnt among the classes of the experience, which they belong to (as in CSL, of
    NNCSL's paper); where they come from the whole stream (``labels.unlabelled``), among all classes seen so far. Among
    all classes, the net would guess old classes, which it knows well, for samples of new ones, and many samples of new
    classes alone would teach it never to predict an old one.

    The averaged net is w̄ ← βw̄ + (1 − β)w after each step, with β = min(ema, (1 + t) / (10 + t)) at step t of the
    experience, so that the average also follows short experiences. Predictions and the features that fill a memory are
    those of the averaged net; its statistics of batch norm are copied from the net itself. A retrieval uses the net
    itself.

    Args:
        setup: net, memory, transform, generators.
        loss: The loss of the method.
        name: The name of the learner, for messages.
        options: The options of the learner; see :class:`SemiOptions`.
        beside: A further module whose parameters are trained with the net's.

    Source: Tarvainen & Valpola, Mean teachers are better role models (NeurIPS 2017), for the average.
    """

    takes_late_labels: ClassVar[bool] = True

    def __init__(
        self,
        setup: Setup,
        loss: Loss,
        *,
        name: str,
        options: SemiOptions,
        beside: nn.Module | None = None,
    ) -> None:
        if options.labelled < 0 or not 0 <= options.ema < 1:
            raise InputError(f"{name}: allowed: labelled from 0, ema from 0 to below 1")
        super().__init__(setup)
        self.loss, self._name = loss, name
        self._options, self._ema = options, options.ema
        self._labelled = Labelled(setup, name, "experience" if setup.spec.labels.unlabelled == "own" else "seen")
        self._beside = nn.Sequential() if beside is None else beside
        self._sgd = Sgd(setup, beside=self._beside)
        self._average: Net = copy.deepcopy(setup.net).eval() if options.ema else setup.net
        self._experiences = self._step = self._steps = 0

    @property
    def net(self) -> Net:
        """The averaged net, or without one the net itself."""
        return self._average

    def incoming(self, experience: Experience) -> Exemplars:
        """Return the unlabelled part of the experience."""
        if experience.unlabelled is None:
            raise InputError(
                f"learner: {self._name} learns from unlabelled samples, and experience {experience.position + 1} has "
                "none; allowed: fewer labels, or labels.include_labelled = true"
            )
        return experience.unlabelled

    def begin(self, experience: Experience) -> None:
        """Start the learning-rate schedule, and prepare loss and labelled samples."""
        self._labelled.begin(experience)
        self._step, self._steps = 0, self.setup.steps(experience)
        self._sgd.schedule(self._steps, self.setup.epoch(experience))
        for module in (self.setup.net, self._beside):
            module.train()
            if self._options.freeze_norm and self._experiences:
                freeze_norm(module)
        self.loss.begin(experience)

    def told(self, experience: Experience) -> None:
        """Draw labelled samples from those that are there now."""
        self._labelled.told(experience)
        self.loss.told(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step on unlabelled samples, labelled ones and exemplars."""
        setup = self.setup
        current = self._labelled.batch(min(self._options.labelled or len(batch), self._labelled.now), past=False)
        old = setup.memory.sample(current, setup.pool).exemplars
        known = current if old is None else concatenate([current, old])
        allowed = setup.net.visible[batch.task] & self._labelled.classes.of_new(batch.y)
        with setup.precision():
            terms, passed = self.loss(SemiStep(known, len(current), batch, allowed, self._step / self._steps))
        terms = self._sgd.descend(terms, passed)
        if self._ema:
            self._follow()
        self._step += 1
        return terms

    def finish(self, experience: Experience) -> list[Terms]:
        """Count the experience as learnt."""
        self._experiences += 1
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return the state of net, averaged net, optimizer and ``beside``, and the classes and experiences seen."""
        average = {"average": self._average.state_dict()} if self._ema else {}
        return {
            "sgd": self._sgd.state_dict(),
            "seen": self._labelled.classes.seen,
            "experiences": self._experiences,
            **average,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sgd.load_state_dict(state["sgd"])
        self._labelled.classes.seen.copy_(state["seen"])
        self._experiences = state["experiences"]
        if self._ema:
            self._average.load_state_dict(state["average"])

    @torch.no_grad()
    def _follow(self) -> None:
        net, share = self.setup.net, 1 - min(self._ema, (1 + self._step) / (10 + self._step))
        torch._foreach_lerp_(list(self._average.parameters()), list(net.parameters()), share)
        for kept, now in zip(self._average.buffers(), net.buffers(), strict=True):
            kept.copy_(now)


def marginal(setup: Setup, experience: Experience) -> Tensor:
    """Return the expected frequencies of classes among the unlabelled samples, float32 (classes,).

    They are those of the experience's labelled part, or equal where unlabelled samples come from the whole stream. A
    class without a label has frequency 0, and a selector's labels need not be as frequent as the classes.
    """
    classes = setup.net.visible.shape[1]
    if setup.spec.labels.unlabelled == "stream":
        return torch.full((classes,), 1 / classes, device=setup.device)
    return experience.train.y.bincount(minlength=classes).float() / len(experience.train)


def ramp(progress: float, begin: float, end: float) -> float:
    """Rise linearly from 0 at ``begin`` of an experience to 1 at its ``end``, or in one step if these are equal.

    >>> [ramp(progress, 0.25, 0.75) for progress in (0.0, 0.25, 0.5, 0.9)]
    [0.0, 0.0, 0.5, 1.0]
    """
    return float(progress >= begin) if end <= begin else min(max((progress - begin) / (end - begin), 0.0), 1.0)


@contextmanager
def still_norm(net: nn.Module) -> Iterator[None]:
    """Let batch norm use the statistics of the batch, as in training, without updating the running statistics."""
    layers = [
        layer
        for layer in net.modules()
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.training and layer.track_running_stats
    ]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
