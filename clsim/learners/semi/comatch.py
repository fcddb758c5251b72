"""CoMatch: guesses smoothed by a memory bank, and embeddings that are similar where guesses are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.learners.semi.pseudolabels import Augmentations
from clsim.learners.semi.unlabelled import Loss, SemiOptions, SemiSgd, SemiStep, marginal
from clsim.objectives.guesses import Alignment, confident, one_hot
from clsim.randomness import derive, own_draws
from clsim.spec.kinds import Width
from clsim.streams.stream import Experience
from clsim.training.contract import Setup, Terms

SECOND = ("large-crop", "flip", "jitter")


@dataclass(frozen=True)
class Graph:
    """Options of the bank and of the graph, by which guesses and embeddings learn from each other.

    Attributes:
        smoothing: α, the share of the net's own guess in the smoothed one.
        temperature: t, by which the similarities of embeddings are divided.
        edge: T, the least similarity of two guesses that are joined by an edge.
        batches: The number of steps that the bank holds; it begins empty in each experience.
        width: The number of values in an embedding; the projection head has one hidden layer as wide as the features.
    """

    smoothing: float = 0.9
    temperature: float = 0.2
    edge: float = 0.8
    batches: int = 5
    width: Width = 64


class CoMatching(Loss):
    """The terms of CoMatch; see :func:`comatch`. Final.

    Args:
        setup: net, transform, generators.
        graph: Options of the bank and of the graph.
        augment: Augmentations of the weak and the strong view.
        second: Augmentations of the second strong view.
        threshold: The least confidence τ of a guess that counts.
        weight, contrast: The weights λ_cls and λ_ctr.
    """

    def __init__(
        self,
        setup: Setup,
        graph: Graph,
        augment: Augmentations,
        *,
        second: Sequence[str],
        threshold: float,
        weight: float,
        contrast: float,
    ) -> None:
        if not 0 <= graph.smoothing <= 1 or graph.temperature <= 0 or graph.batches < 1 or graph.width < 1:
            raise InputError(
                f"learner.options: found smoothing {graph.smoothing:g}, temperature {graph.temperature:g}, "
                f"batches {graph.batches}, width {graph.width}; "
                "allowed: smoothing from 0 to 1, a temperature above 0, the others from 1"
            )
        self._setup, self._graph = setup, graph
        self._threshold, self._weights = threshold, (weight, contrast)
        self._weak, self._strong = augment.views(setup)
        self._second = setup.transform.view(second, "learner.options.second")
        self._bank: deque[tuple[Tensor, Tensor]] = deque(maxlen=graph.batches)
        self._align: Alignment | None = None
        features = setup.net.head.in_features
        with own_draws(derive(setup.spec.seed, "projection")):
            layers = [nn.Linear(features, features), nn.ReLU(inplace=True), nn.Linear(features, graph.width)]
            self.beside = nn.Sequential(*layers).to(setup.device)

    def begin(self, experience: Experience) -> None:
        """Empty the bank, whose guesses are among the classes of earlier experiences."""
        self._bank.clear()
        self._align = Alignment(marginal(self._setup, experience), 32)

    def told(self, experience: Experience) -> None:
        """Take the experience's class frequencies anew."""
        if self._align is not None:
            self._align.aim(marginal(self._setup, experience))

    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """Pass labelled samples and three views through the net together."""
        graph, setup, rng, known, unlabelled = (
            self._graph,
            self._setup,
            self._setup.randomness.augment,
            step.labelled,
            step.unlabelled,
        )
        m, n = len(known), len(unlabelled)
        views = [
            setup.transform.train(known.x, rng),
            self._weak(unlabelled.x, rng),
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
            target, z[m + n : m + 2 * n], z[m + 2 * n :], graph.temperature, graph.edge
        )
        return terms, m + 3 * n

    def _smoothed(self, guess: Tensor, z: Tensor, allowed: Tensor) -> Tensor:
        """Return α·p + (1 − α)·Σ_k a_k p_k, a = softmax(z · z_k / t) over the bank; p itself while it is empty."""
        if not self._bank:
            return guess
        alpha = self._graph.smoothing
        embeddings, guesses = (torch.cat(parts) for parts in zip(*self._bank, strict=True))
        near = (z @ embeddings.T / self._graph.temperature).softmax(1) @ guesses
        # where the task is known, neighbours may be of classes that it does not have
        return F.normalize((alpha * guess + (1 - alpha) * near) * allowed, p=1, dim=1)


def graph_loss(guess: Tensor, first: Tensor, second: Tensor, temperature: float, edge: float) -> Tensor:
    """Return the mean of H(Ŵ^q_b, Ŵ^z_b), which draws the graph of embeddings to that of guesses.

    W^q_bj = q_b · q_j where that is at least T, and 0 elsewhere; 1 on the diagonal. W^z_bj = exp(z_b · z_j / t), on the
    diagonal exp(z_b · z'_b / t). Ŵ: rows of sum 1. No gradient reaches the guesses.

    The authors' code has z'_j in place of z_j off the diagonal.

    Args:
        guess: The guesses q, (n, classes).
        first, second: The embeddings z and z' of two views, with rows of norm 1.
        temperature, edge: The constants t and T.

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
    augment: Augmentations = Augmentations(),
    second: Sequence[str] = SECOND,
    threshold: float = 0.95,
    graph: Graph = Graph(),
    weight: float = 1.0,
    contrast: float = 1.0,
    semi: SemiOptions = SemiOptions(),
) -> SemiSgd:
    """CoMatch with replay: class probabilities and embeddings learn from each other.

    p is the aligned guess from the weak view (see :class:`Alignment`; aligned to the classes of the experience's
    labelled part, as in :func:`clsim.learners.semi.mixing.remixmatch`), q = α·p + (1 − α)·Σ_k a_k p_k its smoothing
    by the embeddings in a bank of the last steps' weak views, labelled ones with their labels.

    L = CE(labelled ∪ memory) + λ_cls · mean of [max q ≥ τ] · H(q, f(strong u)) + λ_ctr · L_ctr, L_ctr of the strong
    view and a second one: :func:`graph_loss`.

    The authors' code aligns guesses to all classes alike, and smooths from the step on that finds the bank full.

    Args:
        augment: see :class:`Augmentations`.
        second: Augmentations of the second strong view.
        threshold: The least confidence τ of a guess that counts.
        graph: see :class:`Graph`.
        weight, contrast: The weights λ_cls and λ_ctr.
        semi: see :class:`SemiOptions`.

    Source: Li, Xiong & Hoi, CoMatch: Semi-supervised Learning with Contrastive Graph Regularization (ICCV 2021),
    section 3 and algorithm 1.
    """
    loss = CoMatching(setup, graph, augment, second=second, threshold=threshold, weight=weight, contrast=contrast)
    return SemiSgd(setup, loss, name="comatch", options=semi, beside=loss.beside)
