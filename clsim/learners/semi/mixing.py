"""MixMatch and ReMixMatch: sharpened guesses, and convex combinations of labelled and unlabelled samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.learners.semi.pseudolabels import WEAK, Augmentations
from clsim.learners.semi.unlabelled import Loss, SemiOptions, SemiSgd, SemiStep, marginal, ramp, still_norm
from clsim.objectives.among import narrowed
from clsim.objectives.guesses import Alignment, beta, mixed, one_hot, soft_cross_entropy, squared_error
from clsim.objectives.soft_neighbours import sharpen
from clsim.randomness import derive, own_draws
from clsim.spec.kinds import Few
from clsim.streams.stream import Experience
from clsim.training.contract import Setup, Terms


@dataclass(frozen=True)
class MixUp:
    """Options of the guesses from several views, and of the mixing of samples.

    Attributes:
        views: K, the views of each unlabelled sample; 8 in the paper of ReMixMatch.
        temperature: T, with which guesses are sharpened.
        alpha: α of the distribution Beta(α, α) that the shares of MixUp are drawn from.
    """

    views: Few = 2
    temperature: float = 0.5
    alpha: float = 0.75

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            InputError: naming the allowed ranges.
        """
        if self.views < 1 or self.temperature <= 0 or self.alpha <= 0:
            raise InputError(
                f"learner.options: found views {self.views}, temperature {self.temperature:g}, alpha {self.alpha:g}; "
                "allowed: views from 1, the others above 0"
            )


class Mixing(Loss):
    """The terms of MixMatch; see :func:`mixmatch`. Final.

    Args:
        setup: net, transform, generators.
        mix: Views, temperature and α.
        weak: Augmentations of the views; labelled samples get those of ``data.augment``.
        weight: The weight λ_u of the unlabelled samples.
        growth: The share of an experience's steps over which λ_u grows from 0.
    """

    def __init__(self, setup: Setup, mix: MixUp, *, weak: Sequence[str], weight: float, growth: float) -> None:
        mix.check()
        self._setup, self._mix = setup, mix
        self._weight, self._growth = weight, growth
        self._weak = setup.transform.view(weak, "learner.options.weak")

    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """Guess from the views first, then pass all mixed samples together."""
        known, unlabelled, rng = step.labelled, step.unlabelled, self._setup.randomness.augment
        views = self._weak(torch.cat([unlabelled.x] * self._mix.views), rng)
        return self.terms(step, self._setup.transform.train(known.x, rng), views)

    def terms(self, step: SemiStep, known: Tensor, views: Tensor) -> tuple[Terms, int]:
        """Compute the terms from augmented samples.

        Args:
            step: The samples before their augmentation.
            known: The augmented labelled samples, float32.
            views: All unlabelled samples in their first view, then all in the next, float32.
        """
        net, n, repeats = self._setup.net, len(step.unlabelled), self._mix.views
        task = step.unlabelled.task
        with torch.no_grad(), still_norm(net):
            logits = net(views, task.repeat(repeats))
        guess = torch.stack([step.guess(part) for part in logits.split(n)]).mean(0)
        target = sharpen(guess, self._mix.temperature)
        x, y, may = mixture(
            self._setup,
            torch.cat([known, views]),
            torch.cat([one_hot(step.labelled.y, logits.shape[1]), *[target] * repeats]),
            torch.cat([net.visible[step.labelled.task], *[step.allowed] * repeats]),
            self._mix.alpha,
        )
        found = narrowed(net.head(net.features(x)).float(), may)
        by_label, by_guess = found.tensor_split([len(known)])
        terms = step.supervised(by_label, y[: len(known)])
        weight = self._weight * ramp(step.progress, 0.0, self._growth)
        terms["unlabelled"] = weight * squared_error(y[len(known) :], by_guess)
        return terms, len(views) + len(x)


class Anchoring(Loss):
    """The terms of ReMixMatch; see :func:`remixmatch`. Final.

    Args:
        setup: net, transform, generators.
        mix: The number of strong views, temperature and α.
        augment: Weak augmentations of the anchor, strong ones of the other views; labelled samples get those of
            ``data.augment``.
        weights: The weights λ_u, λ_Û1 and λ_r.
        growth: The share of an experience's steps over which λ_u and λ_Û1 grow from 0.
    """

    def __init__(
        self, setup: Setup, mix: MixUp, augment: Augmentations, *, weights: tuple[float, float, float], growth: float
    ) -> None:
        mix.check()
        self._setup, self._mix, self._weights, self._growth = setup, mix, weights, growth
        self._weak, self._strong = augment.views(setup)
        self._align: Alignment | None = None
        with own_draws(derive(setup.spec.seed, "rotation")):
            self.beside = nn.Linear(setup.net.head.in_features, 4).to(setup.device)

    def begin(self, experience: Experience) -> None:
        """Take the experience's class frequencies for the alignment; refuse rotations of images that are not square."""
        shape = tuple(experience.train.x.shape[1:])
        if self._weights[2] and (len(shape) != 3 or shape[1] != shape[2]):
            raise InputError(
                f"learner.options.rotation: found {self._weights[2]:g} with samples of shape {shape}, "
                "allowed: 0, or square images"
            )
        self._align = Alignment(marginal(self._setup, experience), 128)

    def told(self, experience: Experience) -> None:
        """Take the class frequencies anew."""
        if self._align is not None:
            self._align.aim(marginal(self._setup, experience))

    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """Guess from the anchor, then pass mixed samples, first strong views and rotated ones together."""
        net, rng, n, m = self._setup.net, self._setup.randomness.augment, len(step.unlabelled), len(step.labelled)
        task = step.unlabelled.task
        anchor = self._weak(step.unlabelled.x, rng)
        known = self._setup.transform.train(step.labelled.x, rng)
        strong = self._strong(torch.cat([step.unlabelled.x] * self._mix.views), rng)
        with torch.no_grad(), still_norm(net):
            guess = step.guess(net(anchor, task))
        if self._align is None:
            raise InputError("remixmatch: a step before the first experience began")
        target = sharpen(self._align(guess), self._mix.temperature)
        repeats = self._mix.views + 1
        x, y, may = mixture(
            self._setup,
            torch.cat([known, strong, anchor]),
            torch.cat([one_hot(step.labelled.y, guess.shape[1]), *[target] * repeats]),
            torch.cat([net.visible[step.labelled.task], *[step.allowed] * repeats]),
            self._mix.alpha,
        )
        first = strong[:n]
        inputs, quarter = [x, first], torch.zeros(0, dtype=torch.int64, device=x.device)
        if self._weights[2]:
            quarter = torch.randint(4, (n,), generator=rng, device=x.device)
            inputs.append(turned(first, quarter))
        mixture_features, features, *rotated = net.features(torch.cat(inputs)).split(list(map(len, inputs)))
        found = narrowed(net.head(mixture_features).float(), may)
        terms = step.supervised(found[:m], y[:m])
        weight, unmixed, rotation = self._weights
        grown = ramp(step.progress, 0.0, self._growth)
        terms["unlabelled"] = weight * grown * soft_cross_entropy(found[m:], y[m:]).mean()
        terms["unmixed"] = unmixed * grown * soft_cross_entropy(step.among(net.head(features)), target).mean()
        for part in rotated:
            terms["rotation"] = rotation * F.cross_entropy(self.beside(part).float(), quarter)
        return terms, n + sum(map(len, inputs))


def mixture(setup: Setup, x: Tensor, y: Tensor, may: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mix each row with another row, at random: λ'·(x, y) + (1 − λ')·(x, y) of the other.

    λ' = max(λ, 1 − λ), λ ~ Beta(α, α) for each row, so that the row itself weighs most.

    Args:
        may: The classes among which each row is learnt, bool (n, classes).
        alpha: The parameter α.

    Returns:
        The mixed x and y, and the classes that either row may be learnt among.
    """
    rng = setup.randomness.memory
    share = beta(len(x), alpha, rng).to(x.device)
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(len(x), generator=rng).to(x.device)
    both = may | (may[other] & (share < 1)[:, None])
    return mixed(x, x[other], share), mixed(y, y[other], share), both


def turned(x: Tensor, quarter: Tensor) -> Tensor:
    """Turn square images, each by its own number of quarter turns."""
    every = torch.stack([torch.rot90(x, k, (2, 3)) for k in range(4)])
    return every[quarter, torch.arange(len(x), device=x.device)]


def mixmatch(
    setup: Setup,
    *,
    weak: Sequence[str] = WEAK,
    mix: MixUp = MixUp(),
    weight: float = 10.0,
    growth: float = 0.5,
    semi: SemiOptions = SemiOptions(),
) -> SemiSgd:
    """MixMatch with replay: guesses averaged over views and sharpened; labelled and unlabelled samples mixed.

    q = sharpen(mean of softmax f over K views, T), among the experience's classes (see :class:`SemiSgd`). W is all
    samples, labelled (with memory's) and unlabelled in each view, in a random order; each is mixed with one of W.
    L = mean H(p', f(x')) over what was labelled + λ_u · mean over the rest and over classes of (softmax f(x') − q')².

    Args:
        weak: Augmentations of unlabelled samples, by names as in ``data.augment``.
        mix: see :class:`MixUp`.
        weight: The weight λ_u of the unlabelled samples. The paper has 75 under Adam; steps of SGD depend on the scale
            of a loss.
        growth: The share of each experience over which λ_u grows from 0.
        semi: see :class:`SemiOptions`.

    Source: Berthelot et al., MixMatch: A Holistic Approach to Semi-Supervised Learning (NeurIPS 2019), algorithm 1.
    """
    loss = Mixing(setup, mix, weak=weak, weight=weight, growth=growth)
    return SemiSgd(setup, loss, name="mixmatch", options=semi)


def remixmatch(
    setup: Setup,
    *,
    augment: Augmentations = Augmentations(),
    mix: MixUp = MixUp(),
    weight: float = 1.5,
    unmixed: float = 0.5,
    rotation: float = 0.5,
    growth: float = 0.5,
    semi: SemiOptions = SemiOptions(),
) -> SemiSgd:
    """ReMixMatch with replay: MixMatch with aligned guesses, strong views anchored to a weak one, and rotations.

    q = sharpen(align(softmax f(weak u)), T); see :class:`Alignment`. Guesses are aligned to the frequencies
    of classes in the experience's labelled part, since unlabelled samples are of its classes (where they come from
    the whole stream: to equal frequencies). K views are strong; labelled samples, these and the weak
    view are mixed as in :func:`mixmatch`.

    L = mean H(p', f(x')) over what was labelled + λ_u · mean H(q', f(x')) over the rest + λ_Û1 · mean H(q, f(û_1)) +
    λ_r · mean CE(r(rotated û_1), quarters turned), û_1 the first strong view, r a head of its own.

    CTAugment is left out: the strong view is RandAugment with cutout, as in FixMatch. Labelled samples are strong in
    the paper; here they get the view that they have under every learner of the scenario.

    Args:
        augment: see :class:`Augmentations`.
        mix: see :class:`MixUp`.
        weight, unmixed, rotation: The weights λ_u, λ_Û1 and λ_r. Rotation needs square images.
        growth: The share of each experience over which λ_u and λ_Û1 grow from 0.
        semi: see :class:`SemiOptions`.

    Source: Berthelot et al., ReMixMatch: Semi-Supervised Learning with Distribution Alignment and Augmentation
    Anchoring (ICLR 2020), algorithm 1.
    """
    loss = Anchoring(setup, mix, augment, weights=(weight, unmixed, rotation), growth=growth)
    return SemiSgd(setup, loss, name="remixmatch", options=semi, beside=loss.beside)
