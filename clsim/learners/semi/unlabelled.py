"""The learner of semi-supervised methods that are a sum of losses: labelled, replayed and unlabelled samples a step."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
    """What one step learns from, raw.

    Attributes:
        labelled: of the current experience, then from memory.
        new: how many of them are of the current experience: the first ones.
        unlabelled: y = −1.
        allowed: bool (n, classes), the classes among which each unlabelled sample is guessed and learnt, of those
            that its task may use; see :class:`SemiSgd`.
        progress: the share of the experience's steps that is behind, from 0 to below 1.
    """

    labelled: Exemplars
    new: int
    unlabelled: Exemplars
    allowed: Tensor
    progress: float

    def among(self, logits: Tensor) -> Tensor:
        """The same logits (n, classes) of the unlabelled samples, −inf for the classes that are not allowed."""
        return logits.float().masked_fill(~self.allowed, -torch.inf)

    def guess(self, logits: Tensor) -> Tensor:
        """Probabilities (n, classes) of the unlabelled samples, among the classes allowed; no gradient reaches them."""
        return self.among(logits.detach()).softmax(1)

    def supervised(self, logits: Tensor, target: Tensor) -> Terms:
        """The weighted mean cross-entropy of the labelled samples, as :func:`clsim.objectives.replay.replay` has it."""
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
            code: unlabelled samples are of the current classes alone, and their statistics would not fit the others.
    """

    labelled: int = 0
    ema: float = 0.999
    freeze_norm: bool = False


class Loss(ABC):
    """What a method minimises. Abstract.

    Nothing of it outlasts an experience but the modules that the learner saves.
    """

    def begin(self, experience: Experience) -> None:  # noqa: B027 - most losses have nothing to prepare
        """Prepare for an experience, before its first step."""

    @abstractmethod
    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """The terms, and how many samples went forward through the net for them."""


class SemiSgd(Learner):
    """Gradient steps on labelled samples, exemplars from memory, and unlabelled samples. Final.

    Batches are of unlabelled samples. Each comes with labelled ones of the same experience, and with as many exemplars
    as ``memory.batch_size``, as the retrieval chooses them: without its unlabelled terms this is experience replay on
    the labelled part. Without a memory nothing is replayed.

    What is guessed and learnt of unlabelled samples is among the experience's classes, of which they are (as in CSL, of
    NNCSL's paper); where they come from the whole stream (``labels.unlabelled``), among all classes seen so far. Among
    all classes, samples of new classes would be guessed to be of old ones, which the net knows well; and many samples
    that are all of new classes would teach it that nothing is of an old one.

    The averaged net is w̄ ← βw̄ + (1 − β)w after each step, β = min(ema, (1 + t) / (10 + t)) at step t of the
    experience, so that it follows where experiences are short; it predicts, a memory is filled by its features, and
    statistics of batch norm are the net's. A retrieval sees the net itself, which the step is of.

    Args:
        setup: net, memory, transform, generators.
        loss: of the method.
        name: of the learner, for messages.
        options: see :class:`SemiOptions`.
        beside: a further module that learns along.

    Source: Tarvainen & Valpola, Mean teachers are better role models (NeurIPS 2017), for the average.
    """

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
        """The averaged net, if there is one."""
        return self._average

    def incoming(self, experience: Experience) -> Exemplars:
        """The unlabelled part."""
        if experience.unlabelled is None:
            raise InputError(
                f"learner: {self._name} learns from unlabelled samples, and experience {experience.position + 1} has "
                "none; allowed: fewer labels, or labels.include_labelled = true"
            )
        return experience.unlabelled

    def begin(self, experience: Experience) -> None:
        """A fresh schedule."""
        self._labelled.begin(experience)
        self._step, self._steps = 0, self.setup.steps(self.incoming(experience))
        self._sgd.schedule(self._steps)
        for module in (self.setup.net, self._beside):
            module.train()
            if self._options.freeze_norm and self._experiences:
                freeze_norm(module)
        self.loss.begin(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """One step."""
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
        """Another experience is over."""
        self._experiences += 1
        return []

    def state_dict(self) -> dict[str, Any]:
        """Net, averaged net, optimizer, what learns along, and which classes and how many experiences were seen."""
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
        for mean, w in zip(self._average.parameters(), net.parameters(), strict=True):
            mean.lerp_(w, share)
        for kept, now in zip(self._average.buffers(), net.buffers(), strict=True):
            kept.copy_(now)


def marginal(setup: Setup, experience: Experience) -> Tensor:
    """float32 (classes,): how frequent classes are expected to be among the unlabelled samples.

    As in the experience's labelled part; where unlabelled samples come from the whole stream, all alike.
    """
    classes = setup.net.visible.shape[1]
    if setup.spec.labels.unlabelled == "stream":
        return torch.full((classes,), 1 / classes, device=setup.device)
    return experience.train.y.bincount(minlength=classes).float() / len(experience.train)


def ramp(progress: float, begin: float, end: float) -> float:
    """From 0 at ``begin`` of an experience to 1 at its ``end``, linearly; a step where they are the same.

    >>> [ramp(progress, 0.25, 0.75) for progress in (0.0, 0.25, 0.5, 0.9)]
    [0.0, 0.0, 0.5, 1.0]
    """
    return float(progress >= begin) if end <= begin else min(max((progress - begin) / (end - begin), 0.0), 1.0)


@contextmanager
def still_norm(net: nn.Module) -> Iterator[None]:
    """Inside, batch norm uses the statistics of the batch as in training, and leaves the running ones as they are."""
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
