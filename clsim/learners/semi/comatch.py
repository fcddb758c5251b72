"""CoMatch: guesses smoothed by a memory bank, and embeddings that are alike where guesses are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.learners.semi.pseudolabels import STRONG, WEAK
from clsim.learners.semi.unlabelled import Loss, SemiSgd, SemiStep, marginal
from clsim.objectives.guesses import Alignment, confident, one_hot
from clsim.randomness import derive
from clsim.streams.stream import Experience
from clsim.training.contract import Setup, Terms

SECOND = ("large-crop", "flip", "jitter")


class CoMatching(Loss):
    """The terms of CoMatch; see :func:`comatch`. Final.

    Args:
        setup: net, transform, generators.
        weak, strong, second: augmentations of the three views.
        smoothing: α.
        threshold, temperature, edge: τ, t, T.
        batches: how many steps the bank holds.
        width: of the embeddings.
        weight, contrast: λ_cls, λ_ctr.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        weak: Sequence[str],
        strong: Sequence[str],
        second: Sequence[str],
        smoothing: float,
        threshold: float,
        temperature: float,
        edge: float,
        batches: int,
        width: int,
        weight: float,
        contrast: float,
    ) -> None:
        if not 0 <= smoothing <= 1 or temperature <= 0 or batches < 1 or width < 1:
            raise InputError(
                f"learner.options: found smoothing {smoothing:g}, temperature {temperature:g}, batches {batches}, "
                f"width {width}; allowed: smoothing from 0 to 1, a temperature above 0, the others from 1"
            )
        self._setup, self._smoothing, self._threshold = setup, smoothing, threshold
        self._temperature, self._edge, self._weights = temperature, edge, (weight, contrast)
        self._weak = setup.transform.view(weak, "learner.options.weak")
        self._strong = setup.transform.view(strong, "learner.options.strong")
        self._second = setup.transform.view(second, "learner.options.second")
        self._bank: deque[tuple[Tensor, Tensor]] = deque(maxlen=batches)
        self._align: Alignment | None = None
        features = setup.net.head.in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(setup.spec.seed, "projection"))
            layers = [nn.Linear(features, features), nn.ReLU(inplace=True), nn.Linear(features, width)]
            self.beside = nn.Sequential(*layers).to(setup.device)

    def begin(self, experience: Experience) -> None:
        """An empty bank: what it held are guesses among fewer classes."""
        self._bank.clear()
        self._align = Alignment(marginal(self._setup, experience), 32)

    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """Labelled samples and three views pass together."""
        setup, rng, known, unlabelled = self._setup, self._setup.randomness.augment, step.labelled, step.unlabelled
        m, n = len(known), len(unlabelled)
        views = [
            self._weak(torch.cat([known.x, unlabelled.x]), rng),
            self._strong(unlabelled.x, rng),
            self._second(unlabelled.x, rng),
        ]
        features = setup.net.features(torch.cat(views))
        logits = setup.net.logits(features[: m + 2 * n], torch.cat([known.task, unlabelled.task, unlabelled.task]))
        by_label, weak, strong = logits.tensor_split([m, m + n])
        z = F.normalize(self.beside(features).float())
        if self._align is None:
            raise InputError("comatch: a step before the first experience began")
        guess = self._align(step.guess(weak))
        target = self._smoothed(guess, z[m : m + n].detach(), step.allowed)
        self._bank.append((z[: m + n].detach(), torch.cat([one_hot(known.y, guess.shape[1]), guess])))
        weight, contrast = self._weights
        terms = step.supervised(by_label, one_hot(known.y, guess.shape[1]))
        terms["unlabelled"] = weight * confident(target, step.among(strong), self._threshold, hard=False)
        terms["graph"] = contrast * graph_loss(
            target, z[m + n : m + 2 * n], z[m + 2 * n :], self._temperature, self._edge
        )
        return terms, m + 3 * n

    def _smoothed(self, guess: Tensor, z: Tensor, allowed: Tensor) -> Tensor:
        """α·p + (1 − α)·Σ_k a_k p_k, a = softmax(z · z_k / t) over the bank; p itself while it is empty."""
        if not self._bank:
            return guess
        embeddings, guesses = (torch.cat(parts) for parts in zip(*self._bank, strict=True))
        near = (z @ embeddings.T / self._temperature).softmax(1) @ guesses
        # where the task is known, neighbours may be of classes that it does not have
        return F.normalize((self._smoothing * guess + (1 - self._smoothing) * near) * allowed, p=1, dim=1)


def graph_loss(guess: Tensor, first: Tensor, second: Tensor, temperature: float, edge: float) -> Tensor:
    """Mean of H(Ŵ^q_b, Ŵ^z_b): the graph of embeddings is to be that of guesses.

    W^q_bj = q_b · q_j where that is at least T, and 0 elsewhere; 1 on the diagonal. W^z_bj = exp(z_b · z_j / t), on the
    diagonal exp(z_b · z'_b / t). Ŵ: rows of sum 1. No gradient reaches the guesses.

    The authors' code has z'_j in place of z_j off the diagonal.

    Args:
        guess: q, (n, classes).
        first, second: z and z', embeddings of two views, rows of norm 1.
        temperature, edge: t and T.

    Source: Li, Xiong & Hoi, CoMatch (ICCV 2021), section 3.2.
    """
    guess, own = guess.detach(), torch.eye(len(guess), dtype=torch.bool, device=guess.device)
    alike = guess @ guess.T
    wanted = alike.where(alike >= edge, 0).masked_fill(own, 1.0)
    logits = torch.where(own, (first * second).sum(1, keepdim=True), first @ first.T) / temperature
    return -(wanted / wanted.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()


def comatch(
    setup: Setup,
    *,
    weak: Sequence[str] = WEAK,
    strong: Sequence[str] = STRONG,
    second: Sequence[str] = SECOND,
    smoothing: float = 0.9,
    threshold: float = 0.95,
    temperature: float = 0.2,
    edge: float = 0.8,
    batches: int = 5,
    width: int = 64,
    weight: float = 1.0,
    contrast: float = 1.0,
    labelled: int = 0,
    ema: float = 0.999,
    freeze_norm: bool = False,
) -> SemiSgd:
    """CoMatch with replay: class probabilities and embeddings learn from each other.

    p is the aligned guess from the weak view (see :class:`Alignment`; aligned to the classes of the experience's
    labelled part, as :func:`clsim.learners.semi.mixing.remixmatch` has it), q = α·p + (1 − α)·Σ_k a_k p_k its smoothing
    by the embeddings in a bank of the last steps' weak views, labelled ones with their labels.

    L = CE(labelled ∪ memory) + λ_cls · mean of [max q ≥ τ] · H(q, f(strong u)) + λ_ctr · L_ctr, L_ctr of the strong
    view and a second one: :func:`graph_loss`.

    The authors' code aligns guesses to all classes alike, and smooths from the step on that finds the bank full.

    Args:
        weak, strong, second: augmentations of the views; see :data:`clsim.data.augmentation.AUGMENTATIONS`.
        smoothing: α.
        threshold, temperature, edge: τ, t, and T, from which guesses are joined by an edge.
        batches: how many steps the bank holds; it begins empty in each experience.
        width: of the embeddings; the projection head has one hidden layer as wide as the features.
        weight, contrast: λ_cls, λ_ctr.
        labelled, ema, freeze_norm: see :class:`SemiSgd`.

    Source: Li, Xiong & Hoi, CoMatch: Semi-supervised Learning with Contrastive Graph Regularization (ICCV 2021),
    section 3 and algorithm 1.
    """
    loss = CoMatching(
        setup,
        weak=weak,
        strong=strong,
        second=second,
        smoothing=smoothing,
        threshold=threshold,
        temperature=temperature,
        edge=edge,
        batches=batches,
        width=width,
        weight=weight,
        contrast=contrast,
    )
    return SemiSgd(setup, loss, name="comatch", labelled=labelled, ema=ema, freeze_norm=freeze_norm, beside=loss.beside)
