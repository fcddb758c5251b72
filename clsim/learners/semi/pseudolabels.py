"""Pseudo-label and FixMatch: the class that the net predicts for an unlabelled sample becomes its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clsim.data.augmentation import View
from clsim.errors import InputError
from clsim.learners.semi.unlabelled import Loss, SemiOptions, SemiSgd, SemiStep, ramp
from clsim.objectives.guesses import confident, one_hot
from clsim.training.contract import Setup, Terms

WEAK = ("large-crop", "flip")
STRONG = ("large-crop", "flip", "rand-augment", "cutout")


@dataclass(frozen=True)
class Augmentations:
    """The augmentations of two kinds of views; see :data:`clsim.data.augmentation.AUGMENTATIONS`.

    Attributes:
        weak: Augmentations of the view that is guessed from, by names as in ``data.augment``.
        strong: Augmentations of the view that learns from the guess, by names as in ``data.augment``.
    """

    weak: Sequence[str] = WEAK
    strong: Sequence[str] = STRONG

    def views(self, setup: Setup) -> tuple[View, View]:
        """Return the weak and the strong view of raw samples, as functions of samples and generator."""
        view = setup.transform.view
        return view(self.weak, "learner.options.weak"), view(self.strong, "learner.options.strong")


class PseudoLabels(Loss):
    """Lee's loss on the experience, beside exemplars from memory; see :func:`pseudo_label`. Final.

    Args:
        setup: net, transform, generators.
        weak: Augmentations of unlabelled samples; labelled ones get those of ``data.augment``.
        weight: The final value α_f of α(t).
        begin, end: The shares of an experience's steps between which α(t) grows linearly from 0.
    """

    def __init__(self, setup: Setup, *, weak: Sequence[str], weight: float, begin: float, end: float) -> None:
        if not 0 <= begin <= end <= 1:
            raise InputError(f"learner.options: found begin {begin:g} and end {end:g}, allowed: 0 ≤ begin ≤ end ≤ 1")
        self._setup, self._weight, self._ramp = setup, weight, (begin, end)
        self._weak = setup.transform.view(weak, "learner.options.weak")

    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """Pass labelled and unlabelled samples through the net together."""
        setup, known, unlabelled = self._setup, step.labelled, step.unlabelled
        rng = setup.randomness.augment
        x = torch.cat([setup.transform.train(known.x, rng), self._weak(unlabelled.x, rng)])
        by_label, by_guess = setup.net(x, torch.cat([known.task, unlabelled.task])).tensor_split([len(known)])
        terms = step.supervised(by_label, one_hot(known.y, by_label.shape[1]))
        # relative to the experience's labelled samples, which are only a part of the mean where memory adds exemplars
        weight = self._weight * ramp(step.progress, *self._ramp) * step.new / len(known)
        terms["unlabelled"] = weight * confident(step.guess(by_guess), step.among(by_guess), 0.0)
        return terms, len(x)


class Fixed(Loss):
    """L = CE(labelled) + λ_u · mean of [max q ≥ τ] · CE(f(strong u), argmax q), q = f(weak u); see :func:`fixmatch`.

    Final.

    Args:
        setup: net, transform, generators.
        augment: Augmentations of the two views; labelled samples get those of ``data.augment``.
        threshold: The least confidence τ of a guess that counts.
        weight: The weight λ_u of the unlabelled samples.
    """

    def __init__(self, setup: Setup, augment: Augmentations, *, threshold: float, weight: float) -> None:
        self._setup, self._threshold, self._weight = setup, threshold, weight
        self._weak, self._strong = augment.views(setup)

    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """Pass labelled samples and both views through the net together."""
        net, rng = self._setup.net, self._setup.randomness.augment
        known, unlabelled = step.labelled, step.unlabelled
        views = self._weak(unlabelled.x, rng), self._strong(unlabelled.x, rng)
        x = torch.cat([self._setup.transform.train(known.x, rng), *views])
        logits = net(x, torch.cat([known.task, unlabelled.task, unlabelled.task]))
        by_label, weak, strong = logits.tensor_split([len(known), len(known) + len(unlabelled)])
        terms = step.supervised(by_label, one_hot(known.y, logits.shape[1]))
        terms["unlabelled"] = self._weight * confident(step.guess(weak), step.among(strong), self._threshold)
        return terms, len(x)


def pseudo_label(
    setup: Setup,
    *,
    weak: Sequence[str] = WEAK,
    weight: float = 3.0,
    begin: float = 0.1,
    end: float = 0.6,
    semi: SemiOptions = SemiOptions(ema=0.0),
) -> SemiSgd:
    """Pseudo-label with replay: the likeliest class is an unlabelled sample's label, with a weight that grows.

    With m labelled samples of the experience and b exemplars in a step,

        L = m/(m + b) · (CE(labelled) + α(t) · CE(f(u), argmax f(u))) + b/(m + b) · CE(memory),

    each CE a mean: the paper's loss on the experience, in the mean that experience replay takes over new and old. α(t)
    grows from 0 to its end within each experience, since a net that has not learnt its classes yet guesses at random.

    Args:
        weak: Augmentations of unlabelled samples, by names as in ``data.augment``.
        weight: The final α, 3 in the paper: the weight of unlabelled against labelled samples of the experience.
        begin, end: Begin and end of the growth of α, as shares of an experience (in the paper 100 and 600 passes).
        semi: see :class:`SemiOptions`.

    Source: Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks (ICML
    2013 workshop), eq. 15 and 16.
    """
    loss = PseudoLabels(setup, weak=weak, weight=weight, begin=begin, end=end)
    return SemiSgd(setup, loss, name="pseudo-label", options=semi)


def fixmatch(
    setup: Setup,
    *,
    augment: Augmentations = Augmentations(),
    threshold: float = 0.95,
    weight: float = 1.0,
    semi: SemiOptions = SemiOptions(),
) -> SemiSgd:
    """FixMatch with replay: a confident guess on a weak view is the label of a strong view.

    L = CE(labelled ∪ memory) + λ_u · mean over all unlabelled samples of [max q ≥ τ] · CE(f(strong u), argmax q), q =
    softmax f(weak u) among the experience's classes (see :class:`SemiSgd`).

    Args:
        augment: see :class:`Augmentations`.
        threshold: The least confidence τ of a guess that counts; above 1 only labelled samples are learnt.
        weight: The weight λ_u of the unlabelled samples.
        semi: see :class:`SemiOptions`.

    Source: Sohn et al., FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence (NeurIPS 2020),
    eq. 3 and 4, with RandAugment and cutout.
    """
    loss = Fixed(setup, augment, threshold=threshold, weight=weight)
    return SemiSgd(setup, loss, name="fixmatch", options=semi)
